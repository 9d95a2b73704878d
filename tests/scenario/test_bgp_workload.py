"""A workload that speaks BGP to its host (a VNF): its own service addresses reach other hosts, and nothing else that it says does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from bgp_world import World, blocks, peer, pool, until

from tabinet.bgp.restart import bird_command
from tabinet.model import resources as r
from tabinet.model.keys import ResourceKey

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

VNF = """router id 10.65.1.1;
protocol device {}
protocol static { ipv4; route 203.0.113.0/28 blackhole; route 198.51.100.0/24 blackhole; route 0.0.0.0/0 via 169.254.1.1; }
protocol static { ipv6; route 2001:db8:7::/64 blackhole; route 2001:db8:8::/64 blackhole; }
protocol bgp host4 { local 10.65.1.1 as 65300; neighbor 169.254.1.1 as 64512; multihop; connect delay time 1; connect retry time 1;
  ipv4 { import all; export where source = RTS_STATIC; next hop self; };
  ipv6 { import all; export where source = RTS_STATIC; next hop self; next hop address fd00:65:1::1; }; }
"""

SEPARATE = """protocol bgp host6 { local fd00:65:1::1 as 65300; neighbor fd00:169::1 as 64512; multihop; connect retry time 1;
  ipv6 { import all; export where source = RTS_STATIC; next hop self; }; }
"""


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    try:
        for name in ("h1", "h2"):
            world.add(name)
        world.segment("lan", {name: (f"10.7.0.{n}/24", f"fd00:7::{n}/64") for n, name in enumerate(("h1", "h2"), 1)})
        world.resources.pools |= {"v4": pool("10.65.0.0/16"), "v6": pool("fd00:65::/32")}
        for n, name in enumerate(("h1", "h2"), 1):
            world.host(name, ipv4_address=f"10.7.0.{n}/24", ipv6_address=f"fd00:7::{n}/64")
            world.resources.blocks[name] = blocks(f"10.65.{n}.0/26", f"fd00:65:{n}::/122")
            world.workload(name, f"w{n}", f"10.65.{n}.1", f"fd00:65:{n}::1")
        spec = r.WorkloadEndpointSpec(
            node="h1",
            interface_name="tbw1",
            ip_networks=("10.65.1.1/32", "fd00:65:1::1/128"),
            allow_spoofed_source_prefixes=("203.0.113.0/24", "2001:db8:7::/48"),
        )
        endpoint = r.WorkloadEndpoint(metadata=r.Metadata(labels={"app": "router"}), spec=spec)
        world.resources.endpoints["h1"] = {ResourceKey("WorkloadEndpoint", "h1-lab-w1-eth0", "nfv"): endpoint}
        world.resources.peers["vnf"] = peer(local_workload_selector="app == 'router'", as_number=65300)
        yield world
    finally:
        world.close()


def test_a_router_in_a_workload(lan: World) -> None:
    home = lan.home("w1")
    (home / "bird.conf").write_text(VNF)
    argv = bird_command("/usr/sbin/bird", home / "bird.conf", home / "bird.ctl", home / "bird.pid", recover=False)
    lan.start("w1", "bird", argv)
    lan.exec("w1", "ip", "addr", "add", "203.0.113.1/32", "dev", "lo")
    lan.exec("w1", "ip", "-6", "addr", "add", "2001:db8:7::1/128", "dev", "lo")
    lan.configure()
    took = lan.wait_up()
    one, two = lan.hosts["h1"], lan.hosts["h2"]
    assert len(one.sessions()) == 3
    took += until(lambda: two.hops("203.0.113.0/28") == ["10.7.0.1"] and two.hops("2001:db8:7::/64") == ["fd00:7::1"])
    print(f"a service address of a workload at the other host: {took:.1f} s")
    assert one.hops("203.0.113.0/28") == ["10.65.1.1"]
    for forbidden in ("198.51.100.0/24", "0.0.0.0/0", "2001:db8:8::/64"):
        assert one.hops(forbidden) == two.hops(forbidden) == []
    for address in ("203.0.113.1", "2001:db8:7::1"):
        lan.exec("w2", "ping", "-c1", "-W2", address)
    # With an address of its own for IPv6 there is a session of its own.
    lan.ip("h1", "addr add fd00:169::1/128 dev lo")
    lan.resources.configurations["default"] = r.BGPConfigurationSpec(local_workload_peering_ip_v6="fd00:169::1")
    (home / "bird.conf").write_text(VNF + SEPARATE)
    lan.exec("w1", "birdc", "-s", str(home / "bird.ctl"), "configure")
    lan.configure()
    lan.wait_up()
    assert len(one.sessions()) == 4
    until(lambda: two.hops("2001:db8:7::/64") == ["fd00:7::1"])
    # The endpoint goes, and with it what it announced.
    lan.resources.endpoints["h1"].clear()
    lan.configure()
    until(lambda: two.hops("203.0.113.0/28") == [] and one.hops("203.0.113.0/28") == [])
    assert one.down() == []

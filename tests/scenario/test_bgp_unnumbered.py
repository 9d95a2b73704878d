"""Unnumbered links (RFC 8950): two top-of-rack routers with nothing configured but the interfaces, and BIRD to BIRD."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from bgp_world import World, blocks, peer, pool, until

from tabinet.lab.traffic import FlowSpec, start_traffic
from tabinet.model import resources as r

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

BLOCKS = ("10.65.2.0/26", "fd00:65:2::/122")
"""Of h2."""
EXTERNAL = {"tabinet.io/remote-as": "external"}


def tor(world: World, name: str, number: int, *hosts: str) -> None:
    sessions = []
    for host in hosts:
        head = f" neighbor {host}"
        sessions += [f"{head} interface remote-as external", f"{head} bfd profile fabric", f"{head} timers 3 9", f"{head} timers connect 1"]
    world.frr(
        name,
        f"router bgp {number}",
        f" bgp router-id 10.254.1.{number % 100}",
        " no bgp ebgp-requires-policy",
        " bgp bestpath as-path multipath-relax",
        *sessions,
        " address-family ipv6 unicast",
        *(f"  neighbor {host} activate" for host in hosts),
        " exit-address-family",
    )


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[World]:
    """h1 and h2 hang on tor1 and tor2 by two cables each, and h2 and h3 on each other by one. No interface has an address."""
    world = World(tmp_path)
    try:
        for n in (1, 2, 3):
            world.add(f"h{n}", f"10.254.0.{n}/32", f"fd00:254::{n}/128")
        for n in (1, 2):
            world.add(f"tor{n}", f"10.254.1.{10 + n}/32")
            world.link(f"tor{n}", "h1")
            world.link(f"tor{n}", "h2")
        world.link("h2", "h3")
        for n in (1, 2):
            tor(world, f"tor{n}", 65110 + n, "h1", "h2")
        world.resources.pools |= {"v4": pool("10.65.0.0/16"), "v6": pool("fd00:65::/32")}
        world.resources.configurations["default"] = r.BGPConfigurationSpec(node_to_node_mesh_enabled=False)
        selected = {"node_selector": "has(racked)", "peer_ip": "fe80::", "as_number": 65000}
        world.resources.peers["uplinks"] = peer(EXTERNAL | {"tabinet.io/interfaces": "tor1, tor2"}, **selected)
        world.resources.peers["down"] = peer({"tabinet.io/interfaces": "h3"}, node="h2", peer_ip="fe80::", as_number=4200000003)
        world.resources.peers["up"] = peer({"tabinet.io/interfaces": "h2"}, node="h3", peer_ip="fe80::", as_number=4200000002)
        for n in (1, 2, 3):
            name = f"h{n}"
            world.host(name, ipv4_address=f"10.254.0.{n}/32", ipv6_address=f"fd00:254::{n}/128", as_number=4200000000 + n)
            if n < 3:
                node = world.resources.nodes[name]
                world.resources.nodes[name] = r.Node(metadata=r.Metadata(labels={"racked": ""}), spec=node.spec)
            world.resources.blocks[name] = blocks(f"10.65.{n}.0/26", f"fd00:65:{n}::/122")
            world.workload(name, f"w{n}", f"10.65.{n}.1", f"fd00:65:{n}::1")
        yield world
    finally:
        world.close()


async def test_two_uplinks_without_an_address(rack: World) -> None:
    rack.configure()
    took = rack.wait_up(30)
    one = rack.hosts["h1"]

    def two_ways() -> bool:
        return all(len(one.hops(block)) == 2 and all(hop.startswith("fe80::") for hop in one.hops(block)) for block in BLOCKS)

    took += until(two_ways, 30, lambda: [one.hops(block) for block in BLOCKS])
    print(f"unnumbered, two top-of-rack routers: {took:.1f} s")
    assert {session.peer_as for session in one.sessions().values()} == {65111, 65112}
    assert {session.bfd for session in one.sessions().values()} == {"Up"}
    # BIRD to BIRD, over a cable of its own
    three = rack.hosts["h3"]
    until(lambda: len(three.hops("10.65.2.0/26")) == 1 and len(three.hops("fd00:65:2::/122")) == 1)
    for source, address in (("w1", "10.65.2.1"), ("w1", "fd00:65:2::1"), ("w3", "10.65.2.1"), ("w3", "fd00:65:2::1")):
        rack.exec(source, "ping", "-c2", "-i0.2", "-W2", address)
    # A link dies: its peer is missed, the other way goes on; a link that is not there is told so.
    flows = [
        FlowSpec(
            source="w1",
            source_namespace=rack.ns("w1"),
            destination="w2",
            destination_namespace=rack.ns("w2"),
            family=family,
            address=address,
            port=5000,
        )
        for family, address in ((4, "10.65.2.1"), (6, "fd00:65:2::1"))
        for _ in range(4)
    ]
    traffic = await start_traffic(flows)
    rack.ip("h1", "link set tor1 down")
    until(lambda: len(one.hops("10.65.2.0/26")) == 1)
    one.configure()
    until(lambda: "interface tor1 is not there, is down" in one.sessions()["peer_uplinks_tor1"].reason, tell=one.down)
    rack.ip("h1", "link set tor1 up")
    until(lambda: "tor1" in {item.interface for item in one.facts().addresses})
    one.configure()
    rack.wait_up(30)
    until(two_ways)
    lost = max(report.lost for report in await traffic.stop())
    await traffic.close()
    print(f"an uplink cut and restored: {lost} ms lost in the worst flow")
    assert lost < 1000
    # The peer's address changes, as with another switch: it is found again.
    rack.ip("h2", "addr flush dev h3 scope link")
    rack.ip("h2", "addr add fe80::77/64 dev h3 nodad")
    rack.hosts["h2"].configure()
    rack.wait_up(60)
    assert three.sessions()["peer_up_h2"].address == "fe80::77"

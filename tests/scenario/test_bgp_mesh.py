"""A mesh of six hosts on one segment: passwords, anycast, a planned restart, a host that dies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from bgp_world import World, blocks, pool, until

from tabinet.lab.traffic import FlowSpec, start_traffic
from tabinet.model import resources as r

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

HOSTS = [f"h{number}" for number in range(1, 7)]
ANYCAST = ("10.65.200.1", "fd00:65:200::1")


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    try:
        (tmp_path / "secrets" / "bgp").mkdir(parents=True)
        (tmp_path / "secrets" / "bgp" / "mesh").write_text("a secret of all\n")
        for name in HOSTS:
            world.add(name)
        world.segment("lan", {name: (f"10.7.0.{n}/24", f"fd00:7::{n}/64") for n, name in enumerate(HOSTS, 1)})
        world.resources.pools |= {"v4": pool("10.65.0.0/16"), "v6": pool("fd00:65::/32")}
        secret = r.BgpPassword(secret_key_ref=r.SecretKeySelector(name="bgp", key="mesh"))
        world.resources.configurations["default"] = r.BGPConfigurationSpec(node_mesh_password=secret)
        for n, name in enumerate(HOSTS, 1):
            world.host(name, ipv4_address=f"10.7.0.{n}/24", ipv6_address=f"fd00:7::{n}/64")
            world.resources.blocks[name] = blocks(f"10.65.{n}.0/26", f"fd00:65:{n}::/122")
            world.workload(name, f"w{n}", f"10.65.{n}.1", f"fd00:65:{n}::1", *(ANYCAST if n in (2, 3) else ()))
        yield world
    finally:
        world.close()


def reaches_all(world: World) -> bool:
    return all(
        world.hosts[name].hops(block.format(n)) == [address.format(n)]
        for name in HOSTS
        for n, other in enumerate(HOSTS, 1)
        if other != name
        for block, address in (("10.65.{}.0/26", "10.7.0.{}"), ("fd00:65:{}::/122", "fd00:7::{}"))
    )


async def test_mesh(mesh: World) -> None:
    mesh.configure()
    took = mesh.wait_up()
    took += until(lambda: reaches_all(mesh))
    assert all(len(host.sessions()) == 10 for host in mesh.hosts.values())
    print(f"mesh of six with passwords, both families: {took:.1f} s")
    one = mesh.hosts["h1"]
    until(lambda: one.hops("10.65.200.1") == ["10.7.0.2", "10.7.0.3"] and one.hops("fd00:65:200::1") == ["fd00:7::2", "fd00:7::3"])
    assert mesh.exec("w1", "ping", "-c1", "-W2", "10.65.6.1")
    assert mesh.exec("w1", "ping", "-c1", "-W2", "fd00:65:6::1")
    flow = FlowSpec(
        source="w1",
        source_namespace=mesh.ns("w1"),
        destination="w5",
        destination_namespace=mesh.ns("w5"),
        family=4,
        address="10.65.5.1",
        port=5000,
    )
    flows = [flow, msgspec.structs.replace(flow, family=6, address="fd00:65:5::1")]
    traffic = await start_traffic(flows)
    mesh.hosts["h5"].restart()
    until(lambda: "Graceful restart done" in (mesh.home("h5") / "bird.log").read_text(), 30)
    mesh.wait_up()
    lost = [report.lost for report in await traffic.stop()]
    await traffic.close()
    print(f"planned restart of a host's BIRD: {lost} packets lost")
    assert lost == [0, 0]
    # A host falls silent: whoever had two ways to the anycast address has one.
    mesh.exec("h3", "nft", "table netdev silence { chain cut { type filter hook ingress device lan priority -500; policy drop; }; }")
    took = until(lambda: one.hops("10.65.200.1") == ["10.7.0.2"] and one.hops("fd00:65:200::1") == ["fd00:7::2"], 60)
    print(f"anycast leaves a host that fell silent: {took:.2f} s")
    assert took < 10
    # What only the silent host has is kept as the last resort: it may be back any moment.
    assert one.hops("10.65.3.0/26") == ["10.7.0.3"]
    mesh.exec("h3", "nft", "delete", "table", "netdev", "silence")
    until(lambda: one.hops("10.65.200.1") == ["10.7.0.2", "10.7.0.3"])

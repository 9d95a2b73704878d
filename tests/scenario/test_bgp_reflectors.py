"""Two route reflectors in different subnets: everybody reaches everybody, several paths to an anycast address, a reflector may die."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from bgp_world import World, blocks, peer, pool, until

from tabinet.lab.traffic import FlowSpec, start_traffic
from tabinet.model import resources as r

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

HOSTS = ("rr1", "rr2", "c1", "c2", "c3")
RACKS = {"east": ("rr1", "c1", "c2"), "west": ("rr2", "c3")}
ANYCAST = "10.65.200.1"


@pytest.fixture
def fabric(tmp_path: Path) -> Iterator[World]:
    """Two segments with a router between them that knows nothing of workloads' addresses, as an underlay that only has its own."""
    world = World(tmp_path)
    try:
        numbers = {name: n for n, name in enumerate(HOSTS, 1)}
        for name in (*HOSTS, "gw"):
            world.add(name)
        for rack, (net, members) in {"east": ("10.7.1", RACKS["east"]), "west": ("10.7.2", RACKS["west"])}.items():
            world.segment(rack, {"gw": (f"{net}.254/24",)} | {name: (f"{net}.{numbers[name]}/24",) for name in members})
            for name in members:
                world.ip(name, f"route add 10.7.0.0/16 via {net}.254")
        world.resources.configurations["default"] = r.BGPConfigurationSpec(node_to_node_mesh_enabled=False)
        world.resources.pools["v4"] = pool("10.65.0.0/16")
        world.resources.peers["reflectors"] = peer(node_selector="all()", peer_selector="has(reflector)")
        for name, n in numbers.items():
            net = "10.7.1" if name in RACKS["east"] else "10.7.2"
            cluster = {"route_reflector_cluster_id": "224.0.0.1"} if name.startswith("rr") else {}
            world.host(name, ipv4_address=f"{net}.{n}/24", **cluster)
            world.resources.blocks[name] = blocks(f"10.65.{n}.0/26")
            world.workload(name, f"w{n}", f"10.65.{n}.1", *([ANYCAST] if name in ("c1", "c2") else []))
        for name in ("rr1", "rr2"):
            node = world.resources.nodes[name]
            world.resources.nodes[name] = r.Node(metadata=r.Metadata(labels={"reflector": ""}), spec=node.spec)
        yield world
    finally:
        world.close()


async def test_two_reflectors(fabric: World) -> None:
    fabric.configure()
    took = fabric.wait_up()
    c1, c3 = fabric.hosts["c1"], fabric.hosts["c3"]
    assert {name: len(host.sessions()) for name, host in fabric.hosts.items()} == {"rr1": 4, "rr2": 4, "c1": 2, "c2": 2, "c3": 2}
    # The next hop is not the reflector: a neighbour on the segment, the gateway across the fabric.
    took += until(lambda: c1.hops("10.65.4.0/26") == ["10.7.1.4"] and c1.hops("10.65.5.0/26") == ["10.7.1.254"])
    took += until(lambda: c3.hops("10.65.3.0/26") == ["10.7.2.254"])
    print(f"two reflectors, three clients: {took:.1f} s")

    # Both members of the anycast group are known beyond the reflectors (RFC 7911).
    def through_reflectors() -> set[str]:
        found = fabric.hosts["rr2"].driver.control.routes(1000)
        return {route.learned_from for route in found if str(route.destination) == f"{ANYCAST}/32"}

    until(lambda: len(through_reflectors()) >= 2)
    paths = [route for route in c3.driver.control.routes(1000) if str(route.destination) == f"{ANYCAST}/32"]
    assert len(paths) >= 4, paths  # two members, each told by two reflectors
    flow = FlowSpec(
        source="w3",
        source_namespace=fabric.ns("w3"),
        destination="w5",
        destination_namespace=fabric.ns("w5"),
        family=4,
        address="10.65.5.1",
        port=5000,
    )
    # The router between the segments has to know where blocks are, as an underlay without VXLAN does.
    for n, net in ((3, "10.7.1.3"), (5, "10.7.2.5")):
        fabric.ip("gw", f"route add 10.65.{n}.0/26 via {net}")
    traffic = await start_traffic([flow])
    fabric.hosts["rr1"].bird.kill()
    until(lambda: len(c3.down()) == 1)
    assert c1.hops("10.65.5.0/26") == ["10.7.1.254"]
    fabric.hosts["rr1"].start(recover=True)
    fabric.wait_up(30)
    lost = [report.lost for report in await traffic.stop()]
    await traffic.close()
    print(f"a reflector killed and started again: {lost} packets lost")
    assert lost == [0]

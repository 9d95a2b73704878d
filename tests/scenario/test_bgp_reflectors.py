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

HOSTS = ("rr1", "rr2", "c1", "c2", "c3", "c4")
RACKS = {"east": ("rr1", "c1", "c2", "c4"), "west": ("rr2", "c3")}
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
    assert {name: len(host.sessions()) for name, host in fabric.hosts.items()} == {
        "rr1": 5,
        "rr2": 5,
        **dict.fromkeys(("c1", "c2", "c3", "c4"), 2),
    }
    # The next hop is not the reflector: a neighbour on the segment, the gateway across the fabric.
    took += until(lambda: c1.hops("10.65.4.0/26") == ["10.7.1.4"] and c1.hops("10.65.5.0/26") == ["10.7.1.254"])
    took += until(lambda: c3.hops("10.65.3.0/26") == ["10.7.2.254"])
    print(f"two reflectors, four clients: {took:.1f} s")

    # A client uses both members of an anycast group that it knows from reflectors only (RFC 7911).
    until(lambda: fabric.hosts["c4"].hops(ANYCAST) == ["10.7.1.3", "10.7.1.4"])
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

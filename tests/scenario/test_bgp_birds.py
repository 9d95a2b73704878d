"""BIRD as the top-of-rack router: a host's BIRD that is killed and comes back costs nothing, and a host that is gone is avoided at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from bgp_world import World, blocks, peer, pool, until

from tabinet.bgp.control import BirdControl
from tabinet.bgp.records import SessionState
from tabinet.lab.routers import NeighbourSpec, RouterSpec, daemons, is_ready, render_router
from tabinet.lab.traffic import FlowSpec, start_traffic
from tabinet.lib.ip import parse_address, parse_prefix
from tabinet.model import resources as r

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

HOSTS = (1, 2, 3)
ANYCAST = "10.65.200.1"
"""On h1 and h2; h3 asks."""
LONG_LIVED = {"tabinet.io/long-lived": "true"}


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[World]:
    """Three hosts under one router."""
    world = World(tmp_path)
    try:
        world.add("tor")
        world.resources.pools["v4"] = pool("10.65.0.0/16")
        world.resources.configurations["default"] = r.BGPConfigurationSpec(node_to_node_mesh_enabled=False)
        for n in HOSTS:
            world.add(f"h{n}", f"10.254.0.{n}/32")
            world.link("tor", f"h{n}", (f"10.255.{n}.0/31",), (f"10.255.{n}.1/31",))
            asked = {"peer_ip": f"10.255.{n}.0", "as_number": 65111, "source_address": "None"}
            world.resources.peers[f"tor{n}"] = peer(LONG_LIVED, node=f"h{n}", **asked)
            world.host(f"h{n}", ipv4_address=f"10.254.0.{n}/32", as_number=4200000000 + n)
            world.resources.blocks[f"h{n}"] = blocks(f"10.65.{n}.0/26")
            world.workload(f"h{n}", f"w{n}", f"10.65.{n}.1", *((ANYCAST,) if n < 3 else ()))
        start_router(world)
        yield world
    finally:
        world.close()


def start_router(world: World) -> None:
    spec = RouterSpec(
        name="tor",
        as_number=65111,
        router_id="10.254.1.1",
        neighbours=tuple(
            NeighbourSpec(
                interface=f"h{n}",
                peer_name=f"h{n}",
                peer_as=4200000000 + n,
                local4=parse_address(f"10.255.{n}.0"),
                peer4=parse_address(f"10.255.{n}.1"),
                is_host=True,
            )
            for n in HOSTS
        ),
        host_prefixes=(parse_prefix("10.65.0.0/16"), parse_prefix("10.254.0.0/24")),
        bfd_interval_ms=100,
    )
    home = world.home("tor")
    for file in render_router(spec):
        (home / file.name).write_text(file.text)
    for command in daemons(spec, home):
        world.start("tor", command.name, command.argv)
        until(lambda command=command: is_ready(command))


def of_tor(world: World) -> list[SessionState]:
    """States of the router's sessions with the hosts, in their order."""
    sessions = BirdControl(world.home("tor") / "bird.ctl").sessions()
    return [session.state for session in sessions if session.name.startswith("peer")]


def ways_to(world: World, destination: str) -> set[str]:
    """Through which hosts the router sends."""
    return {f"h{n}" for n in HOSTS if f"10.255.{n}.1 " in world.ip("tor", f"route show {destination}")}


async def test_a_killed_bird_and_a_dead_host(rack: World) -> None:
    rack.configure()
    took = rack.wait_up()
    one, three = rack.hosts["h1"], rack.hosts["h3"]
    took += until(lambda: three.hops("10.65.1.0/26") == ["10.255.3.0"] and one.hops("10.65.3.0/26") == ["10.255.1.0"])
    until(lambda: ways_to(rack, ANYCAST) == {"h1", "h2"} and {found.bfd for found in one.sessions().values()} == {"Up"})
    print(f"three hosts under a BIRD: {took:.1f} s")
    places = {"source": "w3", "source_namespace": rack.ns("w3"), "destination": "w1", "destination_namespace": rack.ns("w1")}
    back = {"source": "w1", "source_namespace": rack.ns("w1"), "destination": "w3", "destination_namespace": rack.ns("w3")}
    flows = [
        FlowSpec(**places, family=4, address="10.65.1.1", port=5000),
        FlowSpec(**back, family=4, address="10.65.3.1", port=5000),
    ]
    traffic = await start_traffic(flows)
    one.bird.kill()
    one.bird.wait()
    # What others have too goes there at once; what only this host has goes to it on.
    until(lambda: of_tor(rack)[0] is not SessionState.ESTABLISHED and ways_to(rack, ANYCAST) == {"h2"})
    assert ways_to(rack, "10.65.1.0/26") == {"h1"}
    one.start(recover=True)
    until(lambda: "Graceful restart done" in (rack.home("h1") / "bird.log").read_text(), 30)
    rack.wait_up()
    until(lambda: ways_to(rack, ANYCAST) == {"h1", "h2"})
    lost = [report.lost for report in await traffic.stop()]
    await traffic.close()
    print(f"BIRD killed and started again under a BIRD: {lost} packets lost")
    assert lost == [0, 0]
    # A host falls silent: BFD tells, and its anycast address answers from elsewhere.
    rack.exec("h1", "nft", "table netdev silence { chain cut { type filter hook ingress device tor priority -500; policy drop; }; }")
    took = until(lambda: ways_to(rack, ANYCAST) == {"h2"})
    print(f"anycast leaves a host that fell silent: {took:.2f} s")

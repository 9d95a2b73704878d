"""One owner for each route: what a host announces of its own, where addresses of others' blocks lead, and whose routes are touched."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from bgp_world import World, blocks, pool, until

from tabinet.dataplane.routes.driver import RouteDriver
from tabinet.kernel.netns import run_in
from tabinet.kernel.rtsocket import open_rtnetlink
from tabinet.lib.ip import parse_address

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

MIGRATED, FLOATING = "10.65.2.9", "10.65.250.7"
"""On h1: one of h2's block, and one of nobody's."""
STRANGERS = (
    # Of another host's block with the very metric of BIRD's routes, with a better one, and an address that is announced by itself.
    "10.65.1.0/26 via 10.7.0.9 metric 32",
    "10.65.2.0/26 via 10.7.0.9 metric 5",
    f"{MIGRATED} via 10.7.0.9 metric 32",
    "203.0.113.0/24 via 10.7.0.9",
)


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    try:
        for name in ("h1", "h2", "h3", "h4"):
            world.add(name)
        world.segment("lan", {f"h{n}": (f"10.7.0.{n}/24",) for n in (1, 2, 3, 4)})
        world.resources.pools["v4"] = pool("10.65.0.0/16")
        for n in (1, 2, 3, 4):
            world.host(f"h{n}", ipv4_address=f"10.7.0.{n}/24")
            world.resources.blocks[f"h{n}"] = blocks(f"10.65.{n}.0/26")
            world.workload(f"h{n}", f"w{n}", f"10.65.{n}.1", *((MIGRATED, FLOATING) if n == 1 else ()))
        for route in STRANGERS:
            world.ip("h4", f"route add {route} proto static")
        yield world
    finally:
        world.close()


def blackholes(world: World, node: str) -> set[str]:
    return {route["dst"] for route in json.loads(world.ip(node, "-j route show type blackhole"))}


def strangers(world: World) -> str:
    return world.ip("h4", "route show proto static")


def test_routes_have_one_owner(lan: World) -> None:
    before = strangers(lan)
    lan.configure()
    took = lan.wait_up()
    two, three, four = (lan.hosts[f"h{n}"] for n in (2, 3, 4))
    took += until(lambda: three.hops("10.65.1.0/26") == ["10.7.0.1"] and three.hops("10.65.4.0/26") == ["10.7.0.4"])
    print(f"four hosts: {took:.1f} s")
    # Blocks as aggregates; single addresses only of what no block of the host covers, at the block's owner too.
    for host in (two, three):
        until(lambda host=host: host.hops(MIGRATED) == host.hops(FLOATING) == ["10.7.0.1"])
        assert host.hops("10.65.1.1") == []
    for n in (1, 2, 3, 4):
        assert blackholes(lan, f"h{n}") == {f"10.65.{n}.0/26"}
    for source, address in (("w2", MIGRATED), ("w3", MIGRATED), ("w3", FLOATING), ("w3", "10.65.2.1")):
        lan.exec(source, "ping", "-c1", "-W2", address)
    # A block that is the host's no more is neither announced nor a blackhole; what lives there has a route of its own now.
    lan.resources.blocks["h1"].clear()
    lan.configure()
    until(lambda: three.hops("10.65.1.0/26") == [] and three.hops("10.65.1.1") == ["10.7.0.1"])
    until(lambda: blackholes(lan, "h1") == set())
    lan.exec("w3", "ping", "-c1", "-W2", "10.65.1.1")
    # Routes of others stay, whatever comes and goes beside them, also when BIRD starts anew and when it is told to do nothing.
    assert strangers(lan) == before
    lan.resources.blocks["h1"] |= blocks("10.65.1.0/26")
    lan.configure()
    four.bird.kill()
    four.bird.wait()
    four.start()
    lan.wait_up()
    until(lambda: four.hops("10.65.3.0/26") == ["10.7.0.3"])
    assert strangers(lan) == before
    assert run_in(lan.ns("h4"), lambda: four.driver.apply(None, four.facts())).error == ""
    until(lambda: lan.ip("h4", "route show proto bird") == "")
    assert strangers(lan) == before


def test_an_agent_reports_a_route_that_another_has_and_leaves_it_alone(lan: World) -> None:
    lan.ip("h4", "route add 10.65.4.7 via 10.7.0.9 proto static")
    lan.ip("h4", "route add 10.65.4.8 via 10.7.0.9 proto static metric 9")
    before = strangers(lan)
    netlink = run_in(lan.ns("h4"), open_rtnetlink)
    try:
        index = next(link.index for link in netlink.links() if link.name == "tbw4")
        driver = RouteDriver(netlink)
        taken, free = parse_address("10.65.4.7"), parse_address("10.65.4.8")
        for destination in (taken, free):
            driver.want(destination, index)
        driver.want(parse_address("10.65.4.1"), index)
        assert set(driver.apply().errors) == {taken}
        assert strangers(lan) == before
        assert lan.ip("h4", "route get 10.65.4.8").split()[:3] == ["10.65.4.8", "dev", "tbw4"]
        for destination in (taken, free):
            driver.unwant(destination)
        assert driver.apply().errors == {}
        assert strangers(lan) == before
        # Once the other's is gone, ours takes its place.
        driver.want(taken, index)
        assert set(driver.apply().errors) == {taken}
        lan.ip("h4", "route del 10.65.4.7 proto static")
        assert driver.apply().errors == {}
        assert driver.holds(taken)
    finally:
        netlink.close()

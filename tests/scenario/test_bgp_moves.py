"""A machine goes to and fro between two hosts: a third learns each time where it is from BIRD's news of the kernel, not from its scans.

BIRD looks at the kernel's routes only once an hour here, so that a route whose news BIRD does not get is never known.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from bgp_world import OPTIONS, World, blocks, pool, run, until

from tabinet.calc.messages import Endpoint, EndpointRemove, EndpointUpdate, Migration, Place
from tabinet.dataplane.links.driver import LinkDriver
from tabinet.dataplane.links.vlans import VlanDriver
from tabinet.dataplane.moves import MoveManager
from tabinet.dataplane.routes.driver import RouteDriver
from tabinet.dataplane.workloads import WorkloadManager
from tabinet.kernel.netns import run_in
from tabinet.kernel.rtnetlink import Watch
from tabinet.kernel.rtsocket import RtEventSocket, RtSocket, open_events, open_rtnetlink
from tabinet.kernel.sysctl import ProcSysctl
from tabinet.lib.ip import parse_address
from tabinet.model.keys import ResourceKey

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

ROUNDS = int(os.environ.get("TABINET_MOVES", "12"))
HOSTS = {"h1": "10.7.0.1", "h2": "10.7.0.2", "h3": "10.7.0.3"}
NETS = ("10.65.200.9", "10.65.200.10", "fd00:65:200::9")
MAC = "02:00:00:00:00:09"
TAP = "tbvm"


def six(address: str) -> str:
    return "fd00:7::" + address.rpartition(".")[2]


@dataclass
class Mover:
    """A host's routes as its agent makes them; the machine is a namespace, with an end of a cable on either host."""

    world: World
    name: str
    late_s: float = 0.0
    rtnetlink: RtSocket = field(init=False)
    events: RtEventSocket = field(init=False)
    workloads: WorkloadManager = field(init=False)
    moves: MoveManager = field(init=False)

    def __post_init__(self) -> None:
        namespace = self.world.ns(self.name)
        self.rtnetlink = run_in(namespace, open_rtnetlink)
        self.events = run_in(namespace, lambda: open_events(Watch.LINKS | Watch.ADDRESSES | Watch.ROUTES, route_protocols=(84, 86)))
        links = LinkDriver(self.rtnetlink, ProcSysctl())
        self.workloads = WorkloadManager(links, RouteDriver(self.rtnetlink), VlanDriver(self.rtnetlink))
        self.moves = MoveManager(self.rtnetlink, self.workloads, ("tb",), lambda: self.late_s)

    @property
    def key(self) -> ResourceKey:
        return ResourceKey("WorkloadEndpoint", f"{self.name}-lab-vm-eth0", "default")

    def plug(self) -> None:
        """The interface is there, without carrier, as nobody runs behind it."""
        near, far = next(self.world.indices), next(self.world.indices)
        inner = f"peer name eth-{self.name} address {MAC} index {far} netns {self.world.ns('vm')}"
        run(*f"ip link add {TAP} index {near} netns {self.world.ns(self.name)} type veth {inner}".split())

    def unplug(self) -> None:
        self.world.ip(self.name, f"link del {TAP}")

    def machine(self, state: str) -> None:
        """The machine's end is up, so that the interface has a carrier, or down."""
        self.world.ip("vm", f"link set eth-{self.name} {state}")

    def tell(self, place: Place | None, other: str, *, near: bool = True) -> None:
        """The endpoint is an end of a migration, or part of none. ``near``: the other host is on one of this one's links."""
        migration = None
        if place is not None:
            end = ResourceKey("WorkloadEndpoint", f"{other}-lab-vm-eth0", "default")
            addresses = (parse_address(HOSTS[other]), parse_address(six(HOSTS[other]))) if near else ()
            migration = Migration(place, ResourceKey("LiveMigration", "vm", "default"), "u", other, end, addresses)
        nets = tuple(sorted(map(parse_address, NETS)))
        endpoint = Endpoint(self.name, TAP, MAC, nets, (), (), (), (), migration=migration)
        update = EndpointUpdate(self.key, 1, endpoint)
        self.workloads.on_endpoint_update(update)
        self.moves.on_endpoint_update(update)
        self.apply()

    def forget(self) -> None:
        """The endpoint is not here any more."""
        self.workloads.on_endpoint_remove(EndpointRemove(self.key))
        self.moves.on_endpoint_remove(EndpointRemove(self.key))
        self.apply()

    def apply(self) -> None:
        run_in(self.world.ns(self.name), self._apply)

    def _apply(self) -> None:
        for event in self.events.read():
            self.workloads.on_event(event)
            self.moves.on_event(event)
        self.workloads.begin()
        self.moves.prepare()
        self.workloads.apply()
        self.moves.apply()

    def close(self) -> None:
        self.rtnetlink.close()
        self.events.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, options=msgspec.structs.replace(OPTIONS, kernel_scan_time_s=3600))
    try:
        for name in (*HOSTS, "vm"):
            made.add(name)
        made.segment("lan", {name: (f"{address}/24", f"{six(address)}/64") for name, address in HOSTS.items()})
        made.resources.pools |= {"v4": pool("10.65.0.0/16"), "v6": pool("fd00:65::/32")}
        for n, (name, address) in enumerate(HOSTS.items(), 1):
            made.host(name, ipv4_address=f"{address}/24", ipv6_address=f"{six(address)}/64")
            made.resources.blocks[name] = blocks(f"10.65.{n}.0/26")
        made.configure()
        made.wait_up()
        yield made
    finally:
        made.close()


@pytest.fixture
def movers(world: World) -> Iterator[dict[str, Mover]]:
    made = {name: Mover(world, name) for name in ("h1", "h2")}
    yield made
    for mover in made.values():
        mover.close()


def learned(world: World) -> list[set[str]]:
    """Where the third host sends what is for each of the machine's addresses."""
    return [set(world.hosts["h3"].hops(net)) for net in NETS]


def at(*names: str) -> list[set[str]]:
    return [{six(HOSTS[name]) if ":" in net else HOSTS[name] for name in names} for net in NETS]


def test_every_move_is_news(world: World, movers: dict[str, Mover]) -> None:
    source, target = movers["h1"], movers["h2"]
    source.plug()
    source.machine("up")
    source.tell(None, "")
    took = []

    def wait(*names: str) -> None:
        def known() -> bool:
            for mover in movers.values():
                mover.apply()
            return learned(world) == at(*names)

        took.append(until(known, 60.0, lambda: f"round {len(took)}: {learned(world)}"))

    wait("h1")
    for number in range(ROUNDS):
        target.plug()
        target.tell(Place.ARRIVING, source.name)
        source.tell(Place.DEPARTING, target.name)
        source.machine("down")
        if number % 3 == 0:  # it is seen
            target.machine("up")
            target.tell(Place.ARRIVED, source.name)
        elif number % 3 == 1:  # a hook tells, and there is a carrier only then
            target.tell(Place.ARRIVED, source.name)
            target.machine("up")
        else:  # its new binding is active, and the agent hears of the carrier with it
            target.machine("up")
            target.tell(None, "")
        near = number % 2 == 0
        source.tell(Place.LEFT, target.name, near=near)
        wait(*(("h1", "h2") if near else (target.name,)))
        target.tell(None, "")
        source.forget()
        source.late_s += 60
        wait(target.name)
        source.unplug()
        source, target = target, source
    print(
        f"{ROUNDS} moves, each known at the third host after at most {max(took[1::2]):.2f} s, alone after at most {max(took[2::2]):.2f} s"
    )

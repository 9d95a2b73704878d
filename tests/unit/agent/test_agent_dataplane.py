"""The dataplane as the agent drives it: what it looks at by itself, and how often."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from tabinet.agent.dataplane import READING_PAUSE, Dataplane
from tabinet.calc.messages import NO_QOS, Endpoint, EndpointRemove, EndpointUpdate, Limits, Nat, Qos
from tabinet.dataplane.links.driver import LinkDriver
from tabinet.dataplane.nft.driver import NftDriver
from tabinet.dataplane.routes.driver import RouteDriver
from tabinet.dataplane.tc.driver import BandwidthDriver
from tabinet.dataplane.workloads import WorkloadManager
from tabinet.kernel.nftables import AddTable, DeleteTable
from tabinet.kernel.nftfake import FakeNftables
from tabinet.kernel.rtfake import FakeRtnetlink
from tabinet.kernel.rtnetlink import AddVeth
from tabinet.kernel.sysctl import FakeSysctl
from tabinet.kernel.tc import AddDevice, DeleteBucket, SetBucket
from tabinet.kernel.tcfake import FakeTrafficControl
from tabinet.lib.ip import parse_address
from tabinet.model.keys import ResourceKey
from tabinet.rules.builder import TableBuilder


class World:
    def __init__(self) -> None:
        self.nftables = FakeNftables()
        self.rtnetlink = FakeRtnetlink()
        self.traffic_control = FakeTrafficControl()
        self.dataplane = Dataplane(
            builder=TableBuilder(),
            nftables=self.nftables,
            nft=NftDriver(self.nftables),
            workloads=WorkloadManager(LinkDriver(self.rtnetlink, FakeSysctl()), RouteDriver(self.rtnetlink)),
            bandwidth=BandwidthDriver(self.traffic_control),
            rtnetlink=self.rtnetlink,
            events=self.rtnetlink.events(),
            interface_prefixes=("cali",),
        )

    def add_interface(self, name: str) -> None:
        self.rtnetlink.stranger(AddVeth(name, f"peer-{name}"))
        self.traffic_control.add_interface(name)

    def turn(self, now_s: float) -> int:
        """One turn of the background's verification; gives the operations on nf_tables."""
        if not self.dataplane.verify(now_s):
            return 0
        return self.dataplane.apply([], complete=True).operations["nft"]


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.dataplane.close()


def test_nothing_is_touched_before_the_snapshot_is_complete(world: World) -> None:
    assert not world.dataplane.verify(0.0)
    report = world.dataplane.apply([], complete=False)
    assert (report.operations, world.nftables.commits, world.rtnetlink.executed) == ({}, [], [])


def test_a_quiet_kernel_is_not_read(world: World) -> None:
    world.dataplane.apply([], complete=True)
    world.nftables.read_table = None  # type: ignore[method-assign, assignment]  # whoever reads now fails
    assert [world.turn(float(now)) for now in range(100)] == [0] * 100


def test_what_others_do_is_looked_at_as_often_as_looking_is_cheap(world: World) -> None:
    world.dataplane.apply([], complete=True)
    world.nftables.stranger([DeleteTable()])
    assert world.turn(1000.0) > 0
    took_s = world.dataplane._reading_took_s
    assert took_s > 0
    world.nftables.stranger([DeleteTable()])
    assert world.turn(1000.0 + READING_PAUSE * took_s * 0.9) == 0
    assert world.nftables.read_table() is None
    assert world.turn(1000.0 + READING_PAUSE * took_s * 1.1) > 0
    assert world.nftables.read_table() is not None


def test_others_that_change_tables_of_their_own_cost_a_reading_and_change_nothing(world: World) -> None:
    world.dataplane.apply([], complete=True)
    before = len(world.nftables.commits)
    world.nftables.stranger([AddTable()])
    assert world.turn(1000.0) == 0
    assert len(world.nftables.commits) == before


KEY = ResourceKey("WorkloadEndpoint", "h-lab-a-eth0", "default")


def endpoint(interface: str = "calia", qos: Qos = NO_QOS, nats: tuple[Nat, ...] = ()) -> EndpointUpdate:
    nets = (parse_address("10.65.0.1"),)
    what = Endpoint(host="h", interface=interface, mac="", nets=nets, spoof_nets=(), ingress=(), egress=(), profiles=(), qos=qos, nats=nats)
    return EndpointUpdate(KEY, 1, what)


def test_bandwidth_follows_the_endpoint_to_its_interface_and_goes_with_it(world: World) -> None:
    for name in ("calia", "calib"):
        world.add_interface(name)
    qos = Qos(ingress=Limits(bandwidth_bit_s=8_000_000), egress=Limits(bandwidth_bit_s=4_000_000))
    world.dataplane.apply([endpoint(qos=qos)], complete=True)
    kinds = {type(operation) for operation in world.traffic_control.executed}
    assert {SetBucket, AddDevice} <= kinds
    world.dataplane.apply([endpoint("calib", qos=qos)], complete=True)
    buckets = world.traffic_control.read().buckets
    assert "calia" not in buckets
    assert buckets["calib"] is not None
    world.dataplane.apply([EndpointRemove(KEY)], complete=True)
    assert DeleteBucket("calib") in world.traffic_control.executed
    assert not any(world.traffic_control.read().buckets.values())


def test_a_refused_limit_is_told_and_stops_nothing_else(world: World) -> None:
    world.add_interface("calia")
    world.traffic_control.refuse(SetBucket, errno.ENOENT)
    report = world.dataplane.apply([endpoint(qos=Qos(ingress=Limits(bandwidth_bit_s=8_000)))], complete=True)
    assert "bandwidth of calia" in report.error
    assert report.endpoints[KEY].ready
    assert [str(route.destination) for route in world.rtnetlink.routes(protocol=84)] == ["10.65.0.1/32"]


def test_a_floating_address_has_a_route_while_it_is_the_endpoints(world: World) -> None:
    world.add_interface("calia")
    floating = parse_address("10.65.9.9")
    world.dataplane.apply([endpoint(nats=(Nat(floating, parse_address("10.65.0.1")),))], complete=True)
    assert floating in {route.destination for route in world.rtnetlink.routes(protocol=84)}
    world.dataplane.apply([endpoint()], complete=True)
    assert floating not in {route.destination for route in world.rtnetlink.routes(protocol=84)}

"""The dataplane as the agent drives it: what it looks at by itself, and how often."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import msgspec
import pytest

from tabinet.agent.dataplane import Dataplane, externals_of
from tabinet.agent.verification import READING_PAUSE, READING_S, Verification
from tabinet.calc.messages import NO_QOS, Endpoint, EndpointRemove, EndpointUpdate, Forward, ForwardElsewhere, Limits, Nat, Qos
from tabinet.dataplane.drift import Drift, DriftKind
from tabinet.dataplane.links.driver import LinkDriver
from tabinet.dataplane.links.vlans import VlanDriver
from tabinet.dataplane.nft.counters import Half
from tabinet.dataplane.nft.driver import NftDriver
from tabinet.dataplane.nft.verify import TableAudit
from tabinet.dataplane.routes.driver import RouteDriver
from tabinet.dataplane.tc.driver import BandwidthDriver
from tabinet.dataplane.tunnels.manager import build_tunnels
from tabinet.dataplane.tunnels.plan import TunnelOptions
from tabinet.dataplane.workloads import WorkloadManager
from tabinet.errors import KernelError
from tabinet.kernel.ethtool import FakeOffloads
from tabinet.kernel.nftables import AddElements, AddRule, AddTable, DeleteElements, DeleteTable, FlushChain
from tabinet.kernel.nftexpr import ifname
from tabinet.kernel.nftfake import FakeNftables
from tabinet.kernel.rtfake import FakeRtnetlink
from tabinet.kernel.rtnetlink import AddAddress, AddVeth, DeleteAddress, DeleteLink, DeletePortRule, DeleteRoute, InterfaceAddress, SetLink
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
        self.drifts: list[Drift] = []
        self.sysctl = FakeSysctl()
        driver = NftDriver(self.nftables)
        workloads = WorkloadManager(LinkDriver(self.rtnetlink, self.sysctl), RouteDriver(self.rtnetlink), VlanDriver(self.rtnetlink))
        bandwidth = BandwidthDriver(self.traffic_control)
        self.dataplane = Dataplane(
            builder=TableBuilder(),
            nftables=self.nftables,
            nft=driver,
            reader=self.nftables,
            verification=Verification(self.nftables, TableAudit(driver, self.nftables), workloads, bandwidth),
            workloads=workloads,
            bandwidth=bandwidth,
            tunnels=build_tunnels(self.rtnetlink, FakeSysctl(), FakeOffloads(), TunnelOptions()),
            rtnetlink=self.rtnetlink,
            events=self.rtnetlink.events(),
            interface_prefixes=("cali",),
        )

    def add_interface(self, name: str) -> None:
        self.rtnetlink.stranger(AddVeth(name, f"peer-{name}"))
        self.traffic_control.add_interface(name)

    def turn(self, now_s: float) -> int:
        """One turn of the background's verification; gives the operations on nf_tables."""
        if not self.dataplane.verify(now_s).differs:
            return 0
        report = self.dataplane.apply([], complete=True)
        self.drifts += report.drifts
        return report.operations["nft"]

    def turns(self, now_s: float, count: int = 400) -> None:
        """So many turns, each when the one before asked for it."""
        for _ in range(count):
            report = self.dataplane.verify(now_s)
            if report.differs:
                self.drifts += self.dataplane.apply([], complete=True).drifts
            now_s += report.wait_s


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.dataplane.close()


def test_nothing_is_touched_before_the_snapshot_is_complete(world: World) -> None:
    assert not world.dataplane.verify(0.0).differs
    report = world.dataplane.apply([], complete=False)
    assert (report.operations, world.nftables.commits, world.rtnetlink.executed) == ({}, [], [])


def test_a_quiet_kernel_is_gone_through_slowly_and_never_read_as_a_whole(world: World) -> None:
    world.dataplane.apply([], complete=True)
    world.nftables.read_table = None  # type: ignore[method-assign, assignment]  # whoever reads now fails
    size = world.dataplane.verification.audit.size()
    world.dataplane.verification.was_read()
    assert [world.turn(float(now)) for now in range(size * 3)] == [0] * (size * 3)
    assert world.dataplane.verification.audit.rounds >= 1
    assert world.drifts == []


def test_interfaces_of_workloads_are_no_reason_to_look_at_the_hosts_addresses(world: World) -> None:
    def changed() -> bool:
        return world.dataplane.apply([], complete=True).addresses_changed

    def at(index: int) -> AddAddress:
        return AddAddress(InterfaceAddress(index, parse_address("10.0.0.1"), 24))

    world.rtnetlink.stranger(AddVeth("calia", "calib"))
    world.rtnetlink.stranger(AddVeth("eth0", "calid"))
    workload, host = world.rtnetlink.index_of("calia"), world.rtnetlink.index_of("eth0")
    assert changed()
    changed()  # by what the agent itself has given the host
    assert not changed()
    world.rtnetlink.stranger(SetLink(workload, up=True), at(workload), DeleteAddress(at(workload).address))
    assert not changed()
    world.rtnetlink.stranger(at(host))
    assert changed()
    world.rtnetlink.stranger(SetLink(workload, name="eth2"))
    assert changed()
    world.rtnetlink.stranger(SetLink(host, name="calic"))
    assert changed()
    world.rtnetlink.stranger(DeleteLink("calic"))
    assert not changed()


def test_addresses_of_the_host_whose_ports_lead_to_an_endpoint_need_no_route_to_it() -> None:
    inside, outside, own = map(parse_address, ("10.65.0.9", "192.0.2.9", "192.0.2.1"))
    forwards = (Forward(outside, 6, 80, inside, 80), Forward(own, 6, 8080, inside, 80, own=True))
    endpoint = Endpoint("h", "cali1", "", (inside,), (), (), (), (), forwards=forwards)
    assert externals_of(endpoint) == {outside}


def test_a_deleted_table_is_back_in_one_turn(world: World) -> None:
    world.dataplane.apply([], complete=True)
    world.turn(1.0)
    world.nftables.stranger([DeleteTable()])
    assert world.turn(1000.0) > 0
    assert [drift.kind for drift in world.drifts] == [DriftKind.TABLE]
    assert world.nftables.read_table() is not None


def test_a_flushed_table_is_back_in_one_turn(world: World) -> None:
    world.dataplane.apply([], complete=True)
    world.turn(1.0)
    world.nftables.stranger([FlushChain(name) for name in world.dataplane.builder.table.chains])
    assert world.turn(1000.0) > 0
    info = world.nftables.read_table()
    assert info is not None
    assert all(len(info.rules[name]) == len(chain.rules) for name, chain in world.dataplane.builder.table.chains.items())


def test_others_that_change_tables_of_their_own_cost_a_round_and_change_nothing(world: World) -> None:
    world.dataplane.apply([], complete=True)
    world.turns(0.0)
    before, rounds = len(world.nftables.commits), world.dataplane.verification.audit.rounds
    world.nftables.stranger([AddTable()])
    world.turns(1000.0, 20)
    assert world.dataplane.verification.audit.rounds > rounds
    assert len(world.nftables.commits) == before
    assert world.drifts == []


def test_what_others_do_all_the_time_is_looked_at_as_often_as_looking_is_cheap(world: World) -> None:
    clock = [0.0]

    def ticking() -> float:
        clock[0] += 0.001
        return clock[0]

    world.dataplane.verification.clock = ticking
    world.dataplane.apply([], complete=True)
    verification, now_s, turns = world.dataplane.verification, 0.0, 0
    begin = clock[0]
    while now_s < 600.0:
        world.nftables.stranger([AddTable()])
        now_s += world.dataplane.verify(now_s).wait_s
        turns += 1
    assert verification.audit.rounds > 2
    assert clock[0] - begin < 600.0 / READING_PAUSE * 1.5


def test_one_foreign_rule_in_one_chain_is_told_by_name_and_only_that_chain_is_written(world: World) -> None:
    world.dataplane.apply([endpoint()], complete=True)
    world.turns(0.0)
    before = len(world.nftables.commits)
    world.nftables.stranger([AddRule("judge", b"accept", b"")])
    world.turns(1000.0)
    assert [(drift.kind, drift.name) for drift in world.drifts] == [(DriftKind.CHAIN, "judge")]
    assert "1 rule is not ours" in world.drifts[0].text
    written = {operation.name for operation in world.nftables.commits[before] if isinstance(operation, FlushChain)}
    assert (len(world.nftables.commits), written) == (before + 1, {"judge", "mark_flow"})  # the latter begins a generation


def test_one_lost_element_is_told_and_only_it_is_added(world: World) -> None:
    world.dataplane.apply([endpoint()], complete=True)
    world.turns(0.0)
    before = len(world.nftables.commits)
    lost = world.nftables.read_elements("own4")
    world.nftables.stranger([DeleteElements("own4", tuple(lost))])
    world.turns(1000.0)
    assert [(drift.kind, drift.name) for drift in world.drifts] == [(DriftKind.SET, "own4")]
    assert '"calia" . 10.65.0.1' in world.drifts[0].text
    assert AddElements("own4", tuple(lost)) in world.nftables.commits[before]


@pytest.mark.parametrize("code", [errno.ENOBUFS, errno.EBUSY, errno.ENFILE, errno.EINTR, errno.ENOENT, errno.EEXIST])
def test_a_refused_repair_is_repaired_as_a_whole_and_a_refused_whole_is_tried_again(world: World, code: int) -> None:
    world.dataplane.apply([endpoint()], complete=True)
    world.turns(0.0)
    world.nftables.stranger([AddRule("judge", b"accept", b"")])
    world.nftables.fail_next(code, 2)
    world.turns(1000.0)
    info = world.nftables.read_table()
    assert info is not None
    assert len(info.rules["judge"]) == len(world.dataplane.builder.table.chains["judge"].rules)
    assert world.dataplane.apply([], complete=True).error == ""


def test_a_kernel_that_does_not_answer_makes_the_table_be_read(world: World) -> None:
    world.dataplane.apply([endpoint()], complete=True)

    def refuse(name: str) -> None:
        raise KernelError(errno.ENOBUFS, f"read chain {name}")

    read_chain = world.nftables.read_chain
    world.nftables.read_chain = refuse  # type: ignore[method-assign, assignment]
    reports = [world.dataplane.verify(float(now)).differs for now in range(50)]
    assert any(reports)
    world.nftables.read_chain = read_chain  # type: ignore[method-assign]
    assert world.dataplane.apply([], complete=True).error == ""
    assert world.drifts == []


def test_a_deleted_route_is_back_and_told_as_drift_when_somebody_deleted_it(world: World) -> None:
    world.add_interface("calia")
    world.dataplane.apply([endpoint()], complete=True)
    (route,) = world.rtnetlink.routes(protocol=84)
    world.rtnetlink.stranger(DeleteRoute(route))
    report = world.dataplane.apply([], complete=True)
    assert [(drift.kind, drift.name, drift.text) for drift in report.drifts] == [(DriftKind.ROUTE, "10.65.0.1/32", "is missing")]
    assert world.rtnetlink.routes(protocol=84) == [route]


def test_what_is_new_or_goes_with_its_interface_is_no_drift(world: World) -> None:
    assert world.dataplane.apply([endpoint()], complete=True).drifts == ()
    world.add_interface("calia")
    assert world.dataplane.apply([], complete=True).drifts == ()
    world.rtnetlink.stranger(DeleteLink("calia"))
    assert world.dataplane.apply([], complete=True).drifts == ()
    world.add_interface("calia")
    assert world.dataplane.apply([], complete=True).drifts == ()
    assert world.dataplane.apply([EndpointRemove(KEY)], complete=True).drifts == ()


def test_a_changed_sysctl_is_found_in_the_background_and_told(world: World) -> None:
    world.add_interface("calia")
    world.dataplane.apply([endpoint()], complete=True)
    world.sysctl.write("net/ipv4/conf/calia/proxy_arp", "0")
    world.turns(0.0, 5)
    assert [(drift.kind, drift.name) for drift in world.drifts] == [(DriftKind.LINK, "calia")]
    assert "proxy_arp" in world.drifts[0].text
    assert world.sysctl.read("net/ipv4/conf/calia/proxy_arp") == "1"


def test_a_bucket_that_vanished_without_a_word_is_found_when_its_turn_comes(world: World) -> None:
    world.add_interface("calia")
    world.dataplane.apply([endpoint(qos=Qos(ingress=Limits(bandwidth_bit_s=8_000_000)))], complete=True)
    assert world.traffic_control.execute([DeleteBucket("calia")]) == [None]
    world.turns(0.0, int(2 * READING_S) + 5)
    assert [(drift.kind, drift.name) for drift in world.drifts] == [(DriftKind.BANDWIDTH, "calia")]
    assert world.traffic_control.read().buckets["calia"]


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


def forwarding(*ports: Forward, elsewhere: tuple[ForwardElsewhere, ...] = ()) -> EndpointUpdate:
    update = endpoint()
    return EndpointUpdate(update.key, 1, msgspec.structs.replace(update.endpoint, forwards=ports, elsewhere=elsewhere))


def test_of_a_forwarded_address_home_has_the_route_and_passes_on_what_leads_elsewhere(world: World) -> None:
    world.add_interface("calia")
    world.add_interface("eth0")
    index, floating, own = world.rtnetlink.index_of("eth0"), parse_address("10.65.9.9"), parse_address("10.65.0.1")
    world.rtnetlink.stranger(SetLink(index, up=True), AddAddress(InterfaceAddress(index, parse_address("192.0.2.1"), 24)))
    there = [ForwardElsewhere(floating, 6, port, port, f"h{port}", (parse_address(f"192.0.{port}.2"),)) for port in (2, 3)]
    report = world.dataplane.apply([forwarding(Forward(floating, 6, 80, own, 80), elsewhere=tuple(there))], complete=True)
    assert report.problems == ("port 6/3 of 10.65.9.9 leads to host h3: no link or VXLAN tunnel goes there",)
    assert floating in {route.destination for route in world.rtnetlink.routes(protocol=84)}
    (rule,) = world.rtnetlink.port_rules()
    world.rtnetlink.stranger(DeletePortRule(rule))
    world.turns(0.0, int(3 * READING_S) + 5)
    assert [drift.text for drift in world.drifts] == ["rule of port 6/2 is gone"]
    assert world.rtnetlink.port_rules() == [rule]
    assert world.dataplane.apply([forwarding(Forward(floating, 6, 80, own, 80, "home"))], complete=True).problems == ()
    assert floating not in {route.destination for route in world.rtnetlink.routes(protocol=84)}
    assert world.rtnetlink.port_rules() == []


def test_denied_packets_stay_with_the_endpoint_whatever_becomes_of_its_interface(world: World) -> None:
    def update(name: str, interface: str) -> EndpointUpdate:
        return EndpointUpdate(ResourceKey("W", name), 1, Endpoint("h", interface, "", (), (), (), (), ()))

    def denied(name: str) -> tuple[int, int]:
        """Packets sent and not received."""
        found = world.dataplane.counters().endpoints
        return found[Half(f"W/{name}", False)].packets, found[Half(f"W/{name}", True)].packets

    def count(interface: str, packets: int) -> None:
        world.nftables.count_element("denied_in", ifname(interface), packets, 100 * packets)

    world.dataplane.apply([update("a", "cali1")], complete=True)
    count("cali1", 3)
    world.nftables.count_element("denied_out", ifname("cali1"), 1, 60)
    assert denied("a") == (3, 1)
    count("cali1", 1)
    world.dataplane.apply([update("a", "cali2")], complete=True)
    count("cali2", 5)
    assert denied("a") == (9, 1)
    # Another endpoint takes over the interface, whose element stays.
    count("cali2", 1)
    world.dataplane.apply([update("a", "cali3"), update("b", "cali2")], complete=True)
    count("cali2", 10)
    assert (denied("a"), denied("b")) == ((10, 1), (10, 0))
    # The set is replaced by a larger one.
    world.dataplane.apply([update(f"x{number}", f"calix{number}") for number in range(2000)], complete=True)
    assert (denied("a"), denied("b")) == ((10, 1), (10, 0))
    world.dataplane.apply([EndpointRemove(ResourceKey("W", "b"))], complete=True)
    assert denied("a") == (10, 1)
    assert Half("W/b", False) not in world.dataplane.counters().endpoints

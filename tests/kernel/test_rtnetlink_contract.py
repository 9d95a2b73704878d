"""What the kernel's rtnetlink and the fake both do, told once and run against both."""

from __future__ import annotations

import errno
import os
import select
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tabinet.kernel import netns
from tabinet.kernel.rtfake import FakeRtnetlink
from tabinet.kernel.rtnetlink import (
    AddAddress,
    AddInterfaceRule,
    AddPortRule,
    AddressEvent,
    AddRoute,
    AddSourceRule,
    AddVeth,
    DeleteAddress,
    DeleteInterfaceRule,
    DeleteLink,
    DeleteNeighbour,
    DeletePortRule,
    DeleteRoute,
    Event,
    Hop,
    InterfaceAddress,
    InterfaceRule,
    Link,
    LinkEvent,
    Neighbour,
    NeighbourEvent,
    PortRule,
    ReplaceRoute,
    Route,
    RouteEvent,
    RtEvents,
    Rtnetlink,
    RtOp,
    SetLink,
    SetNeighbour,
    Watch,
    blackhole_route,
    device_route,
    execute_all,
    gateway_route,
)
from tabinet.kernel.rtsocket import open_events, open_rtnetlink
from tabinet.lib.ip import IPV4, IPV6, Prefix, parse_prefix

pytestmark = pytest.mark.kernel

MAC = "02:00:00:00:00:09"


@dataclass
class Seat:
    """One namespace: the thing under test, its events, and a second namespace's descriptor."""

    rt: Rtnetlink
    events: RtEvents
    elsewhere: int

    def link(self, name: str) -> Link:
        return next(link for link in self.rt.links() if link.name == name)

    def codes(self, *operations: RtOp) -> list[int]:
        return [outcome.errno if outcome else 0 for outcome in self.rt.execute(operations)]

    def heard(self, wanted: Callable[[Event], bool]) -> Event:
        """The first event that fits, waiting for at most two seconds."""
        while select.select([self.events.fileno()], [], [], 2.0)[0]:
            for event in self.events.read():
                if wanted(event):
                    return event
        raise AssertionError("no such event")

    def pair(self) -> tuple[int, int]:
        """Both ends of a veth, up."""
        execute_all(self.rt, [AddVeth("a", "b")])
        a, b = self.link("a").index, self.link("b").index
        execute_all(self.rt, [SetLink(a, up=True), SetLink(b, up=True)])
        return a, b


@pytest.fixture(params=["fake", "real"])
def seat(request: pytest.FixtureRequest) -> Iterator[Seat]:
    if request.param == "fake":
        fake = FakeRtnetlink()
        events = fake.events()
        elsewhere = os.open("/dev/null", os.O_RDONLY)
        yield Seat(fake, events, elsewhere)
        os.close(elsewhere)
        events.close()
        return
    names = [f"tbt-{uuid.uuid4().hex[:10]}" for _ in range(2)]
    for name in names:
        netns.create(name)
    rt = netns.run_in(names[0], open_rtnetlink)
    real_events = netns.run_in(names[0], lambda: open_events(~Watch(0), route_protocols=(84, 85)))
    elsewhere = netns.open_namespace(names[1])
    execute_all(rt, [SetLink(1, up=True)])
    yield Seat(rt, real_events, elsewhere)
    os.close(elsewhere)
    real_events.close()
    rt.close()
    for name in names:
        netns.delete(name)


def p(text: str) -> Prefix:
    return parse_prefix(text)


def ours(seat: Seat) -> set[Route]:
    return set(seat.rt.routes(protocol=84))


def test_a_new_pair_is_down_with_the_given_names_and_macs(seat: Seat) -> None:
    execute_all(seat.rt, [AddVeth("a", "b", mac="02:00:00:00:00:01", peer_mac="02:00:00:00:00:02", mtu=1400)])
    a, b = seat.link("a"), seat.link("b")
    assert (a.mac, a.mtu, a.up, a.carrier, a.kind, a.peer_index) == ("02:00:00:00:00:01", 1400, False, False, "veth", b.index)
    assert (b.mac, b.mtu, b.peer_index) == ("02:00:00:00:00:02", 1400, a.index)


def test_a_peer_can_be_born_elsewhere(seat: Seat) -> None:
    execute_all(seat.rt, [AddVeth("a", "eth0", seat.elsewhere)])
    assert {link.name for link in seat.rt.links()} == {"lo", "a"}


def test_indices_can_be_chosen(seat: Seat) -> None:
    execute_all(seat.rt, [AddVeth("a", "b", index=100, peer_index=200)])
    assert (seat.link("a").index, seat.link("b").index) == (100, 200)
    assert seat.codes(AddVeth("c", "d", index=100, peer_index=300), AddVeth("c", "d", index=101, peer_index=200)) == [
        errno.EEXIST,
        errno.EBUSY,
    ]
    execute_all(seat.rt, [AddVeth("e", "eth0", seat.elsewhere, index=300, peer_index=2)])
    assert seat.link("e").index == 300


def test_carrier_needs_both_ends(seat: Seat) -> None:
    execute_all(seat.rt, [AddVeth("a", "b")])
    a, b = seat.link("a").index, seat.link("b").index
    execute_all(seat.rt, [SetLink(a, up=True)])
    assert (seat.link("a").up, seat.link("a").carrier) == (True, False)
    execute_all(seat.rt, [SetLink(b, up=True)])
    assert seat.link("a").carrier
    seat.heard(lambda event: isinstance(event, LinkEvent) and event.link.index == a and event.link.carrier and event.link.running)
    execute_all(seat.rt, [SetLink(b, up=False)])
    assert (seat.link("a").up, seat.link("a").carrier) == (True, False)


def test_links_change_name_mac_and_mtu(seat: Seat) -> None:
    execute_all(seat.rt, [AddVeth("a", "b")])
    index = seat.link("a").index
    execute_all(seat.rt, [SetLink(index, name="c", mac=MAC, mtu=1300)])
    link = seat.link("c")
    assert (link.index, link.mac, link.mtu) == (index, MAC, 1300)


def test_refusals_name_the_reason(seat: Seat) -> None:
    execute_all(seat.rt, [AddVeth("a", "b")])
    a = seat.link("a").index
    down = device_route(p("10.0.0.1"), a)
    assert seat.codes(
        AddVeth("a", "c"),
        AddVeth("c", "b"),
        DeleteLink("no"),
        DeleteLink("a", 999),
        SetLink(999, up=True),
        SetLink(a, name="b"),
        AddAddress(InterfaceAddress(999, p("10.0.0.1"), 32)),
        DeleteAddress(InterfaceAddress(a, p("10.0.0.1"), 32)),
        AddRoute(down),
        AddRoute(device_route(p("fd00::1"), a)),
        AddRoute(device_route(p("10.0.0.1"), 999)),
        AddRoute(gateway_route(p("10.1.0.0/16"), p("10.9.9.9"))),
        AddRoute(gateway_route(p("fd01::/64"), p("fd99::9"))),
        DeleteRoute(down),
        DeleteRoute(device_route(p("fd00::1"), a)),
    ) == [
        errno.EEXIST,
        errno.EEXIST,
        errno.ENODEV,
        errno.ENODEV,
        errno.ENODEV,
        errno.EEXIST,
        errno.ENODEV,
        errno.EADDRNOTAVAIL,
        errno.ENETDOWN,
        errno.ENETDOWN,
        errno.ENODEV,
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.ESRCH,
        errno.ESRCH,
    ]
    outcome = seat.rt.execute([AddRoute(down)])[0]
    assert outcome is not None
    assert outcome.operation == "add route 10.0.0.1/32"


def test_one_failure_does_not_stop_the_others(seat: Seat) -> None:
    a, _ = seat.pair()
    routes = [device_route(p(f"10.0.{i >> 8}.{i & 255}"), a) for i in range(2500)]
    execute_all(seat.rt, [AddRoute(routes[1])])
    assert seat.codes(*[AddRoute(route) for route in routes]) == [0, errno.EEXIST] + [0] * 2498
    assert ours(seat) == set(routes)
    assert seat.codes(*[DeleteRoute(route) for route in [*routes, routes[7]]]) == [0] * 2500 + [errno.ESRCH]
    assert ours(seat) == set()


def test_routes_read_back_as_given(seat: Seat) -> None:
    a, b = seat.pair()
    execute_all(seat.rt, [AddAddress(InterfaceAddress(a, p("10.9.0.1"), 24)), AddAddress(InterfaceAddress(a, p("fe80::1"), 64))])
    routes = {
        device_route(p("10.0.0.1"), a),
        device_route(p("fd00::1"), b, metric=1),
        gateway_route(p("10.1.0.0/16"), p("10.9.0.2"), a),
        gateway_route(p("fd01::/64"), p("fe80::2"), a, metric=1),
        blackhole_route(p("10.2.0.0/24")),
        blackhole_route(p("fd02::/64"), metric=1),
        gateway_route(p("0.0.0.0/0"), p("10.9.0.3"), a, metric=50),
        Route(p("10.3.0.0/16"), (Hop(a, p("10.9.0.2")), Hop(a, p("10.9.0.3"), 3))),
        device_route(p("10.0.0.2"), a, protocol=12),
    }
    execute_all(seat.rt, [AddRoute(route) for route in routes])
    assert routes <= set(seat.rt.routes())
    assert ours(seat) == {route for route in routes if route.protocol == 84}
    assert seat.rt.routes(protocol=84, table=77) == []


def test_the_kernel_gives_ipv6_a_metric(seat: Seat) -> None:
    a, _ = seat.pair()
    execute_all(seat.rt, [AddRoute(device_route(p("fd00::1"), a))])
    assert ours(seat) == {device_route(p("fd00::1"), a, metric=1024)}


@pytest.mark.parametrize("text", ["10.0.0.1", "fd00::1"])
def test_add_refuses_what_replace_takes_over(seat: Seat, text: str) -> None:
    a, b = seat.pair()
    foreign = device_route(p(text), a, metric=1, protocol=12)
    execute_all(seat.rt, [AddRoute(foreign)])
    mine = device_route(p(text), b, metric=1)
    assert seat.codes(AddRoute(mine), DeleteRoute(mine)) == [errno.EEXIST, errno.ESRCH]
    assert foreign in seat.rt.routes()
    execute_all(seat.rt, [ReplaceRoute(mine)])
    assert ours(seat) == {mine}
    assert foreign not in seat.rt.routes()
    assert seat.codes(DeleteRoute(mine)) == [0]


def test_a_rule_for_a_source_is_added_once(seat: Seat) -> None:
    rules = [AddSourceRule(p(text), 8402, 8400) for text in ("10.0.0.1", "fd00::1")]
    assert seat.codes(*rules, *rules) == [0, 0, errno.EEXIST, errno.EEXIST]
    assert seat.codes(AddSourceRule(p("10.0.0.1"), 8403, 8400)) == [0]


def test_addresses_come_and_go_and_can_be_added_twice(seat: Seat) -> None:
    a, _ = seat.pair()
    addresses = {InterfaceAddress(a, p("10.0.0.1"), 32), InterfaceAddress(a, p("169.254.1.1"), 32), InterfaceAddress(a, p("fe80::1"), 64)}
    for _ in range(2):
        execute_all(seat.rt, [AddAddress(address) for address in addresses])
    assert addresses <= set(seat.rt.addresses())
    seat.heard(lambda event: isinstance(event, AddressEvent) and not event.gone and event.address in addresses)
    execute_all(seat.rt, [DeleteAddress(address) for address in addresses])
    assert not addresses & set(seat.rt.addresses())


def test_neighbours_come_and_go(seat: Seat) -> None:
    a, _ = seat.pair()
    entries = {Neighbour(a, p("10.0.0.1"), MAC), Neighbour(a, p("fd00::1"), MAC)}
    for _ in range(2):
        execute_all(seat.rt, [SetNeighbour(entry) for entry in entries])
    assert {entry for entry in seat.rt.neighbours() if entry.permanent} == entries
    other = Neighbour(a, p("10.0.0.1"), "02:00:00:00:00:0a")
    execute_all(seat.rt, [SetNeighbour(other)])
    assert other in seat.rt.neighbours()
    seat.heard(lambda event: isinstance(event, NeighbourEvent) and event.neighbour == other)
    assert seat.codes(DeleteNeighbour(other), DeleteNeighbour(other)) == [0, errno.ENOENT]


def test_neighbours_can_be_set_while_the_interface_is_down(seat: Seat) -> None:
    execute_all(seat.rt, [AddVeth("a", "b")])
    entry = Neighbour(seat.link("a").index, p("10.0.0.1"), MAC)
    execute_all(seat.rt, [SetNeighbour(entry), SetLink(entry.index, up=True)])
    assert entry in seat.rt.neighbours()


def test_down_takes_routes_neighbours_and_ipv6_addresses(seat: Seat) -> None:
    a, b = seat.pair()
    v4, v6 = InterfaceAddress(a, p("10.9.0.1"), 24), InterfaceAddress(a, p("fd09::1"), 64)
    execute_all(seat.rt, [AddAddress(v4), AddAddress(v6), SetNeighbour(Neighbour(a, p("10.0.0.1"), MAC))])
    kept = device_route(p("10.0.0.2"), b)
    execute_all(seat.rt, [AddRoute(device_route(p("10.0.0.1"), a)), AddRoute(device_route(p("fd00::1"), a, metric=1)), AddRoute(kept)])
    execute_all(seat.rt, [SetLink(a, up=False)])
    assert ours(seat) == {kept}
    assert [entry for entry in seat.rt.neighbours() if entry.permanent] == []
    assert (v4 in seat.rt.addresses(), v6 in seat.rt.addresses()) == (True, False)
    gone = seat.heard(lambda event: isinstance(event, RouteEvent) and event.gone)
    assert isinstance(gone, RouteEvent)
    assert gone.route.destination == p("fd00::1")
    assert gone.sender == 0


def test_deleting_one_end_deletes_both_and_all_on_them(seat: Seat) -> None:
    a, b = seat.pair()
    execute_all(seat.rt, [AddAddress(InterfaceAddress(b, p("10.9.0.1"), 24)), AddRoute(device_route(p("10.0.0.1"), b))])
    execute_all(seat.rt, [DeleteLink("a")])
    assert [link.name for link in seat.rt.links()] == ["lo"]
    assert ours(seat) == set()
    assert [address for address in seat.rt.addresses() if address.index == b] == []
    event = seat.heard(lambda event: isinstance(event, LinkEvent) and event.gone and event.link.index == a)
    assert isinstance(event, LinkEvent)
    assert event.link.name == "a"


def test_a_link_is_deleted_by_its_index_whatever_has_its_name(seat: Seat) -> None:
    execute_all(seat.rt, [AddVeth("a", "b")])
    a = seat.link("a").index
    execute_all(seat.rt, [SetLink(a, name="old"), AddVeth("a", "c"), DeleteLink("a", a)])
    assert {link.name for link in seat.rt.links()} == {"lo", "a", "c"}


def test_a_link_that_moves_elsewhere_is_gone(seat: Seat) -> None:
    a, _ = seat.pair()
    execute_all(seat.rt, [SetLink(a, namespace=seat.elsewhere)])
    assert {link.name for link in seat.rt.links()} == {"lo", "b"}
    seat.heard(lambda event: isinstance(event, LinkEvent) and event.gone and event.link.index == a)


def test_route_events_say_who_asked(seat: Seat) -> None:
    a, _ = seat.pair()
    route = device_route(p("10.0.0.1"), a)
    execute_all(seat.rt, [AddRoute(device_route(p("10.0.0.9"), a, protocol=84)), AddRoute(route), DeleteRoute(route)])
    event = seat.heard(lambda event: isinstance(event, RouteEvent) and event.gone)
    assert event == RouteEvent(route, True, seat.rt.port)


def test_reading_events_never_waits(seat: Seat) -> None:
    while select.select([seat.events.fileno()], [], [], 0)[0]:
        seat.events.read()
    assert seat.events.read() == []


def test_rules_of_interfaces(seat: Seat) -> None:
    rules = [InterfaceRule("a", family, 8600, 8600) for family in (IPV4, IPV6)]
    assert seat.codes(*(AddInterfaceRule(rule) for rule in rules)) == [0, 0]
    assert seat.codes(AddInterfaceRule(rules[0])) == [errno.EEXIST]
    assert sorted(seat.rt.interface_rules(8600)) == rules
    assert seat.rt.interface_rules(8601) == []
    assert seat.codes(*(DeleteInterfaceRule(rule) for rule in (*rules, rules[0]))) == [0, 0, errno.ENOENT]
    assert seat.rt.interface_rules(8600) == []


def test_rules_of_ports(seat: Seat) -> None:
    rules = [
        PortRule(p(address), protocol, 80, last, 8700, 8700) for address, protocol, last in (("192.0.2.1", 6, 80), ("fd00::1", 17, 89))
    ]
    assert seat.codes(*(AddPortRule(rule) for rule in rules)) == [0, 0]
    assert seat.codes(AddPortRule(rules[0])) == [errno.EEXIST]
    assert seat.codes(AddInterfaceRule(InterfaceRule("a", IPV4, 8600, 8600))) == [0]
    assert sorted(seat.rt.port_rules()) == rules
    assert seat.codes(*(DeletePortRule(rule) for rule in (*rules, rules[0]))) == [0, 0, errno.ENOENT]
    assert seat.rt.port_rules() == []

"""What the kernel's rtnetlink and the fake both do with tunnels, told once and run against both."""

from __future__ import annotations

import errno
import select
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tabinet.kernel import netns
from tabinet.kernel.rtfake import FakeRtnetlink
from tabinet.kernel.rtnetlink import (
    AddAddress,
    AddIpip,
    AddRoute,
    AddVxlan,
    DeleteForwarding,
    DeleteLink,
    Event,
    Forwarding,
    ForwardingEvent,
    Hop,
    InterfaceAddress,
    Link,
    LinkEvent,
    ReplaceRoute,
    Route,
    RouteEvent,
    RtEvents,
    Rtnetlink,
    RtOp,
    SetForwarding,
    SetLink,
    Vxlan,
    Watch,
    execute_all,
)
from tabinet.kernel.rtsocket import open_events, open_rtnetlink
from tabinet.lib.ip import Prefix, parse_prefix

pytestmark = pytest.mark.kernel

MAC, FAR_MAC = "66:00:00:00:00:01", "66:00:00:00:00:02"


def p(text: str) -> Prefix:
    return parse_prefix(text)


VXLAN4, VXLAN6 = Vxlan(4096, 4789, p("172.16.0.1")), Vxlan(4096, 4789, p("fd16::1"))


@dataclass
class Seat:
    """A namespace and what is heard there."""

    rt: Rtnetlink
    events: RtEvents

    def link(self, name: str) -> Link:
        return next(link for link in self.rt.links() if link.name == name)

    def codes(self, *operations: RtOp) -> list[int]:
        return [outcome.errno if outcome else 0 for outcome in self.rt.execute(operations)]

    def heard(self, wanted: Callable[[Event], bool]) -> Event:
        while select.select([self.events.fileno()], [], [], 2.0)[0]:
            for event in self.events.read():
                if wanted(event):
                    return event
        raise AssertionError("no such event")

    def vxlan(self) -> int:
        """The index of a VXLAN interface that is up and has an address."""
        execute_all(self.rt, [AddVxlan("vx", VXLAN4, MAC, 1450)])
        index = self.link("vx").index
        execute_all(self.rt, [AddAddress(InterfaceAddress(index, p("10.65.0.1"), 32)), SetLink(index, up=True)])
        return index


@pytest.fixture(params=["fake", "fake with ipip", "real"])
def seat(request: pytest.FixtureRequest) -> Iterator[Seat]:
    if request.param != "real":
        fake = FakeRtnetlink(ipip="ipip" in request.param)
        events = fake.events()
        yield Seat(fake, events)
        events.close()
        return
    name = f"tbt-{uuid.uuid4().hex[:10]}"
    netns.create(name)
    rt = netns.run_in(name, open_rtnetlink)
    real_events = netns.run_in(name, lambda: open_events(~Watch(0), route_protocols=(84, 85)))
    execute_all(rt, [SetLink(1, up=True)])
    yield Seat(rt, real_events)
    real_events.close()
    rt.close()
    netns.delete(name)


def test_a_vxlan_interface_reads_back_as_it_was_made(seat: Seat) -> None:
    execute_all(seat.rt, [AddVxlan("vx", VXLAN4, MAC, 1450), AddVxlan("vx6", VXLAN6, MAC, 1430)])
    four, six = seat.link("vx"), seat.link("vx6")
    assert (four.kind, four.vxlan, four.mac, four.mtu) == ("vxlan", VXLAN4, MAC, 1450)
    assert (four.alias, four.up, four.peer_index) == ("", False, 0)
    assert (six.vxlan, six.mtu, six.alias) == (VXLAN6, 1430, "")
    execute_all(seat.rt, [SetLink(four.index, up=True, mtu=1400, alias="other")])
    four = seat.link("vx")
    assert (four.up, four.carrier, four.mtu, four.alias) == (True, True, 1400, "other")
    execute_all(seat.rt, [SetLink(four.index, alias="")])
    assert seat.link("vx").alias == ""


def test_names_and_identifiers_are_taken_once(seat: Seat) -> None:
    execute_all(seat.rt, [AddVxlan("vx", VXLAN4, MAC, 1450)])
    assert seat.codes(
        AddVxlan("vx", Vxlan(1, 4789, p("172.16.0.1")), MAC, 1450),
        AddVxlan("vx2", VXLAN4, MAC, 1450),
        AddVxlan("vx2", Vxlan(4096, 4790, p("172.16.0.1")), MAC, 1450),
        DeleteLink("vx"),
        DeleteLink("vx"),
        AddVxlan("vx", VXLAN4, MAC, 1450),
    ) == [errno.EEXIST, errno.EEXIST, 0, 0, errno.ENODEV, 0]


def test_forwarding_is_one_host_for_a_mac(seat: Seat) -> None:
    index = seat.vxlan()
    one, other = Forwarding(index, FAR_MAC, p("172.16.0.2")), Forwarding(index, FAR_MAC, p("172.16.0.3"))
    assert seat.rt.forwarding(index) == []
    assert seat.codes(SetForwarding(one), SetForwarding(one)) == [0, 0]
    assert seat.rt.forwarding(index) == [one]
    assert isinstance(seat.heard(lambda event: event == ForwardingEvent(one, False)), ForwardingEvent)
    assert seat.codes(SetForwarding(other)) == [0]
    assert seat.rt.forwarding(index) == [other]
    assert seat.codes(DeleteForwarding(other), DeleteForwarding(other)) == [0, errno.ENOENT]
    assert seat.heard(lambda event: event == ForwardingEvent(other, True))
    assert seat.rt.forwarding(index) == []
    assert seat.codes(SetForwarding(Forwarding(99, FAR_MAC, p("172.16.0.2"))), SetForwarding(Forwarding(1, FAR_MAC, p("172.16.0.2")))) == [
        errno.ENODEV,
        errno.EINVAL,
    ]
    execute_all(seat.rt, [SetForwarding(one), DeleteLink("vx")])
    assert seat.rt.forwarding(index) == []


def test_a_gateway_can_be_on_the_link_by_decree(seat: Seat) -> None:
    index = seat.vxlan()
    nowhere = Route(p("10.65.0.64/26"), (Hop(index, p("10.65.0.65")),), protocol=85, metric=31)
    by_decree = Route(p("10.65.0.64/26"), (Hop(index, p("10.65.0.65"), on_link=True),), protocol=85, metric=31)
    assert seat.codes(AddRoute(nowhere), AddRoute(by_decree), AddRoute(by_decree)) == [errno.ENETUNREACH, 0, errno.EEXIST]
    assert seat.rt.routes(protocol=85) == [by_decree]
    assert seat.heard(lambda event: isinstance(event, RouteEvent) and event.route == by_decree and not event.gone)
    six = Route(p("fd65:1::/122"), (Hop(index, p("fd65:1::1"), on_link=True),), protocol=85, metric=31)
    execute_all(seat.rt, [ReplaceRoute(six)])
    assert set(seat.rt.routes(protocol=85)) == {by_decree, six}
    execute_all(seat.rt, [SetLink(index, up=False)])
    assert seat.rt.routes(protocol=85) == []
    assert seat.codes(AddRoute(by_decree)) == [errno.ENETDOWN]


def test_ip_in_ip_is_refused_as_unknown_or_there(seat: Seat) -> None:
    code = seat.codes(AddIpip("tunl0", 1480))[0]
    assert code in (0, errno.EEXIST, errno.EOPNOTSUPP)
    if code != errno.EOPNOTSUPP:
        link = seat.link("tunl0")
        assert (link.kind, link.mtu, link.mac, link.up, link.alias, link.vxlan) == ("ipip", 1480, "", False, "", None)
        # There is one to anywhere, and that which the kernel has made (EEXIST) stays when it is deleted.
        execute_all(seat.rt, [SetLink(link.index, up=True, mtu=1400, alias="other")])
        assert seat.codes(AddIpip("tunl0", 1480), AddIpip("tun", 1480), DeleteLink("tunl0")) == [errno.EEXIST, errno.EEXIST, 0]
        left = [(link.up, link.mtu, link.alias) for link in seat.rt.links() if link.name == "tunl0"]
        assert left == ([(True, 1400, "other")] if code else [])
    assert seat.codes(AddVxlan("vx", VXLAN4, MAC, 1450)) == [0]
    assert seat.heard(lambda event: isinstance(event, LinkEvent) and event.link.vxlan == VXLAN4)

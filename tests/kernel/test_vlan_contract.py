"""What the kernel's rtnetlink and the fake both do with VLAN interfaces, told once and run against both."""

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
    AddVeth,
    AddVlan,
    DeleteLink,
    Event,
    Link,
    LinkEvent,
    RtEvents,
    Rtnetlink,
    RtOp,
    SetAlias,
    SetLink,
    Watch,
    execute_all,
)
from tabinet.kernel.rtsocket import open_events, open_rtnetlink

pytestmark = pytest.mark.kernel

NO_VLANS = "this kernel has no VLAN interfaces"


@dataclass
class Seat:
    """A namespace with a veth pair ``a``, ``b`` that is up, and what is heard there."""

    rt: Rtnetlink
    events: RtEvents

    def link(self, name: str) -> Link:
        return next(link for link in self.rt.links() if link.name == name)

    def names(self) -> set[str]:
        """Without what modules of the kernel make in each namespace."""
        return {link.name for link in self.rt.links()} & {"a", "b", "v", "w"}

    def codes(self, *operations: RtOp) -> list[int]:
        return [outcome.errno if outcome else 0 for outcome in self.rt.execute(operations)]

    def heard(self, wanted: Callable[[Event], bool]) -> Event:
        while select.select([self.events.fileno()], [], [], 5.0)[0]:
            for event in self.events.read():
                if wanted(event):
                    return event
        raise AssertionError("no such event")

    def up(self) -> None:
        execute_all(self.rt, [AddVeth("a", "b"), SetLink(1, up=True)])
        execute_all(self.rt, [SetLink(self.link(name).index, up=True) for name in "ab"])


@pytest.fixture(params=["fake", "kernel"])
def seat(request: pytest.FixtureRequest) -> Iterator[Seat]:
    if request.param == "fake":
        fake = FakeRtnetlink()
        events = fake.events()
        made = Seat(fake, events)
        made.up()
        yield made
        events.close()
        return
    name = f"tbv-{uuid.uuid4().hex[:6]}"
    netns.create(name)
    rt = netns.run_in(name, open_rtnetlink)
    real_events = netns.run_in(name, lambda: open_events(Watch.LINKS))
    try:
        made = Seat(rt, real_events)
        made.up()
        if made.codes(AddVlan("probe", made.link("a").index, 1)) == [errno.EOPNOTSUPP]:
            pytest.skip(NO_VLANS)
        execute_all(rt, [DeleteLink("probe")])
        yield made
    finally:
        real_events.close()
        rt.close()
        netns.delete(name)


def test_a_vlan_interface_is_down_and_like_its_parent(seat: Seat) -> None:
    parent = seat.link("a")
    execute_all(seat.rt, [SetLink(parent.index, mtu=1400)])
    execute_all(seat.rt, [AddVlan("v", parent.index, 7), SetAlias("v", "mine")])
    made = seat.link("v")
    assert (made.kind, made.vlan, made.peer_index, made.up) == ("vlan", 7, parent.index, False)
    assert (made.mac, made.mtu, made.alias) == (parent.mac, 1400, "mine")
    event = seat.heard(lambda event: isinstance(event, LinkEvent) and event.link.name == "v")
    assert isinstance(event, LinkEvent)
    assert (event.link.vlan, event.link.peer_index) == (7, parent.index)
    # An alias is told of with the next change of an interface that is up.
    execute_all(seat.rt, [SetLink(made.index, up=True)])
    seat.heard(lambda event: isinstance(event, LinkEvent) and event.link.alias == "mine" and event.link.up)


def test_what_is_taken_or_not_there_is_refused(seat: Seat) -> None:
    a, b = seat.link("a").index, seat.link("b").index
    assert seat.codes(AddVlan("v", a, 7), AddVlan("v", a, 8), AddVlan("w", a, 7)) == [0, errno.EEXIST, errno.EEXIST]
    assert seat.codes(AddVlan("w", b, 7), AddVlan("x", 999, 7), AddVlan("x", 1, 7)) == [0, errno.ENODEV, errno.EOPNOTSUPP]
    assert seat.codes(SetAlias("x", "mine")) == [errno.ENODEV]


def test_it_is_up_without_its_parent_and_has_its_parents_carrier(seat: Seat) -> None:
    a = seat.link("a").index
    execute_all(seat.rt, [SetLink(a, up=False), AddVlan("v", a, 7)])
    execute_all(seat.rt, [SetLink(seat.link("v").index, up=True)])
    assert (seat.link("v").up, seat.link("v").carrier) == (True, False)
    execute_all(seat.rt, [SetLink(a, up=True)])
    seat.heard(lambda event: isinstance(event, LinkEvent) and event.link.name == "v" and event.link.carrier)
    execute_all(seat.rt, [SetLink(seat.link("b").index, up=False)])
    seat.heard(lambda event: isinstance(event, LinkEvent) and event.link.name == "v" and not event.link.carrier)
    assert seat.link("v").up


def test_it_goes_with_its_parent(seat: Seat) -> None:
    execute_all(seat.rt, [AddVlan("v", seat.link("a").index, 7), AddVlan("w", seat.link("b").index, 7)])
    execute_all(seat.rt, [DeleteLink("w")])
    assert seat.names() == {"a", "b", "v"}
    execute_all(seat.rt, [DeleteLink("a")])
    assert seat.names() == set()
    seat.heard(lambda event: isinstance(event, LinkEvent) and event.gone and event.link.name == "v")


def test_a_kernel_without_them_says_so() -> None:
    fake = FakeRtnetlink(vlans=False)
    outcome = fake.execute([AddVlan("v", 1, 7)])[0]
    assert outcome is not None
    assert (outcome.errno, outcome.operation) == (errno.EOPNOTSUPP, "add VLAN interface v with tag 7 on interface 1")

"""What ``Conntrack`` promises, of the kernel and of the fake."""

from __future__ import annotations

import re
import socket
import uuid
from collections.abc import Iterator

import pytest

from tabinet.kernel import netns
from tabinet.kernel.conntrack import Conntrack, TcpFlow
from tabinet.kernel.ctfake import FakeConntrack
from tabinet.kernel.ctsocket import open_conntrack
from tabinet.kernel.flowcodec import Flow, parse_part, render_parts
from tabinet.kernel.netlink import attribute, nested
from tabinet.lib.ip import parse_address

MASK = 0x00FFFF00
FLOWS = [
    TcpFlow(parse_address(source), parse_address(destination), 40000 + index, 80)
    for source, destination in (("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2"))
    for index in range(3)
]


class Place:
    """A namespace, or the fake."""

    def __init__(self, real: bool) -> None:
        self.name = f"tbt-{uuid.uuid4().hex[:8]}" if real else ""
        self.fake = FakeConntrack()
        self.conntrack: Conntrack = self.fake
        if real:
            netns.create(self.name)
            self.conntrack = netns.run_in(self.name, open_conntrack)

    def marks(self) -> dict[int, list[int]]:
        """Marks of the flows by source port."""
        found: dict[int, list[int]] = {}
        if not self.name:
            for flow, mark in self.fake.marks.items():
                found.setdefault(flow.source_port, []).append(mark)
            return found

        def read() -> str:
            with open("/proc/thread-self/net/nf_conntrack") as file:
                return file.read()

        for port, mark in re.findall(r"sport=(\d+) dport=80 .*mark=(\d+)", netns.run_in(self.name, read)):
            found.setdefault(int(port), []).append(int(mark))
        return found

    def close(self) -> None:
        self.conntrack.close()
        if self.name:
            netns.delete(self.name)


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.kernel)], ids=["fake", "kernel"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    made = Place(request.param)
    yield made
    made.close()


def test_where_nothing_is_nothing_is_cleared(place: Place):
    assert place.conntrack.clear_marks(MASK, 0) == 0


def test_marks_are_cleared_but_for_one_and_others_bits_stay(place: Place):
    for flow, mark in zip(FLOWS, (0x11000107, 0x00000200, 0x80000007, 0x11000107, 0x00000200, 0x80000007), strict=True):
        assert place.conntrack.add_tcp(flow, mark)
    assert place.marks() == {40000: [0x11000107] * 2, 40001: [0x00000200] * 2, 40002: [0x80000007] * 2}
    assert place.conntrack.clear_marks(MASK, 0x00000200) == 2
    assert place.marks() == {40000: [0x11000007] * 2, 40001: [0x00000200] * 2, 40002: [0x80000007] * 2}
    assert place.conntrack.clear_marks(MASK, 0x00000200) == 0
    assert place.conntrack.clear_marks(MASK, 0) == 2
    assert place.marks() == {40000: [0x11000007] * 2, 40001: [0] * 2, 40002: [0x80000007] * 2}


def test_a_flow_is_known_once_in_either_direction(place: Place):
    assert place.conntrack.add_tcp(FLOWS[0], 0x300)
    assert not place.conntrack.add_tcp(FLOWS[0])
    assert not place.conntrack.add_tcp(FLOWS[0].reversed())
    assert place.marks() == {40000: [0x300]}


def test_many(place: Place):
    source, destination = FLOWS[0].source, FLOWS[0].destination
    for index in range(1200):
        assert place.conntrack.add_tcp(TcpFlow(source, destination, 1024 + index, 80), 0x100 + 0x100 * (index % 3))
    assert place.conntrack.clear_marks(MASK, 0x200) == 800
    assert sorted(set().union(*place.marks().values())) == [0, 0x200]


GUEST, OUTSIDE, PEER = "10.0.0.9", "192.0.2.9", "10.0.1.1"


def tuple_of(source: str, target: str, ports: tuple[int, int], protocol: int) -> bytes:
    first = 1 if "." in source else 3
    addresses = (attribute(first, parse_address(source).packed), attribute(first + 1, parse_address(target).packed))
    numbers = [attribute(2 + at, port.to_bytes(2, "big")) for at, port in enumerate(ports)]
    return nested(1, *addresses) + nested(2, attribute(1, bytes((protocol,))), *numbers)


def flow(source: str, target: str, port: int, *, protocol: int = 6, answering: str = "", answered: str = "") -> Flow:
    """Begun by ``source``; translated where others answer or are answered."""
    reply = tuple_of(answering or target, answered or source, (80, port), protocol)
    tcp = nested(1, attribute(1, b"\x03"), attribute(4, b"\0\0"), attribute(5, b"\0\0")) if protocol == 6 else b""
    return Flow(tuple_of(source, target, (port, 80), protocol), reply, 0xE, 100, mark=7, information=tcp)


def ends(flows: list[Flow]) -> set[tuple[str, str, str, str]]:
    """Addresses of both directions."""
    found = set()
    for each in flows:
        both = (*each.addresses(), *Flow(each.reply, each.original, 0, 0).addresses())
        found.add(tuple(socket.inet_ntop(socket.AF_INET if len(a) == 4 else socket.AF_INET6, a) for a in both))
    return found  # type: ignore[return-value]  # four of them


def test_flows_of_an_address_come_back_as_they_were(place: Place):
    flows = [flow(GUEST, PEER, 1), flow(PEER, GUEST, 2), flow(PEER, GUEST, 3, protocol=17), flow(PEER, "10.0.0.10", 4)]
    six = [flow("fd00::9", "fd00::1", 5), flow("fd00::1", "fd00::9", 6, protocol=17)]
    assert place.conntrack.add_flows([*flows, *six]) == 6
    assert place.conntrack.add_flows([*flows, *six]) == 0
    found = place.conntrack.flows_of(parse_address(GUEST))
    assert ends(found) == {(GUEST, PEER, PEER, GUEST), (PEER, GUEST, GUEST, PEER)}
    assert len(found) == 3
    assert {(each.status, each.mark) for each in found} == {(0xE, 7)}
    assert all(0 < each.timeout_s <= 100 for each in found)
    assert len(place.conntrack.flows_of(parse_address("fd00::9"))) == 2
    parts = list(render_parts(found))
    assert parse_part(parts[0]) == found


def test_translation_goes_along(place: Place):
    flows = [
        flow(PEER, OUTSIDE, 1, answering=GUEST),
        flow(GUEST, PEER, 2, answered=OUTSIDE),
        flow(PEER, OUTSIDE, 3, protocol=17, answering=GUEST),
    ]
    assert place.conntrack.add_flows(flows) == 3
    found = place.conntrack.flows_of(parse_address(GUEST))
    assert ends(found) == {(PEER, OUTSIDE, GUEST, PEER), (GUEST, PEER, PEER, OUTSIDE)}
    assert len(found) == 3


def test_what_cannot_be_added_is_left_out(place: Place):
    ping = Flow(tuple_of(PEER, OUTSIDE, (0, 0), 1), tuple_of(GUEST, PEER, (0, 0), 1), 0xE, 10)
    strange = [Flow(b"", b"", 0, 0), Flow(b"\xff" * 9, b"x", 0, 0)]
    assert place.conntrack.add_flows([ping, flow(PEER, GUEST, 1), *strange]) == 1


def test_flows_are_removed(place: Place):
    flows = [
        flow(PEER, OUTSIDE, 1, answering=GUEST),
        flow(PEER, GUEST, 2),
        flow("fd00::9", "fd00::1", 5),
        flow(PEER, GUEST, 3, protocol=17),
    ]
    assert place.conntrack.add_flows(flows) == 4
    assert place.conntrack.remove_flows([flows[0], flows[2], flow(GUEST, PEER, 9), Flow(b"", b"", 0, 0)]) == 2
    assert ends(place.conntrack.flows_of(parse_address(GUEST))) == {(PEER, GUEST, GUEST, PEER)}
    assert place.conntrack.flows_of(parse_address("fd00::9")) == []
    assert place.conntrack.remove_flows(flows) == 2

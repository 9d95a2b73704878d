"""What ``Conntrack`` promises, of the kernel and of the fake."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator

import pytest

from tabinet.kernel import netns
from tabinet.kernel.conntrack import Conntrack, TcpFlow
from tabinet.kernel.ctfake import FakeConntrack
from tabinet.kernel.ctsocket import open_conntrack
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

"""Large network sets, which are taken in part by part, and what a piece of work may cost."""

from __future__ import annotations

from itertools import pairwise

import pytest
from calc_build import nets

from tabinet.calc.carriers import NOWHERE
from tabinet.calc.labels import LabelIndex
from tabinet.calc.members import ActiveSet, MemberIndex
from tabinet.calc.messages import Member, SetKind
from tabinet.calc.specs import SetSpec
from tabinet.model.keys import ResourceKey
from tabinet.selector import parse

FEED = ResourceKey("GlobalNetworkSet", "feed")
LABELS = {"feed": "x"}


class Heard:
    def __init__(self) -> None:
        self.news: list[tuple[str, Member]] = []

    def on_member_added(self, set_id: str, member: Member) -> None:
        self.news.append(("+", member))

    def on_member_removed(self, set_id: str, member: Member) -> None:
        self.news.append(("-", member))


def texts(count: int, first: int = 0) -> tuple[str, ...]:
    return tuple(f"10.0.{number >> 8}.{number & 255}" for number in range(first, first + count))


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def index(heard: Heard) -> MemberIndex:
    return MemberIndex(LabelIndex(), heard, steps=1, part=3)


def settle(index: MemberIndex) -> int:
    """Pieces of work that were left."""
    for count in range(1_000):
        if not index.settle(1):
            return count
    raise AssertionError("never done")


def activated(index: MemberIndex) -> ActiveSet:
    (active,) = index.activate([SetSpec(SetKind.NETS, parse("feed == 'x'"))])
    settle(index)
    return active


def put(index: MemberIndex, addresses: tuple[str, ...]) -> None:
    index.put_network_set(FEED, NOWHERE, LABELS, (), addresses)


def test_large_one_is_taken_in_part_by_part(index: MemberIndex) -> None:
    active = activated(index)
    put(index, texts(10))
    assert not active.members
    assert settle(index) == 4
    assert frozenset(active.members) == nets(*texts(10))


def test_parts_that_stay_are_not_told_again(index: MemberIndex, heard: Heard) -> None:
    active = activated(index)
    put(index, texts(10))
    settle(index)
    heard.news.clear()
    put(index, (*texts(9), "192.0.2.1"))
    settle(index)
    gone, came = nets(texts(1, 9)[0]), nets("192.0.2.1")
    assert heard.news == [("+", *came), ("-", *gone)]
    assert frozenset(active.members) == nets(*texts(9), "192.0.2.1")


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7])
def test_large_one_shrinks(index: MemberIndex, count: int) -> None:
    active = activated(index)
    put(index, texts(10))
    settle(index)
    put(index, texts(count))
    settle(index)
    assert frozenset(active.members) == nets(*texts(count))


@pytest.mark.parametrize("settled", [False, True])
def test_large_one_goes(index: MemberIndex, settled: bool) -> None:
    active = activated(index)
    put(index, texts(10))
    if settled:
        settle(index)
    index.delete(FEED)
    settle(index)
    assert not active.members


@pytest.mark.parametrize("settled", [False, True])
def test_small_one_in_the_place_of_a_large_one_that_went(index: MemberIndex, settled: bool) -> None:
    active = activated(index)
    put(index, texts(10))
    if settled:
        settle(index)
    index.delete(FEED)
    put(index, ("192.0.2.1",))
    settle(index)
    assert frozenset(active.members) == nets("192.0.2.1")


def test_small_one_grows(index: MemberIndex) -> None:
    active = activated(index)
    put(index, texts(2))
    put(index, texts(8))
    settle(index)
    assert frozenset(active.members) == nets(*texts(8))


def test_set_of_many_is_filled_in_pieces(heard: Heard) -> None:
    index = MemberIndex(LabelIndex(), heard, steps=4, part=4)
    for number in range(100):
        index.put(ResourceKey("WorkloadEndpoint", str(number)), NOWHERE, LABELS, (), texts(1, number))
    (active,) = index.activate([SetSpec(SetKind.NETS, parse("all()"))])
    sizes = [0]
    while index.settle(1):
        sizes.append(len(active.members))
    assert sizes[-1] == 100
    assert max(after - before for before, after in pairwise(sizes)) <= 4
    assert heard.news == []


def test_broken_nets_are_left_out(index: MemberIndex) -> None:
    active = activated(index)
    put(index, ("nonsense", "10.0.0.1", "10.0.0.1/32"))
    assert dict(active.members) == dict.fromkeys(nets("10.0.0.1"), 1)

"""What one piece of work may cost, counted in calls of functions: it follows the budget, whatever the size of the fabric."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import FrameType

import pytest
from calc_build import Item, allow, endpoint, policy, profile

from tabinet.calc.graph import TOLD_MEMBERS, Graph
from tabinet.calc.inputs import Delete, InSync, Put
from tabinet.calc.messages import SetDelta, SetUpdate, Update

BUDGET = 10
CALLS = 8_000
"""Most calls in ``BUDGET`` units. Without a bound there would be some for each endpoint."""
SIZES = (300, 3_000)


def calls_of(work: Callable[[], object]) -> tuple[object, int]:
    """What ``work`` returns, and how many calls it made."""
    count = 0

    def on_event(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(on_event)
    try:
        result = work()
    finally:
        sys.setprofile(before)
    return result, count


def fabric(size: int) -> Iterator[Item]:
    """So many endpoints in one namespace, ten of them local, a tenth as many policies, and a profile of all."""
    for number in range(size // 10):
        yield policy(f"p{number}", selector=f"app == 'a{number % 7}'", ingress=(allow(selector=f"app == 'a{number % 5}'"),))
    yield profile("shop", labels={"team": "t0"})
    for number in range(size):
        host, labels = "h1" if number < 10 else "h2", {"app": f"a{number % 7}", "pod": str(number)}
        yield endpoint(f"w{number}", f"10.1.{number >> 8}.{number & 255}/32", host=host, labels=labels, profiles=("shop",))


def put(graph: Graph, *items: Item) -> None:
    for key, value in items:
        graph.on_input(Put(key, value, 1))


def settle(graph: Graph) -> int:
    """Settles in pieces; the calls of the largest."""
    largest, settled = 0, False
    while not settled:
        settled, count = calls_of(lambda: graph.work(BUDGET))
        largest = max(largest, count)
    return largest


EVERYBODY = policy("everybody", selector="all()", ingress=(allow(selector="all()"), allow(selector="team != 'nobody'")))


@pytest.mark.parametrize("size", SIZES)
def test_pieces_of_work_are_bounded_by_their_budget(size: int) -> None:
    graph = Graph(frozenset({"h1"}))
    put(graph, *fabric(size))
    graph.on_input(InSync())
    assert settle(graph) < CALLS
    graph.flush()
    # A selector of everybody by a label that was not looked at so far, new labels for everybody, and all of it gone again.
    for change in (EVERYBODY, profile("shop", labels={"team": "t1", "more": "x"}), profile("shop", labels={})):
        put(graph, change)
        assert settle(graph) < CALLS
        graph.flush()
    graph.on_input(Delete(EVERYBODY[0]))
    assert settle(graph) < CALLS
    graph.flush()
    assert settle(graph) < CALLS


@pytest.mark.parametrize("limit", [1, 5])
def test_messages_come_in_parts_that_count_members(limit: int) -> None:
    graph = Graph(frozenset({"h1"}))
    put(graph, *fabric(SIZES[1]), EVERYBODY)
    graph.on_input(InSync())
    told: list[Update] = []
    while part := graph.flush(limit):
        told += part
        # All but the last, which is whole even if it is large.
        assert sum(1 + members_of(update) // TOLD_MEMBERS for update in part[:-1]) < limit
    whole = Graph(frozenset({"h1"}))
    put(whole, *fabric(SIZES[1]), EVERYBODY)
    whole.on_input(InSync())
    assert told == whole.flush()


def members_of(update: Update) -> int:
    match update:
        case SetUpdate():
            return len(update.members)
        case SetDelta():
            return len(update.added) + len(update.removed)
        case _:
            return 0

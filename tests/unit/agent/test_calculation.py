"""The calculation in slices: others have their turns, a batch counts whole or not at all, and nothing is complete too early."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabinet.agent.calculation import SLICE_BYTES, SLICE_EVENTS, SLICE_MESSAGES, SLICE_UNITS, Calculation, Event, slices
from tabinet.agent.feed import Feed
from tabinet.calc.graph import Graph
from tabinet.calc.messages import EndpointUpdate
from tabinet.model.keys import ResourceKey, path_of
from tabinet.store.api import DeleteEvent, KeyValue, PutEvent, WatchBatch


def endpoint(number: int) -> PutEvent:
    spec = {"node": "h1", "interfaceName": f"cali{number}", "ipNetworks": [f"10.0.{number >> 8}.{number & 255}/32"]}
    key = ResourceKey("WorkloadEndpoint", f"w{number}", "shop")
    value = {"apiVersion": "projectcalico.org/v3", "kind": key.kind, "metadata": {"name": key.name, "namespace": "shop"}, "spec": spec}
    return PutEvent(KeyValue(path_of(key), msgspec.json.encode(value), number + 1, number + 1))


def batch(count: int, first: int = 0) -> WatchBatch:
    return WatchBatch([endpoint(number) for number in range(first, first + count)], first + count)


@pytest.fixture
def calculation() -> Calculation:
    graph = Graph(frozenset({"h1"}))
    return Calculation(graph, Feed(graph.on_input))


async def turns_while(work: asyncio.Future[object] | asyncio.Task[object]) -> int:
    """How many turns others have until the work is done."""
    turns = 0
    while not work.done():
        turns += 1
        await asyncio.sleep(0)
    return turns


async def test_others_have_their_turn_after_each_slice(calculation: Calculation) -> None:
    assert await turns_while(asyncio.ensure_future(calculation.take_in(batch(1_000)))) >= 1_000 // SLICE_EVENTS
    calculation.on_in_sync()
    assert await turns_while(asyncio.ensure_future(calculation.tell())) >= 1_000 // SLICE_UNITS + 1_000 // SLICE_MESSAGES


async def test_nothing_is_complete_before_the_snapshot_is(calculation: Calculation) -> None:
    assert await calculation.tell() == ([], 0)
    assert not calculation.complete
    await calculation.take_in(batch(3))
    assert await calculation.tell() == ([], 3)
    assert not calculation.complete
    calculation.on_in_sync()
    assert not calculation.complete
    told = await calculation.tell()
    assert told is not None
    assert sum(isinstance(update, EndpointUpdate) for update in told[0]) == 3
    assert calculation.complete


async def test_what_comes_while_messages_are_made_is_told_next_time(calculation: Calculation) -> None:
    await calculation.take_in(batch(1_000))
    calculation.on_in_sync()
    telling = asyncio.ensure_future(calculation.tell())
    await asyncio.sleep(0)
    fed = asyncio.ensure_future(calculation.take_in(batch(5, 1_000)))
    told = await telling
    assert told is not None
    assert told[1] == 1_000
    assert sum(isinstance(update, EndpointUpdate) for update in told[0]) == 1_000
    await fed
    told = await calculation.tell()
    assert told is not None
    assert told[1] == 1_005
    assert sum(isinstance(update, EndpointUpdate) for update in told[0]) == 5


async def test_a_held_store_is_not_told(calculation: Calculation) -> None:
    calculation.feed.hold = True
    calculation.on_in_sync()
    assert await calculation.tell() is None
    assert not calculation.complete


EVENTS = st.integers(0, SLICE_BYTES + 10).map(lambda size: PutEvent(KeyValue("/k", b"x" * size, 1, 1))) | st.just(DeleteEvent("/k", 1))


@given(st.lists(EVENTS, max_size=20), st.integers(0, 3))
def test_slices_are_bounded_and_lose_nothing(some: list[Event], many: int) -> None:
    events = [*some, *([DeleteEvent("/d", 1)] * (many * SLICE_EVENTS))]
    parts = list(slices(events))
    assert [event for part in parts for event in part] == events
    assert all(0 < len(part) <= SLICE_EVENTS for part in parts)
    assert all(len(part) == 1 or sum(len(e.item.value) for e in part if isinstance(e, PutEvent)) <= SLICE_BYTES for part in parts)

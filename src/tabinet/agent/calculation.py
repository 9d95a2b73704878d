"""``Calculation``: the graph with its feed, worked in slices so that the event loop is never away for long.

In: batches of the Syncer (``take_in``). Out: the messages for the dataplane and the store revision that they stand for (``tell``). Between
two slices everybody else on the loop has a turn. A slice is bounded by what it does, never by the clock: some events or bytes of
them decoded, some units of the graph settled, some messages made. What cannot be cut is one message: that of a set takes about 1 ms for
10,000 members.

Batches and messages take turns: nothing is fed while messages are made, so that they stand for one revision and never for a part
of a transaction, and always come to an end. No retries, no I/O.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

from tabinet.agent.feed import Feed
from tabinet.agent.keeper import Keeper
from tabinet.calc.graph import Graph
from tabinet.calc.messages import Update
from tabinet.store.api import DeleteEvent, PutEvent, WatchBatch

SLICE_EVENTS = 100
"""So many store events are decoded in a slice: about 3 ms."""
SLICE_BYTES = 50_000
"""So many bytes of them: large values take longer."""
SLICE_UNITS = 100
"""So many units are settled in a slice; see ``Graph.work``."""
SLICE_MESSAGES = 200
"""So many messages are made in a slice; see ``Graph.flush``."""

Event = PutEvent | DeleteEvent


@dataclass(slots=True)
class Calculation:
    """One host's calculation, as the agent drives it."""

    graph: Graph
    feed: Feed
    keeper: Keeper = field(default_factory=Keeper)
    complete: bool = False
    """The first snapshot has been told whole."""
    _fed: bool = False
    """It has been taken in whole."""
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def take_in(self, batch: WatchBatch) -> None:
        """The feed has passed on the whole batch."""
        async with self._turn:
            for part in slices(batch.events):
                self.feed.on_batch(WatchBatch(part, 0))
                self.keeper.on_work(len(part))
                await asyncio.sleep(0)
            self.feed.on_batch(WatchBatch([], batch.revision))

    def on_in_sync(self) -> None:
        """The snapshot is complete: all of it was taken in."""
        self.feed.on_in_sync()
        self._fed = True

    async def tell(self) -> tuple[list[Update], int] | None:
        """What changed since the last time, and the store's revision that it brings the dataplane to; None while the store is held."""
        async with self._turn:
            if self.feed.hold:
                return None
            fed = self._fed
            while not self.graph.work(SLICE_UNITS):
                self.keeper.on_work(SLICE_UNITS)
                await asyncio.sleep(0)
            told: list[Update] = []
            while part := self.graph.flush(SLICE_MESSAGES):
                told += part
                await asyncio.sleep(0)
            self.complete = fed
            return told, self.feed.revision


def slices(events: list[Event]) -> Iterator[list[Event]]:
    """The events in order, in parts that have ``SLICE_EVENTS`` of them and ``SLICE_BYTES`` at most, or one that is larger by itself."""
    start = size = 0
    for place, event in enumerate(events):
        weight = len(event.item.value) if isinstance(event, PutEvent) else 0
        if place > start and (place - start >= SLICE_EVENTS or size + weight > SLICE_BYTES):
            yield events[start:place]
            start, size = place, 0
        size += weight
    if start < len(events):
        yield events[start:]

"""Puts down what others change: programs that write resources without an entry in the history, such as calicoctl or Neutron.

In: a store. Out: entries. A transaction with an entry of its own is known to all; every other one that changes a watched resource gets an
entry, with what stood there before. It follows all keys of the store, because only so a change and its entry are seen together.
Where it was away it puts down what it finds, with nothing known of what was there before, which readers see as a gap.
Keeps the values of all watched resources. Costs: one listing, then what changes in the store.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field

from tabinet.errors import Compacted
from tabinet.model.history import HISTORY, UNKNOWN, Changed, Entry, encode_entry, entry_path, is_watched
from tabinet.model.kept_invariants import INVARIANTS
from tabinet.model.keys import RESOURCES
from tabinet.store.api import Datastore, DeleteEvent, KeyValue, PutEvent, PutOp, WatchBatch
from tabinet.store.history import Recorded, advance, last_changes, read_history, read_position, trim

EVERYTHING = "/"
AT_ONCE = 5
"""Entries in one transaction; an entry may have 400 kB."""
TRIM_AFTER = 100
TRIM_EVERY_S = 3600.0

Event = PutEvent | DeleteEvent


@dataclass(slots=True)
class Recorder:
    """Follows the store; ``run`` until it fails or is cancelled."""

    store: Datastore
    now: Callable[[], float] = time.time
    _known: dict[str, KeyValue] = field(default_factory=dict)
    _since_trim: int = 0

    async def run(self) -> None:
        """Never returns.

        Raises:
            StoreError: the store went away; run it again.
        """
        while True:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._follow())
                    group.create_task(self._trim_now_and_then())
            except* Compacted:
                pass  # so list again

    async def _follow(self) -> None:
        revision = await self._catch_up()
        async with aclosing(self.store.watch(EVERYTHING, revision)) as batches:
            async for batch in batches:
                await self._on_batch(batch)

    async def _trim_now_and_then(self) -> None:
        while True:
            await trim(self.store, self.now())
            await asyncio.sleep(TRIM_EVERY_S)

    async def _catch_up(self) -> int:
        """What was changed while nobody looked is put down as far as it shows; gives the revision to follow from."""
        self._known.clear()
        revisions = []
        for prefix in (RESOURCES, INVARIANTS):
            async for page in self.store.list(prefix):
                revisions.append(page.revision)
                self._known |= {item.key: item for item in page.items if is_watched(item.key)}
        revision = min(revisions)
        position, _ = await read_position(self.store)
        if position.seen:
            await self._put_down(list(self._missed(await read_history(self.store), max(position.seen, position.dropped), revision)))
        await advance(self.store, seen=revision)
        return revision

    def _missed(self, records: list[Recorded], seen: int, revision: int) -> Iterator[tuple[int, tuple[Changed, ...]]]:
        last = last_changes(records)
        recorded = {record.revision for record in records}
        for path, item in self._known.items():
            if item.revision > seen and item.revision not in recorded:
                yield item.revision, (Changed(path=path, before_revision=UNKNOWN, after=item.value),)
        for path, (record, change) in last.items():
            if is_watched(path) and not change.deleted and path not in self._known:
                gone = Changed(path=path, before_revision=record.revision, before=change.after, deleted=True, left_out=change.left_out)
                yield revision, (gone,)

    async def _on_batch(self, batch: WatchBatch) -> None:
        by_revision: dict[int, list[Event]] = {}
        for event in batch.events:
            by_revision.setdefault(event.item.revision if isinstance(event, PutEvent) else event.revision, []).append(event)
        found = []
        for revision, events in by_revision.items():
            changes = tuple([change for event in events if (change := self._learn(event, revision)) is not None])
            told = any(isinstance(event, PutEvent) and event.item.key.startswith(HISTORY) for event in events)
            if changes and not told:
                found.append((revision, changes))
        if found:
            await self._put_down(found)
            await advance(self.store, seen=batch.revision)

    def _learn(self, event: Event, revision: int) -> Changed | None:
        """What an event changes; None for what is not watched or known already."""
        path = event.item.key if isinstance(event, PutEvent) else event.key
        if not is_watched(path):
            return None
        before = self._known.get(path)
        if before is not None and before.revision >= revision:
            return None
        old, old_revision = (None, 0) if before is None else (before.value, before.revision)
        if isinstance(event, PutEvent):
            self._known[path] = event.item
            return Changed(path=path, before_revision=old_revision, before=old, after=event.item.value)
        if self._known.pop(path, None) is None:
            return None
        return Changed(path=path, before_revision=old_revision, before=old, deleted=True)

    async def _put_down(self, found: list[tuple[int, tuple[Changed, ...]]]) -> None:
        puts = []
        for revision, changes in found:
            entry = Entry(when=self.now(), who="", program="", changes=changes, revision=revision)
            puts.append(PutOp(entry_path(entry.when, uuid.uuid4().int >> 64), encode_entry(entry)))
        for start in range(0, len(puts), AT_ONCE):
            await self.store.txn([], puts[start : start + AT_ONCE])
        self._since_trim += len(puts)
        if self._since_trim >= TRIM_AFTER:
            self._since_trim = 0
            await trim(self.store, self.now())

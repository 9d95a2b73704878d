"""A datastore in this process: for tests (it is the fake of the others) and for a lab without etcd.

It keeps the semantics of ``api``, with its whole history until ``compact``, and adds knobs that make it fail the way a real one does:
``set_available``, ``drop_watches``, ``expire_leases``. One event loop only; state is gone with the object.

Costs: get O(1), put of a new key O(n) (a move in a sorted list of references), list O(matches), watch O(changes since).
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left, bisect_right, insort
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

from tabinet.errors import Compacted, NotFound, StoreUnavailable
from tabinet.store.api import Compare, DeleteEvent, DeleteOp, GetOp, KeyValue, Op, Page, PutEvent, PutOp, TxnResult, WatchBatch
from tabinet.store.semantics import check_txn

# Inside the class, `list` is the method of the protocol.
_Events = list[PutEvent | DeleteEvent]
_Items = list[KeyValue]


@dataclass(slots=True)
class _Lease:
    ttl_s: int
    ends_at: float


class MemoryStore:
    """The ``Datastore`` protocol over dictionaries."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.revision = 1
        self._clock = clock
        self._items: dict[str, KeyValue] = {}
        self._keys: list[str] = []
        self._log: _Events = []
        self._log_revisions: list[int] = []
        self._compacted = 0
        self._leases: dict[int, _Lease] = {}
        self._last_lease = 0
        self._changed = asyncio.Event()
        self._down = ""
        self._watch_epoch = 0

    # --- knobs for tests --------------------------------------------------------------------------------------------

    def set_available(self, available: bool, reason: str = "the memory store is switched off") -> None:
        """Off: every call and every watch raises ``StoreUnavailable(reason)`` until it is on again; nothing is lost."""
        self._down = "" if available else reason
        self._wake()

    def drop_watches(self) -> None:
        """Every watch that runs now raises ``StoreUnavailable``, as when a connection breaks."""
        self._watch_epoch += 1
        self._wake()

    def expire_leases(self) -> None:
        """All leases end now, whatever their time."""
        for lease in self._leases.values():
            lease.ends_at = self._clock()
        self._sweep()

    # --- Datastore --------------------------------------------------------------------------------------------------

    async def get(self, key: str) -> KeyValue | None:
        self._check()
        return self._items.get(key)

    async def list(self, prefix: str, *, page_size: int = 5000) -> AsyncGenerator[Page, None]:
        self._check()
        revision = self.revision
        found = self._below(prefix)
        for start in range(0, max(len(found), 1), page_size):
            self._check()
            if revision < self._compacted:
                raise Compacted(self._compacted)
            yield Page(items=found[start : start + page_size], revision=revision)

    async def txn(self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()) -> TxnResult:
        check_txn(compares, then, otherwise)
        self._check()
        succeeded = all(self._mod_revision(compare.key) == compare.revision for compare in compares)
        values = self._run(then if succeeded else otherwise)
        return TxnResult(succeeded=succeeded, revision=self.revision, values=values)

    async def watch(self, prefix: str, after_revision: int) -> AsyncGenerator[WatchBatch, None]:
        epoch = self._watch_epoch
        last = after_revision
        self._check()
        if not self._compacted <= last <= self.revision:
            raise Compacted(max(self._compacted, last))
        yield WatchBatch(events=[], revision=last)
        while True:
            self._check()
            if epoch != self._watch_epoch:
                raise StoreUnavailable("the watch was dropped")
            if last < self._compacted:
                raise Compacted(self._compacted)
            events = self._since(prefix, last)
            last = max(last, self.revision)
            if events:
                yield WatchBatch(events=events, revision=last)
            else:
                await self._wait_for_change()

    async def grant(self, ttl_s: int) -> int:
        self._check()
        self._last_lease += 1
        self._leases[self._last_lease] = _Lease(ttl_s, self._clock() + ttl_s)
        self._wake()
        return self._last_lease

    async def keep_alive(self, lease: int) -> None:
        self._check()
        known = self._leases.get(lease)
        if known is None:
            raise NotFound(f"lease {lease} has ended")
        known.ends_at = self._clock() + known.ttl_s

    async def revoke(self, lease: int) -> None:
        self._check()
        self._end_lease(lease)

    async def compact(self, revision: int) -> None:
        self._check()
        if revision > self.revision:
            raise ValueError(f"cannot compact revision {revision}: the store is at {self.revision}")
        if revision > self._compacted:
            self._compacted = revision
            cut = bisect_right(self._log_revisions, revision)
            del self._log[:cut]
            del self._log_revisions[:cut]

    async def close(self) -> None:
        self.set_available(False, "the store is closed")

    # --- inside -----------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._down:
            raise StoreUnavailable(self._down)
        self._sweep()

    def _mod_revision(self, key: str) -> int:
        item = self._items.get(key)
        return item.revision if item else 0

    def _below(self, prefix: str) -> _Items:
        found = []
        for index in range(bisect_left(self._keys, prefix), len(self._keys)):
            if not self._keys[index].startswith(prefix):
                break
            found.append(self._items[self._keys[index]])
        return found

    def _since(self, prefix: str, revision: int) -> _Events:
        events = self._log[bisect_right(self._log_revisions, revision) :]
        return [event for event in events if _key_of(event).startswith(prefix)]

    def _run(self, ops: Sequence[Op]) -> tuple[KeyValue | None, ...]:
        for op in ops:
            if isinstance(op, PutOp) and op.lease and op.lease not in self._leases:
                raise NotFound(f"lease {op.lease} has ended")
        revision = self.revision + 1
        values: list[KeyValue | None] = []
        for op in ops:
            match op:
                case PutOp(key, value, lease):
                    self._put(key, value, lease, revision)
                case DeleteOp(key):
                    self._delete(key, revision)
                case GetOp(key):
                    values.append(self._items.get(key))
        return tuple(values)

    def _put(self, key: str, value: bytes, lease: int, revision: int) -> None:
        old = self._items.get(key)
        item = KeyValue(key, value, revision, old.create_revision if old else revision, lease)
        if old is None:
            insort(self._keys, key)
        self._items[key] = item
        self._record(PutEvent(item), revision)

    def _delete(self, key: str, revision: int) -> None:
        if self._items.pop(key, None) is not None:
            del self._keys[bisect_left(self._keys, key)]
            self._record(DeleteEvent(key, revision), revision)

    def _record(self, event: PutEvent | DeleteEvent, revision: int) -> None:
        self.revision = revision
        self._log.append(event)
        self._log_revisions.append(revision)
        self._wake()

    def _sweep(self) -> None:
        now = self._clock()
        for lease in [number for number, lease in self._leases.items() if lease.ends_at <= now]:
            self._end_lease(lease)

    def _end_lease(self, lease: int) -> None:
        if self._leases.pop(lease, None) is not None:
            revision = self.revision + 1
            for key in [key for key, item in self._items.items() if item.lease == lease]:
                self._delete(key, revision)

    def _wake(self) -> None:
        # A fresh event for those who wait from now on: whoever holds the old one has seen nothing of this change.
        self._changed.set()
        self._changed = asyncio.Event()

    async def _wait_for_change(self) -> None:
        """Returns after the next change, or when a lease ends. Without leases it waits for ever: there is nothing to miss."""
        changed = self._changed
        next_end = min((lease.ends_at for lease in self._leases.values()), default=None)
        try:
            async with asyncio.timeout(None if next_end is None else max(next_end - self._clock(), 0.001)):
                await changed.wait()
        except TimeoutError:
            self._sweep()


def _key_of(event: PutEvent | DeleteEvent) -> str:
    return event.item.key if isinstance(event, PutEvent) else event.key

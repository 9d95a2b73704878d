"""A store that puts down what is changed through it: the entry of the history is part of the transaction that makes the change.

In: a ``Datastore``, and who writes. Out: the same ``Datastore``, with an entry (``model.history``) for every transaction that changes
resources: either both are stored or none, whatever becomes of the writer. What stood before is read first, and the transaction holds only
while that is still so. Costs one more request for each transaction that writes resources; others pass as they
are, and so do transactions that are so full that nothing more fits in.
"""

from __future__ import annotations

import contextlib
import random
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

from tabinet.errors import Conflict, StoreError
from tabinet.model.history import Changed, Entry, encode_entry, entry_path, is_recorded
from tabinet.store.api import Compare, Datastore, DeleteOp, GetOp, KeyValue, Op, Page, PutOp, TxnResult, WatchBatch
from tabinet.store.history import trim
from tabinet.store.semantics import MAX_TXN_OPS

ATTEMPTS = 20
TRIM_ONE_IN = 32


@dataclass(slots=True)
class RecordingStore:
    """The ``Datastore`` protocol over another one."""

    store: Datastore
    who: str
    program: str
    overridden: tuple[str, ...] = ()
    """Invariants that what is written from now on breaks, by ``--force``."""
    pending: str = ""
    """The change that waits to be confirmed which what is written from now on is a part of."""
    written: int = 0
    """Entries so far."""
    now: Callable[[], float] = time.time
    choose: Callable[[int], int] = random.randrange

    async def txn(self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()) -> TxnResult:
        paths = [op.key for op in then if not isinstance(op, GetOp) and is_recorded(op.key)]
        compared = {compare.key for compare in compares}
        unguarded = [path for path in paths if path not in compared]
        if not paths or max(len(then) + 1, len(compares) + len(unguarded)) > MAX_TXN_OPS:
            return await self.store.txn(compares, then, otherwise)
        if any(not isinstance(op, GetOp) for op in otherwise):
            raise ValueError("what is recorded has one branch that writes")
        for _ in range(ATTEMPTS):
            before = await self._read(paths)
            changes = tuple([change for op in then if (change := _change(op, before)) is not None])
            ours = [Compare(path, _revision(before[path])) for path in unguarded]
            entry = Entry(self.now(), self.who, self.program, changes, overridden=self.overridden, pending=self.pending)
            record = [PutOp(entry_path(entry.when, uuid.uuid4().int >> 64), encode_entry(entry))] if changes else []
            result = await self.store.txn([*compares, *ours], [*then, *record], otherwise)
            if result.succeeded:
                self.written += len(record)
                return result
            if not ours or not await self._hold(compares):
                return result
        raise Conflict(f"{paths[0]}: changed by others all the time, {ATTEMPTS} attempts failed")

    async def _read(self, paths: Sequence[str]) -> dict[str, KeyValue | None]:
        values = (await self.store.txn([], [GetOp(path) for path in paths])).values
        return dict(zip(paths, values, strict=True))

    async def _hold(self, compares: Sequence[Compare]) -> bool:
        """False when it was the caller's own condition that did not hold."""
        return not compares or (await self.store.txn(compares, [GetOp(compares[0].key)])).succeeded

    # --- as it is -----------------------------------------------------------------------------------------------------

    async def get(self, key: str) -> KeyValue | None:
        return await self.store.get(key)

    def list(self, prefix: str, *, page_size: int = 5000) -> AsyncGenerator[Page, None]:
        return self.store.list(prefix, page_size=page_size)

    def watch(self, prefix: str, after_revision: int) -> AsyncGenerator[WatchBatch, None]:
        return self.store.watch(prefix, after_revision)

    async def grant(self, ttl_s: int) -> int:
        return await self.store.grant(ttl_s)

    async def keep_alive(self, lease: int) -> None:
        await self.store.keep_alive(lease)

    async def revoke(self, lease: int) -> None:
        await self.store.revoke(lease)

    async def compact(self, revision: int) -> None:
        await self.store.compact(revision)

    async def close(self) -> None:
        """Ends all; one time in ``TRIM_ONE_IN`` the history is brought within its limits before, because there may be no clerk."""
        if self.written and self.choose(TRIM_ONE_IN) == 0:
            with contextlib.suppress(StoreError):
                await trim(self.store, self.now())
        await self.store.close()


def mark_overridden(store: Datastore, names: Sequence[str]) -> None:
    """What is written through the store from now on breaks these invariants, and its entries say so."""
    if isinstance(store, RecordingStore):
        store.overridden = tuple(names)


def mark_pending(store: Datastore, pending: str) -> None:
    """What is written through the store from now on is a part of this change, and its entries say so."""
    if isinstance(store, RecordingStore):
        store.pending = pending


def _revision(item: KeyValue | None) -> int:
    return 0 if item is None else item.revision


def _change(op: Op, before: dict[str, KeyValue | None]) -> Changed | None:
    """What an operation does to what was there; None when it does nothing that is recorded."""
    if isinstance(op, GetOp) or op.key not in before:
        return None
    item = before[op.key]
    if isinstance(op, DeleteOp) and item is None:
        return None
    return Changed(
        path=op.key,
        before_revision=_revision(item),
        before=None if item is None else item.value,
        after=op.value if isinstance(op, PutOp) else None,
        deleted=isinstance(op, DeleteOp),
    )

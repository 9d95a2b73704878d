"""The Datastore protocol: what every backend (memory, sqlite, etcd) does, and the records it speaks in.

Semantics are etcd's: one revision counter for the whole store, each write transaction increments it by one; ``list`` reads at one
revision; ``watch`` delivers every later change in order. One conformance suite (``tests/unit/store``) runs against all backends.
Keys are text, values bytes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

import msgspec


class KeyValue(msgspec.Struct, frozen=True, gc=False):
    """A stored value with the revision of its last change (etcd's mod_revision)."""

    key: str
    value: bytes
    revision: int
    create_revision: int
    lease: int = 0
    """Lease id, 0 for none."""


class Compare(msgspec.Struct, frozen=True, gc=False):
    """Holds when the key's last change is ``revision``; 0 means that the key does not exist."""

    key: str
    revision: int


class PutOp(msgspec.Struct, frozen=True, gc=False, tag=True):
    key: str
    value: bytes
    lease: int = 0


class DeleteOp(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Deletes the key; nothing happens when it does not exist."""

    key: str


class GetOp(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Reads the key; its value comes in ``TxnResult.values`` (``None`` when absent)."""

    key: str


Op = PutOp | DeleteOp | GetOp


class TxnResult(msgspec.Struct, frozen=True, gc=False):
    """What a transaction did."""

    succeeded: bool
    """True: all compares held and ``then`` ran; False: ``otherwise`` ran."""
    revision: int
    """The store's revision after it."""
    values: tuple[KeyValue | None, ...]
    """One for each GetOp of the branch that ran, in order."""


class Page(msgspec.Struct, frozen=True, gc=False):
    """Part of a listing; ``revision`` is the same in all pages of it."""

    items: list[KeyValue]
    revision: int


class PutEvent(msgspec.Struct, frozen=True, gc=False):
    item: KeyValue


class DeleteEvent(msgspec.Struct, frozen=True, gc=False):
    key: str
    revision: int


class WatchBatch(msgspec.Struct, frozen=True, gc=False):
    """Changes in order; an empty batch is a progress mark: nothing else happened up to ``revision``."""

    events: list[PutEvent | DeleteEvent]
    revision: int
    """Everything up to and including this revision has been delivered."""


class Datastore(Protocol):
    """A key-value store with revisions, transactions, watches and leases.

    Every method may raise ``StoreUnavailable`` or ``StoreDenied``; every wait has a time limit of its own.
    """

    async def get(self, key: str) -> KeyValue | None:
        """The value of ``key``, or None."""
        ...

    def list(self, prefix: str, *, page_size: int = 5000) -> AsyncGenerator[Page, None]:
        """All keys that begin with ``prefix``, in key order, at one revision; at least one page, which may be empty.

        Raises:
            Compacted: the revision was compacted away between two pages; list again.
        """
        ...

    async def txn(self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()) -> TxnResult:
        """Runs ``then`` when all compares hold, else ``otherwise``; all or nothing, in order: a GetOp sees the writes before it.

        A key may be written once, and each of the three lists holds at most ``semantics.MAX_TXN_OPS`` entries (etcd's limit).
        A put without lease detaches the key from the lease that it had.

        Raises:
            NotFound: a put names a lease that has ended.
        """
        ...

    def watch(self, prefix: str, after_revision: int) -> AsyncGenerator[WatchBatch, None]:
        """Every change below ``prefix`` after ``after_revision``, forever. Closing the iterator ends the watch.

        The first batch is empty and comes as soon as the watch stands, so that a reader knows that it is connected. The changes of
        one transaction are never split over two batches.

        Raises:
            Compacted: changes after ``after_revision`` are gone, or the store is not even there yet because it was restored or made
                anew; list again.
            StoreUnavailable: the connection broke, or the store was closed; watch again from the last batch's revision.
        """
        ...

    async def grant(self, ttl_s: int) -> int:
        """A new lease that ends after ``ttl_s`` seconds (etcd: 2 at least) unless kept alive; its keys are deleted when it ends."""
        ...

    async def keep_alive(self, lease: int) -> None:
        """Renews the lease for its whole time.

        Raises:
            NotFound: it has ended.
        """
        ...

    async def revoke(self, lease: int) -> None:
        """Ends the lease and deletes its keys; nothing happens when it has ended."""
        ...

    async def compact(self, revision: int) -> None:
        """Forgets history up to ``revision``; current values stay."""
        ...

    async def close(self) -> None:
        """Ends all watches and connections."""
        ...

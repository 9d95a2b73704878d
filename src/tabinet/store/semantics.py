"""Rules that every backend keeps, written once: the limits of a transaction, the end of a prefix, keys as bytes.

In: the arguments of ``Datastore`` methods. Out: ``ValueError`` for a call that no backend may accept, so that a mistake shows
with the memory store already; byte ranges. Pure. A wrong call is a bug of the caller, hence no ``StoreError``.
"""

from __future__ import annotations

from collections.abc import Sequence

from tabinet.store.api import Compare, GetOp, Op

MAX_TXN_OPS = 128
"""etcd's default ``--max-txn-ops``: so many compares, and so many operations in each branch."""


def check_txn(compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op]) -> None:
    """Returns when a transaction of this shape may run.

    Raises:
        ValueError: a branch writes a key twice, or a list is longer than ``MAX_TXN_OPS``.
    """
    for part in (compares, then, otherwise):
        if len(part) > MAX_TXN_OPS:
            raise ValueError(f"a transaction holds at most {MAX_TXN_OPS} compares and operations in each branch, got {len(part)}")
    for branch in (then, otherwise):
        written = set()
        for op in branch:
            if isinstance(op, GetOp):
                continue
            if op.key in written:
                raise ValueError(f"a transaction writes a key once, got {op.key!r} twice")
            written.add(op.key)


def key_bytes(key: str) -> bytes:
    """The key as stored; foreign keys that are not UTF-8 survive the way through ``key_text`` and back."""
    return key.encode("utf-8", "surrogateescape")


def key_text(key: bytes) -> str:
    """The inverse of ``key_bytes``."""
    return key.decode("utf-8", "surrogateescape")


def prefix_end(prefix: bytes) -> bytes | None:
    """The first byte string after all that begin with ``prefix``; None when there is none (empty, or all 0xff)."""
    stem = prefix.rstrip(b"\xff")
    if not stem:
        return None
    return stem[:-1] + bytes([stem[-1] + 1])

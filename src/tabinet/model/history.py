"""The history of resources: what its entries are, and which resources are in it.

Tabinet's own keys: ``/tabinet/v1/history/<when>-<number>`` holds an ``Entry`` as MessagePack, compressed by zlib (RFC 1950), one
for each transaction that changed resources. An entry that was written in the transaction of its change has that transaction's revision;
one that was written later, about somebody else's change, names the revision. Every change names the revision of what it replaced, so that
a reader sees when something in between is missing.

In: changes. Out: bytes, and back. Pure. O(size of the documents).
"""

from __future__ import annotations

import zlib
from datetime import UTC, datetime

import msgspec

from tabinet.model.kept_invariants import INVARIANTS
from tabinet.model.keys import RESOURCES, kind_prefix, parse_path

HISTORY = "/tabinet/v1/history/"
LIMITS = "/tabinet/v1/history-limits"
POSITION = "/tabinet/v1/history-position"
"""Up to which revision the clerk has put down what others changed, and up to which entries were dropped: a ``Position``."""
MOST_BYTES = 400_000
"""Of an entry as stored; beyond that the largest documents are left out of it (etcd takes 1.5 MiB in a request)."""
UNKNOWN = -1
"""A revision that nobody saw."""
BUSY_KINDS = ("WorkloadEndpoint", "Node", "CalicoNodeStatus", "LiveMigration")
"""Written by agents and attachments all the time: in the history only when a command of ours writes them."""
_BUSY = tuple(kind_prefix(kind) for kind in BUSY_KINDS)


class Changed(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one resource."""

    path: str
    before_revision: int
    """Of what was there; 0: nothing was; ``UNKNOWN``."""
    before: bytes | None = None
    """The stored document; None: there was none, or it is left out."""
    after: bytes | None = None
    """The stored document; None: it was deleted, or is left out."""
    deleted: bool = False
    left_out: bool = False
    """The documents would be too large."""


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One transaction."""

    when: float
    """Seconds since the epoch, by the writer's clock; of somebody else's change: when it was seen."""
    who: str
    """``user@host``, as the writer saw itself: not authenticated. Empty: not known."""
    program: str
    """The command or daemon. Empty: not known."""
    changes: tuple[Changed, ...]
    revision: int = 0
    """Of the change; 0: that of the entry."""
    overridden: tuple[str, ...] = ()
    """Invariants that it broke, by ``--force``."""
    pending: str = ""
    """The change that waits to be confirmed which this is a part of."""


class Limits(msgspec.Struct, frozen=True):
    """How much of the history is kept; the older entries go first."""

    entries: int = 5_000
    days: float = 365.0
    size_bytes: int = 64_000_000


class Position(msgspec.Struct, frozen=True):
    """How far the history reaches."""

    seen: int = 0
    """The clerk has put down everything that others changed up to here; 0: no clerk has ever run."""
    dropped: int = 0
    """Entries up to this revision were dropped."""


def is_recorded(path: str) -> bool:
    """True for everything that commands of ours put down: resources and kept invariants."""
    return path.startswith((RESOURCES, INVARIANTS))


def is_watched(path: str) -> bool:
    """True for what the clerk puts down when others write it: resources that people and orchestrators write seldom."""
    return is_recorded(path) and not path.startswith(_BUSY)


def name_of(path: str) -> str:
    """The resource as people call it: ``NetworkPolicy/shop/web``."""
    if path.startswith(INVARIANTS):
        return f"Invariant/{path[len(INVARIANTS) :]}"
    key = parse_path(path)
    return path if key is None else str(key)


def entry_path(when: float, number: int) -> str:
    """A key for an entry: in the order of time, and ``number`` (any that others do not have) to make it the only one."""
    return f"{HISTORY}{datetime.fromtimestamp(when, UTC).strftime('%Y%m%dT%H%M%S.%f')}-{number:016x}"


def encode_entry(entry: Entry) -> bytes:
    """The entry as stored, at most ``MOST_BYTES`` unless it is about thousands of resources: the largest documents are left out of it."""
    value = zlib.compress(msgspec.msgpack.encode(entry))
    while len(value) > MOST_BYTES and _size(largest := max(entry.changes, key=_size)):
        bare = msgspec.structs.replace(largest, before=None, after=None, left_out=True)
        changes = tuple([bare if each is largest else each for each in entry.changes])
        entry = msgspec.structs.replace(entry, changes=changes)
        value = zlib.compress(msgspec.msgpack.encode(entry))
    return value


def decode_entry(value: bytes) -> Entry | None:
    """The entry; None for anything else."""
    try:
        return msgspec.msgpack.decode(zlib.decompress(value), type=Entry)
    except (zlib.error, msgspec.DecodeError, msgspec.ValidationError):
        return None


def _size(change: Changed) -> int:
    return len(change.before or b"") + len(change.after or b"")

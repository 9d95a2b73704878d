"""Reading and bounding the history: who changed what, what stood there at an earlier revision, and what is missing.

In: a store. Out: records in the order of revisions, earlier states, gaps. Nothing is believed blindly: each change names the revision of
what it replaced, so that a change which nobody put down shows as a gap in the chain of its resource. ``state_at`` undoes what came later;
what cannot be undone is said. O(entries kept).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

import msgspec

from tabinet.errors import Conflict, InputError, Problem
from tabinet.model.history import (
    HISTORY,
    LIMITS,
    POSITION,
    UNKNOWN,
    Changed,
    Entry,
    Limits,
    Position,
    decode_entry,
    is_recorded,
)
from tabinet.model.kept_invariants import INVARIANTS
from tabinet.model.keys import RESOURCES
from tabinet.store.api import Compare, Datastore, DeleteOp, KeyValue, PutOp

CHUNK = 100
"""Entries dropped in one transaction."""
PAGE = 500
ATTEMPTS = 20
DAY_S = 86_400.0


class Recorded(msgspec.Struct, frozen=True):
    """An entry, and where it stands."""

    revision: int
    """Of the change."""
    key: str
    size_bytes: int
    entry: Entry


class Gap(msgspec.Struct, frozen=True, order=True):
    """A resource changed, and nobody put it down."""

    before: int
    """It happened before this revision; 0: since the last record."""
    after: int
    """And after this one; 0: at some time."""
    path: str


class Log(msgspec.Struct, frozen=True):
    """The history, and what stands in the store."""

    items: Mapping[str, KeyValue]
    """By path, as they were at ``revision``."""
    revision: int
    records: Sequence[Recorded]
    position: Position


class Past(msgspec.Struct, frozen=True):
    """What stood in the store."""

    items: Mapping[str, KeyValue]
    """By path, each with the revision that it had."""
    unsure: tuple[str, ...]
    """Paths that changed since without a record of what was there; they are as they are now."""


async def read_history(store: Datastore) -> list[Recorded]:
    """All that is kept, in the order of the changes; each change once."""
    found = []
    async for page in store.list(HISTORY, page_size=PAGE):
        for item in page.items:
            entry = decode_entry(item.value)
            if entry is not None:
                found.append(Recorded(entry.revision or item.revision, item.key, len(item.value), entry))
    found.sort(key=lambda record: (record.revision, record.entry.revision))
    # Two clerks at the same moment may put the same change down twice.
    unique: dict[int, Recorded] = {}
    for record in found:
        unique.setdefault(record.revision, record)
    return list(unique.values())


async def read_log(store: Datastore, prefixes: Sequence[str] = (INVARIANTS, RESOURCES)) -> Log:
    """The history, and what stands below the prefixes."""
    items: dict[str, KeyValue] = {}
    revisions = []
    for prefix in prefixes:
        async for page in store.list(prefix):
            revisions.append(page.revision)
            items |= {item.key: item for item in page.items}
    # The records after the items: what is in between has a record and is no gap.
    return Log(items, min(revisions), await read_history(store), (await read_position(store))[0])


async def read_position(store: Datastore) -> tuple[Position, int]:
    """How far the history reaches, and the revision of that."""
    item = await store.get(POSITION)
    if item is None:
        return Position(), 0
    try:
        return msgspec.json.decode(item.value, type=Position), item.revision
    except (msgspec.DecodeError, msgspec.ValidationError):
        return Position(), item.revision


async def advance(store: Datastore, *, seen: int = 0, dropped: int = 0) -> None:
    """The position is at least there.

    Raises:
        Conflict: others write it all the time.
    """
    for _ in range(ATTEMPTS):
        position, revision = await read_position(store)
        wanted = Position(max(position.seen, seen), max(position.dropped, dropped))
        if wanted == position:
            return
        if (await store.txn([Compare(POSITION, revision)], [PutOp(POSITION, msgspec.json.encode(wanted))])).succeeded:
            return
    raise Conflict("the position of the history changes all the time")


async def read_limits(store: Datastore) -> Limits:
    """How much is kept; the default where nothing readable says so."""
    item = await store.get(LIMITS)
    if item is None:
        return Limits()
    try:
        return msgspec.json.decode(item.value, type=Limits)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return Limits()


async def set_limits(store: Datastore, limits: Limits) -> None:
    """From now on so much is kept."""
    await store.txn([], [PutOp(LIMITS, msgspec.json.encode(limits))])


async def trim(store: Datastore, now: float) -> int:
    """The history is within its limits; gives the number of entries that were dropped, the oldest ones."""
    limits = await read_limits(store)
    records = sorted(await read_history(store), key=lambda record: record.key)
    beyond = list(_beyond(records, limits, now))
    if beyond:
        # First, so that nobody takes what is dropped for something that was never put down.
        await advance(store, dropped=max(record.revision for record in beyond))
    for start in range(0, len(beyond), CHUNK):
        await store.txn([], [DeleteOp(record.key) for record in beyond[start : start + CHUNK]])
    return len(beyond)


def _beyond(records: Sequence[Recorded], limits: Limits, now: float) -> Iterator[Recorded]:
    size = sum(record.size_bytes for record in records)
    for index, record in enumerate(records):
        old = record.entry.when < now - limits.days * DAY_S
        if not old and size <= limits.size_bytes and len(records) - index <= limits.entries:
            return
        size -= record.size_bytes
        yield record


# --- what it says -----------------------------------------------------------------------------------------------------


def find_gaps(records: Iterable[Recorded]) -> list[Gap]:
    """Where the chain of a resource is broken: what a change replaced is not what the record before it left."""
    last: dict[str, tuple[int, int]] = {}
    gaps = []
    for record in records:
        for change in record.entry.changes:
            left, revision = last.get(change.path, (change.before_revision, 0))
            if change.before_revision == UNKNOWN or left != change.before_revision:
                gaps.append(Gap(record.revision, revision, change.path))
            last[change.path] = (0 if change.deleted else record.revision, record.revision)
    return sorted(gaps)


def last_changes(records: Iterable[Recorded]) -> dict[str, tuple[Recorded, Changed]]:
    """The last record of each path."""
    return {change.path: (record, change) for record in records for change in record.entry.changes}


def unrecorded(log: Log) -> list[Gap]:
    """Resources that are not as their last record left them."""
    gaps = []
    for path, (record, change) in last_changes(log.records).items():
        item = log.items.get(path)
        left = 0 if change.deleted else record.revision
        if (0 if item is None else item.revision) != left and record.revision <= log.revision:
            gaps.append(Gap(0, record.revision, path))
    return sorted(gaps)


def state_at(log: Log, revision: int) -> Past:
    """What stood there right after ``revision``, as far as it is known.

    Raises:
        InputError: the history does not reach back so far.
    """
    if revision < log.position.dropped:
        allowed = f"the history is kept from revision {log.position.dropped} on"
        raise InputError([Problem(path="revision", value=str(revision), allowed=allowed)])
    first: dict[str, Changed] = {}
    for record in log.records:
        if record.revision > revision:
            for change in record.entry.changes:
                first.setdefault(change.path, change)
    past = dict(log.items)
    unsure = {path for path, item in log.items.items() if is_recorded(path) and item.revision > revision and path not in first}
    for path, (_, change) in last_changes(log.records).items():
        if path not in first and path not in log.items and not change.deleted:
            unsure.add(path)
    for path, change in first.items():
        if change.before_revision == 0:
            past.pop(path, None)
        elif change.before is not None:
            past[path] = KeyValue(path, change.before, change.before_revision, 0)
        if change.before_revision > revision or (change.before is None and change.before_revision != 0):
            unsure.add(path)  # something in between is missing, or was too large
    return Past(past, tuple(sorted(unsure)))


def parse_when(text: str, records: Sequence[Recorded], now: float) -> int:
    """The revision that a text means: a number, a time (RFC 3339, or ``2026-03-01 12:00``), or ``15m``, ``2h``, ``3d`` ago; of a time
    the last change until then.

    Raises:
        InputError: none of these, or there is no record so old.
    """
    if text.isascii() and text.isdigit():
        return int(text)
    until = parse_time(text, now)
    before = [record.revision for record in records if record.entry.when <= until]
    if before:
        return max(before)
    if not records:
        raise InputError([Problem(path="revision", value=text, allowed="the history is empty")])
    return min(record.revision for record in records) - 1


def parse_time(text: str, now: float) -> float:
    """Seconds since the epoch. Times without a zone are local.

    Raises:
        InputError: it is no time.
    """
    number, unit = text[:-1], text[-1:]
    if number.isascii() and number.isdigit() and unit in _UNITS:
        return now - int(number) * _UNITS[unit]
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        allowed = "a revision, a time such as 2026-03-01T12:00, or how long ago: 15m, 2h, 3d"
        raise InputError([Problem(path="time", value=text, allowed=allowed)]) from None


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY_S}

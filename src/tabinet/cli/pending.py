"""A change that takes itself back unless it is confirmed: what the store says of it, and taking it back.

One change may wait at a time; its record (``/tabinet/v1/pending``) is written before the change and holds what was there. Whoever finds it
after its deadline may take the change back, in one transaction with the end of the record, so that it is either confirmed or taken back.
What somebody else has written since is left alone; what the change itself wrote is known from its record, or from the history if
whoever made it was killed in between. In: a store. Out: records, outcomes. O(resources of the change).
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tabinet.cli.place import Place
from tabinet.errors import Conflict, InputError, NotFound, Problem, StoreUnavailable
from tabinet.store.api import Compare, Datastore, DeleteOp, KeyValue, Op, PutOp
from tabinet.store.history import read_history
from tabinet.store.recording import mark_pending

PENDING = "/tabinet/v1/pending"
MOST = 100
"""Resources in one change that can be taken back: it is done in one transaction."""
UNCONFIRMED = "confirm (nobody did: rolled back)"
"""What the history says of who took a change back at its deadline."""
ATTEMPTS = 20
RETRY_S = 5.0
RETRY_FOR_S = 86_400.0
"""So long the store is waited for when the time has come."""


class Kept(msgspec.Struct, frozen=True):
    """One of the resources."""

    path: str
    before: bytes | None
    """None: it was not there."""
    revision: int = 0
    """Of what the change wrote; 0 while that is not known."""
    before_revision: int = 0
    """Of what was there."""


class Pending(msgspec.Struct, frozen=True):
    """A change that waits to be confirmed."""

    id: str
    deadline: float
    """Seconds since the epoch."""
    kept: tuple[Kept, ...]


async def begin(store: Datastore, paths: Sequence[str], within_s: float) -> Pending:
    """The record is stored; nothing is changed yet.

    Raises:
        InputError: more resources than can be taken back at once.
        Conflict: another change waits.
    """
    if len(paths) > MOST:
        raise InputError([Problem(path="--confirm", value=f"{len(paths)} resources", allowed=f"at most {MOST} can be taken back at once")])
    items = [await store.get(path) for path in paths]
    kept = tuple([_keep(path, item) for path, item in zip(paths, items, strict=True)])
    pending = Pending(uuid.uuid4().hex, time.time() + within_s, kept)
    result = await store.txn([Compare(PENDING, 0)], [PutOp(PENDING, msgspec.json.encode(pending))])
    if not result.succeeded:
        raise Conflict("another change waits to be confirmed: tabinet confirm, or tabinet confirm --roll-back")
    mark_pending(store, pending.id)
    return pending


def _keep(path: str, item: KeyValue | None) -> Kept:
    return Kept(path, None) if item is None else Kept(path, item.value, before_revision=item.revision)


async def applied(store: Datastore, pending: Pending) -> None:
    """The record knows what the change wrote, so that later changes by others can be told from it."""
    items = [await store.get(kept.path) for kept in pending.kept]
    kept = tuple(
        [msgspec.structs.replace(one, revision=item.revision if item else 0) for one, item in zip(pending.kept, items, strict=True)]
    )
    found = await read(store)
    if found is not None and found[0].id == pending.id:
        record = msgspec.structs.replace(pending, kept=kept)
        await store.txn([Compare(PENDING, found[1])], [PutOp(PENDING, msgspec.json.encode(record))])


async def read(store: Datastore) -> tuple[Pending, int] | None:
    """The change that waits, and the revision of its record."""
    item = await store.get(PENDING)
    return None if item is None else (msgspec.json.decode(item.value, type=Pending), item.revision)


async def confirm(store: Datastore) -> None:
    """The change stays.

    Raises:
        NotFound: none waits: it was taken back, confirmed, or never made.
    """
    found = await read(store)
    if found is None or not (await store.txn([Compare(PENDING, found[1])], [DeleteOp(PENDING)])).succeeded:
        raise NotFound("no change waits to be confirmed")


async def roll_back(store: Datastore, wanted: str = "") -> list[str] | None:
    """What was before is there again; gives the paths that others have written since, which are left alone. None: no such change waits.

    Raises:
        Conflict: others write all the time.
    """
    for _ in range(ATTEMPTS):
        found = await read(store)
        if found is None or (wanted and found[0].id != wanted):
            return None
        pending, revision = found
        written = await _written(store, pending)
        compares = [Compare(PENDING, revision)]
        operations: list[Op] = []
        left = []
        for kept in pending.kept:
            item = await store.get(kept.path)
            now = item.revision if item is not None else 0
            if now not in (kept.before_revision, kept.revision or written.get(kept.path)):
                left.append(kept.path)
                continue
            compares.append(Compare(kept.path, now))
            if now == kept.before_revision:
                continue
            if kept.before is not None:
                operations.append(PutOp(kept.path, kept.before))
            elif item is not None:
                operations.append(DeleteOp(kept.path))
        if (await store.txn(compares, [*operations, DeleteOp(PENDING)])).succeeded:
            return left
    raise Conflict("the resources change all the time: try again")


async def _written(store: Datastore, pending: Pending) -> dict[str, int]:
    """What the change wrote although its record does not know: whoever made it was killed in between."""
    if all(kept.revision for kept in pending.kept):
        return {}
    parts = [record for record in await read_history(store) if record.entry.pending == pending.id]
    return {change.path: record.revision for record in parts for change in record.entry.changes}


# --- the process that waits -----------------------------------------------------------------------------------------


def start_waiting(place: Place, pending: Pending) -> None:
    """A process of its own session waits for the deadline: it outlives this one, its terminal, and the connection to this machine."""
    options = ["--config", str(Path(place.config).resolve())] if place.config else ["--lab", place.lab] if place.lab else []
    argv = [sys.executable, "-m", "tabinet.cli.main", "confirm", "--wait-for", pending.id, *options]
    nothing = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0), *[(os.POSIX_SPAWN_DUP2, 0, number) for number in (1, 2)]]
    os.posix_spawn(sys.executable, argv, dict(place.environment), file_actions=nothing, setsid=True)


async def wait_and_roll_back(store: Datastore, wanted: str) -> None:
    """At the deadline the change is taken back, if it still waits; a store that is away is waited for, up to a day."""
    give_up = time.time() + RETRY_FOR_S
    while time.time() < give_up:
        try:
            found = await read(store)
            if found is None or found[0].id != wanted:
                return
            left_s = found[0].deadline - time.time()
            if left_s <= 0:
                await roll_back(store, wanted)
                return
        except StoreUnavailable:
            left_s = RETRY_S
        await asyncio.sleep(min(left_s, RETRY_S))

"""The Syncer keeps a reader informed of everything below some prefixes: a snapshot, then every change, through all the store's troubles.

In: a ``Datastore`` and prefixes. Out: a stream of ``SyncEvent``, delivered one at a time: batches of changes, and statuses that say how far
to believe them. For each prefix it lists, then watches; when the store goes away it tries again from the same revision; when that revision
has been compacted it lists again and makes up the deletions that it missed.

What holds:

- ``IN_SYNC`` comes after everything that was there when the lists were read. ``NOT_READY`` changes nothing else: what was delivered stays.
- For each key, values come in the order of their revisions; values that were replaced before the reader took them are skipped.
- The changes of one transaction below one prefix come in one batch; across prefixes, order and grouping are not kept.
- A store that was restored to an earlier revision is listed again as well.

Costs: a dictionary of key to revision; memory for changes not yet taken is bounded (``CAPACITY``), beyond that the store waits. It decodes
nothing and never gives up: cancel ``run`` to end it.
"""

from __future__ import annotations

import asyncio
import enum
import itertools
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import msgspec

from tabinet.errors import Compacted, StoreError
from tabinet.store.api import Datastore, DeleteEvent, PutEvent, WatchBatch

PAGE = 2_000
"""Keys in a page of a snapshot: a page is decoded and taken in at once, some 10 ms. Larger ones cost the store less."""
MAX_BATCH = 1000
"""Changes in one delivery, so that the reader's slice of the event loop stays short; a larger transaction still comes whole."""
CAPACITY = 20_000
"""Changes that wait for the reader."""


class SyncState(enum.Enum):
    """How far what was delivered is what the store holds."""

    NOT_READY = "not-ready"
    """The store does not answer; what was delivered may be old."""
    RESYNC = "resync"
    """A snapshot is being read."""
    IN_SYNC = "in-sync"
    """Everything was delivered, and changes come as they happen."""


class SyncStatus(msgspec.Struct, frozen=True, gc=False):
    """Told when it changes."""

    state: SyncState
    error: str = ""
    """Why not ready."""


SyncEvent = SyncStatus | WatchBatch
"""The revision of a batch is that of its latest change; other prefixes may be behind it."""

Deliver = Callable[[SyncEvent], Awaitable[None]]


def retry_delay_s(attempt: int) -> float:
    """Seconds to wait before the next attempt, ``attempt`` (from 0) having failed: 0.1 doubling to 3, less up to a half at random.

    The random part keeps a thousand agents from asking a restarted store in step.
    """
    return float(min(0.1 * 2 ** min(attempt, 10), 3.0) * random.uniform(0.5, 1.0))


class _Phase(enum.Enum):
    AWAY = enum.auto()
    LISTING = enum.auto()
    WATCHING = enum.auto()


@dataclass(slots=True)
class _Followed:
    """One prefix, and what has been read of it."""

    prefix: str
    phase: _Phase = _Phase.LISTING
    error: str = ""
    complete: bool = False
    """False: it must be listed before it can be watched."""
    revision: int = 0
    """Everything up to it has been read."""
    keys: dict[str, int] = field(default_factory=dict)
    """Key to revision of what exists, as far as was read."""
    failures: int = 0
    """Attempts since something was read."""


@dataclass(slots=True)
class _Mailbox:
    """What has been read and not yet delivered: for each key the latest change, oldest first."""

    events: dict[str, PutEvent | DeleteEvent] = field(default_factory=dict)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _room: asyncio.Event = field(default_factory=asyncio.Event)

    async def add(self, events: Iterable[PutEvent | DeleteEvent]) -> None:
        """They are in the box; first it waits for room, without limit of time: the reader takes the time it needs."""
        while len(self.events) >= CAPACITY:
            self._room.clear()
            await self._room.wait()
        for event in events:
            key = _key_of(event)
            self.events.pop(key, None)  # so that it goes to the end: the order stays that of the revisions
            self.events[key] = event
        self._news.set()

    def take(self) -> WatchBatch:
        """About ``MAX_BATCH`` of them, never part of a transaction."""
        taken: list[PutEvent | DeleteEvent] = []
        for event in self.events.values():
            if len(taken) >= MAX_BATCH and _revision_of(event) != _revision_of(taken[-1]):
                break
            taken.append(event)
        for event in taken:
            del self.events[_key_of(event)]
        self._room.set()
        return WatchBatch(events=taken, revision=max(_revision_of(event) for event in taken))

    def wake(self) -> None:
        """A status has changed."""
        self._news.set()

    async def wait(self) -> None:
        """Returns when something has happened since the last call; without limit of time, as nothing need ever happen."""
        await self._news.wait()
        self._news.clear()


class Syncer:
    """Follows ``prefixes`` of a store; none of them may begin with another one."""

    def __init__(
        self,
        store: Datastore,
        prefixes: Sequence[str],
        *,
        backoff: Callable[[int], float] = retry_delay_s,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._prefixes = tuple(prefixes)
        self._backoff = backoff
        self._sleep = sleep

    async def run(self, deliver: Deliver) -> None:
        """Delivers for ever; each call of it starts anew, with a snapshot.

        Raises:
            ValueError: a prefix is part of another one.
            ExceptionGroup: what ``deliver`` raised.
        """
        for one, other in itertools.permutations(self._prefixes, 2):
            if one.startswith(other):
                raise ValueError(f"prefix {one!r} is below another prefix, or given twice")
        mailbox = _Mailbox()
        followed = [_Followed(prefix) for prefix in self._prefixes]
        async with asyncio.TaskGroup() as group:
            group.create_task(_pass_on(followed, mailbox, deliver))  # first, so that it always begins with a status
            for each in followed:
                group.create_task(self._follow(each, mailbox))

    async def _follow(self, followed: _Followed, mailbox: _Mailbox) -> None:
        """Reads one prefix for ever."""
        while True:
            try:
                if not followed.complete:
                    await self._read_snapshot(followed, mailbox)
                await self._read_changes(followed, mailbox)
            except Compacted:
                followed.complete = False
                followed.phase = _Phase.LISTING
            except StoreError as error:
                followed.phase = _Phase.AWAY
                followed.error = str(error)
            mailbox.wake()
            delay_s = self._backoff(followed.failures)
            followed.failures += 1
            await self._sleep(delay_s)

    async def _read_snapshot(self, followed: _Followed, mailbox: _Mailbox) -> None:
        missing = set(followed.keys)
        revision = 0
        async with aclosing(self._store.list(followed.prefix, page_size=PAGE)) as pages:
            async for page in pages:
                if page.revision < followed.revision:
                    followed.keys = dict.fromkeys(followed.keys, 0)  # another history: equal revisions mean nothing
                    followed.revision = 0
                revision = page.revision
                _progress(followed, _Phase.LISTING, mailbox)
                await mailbox.add([PutEvent(item) for item in page.items if followed.keys.get(item.key) != item.revision])
                missing.difference_update([item.key for item in page.items])
                followed.keys.update((item.key, item.revision) for item in page.items)
                await asyncio.sleep(0)  # nothing above need have waited, and others on the loop have waited long enough
        gone = sorted(missing)
        await mailbox.add([DeleteEvent(key, revision) for key in gone])
        for key in gone:
            del followed.keys[key]
        followed.revision = revision
        followed.complete = True

    async def _read_changes(self, followed: _Followed, mailbox: _Mailbox) -> None:
        async with aclosing(self._store.watch(followed.prefix, followed.revision)) as batches:
            async for batch in batches:
                _progress(followed, _Phase.WATCHING, mailbox)
                for event in batch.events:
                    if isinstance(event, PutEvent):
                        followed.keys[event.item.key] = event.item.revision
                    else:
                        followed.keys.pop(event.key, None)
                if batch.events:
                    await mailbox.add(batch.events)
                followed.revision = batch.revision


def _progress(followed: _Followed, phase: _Phase, mailbox: _Mailbox) -> None:
    followed.failures = 0
    if followed.phase is not phase:
        followed.phase = phase
        mailbox.wake()


async def _pass_on(followed: Sequence[_Followed], mailbox: _Mailbox, deliver: Deliver) -> None:
    """Delivers for ever: bad news first, then changes, and good news when there are no more of those."""
    told: SyncStatus | None = None
    while True:
        status = _status_of(followed)
        if status != told and (status.state is not SyncState.IN_SYNC or not mailbox.events):
            told = status
            await deliver(status)
        elif mailbox.events:
            await deliver(mailbox.take())
        else:
            await mailbox.wait()


def _status_of(followed: Sequence[_Followed]) -> SyncStatus:
    """That of the prefix that is worst off."""
    for each in followed:
        if each.phase is _Phase.AWAY:
            return SyncStatus(SyncState.NOT_READY, each.error)
    if any(each.phase is _Phase.LISTING for each in followed):
        return SyncStatus(SyncState.RESYNC)
    return SyncStatus(SyncState.IN_SYNC)


def _key_of(event: PutEvent | DeleteEvent) -> str:
    return event.item.key if isinstance(event, PutEvent) else event.key


def _revision_of(event: PutEvent | DeleteEvent) -> int:
    return event.item.revision if isinstance(event, PutEvent) else event.revision

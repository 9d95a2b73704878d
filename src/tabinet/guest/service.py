"""``GuestService``: follows the store and answers the guests of one host, in a process of its own.

Own process, because what guests send is nobody's business who writes the kernel's tables; because the agent starts itself anew for
parameters and guests must not notice; and because an agent that is busy with a snapshot would let them wait. It needs no agent: what it
does not know is which interfaces have policy, and an interface without lets nothing through.

A store that is away changes nothing; what is known goes on to be answered, also by a service that starts meanwhile and remembers it
(``memory``). Before the first snapshot is complete, who is known already is answered; once it is, what was remembered and is not in the
store any more is forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from tabinet.guest.directory import Directory, Port
from tabinet.guest.inbox import Inbox
from tabinet.guest.memory import Memory, Remembered
from tabinet.guest.responder6 import Responder6
from tabinet.store.api import DeleteEvent, KeyValue, PutEvent, WatchBatch
from tabinet.store.syncer import Syncer, SyncState, SyncStatus

NOTES_EVERY_S = 60.0
"""The same about the same port is logged once in this time."""
TIDY_EVERY_S = 60.0


@dataclass(slots=True)
class Notes:
    """Keeps what a guest can cause from filling the log."""

    log: structlog.stdlib.BoundLogger
    now: Callable[[], float]
    _told: dict[tuple[str, str, str], float] = field(default_factory=dict)

    def __call__(self, event: str, port: Port, what: str) -> None:
        """Logged, unless it was a short while ago."""
        key, now_s = (event, port.interface, what), self.now()
        if now_s >= self._told.get(key, 0.0):
            self._told[key] = now_s + NOTES_EVERY_S
            self.log.warning(event, interface=port.interface, endpoint=str(port.key), what=what)

    def tidy(self) -> None:
        """What may be told again is not remembered."""
        now_s = self.now()
        for key in [key for key, until in self._told.items() if until <= now_s]:
            del self._told[key]


class Responder(Protocol):
    """Answers one kind of messages."""

    inbox: Inbox

    def begin(self) -> None:
        """What comes is answered from now on."""

    def end(self) -> None:
        """Nothing is answered any more."""

    def on_changed(self, interfaces: set[str]) -> None:
        """The ports of these interfaces, or their subnets, are not as they were."""


@dataclass(slots=True)
class GuestService:
    """``run`` never returns but by an exception or by being cancelled."""

    syncer: Syncer
    directory: Directory
    responders: dict[str, Responder]
    """By protocol."""
    routers: Responder6 | None
    """One of them, that tells guests every now and then without being asked; None: no IPv6 here."""
    notes: Notes
    log: structlog.stdlib.BoundLogger
    now: Callable[[], float]
    memory: Memory
    others: tuple[Callable[[], Coroutine[Any, Any, None]], ...] = ()
    """What else runs as long as the service does."""
    state: SyncState = SyncState.NOT_READY
    error: str = ""
    """Why the store does not answer."""
    knows: bool = False
    """It has what it needs to answer: a whole snapshot, or what it remembers of one."""
    _old: set[str] = field(default_factory=set)
    """Keys that are remembered, and of which the store has not said anything yet."""
    _problems: dict[str, str] = field(default_factory=dict)

    def remember(self, remembered: Remembered) -> None:
        """Guests are answered as before, until the store says something else."""
        self._old = set(remembered.items)
        self.memory.items.update(remembered.items)
        self.directory.on_events([PutEvent(KeyValue(key, value, 0, 0)) for key, value in remembered.items.items()])
        self.knows = True

    async def run(self) -> None:
        """Guests are answered until the task is cancelled."""
        responders = list(self.responders.values())
        for responder in responders:
            responder.begin()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.syncer.run(self.on_sync_event))
                group.create_task(self._tidy_forever())
                group.create_task(self.memory.run())
                if self.routers is not None:
                    group.create_task(self.routers.advertise_forever())
                for other in self.others:
                    group.create_task(other())
        finally:
            for responder in responders:
                responder.end()

    async def on_sync_event(self, event: SyncStatus | WatchBatch) -> None:
        """Takes in what the syncer says."""
        if isinstance(event, SyncStatus):
            self.state, self.error = event.state, event.error
            extra = {}
            if event.state is SyncState.IN_SYNC:
                self.knows = True
                self._take_in([DeleteEvent(key, 0) for key in sorted(self._old)])
                extra = {"ports": self.directory.count()}
            self.log.info("store", state=event.state.value, error=event.error or None, **extra)
            return
        self._take_in(event.events)

    def _take_in(self, events: Sequence[PutEvent | DeleteEvent]) -> None:
        if self._old:
            self._old.difference_update(event.item.key if isinstance(event, PutEvent) else event.key for event in events)
        changed = self.directory.on_events(events)
        self.memory.on_events(events)
        self._tell_problems()
        for responder in self.responders.values():
            responder.on_changed(changed)

    def _tell_problems(self) -> None:
        problems = dict(self.directory.problems)
        for path, text in problems.items():
            if self._problems.get(path) != text:
                self.log.warning("value not heeded", key=path, error=text)
        self._problems = problems

    async def _tidy_forever(self) -> None:
        limiters = [responder.inbox.limiter for responder in self.responders.values()]
        while True:
            await asyncio.sleep(TIDY_EVERY_S)
            self.notes.tidy()
            for limiter in limiters:
                limiter.forget(self.now())

"""Answers the CalicoNodeStatus resources that ask about this host, each as often as it wants.

In: the resources, followed in the store; what BIRD says (``look``). Out: their ``status``. A resource about another host, with the period
0, or that cannot be understood is left alone. Each answer is a write that all agents hear of: made to look at some hosts for some time, not
at all of them for ever. A store that is away is tried again with the next period.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

import msgspec

from tabinet.agent.bgp import BgpWatcher
from tabinet.agent.kernelthread import call_aside
from tabinet.bgp.nodestatus import ROUTES, BirdView, node_status
from tabinet.bgp.routes import RouteStatus
from tabinet.errors import BirdError, DataError, NotFound, StoreError
from tabinet.lib.ip import IPV4, IPV6
from tabinet.model.codec import decode_stored
from tabinet.model.keys import ResourceKey, kind_prefix, parse_path
from tabinet.model.resources import CalicoNodeStatus, CalicoNodeStatusSpec
from tabinet.store.api import Datastore, PutEvent, WatchBatch
from tabinet.store.client import Document, ResourceClient
from tabinet.store.syncer import Syncer, SyncStatus

KIND = "CalicoNodeStatus"
DEFAULT_PERIOD_S = 10
SHORTEST_S = 1.0
ROUTES_READ = 10_000
"""Of BIRD's routes so many are looked at; how many of them are told, ``nodestatus`` says."""

Look = Callable[[Collection[str]], Awaitable[BirdView]]
"""What BIRD says, for these classes."""


@dataclass(slots=True)
class StatusRequests:
    """The requests about one host."""

    host: str
    store: Datastore
    look: Look
    now: Callable[[], str]
    """RFC 3339, UTC."""
    is_held: Callable[[], bool] = lambda: False
    """True while nobody may write resources."""
    requests: dict[ResourceKey, CalicoNodeStatusSpec] = field(default_factory=dict)
    _due_s: dict[ResourceKey, float] = field(default_factory=dict)
    """By the clock of the loop."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Never returns."""
        async with asyncio.TaskGroup() as group:
            group.create_task(Syncer(self.store, [kind_prefix(KIND)]).run(self.on_event))
            group.create_task(self._answer_forever())

    async def on_event(self, event: SyncStatus | WatchBatch) -> None:
        """What the store says of the resources is known."""
        if isinstance(event, SyncStatus):
            return
        for each in event.events:
            key = parse_path(each.item.key if isinstance(each, PutEvent) else each.key)
            if isinstance(key, ResourceKey):
                self._take(key, _spec_in(each) if isinstance(each, PutEvent) else None)

    def _take(self, key: ResourceKey, spec: CalicoNodeStatusSpec | None) -> None:
        if spec is None or spec.node != self.host or not spec.classes or spec.update_period_seconds == 0:
            self.requests.pop(key, None)
            self._due_s.pop(key, None)
        elif self.requests.get(key) != spec:  # our own answers come back here, and change nothing
            self.requests[key] = spec
            self._due_s[key] = asyncio.get_running_loop().time()
            self._changed.set()

    async def _answer_forever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            left_s = min(self._due_s.values()) - loop.time() if self._due_s else None
            if left_s is None or left_s > 0:
                try:
                    async with asyncio.timeout(left_s):  # without requests there is nothing to wait for but one
                        await self._changed.wait()
                except TimeoutError:
                    pass
                self._changed.clear()
            for key in [key for key, due_s in self._due_s.items() if due_s <= loop.time()]:
                await self._answer(key)

    async def _answer(self, key: ResourceKey) -> None:
        """The resource has a fresh status, if it still asks for one and the store answers; the next one is due a period later."""
        spec = self.requests.get(key)
        if spec is None:
            return
        period_s = max(SHORTEST_S, spec.update_period_seconds or DEFAULT_PERIOD_S)
        self._due_s[key] = asyncio.get_running_loop().time() + period_s
        if self.is_held():
            return
        status = msgspec.to_builtins(node_status(spec.classes, await self.look(spec.classes), self.now()))

        def edit(document: Document) -> Document:
            asked = document.get("spec")
            still = isinstance(asked, dict) and asked.get("node") == self.host
            return {**document, "status": status} if still else document

        try:
            await ResourceClient(self.store).change(key, edit)
        except (StoreError, DataError, NotFound):
            return


def _spec_in(event: PutEvent) -> CalicoNodeStatusSpec | None:
    try:
        decoded = decode_stored(event.item.key, event.item.value)
    except DataError:
        return None
    return decoded[1].spec if decoded is not None and isinstance(decoded[1], CalicoNodeStatus) else None


def look_at(bgp: BgpWatcher | None) -> Look:
    """What the watcher knows, at most a second old; routes are asked for only where they are wanted."""

    async def look(classes: Collection[str]) -> BirdView:
        if bgp is None or not bgp.status.version:
            return BirdView()
        routes: tuple[RouteStatus, ...] = ()
        if ROUTES in classes:
            try:
                routes = await call_aside(bgp.driver.control.routes, ROUTES_READ)
            except BirdError:
                return BirdView()
        intent = bgp.intent
        own = ((IPV4, intent.ipv4), (IPV6, intent.ipv6)) if intent is not None else ()
        return BirdView(status=bgp.status, sessions=bgp.found, routes=routes, families=tuple(family for family, address in own if address))

    return look

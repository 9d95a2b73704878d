"""``Moving``: sees machines come and go, tells the other hosts, and hands flows over.

A machine has changed its host as soon as one of these is known, whichever comes first: a frame from it on the target's interface (QEMU
announces it by RARP within a millisecond, and guests announce themselves); what a hook of the hypervisor tells (``stopped``, ``running``);
that its new binding is active, which is another endpoint in the store and needs nothing here. A machine that has come is told that its
gateways are here: it remembers the hardware address that they had.

Whoever sees or is told it says so in the store, which every host follows: the target, and before it the source that was told that the
machine has stopped. Then the target announces its addresses while the machine stands still.

In: endpoints as the calculation tells them, interfaces on which machines are expected, what hooks tell. Out: switches and ends of detours
for the dataplane; an Arrival in the store; flows, written by the source under a lease where only the target looks, taken by the target
whenever they come. They go along twice: before the machine moves, because after its stop packets are at the target sooner than flows are
read, stored and added; and when it has stopped. Neither waits for the other: packets need only the routes, and a flow that is not known yet
is judged as every flow that is older than the tracking. Once the machine was seen at the target, the source forgets flows through its
floating addresses: they are translated at the target now, and what still comes has to get there as it is.

Failures of the store are logged and retried while the migration lasts; the kernel is right without it. Belongs to the agent's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from tabinet.agent.dataplane import Dataplane
from tabinet.agent.kernelthread import KernelThread
from tabinet.agent.log import Logger
from tabinet.calc.messages import Endpoint, EndpointRemove, EndpointUpdate, Migration, Place, Update
from tabinet.dataplane.links.items import GATEWAY_IPV4, GATEWAY_IPV6
from tabinet.dataplane.moves import Expected
from tabinet.errors import DataError, KernelError, StoreError
from tabinet.guest.announcements import BROADCAST, render_announcements
from tabinet.kernel.flowcodec import Flow, parse_part, render_parts
from tabinet.kernel.sightings import Sightings
from tabinet.lib.ip import Prefix
from tabinet.model.arrivals import Arrival, flows_path, flows_prefix, render_arrival
from tabinet.model.keys import ArrivalKey, ResourceKey, path_of
from tabinet.store.api import Compare, Datastore, DeleteOp, KeyValue, PutEvent, PutOp, WatchBatch
from tabinet.store.syncer import Syncer, SyncEvent

FLOWS_TTL_S = 60
"""How long flows stay in the store: the target takes them at once."""
ADDED_AT_ONCE = 500
"""So many flows are added before the kernel thread has time for others: some milliseconds."""
RETRY_S = 0.5
SWITCH_WITHIN_S = 2.0
ON_TARGET = (Place.ARRIVING, Place.ARRIVED)


Job = tuple[str, ResourceKey, "Moved"]


class Moved(msgspec.Struct, frozen=True, gc=False):
    """A local endpoint that is an end of a migration."""

    endpoint: Endpoint
    migration: Migration


@dataclass(slots=True)
class Moving:
    """The migrations of one host; ``run`` never returns."""

    host: str
    store: Datastore
    kernel: KernelThread
    dataplane: Dataplane
    sightings: Sightings
    log: Logger
    exists: Callable[[ResourceKey], bool] = lambda _: True
    """The store has an endpoint of this key."""
    ask: Callable[[], None] = lambda: None
    """The agent is to apply what changed."""
    _ends: dict[ResourceKey, Moved] = field(default_factory=dict)
    _expected: dict[ResourceKey, Expected] = field(default_factory=dict)
    _greeted: set[ResourceKey] = field(default_factory=set)
    """Machines that were told of their gateways, before there were routes to them."""
    _followed: set[ResourceKey] = field(default_factory=set)
    """Endpoints on other hosts to which detours of endpoints that are gone may lead."""
    _ended: list[ResourceKey] = field(default_factory=list)
    """Those of them that are no more, for the dataplane."""
    _seen: dict[ResourceKey, str] = field(default_factory=dict)
    """By endpoint: the uid of the migration that was seen to be over here."""
    _jobs: asyncio.Queue[Job] = field(default_factory=asyncio.Queue)
    """Words for the store, in order."""
    _flow_jobs: asyncio.Queue[Job] = field(default_factory=asyncio.Queue)
    """What is to be done about flows, in order: words do not wait for it."""
    _switches: list[tuple[ResourceKey, bool]] = field(default_factory=list)
    _applied: asyncio.Event = field(default_factory=asyncio.Event)
    """The kernel has followed every switch."""
    _nets: dict[str, tuple[Prefix, ...]] = field(default_factory=dict)
    """Whose flows are taken: by the path that they come under, the machine's addresses."""

    # --- in

    def on_updates(self, updates: Iterable[Update]) -> None:
        """What the calculation tells of endpoints."""
        for update in updates:
            match update:
                case EndpointUpdate(key=key, endpoint=endpoint):
                    self._on_endpoint(key, endpoint)
                case EndpointRemove(key=key):
                    self._on_endpoint(key, None)
                case _:
                    pass

    def _on_endpoint(self, key: ResourceKey, endpoint: Endpoint | None) -> None:
        before = self._ends.pop(key, None)
        migration = endpoint.migration if endpoint is not None else None
        if endpoint is None or migration is None:
            if before is not None:
                self._on_over(key, before)
            return
        now = self._ends[key] = Moved(endpoint, migration)
        if migration.place in ON_TARGET:
            if self._flows_path(now) not in self._nets:
                self._flow_jobs.put_nowait(("take", key, now))  # the source may have known of the migration before
            self._nets[self._flows_path(now)] = endpoint.nets
        if migration.place is Place.DEPARTING and (before is None or before.migration.uid != migration.uid):
            self._flow_jobs.put_nowait(("hand over early", key, now))
        if before is not None and migration.place is Place.DEPARTING and _is_awaited(before, migration.uid):
            self._stay(key)
        elif migration.place is Place.LEFT and self._seen.get(key) != migration.uid:
            self._note_left(key, now)
        elif migration.place is Place.LEFT and not migration.awaited and (before is None or not _is_elsewhere(before)):
            self._flow_jobs.put_nowait(("forget translated", key, now))  # a hook told before anybody saw it

    def _on_over(self, key: ResourceKey, before: Moved) -> None:
        """The endpoint is part of no migration any more, or gone."""
        seen, place = self._seen.pop(key, ""), before.migration.place
        if place is Place.DEPARTING:  # its new binding is active
            self._flow_jobs.put_nowait(("forget translated" if seen else "hand over", key, before))
        if before.migration.is_expected and not seen:
            self._greet(key, before)
        if place in (Place.DEPARTING, Place.LEFT):
            self._follow(before.migration.other_end)
        if place in ON_TARGET:
            self._jobs.put_nowait(("forget", key, before))
            # The source may learn of the end of the migration later than we do.
            asyncio.get_running_loop().call_later(FLOWS_TTL_S, self._nets.pop, self._flows_path(before), None)

    def _follow(self, end: ResourceKey) -> None:
        """While there may be a detour to this endpoint, it is heard of its end."""
        self._followed.add(end)
        asyncio.get_running_loop().call_later(self.dataplane.linger_s, self._followed.discard, end)

    def look_for_ends(self) -> None:
        """The store may have changed: detours to endpoints that are no more are to end. O(machines that left a while ago)."""
        gone = [end for end in self._followed if not self.exists(end)]
        if gone:
            self._followed.difference_update(gone)
            self._ended += gone
            self.ask()

    def _flows_path(self, moved: Moved) -> str:
        key = moved.migration.key
        return flows_path(self.host, key.namespace, key.name)

    # --- what is seen, or told

    def stopped(self, interface: str) -> bool:
        """The hypervisor has stopped the machine behind the interface for good: it goes on at the target. False: nothing moves there."""
        for key, moved in self._at(interface):
            if moved.migration.place is Place.DEPARTING:
                self._jobs.put_nowait(("departed", key, moved))
                self._note_left(key, moved)
                return True
        return False

    def running(self, interface: str) -> bool:
        """The machine behind the interface runs: it has come, or it goes on here after all. False: nothing moves there."""
        for key, moved in self._at(interface):
            if moved.migration.is_expected:
                self._note_arrived(key, moved, "told")
            elif moved.migration.place not in ON_TARGET and key in self._seen:
                self._jobs.put_nowait(("stays", key, moved))
                self._stay(key)
            return True
        return False

    def _at(self, interface: str) -> list[tuple[ResourceKey, Moved]]:
        return [(key, moved) for key, moved in self._ends.items() if moved.endpoint.interface == interface]

    def _on_sighting(self) -> None:
        by_index = {expected.index: (key, expected.mac) for key, expected in self._expected.items()}
        for sighting in self.sightings.read():
            key, mac = by_index.get(sighting.index, (None, ""))
            moved = self._ends.get(key) if key is not None else None
            if key is not None and moved is not None and moved.migration.is_expected and mac in ("", sighting.mac):
                self._note_arrived(key, moved, "seen")

    def _note_arrived(self, key: ResourceKey, moved: Moved, how: str) -> None:
        if self._seen.get(key) == moved.migration.uid:
            return
        self._seen[key] = moved.migration.uid
        self.log.info("machine has come", endpoint=str(key), source=moved.migration.other, how=how)
        self._greet(key, moved)
        self._greeted.add(key)
        self._switch(key, moved=True)
        self._jobs.put_nowait(("arrived", key, moved))

    def _greet(self, key: ResourceKey, moved: Moved) -> None:
        """The machine is told that its gateways are here."""
        expected, gateway4 = self._expected.get(key), moved.endpoint.gateway4
        if expected is None or not expected.hardware:
            return
        gateways = (GATEWAY_IPV4, *((gateway4,) if gateway4 is not None else ()), GATEWAY_IPV6)
        guest = bytes.fromhex(expected.mac.replace(":", "")) or BROADCAST
        self.sightings.say(expected.index, render_announcements(gateways, guest, bytes.fromhex(expected.hardware.replace(":", ""))))

    def _note_left(self, key: ResourceKey, moved: Moved) -> None:
        self._seen[key] = moved.migration.uid
        self.log.info("machine has left", endpoint=str(key), target=moved.migration.other)
        self._switch(key, moved=True)
        self._flow_jobs.put_nowait(("hand over", key, moved))

    def _stay(self, key: ResourceKey) -> None:
        """The machine goes on here. What the store says may be behind: this is asked for again when it says so, too."""
        if self._seen.pop(key, ""):
            self.log.info("machine stays", endpoint=str(key))
            self._switch(key, moved=False)

    def _switch(self, key: ResourceKey, *, moved: bool) -> None:
        self._switches.append((key, moved))
        self._applied.clear()
        self.ask()

    def take_switches(self) -> list[tuple[ResourceKey, bool]]:
        """What the dataplane is to follow next: endpoints, and whether their machine has changed its host."""
        switches, self._switches = self._switches, []
        return switches

    def take_ended(self) -> list[ResourceKey]:
        """Endpoints on other hosts that are no more: detours to them are to end."""
        ended, self._ended = self._ended, []
        return ended

    def on_applied(self, arriving: Mapping[ResourceKey, Expected]) -> None:
        """The kernel holds what it was asked for; machines are expected on these interfaces."""
        if not self._switches:
            self._applied.set()
        for key in self._greeted - arriving.keys():  # once more, now that it is answered
            if key in self._ends:
                self._greet(key, self._ends[key])
        self._greeted &= arriving.keys()
        self.look_for_ends()
        if arriving == self._expected:
            return
        before, self._expected = self._expected, dict(arriving)
        self.sightings.watch(expected.index for expected in arriving.values())
        for key, expected in arriving.items():
            if expected.running and expected != before.get(key) and key in self._ends:
                self._greet(key, self._ends[key])  # what waits for the machine is read in order: before it answers what comes next

    # --- work

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self.sightings.fileno(), self._on_sighting)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._work(self._jobs))
                group.create_task(self._work(self._flow_jobs))
                group.create_task(Syncer(self.store, [flows_prefix(self.host)]).run(self._on_flows))
        finally:
            loop.remove_reader(self.sightings.fileno())

    async def _work(self, jobs: asyncio.Queue[Job]) -> None:
        while True:
            job, key, moved = await jobs.get()
            try:
                match job:
                    case "arrived":
                        await self._tell_arrival(moved)
                    case "departed":
                        await self._tell_departure(moved)
                    case "stays":
                        await self._take_back(moved)
                    case "forget translated":
                        await self.kernel.call(self.dataplane.forget_translated, moved.endpoint)
                    case "forget":
                        await self.store.txn((), (DeleteOp(path_of(_arrival_key(moved))),))
                    case "hand over early":
                        await self._put_flows(key, moved, await self._flows_of(moved))
                    case "take":
                        await self._take_what_is_there(moved)
                    case _:
                        await self._hand_over(key, moved)
            except StoreError as error:
                self.log.warning("migration: the store is away", job=job, endpoint=str(key), error=str(error))
                await asyncio.sleep(RETRY_S)
                if key in self._ends or job in ("forget", "stays"):
                    jobs.put_nowait((job, key, moved))
            except KernelError as error:
                self.log.warning("migration: flows are not handed over", endpoint=str(key), error=str(error))

    async def _tell_arrival(self, moved: Moved) -> None:
        arrival = Arrival(migration=moved.migration.uid, host=self.host)
        await self.store.txn((), (PutOp(path_of(_arrival_key(moved)), render_arrival(arrival)),))

    async def _tell_departure(self, moved: Moved) -> None:
        """The machine is at the other end, unless that has told more already."""
        path, migration = path_of(_arrival_key(moved)), moved.migration
        put = PutOp(path, render_arrival(Arrival(migration=migration.uid, host=migration.other, running=False)))
        if (await self.store.txn((Compare(path, 0),), (put,))).succeeded:
            return
        item = await self.store.get(path)
        if item is not None and _arrival_of(item) != migration.uid:
            await self.store.txn((Compare(path, item.revision),), (put,))

    async def _take_back(self, moved: Moved) -> None:
        """Nobody takes the machine to be at the other end, unless it was seen there."""
        path = path_of(_arrival_key(moved))
        item = await self.store.get(path)
        if item is not None and _arrival_of(item, running=False) == moved.migration.uid:
            await self.store.txn((Compare(path, item.revision),), (DeleteOp(path),))

    async def _hand_over(self, key: ResourceKey, moved: Moved) -> None:
        """The other end finds the flows in the store."""
        with contextlib.suppress(TimeoutError):
            # Many flows take a tenth of a second to read, and packets come before flows.
            async with asyncio.timeout(SWITCH_WITHIN_S):
                await self._applied.wait()
        await self._put_flows(key, moved, await self._flows_of(moved))
        if _is_elsewhere(moved) or key not in self._ends:
            await self.kernel.call(self.dataplane.forget_translated, moved.endpoint)

    async def _flows_of(self, moved: Moved) -> list[Flow]:
        return await self.kernel.call(self.dataplane.flows_of, moved.endpoint.nets)

    async def _put_flows(self, key: ResourceKey, moved: Moved, flows: list[Flow]) -> None:
        if not flows:
            return
        lease = await self.store.grant(FLOWS_TTL_S)
        parts = await asyncio.to_thread(lambda: list(render_parts(flows)))
        migration = moved.migration
        for number, part in enumerate(parts):
            path = flows_path(migration.other, migration.key.namespace, migration.key.name)
            await self.store.txn((), (PutOp(f"{path}/{number}", part, lease),))
        self.log.info("flows handed over", endpoint=str(key), target=migration.other, flows=len(flows), bytes=sum(map(len, parts)))

    async def _on_flows(self, event: SyncEvent) -> None:
        if not isinstance(event, WatchBatch):
            return
        for change in event.events:
            if isinstance(change, PutEvent):
                await self._take_part(change.item.key, change.item.value)

    async def _take_what_is_there(self, moved: Moved) -> None:
        async for page in self.store.list(f"{self._flows_path(moved)}/"):
            for item in page.items:
                await self._take_part(item.key, item.value)

    async def _take_part(self, path: str, value: bytes) -> None:
        """Flows of a machine that comes here are known; they are in the store no more."""
        nets = self._nets.get(path.rpartition("/")[0])
        if nets is None:
            return  # of a migration that is over, or not known yet: its lease ends
        try:
            flows = await asyncio.to_thread(parse_part, value, path)
            added = 0
            for start in range(0, len(flows), ADDED_AT_ONCE):
                added += await self.kernel.call(self.dataplane.add_flows, flows[start : start + ADDED_AT_ONCE], nets)
            self.log.info("flows taken over", migration=path.rpartition("/")[0], flows=len(flows), added=added)
            await self.store.txn((), (DeleteOp(path),))
        except (DataError, KernelError, StoreError) as error:
            self.log.warning("migration: flows are not taken over", path=path, error=str(error))


def _is_elsewhere(moved: Moved) -> bool:
    """True: the machine was seen at the other end."""
    return moved.migration.place is Place.LEFT and not moved.migration.awaited


def _is_awaited(moved: Moved, uid: str) -> bool:
    """True: it has stopped here in this migration, and was not seen at the other end."""
    migration = moved.migration
    return migration.place is Place.LEFT and migration.awaited and migration.uid == uid


def _arrival_of(item: KeyValue, *, running: bool = True) -> str:
    """The migration that the stored arrival is of; empty when it is none, or (not ``running``) when the machine was seen there."""
    try:
        arrival = msgspec.json.decode(item.value, type=Arrival)
    except msgspec.DecodeError:
        return ""
    return "" if arrival.running and not running else arrival.migration


def _arrival_key(moved: Moved) -> ArrivalKey:
    key = moved.migration.key
    return ArrivalKey(key.namespace, key.name)

"""``Holding``: hears which machine holds an address that several ports may have, and tells the other hosts.

Several ports may have the same allowed address pair, on one host or on many, and one machine at a time the address (VRRP and the like). As
long as none is known to, all hosts announce it. A machine that takes it says so on its link, by gratuitous ARP or an unsolicited neighbour
advertisement; its host writes that down (``/tabinet/v1/holders/``), and all others leave the address to it for as long as the endpoint that
is named exists and has the address (``calc.holders``). The one that was written last holds it.

In: endpoints as the calculation tells them, announcements of guests. Out: records in the store; for the dataplane, what was heard and is
not written yet, so that a store that is away does not keep a machine from having its address here. A claim that could not be written soon
may be out of date when the store is back: then the machine is asked, and only its answer counts. An agent that starts asks its machines
about the addresses that others hold, as it may have missed what they said. A machine that comes by live migration takes along what it held.

Invariants: an announcement counts only of an address that the endpoint shares, from a hardware address that it may be sent from. A machine
that has an address already (by the store) costs a reading of the store for each time it says so, at most one at a time.

Failures of the store are logged and retried. Belongs to the agent's loop. O(addresses shared) for an endpoint.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import msgspec

from tabinet.agent.log import Logger
from tabinet.calc.messages import Endpoint, EndpointRemove, EndpointUpdate, Place, Update
from tabinet.errors import DataError, SetupError, StoreError
from tabinet.guest.announcements import Announcement
from tabinet.guest.listener import Listener
from tabinet.lib.ip import Prefix
from tabinet.model.codec import decode_stored
from tabinet.model.holders import Holder, render_holder
from tabinet.model.keys import HolderKey, ResourceKey, path_of
from tabinet.store.api import Compare, Datastore, DeleteOp, KeyValue, PutOp

FRESH_S = 2.0
"""A claim that could not be written for longer is out of date."""
RETRY_S = 0.5
ANSWER_WITHIN_S = 3.0
FOLLOWED_WITHIN_S = 2.0
"""The calculation has followed the store by then, or there was a later claim: what was heard counts no longer by itself."""
Heard = tuple[Prefix, ResourceKey | None]
"""An address, and who was heard to have it; None: what was heard counts no longer."""


class Claim(msgspec.Struct, frozen=True, gc=False):
    """An endpoint was heard to hold an address."""

    key: ResourceKey
    heard_s: float
    instead: ResourceKey | None = None
    """It was not heard, but came from another host: it holds what this endpoint held there."""


@dataclass(slots=True)
class Holding:
    """The shared addresses of one host; ``run`` never returns."""

    store: Datastore
    listener: Listener
    log: Logger
    now: Callable[[], float]
    ask: Callable[[], None] = lambda: None
    """The agent is to apply what was heard."""
    _sharing: dict[ResourceKey, Endpoint] = field(default_factory=dict)
    """Endpoints here with addresses that others may have as well."""
    _claims: dict[Prefix, Claim] = field(default_factory=dict)
    """To be written."""
    _coming: dict[ResourceKey, ResourceKey] = field(default_factory=dict)
    """Endpoints whose machine is coming, and those that it comes from."""
    _left: dict[Prefix, ResourceKey] = field(default_factory=dict)
    """Of endpoints that have them no more: records that are to go, if they name these."""
    _work: asyncio.Event = field(default_factory=asyncio.Event)
    _told: dict[Prefix, Claim] = field(default_factory=dict)
    """What the dataplane was told, and is not the store's yet, or not the calculation's."""
    _heard: list[Heard] = field(default_factory=list)
    _questions: dict[tuple[ResourceKey, Prefix], float] = field(default_factory=dict)
    """What was asked, and until when an answer counts."""
    _started: bool = False
    _listening: bool = False

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
        if bool(self._sharing) != self._listening:
            self._listen()

    def _on_endpoint(self, key: ResourceKey, endpoint: Endpoint | None) -> None:
        before = self._sharing.pop(key, None)
        shared = endpoint.shared if endpoint is not None else ()
        if endpoint is not None and shared and not endpoint.is_away:
            self._sharing[key] = endpoint
        for address in before.shared if before is not None else ():
            if address not in shared:
                self._left[address] = key
                self._work.set()
        for address, claim in list(self._told.items()):
            if claim.key == key and (key not in self._sharing or address not in shared):
                self._end(address, claim)
        self._on_move(key, endpoint)

    def _on_move(self, key: ResourceKey, endpoint: Endpoint | None) -> None:
        """A machine that has come has what it had where it was."""
        migration = endpoint.migration if endpoint is not None else None
        if migration is not None and migration.place in (Place.ARRIVING, Place.ARRIVED):
            self._coming[key] = migration.other_end
        if endpoint is None or not endpoint.is_away:
            source = self._coming.pop(key, None)
            for address in endpoint.shared if endpoint is not None and source is not None else ():
                self._claims.setdefault(address, Claim(key, self.now(), source))
                self._work.set()

    def _listen(self) -> None:
        self._listening = bool(self._sharing)
        try:
            self.listener.listen(self._on_announcement if self._listening else None)
        except SetupError as error:
            self.log.warning("announcements of guests are not heard", error=str(error))

    def on_applied(self) -> None:
        """The kernel holds what it was asked for. Once, machines are asked about the addresses that others hold."""
        for address, claim in list(self._told.items()):
            if self._follows(address, claim.key):
                self._end(address, claim)
        if not self._started:
            self._started = True
            for key, endpoint in self._sharing.items():
                for address in endpoint.yields:
                    self._question(key, address)

    def take_heard(self) -> list[Heard]:
        """What the dataplane is to follow next, in order."""
        heard, self._heard = self._heard, []
        return heard

    def _question(self, key: ResourceKey, address: Prefix) -> None:
        endpoint = self._sharing.get(key)
        if endpoint is not None and address in endpoint.shared:
            self._questions[key, address] = self.now() + ANSWER_WITHIN_S
            self.listener.ask(endpoint.interface, address)

    def _on_announcement(self, interface: str, said: Announcement) -> None:
        for key, endpoint in self._sharing.items():
            if endpoint.interface == interface and said.address in endpoint.shared and may_announce(endpoint, said):
                if said.asked and self.now() > self._questions.pop((key, said.address), 0.0):
                    continue
                self._claims[said.address] = Claim(key, self.now())
                self._work.set()

    # --- work

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            while self._claims or self._left:
                await self._write_next()

    async def _write_next(self) -> None:
        """One claim, or one end of one, is in the store or given up; what cannot be written is tried again after a pause."""
        address = next(iter(self._claims or self._left))
        try:
            if address in self._claims:
                await self._claim(address, self._claims[address])
            else:
                await self._leave(address, self._left[address])
        except StoreError as error:
            self.log.warning("who holds an address is not told: the store is away", address=str(address.address), error=str(error))
            await asyncio.sleep(RETRY_S)

    async def _claim(self, address: Prefix, claim: Claim) -> None:
        key, path = claim.key, path_of(HolderKey(address))
        endpoint = self._sharing.get(key)
        if endpoint is None or address not in endpoint.shared:
            del self._claims[address]
            return
        if claim.instead is not None and _named(await self.store.get(path)) != claim.instead:
            self._done(address, claim)
            return
        if not self._follows(address, key):
            self._told[address] = claim
            self._hear(address, key)
        stored = await self.store.get(path)
        if _named(stored) != key and self.now() - claim.heard_s > FRESH_S:
            self._give_up(address, claim)
            return
        if _named(stored) != key:
            put = PutOp(path, render_holder(Holder(namespace=key.namespace, name=key.name)))
            done = await self.store.txn((Compare(path, stored.revision if stored is not None else 0),), (put,))
            if not done.succeeded:
                return  # somebody else wrote meanwhile; what was heard just now is later, and tried again
            self.log.info("holder of an address", address=str(address.address), endpoint=str(key))
        self._done(address, claim)
        asyncio.get_running_loop().call_later(FOLLOWED_WITHIN_S, self._end, address, claim)

    def _done(self, address: Prefix, claim: Claim) -> None:
        """It is not to be written any more, unless there is a newer one."""
        if self._claims.get(address) == claim:
            del self._claims[address]

    def _give_up(self, address: Prefix, claim: Claim) -> None:
        """Another one may have come to hold it while the store was away: the machine is asked, and its answer is a claim of its own."""
        self._done(address, claim)
        self._end(address, claim)
        self._question(claim.key, address)

    async def _leave(self, address: Prefix, key: ResourceKey) -> None:
        """The record is gone if it names this endpoint, which has the address no more."""
        path = path_of(HolderKey(address))
        stored = await self.store.get(path)
        if stored is not None and _named(stored) == key and not (key in self._sharing and address in self._sharing[key].shared):
            await self.store.txn((Compare(path, stored.revision),), (DeleteOp(path),))
        self._left.pop(address, None)

    def _follows(self, address: Prefix, key: ResourceKey) -> bool:
        """True: the calculation says as well that of the endpoints here this one has the address."""
        sharing = ((at, endpoint) for at, endpoint in self._sharing.items() if address in endpoint.shared)
        return all((address in endpoint.yields) == (at != key) for at, endpoint in sharing)

    def _end(self, address: Prefix, claim: Claim) -> None:
        """What was heard counts no longer by itself, unless there is something newer."""
        if self._told.get(address) == claim:
            del self._told[address]
            self._hear(address, None)

    def _hear(self, address: Prefix, key: ResourceKey | None) -> None:
        self._heard.append((address, key))
        self.ask()


def may_announce(endpoint: Endpoint, said: Announcement) -> bool:
    """True when the endpoint may send the address from the hardware address that announces it."""
    macs = {pair.mac or endpoint.mac for pair in endpoint.pairs if pair.net == said.address} or {endpoint.mac}
    return endpoint.any_mac or "" in macs or said.mac in macs


def _named(stored: KeyValue | None) -> ResourceKey | None:
    """The endpoint that the record names; None: there is none that can be read."""
    if stored is None:
        return None
    try:
        found = decode_stored(stored.key, stored.value)
    except DataError:
        return None
    match found:
        case (HolderKey(), Holder(namespace=namespace, name=name)):
            return ResourceKey("WorkloadEndpoint", name, namespace)
        case _:
            return None

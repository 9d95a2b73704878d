"""``Switches``: what was seen of machines, those that move and those that share an address, before the store says it.

In: endpoints as the calculation tells them, who was seen to have left or to have come, who was heard to hold an address. Out: endpoints as
they are. What was seen of a move counts for the one migration that it was seen in; what was heard counts until it is taken back. Pure;
O(1), and for an address O(endpoints here that share one).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from tabinet.calc.messages import Endpoint, EndpointUpdate, Place
from tabinet.lib.ip import Prefix
from tabinet.model.keys import ResourceKey

_AFTER = {Place.DEPARTING: Place.LEFT, Place.ARRIVING: Place.ARRIVED}


@dataclass(slots=True)
class Switches:
    """Of one host's endpoints."""

    _told: dict[ResourceKey, EndpointUpdate] = field(default_factory=dict)
    """Endpoints that are part of a migration, or share an address, as they were told."""
    _seen: dict[ResourceKey, str] = field(default_factory=dict)
    """By endpoint: the uid of the migration whose machine changed its host."""
    _heard: dict[Prefix, ResourceKey] = field(default_factory=dict)
    """By address: who holds it, whatever the calculation tells."""

    def take(self, update: EndpointUpdate) -> EndpointUpdate:
        """The endpoint as it is."""
        key, endpoint = update.key, update.endpoint
        if endpoint.migration is None and not endpoint.shared:
            self.forget(key)
            return update
        self._told[key] = update
        taken = self._moved(key, self._yielding(key, endpoint))
        return update if taken is endpoint else msgspec.structs.replace(update, endpoint=taken)

    def _yielding(self, key: ResourceKey, endpoint: Endpoint) -> Endpoint:
        heard = {address: self._heard[address] for address in endpoint.shared if address in self._heard}
        if not heard:
            return endpoint
        told = (address for address in endpoint.yields if address not in heard)
        yields = tuple(sorted((*told, *(address for address, holder in heard.items() if holder != key))))
        return msgspec.structs.replace(endpoint, yields=yields)

    def _moved(self, key: ResourceKey, endpoint: Endpoint) -> Endpoint:
        migration = endpoint.migration
        if migration is None or self._seen.get(key) != migration.uid:
            self._seen.pop(key, None)
            return endpoint
        place = _AFTER.get(migration.place, migration.place)
        awaited = migration.awaited and place is not Place.ARRIVED
        return msgspec.structs.replace(endpoint, migration=msgspec.structs.replace(migration, place=place, awaited=awaited))

    def forget(self, key: ResourceKey) -> None:
        """The endpoint is not here, or moves nowhere and shares nothing."""
        self._told.pop(key, None)
        self._seen.pop(key, None)

    def switch(self, key: ResourceKey, moved: bool) -> EndpointUpdate | None:
        """The machine was seen to have changed its host, or (not ``moved``) to run where it was; gives the endpoint as it was told, to be
        taken again. None: it is part of no migration."""
        told = self._told.get(key)
        if told is None or told.endpoint.migration is None:
            return None
        if moved:
            self._seen[key] = told.endpoint.migration.uid
        else:
            self._seen.pop(key, None)
        return told

    def hear(self, address: Prefix, key: ResourceKey | None) -> list[EndpointUpdate]:
        """The endpoint holds the address, whatever the calculation tells; None: as it tells. Gives endpoints as they were told, to be taken
        again."""
        if self._heard.get(address) == key:
            return []
        if key is None:
            self._heard.pop(address, None)
        else:
            self._heard[address] = key
        return [told for told in self._told.values() if address in told.endpoint.shared]

"""``Switches``: what was seen of machines that move before the store says it.

In: endpoints as the calculation tells them, and who was seen to have left or to have come. Out: endpoints as they are. What was seen counts
for the one migration that it was seen in. Pure; O(1).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from tabinet.calc.messages import EndpointUpdate, Place
from tabinet.model.keys import ResourceKey

_AFTER = {Place.DEPARTING: Place.LEFT, Place.ARRIVING: Place.ARRIVED}


@dataclass(slots=True)
class Switches:
    """Of one host's endpoints."""

    _told: dict[ResourceKey, EndpointUpdate] = field(default_factory=dict)
    """Endpoints that are part of a migration, as they were told."""
    _seen: dict[ResourceKey, str] = field(default_factory=dict)
    """By endpoint: the uid of the migration whose machine changed its host."""

    def take(self, update: EndpointUpdate) -> EndpointUpdate:
        """The endpoint as it is."""
        key, migration = update.key, update.endpoint.migration
        if migration is None:
            self.forget(key)
            return update
        self._told[key] = update
        if self._seen.get(key) != migration.uid:
            self._seen.pop(key, None)
            return update
        place = _AFTER.get(migration.place, migration.place)
        moved = msgspec.structs.replace(update.endpoint, migration=msgspec.structs.replace(migration, place=place))
        return msgspec.structs.replace(update, endpoint=moved)

    def forget(self, key: ResourceKey) -> None:
        """The endpoint is not here, or moves nowhere."""
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

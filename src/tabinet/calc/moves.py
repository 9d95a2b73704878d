"""``MoveIndex``: which endpoints belong to a machine that moves, and on which of its two hosts it runs.

In: LiveMigrations that name both endpoints (as orchestrators write them), and arrivals. Out: the ``Migration`` of an endpoint, and which
endpoints to look at again when something changes. An endpoint is away while its machine runs at the other end, which has its addresses.
Of several migrations of one endpoint the smallest key counts, and one to it comes before one from it.

Pure; O(1) for a change. Migrations by selector, which have no second endpoint beforehand, are not followed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from tabinet.calc.messages import Migration, Place
from tabinet.lib.ip import Prefix
from tabinet.model.arrivals import Arrival
from tabinet.model.endpoint_names import WorkloadEndpointName
from tabinet.model.keys import ArrivalKey, ResourceKey
from tabinet.model.resources import LiveMigration, WorkloadEndpointIdentifier

AddressesOf = Callable[[str], tuple[Prefix, ...]]
"""The addresses of a host, one of each family."""


class Move(msgspec.Struct, frozen=True, gc=False):
    """A migration with both ends."""

    key: ResourceKey
    uid: str
    source: ResourceKey
    target: ResourceKey
    source_host: str
    target_host: str


def read_move(key: ResourceKey, migration: LiveMigration) -> Move | None:
    """The move that the resource describes; None when it does not name both endpoints."""
    spec = migration.spec
    source = spec.source.workload_endpoint if spec.source is not None else None
    target = spec.target.workload_endpoint if spec.target is not None else None
    if source is None or target is None:
        return None
    ends = (_endpoint_key(source), _endpoint_key(target))
    if ends[0] is None or ends[1] is None or ends[0] == ends[1]:
        return None
    return Move(key, migration.metadata.uid, ends[0], ends[1], source.hostname, target.hostname)


def _endpoint_key(end: WorkloadEndpointIdentifier) -> ResourceKey | None:
    namespace, _, workload = end.workload_id.rpartition("/")
    try:
        name = str(WorkloadEndpointName(end.hostname, end.orchestrator_id, workload, end.endpoint_id))
    except ValueError:
        return None
    return ResourceKey("WorkloadEndpoint", name, namespace) if namespace else None


def migration_of(endpoint: ResourceKey, move: Move, arrival: Arrival | None, addresses_of: AddressesOf) -> Migration:
    """What the move means for one of its ends. ``arrival``: the one of its name, of this migration or an earlier one."""
    arrived = arrival is not None and arrival.migration == move.uid
    awaited = arrival is not None and arrived and not arrival.running
    if endpoint == move.target:
        place, other, end = (Place.ARRIVED if arrived else Place.ARRIVING), move.source_host, move.source
    else:
        place, other, end = (Place.LEFT if arrived else Place.DEPARTING), move.target_host, move.target
    return Migration(place=place, key=move.key, uid=move.uid, other=other, other_end=end, addresses=addresses_of(other), awaited=awaited)


@dataclass(slots=True)
class MoveIndex:
    """All moves."""

    _moves: dict[ResourceKey, Move] = field(default_factory=dict)
    """By the LiveMigration's key."""
    _ends: dict[ResourceKey, set[ResourceKey]] = field(default_factory=dict)
    """By endpoint: the migrations that name it."""
    _arrivals: dict[ResourceKey, Arrival] = field(default_factory=dict)
    """By the LiveMigration's key."""

    def on_migration_update(self, key: ResourceKey, migration: LiveMigration | None) -> set[ResourceKey]:
        """Endpoints to look at again."""
        before = self._moves.pop(key, None)
        now = read_move(key, migration) if migration is not None else None
        concerned: set[ResourceKey] = set()
        if before is not None:
            for end in (before.source, before.target):
                concerned.add(end)
                self._ends[end].discard(key)
                if not self._ends[end]:
                    del self._ends[end]
        if now is not None:
            self._moves[key] = now
            for end in (now.source, now.target):
                concerned.add(end)
                self._ends.setdefault(end, set()).add(key)
        return concerned if before != now else set()

    def on_arrival_update(self, key: ArrivalKey, arrival: Arrival | None) -> set[ResourceKey]:
        """Endpoints to look at again."""
        migration = ResourceKey("LiveMigration", key.name, key.namespace)
        if arrival is None:
            self._arrivals.pop(migration, None)
        else:
            self._arrivals[migration] = arrival
        move = self._moves.get(migration)
        return {move.source, move.target} if move is not None else set()

    def on_host_update(self, host: str) -> set[ResourceKey]:
        """Endpoints to look at again, as the host may have other addresses. O(moves)."""
        return {end for move in self._moves.values() if host in (move.source_host, move.target_host) for end in (move.source, move.target)}

    def get(self, endpoint: ResourceKey, addresses_of: AddressesOf) -> Migration | None:
        """The migration that the endpoint is part of."""
        named = self._ends.get(endpoint)
        if not named:
            return None
        move = min((self._moves[key] for key in named), key=lambda move: (move.target != endpoint, move.key))
        return migration_of(endpoint, move, self._arrivals.get(move.key), addresses_of)

    def is_away(self, endpoint: ResourceKey) -> bool:
        """True: the machine runs at the other end."""
        found = self.get(endpoint, lambda host: ())
        return found is not None and found.is_away

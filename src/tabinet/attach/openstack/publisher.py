"""Makes what the store holds for one of Neutron's objects equal to what Neutron's database says of it, whoever else writes at the same
time.

In: a ``Subject`` (kind and identifier of the object). Out: the store agrees with the database as it was at some moment after the call
began.

Order is everything. The store is read first, the database second, and the write compares what was read first. So if two writers
overlap, the one that read the database earlier cannot overwrite the other: its comparison fails, and it reads again. A key that is
created leaves no trace that a deletion which found nothing could have met, therefore the database is read once more after a creation.

Costs: two requests to the store and one reading of the database (two after a creation) when nobody interferes.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from tabinet.attach.openstack.isolation import translate_network, translate_router
from tabinet.attach.openstack.names import Region, address_group_key, group_key, subnet_path
from tabinet.attach.openstack.planning import Document, Identity, Plan, plan_writes
from tabinet.attach.openstack.storethread import StoreThread
from tabinet.attach.openstack.translate import port_paths
from tabinet.errors import Conflict
from tabinet.model.keys import path_of
from tabinet.store.api import Datastore, GetOp, KeyValue

ATTEMPTS = 10
PORT = "port"
GROUP = "security_group"
ADDRESS_GROUP = "address_group"
SUBNET = "subnet"
ROUTER = "router"
NETWORK = "network"
KINDS = (GROUP, ADDRESS_GROUP, SUBNET, ROUTER, NETWORK, PORT)
"""In the order in which a whole is published: what a port refers to comes before it."""


class Subject(msgspec.Struct, frozen=True, order=True, gc=False):
    """One of Neutron's objects that has something in the store."""

    kind: str
    """One of ``KINDS``."""
    id: str


class Source(Protocol):
    """Neutron's database."""

    def read(self, subject: Subject) -> Mapping[str, Document | None]:
        """What the store should hold for the subject now: documents by path, None where it must hold nothing; empty when the subject is
        gone. Read in a transaction of its own."""
        ...


class Catalogue(Source, Protocol):
    """Neutron's database, in bulk as well."""

    def ids(self, kind: str) -> list[str]:
        """The identifiers of all objects of a kind."""
        ...

    def places(self, kind: str, ids: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Where the store holds these objects of a kind, as far as little effort tells; those that are gone may be left out."""
        ...

    def read_many(self, kind: str, ids: Sequence[str]) -> Mapping[str, Mapping[str, Document | None]]:
        """As ``read``, for many objects of a kind; those that are gone are left out."""
        ...


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What publishing a subject came to: paths."""

    created: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()

    @property
    def wrote(self) -> bool:
        """True: something was different."""
        return bool(self.created or self.changed or self.deleted)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(slots=True)
class Publisher:
    """Writes subjects. Any number of threads may use one."""

    region: Region
    source: Catalogue
    stores: StoreThread
    identity: Identity = field(default_factory=lambda: Identity(lambda: str(uuid.uuid4()), _now))
    _looked_at: tuple[Subject, bytes] | None = None
    """What ``mentions`` read last: of a thousand rules made at once each is asked for."""

    def publish(self, subject: Subject, places: Sequence[tuple[str, str]] = ()) -> Outcome:
        """The store agrees with the database. ``places``: (host, device) where a port is or was, so that what it left there is removed.

        Raises:
            StoreError: the store did not do it; nothing, or all of one transaction, was written.
            Conflict: others wrote all the time, or the database lags behind what the store has.
        """
        paths = list(paths_of(self.region, subject, places))
        late: tuple[str, ...] = ()
        done = Outcome()
        for _ in range(ATTEMPTS):
            stored = self._stored(paths)
            desired = self.source.read(subject)
            unknown = desired.keys() - stored.keys()
            if unknown:
                paths += sorted(unknown)
                continue
            plan = plan_writes(stored, desired, self.identity)
            late = plan.late
            if late:
                continue
            if not plan.operations:
                return done
            if not self._write(plan):
                continue
            done = Outcome(done.created + plan.created, done.changed + plan.changed, done.deleted + plan.deleted)
            if not plan.created or self.source.read(subject) == desired:
                return done
        reason = f"the store has a later state of {', '.join(late)}" if late else "changed by others all the time"
        raise Conflict(f"{subject.kind} {subject.id}: {reason}, {ATTEMPTS} attempts failed")

    def mentions(self, subject: Subject, text: str) -> bool:
        """True: what was stored for the subject, now or when it was last asked for here, has this text in it. At most one request, and no
        reading of the database. ``text`` is one that is never used again, such as the identifier of a rule: whoever stored it had seen it.

        Raises:
            StoreError: the store does not answer.
        """
        wanted = text.encode()
        before = self._looked_at
        if before is not None and before[0] == subject and wanted in before[1]:
            return True
        items = self._stored(paths_of(self.region, subject)).values()
        value = b"".join(item.value for item in items if item is not None)
        self._looked_at = (subject, value)
        return wanted in value

    def _stored(self, paths: Sequence[str]) -> dict[str, KeyValue | None]:
        if not paths:
            return {}

        async def read(store: Datastore) -> tuple[KeyValue | None, ...]:
            return (await store.txn((), [GetOp(path) for path in paths])).values

        return dict(zip(paths, self.stores.call(read), strict=True))

    def _write(self, plan: Plan) -> bool:
        async def write(store: Datastore) -> bool:
            return (await store.txn(plan.compares, plan.operations)).succeeded

        return self.stores.call(write)


def paths_of(region: Region, subject: Subject, places: Iterable[tuple[str, str]] = ()) -> list[str]:
    """Where the store may hold something for the subject."""
    match subject.kind:
        case "port":
            return port_paths(region, subject.id, list(places))
        case "security_group":
            return [path_of(group_key(region, subject.id))]
        case "address_group":
            return [path_of(address_group_key(region, subject.id))]
        case "subnet":
            return [subnet_path(region, subject.id)]
        case "network":
            return list(translate_network(subject.id, (), region))
        case "router":
            return list(translate_router(subject.id, region))
        case _:
            raise ValueError(f"{subject.kind} is no kind of subject")

"""Publishes many objects of one kind at a time: what ``Publisher`` does for one, with a reading of the database and a transaction for many.

In: identifiers, and where the store may hold something for each. Out: for each what was written, or why nothing was. The order is the
publisher's: the store, then the database, then a write that compares; and one more reading of the database after creations. Whatever does
not fit into that (an object that moved meanwhile, a transaction that lost a race) is published by itself.

Costs, for n objects: n values read, two or three bulk readings of the database, n / ``OBJECTS`` transactions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tabinet.attach.openstack.planning import Document, Plan, plan_writes
from tabinet.attach.openstack.publisher import Outcome, Publisher, Subject
from tabinet.attach.openstack.storethread import StoreThread
from tabinet.errors import StoreError
from tabinet.store.api import Compare, Datastore, GetOp, KeyValue, Op, PutOp

OBJECTS = 50
"""In a transaction: etcd takes 128 operations."""
READS = 100
MAX_BYTES = 500_000
"""In a transaction: etcd takes 1.5 MiB."""
Documents = Mapping[str, Document | None]
Result = Outcome | StoreError


@dataclass(slots=True)
class Bulk:
    """One kind of objects."""

    publisher: Publisher
    kind: str
    done: dict[str, Result] = field(default_factory=dict)

    def publish(self, paths: Mapping[str, Iterable[str]]) -> dict[str, Result]:
        """The store agrees with the database about the objects whose paths these are, but for those with an error.

        Raises:
            StoreError: the store could not be read.
        """
        stored = read_values(self.publisher.stores, [path for each in paths.values() for path in each])
        desired = self.publisher.source.read_many(self.kind, list(paths))
        plans: dict[str, Plan] = {}
        for identifier in paths:
            documents = desired.get(identifier)
            if documents is None or not documents.keys() <= stored.keys():
                continue
            plan = plan_writes({path: stored[path] for path in documents}, documents, self.publisher.identity)
            if plan.late:
                continue
            plans[identifier] = plan
            self.done[identifier] = Outcome()
        for chunk in chunks({identifier: plan for identifier, plan in plans.items() if plan.operations}):
            self._commit(chunk)
        self._look_again(plans, desired)
        for identifier in paths:
            if identifier not in self.done:
                self.done[identifier] = self._publish_alone(identifier)
        return self.done

    def _commit(self, chunk: Mapping[str, Plan]) -> None:
        """The plans were written, or none of them, and then they are nobody's."""
        compares: list[Compare] = [compare for plan in chunk.values() for compare in plan.compares]
        operations: list[Op] = [operation for plan in chunk.values() for operation in plan.operations]

        async def write(store: Datastore) -> bool:
            return (await store.txn(compares, operations)).succeeded

        if self.publisher.stores.call(write):
            self.done |= {identifier: Outcome(plan.created, plan.changed, plan.deleted) for identifier, plan in chunk.items()}
        else:
            for identifier in chunk:
                self.done.pop(identifier, None)

    def _look_again(self, plans: Mapping[str, Plan], desired: Mapping[str, Documents]) -> None:
        """What was created and should not be any more is published by itself: it will be deleted."""
        created = [identifier for identifier, plan in plans.items() if plan.created and identifier in self.done]
        now = self.publisher.source.read_many(self.kind, created) if created else {}
        for identifier in created:
            if now.get(identifier) != desired[identifier]:
                after = self._publish_alone(identifier)
                self.done[identifier] = after if isinstance(after, StoreError) else self.done[identifier]

    def _publish_alone(self, identifier: str) -> Result:
        try:
            return self.publisher.publish(Subject(self.kind, identifier))
        except StoreError as error:
            return error


def chunks(plans: Mapping[str, Plan]) -> Iterator[dict[str, Plan]]:
    """The plans in portions for one transaction each."""
    chunk: dict[str, Plan] = {}
    room, size_bytes = OBJECTS * 2, 0
    for identifier, plan in plans.items():
        length = sum(len(operation.value) for operation in plan.operations if isinstance(operation, PutOp))
        if chunk and (len(plan.operations) > room or size_bytes + length > MAX_BYTES):
            yield chunk
            chunk, room, size_bytes = {}, OBJECTS * 2, 0
        chunk[identifier] = plan
        room -= len(plan.operations)
        size_bytes += length
    if chunk:
        yield chunk


def read_values(stores: StoreThread, paths: Sequence[str]) -> dict[str, KeyValue | None]:
    """What is stored at the paths.

    Raises:
        StoreError: it could not be read.
    """
    found: dict[str, KeyValue | None] = {}
    for start in range(0, len(paths), READS):
        portion = paths[start : start + READS]

        async def read(store: Datastore, portion: Sequence[str] = portion) -> tuple[KeyValue | None, ...]:
            return (await store.txn((), [GetOp(path) for path in portion])).values

        found.update(zip(portion, stores.call(read), strict=True))
    return found

"""Publishes many objects of one kind at a time: what ``Publisher`` does for one, with a reading of the database and a transaction for many.

In: identifiers, and where the store may hold something for each. Out: for each what was written, or why nothing was. The order is the
publisher's: the store, then the database, then a write that compares; and one more reading of the database after creations. Whatever does
not fit into that (an object that moved meanwhile, a transaction that lost a race) is published by itself.

Costs, for n objects: n values read, one bulk reading of the database, or two after creations, n / ``OBJECTS`` transactions,
``AT_ONCE`` of them at a time, so that the store has them on its disk with one effort.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

import msgspec

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
_T = TypeVar("_T")
AT_ONCE = 4
"""Requests to the store."""


class Sight(msgspec.Struct, frozen=True):
    """The store, and then the database, as they were."""

    stored: Mapping[str, KeyValue | None]
    """By path."""
    desired: Mapping[str, Documents]
    """By object; those that are gone are left out."""


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
        return self.settle(self.look(paths), paths)

    def look(self, paths: Mapping[str, Iterable[str]]) -> Sight:
        """What the store has at these objects' paths, and what the database says of the objects afterwards.

        Raises:
            StoreError: the store could not be read.
        """
        stored = read_values(self.publisher.stores, [path for each in paths.values() for path in each])
        return Sight(stored, self.publisher.source.read_many(self.kind, list(paths)))

    def settle(self, sight: Sight, ids: Iterable[str]) -> dict[str, Result]:
        """The store agrees with the database about these objects, but for those with an error.

        Raises:
            StoreError: the store did not answer.
        """
        stored, desired, wanted = sight.stored, sight.desired, list(ids)
        plans: dict[str, Plan] = {}
        for identifier in wanted:
            documents = desired.get(identifier)
            if documents is None or not documents.keys() <= stored.keys():
                continue
            plan = plan_writes({path: stored[path] for path in documents}, documents, self.publisher.identity)
            if plan.late:
                continue
            plans[identifier] = plan
            self.done[identifier] = Outcome()
        self._commit(list(chunks({identifier: plan for identifier, plan in plans.items() if plan.operations})))
        self._look_again(plans, desired)
        for identifier in wanted:
            if identifier not in self.done:
                self.done[identifier] = self._publish_alone(identifier)
        return self.done

    def _commit(self, portions: Sequence[Mapping[str, Plan]]) -> None:
        """The plans of each portion were written, or none of them, and then they are nobody's."""

        def writing(portion: Mapping[str, Plan]) -> Callable[[Datastore], Coroutine[Any, Any, bool]]:
            compares: list[Compare] = [compare for plan in portion.values() for compare in plan.compares]
            operations: list[Op] = [operation for plan in portion.values() for operation in plan.operations]

            async def write(store: Datastore) -> bool:
                return (await store.txn(compares, operations)).succeeded

            return write

        for portion, succeeded in zip(portions, call_each(self.publisher.stores, map(writing, portions)), strict=True):
            for identifier, plan in portion.items():
                if succeeded:
                    self.done[identifier] = Outcome(plan.created, plan.changed, plan.deleted)
                else:
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

    def reading(portion: Sequence[str]) -> Callable[[Datastore], Coroutine[Any, Any, tuple[KeyValue | None, ...]]]:
        async def read(store: Datastore) -> tuple[KeyValue | None, ...]:
            return (await store.txn((), [GetOp(path) for path in portion])).values

        return read

    portions = [paths[start : start + READS] for start in range(0, len(paths), READS)]
    answers = call_each(stores, map(reading, portions))
    return {path: item for portion, items in zip(portions, answers, strict=True) for path, item in zip(portion, items, strict=True)}


def call_each(stores: StoreThread, works: Iterable[Callable[[Datastore], Coroutine[Any, Any, _T]]]) -> list[_T]:
    """What each work returns, ``AT_ONCE`` of them at a time.

    Raises:
        StoreError: one of them failed; those begun with it have ended, later ones have not begun.
    """
    results: list[_T] = []
    rest = iter(works)
    while portion := list(islice(rest, AT_ONCE)):

        async def together(store: Datastore, portion: Sequence[Callable[[Datastore], Coroutine[Any, Any, _T]]] = portion) -> list[_T]:
            found: list[_T] = []
            for answer in await asyncio.gather(*(work(store) for work in portion), return_exceptions=True):
                if isinstance(answer, BaseException):
                    raise answer
                found.append(answer)
            return found

        results += stores.call(together)
    return results

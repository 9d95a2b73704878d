"""Publishing against a store in memory, with a database that changes at the worst moment."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from tabinet.attach.openstack.bulk import Bulk, chunks
from tabinet.attach.openstack.names import Region
from tabinet.attach.openstack.planning import Plan
from tabinet.attach.openstack.publisher import GROUP, Outcome, Publisher, Subject, paths_of
from tabinet.attach.openstack.repairs import Repairs
from tabinet.attach.openstack.storethread import StoreThread
from tabinet.errors import Conflict, StoreUnavailable
from tabinet.model.codec import decode_document
from tabinet.store.api import Datastore, PutOp
from tabinet.store.memory import MemoryStore

REGION = Region()
SUBJECT = Subject(GROUP, "g")
[PATH] = paths_of(REGION, SUBJECT)


def document(revision: int, text: str = "") -> dict[str, Any]:
    metadata = {"name": "ossg.default.g", "namespace": "openstack", "annotations": {"openstack.tabinet/revision": str(revision)}}
    return {"kind": "NetworkPolicy", "metadata": metadata, "spec": {"text": text or str(revision)}}


@dataclass
class Database:
    """What Neutron knows; ``meanwhile`` happens after the next readings, one for each."""

    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    meanwhile: list[Callable[[], None]] = field(default_factory=list)
    readings: int = 0

    def ids(self, kind: str) -> list[str]:
        return ["g"]

    def places(self, kind: str, ids: Sequence[str]) -> dict[str, list[str]]:
        return {each: paths_of(REGION, Subject(kind, each)) for each in ids}

    def read_many(self, kind: str, ids: Sequence[str]) -> dict[str, Mapping[str, dict[str, Any]]]:
        return {identifier: self.read(Subject(kind, identifier)) for identifier in ids}

    def read(self, subject: Subject) -> Mapping[str, dict[str, Any]]:
        self.readings += 1
        now = dict(self.documents)
        if self.meanwhile:
            self.meanwhile.pop(0)()
        return now


@pytest.fixture
def stores() -> Iterator[StoreThread]:
    async def open_memory() -> Datastore:
        return MemoryStore()

    thread = StoreThread(open_memory)
    thread.start()
    yield thread
    thread.close()


@pytest.fixture
def database() -> Database:
    return Database({PATH: document(1)})


@pytest.fixture
def publisher(stores: StoreThread, database: Database) -> Publisher:
    return Publisher(REGION, database, stores)


def stored(stores: StoreThread) -> dict[str, Any] | None:
    item = stores.call(lambda store: store.get(PATH))
    return None if item is None else decode_document(item.value)


def test_created_changed_left_alone_deleted(publisher: Publisher, database: Database, stores: StoreThread) -> None:
    assert publisher.publish(SUBJECT).created == (PATH,)
    first = stored(stores)
    assert first is not None
    assert not publisher.publish(SUBJECT).wrote
    database.documents[PATH] = document(2)
    assert publisher.publish(SUBJECT).changed == (PATH,)
    second = stored(stores)
    assert second is not None
    assert second["metadata"]["uid"] == first["metadata"]["uid"]
    assert second["spec"] == {"text": "2"}
    database.documents.clear()
    assert publisher.publish(SUBJECT).deleted == (PATH,)
    assert stored(stores) is None
    assert not publisher.publish(SUBJECT).wrote


def test_only_the_revision_is_no_reason_to_write(publisher: Publisher, database: Database) -> None:
    database.documents[PATH] = document(1, "same")
    publisher.publish(SUBJECT)
    database.documents[PATH] = document(5, "same")
    assert not publisher.publish(SUBJECT).wrote


def test_a_writer_that_read_earlier_and_writes_later_reads_again(publisher: Publisher, database: Database, stores: StoreThread) -> None:
    publisher.publish(SUBJECT)
    other = Publisher(REGION, Database({PATH: document(3)}), stores)

    def overtaken() -> None:
        database.documents[PATH] = document(3)
        other.publish(SUBJECT)

    database.documents[PATH] = document(2)
    database.meanwhile = [overtaken]
    publisher.publish(SUBJECT)
    assert (stored(stores) or {})["spec"] == {"text": "3"}


def test_deleted_between_reading_and_writing(publisher: Publisher, database: Database, stores: StoreThread) -> None:
    def deleted() -> None:
        database.documents.clear()
        assert not Publisher(REGION, Database(), stores).publish(SUBJECT).wrote  # it finds nothing that it could delete

    database.meanwhile = [deleted]
    outcome = publisher.publish(SUBJECT)
    assert stored(stores) is None
    assert (outcome.created, outcome.deleted) == ((PATH,), (PATH,))


def test_a_database_that_lags_behind_changes_nothing(publisher: Publisher, database: Database, stores: StoreThread) -> None:
    database.documents[PATH] = document(9)
    publisher.publish(SUBJECT)
    database.documents[PATH] = document(8)
    with pytest.raises(Conflict, match="a later state"):
        publisher.publish(SUBJECT)
    assert (stored(stores) or {})["spec"] == {"text": "9"}


def test_what_is_no_document_is_replaced(publisher: Publisher, stores: StoreThread) -> None:
    stores.call(lambda store: store.txn((), (PutOp(PATH, b"\xff"),)))
    assert publisher.publish(SUBJECT).changed == (PATH,)


def bulk(publisher: Publisher) -> Any:
    return Bulk(publisher, GROUP).publish({"g": [PATH]})["g"]


def test_many_at_once_are_published_as_one(publisher: Publisher, database: Database, stores: StoreThread) -> None:
    assert bulk(publisher).created == (PATH,)
    assert bulk(publisher) == Outcome()
    database.documents[PATH] = document(2)
    assert bulk(publisher).changed == (PATH,)
    database.documents[PATH] = None  # type: ignore[assignment]  # it must not be there
    assert bulk(publisher).deleted == (PATH,)
    assert stored(stores) is None


def test_in_bulk_a_writer_that_is_overtaken_reads_again(publisher: Publisher, database: Database, stores: StoreThread) -> None:
    publisher.publish(SUBJECT)

    def overtaken() -> None:
        database.documents[PATH] = document(3)
        Publisher(REGION, Database({PATH: document(3)}), stores).publish(SUBJECT)

    database.documents[PATH] = document(2)
    database.meanwhile = [overtaken]
    assert not bulk(publisher).wrote
    assert (stored(stores) or {})["spec"] == {"text": "3"}


def test_in_bulk_what_is_deleted_meanwhile_does_not_stay(publisher: Publisher, database: Database, stores: StoreThread) -> None:
    database.meanwhile = [database.documents.clear]
    bulk(publisher)
    assert stored(stores) is None


def test_in_bulk_a_lagging_database_is_an_error_of_its_object(publisher: Publisher, database: Database) -> None:
    database.documents[PATH] = document(9)
    publisher.publish(SUBJECT)
    database.documents[PATH] = document(8)
    assert isinstance(bulk(publisher), Conflict)


def test_transactions_stay_within_what_etcd_takes() -> None:
    plans = {str(number): Plan((), (PutOp(str(number), b"x" * 20_000), PutOp(f"{number}b", b""))) for number in range(200)}
    portions = list(chunks(plans))
    assert [identifier for portion in portions for identifier in portion] == list(plans)
    for portion in portions:
        operations = [operation for plan in portion.values() for operation in plan.operations]
        assert len(operations) <= 100
        assert sum(len(operation.value) for operation in operations if isinstance(operation, PutOp)) <= 500_000


def test_a_store_that_is_away_is_not_waited_for_twice_and_caught_up_with(publisher: Publisher, database: Database) -> None:
    told: list[str] = []
    away = [True]
    now = [0.0]
    done = threading.Event()

    class Away:
        """A publisher whose store can be away."""

        asked = 0

        def publish(self, subject: Subject, places: Any = ()) -> Any:
            self.asked += 1
            if away[0]:
                raise StoreUnavailable("gone")
            return publisher.publish(subject, places)

    source = Away()
    repairs = Repairs(
        source,  # type: ignore[arg-type]  # as far as Repairs uses one
        lambda event, subject, reason: told.append(reason),
        lambda subject, outcome: done.set(),
        clock=lambda: now[0],
    )
    assert not repairs.publish_or_repair(SUBJECT)
    assert not repairs.publish_or_repair(SUBJECT)
    assert source.asked == 1
    assert repairs.pending == 1
    away[0] = False
    thread = threading.Thread(target=repairs.run)
    thread.start()
    assert done.wait(10)
    repairs.stop()
    thread.join(10)
    assert repairs.pending == 0
    assert told == ["gone"]
    now[0] = 10.0
    assert repairs.publish_or_repair(SUBJECT)


def test_a_database_that_fails_is_tried_again_and_the_caller_spared(publisher: Publisher, database: Database) -> None:
    def locked() -> None:
        raise RuntimeError("locked")

    told: list[str] = []
    done = threading.Event()
    database.meanwhile = [locked]
    repairs = Repairs(publisher, lambda event, subject, reason: told.append(reason), lambda subject, outcome: done.set())
    assert not repairs.publish_or_repair(SUBJECT)
    thread = threading.Thread(target=repairs.run)
    thread.start()
    assert done.wait(10)
    repairs.stop()
    thread.join(10)
    assert told == ["RuntimeError: locked"]


def test_what_is_mentioned_needs_no_publishing(publisher: Publisher, database: Database, stores: StoreThread) -> None:
    repairs = Repairs(publisher, lambda event, subject, reason: None)
    repairs.publish_unless_mentioned(SUBJECT, "rule-1")
    readings = database.readings
    assert readings
    repairs.publish_unless_mentioned(SUBJECT, "ossg.default.g")
    assert database.readings == readings

    async def away(store: Datastore) -> None:
        assert isinstance(store, MemoryStore)
        store.set_available(False)

    stores.call(away)
    repairs.publish_unless_mentioned(SUBJECT, "ossg.default.g")
    assert not repairs.pending, "what was read for one of many rules made at once does for the others"


def test_calls_have_time_limits(stores: StoreThread) -> None:
    async def never(store: Datastore) -> None:
        await asyncio.Event().wait()

    with pytest.raises(StoreUnavailable, match="within"):
        stores.call(never, timeout_s=0.01)

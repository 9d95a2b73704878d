"""ResourceClient: what Calico's clients promise about documents, over memory and, for the bulk, etcd."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from etcd_process import EtcdProcess

from tabinet.errors import AlreadyExists, Conflict, DataError, InputError, NotFound
from tabinet.model.keys import ResourceKey
from tabinet.store.api import Compare, Op, PutOp, TxnResult
from tabinet.store.client import ATTEMPTS, ResourceClient, key_of
from tabinet.store.etcd.store import open_etcd
from tabinet.store.memory import MemoryStore

TIER_PATH = "/calico/resources/v3/projectcalico.org/tiers/t"
NOW = datetime(2026, 3, 1, 12, 30, 15, 999, tzinfo=timezone(timedelta(hours=2)))


def tier(name: str = "t", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "projectcalico.org/v3", "kind": "Tier", "metadata": {"name": name}, "spec": {"order": 1, **spec}}


def client_of(store: Any) -> ResourceClient:
    numbers = itertools.count(1)
    return ResourceClient(store, now=lambda: NOW, new_uid=lambda: f"uid-{next(numbers)}")


async def stored(store: MemoryStore, path: str = TIER_PATH) -> Any:
    item = await store.get(path)
    assert item is not None
    return msgspec.json.decode(item.value)


async def test_create_gives_identity_and_stores_no_version() -> None:
    store = MemoryStore()
    document = tier(unknown={"deep": [1, None, "ü"]})
    document["metadata"]["annotations"] = {"a": "b"}
    created = await client_of(store).create(document)
    metadata = {"name": "t", "annotations": {"a": "b"}, "uid": "uid-1", "creationTimestamp": "2026-03-01T10:30:15Z"}
    assert created["metadata"] == {**metadata, "resourceVersion": str(store.revision)}
    assert await stored(store) == {**document, "metadata": metadata}
    assert await client_of(store).get(ResourceKey("Tier", "t")) == created
    assert "uid" not in document["metadata"], "the caller's document is left alone"


async def test_create_refuses_what_exists_and_what_has_a_version() -> None:
    store = MemoryStore()
    client = client_of(store)
    created = await client.create(tier())
    with pytest.raises(AlreadyExists, match="Tier/t exists"):
        await client.create(tier(order=2))
    with pytest.raises(InputError, match=r"metadata\.resourceVersion"):
        await client.create(created)
    assert (await stored(store))["spec"] == {"order": 1}


async def test_update_needs_the_version_that_is_stored() -> None:
    store = MemoryStore()
    client = client_of(store)
    with pytest.raises(NotFound):
        await client.update({**tier(), "metadata": {"name": "t", "resourceVersion": "5"}})
    first = await client.create(tier())
    with pytest.raises(InputError, match="resourceVersion"):
        await client.update(tier(order=2))
    second = await client.update({**first, "spec": {"order": 2, "new": True}})
    assert second["metadata"]["uid"] == "uid-1"
    assert int(second["metadata"]["resourceVersion"]) == store.revision
    with pytest.raises(Conflict, match=f"is {store.revision}, not {first['metadata']['resourceVersion']}"):
        await client.update({**first, "spec": {"order": 3}})
    assert (await stored(store))["spec"] == {"order": 2, "new": True}
    forged = {**second, "metadata": {**second["metadata"], "uid": "other", "creationTimestamp": "1970-01-01T00:00:00Z"}}
    third = await client.update(forged)
    assert third["metadata"]["uid"] == "uid-1"
    assert third["metadata"]["creationTimestamp"] == "2026-03-01T10:30:15Z"


async def test_apply_creates_configures_and_leaves_alone() -> None:
    store = MemoryStore()
    client = client_of(store)
    first, outcome = await client.apply(tier())
    assert outcome == "created"
    revision = store.revision
    again, outcome = await client.apply({**tier(), "metadata": {"name": "t", "resourceVersion": "1", "uid": "whatever"}})
    assert (outcome, again, store.revision) == ("unchanged", first, revision)
    changed, outcome = await client.apply(tier(order=7))
    assert outcome == "configured"
    assert changed["metadata"] == {**first["metadata"], "resourceVersion": str(revision + 1)}
    assert (await stored(store))["spec"] == {"order": 7}


async def test_apply_of_what_calico_wrote_in_other_words_is_unchanged() -> None:
    store = MemoryStore()
    written = b'{"spec": {"order": 1},\n "metadata": {"uid": "theirs", "creationTimestamp": "2020-01-01T00:00:00Z", "name": "t"},'
    await store.txn([], [PutOp(TIER_PATH, written + b'"kind": "Tier", "apiVersion": "projectcalico.org/v3"}')])
    document, outcome = await client_of(store).apply(tier())
    assert (outcome, document["metadata"]["uid"]) == ("unchanged", "theirs")


@pytest.mark.parametrize("broken", [b"", b"{", b"[1]", b'{"metadata": 3}', b"\xff\xfe", b'{"metadata": null, "kind": "Tier"}'])
async def test_what_is_broken_in_the_store_is_reported_and_can_be_repaired(broken: bytes) -> None:
    store = MemoryStore()
    client = client_of(store)
    await client.create(tier("sound"))
    await store.txn([], [PutOp(TIER_PATH, broken)])
    with pytest.raises(DataError):
        await client.get(ResourceKey("Tier", "t"))
    with pytest.raises(DataError):
        await client.list("Tier")
    reported: list[DataError] = []
    assert [document["metadata"]["name"] for document in await client.list("Tier", on_broken=reported.append)] == ["sound"]
    assert [error.key for error in reported] == [TIER_PATH]
    _, outcome = await client.apply(tier())
    assert outcome == "configured"
    assert (await client.get(ResourceKey("Tier", "t")))["spec"] == {"order": 1}
    await store.txn([], [PutOp(TIER_PATH, broken)])
    assert await client.delete(ResourceKey("Tier", "t")) == {}


async def test_delete() -> None:
    store = MemoryStore()
    client = client_of(store)
    key = ResourceKey("Tier", "t")
    with pytest.raises(NotFound, match="Tier/t"):
        await client.delete(key)
    with pytest.raises(NotFound):
        await client.delete(key, "7")
    first = await client.create(tier())
    second, _ = await client.apply(tier(order=2))
    with pytest.raises(Conflict):
        await client.delete(key, first["metadata"]["resourceVersion"])
    with pytest.raises(InputError):
        await client.delete(key, "latest")
    assert await client.delete(key, second["metadata"]["resourceVersion"]) == second
    with pytest.raises(NotFound):
        await client.get(key)


async def test_namespaces() -> None:
    store = MemoryStore()
    client = client_of(store)
    policy = {"kind": "NetworkPolicy", "apiVersion": "projectcalico.org/v3", "metadata": {"name": "p"}, "spec": {}}
    created = await client.create(policy)
    assert created["metadata"]["namespace"] == "default"
    await client.create({**policy, "metadata": {"name": "p", "namespace": "default-2"}})
    assert [document["metadata"]["namespace"] for document in await client.list("NetworkPolicy")] == ["default", "default-2"]
    assert [document["metadata"]["namespace"] for document in await client.list("NetworkPolicy", "default")] == ["default"]
    with pytest.raises(InputError, match="namespace"):
        await client.list("Tier", "default")
    with pytest.raises(InputError, match="kind"):
        await client.list("Teir")


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({}, "kind: got nothing"),
        ({"kind": "Teir"}, "kind: got 'Teir'; must be one of BGPConfiguration"),
        ({"kind": "Tier"}, r"metadata\.name: got nothing"),
        ({"kind": "Tier", "metadata": []}, r"metadata\.name"),
        ({"kind": "Tier", "metadata": {"name": 7}}, r"metadata\.name: got 7"),
        ({"kind": "Tier", "metadata": {"name": "a/b"}}, "cannot be part of a path"),
        ({"kind": "Tier", "metadata": {"name": "a", "namespace": "b"}}, "namespace"),
    ],
)
def test_what_is_no_resource_is_refused(document: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        key_of(document)


class Meddler:
    """A store in which somebody else writes between a client's read and its write, ``times`` times."""

    def __init__(self, store: MemoryStore, times: int) -> None:
        self.store = store
        self.times = times

    async def txn(self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()) -> TxnResult:
        if compares and self.times:
            self.times -= 1
            await self.store.txn([], [PutOp(TIER_PATH, msgspec.json.encode(tier(order=100 + self.times)))])
        return await self.store.txn(compares, then, otherwise)


async def test_apply_tries_again_when_others_write() -> None:
    store = MemoryStore()
    _, outcome = await client_of(Meddler(store, 3)).apply(tier(order=5))
    assert outcome == "configured"
    assert (await stored(store))["spec"] == {"order": 5}
    with pytest.raises(Conflict, match="Tier/t"):
        await client_of(Meddler(store, ATTEMPTS)).apply(tier(order=6))


async def test_apply_many_says_what_it_did_in_order() -> None:
    store = MemoryStore()
    client = client_of(store)
    await client.create(tier("b"))
    await client.create(tier("c"))
    outcomes = await client.apply_many([tier("c"), tier("a"), tier("b", order=2)])
    assert outcomes == [("Tier/c", "unchanged"), ("Tier/a", "created"), ("Tier/b", "configured")]
    assert await client.apply_many([]) == []


async def test_apply_many_applies_nothing_when_anything_is_wrong() -> None:
    store = MemoryStore()
    with pytest.raises(InputError) as caught:
        await client_of(store).apply_many([tier("a"), {"kind": "Teir"}, tier("a"), tier("b")])
    assert [(problem.document, problem.path) for problem in caught.value.problems] == [(2, "kind"), (3, "")]
    assert store.revision == 1


async def test_apply_many_of_big_documents_keeps_below_what_etcd_takes(etcd: EtcdProcess) -> None:
    store = await open_etcd([etcd.endpoint])
    documents = [tier(f"big-{number}", note="x" * 200_000) for number in range(12)]
    assert {outcome for _, outcome in await client_of(store).apply_many(documents)} == {"created"}
    for document in documents:
        await client_of(store).delete(key_of(document))
    await store.close()


async def test_apply_many_of_hundreds(etcd: EtcdProcess) -> None:
    store = await open_etcd([etcd.endpoint])
    client = ResourceClient(store)
    documents = [tier(f"many-{number:04}") for number in range(400)]
    before = (await store.txn([], [])).revision
    assert {outcome for _, outcome in await client.apply_many(documents)} == {"created"}
    assert (await store.txn([], [])).revision == before + 4, "transactions of a hundred"
    listed = await client.list("Tier")
    assert [document["metadata"]["name"] for document in listed] == [document["metadata"]["name"] for document in documents]
    assert len({document["metadata"]["uid"] for document in listed}) == 400
    assert {outcome for _, outcome in await client.apply_many(listed)} == {"unchanged"}
    for document in listed:
        await client.delete(key_of(document))
    await store.close()

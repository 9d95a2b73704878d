"""follow, change, replace and a bulk apply that is cut off: over memory, with stores that fail on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import pytest

from tabinet.errors import Conflict, DataError, InputError, NotFound, StoreUnavailable
from tabinet.model.keys import ResourceKey
from tabinet.store.api import Compare, DeleteOp, Op, PutOp, TxnResult, WatchBatch
from tabinet.store.client import CHUNK, ResourceClient
from tabinet.store.following import Change, follow
from tabinet.store.memory import MemoryStore

TIER = ResourceKey("Tier", "t")
TIERS = "/calico/resources/v3/projectcalico.org/tiers/"


def tier(name: str = "t", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "projectcalico.org/v3", "kind": "Tier", "metadata": {"name": name}, "spec": spec}


class Followed:
    """A ``follow`` whose changes are read one by one."""

    def __init__(self, store: Any, *wanted: tuple[str, str | None]) -> None:
        self.broken: list[DataError] = []
        self.lost: list[StoreUnavailable] = []
        self.changes = follow(store, wanted, on_broken=self.broken.append, on_lost=self.lost.append)

    async def next(self) -> tuple[str, str]:
        change: Change = await asyncio.wait_for(anext(self.changes), 10)
        return change.event, str(change.key)


async def test_what_is_there_then_what_changes() -> None:
    store = MemoryStore()
    client = ResourceClient(store)
    await client.apply_many([tier("b"), tier("a")])
    followed = Followed(store, ("Tier", None), ("NetworkPolicy", "red"), ("BlockAffinity", None))
    async with aclosing(followed.changes):
        assert [await followed.next(), await followed.next()] == [("ADDED", "Tier/a"), ("ADDED", "Tier/b")]
        await client.apply(tier("a", order=2))
        assert await followed.next() == ("MODIFIED", "Tier/a")
        policy = {"kind": "NetworkPolicy", "metadata": {"name": "p", "namespace": "blue"}, "spec": {}}
        await client.apply(policy)  # of another namespace
        await client.apply({**policy, "metadata": {"name": "p", "namespace": "red"}})
        assert await followed.next() == ("ADDED", "NetworkPolicy/red/p")
        await store.txn([], [PutOp("/calico/ipam/v2/host/h/ipv4/block/10.0.0.0-26", b'{"state":"confirmed"}')])
        assert await followed.next() == ("ADDED", "BlockAffinity/h-10-0-0-0-26")
        await store.txn([], [PutOp(f"{TIERS}a", b"broken")])
        assert await followed.next() == ("DELETED", "Tier/a")
        assert [error.key for error in followed.broken] == [f"{TIERS}a"]
        await store.txn([], [DeleteOp(f"{TIERS}a"), DeleteOp(f"{TIERS}b")])
        assert await followed.next() == ("DELETED", "Tier/b")


class Forgetful(MemoryStore):
    """Its first watch ends at once."""

    def __init__(self, failure: Exception) -> None:
        super().__init__()
        self.failures = [failure]

    async def watch(self, prefix: str, after_revision: int) -> AsyncGenerator[WatchBatch, None]:
        if self.failures:
            await ResourceClient(self).apply_many([tier("new"), tier("changed", order=5)])
            await ResourceClient(self).delete(ResourceKey("Tier", "gone"))
            raise self.failures.pop()
        async with aclosing(super().watch(prefix, after_revision)) as batches:
            async for batch in batches:
                yield batch


async def test_the_difference_is_told_when_the_store_was_away() -> None:
    store = Forgetful(StoreUnavailable("away"))
    await ResourceClient(store).apply_many([tier("changed"), tier("gone"), tier("same")])
    followed = Followed(store, ("Tier", None))
    async with aclosing(followed.changes):
        assert {await followed.next() for _ in range(3)} == {("ADDED", f"Tier/{name}") for name in ("changed", "gone", "same")}
        assert [await followed.next() for _ in range(3)] == [("MODIFIED", "Tier/changed"), ("ADDED", "Tier/new"), ("DELETED", "Tier/gone")]
        assert [str(error) for error in followed.lost] == ["away"]


async def test_change_reads_again_when_somebody_else_wrote() -> None:
    store = MemoryStore()
    client = ResourceClient(store)
    await client.create(tier(order=1))
    seen: list[int] = []

    def edit(document: dict[str, Any]) -> dict[str, Any]:
        seen.append(document["spec"]["order"])
        return {**document, "spec": {"order": document["spec"]["order"] + 1}}

    async def txn(compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()) -> TxnResult:
        if len(seen) == 1:
            await client.apply(tier(order=10))
        return await store.txn(compares, then, otherwise)

    racing = ResourceClient(_With(store, txn))
    changed, outcome = await racing.change(TIER, edit)
    assert (changed["spec"], outcome, seen) == ({"order": 11}, "configured", [1, 10])
    again, outcome = await client.change(TIER, lambda document: document)
    assert (again["metadata"]["resourceVersion"], outcome) == (changed["metadata"]["resourceVersion"], "unchanged")
    with pytest.raises(NotFound):
        await client.change(ResourceKey("Tier", "none"), lambda document: document)


class _With:
    """A store whose transactions go another way."""

    def __init__(self, store: MemoryStore, txn: Any) -> None:
        self.get = store.get
        self.list = store.list
        self.txn = txn


async def test_replace() -> None:
    store = MemoryStore()
    client = ResourceClient(store)
    with pytest.raises(NotFound):
        await client.replace(tier())
    first = await client.create(tier(order=1))
    second = await client.replace(tier(order=2))
    assert second["metadata"]["uid"] == first["metadata"]["uid"]
    with pytest.raises(Conflict):
        await client.replace({**first, "spec": {"order": 3}})
    assert (await client.get(TIER))["spec"] == {"order": 2}
    with pytest.raises(InputError):
        await client.replace({"kind": "Tier", "metadata": {}})


async def test_a_bulk_apply_that_is_cut_off_says_what_is_stored() -> None:
    store = MemoryStore()
    writes = 0

    async def txn(compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()) -> TxnResult:
        nonlocal writes
        if compares:
            writes += 1
            if writes == 3:
                raise StoreUnavailable("away")
        await asyncio.sleep(0)
        return await store.txn(compares, then, otherwise)

    documents = [tier(f"t{number:04}") for number in range(20 * CHUNK)]
    told: dict[int, str] = {}
    with pytest.raises(StoreUnavailable):
        await ResourceClient(_With(store, txn)).apply_many(documents, on_done=told.__setitem__)
    stored = {document["metadata"]["name"] for document in await ResourceClient(store).list("Tier")}
    assert {documents[index]["metadata"]["name"] for index in told} == stored
    assert 0 < len(stored) < len(documents)
    assert set(told.values()) == {"created"}

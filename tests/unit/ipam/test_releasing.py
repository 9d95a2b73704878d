"""Releases at the same time go together, and nobody's fate depends on who goes along."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from tabinet.errors import AddressError, StoreUnavailable
from tabinet.ipam.client import IpamClient
from tabinet.ipam.plan import AssignRequest
from tabinet.ipam.settings import CONFIG_KEY
from tabinet.model.keys import ResourceKey, path_of
from tabinet.store.api import Compare, Op, PutOp, TxnResult
from tabinet.store.memory import MemoryStore

HANDLES = [f"h-{index}" for index in range(40)]


@dataclass(slots=True)
class CountingStore:
    """Counts transactions; lets others run before each, as a network would; fails when told to."""

    inner: MemoryStore = field(default_factory=MemoryStore)
    writes: int = 0
    reads: int = 0
    broken: bool = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def txn(self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()) -> TxnResult:
        await asyncio.sleep(0)
        if self.broken:
            raise StoreUnavailable("away")
        self.writes += bool(compares)
        self.reads += not compares
        return await self.inner.txn(compares, then, otherwise)


@pytest.fixture
async def store() -> CountingStore:
    made = CountingStore()
    for name, cidr in (("four", "10.65.0.0/24"), ("six", "fd00:65::/64")):
        document = {"kind": "IPPool", "apiVersion": "projectcalico.org/v3", "metadata": {"name": name}, "spec": {"cidr": cidr}}
        await made.txn([], [PutOp(path_of(ResourceKey("IPPool", name)), msgspec.json.encode(document))])
    return made


async def assigned(client: IpamClient) -> int:
    return sum(pool.assigned for pool in await client.usage())


async def fill(client: IpamClient) -> dict[str, set[str]]:
    """Each handle has an address of each family."""
    results = await asyncio.gather(*(client.assign(AssignRequest(host="h", handle=name, count4=1, count6=1)) for name in HANDLES))
    return {name: {str(address) for address in result.addresses} for name, result in zip(HANDLES, results, strict=True)}


async def test_many_at_once_take_few_transactions_and_each_is_told_its_own(store: CountingStore) -> None:
    client = IpamClient(store)
    owned = await fill(client)
    store.writes = 0
    freed = await asyncio.gather(*(client.release_handle(name) for name in [*HANDLES, "unknown", HANDLES[0]]))
    assert store.writes <= 4
    told = dict(zip(HANDLES, freed, strict=False))
    assert {name: {str(address) for address in addresses} for name, addresses in told.items()} == owned
    assert freed[-2] == ()
    assert await assigned(client) == 0
    assert await client.check() == ()


async def test_who_goes_away_takes_nobody_along(store: CountingStore) -> None:
    client = IpamClient(store)
    await fill(client)
    tasks = [asyncio.create_task(client.release_handle(name)) for name in HANDLES]
    for turns, task in enumerate(tasks[::3]):
        for _ in range(turns % 3):
            await asyncio.sleep(0)
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert all(not task.cancelled() for index, task in enumerate(tasks) if index % 3)
    for name in HANDLES:
        await client.release_handle(name)
    assert await assigned(client) == 0
    assert await client.check() == ()


async def test_a_store_that_is_away_fails_all_that_wait_and_later_calls_succeed(store: CountingStore) -> None:
    client = IpamClient(store)
    await fill(client)
    store.broken = True
    outcomes = await asyncio.gather(*(client.release_handle(name) for name in HANDLES), return_exceptions=True)
    assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes)
    store.broken = False
    await asyncio.gather(*(client.release_handle(name) for name in HANDLES))
    assert await assigned(client) == 0


async def test_what_another_client_assigned_in_a_known_block_is_freed_too(store: CountingStore) -> None:
    ours, theirs = IpamClient(store), IpamClient(store)
    await ours.assign(AssignRequest(host="h", handle="a", count4=1))
    await theirs.assign(AssignRequest(host="h", handle="b", count4=1))
    await theirs.assign(AssignRequest(host="h", handle="c", count4=1))
    assert len(await ours.release_handle("b")) == 1
    assert await ours.owned("b") == ()
    assert len(await ours.owned("a")) == len(await ours.owned("c")) == 1
    assert await assigned(ours) == 2
    assert await ours.check() == ()


async def test_what_was_assigned_here_is_released_without_reading(store: CountingStore) -> None:
    client = IpamClient(store)
    await client.assign(AssignRequest(host="h", handle="a", count4=1, count6=1))
    store.reads = store.writes = 0
    assert len(await client.release_handle("a")) == 2
    assert (store.reads, store.writes) == (0, 1)
    assert await assigned(client) == 0
    assert await client.check() == ()


async def test_a_cooldown_that_came_meanwhile_holds(store: CountingStore) -> None:
    client = IpamClient(store)
    given = await client.assign(AssignRequest(host="h", handle="a", count4=1))
    await store.txn([], [PutOp(CONFIG_KEY, b'{"autoAllocateBlocks":true,"ipCooldownSeconds":600}')])
    assert await client.release_handle("a") == given.addresses
    with pytest.raises(AddressError, match="rest"):
        await client.assign_address(given.addresses[0], AssignRequest(host="h", handle="b"))


async def test_more_that_another_client_assigned_to_the_handle_is_freed_too(store: CountingStore) -> None:
    ours, theirs = IpamClient(store), IpamClient(store)
    await ours.assign(AssignRequest(host="h", handle="a", count4=1))
    await theirs.assign(AssignRequest(host="h", handle="a", count4=2))
    assert len(await ours.release_handle("a")) == 2
    assert await assigned(ours) == 0
    assert await ours.check() == ()

"""Who leads, against a store in memory."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

import pytest

from tabinet.attach.openstack.leader import lead
from tabinet.store.api import PutOp
from tabinet.store.memory import MemoryStore

PATH = "/calico/openstack/v2/no-region/neutron_election"
WITHIN_S = 10.0


class Candidate:
    """One process that takes part."""

    def __init__(self, store: MemoryStore, name: str) -> None:
        self.leads = False
        self.terms = 0
        self.task = asyncio.create_task(lead(store, PATH, name, 3, self._duty, retry_s=0.01))

    async def _duty(self) -> None:
        self.leads = True
        self.terms += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.leads = False

    async def end(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    made = MemoryStore()
    yield made
    await made.close()


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)


async def test_one_leads_and_another_takes_over(store: MemoryStore) -> None:
    first = Candidate(store, "a:1")
    await until(lambda: first.leads)
    second = Candidate(store, "b:2")
    item = await store.get(PATH)
    assert item is not None
    assert item.value == b"a:1"
    assert not second.leads
    await first.end()
    assert not first.leads
    await until(lambda: second.leads)
    await second.end()
    assert await store.get(PATH) is None


async def test_a_leader_whose_lease_has_ended_leads_no_longer(store: MemoryStore) -> None:
    leader = Candidate(store, "a:1")
    await until(lambda: leader.leads)
    store.expire_leases()
    await until(lambda: leader.terms == 2 and leader.leads)
    await leader.end()


async def test_a_key_that_somebody_took_is_not_held_any_more(store: MemoryStore) -> None:
    leader = Candidate(store, "a:1")
    await until(lambda: leader.leads)
    await store.txn((), [PutOp(PATH, b"somebody")])
    await until(lambda: not leader.leads)
    await leader.end()
    item = await store.get(PATH)
    assert item is not None
    assert item.value == b"somebody"


async def test_a_store_that_is_away_ends_the_leadership_when_the_lease_is_over(store: MemoryStore) -> None:
    leader = Candidate(store, "a:1")
    await until(lambda: leader.leads)
    store.set_available(False)
    await until(lambda: not leader.leads)
    store.set_available(True)
    store.expire_leases()
    await until(lambda: leader.leads)
    await leader.end()

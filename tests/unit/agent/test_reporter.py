"""The reporter against a store that fails, forgets leases and is emptied; and two reporters for one host."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec
import pytest
from agent_world import until

from tabinet.agent import reporter as reporter_module
from tabinet.agent.reporter import Reporter
from tabinet.model.report import HostReport
from tabinet.store.api import DeleteOp, PutOp
from tabinet.store.memory import MemoryStore

PREFIX = "/statuses/"


def said(kernel: str, revision: int = 1) -> HostReport:
    return HostReport("h", "1", "now", revision, True, endpoints_ready=0, endpoints_waiting=0, kernel=kernel)


def make(store: MemoryStore, name: str = "one", interval_s: float = 0.05) -> Reporter:
    return Reporter(store, PREFIX, "/alive", "/last", "/report", interval_s, 60.0, name.encode)


@contextlib.asynccontextmanager
async def running(reporter: Reporter) -> AsyncIterator[Reporter]:
    task = asyncio.create_task(reporter.run())
    try:
        yield reporter
        assert not task.done(), task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def held(store: MemoryStore) -> dict[str, bytes]:
    return {key: item.value for key, item in store._items.items()}


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    monkeypatch.setattr(reporter_module, "RETRY_S", 0.02)
    return MemoryStore()


async def test_statuses_and_signs_of_life_are_written_and_only_the_signs_of_life_end_with_the_lease(store: MemoryStore) -> None:
    async with running(make(store)) as reporter:
        reporter.set_endpoint(PREFIX + "a", b"up")
        reporter.set_report(said("hello"))
        await until(lambda: held(store).get("/report") == msgspec.json.encode(said("hello")))
        await until(lambda: held(store).get(PREFIX + "a") == b"up")
    store.expire_leases()
    assert held(store) == {PREFIX + "a": b"up", "/last": b"one"}


async def test_what_an_earlier_agent_left_stays_until_the_endpoints_are_known(store: MemoryStore) -> None:
    await store.txn((), (PutOp(PREFIX + "kept", b"up"), PutOp(PREFIX + "gone", b"up")))
    before = store._items[PREFIX + "kept"].revision
    async with running(make(store)) as reporter:
        reporter.set_endpoint(PREFIX + "new", b"up")
        await until(lambda: PREFIX + "new" in held(store))
        assert {PREFIX + "kept", PREFIX + "gone"} <= held(store).keys()
        reporter.set_endpoint(PREFIX + "kept", b"up")
        reporter.begin()
        await until(lambda: PREFIX + "gone" not in held(store))
    assert store._items[PREFIX + "kept"].revision == before  # equal: not written again


async def test_a_store_that_was_away_gets_the_newest(store: MemoryStore) -> None:
    async with running(make(store)) as reporter:
        reporter.begin()
        reporter.set_endpoint(PREFIX + "a", b"up")
        reporter.set_endpoint(PREFIX + "b", b"up")
        await until(lambda: PREFIX + "b" in held(store))
        store.set_available(False)
        reporter.set_endpoint(PREFIX + "a", b"down")
        reporter.drop_endpoint(PREFIX + "b")
        await asyncio.sleep(0.1)
        store.set_available(True)
        await until(lambda: held(store).get(PREFIX + "a") == b"down" and PREFIX + "b" not in held(store))


async def test_a_store_that_was_emptied_is_told_everything_again(store: MemoryStore) -> None:
    async with running(make(store)) as reporter:
        reporter.begin()
        reporter.set_endpoint(PREFIX + "a", b"up")
        reporter.set_report(said("hello"))
        await until(lambda: {PREFIX + "a", "/report"} <= held(store).keys())
        await store.txn((), [DeleteOp(key) for key in held(store)])
        store.expire_leases()
        await until(lambda: held(store).keys() == {PREFIX + "a", "/report", "/alive", "/last"})


async def test_a_report_in_which_only_the_revision_is_new_waits_and_comes_with_the_next_that_is_not(store: MemoryStore) -> None:
    async with running(make(store)) as reporter:
        reporter.lazy_s = 60.0
        reporter.set_report(said("", 1))
        await until(lambda: held(store).get("/report") == msgspec.json.encode(said("", 1)))
        reporter.set_report(said("", 2))
        reporter.set_endpoint(PREFIX + "a", b"up")
        await until(lambda: PREFIX + "a" in held(store))
        assert reporter.report == msgspec.json.encode(said("", 2))
        reporter.set_report(said("refused", 3))
        await until(lambda: held(store).get("/report") == msgspec.json.encode(said("refused", 3)))


async def test_a_report_in_which_only_the_revision_is_new_is_written_in_the_end(store: MemoryStore) -> None:
    async with running(make(store)) as reporter:
        reporter.lazy_s = 0.05
        reporter.set_report(said("", 1))
        await until(lambda: held(store).get("/report") == msgspec.json.encode(said("", 1)))
        reporter.set_report(said("", 2))
        await until(lambda: held(store).get("/report") == msgspec.json.encode(said("", 2)))


async def test_a_lease_follows_its_parameter(store: MemoryStore) -> None:
    async with running(make(store)) as reporter:
        await until(lambda: store._leases)
        reporter.ttl_s = 7.0
        await until(lambda: any(lease.ttl_s == 7 for lease in store._leases.values()))
        await until(lambda: store._items["/alive"].lease == max(store._leases))


async def test_two_agents_with_one_name_find_each_other_and_a_successor_is_no_rival(store: MemoryStore) -> None:
    async with running(make(store, "first")) as first:
        await until(lambda: "/alive" in held(store))
        async with running(make(store, "second")) as second:
            await until(lambda: first.rival and second.rival)
        await until(lambda: not first.rival)
    async with running(make(store, "third")) as third:
        await until(lambda: held(store)["/alive"] == b"third")
        beaten = store.revision
        await until(lambda: store.revision > beaten + 1)
        assert not third.rival

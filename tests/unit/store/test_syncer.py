"""The Syncer over the memory store, whose knobs make it fail; the last test kills a real etcd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from etcd_process import EtcdProcess

from tabinet.store.api import Datastore, DeleteEvent, DeleteOp, PutEvent, PutOp
from tabinet.store.etcd.store import open_etcd
from tabinet.store.memory import MemoryStore
from tabinet.store.syncer import MAX_BATCH, Syncer, SyncEvent, SyncState, SyncStatus, retry_delay_s

WAIT_S = 15.0


@dataclass
class Reader:
    """What a reader has been told; ``until`` waits for it with a deadline."""

    log: list[SyncStatus | PutEvent | DeleteEvent] = field(default_factory=list)
    view: dict[str, bytes] = field(default_factory=dict)
    revisions: dict[str, int] = field(default_factory=dict)
    batch_sizes: list[int] = field(default_factory=list)
    status: SyncStatus | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    told: asyncio.Event = field(default_factory=asyncio.Event)

    async def deliver(self, event: SyncEvent) -> None:
        await self.gate.wait()
        if isinstance(event, SyncStatus):
            assert event != self.status
            self.status = event
            self.log.append(event)
        else:
            assert event.events
            self.batch_sizes.append(len(event.events))
            for change in event.events:
                self.take(change)
        self.told.set()

    def take(self, change: PutEvent | DeleteEvent) -> None:
        self.log.append(change)
        key, revision = (change.item.key, change.item.revision) if isinstance(change, PutEvent) else (change.key, change.revision)
        assert revision > self.revisions.get(key, 0), f"{key} went back"
        self.revisions[key] = revision
        if isinstance(change, PutEvent):
            self.view[key] = change.item.value
        else:
            self.view.pop(key, None)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self.told.clear()
                await self.told.wait()

    async def until_state(self, state: SyncState) -> None:
        await self.until(lambda: self.status is not None and self.status.state is state)

    def states(self) -> list[SyncState]:
        return [entry.state for entry in self.log if isinstance(entry, SyncStatus)]


async def no_sleep(_: float) -> None:
    await asyncio.sleep(0)


@asynccontextmanager
async def following(
    store: Datastore, *prefixes: str, open_gate: bool = True, backoff: Callable[[int], float] = lambda _: 0.0
) -> AsyncIterator[Reader]:
    reader = Reader()
    if open_gate:
        reader.gate.set()
    task = asyncio.ensure_future(
        Syncer(store, prefixes or ("/a/",), backoff=backoff, sleep=no_sleep if backoff(0) == 0 else asyncio.sleep).run(reader.deliver)
    )
    try:
        yield reader
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def put(store: Datastore, key: str, value: bytes = b"v") -> int:
    return (await store.txn([], [PutOp(key, value)])).revision


async def delete(store: Datastore, key: str) -> int:
    return (await store.txn([], [DeleteOp(key)])).revision


async def test_snapshot_then_in_sync_then_changes() -> None:
    store = MemoryStore()
    await put(store, "/a/1", b"one")
    await put(store, "/b/1", b"not asked for")
    async with following(store) as reader:
        await reader.until_state(SyncState.IN_SYNC)
        assert [type(entry) for entry in reader.log] == [SyncStatus, PutEvent, SyncStatus]
        assert reader.states() == [SyncState.RESYNC, SyncState.IN_SYNC]
        await put(store, "/a/2", b"two")
        await delete(store, "/a/1")
        await reader.until(lambda: reader.view == {"/a/2": b"two"})
    assert reader.states() == [SyncState.RESYNC, SyncState.IN_SYNC]


async def test_in_sync_waits_for_all_prefixes() -> None:
    store = MemoryStore()
    for number in range(3000):
        await put(store, f"/b/{number}")
    await put(store, "/a/1")
    async with following(store, "/a/", "/b/", "/empty/") as reader:
        await reader.until_state(SyncState.IN_SYNC)
        assert len(reader.view) == 3001
        assert isinstance(reader.log[-1], SyncStatus)


async def test_an_empty_store_is_in_sync() -> None:
    async with following(MemoryStore()) as reader:
        await reader.until_state(SyncState.IN_SYNC)
        assert reader.view == {}


async def test_a_store_that_goes_away_changes_nothing_but_the_status() -> None:
    store = MemoryStore()
    await put(store, "/a/1", b"one")
    async with following(store) as reader:
        await reader.until_state(SyncState.IN_SYNC)
        store.set_available(False, "pulled the plug")
        await reader.until_state(SyncState.NOT_READY)
        assert reader.status == SyncStatus(SyncState.NOT_READY, "pulled the plug")
        assert reader.view == {"/a/1": b"one"}
        store.set_available(True)
        await put(store, "/a/2", b"two")
        await reader.until(lambda: "/a/2" in reader.view)
        await reader.until_state(SyncState.IN_SYNC)
    # No second snapshot: it went on from where it was.
    assert len([entry for entry in reader.log if isinstance(entry, PutEvent)]) == 2
    assert SyncState.RESYNC not in reader.states()[1:]


async def test_a_store_that_is_away_from_the_beginning() -> None:
    store = MemoryStore()
    store.set_available(False, "not there yet")
    async with following(store) as reader:
        await reader.until_state(SyncState.NOT_READY)
        store.set_available(True)
        await put(store, "/a/1")
        await reader.until_state(SyncState.IN_SYNC)
        await reader.until(lambda: "/a/1" in reader.view)


async def test_dropped_watches_lose_and_repeat_nothing() -> None:
    store = MemoryStore()
    async with following(store) as reader:
        await reader.until_state(SyncState.IN_SYNC)
        for number in range(50):
            await put(store, f"/a/{number}")
            store.drop_watches()
            if number % 7 == 0:
                await asyncio.sleep(0)
        await reader.until(lambda: len(reader.view) == 50)
    puts = [entry.item.key for entry in reader.log if isinstance(entry, PutEvent)]
    assert puts == [f"/a/{number}" for number in range(50)]


async def test_after_compaction_the_missed_deletes_are_made_up() -> None:
    store = MemoryStore()
    for name in ("kept", "changed", "deleted", "replaced"):
        await put(store, f"/a/{name}", b"old")
    async with following(store) as reader:
        await reader.until_state(SyncState.IN_SYNC)
        store.set_available(False)
        await reader.until_state(SyncState.NOT_READY)
        store.set_available(True)
        # All of this happens before the Syncer runs again.
        for coroutine in (
            put(store, "/a/changed", b"new"),
            delete(store, "/a/deleted"),
            delete(store, "/a/replaced"),
            put(store, "/a/replaced", b"new"),
            put(store, "/a/added", b"new"),
            put(store, "/a/passing", b"new"),
            delete(store, "/a/passing"),
        ):
            await coroutine
        await store.compact(store.revision)
        before = len(reader.log)
        await reader.until(lambda: "/a/added" in reader.view and "/a/deleted" not in reader.view)
        await reader.until_state(SyncState.IN_SYNC)
    assert reader.view == {"/a/kept": b"old", "/a/changed": b"new", "/a/replaced": b"new", "/a/added": b"new"}
    told = [entry for entry in reader.log[before:] if not isinstance(entry, SyncStatus)]
    assert sorted(entry.item.key for entry in told if isinstance(entry, PutEvent)) == ["/a/added", "/a/changed", "/a/replaced"]
    assert [entry.key for entry in told if isinstance(entry, DeleteEvent)] == ["/a/deleted"]
    assert SyncState.RESYNC in reader.states()[1:]


async def test_a_slow_reader_gets_the_latest_values_in_order() -> None:
    store = MemoryStore()
    async with following(store) as reader:
        await reader.until_state(SyncState.IN_SYNC)
        reader.gate.clear()
        await put(store, "/a/first", b"")  # occupies the reader
        await asyncio.sleep(0)
        for number in range(500):
            await put(store, "/a/hot", b"%d" % number)
            await put(store, f"/a/{number % 3}", b"%d" % number)
            if number % 50 == 0:
                await asyncio.sleep(0)
        await delete(store, "/a/0")
        last = await put(store, "/a/last", b"")
        await asyncio.sleep(0)
        reader.gate.set()
        await reader.until(lambda: reader.revisions.get("/a/last") == last)
    changes = [entry for entry in reader.log if not isinstance(entry, SyncStatus)]
    assert reader.view == {"/a/first": b"", "/a/hot": b"499", "/a/1": b"499", "/a/2": b"497", "/a/last": b""}
    assert len(changes) < 20, "values that were replaced before they were read are skipped"


async def test_batches_are_short_but_a_transaction_stays_whole() -> None:
    store = MemoryStore()
    for number in range(MAX_BATCH + 50):
        await put(store, f"/a/{number:04}")
    await store.txn([], [PutOp(f"/a/z{number:03}", b"") for number in range(100)])
    async with following(store) as reader:
        await reader.until_state(SyncState.IN_SYNC)
    assert reader.batch_sizes == [MAX_BATCH, 150]
    store = MemoryStore()
    for number in range(MAX_BATCH - 50):
        await put(store, f"/a/{number:04}")
    await store.txn([], [PutOp(f"/a/z{number:03}", b"") for number in range(100)])
    async with following(store) as reader:
        await reader.until_state(SyncState.IN_SYNC)
    assert reader.batch_sizes == [MAX_BATCH + 50]


async def test_a_store_with_another_history_is_read_again() -> None:
    old, new = MemoryStore(), MemoryStore()
    for number in range(20):
        await put(old, f"/a/{number}", b"old")
    await put(new, "/a/3", b"new")

    class Switch:
        """A store that can be replaced behind its reader's back, as a restored etcd is."""

        def __init__(self) -> None:
            self.now = old

        def list(self, prefix: str, *, page_size: int = 5000) -> AsyncGenerator:
            return self.now.list(prefix, page_size=page_size)

        def watch(self, prefix: str, after_revision: int) -> AsyncGenerator:
            return self.now.watch(prefix, after_revision)

    switch = Switch()
    async with following(switch) as reader:  # type: ignore[arg-type]
        await reader.until(lambda: len(reader.view) == 20 and reader.status == SyncStatus(SyncState.IN_SYNC))
        reader.revisions.clear()
        switch.now = new
        old.drop_watches()
        await reader.until(lambda: reader.view == {"/a/3": b"new"})


async def test_a_reader_that_fails_ends_the_run() -> None:
    async def broken(_: SyncEvent) -> None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:
        await Syncer(MemoryStore(), ["/a/"]).run(broken)
    assert caught.group_contains(ZeroDivisionError)


@pytest.mark.parametrize("prefixes", [["/a/", "/a/b/"], ["/a/b/", "/a/"], ["/a/", "/a/"], ["", "/a/"]])
async def test_prefixes_within_each_other_are_refused(prefixes: list[str]) -> None:
    async def deliver(_: SyncEvent) -> None: ...

    with pytest.raises(ValueError, match="another prefix"):
        await Syncer(MemoryStore(), prefixes).run(deliver)


async def test_delays_grow_and_start_over_after_success() -> None:
    store = MemoryStore()
    slept: list[int] = []
    reader = Reader()
    reader.gate.set()

    async def sleep(attempt: float) -> None:
        slept.append(int(attempt))
        if attempt == 5:
            store.set_available(True)
        await asyncio.sleep(0)

    task = asyncio.ensure_future(Syncer(store, ["/a/"], backoff=float, sleep=sleep).run(reader.deliver))
    await reader.until_state(SyncState.IN_SYNC)
    for _ in range(2):
        store.set_available(False)
        await reader.until_state(SyncState.NOT_READY)
        await reader.until_state(SyncState.IN_SYNC)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert slept == [0, 1, 2, 3, 4, 5] * 2


def test_delays_are_bounded() -> None:
    delays = [retry_delay_s(attempt) for attempt in range(100)]
    assert all(0.05 <= delay <= 3.0 for delay in delays)
    assert max(delays[5:]) > max(delays[:2])


async def test_a_real_etcd_killed_and_started_again(own_etcd: EtcdProcess) -> None:
    """No change is lost, none comes twice, and nothing is deleted while it is away."""
    store, writer = await open_etcd([own_etcd.endpoint]), await open_etcd([own_etcd.endpoint])
    for number in range(10):
        await put(writer, f"/a/{number}", b"1")
    async with following(store, backoff=lambda _: 0.05) as reader:
        await reader.until_state(SyncState.IN_SYNC)
        for round_number in (2, 3):
            await put(writer, "/a/0", b"%d" % round_number)
            own_etcd.kill()
            await reader.until_state(SyncState.NOT_READY)
            assert len(reader.view) == 10
            assert own_etcd.endpoint in (reader.status.error if reader.status else "")
            own_etcd.start()
            await reader.until_state(SyncState.IN_SYNC)
            await put(writer, "/a/1", b"%d" % round_number)
            await reader.until(lambda n=round_number: reader.view["/a/1"] == b"%d" % n)  # type: ignore[misc]
    puts = [(entry.item.key, entry.item.value) for entry in reader.log if isinstance(entry, PutEvent)]
    assert puts[10:] == [("/a/0", b"2"), ("/a/1", b"2"), ("/a/0", b"3"), ("/a/1", b"3")]
    await store.close()
    await writer.close()

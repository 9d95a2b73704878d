"""The history: entries are part of their changes, others' changes are put down, gaps show, earlier states come back."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager, suppress

import pytest

from tabinet.errors import Compacted, InputError, StoreUnavailable
from tabinet.model.history import HISTORY, MOST_BYTES, UNKNOWN, Changed, Entry, Limits, decode_entry, encode_entry, entry_path, name_of
from tabinet.model.keys import ResourceKey, path_of
from tabinet.store.api import Compare, DeleteOp, GetOp, PutOp
from tabinet.store.client import ResourceClient
from tabinet.store.election import lead
from tabinet.store.history import find_gaps, parse_when, read_history, read_log, set_limits, state_at, trim, unrecorded
from tabinet.store.memory import MemoryStore
from tabinet.store.recorder import Recorder
from tabinet.store.recording import RecordingStore

A, B = (path_of(ResourceKey("GlobalNetworkPolicy", name)) for name in ("a", "b"))
ENDPOINT = path_of(ResourceKey("WorkloadEndpoint", "w", "shop"))
DEADLINE_S = 60


def recording(store: MemoryStore) -> RecordingStore:
    return RecordingStore(store, "me@here", "test")


async def put(store, path: str, value: bytes) -> int:
    return (await store.txn([], [PutOp(path, value)])).revision


async def delete(store, path: str) -> int:
    return (await store.txn([], [DeleteOp(path)])).revision


async def until(holds) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(work):
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


# --- what goes through us ---------------------------------------------------------------------------------------------


async def test_an_entry_has_the_revision_of_its_change():
    store = MemoryStore()
    ours = recording(store)
    created = await put(ours, A, b"1")
    changed = await put(ours, A, b"2")
    deleted = await delete(ours, A)
    records = await read_history(store)
    assert [record.revision for record in records] == [created, changed, deleted]
    assert [record.entry.changes for record in records] == [
        (Changed(path=A, before_revision=0, after=b"1"),),
        (Changed(path=A, before_revision=created, before=b"1", after=b"2"),),
        (Changed(path=A, before_revision=changed, before=b"2", deleted=True),),
    ]
    assert {(record.entry.who, record.entry.program) for record in records} == {("me@here", "test")}
    assert not find_gaps(records)


async def test_what_is_not_written_leaves_no_entry():
    store = MemoryStore()
    ours = recording(store)
    await put(store, A, b"1")
    result = await ours.txn([Compare(A, 0)], [PutOp(A, b"2")], [GetOp(A)])
    assert (result.succeeded, result.values[0].value) == (False, b"1")
    await delete(ours, B)
    await put(ours, "/tabinet/v1/other", b"1")
    assert await read_history(store) == []


async def test_a_change_in_between_is_read_again():
    store = MemoryStore()

    class Interfering:
        """Somebody writes after the first reading."""

        def __init__(self) -> None:
            self.times = 1

        def __getattr__(self, name):
            return getattr(store, name)

        async def txn(self, compares, then, otherwise=()):
            result = await store.txn(compares, then, otherwise)
            if self.times and all(isinstance(op, GetOp) for op in then):
                self.times -= 1
                await put(store, A, b"theirs")
            return result

    await put(RecordingStore(Interfering(), "me", "test"), A, b"ours")
    (record,) = await read_history(store)
    assert record.entry.changes[0].before == b"theirs"


async def test_two_writers_lose_nothing():
    store = MemoryStore()

    async def write(number: int) -> None:
        ours = recording(store)
        for turn in range(5):
            await put(ours, A, f"{number}.{turn}".encode())

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(write(number))
    records = await read_history(store)
    assert (len(records), find_gaps(records), unrecorded(await read_log(store))) == (20, [], [])


async def test_many_documents_at_once():
    store = MemoryStore()
    tiers = [
        {"apiVersion": "projectcalico.org/v3", "kind": "Tier", "metadata": {"name": f"t{number}"}, "spec": {}} for number in range(250)
    ]
    for order in (1, 2):
        await ResourceClient(recording(store)).apply_many([{**tier, "spec": {"order": order}} for tier in tiers])
    records = await read_history(store)
    assert [len(record.entry.changes) for record in records] == [100, 100, 50] * 2
    assert not unrecorded(await read_log(store))


async def test_full_transactions_pass():
    store = MemoryStore()
    await recording(store).txn([], [PutOp(path_of(ResourceKey("Tier", f"t{number}")), b"1") for number in range(128)])
    assert await read_history(store) == []


def test_large_documents_are_left_out_and_the_rest_stays():
    large = os.urandom(MOST_BYTES)
    entry = Entry(1.0, "me", "test", (Changed(A, 3, large, b"x"), Changed(B, 0, None, b"small")))
    value = encode_entry(entry)
    assert len(value) <= MOST_BYTES
    assert decode_entry(value).changes == (Changed(A, 3, left_out=True), Changed(B, 0, None, b"small"))
    assert decode_entry(b"nonsense") is None
    assert decode_entry(encode_entry(entry)[:-3]) is None


def test_names():
    assert name_of(ENDPOINT) == "WorkloadEndpoint/shop/w"
    assert name_of("/tabinet/v1/invariant/x") == "Invariant/x"


# --- what others write ------------------------------------------------------------------------------------------------


async def recorder_is_ready(store: MemoryStore) -> None:
    await until(lambda: _has_position(store))


async def _has_position(store: MemoryStore) -> bool:
    return (await read_log(store)).position.seen > 0


async def test_others_changes_are_put_down_and_ours_once():
    store = MemoryStore()
    first = await put(store, A, b"0")
    async with running(Recorder(store).run()):
        await recorder_is_ready(store)
        theirs = await put(store, A, b"1")
        ours = await put(recording(store), A, b"2")
        await put(store, ENDPOINT, b"busy")
        gone = await delete(store, A)

        async def all_there() -> bool:
            return len(await read_history(store)) == 3

        await until(all_there)
    records = await read_history(store)
    assert [(record.revision, record.entry.who) for record in records] == [(theirs, ""), (ours, "me@here"), (gone, "")]
    assert records[0].entry.changes == (Changed(A, first, b"0", b"1"),)
    assert (find_gaps(records), unrecorded(await read_log(store))) == ([], [])


async def test_what_was_changed_while_no_recorder_ran_shows_as_a_gap():
    store = MemoryStore()
    await put(store, A, b"0")
    await put(recording(store), B, b"0")
    async with running(Recorder(store).run()):
        await recorder_is_ready(store)
    await put(store, A, b"1")
    last = await put(store, A, b"2")
    await delete(store, B)
    assert [gap.path for gap in unrecorded(await read_log(store))] == [B]
    async with running(Recorder(store).run()):

        async def all_there() -> bool:
            return len(await read_history(store)) == 3

        await until(all_there)
    records = await read_history(store)
    changes = {change.path: change for record in records[1:] for change in record.entry.changes}
    assert changes[A] == Changed(A, UNKNOWN, None, b"2")
    assert (changes[B].deleted, changes[B].before) == (True, b"0")
    assert [(gap.path, gap.before) for gap in find_gaps(records)] == [(A, last)]


async def test_a_compaction_only_makes_it_list_again():
    store = MemoryStore()
    async with running(Recorder(store).run()):
        await recorder_is_ready(store)
        store.set_available(False)
        store.set_available(True)
        await store.compact(store.revision)
        await put(store, A, b"1")

        async def there() -> bool:
            return len(await read_history(store)) == 1

        await until(there)


# --- bounds, and the past ---------------------------------------------------------------------------------------------


async def test_the_oldest_go_first():
    store = MemoryStore()
    ours = recording(store)
    revisions = [await put(ours, A, str(number).encode()) for number in range(10)]
    await set_limits(store, Limits(entries=4))
    assert await trim(store, 0.0) == 6
    log = await read_log(store)
    assert ([record.revision for record in log.records], log.position.dropped) == (revisions[6:], revisions[5])
    assert state_at(log, revisions[5]).items[A].value == b"5"
    with pytest.raises(InputError, match="is kept from revision"):
        state_at(log, revisions[4])
    assert await trim(store, log.records[-1].entry.when + 400 * 86_400) == 4


async def test_without_a_clerk_commands_bound_it():
    store = MemoryStore()
    await set_limits(store, Limits(entries=2))
    for chosen in (1, 2, 3, 0):
        ours = RecordingStore(store, "me", "test", choose=lambda _, chosen=chosen: chosen)
        await put(ours, A, str(chosen).encode())
        await ours.close()
        store.set_available(True)
    assert len(await read_history(store)) == 2


async def test_states_of_the_past():
    store = MemoryStore()
    ours = recording(store)
    start = store.revision
    first = await put(ours, A, b"1")
    await put(ours, B, b"x")
    second = await put(ours, A, b"2")
    await delete(ours, B)
    log = await read_log(store)
    assert not state_at(log, start).items
    assert {path: item.value for path, item in state_at(log, first).items.items()} == {A: b"1"}
    assert {path: item.value for path, item in state_at(log, second).items.items()} == {A: b"2", B: b"x"}
    assert state_at(log, store.revision).items == log.items
    assert state_at(log, first).unsure == ()


async def test_what_cannot_be_undone_is_said():
    store = MemoryStore()
    ours = recording(store)
    first = await put(ours, A, b"1")
    second = await put(ours, B, b"1")
    await put(store, A, b"theirs")
    await put(ours, A, b"2")
    await delete(store, B)
    log = await read_log(store)
    assert (state_at(log, first).unsure, state_at(log, second).unsure) == ((A,), (A, B))


async def test_times():
    store = MemoryStore()
    clock = iter([1000.0, 2000.0])
    ours = RecordingStore(store, "me", "test", now=lambda: next(clock))
    first, second = await put(ours, A, b"1"), await put(ours, A, b"2")
    records = await read_history(store)
    assert [parse_when(text, records, 2030.0) for text in ("7", "1m", "10s", "1970-01-01T00:20:00+00:00", "1h")] == [
        7,
        first,
        second,
        first,
        first - 1,
    ]
    for text in ("soon", "", "5y", "2026-13-01"):
        with pytest.raises(InputError):
            parse_when(text, records, 2030.0)
    assert entry_path(1.5, 3) == f"{HISTORY}19700101T000001.500000-0000000000000003"


# --- one of many ------------------------------------------------------------------------------------------------------


async def test_one_leads_and_another_takes_over():
    store = MemoryStore()
    working: list[str] = []

    def candidate(name: str):
        async def work() -> None:
            working.append(name)
            await asyncio.Event().wait()

        return lead(store, "/leader", name, work, retry_s=0.01, jitter_s=0.01)

    async def somebody_works() -> bool:
        return bool(working)

    async def both_worked() -> bool:
        return len(set(working)) == 2

    async with running(candidate("one")):
        await until(somebody_works)
        async with running(candidate("two")):
            for _ in range(20):
                await asyncio.sleep(0)
            assert working == ["one"]
            store.expire_leases()
            await until(both_worked)


async def test_work_that_loses_the_store_begins_again():
    store = MemoryStore()
    failures = [StoreUnavailable("away"), Compacted(3)]
    errors: list[Exception] = []
    done = asyncio.Event()

    async def work() -> None:
        if failures:
            raise failures.pop()
        done.set()
        await asyncio.Event().wait()

    async with running(lead(store, "/leader", "one", work, retry_s=0.01, jitter_s=0.01, on_error=errors.append)):
        async with asyncio.timeout(DEADLINE_S):
            await done.wait()
    assert [type(error) for error in errors] == [Compacted, StoreUnavailable]
    assert await store.get("/leader") is None

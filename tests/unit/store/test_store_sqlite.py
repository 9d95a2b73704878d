"""What only sqlite can do: be shared by processes, outlive them, forget old history, and be a file that cannot be used."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from tabinet.errors import Compacted, NotFound, StoreUnavailable
from tabinet.store.api import Compare, DeleteEvent, PutEvent, PutOp
from tabinet.store.sqlite import SqliteStore, open_sqlite

WAIT_S = 20.0

COUNTER = """
import asyncio, sys
from tabinet.store.api import Compare, PutOp
from tabinet.store.sqlite import open_sqlite

async def main():
    store = await open_sqlite(sys.argv[1])
    done = 0
    while done < 30:
        item = await store.get("/n")
        put = PutOp("/n", b"%d" % (int(item.value) + 1))
        done += (await store.txn([Compare("/n", item.revision)], [put])).succeeded
    await store.close()

asyncio.run(main())
"""


async def put(store: SqliteStore, key: str, value: bytes = b"v", lease: int = 0) -> int:
    return (await store.txn([], [PutOp(key, value, lease)])).revision


async def test_several_processes_write_and_a_watch_sees_every_step(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = await open_sqlite(path, poll_s=0.01)
    start = await put(store, "/n", b"0")
    others = [await asyncio.create_subprocess_exec(sys.executable, "-c", COUNTER, str(path)) for _ in range(2)]
    values: list[int] = []
    try:
        async with asyncio.timeout(WAIT_S), aclosing(store.watch("/n", start)) as watch:
            async for batch in watch:
                values += [int(event.item.value) for event in batch.events if isinstance(event, PutEvent)]
                if len(values) == 60:
                    break
    finally:
        async with asyncio.timeout(WAIT_S):
            codes = [await other.wait() for other in others]
    assert codes == [0, 0]
    assert values == list(range(1, 61))
    await store.close()


async def test_everything_outlives_the_process(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    first = await open_sqlite(path)
    lease = await first.grant(600)
    revision = await put(first, "/a", b"1", lease)
    last = await put(first, "/b", b"2")
    await first.close()
    second = await open_sqlite(path)
    item = await second.get("/a")
    assert item is not None
    assert (item.value, item.revision, item.lease) == (b"1", revision, lease)
    await second.keep_alive(lease)
    assert (await second.txn([], [])).revision == last
    async with aclosing(second.watch("/", revision)) as watch:
        await anext(watch)
        assert [event.item.key for event in (await anext(watch)).events if isinstance(event, PutEvent)] == ["/b"]
    await second.close()


async def test_whoever_looks_first_ends_a_lease(tmp_path: Path) -> None:
    now = [1000.0]
    one = await open_sqlite(tmp_path / "s.db", clock=lambda: now[0])
    two = await open_sqlite(tmp_path / "s.db", clock=lambda: now[0], poll_s=0.01)
    lease = await one.grant(40)
    other = await one.grant(60)
    revision = await put(one, "/a", b"", lease)
    await put(one, "/b", b"", other)
    now[0] += 29.9
    await one.keep_alive(lease)
    now[0] += 29.9
    assert await two.get("/a") is not None
    now[0] += 0.2
    assert await two.get("/a") is not None
    assert await two.get("/b") is None
    now[0] += 30
    async with asyncio.timeout(WAIT_S), aclosing(two.watch("/a", revision)) as watch:
        await anext(watch)
        assert isinstance((await anext(watch)).events[0], DeleteEvent)
    with pytest.raises(NotFound):
        await one.keep_alive(lease)
    await one.close()
    await two.close()


async def test_history_is_bounded(tmp_path: Path) -> None:
    store = await open_sqlite(tmp_path / "s.db", history=100)
    start = await put(store, "/a")
    for _ in range(9):
        await store.txn([], [PutOp("/b", b"")])
    async with aclosing(store.watch("/a", start)) as watch:
        await anext(watch)
        # Straight to the next revision at which it looks, without a thousand commits.
        with sqlite3.connect(tmp_path / "s.db") as connection:
            connection.execute("UPDATE meta SET value = 999 WHERE name = 'revision'")
        connection.close()
        assert await put(store, "/a") == 1000
        with pytest.raises(Compacted):
            await anext(store.watch("/a", 899))
        assert (await anext(store.watch("/a", 900))).revision == 900
    await store.close()


async def test_a_long_list_does_not_stop_writers(tmp_path: Path) -> None:
    store = await open_sqlite(tmp_path / "s.db")
    for number in range(6):
        await put(store, f"/{number}")
    pages = store.list("/", page_size=2)
    async with asyncio.timeout(WAIT_S):
        await anext(pages)
        result = await store.txn([Compare("/5", 7)], [PutOp("/5", b"new")])
        assert result.succeeded
        assert [item.value async for page in pages for item in page.items] == [b"v"] * 4
    await store.close()


async def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="check that its directory exists"):
        await open_sqlite(tmp_path / "none" / "s.db")
    (tmp_path / "text").write_text("this is no database" * 100)
    with pytest.raises(StoreUnavailable, match="not a database"):
        await open_sqlite(tmp_path / "text")
    with sqlite3.connect(tmp_path / "newer") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreUnavailable, match="schema 99"):
        await open_sqlite(tmp_path / "newer")


async def test_a_file_that_is_locked(tmp_path: Path) -> None:
    store = await open_sqlite(tmp_path / "s.db", busy_timeout_s=0.01)
    await put(store, "/a")
    other = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"):
        await put(store, "/a")
    assert await store.get("/a") is not None, "readers go on"
    other.close()
    await put(store, "/a")
    await store.close()


async def test_a_failed_transaction_leaves_nothing_behind(tmp_path: Path) -> None:
    store = await open_sqlite(tmp_path / "s.db")
    before = await put(store, "/a")
    with pytest.raises(NotFound):
        await store.txn([], [PutOp("/a", b"half"), PutOp("/b", b"half", lease=77)])
    item = await store.get("/a")
    assert item is not None
    assert (item.value, item.revision) == (b"v", before)
    assert await put(store, "/c") == before + 1
    await store.close()


async def test_no_descriptors_are_left(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    store = await open_sqlite(tmp_path / "s.db")
    for number in range(5):
        await put(store, f"/{number}")
    async with aclosing(store.list("/", page_size=2)) as pages:
        await anext(pages)
    async with aclosing(store.watch("/", 1)) as watch:
        await anext(watch)
    await store.close()
    assert set(os.listdir("/proc/self/fd")) == before

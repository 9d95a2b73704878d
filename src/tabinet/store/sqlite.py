"""A datastore in one file, for the processes of one machine: sqlite in WAL mode with a change feed.

In: the path of the file. Out: the ``Datastore`` protocol. All sqlite calls of a store run in one thread of its own, in order, so that the
event loop never waits for a disk. A watch reads the ``log`` table; it is woken at once by writes of its own process, and asks
``PRAGMA data_version`` (2 microseconds, no disk access) every ``poll_s`` seconds for writes of others. Leases end by wall-clock time;
whichever process looks first removes them. A write is on the disk when the call returns.

The history kept for watches is the last ``history`` revisions and up to 1,000 more; older watches get ``Compacted``. Not for network file
systems (WAL needs shared memory), and not for more than one machine.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from tabinet.errors import NotFound, StoreDenied, StoreUnavailable
from tabinet.store import sqlite_tables as tables
from tabinet.store.api import Compare, KeyValue, Op, Page, TxnResult, WatchBatch
from tabinet.store.semantics import check_txn, key_bytes

P = ParamSpec("P")
T = TypeVar("T")

_WATCH_BATCH = 5000


class SqliteStore:
    """The ``Datastore`` protocol over one sqlite file. Make it with ``open_sqlite``."""

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        executor: ThreadPoolExecutor,
        *,
        busy_timeout_s: float,
        poll_s: float,
        history: int,
        clock: Callable[[], float],
    ) -> None:
        self._path = path
        self._connection = connection
        self._executor = executor
        self._busy_timeout_s = busy_timeout_s
        self._poll_s = poll_s
        self._history = history
        self._clock = clock
        self._changed = asyncio.Event()
        self._closed = False

    async def get(self, key: str) -> KeyValue | None:
        return await self._swept(tables.read_key, key)

    async def list(self, prefix: str, *, page_size: int = 5000) -> AsyncGenerator[Page, None]:
        """A connection of its own holds one read transaction until the last page, so that writers change nothing in it."""
        await self._swept(tables.read_meta, "revision")
        connection = await self._call(tables.connect, self._path, self._busy_timeout_s)
        try:
            await self._call(connection.execute, "BEGIN")
            revision = await self._call(tables.read_meta, connection, "revision")
            after: bytes | None = None
            while True:
                items = await self._call(tables.read_page, connection, key_bytes(prefix), after, page_size)
                if items or after is None:
                    yield Page(items=items, revision=revision)
                if len(items) < page_size:
                    return
                after = key_bytes(items[-1].key)
        finally:
            self._dispose(connection)

    async def txn(self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()) -> TxnResult:
        check_txn(compares, then, otherwise)
        result = await self._swept(tables.run_txn, compares, then, otherwise, self._history)
        self._wake()
        return result

    async def watch(self, prefix: str, after_revision: int) -> AsyncGenerator[WatchBatch, None]:
        start = key_bytes(prefix)
        last = after_revision
        await self._swept(tables.read_changes, start, last, 0)
        yield WatchBatch(events=[], revision=last)
        seen_version = -1
        woken = True
        while True:
            # Taken before reading: a write of this process that the read does not see sets this very event.
            changed = self._changed
            version = await self._swept(_data_version)
            if woken or version != seen_version:
                batch = await self._call(tables.read_changes, self._connection, start, last, _WATCH_BATCH)
                last = batch.revision
                if batch.events:
                    yield batch
                    continue
                seen_version = version
            woken = await self._wait(changed)

    async def grant(self, ttl_s: int) -> int:
        return await self._swept(tables.grant, ttl_s, self._clock())

    async def keep_alive(self, lease: int) -> None:
        if not await self._swept(tables.keep_alive, lease, self._clock()):
            raise NotFound(f"lease {lease} has ended")

    async def revoke(self, lease: int) -> None:
        await self._swept(tables.end_lease, lease)
        self._wake()

    async def compact(self, revision: int) -> None:
        await self._swept(tables.compact, revision)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._wake()
            await asyncio.get_running_loop().run_in_executor(self._executor, self._connection.close)
            self._executor.shutdown(wait=False)

    async def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The function's result, from the store's own thread; sqlite's errors become ours."""
        if self._closed:
            raise StoreUnavailable(f"the store {self._path} is closed")
        with _our_errors(self._path):
            return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: function(*args, **kwargs))

    async def _swept(self, function: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As ``_call`` on the store's connection, after leases that have run out are gone."""

        def run() -> tuple[bool, T]:
            swept = tables.sweep_leases(self._connection, self._clock())
            return swept, function(self._connection, *args, **kwargs)

        swept, result = await self._call(run)
        if swept:
            self._wake()
        return result

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _wait(self, changed: asyncio.Event) -> bool:
        """True as soon as this process has written, False after ``poll_s`` seconds."""
        try:
            async with asyncio.timeout(self._poll_s):
                await changed.wait()
        except TimeoutError:
            return False
        return True

    def _dispose(self, connection: sqlite3.Connection) -> None:
        """The connection is closed after whatever still runs on it in the store's thread."""
        try:
            self._executor.submit(connection.close)
        except RuntimeError:  # the store was closed meanwhile, nothing runs any more
            connection.close()


async def open_sqlite(
    path: str | Path,
    *,
    busy_timeout_s: float = 5.0,
    poll_s: float = 0.05,
    history: int = 20_000,
    clock: Callable[[], float] = time.time,
) -> SqliteStore:
    """The store in the file ``path``, which is made with its directory's permission when it does not exist.

    Raises:
        StoreUnavailable: the file cannot be opened, or is no store.
        StoreDenied: the file may not be written.
    """
    file = Path(path)
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite-store")
    try:
        with _our_errors(file):
            connection = await asyncio.get_running_loop().run_in_executor(executor, tables.open_tables, file, busy_timeout_s)
    except BaseException:
        executor.shutdown(wait=False)
        raise
    return SqliteStore(file, connection, executor, busy_timeout_s=busy_timeout_s, poll_s=poll_s, history=history, clock=clock)


def _data_version(connection: sqlite3.Connection) -> int:
    """A number that changes when another connection has written (https://www.sqlite.org/pragma.html#pragma_data_version)."""
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


@contextmanager
def _our_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        text = str(error)
        if "readonly" in text:
            raise StoreDenied(f"the store {path} may not be written: check its owner and mode, and those of its directory") from error
        if "unable to open" in text:
            raise StoreUnavailable(f"the store {path} cannot be opened: check that its directory exists and may be written") from error
        if "locked" in text or "busy" in text:
            raise StoreUnavailable(f"the store {path} is locked by another program for too long: try again") from error
        raise StoreUnavailable(f"the store {path} cannot be used: {text}") from error

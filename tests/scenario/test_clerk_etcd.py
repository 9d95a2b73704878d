"""The clerk with a real etcd and real processes: it is killed, another one takes over, and what happened in between shows."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from etcd_process import EtcdProcess

from tabinet.cli.clerk import KEY
from tabinet.model.history import UNKNOWN
from tabinet.model.keys import ResourceKey, path_of
from tabinet.store.api import Datastore, DeleteOp, PutOp
from tabinet.store.etcd.store import open_etcd
from tabinet.store.history import find_gaps, read_history, read_log, unrecorded
from tabinet.store.recording import RecordingStore

DEADLINE_S = 120
CLERK = """
import asyncio, sys
from tabinet.cli.clerk import serve
from tabinet.store.etcd.store import open_etcd

async def main():
    await serve(await open_etcd((sys.argv[1],)), sys.argv[2], ttl_s=6)

asyncio.run(main())
"""
A, B = (path_of(ResourceKey("GlobalNetworkPolicy", name)) for name in ("a", "b"))


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdProcess]:
    process = EtcdProcess(tmp_path / "s")
    process.start()
    yield process
    process.kill()


@pytest.fixture
def clerks(etcd: EtcdProcess) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Two processes, by the names that they lead under."""
    processes = {name: subprocess.Popen([sys.executable, "-c", CLERK, etcd.endpoint, name]) for name in ("one", "two")}
    yield processes
    for process in processes.values():
        process.kill()
        process.wait()


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.05)


async def put(store: Datastore, path: str, value: bytes) -> int:
    return (await store.txn([], [PutOp(path, value)])).revision


async def test_a_killed_clerk_is_replaced_and_nothing_is_hidden(etcd: EtcdProcess, clerks: dict[str, subprocess.Popen[bytes]]) -> None:
    store = await open_etcd((etcd.endpoint,))

    async def leader() -> str:
        item = await store.get(KEY)
        return item.value.decode() if item is not None else ""

    async def follows() -> bool:
        return bool(await leader()) and (await read_log(store)).position.seen > 0

    async def settled() -> bool:
        return not unrecorded(await read_log(store)) and len(await read_history(store)) == wanted

    await until(follows)
    first = await leader()
    theirs = await put(store, A, b"{}")
    ours = await put(RecordingStore(store, "me@here", "test"), A, b'{"x":1}')
    await put(store, B, b"{}")
    wanted = 3
    await until(settled)
    second = clerks["two" if first == "one" else "one"]
    second.send_signal(signal.SIGSTOP)  # it shall not be faster than the changes that nobody sees
    clerks[first].kill()
    clerks[first].wait()
    await put(store, A, b'{"x":2}')
    last = await put(store, A, b'{"x":3}')
    await store.txn([], [DeleteOp(B)])
    second.send_signal(signal.SIGCONT)
    wanted = 5
    await until(settled)
    assert await leader() != first
    records = await read_history(store)
    assert [record.revision for record in records[:2]] == [theirs, ours]
    found = next(record for record in records if record.revision == last)
    assert (found.entry.who, found.entry.changes[0].before_revision) == ("", UNKNOWN)
    assert [(gap.path, gap.before) for gap in find_gaps(records)] == [(A, last)]
    assert records[-1].entry.changes[0].deleted
    await store.close()

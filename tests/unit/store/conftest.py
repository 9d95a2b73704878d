"""Stores for the conformance suite: every backend, with a prefix of its own for each test."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from etcd_process import EtcdProcess

from tabinet.store.api import Datastore
from tabinet.store.etcd.store import open_etcd
from tabinet.store.memory import MemoryStore
from tabinet.store.sqlite import open_sqlite

_NUMBERS = itertools.count(1)

OpenStore = Callable[[], Awaitable[Datastore]]


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdProcess]:
    """One etcd for all tests that do not break it."""
    process = EtcdProcess(tmp_path_factory.mktemp("etcd") / "s")
    process.start()
    yield process
    process.kill()


@pytest.fixture
def own_etcd(tmp_path: Path) -> Iterator[EtcdProcess]:
    """An etcd that the test may kill."""
    process = EtcdProcess(tmp_path / "s")
    process.start()
    yield process
    process.resume_and_kill()


@pytest.fixture(params=["memory", "sqlite", "etcd"])
async def open_client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpenStore]:
    """Opens one more client of the store under test; all see the same data."""
    opened: list[Datastore] = []
    memory = MemoryStore()
    etcd = request.getfixturevalue("etcd") if request.param == "etcd" else None

    async def open_one() -> Datastore:
        store: Datastore
        if etcd is not None:
            store = await open_etcd([etcd.endpoint])
        elif request.param == "sqlite":
            store = await open_sqlite(tmp_path / "store.db", poll_s=0.01, clock=lambda: time.time() * 10)
        else:
            store = memory
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        await store.close()


@pytest.fixture
async def store(open_client: OpenStore) -> Datastore:
    return await open_client()


@pytest.fixture
def base() -> str:
    """A prefix that no other test uses."""
    return f"/test/{next(_NUMBERS)}/"

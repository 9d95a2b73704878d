"""Hosts as processes on a real etcd, killed with SIGKILL while they assign and release: nothing leaks, nothing is owned twice."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from etcd_process import EtcdProcess

from tabinet.ipam.audit import allocations
from tabinet.ipam.client import IpamClient
from tabinet.ipam.collector import collect
from tabinet.ipam.inventory import read_inventory
from tabinet.model.keys import ResourceKey, path_of
from tabinet.store.api import Datastore, DeleteOp, PutOp
from tabinet.store.open import open_store

HOSTS = 6
ROUNDS = 3
TOLD_IN_A_ROUND = 150
WITHIN_S = 60.0


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdProcess]:
    process = EtcdProcess(tmp_path / "s")
    process.start()
    yield process
    process.kill()


@pytest.fixture
async def store(etcd: EtcdProcess) -> AsyncIterator[Datastore]:
    store = await open_store(etcd.endpoint)
    await put(store, "IPPool", "pool", {"cidr": "10.0.0.0/22", "blockSize": 28})
    for number in range(HOSTS):
        await put(store, "Node", f"host{number}", {})
    yield store
    await store.close()


async def put(store: Datastore, kind: str, name: str, spec: dict[str, object]) -> None:
    document = {"kind": kind, "apiVersion": "projectcalico.org/v3", "metadata": {"name": name}, "spec": spec}
    await store.txn([], [PutOp(path_of(ResourceKey(kind, name)), msgspec.json.encode(document))])


@dataclass(slots=True)
class HostProcess:
    """A host, and what its callers were told."""

    process: asyncio.subprocess.Process
    owned: dict[str, str] = field(default_factory=dict)
    """Address of each handle that was assigned, as far as its release was not told."""
    released: set[str] = field(default_factory=set)
    told: int = 0

    async def listen(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            if not line.endswith(b"\n"):
                break  # killed while it spoke
            match line.decode().split():
                case ["+", handle, address]:
                    self.owned[handle] = address
                case ["-", handle]:
                    del self.owned[handle]
                    self.released.add(handle)
                case words:
                    raise AssertionError(f"a caller was told {words}")
            self.told += 1
        await self.process.wait()


async def start(etcd: EtcdProcess, host: int, life: int) -> HostProcess:
    program = Path(__file__).parent / "ipam_host.py"
    arguments = (program, etcd.endpoint, f"host{host}", str(life))
    return HostProcess(await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=subprocess.PIPE))


async def owned_by_handle(store: Datastore) -> dict[str, str]:
    """What the blocks say; no handle here has more than one address."""
    found = list(allocations(await read_inventory(store)))
    assert len({allocation.address for allocation in found}) == len(found)
    by_handle = {allocation.handle: allocation.address.address for allocation in found}
    assert len(by_handle) == len(found)
    return by_handle


async def test_hosts_that_are_killed_at_any_moment_leak_nothing(etcd: EtcdProcess, store: Datastore) -> None:
    client = IpamClient(store)
    for life in range(ROUNDS):
        hosts = [await start(etcd, number, life) for number in range(HOSTS)]
        try:
            async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group:
                for host in hosts:
                    group.create_task(host.listen())
                while sum(host.told for host in hosts) < TOLD_IN_A_ROUND:
                    assert all(host.process.returncode is None for host in hosts)
                    await asyncio.sleep(0.001)
                for host in hosts:
                    host.process.kill()
        finally:
            for host in hosts:
                with contextlib.suppress(ProcessLookupError):
                    host.process.kill()
        assert await client.check() == ()
        stored = await owned_by_handle(store)
        told = {handle: address for host in hosts for handle, address in host.owned.items()}
        # What a caller was told to own it owns, unless its release went through and was not told any more.
        assert {handle: stored.get(handle, address) for handle, address in told.items()} == told
        # What is owned and was never told belongs to a request that died under way: its handle says whose it was, and releases it.
        assert len(stored.keys() - told.keys()) <= HOSTS * 3
        assert not any(stored.keys() & host.released for host in hosts)
        for handle in stored:
            assert len(await client.release_handle(handle)) == 1
        assert await client.check() == ()
        assert [(usage.assigned, usage.resting) for usage in await client.usage()] == [(0, 0)]


async def test_hosts_that_never_come_back_are_collected(etcd: EtcdProcess, store: Datastore) -> None:
    hosts = [await start(etcd, number, 0) for number in range(HOSTS)]
    try:
        async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group:
            for host in hosts:
                group.create_task(host.listen())
            while sum(host.told for host in hosts) < TOLD_IN_A_ROUND:  # noqa: ASYNC110 - lines come when they come
                await asyncio.sleep(0.001)
            for host in hosts:
                host.process.kill()
    finally:
        for host in hosts:
            with contextlib.suppress(ProcessLookupError):
                host.process.kill()
    for number in range(1, HOSTS):
        await store.txn([], [DeleteOp(path_of(ResourceKey("Node", f"host{number}")))])
    collection = await collect(store, grace_s=0)
    assert (collection.changed, collection.blocked) == ((), ())
    assert {finding.code for finding in collection.done} <= {"address-of-lost-host", "block-of-lost-host", "block-spare"}
    await collect(store, grace_s=0)  # blocks that were not empty before
    left = await owned_by_handle(store)
    assert all(handle.startswith("host0.") for handle in left)
    assert await IpamClient(store).check() == ()

"""A store for tests of addresses that lets other tasks run at each call, or breaks off there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import msgspec

from tabinet.lib.ip import Prefix
from tabinet.model.keys import ResourceKey, path_of
from tabinet.store.api import Compare, DeleteOp, KeyValue, Op, Page, PutOp, TxnResult, WatchBatch
from tabinet.store.memory import MemoryStore


class Killed(Exception):
    """The caller's process ends here."""


@dataclass(slots=True)
class YieldingStore:
    """Other tasks run before and after each call; at the ``kill_at``-th such point the caller is killed."""

    inner: MemoryStore
    kill_at: int = -1
    points: int = 0
    calls: int = 0

    async def point(self) -> None:
        self.points += 1
        if self.points == self.kill_at:
            raise Killed
        await asyncio.sleep(0)

    async def get(self, key: str) -> KeyValue | None:
        self.calls += 1
        await self.point()
        found = await self.inner.get(key)
        await self.point()
        return found

    async def list(self, prefix: str, *, page_size: int = 5000) -> AsyncIterator[Page]:
        self.calls += 1
        await self.point()
        async for page in self.inner.list(prefix, page_size=page_size):
            yield page
        await self.point()

    async def txn(self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()) -> TxnResult:
        self.calls += 1
        await self.point()
        result = await self.inner.txn(compares, then, otherwise)
        await self.point()
        return result

    async def watch(self, prefix: str, after_revision: int) -> AsyncIterator[WatchBatch]:
        async for batch in self.inner.watch(prefix, after_revision):
            yield batch

    async def grant(self, ttl_s: int) -> int:
        return await self.inner.grant(ttl_s)

    async def keep_alive(self, lease: int) -> None:
        await self.inner.keep_alive(lease)

    async def revoke(self, lease: int) -> None:
        await self.inner.revoke(lease)

    async def compact(self, revision: int) -> None:
        await self.inner.compact(revision)

    async def close(self) -> None:
        await self.inner.close()


async def put_pool(store: MemoryStore, name: str, cidr: str, **spec: object) -> None:
    document = {"kind": "IPPool", "apiVersion": "projectcalico.org/v3", "metadata": {"name": name}, "spec": {"cidr": cidr, **spec}}
    await store.txn([], [PutOp(path_of(ResourceKey("IPPool", name)), msgspec.json.encode(document))])


async def put_node(store: MemoryStore, name: str, *, there: bool = True) -> None:
    """The Node exists, or does not."""
    path = path_of(ResourceKey("Node", name))
    value = msgspec.json.encode({"kind": "Node", "metadata": {"name": name}, "spec": {}})
    await store.txn([], [PutOp(path, value) if there else DeleteOp(path)])


async def put_endpoint(store: MemoryStore, name: str, addresses: Sequence[Prefix] | None) -> None:
    """The endpoint has these addresses; None: it does not exist."""
    path = path_of(ResourceKey("WorkloadEndpoint", name, "shop"))
    spec = {"node": "h1", "orchestrator": "cni", "ipNetworks": [str(address) for address in addresses or ()]}
    value = msgspec.json.encode({"kind": "WorkloadEndpoint", "metadata": {"name": name, "namespace": "shop"}, "spec": spec})
    await store.txn([], [DeleteOp(path) if addresses is None else PutOp(path, value)])

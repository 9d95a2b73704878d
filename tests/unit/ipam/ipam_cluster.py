"""A store with a clock, and short ways to write to it and to say what is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from tabinet.ipam import blocks as algebra
from tabinet.ipam.client import IpamClient
from tabinet.ipam.plan import AssignRequest
from tabinet.lib.ip import Prefix
from tabinet.model.keys import Key, ResourceKey, path_of
from tabinet.store.api import DeleteOp, Op, PutOp
from tabinet.store.memory import MemoryStore

NOW = 1_767_322_800 * 10**9


@dataclass(slots=True)
class Cluster:
    """The store and its clock."""

    store: MemoryStore = field(default_factory=MemoryStore)
    now_ns: int = NOW

    def client(self) -> IpamClient:
        return IpamClient(self.store, now_ns=lambda: self.now_ns)

    async def put(self, key: str | Key, document: object) -> None:
        path = key if isinstance(key, str) else path_of(key)
        ops: Sequence[Op] = [DeleteOp(path)] if document is None else [PutOp(path, msgspec.json.encode(document))]
        await self.store.txn([], ops)

    async def pool(self, name: str, cidr: str, **spec: object) -> None:
        await self.put(ResourceKey("IPPool", name), {"kind": "IPPool", "metadata": {"name": name}, "spec": {"cidr": cidr, **spec}})

    async def node(self, name: str, **labels: str) -> None:
        await self.put(ResourceKey("Node", name), {"kind": "Node", "metadata": {"name": name, "labels": labels}})

    async def read(self, key: Key) -> algebra.Document | None:
        item = await self.store.get(path_of(key))
        return msgspec.json.decode(item.value) if item else None

    async def endpoint(self, name: str, *addresses: str, host: str = "h", **spec: object) -> None:
        document = {"kind": "WorkloadEndpoint", "metadata": {"name": name, "namespace": "shop"}}
        full = {"node": host, "orchestrator": "cni", "ipNetworks": list(addresses), **spec}
        await self.put(ResourceKey("WorkloadEndpoint", name, "shop"), document | {"spec": full})


def want(host: str = "h", handle: str = "w", count4: int = 1, count6: int = 0, **more: object) -> AssignRequest:
    return AssignRequest(host=host, handle=handle, count4=count4, count6=count6, **more)  # type: ignore[arg-type]


def texts(addresses: Sequence[Prefix]) -> list[str]:
    return [address.address for address in addresses]


def block_of(address: Prefix, length: int) -> Prefix:
    shift = address.bits - length
    return Prefix(address.family, address.value >> shift << shift, length)

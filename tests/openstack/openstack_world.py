"""Neutron and the etcd that its driver writes to, and what tests ask of the two."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from etcd_process import EtcdProcess
from fake_nova import Nova
from neutron_process import Neutron

from tabinet.attach.openstack.names import Region, endpoint_key, workload_of
from tabinet.model.keys import path_of
from tabinet.model.status import EndpointStatusKey, status_path_of
from tabinet.store.api import Datastore, DeleteOp, PutOp
from tabinet.store.open import StoreConfig, open_store

Document = dict[str, Any]
RESOURCES = "/calico/resources/v3/projectcalico.org/"
WITHIN_S = 60.0


def device() -> str:
    return str(uuid.uuid4())


@dataclass
class World:
    neutron: Neutron
    etcd: EtcdProcess
    nova: Nova
    secrets: StoreConfig | None = None
    """How to reach etcd, where its address is not enough."""

    def run(self, work: Callable[[Datastore], Awaitable[Any]]) -> Any:
        """Work with the store."""

        async def with_store() -> Any:
            store = await open_store(self.secrets or self.etcd.endpoint)
            try:
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(with_store())

    def stored(self, prefix: str = "/") -> dict[str, Document]:
        """Every document below a prefix."""

        async def read(store: Datastore) -> dict[str, Document]:
            return {item.key: json.loads(item.value) async for page in store.list(prefix) for item in page.items if item.value[:1] == b"{"}

        found: dict[str, Document] = self.run(read)
        return found

    def put(self, path: str, value: Document) -> None:
        self.run(lambda store: store.txn((), (PutOp(path, json.dumps(value).encode()),)))

    def delete(self, path: str) -> None:
        self.run(lambda store: store.txn((), (DeleteOp(path),)))

    def revision(self, path: str) -> int:
        """Of the store, when the path was written last."""
        item = self.run(lambda store: store.get(path))
        assert item is not None
        return int(item.revision)

    def endpoint_path(self, port: Document, host: str = "hosta") -> str:
        return path_of(endpoint_key(Region(), host, port["device_id"], port["id"]))

    def report(self, port: Document, status: str, *, host: str = "hosta", revision: int | None = None, reason: str = "") -> None:
        """The host's agent says this of the port; of the endpoint as it is, unless another revision is given."""
        key = EndpointStatusKey(host, "openstack", f"openstack/{workload_of(port['device_id'], port['id'])}", port["id"])
        revision = self.revision(self.endpoint_path(port, host)) if revision is None else revision
        self.put(status_path_of(key), {"status": status, "revision": revision, "reason": reason})

    def endpoint(self, port: Document, host: str = "") -> Document | None:
        """The endpoint of a port, on one host or on any."""
        prefix = f"{RESOURCES}workloadendpoints/openstack/{host}"
        ending = f"-{port['id'].replace('-', '--')}"
        found = [document for path, document in self.stored(prefix).items() if path.endswith(ending)]
        assert len(found) <= 1, found
        return found[0] if found else None

    def policy(self, group: Document) -> Document | None:
        """The policy of a security group."""
        return self.stored(f"{RESOURCES}networkpolicies/openstack/").get(f"{RESOURCES}networkpolicies/openstack/ossg.default.{group['id']}")

    def port(self, network: Document, *, host: str = "hosta", **fields: Any) -> Document:
        """A port of a virtual machine on a host."""
        wanted = {"device_owner": "compute:nova", "device_id": device(), "binding_host_id": host} | fields
        return self.neutron.create("port", network_id=network["id"], **wanted)

    def network(self, *cidrs: str, name: str = "net") -> Document:
        """A network with a subnet for each prefix."""
        network = self.neutron.create("network", name=name)
        for cidr in cidrs:
            more = {} if "." in cidr else {"ipv6_ra_mode": "dhcpv6-stateful", "ipv6_address_mode": "dhcpv6-stateful"}
            self.neutron.create("subnet", network_id=network["id"], ip_version=4 if "." in cidr else 6, cidr=cidr, **more)
        return network


def policy_path(group: Document) -> str:
    return f"{RESOURCES}networkpolicies/openstack/ossg.default.{group['id']}"


def eventually(question: Callable[[], Any], within_s: float = WITHIN_S) -> Any:
    """What the question comes to once it is true."""
    deadline = time.monotonic() + within_s
    while not (answer := question()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return answer

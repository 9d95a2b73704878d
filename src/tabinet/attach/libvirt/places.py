"""Where a domain's endpoints are in the store: on this host, on others, and between two of them while it moves.

In: store, host, domain. Out: keys, and the LiveMigration that leads from one host to this one. What a domain is called does not depend on
the host, so that it is looked for by name: O(hosts), a transaction for each hundred. What of this host is in the store is found in a
listing: O(endpoints of the cluster), when the agent starts.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from tabinet.attach.libvirt.domain import DOMAIN_ANNOTATION, ORCHESTRATOR, workload_of
from tabinet.attach.names import Workload
from tabinet.errors import DataError
from tabinet.model.codec import decode_document
from tabinet.model.endpoint_names import WorkloadEndpointName, parse_endpoint_name
from tabinet.model.keys import ResourceKey, kind_prefix, parse_path, path_of
from tabinet.model.resources import API_VERSION
from tabinet.store.api import Datastore, GetOp, PutOp

CHUNK = 100
"""Keys in one transaction: etcd takes 128 operations."""


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint of a domain on this host."""

    workload: Workload
    domain: str = ""
    """What libvirt calls the domain, where that was put down."""


def migration_key(target: ResourceKey) -> ResourceKey:
    """Of the migration to an endpoint."""
    return ResourceKey("LiveMigration", target.name, target.namespace)


async def find_elsewhere(store: Datastore, workload: Workload) -> list[Workload]:
    """The endpoints that the same interface of the same domain has on other hosts, by host.

    Raises:
        StoreError: the store does not answer.
    """
    hosts = [key.name async for key in _keys(store, "Node") if key.name != workload.node]
    others = [msgspec.structs.replace(workload, node=host) for host in sorted(hosts)]
    found: list[Workload] = []
    for chunk in _chunks(others):
        result = await store.txn([], [GetOp(path_of(each.key)) for each in chunk])
        found += [each for each, item in zip(chunk, result.values, strict=True) if item is not None]
    return found


async def begin_migration(store: Datastore, source: Workload, target: Workload) -> None:
    """The domain moves from one host to the other: nothing changes for its packets before it runs there.

    Raises:
        StoreError: the store does not answer.
    """
    key = migration_key(target.key)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    document = {
        "apiVersion": API_VERSION,
        "kind": "LiveMigration",
        "metadata": {"name": key.name, "namespace": key.namespace, "uid": str(uuid.uuid4()), "creationTimestamp": now},
        "spec": {"source": {"workloadEndpoint": _end(source)}, "target": {"workloadEndpoint": _end(target)}},
    }
    await store.txn([], [PutOp(path_of(key), msgspec.json.encode(document))])


def _end(workload: Workload) -> dict[str, str]:
    return {
        "hostname": workload.node,
        "orchestratorID": workload.orchestrator,
        "workloadID": f"{workload.namespace}/{workload.workload}",
        "endpointID": workload.endpoint,
    }


async def migrations_from(store: Datastore, workload: Workload) -> list[ResourceKey]:
    """The migrations that lead away from an endpoint, whose target is the same domain's.

    Raises:
        StoreError: the store does not answer.
    """
    own = _end(workload)
    found = []
    async for page in store.list(kind_prefix("LiveMigration")):
        for item in page.items:
            key = parse_path(item.key)
            if isinstance(key, ResourceKey) and key.namespace == workload.namespace and _source_in(item.value) == own:
                found.append(key)
    return found


def _source_in(value: bytes) -> Any:
    try:
        spec = decode_document(value).get("spec") or {}
    except DataError:
        return None
    return (spec.get("source") or {}).get("workloadEndpoint")


async def endpoints_here(store: Datastore, host: str) -> list[Stored]:
    """The endpoints of domains on this host, and those that a migration was to bring here.

    Raises:
        StoreError: the store does not answer.
    """
    found: dict[Workload, Stored] = {}
    for kind in ("LiveMigration", "WorkloadEndpoint"):
        async for page in store.list(kind_prefix(kind)):
            for item in page.items:
                key = parse_path(item.key)
                workload = _workload_in(key, host) if isinstance(key, ResourceKey) else None
                if workload is not None:
                    found[workload] = Stored(workload=workload, domain=_domain_in(item.value))
    return list(found.values())


def _workload_in(key: ResourceKey, host: str) -> Workload | None:
    """The workload that an endpoint, or a migration to it, is named after; None: not a domain of this host."""
    start = str(WorkloadEndpointName(host, ORCHESTRATOR, "x", "x")).removesuffix("x-x")
    if not key.name.startswith(start):
        return None
    try:
        name = parse_endpoint_name(key.name)
    except ValueError:
        return None
    return workload_of(name.node, key.namespace, name.workload, name.endpoint)


def _domain_in(value: bytes) -> str:
    try:
        metadata = decode_document(value).get("metadata") or {}
    except DataError:
        return ""
    return str((metadata.get("annotations") or {}).get(DOMAIN_ANNOTATION) or "")


async def _keys(store: Datastore, kind: str) -> AsyncIterator[ResourceKey]:
    async for page in store.list(kind_prefix(kind)):
        for item in page.items:
            key = parse_path(item.key)
            if isinstance(key, ResourceKey):
                yield key


def _chunks(items: Sequence[Workload]) -> Iterator[Sequence[Workload]]:
    for first in range(0, len(items), CHUNK):
        yield items[first : first + CHUNK]

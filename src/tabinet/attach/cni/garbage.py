"""GC: what no container of a network has any more is gone, on this host. And whose an endpoint is.

In: the attachments that are still valid (``cni.dev/valid-attachments``), as pairs of container and interface. Removed are endpoints of
this host and network that are not among them, with interface and addresses; and addresses of the host's blocks that were assigned for
others and that no endpoint has, such as an ADD leaves that was killed together with the agent. O(endpoints of the cluster): runtimes ask
for it seldom. Source: the CNI specification 1.1, section 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from tabinet.attach.cni.protocol import Call, Code
from tabinet.attach.cni.translate import NETWORK_ANNOTATION
from tabinet.attach.names import Workload
from tabinet.attach.netns import detach
from tabinet.attach.network import Network
from tabinet.errors import CniError, DataError, TabinetError
from tabinet.ipam.blocks import attributes_of, owner
from tabinet.ipam.client import IpamClient
from tabinet.ipam.owners import WORKLOAD, owner_for
from tabinet.ipam.reading import read_affinities, read_blocks
from tabinet.model.codec import decode_document
from tabinet.model.keys import kind_prefix
from tabinet.model.records.endpoints import WorkloadEndpointSpec
from tabinet.store.api import Datastore, KeyValue

Attached = tuple[str, str]
"""Container and interface."""


class _Found(msgspec.Struct, frozen=True):
    """An endpoint of a CNI network on this host."""

    workload: Workload
    attached: Attached
    network: str


def spec_in(item: KeyValue | None) -> dict[str, Any]:
    """The spec of an endpoint as it is stored; empty where there is none, or none that can be understood."""
    if item is None:
        return {}
    try:
        spec: dict[str, Any] = decode_document(item.value, item.key).get("spec") or {}
    except DataError:
        return {}
    return spec


async def collect(
    call: Call,
    host: str,
    store: Datastore,
    ipam: IpamClient,
    network: Network,
    interface_prefix: str,
    busy: Callable[[], set[str]] = set,
) -> None:
    """Nothing of the network is left on this host but what belongs to valid attachments, or is being attached (``busy``).

    Raises:
        CniError: the list of them cannot be understood.
        TabinetError: the first thing that could not be removed; all others were tried.
    """
    valid = valid_attachments(call)
    failed: list[TabinetError] = []
    used: set[str] = set()
    async for page in store.list(kind_prefix("WorkloadEndpoint")):
        for found in filter(None, (_of_network(item, host) for item in page.items)):
            if found.network != call.network or found.attached in valid or found.workload.handle in busy():
                used.add(found.workload.handle)
                continue
            try:
                await detach(found.workload, store, network=network, ipam=ipam, interface_prefix=interface_prefix)
            except TabinetError as error:
                failed.append(error)
                used.add(found.workload.handle)
    await _release_leftovers(call.network, valid, lambda: used | busy(), host, store, ipam)
    if failed:
        raise failed[0]


def valid_attachments(call: Call) -> frozenset[Attached]:
    """The attachments that the runtime knows.

    Raises:
        CniError: they are not told, or not as pairs.
    """
    listed = call.config.get("cni.dev/valid-attachments", call.config.get("cni.dev/attachments"))
    try:
        entries = msgspec.convert(listed, list[dict[str, str]])
        return frozenset((entry["containerID"], entry["ifname"]) for entry in entries)
    except (msgspec.ValidationError, KeyError):
        raise CniError(Code.CONFIG, f"cni.dev/valid-attachments: got {str(listed)[:60]!r}; a list of containerID and ifname") from None


async def _release_leftovers(
    network: str, valid: frozenset[Attached], used: Callable[[], set[str]], host: str, store: Datastore, ipam: IpamClient
) -> None:
    """Nobody but ``valid`` has addresses of the network; handles in use stay, whoever asked for their addresses first."""
    blocks = await read_blocks(store, await read_affinities(store, owner_for(WORKLOAD, host)))
    handles: set[str] = set()
    for block, stored in blocks.items():
        for attribute in attributes_of(stored.document, block).values() if stored.document is not None else ():
            notes = attribute.get("secondary") or {}
            mine = notes.get("network") == network and notes.get("node") == host
            if mine and (notes.get("container"), notes.get("interface")) not in valid and owner(attribute):
                handles.add(owner(attribute))
    for handle in sorted(handles):
        if handle not in used():
            await ipam.release_handle(handle)


def _of_network(item: KeyValue, host: str) -> _Found | None:
    """The endpoint, if it is one of a CNI network on this host."""
    try:
        document = decode_document(item.value, item.key)
        spec = msgspec.convert(document.get("spec") or {}, WorkloadEndpointSpec)
        metadata = document.get("metadata") or {}
        network = (metadata.get("annotations") or {}).get(NETWORK_ANNOTATION)
    except (DataError, msgspec.ValidationError, AttributeError):
        return None
    if spec.node != host or not network or not spec.container_id:
        return None
    pod = spec.orchestrator == "k8s"
    workload = Workload(
        node=host,
        workload=spec.pod if pod else spec.container_id,
        orchestrator=spec.orchestrator,
        endpoint=spec.endpoint,
        namespace=str(metadata.get("namespace") or "default"),
    )
    return _Found(workload, (spec.container_id, spec.endpoint), network)

"""What Docker has forgotten is removed: after a kill of the agent, of Docker, or of both, and after calls that failed half-way.

In: the endpoints of this host that were attached for Docker, the addresses that were given to it, and Docker's list of networks and
endpoints. Out: what Docker does not list is detached and released. The store is read before Docker is asked, so that whatever was there
before and is not listed now has been given up. An address is there before its endpoint, so the youngest are left for the next time.
O(endpoints of the cluster), after a start of the agent or of Docker, or a failure; never otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from tabinet.attach.cni.values import parse_addresses
from tabinet.attach.docker.daemon import Docker, DockerNetwork
from tabinet.attach.docker.translate import ORCHESTRATOR, workload_of
from tabinet.attach.names import Workload
from tabinet.attach.netns import detach
from tabinet.attach.network import Network
from tabinet.errors import DataError
from tabinet.ipam.blocks import attributes_of, owner
from tabinet.ipam.client import IpamClient
from tabinet.ipam.owners import WORKLOAD, owner_for
from tabinet.ipam.reading import read_affinities, read_blocks
from tabinet.lib.ip import Prefix
from tabinet.model.annotations import PORT_FORWARDS
from tabinet.model.codec import decode_document
from tabinet.model.forwards import PortForward, parse_forwards
from tabinet.model.keys import kind_prefix
from tabinet.model.records.endpoints import WorkloadEndpointSpec
from tabinet.store.api import Datastore, KeyValue

YOUNG_S = 10.0
"""Docker asks for an address a moment before it makes the endpoint; a loaded host takes longer for that, but not so long."""


@dataclass(frozen=True, slots=True)
class Leftovers:
    """Looks for them, and removes them."""

    host: str
    driver: str
    store: Datastore
    network: Network
    ipam: IpamClient
    docker: Docker
    interface_prefix: str
    busy: Callable[[], frozenset[str]]
    """Endpoints that Docker speaks about at the moment."""
    publish: Callable[[str, tuple[PortForward, ...]], None] = lambda *_: None
    """Takes the ports of the host that an endpoint publishes, if they are not taken for it."""

    async def collect(self, now_s: float) -> bool:
        """Nothing is left that Docker does not list; False: something was too young to tell.

        Raises:
            TabinetError: Docker, store or kernel did not answer, or somebody else has a port by now that is published.
        """
        ours = await self._endpoints()
        handles = await self._handles()
        networks = await self.docker.networks(self.driver)
        listed = _listed(networks) | self.busy()
        for workload in ours:
            if workload.endpoint not in listed:
                await detach(workload, self.store, network=self.network, ipam=self.ipam, interface_prefix=self.interface_prefix)
        kept = {workload: attached for workload, attached in ours.items() if workload.endpoint in listed}
        used = {address for attached in kept.values() for address in attached.addresses}
        given = _addresses(networks)
        unused = {handle: found for handle, found in handles.items() if found.address.address not in given and found.address not in used}
        old = [handle for handle, found in unused.items() if now_s - found.since_s >= YOUNG_S]
        for handle in old:
            await self.ipam.release_handle(handle)
        for workload, attached in kept.items():
            if attached.forwards:
                self.publish(workload.endpoint, attached.forwards)
        return len(old) == len(unused)

    async def _endpoints(self) -> dict[Workload, _Attached]:
        found: dict[Workload, _Attached] = {}
        async for page in self.store.list(kind_prefix("WorkloadEndpoint")):
            for item in page.items:
                if (attached := _of_docker(item, self.host)) is not None:
                    found[workload_of(self.host, attached.endpoint)] = attached
        return found

    async def _handles(self) -> dict[str, _Given]:
        """The addresses of this host's blocks that were given to Docker, by handle."""
        found: dict[str, _Given] = {}
        blocks = await read_blocks(self.store, await read_affinities(self.store, owner_for(WORKLOAD, self.host)))
        for block, stored in blocks.items():
            if stored.document is None:
                continue
            for address, attribute in attributes_of(stored.document, block).items():
                notes = attribute.get("secondary") or {}
                if notes.get("node") == self.host and owner(attribute).startswith(handle_prefix(self.host)):
                    found[owner(attribute)] = _Given(address, _seconds(notes.get("timestamp")))
        return found


class _Attached(msgspec.Struct, frozen=True, gc=False):
    endpoint: str
    addresses: frozenset[Prefix]
    forwards: tuple[PortForward, ...]


class _Given(msgspec.Struct, frozen=True, gc=False):
    address: Prefix
    since_s: float


def handle_prefix(host: str) -> str:
    """What the owners of addresses that this host's Docker asked for begin with."""
    return f"{ORCHESTRATOR}-{host}-"


def _listed(networks: tuple[DockerNetwork, ...]) -> frozenset[str]:
    return frozenset(endpoint.id for network in networks for endpoint in (network.containers or {}).values())


def _addresses(networks: tuple[DockerNetwork, ...]) -> frozenset[str]:
    endpoints = [endpoint for network in networks for endpoint in (network.containers or {}).values()]
    return frozenset(text.partition("/")[0] for endpoint in endpoints for text in (endpoint.address, endpoint.address6))


def _of_docker(item: KeyValue, host: str) -> _Attached | None:
    """The endpoint, if it is one of Docker's on this host."""
    try:
        document = decode_document(item.value, item.key)
        spec = msgspec.convert(document.get("spec") or {}, WorkloadEndpointSpec)
        if spec.node != host or spec.orchestrator != ORCHESTRATOR or not spec.endpoint:
            return None
        text = ((document.get("metadata") or {}).get("annotations") or {}).get(PORT_FORWARDS, "[]")
        return _Attached(spec.endpoint, frozenset(parse_addresses("ipNetworks", spec.ip_networks)), parse_forwards(text, item.key))
    except (DataError, msgspec.ValidationError):
        return None


def _seconds(text: object) -> float:
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else datetime.fromtimestamp(0, UTC)
    except ValueError:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()

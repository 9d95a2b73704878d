"""A network namespace as a workload: ``kind: namespace``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tabinet.attach.names import Workload as Identity
from tabinet.attach.netns import AttachRequest, attach
from tabinet.attach.network import LinuxNetwork
from tabinet.lab.component import Component
from tabinet.lab.kinds.kind import Endpoint, Session, Site
from tabinet.lab.topology import Topology, Workload
from tabinet.lib.ip import IPV4, IPV6
from tabinet.model.keys import ResourceKey
from tabinet.model.resources import EndpointPort

ORCHESTRATOR = "lab"


@dataclass(frozen=True, slots=True)
class NamespaceKind:
    """A namespace that the lab makes, attached through the same code as any other workload."""

    def missing(self) -> list[str]:
        return []

    def settings(self, site: Site) -> str:
        return ""

    def components(self, site: Site) -> Sequence[Component]:
        return ()

    async def attach(self, site: Site, session: Session, workload: Workload) -> None:
        request = request_of(site.plan.topology, workload, netns=site.namespace_of(workload))
        await attach(request, session.store, network=LinuxNetwork(site.namespace), ipam=session.ipam)

    async def wait(self, site: Site, workload: Workload) -> None:
        return None

    def is_endpoint(self, site: Site, workload: Workload, key: ResourceKey, endpoint: Endpoint) -> bool:
        return key == identity_of(workload).key

    def prober_socket(self, site: Site, workload: Workload) -> str:
        return ""


def identity_of(workload: Workload) -> Identity:
    """By which name a workload of the lab's own is attached."""
    return Identity(node=workload.host, workload=workload.name, orchestrator=ORCHESTRATOR, namespace=workload.namespace)


def request_of(topology: Topology, workload: Workload, *, netns: str = "", tap: str = "", mac: str = "") -> AttachRequest:
    """How a workload of the lab's own is attached: one address of each family that the lab has a pool of; behind a TAP none of IPv6."""
    families = [pool.family for pool in topology.pools]
    return AttachRequest(
        workload=identity_of(workload),
        netns=netns,
        tap=tap,
        mac=mac,
        count4=int(IPV4 in families),
        count6=int(IPV6 in families and not tap),
        labels=workload.labels,
        profiles=workload.profiles,
        ports=tuple(EndpointPort(name=port.name, protocol=port.protocol, port=port.port) for port in workload.ports),
    )

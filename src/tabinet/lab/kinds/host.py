"""A host itself as a workload: ``kind: host``. It is a member of the fabric with a host endpoint on all its interfaces, under policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tabinet.lab.component import Component
from tabinet.lab.kinds.kind import Endpoint, Session, Site
from tabinet.lab.topology import Workload
from tabinet.model.keys import ResourceKey
from tabinet.model.records.base import API_VERSION
from tabinet.store.client import ResourceClient

EVERY_INTERFACE = "*"


@dataclass(frozen=True, slots=True)
class HostKind:
    """Bare metal: nothing runs for it but what runs on each host."""

    def missing(self) -> list[str]:
        return []

    def settings(self, site: Site) -> str:
        return ""

    def components(self, site: Site) -> Sequence[Component]:
        return ()

    async def attach(self, site: Site, session: Session, workload: Workload) -> None:
        host = next(each for each in site.plan.hosts if each.name == workload.host)
        document = {
            "apiVersion": API_VERSION,
            "kind": "HostEndpoint",
            "metadata": {"name": workload.name, "labels": workload.labels},
            "spec": {
                "node": workload.host,
                "interfaceName": EVERY_INTERFACE,
                "expectedIPs": [item.address.address for item in host.addresses],
                "profiles": list(workload.profiles),
                "ports": [{"name": port.name, "protocol": port.protocol, "port": port.port} for port in workload.ports],
            },
        }
        await ResourceClient(session.store).apply(document)

    async def wait(self, site: Site, workload: Workload) -> None:
        return None

    def is_endpoint(self, site: Site, workload: Workload, key: ResourceKey, endpoint: Endpoint) -> bool:
        return key == ResourceKey("HostEndpoint", workload.name)

    def prober_socket(self, site: Site, workload: Workload) -> str:
        return ""

"""A TAP with one of Neutron's ports behind it as a workload: ``kind: tap``.

The endpoint and the subnets are what the Neutron driver writes; the TAP is there before, as Nova makes it. The guest is a network namespace
at the other end of a wire (``tabinet.lab.kinds.wire``): its kernel speaks for itself by ARP and neighbour discovery, it gets its IPv4
address by DHCP and its IPv6 address from router advertisements, both from the host's guest service.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from tabinet.attach.ready import judge_status
from tabinet.lab import vm
from tabinet.lab.build import in_namespace, run
from tabinet.lab.component import Component
from tabinet.lab.kinds import port
from tabinet.lab.kinds.facts import TAP
from tabinet.lab.kinds.kind import Endpoint, Session, Site, until
from tabinet.lab.routers import RouterFile
from tabinet.lab.topology import Workload
from tabinet.model.keys import ResourceKey, path_of
from tabinet.model.status import endpoint_status_path
from tabinet.store.api import PutOp
from tabinet.store.client import ResourceClient

INSIDE = "eth0"


@dataclass(frozen=True, slots=True)
class TapKind:
    """A wire and a DHCP client stand for the machine."""

    def missing(self) -> list[str]:
        return [] if vm.BUSYBOX.exists() else [f"workloads of kind tap need {vm.BUSYBOX}: apt-get install busybox-static"]

    def settings(self, site: Site) -> str:
        return ""

    def components(self, site: Site) -> Sequence[Component]:
        return [component for workload in site.workloads(TAP) for component in _guest(site, workload)]

    async def attach(self, site: Site, session: Session, workload: Workload) -> None:
        topology = site.plan.topology
        documents = port.subnet_documents(topology).items()
        await session.store.txn([], [PutOp(path, msgspec.json.encode(document)) for path, document in documents])
        await ResourceClient(session.store).apply(port.endpoint(topology, workload))
        await self._wait_programmed(site, session, workload)

    async def _wait_programmed(self, site: Site, session: Session, workload: Workload) -> None:
        key = port.key(site.plan.topology, workload)
        stored = await session.store.get(path_of(key))
        wanted = stored.revision if stored is not None else 0

        async def is_programmed() -> bool:
            return not judge_status(await session.store.get(endpoint_status_path(workload.host, key)), wanted)

        await until(is_programmed, f"{workload.name} is in the kernel of {workload.host}", site.directory.log(site.host, "agent"))

    async def wait(self, site: Site, workload: Workload) -> None:
        argv = in_namespace(site.namespace_of(workload), ["ip", "-o", "addr", "show", "dev", INSIDE, "-tentative"])
        wanted = [f" {address}/" for address in port.addresses(site.plan.topology, workload)]

        async def has_addresses() -> bool:
            shown = await run(argv)
            return all(each in shown for each in wanted)

        await until(has_addresses, f"{workload.name} has its addresses", site.directory.log(site.host, _client(workload)))

    def is_endpoint(self, site: Site, workload: Workload, key: ResourceKey, endpoint: Endpoint) -> bool:
        return key == port.key(site.plan.topology, workload)

    def prober_socket(self, site: Site, workload: Workload) -> str:
        return ""


def _client(workload: Workload) -> str:
    return f"dhcp-{workload.name}"


def _guest(site: Site, workload: Workload) -> list[Component]:
    namespace, lease = site.namespace_of(workload), f"{workload.name}.lease"
    wire = (sys.executable, "-m", "tabinet.lab.kinds.wire", port.interface(site.plan.topology, workload), namespace, INSIDE)
    script = f"chmod 755 {lease} && exec {vm.BUSYBOX} udhcpc -f -i {INSIDE} -s {site.node / lease} -T 1 -t 1000 -O 121 -O mtu"
    files = [RouterFile(lease, vm.LEASE)]
    return [
        site.component(f"wire-{workload.name}", wire, group=workload.name, late=True),
        site.component(_client(workload), ("sh", "-c", script), namespace=namespace, files=files, group=workload.name, late=True),
    ]

"""All kinds of workloads, by name."""

from __future__ import annotations

from tabinet.lab.kinds.docker import DockerKind
from tabinet.lab.kinds.facts import DOCKER, FACTS, HOST, LIBVIRT, NAMESPACE, PODMAN, TAP, VM
from tabinet.lab.kinds.host import HostKind
from tabinet.lab.kinds.kind import Kind, Site
from tabinet.lab.kinds.libvirt import LibvirtKind
from tabinet.lab.kinds.machine import MachineKind
from tabinet.lab.kinds.namespace import NamespaceKind
from tabinet.lab.kinds.openstack import TapKind
from tabinet.lab.kinds.podman import PodmanKind
from tabinet.lab.topology import Topology, Workload

KINDS: dict[str, Kind] = {
    NAMESPACE: NamespaceKind(),
    VM: MachineKind(),
    PODMAN: PodmanKind(),
    DOCKER: DockerKind(),
    LIBVIRT: LibvirtKind(),
    TAP: TapKind(),
    HOST: HostKind(),
}


def kinds_in(topology: Topology) -> dict[str, Kind]:
    """The kinds that the topology has workloads of."""
    return {name: kind for name, kind in KINDS.items() if topology.of_kind(name)}


def kind_of(workload: Workload) -> Kind:
    """The workload's kind."""
    return KINDS[workload.kind]


def asks_guest_service(site: Site) -> bool:
    """Whether a workload of the host gets its address from ``tabinet guest``."""
    return any(workload.host == site.host and FACTS[workload.kind].asks_guest_service for workload in site.plan.topology.workloads)


def needs_image(topology: Topology) -> bool:
    """Whether there is a machine in the lab that boots what the lab makes."""
    return bool(topology.of_kind(VM) or topology.of_kind(LIBVIRT))

"""Endpoints of workloads and hosts, and workloads that move."""

from __future__ import annotations

from typing import Annotated

from msgspec import field

from tabinet.model.formats import (
    Address,
    Address4,
    Address6,
    Cidr,
    ContainerId,
    Dscp,
    HostPrefix,
    Interface,
    InterfaceOrAll,
    Mac,
    NodeName,
    ObjectName,
    PortName,
    PortNumber,
    PortOrNone,
    Protocol,
    SelectorText,
    within_or_zero,
)
from tabinet.model.records.base import Record


class EndpointPort(Record, frozen=True, kw_only=True):
    """A port of a workload that has a name, or is mapped to a port of the host."""

    name: PortName = ""
    """Name by which rules mean the port; may be left out where there is a hostPort."""
    protocol: Protocol
    """TCP, UDP or SCTP."""
    port: PortNumber
    """Number of the port."""
    host_port: PortOrNone = 0
    """Port of the host that leads here; 0: none."""
    host_ip: Address = field(default="", name="hostIP")
    """Address of the host at which hostPort is open. Default: all of them."""


class HostEndpointPort(Record, frozen=True, kw_only=True):
    """A port of a host that has a name."""

    name: PortName
    """Name by which rules mean the port."""
    protocol: Protocol
    """TCP, UDP or SCTP."""
    port: PortNumber
    """Number of the port."""


class IpNat(Record, frozen=True, kw_only=True):
    """An address outside that stands for one of the endpoint's own, such as a floating IP."""

    internal_ip: HostPrefix = field(name="internalIP")
    """The endpoint's own address, one of ipNetworks."""
    external_ip: HostPrefix = field(name="externalIP")
    """The address outside, of the same family."""
    source: str = ""
    """Who asked for it; ``openstack`` for a floating IP of Neutron."""


_Bandwidth = Annotated[int, within_or_zero(1000, 10**15)]
_Burst = Annotated[int, within_or_zero(1000, 34_359_738_360)]
_Peakrate = Annotated[int, within_or_zero(1010, 1_010_000_000_000_000)]
_Minburst = Annotated[int, within_or_zero(1000, 10**8)]
_Packets = Annotated[int, within_or_zero(1, 10_000)]
_Connections = Annotated[int, within_or_zero(1, 0xFFFFFFFF)]


class QosControls(Record, frozen=True, kw_only=True):
    """Limits of what an endpoint may send and receive; 0 means no limit. Ingress is to the workload, egress from it."""

    ingress_bandwidth: _Bandwidth = 0
    """Most that the workload receives, in bit/s: 1000 to 10^15, or 0."""
    egress_bandwidth: _Bandwidth = 0
    """Most that the workload sends, in bit/s: 1000 to 10^15, or 0."""
    ingress_burst: _Burst = 0
    """What may arrive at once beyond the bandwidth, in bits: 1000 to 34359738360. Default: 4294967296 where there is a bandwidth."""
    egress_burst: _Burst = 0
    """What may be sent at once beyond the bandwidth, in bits: 1000 to 34359738360. Default: 4294967296 where there is a bandwidth."""
    ingress_peakrate: _Peakrate = 0
    """Most that arrives during a burst, in bit/s: 1010 to 1.01 * 10^15. Default: the speed of the interface."""
    egress_peakrate: _Peakrate = 0
    """Most that is sent during a burst, in bit/s: 1010 to 1.01 * 10^15. Default: the speed of the interface."""
    ingress_minburst: _Minburst = 0
    """Least that a burst at peak rate holds, in bytes: 1000 to 10^8. Default: the interface's MTU where there is a peak rate."""
    egress_minburst: _Minburst = 0
    """Least that a burst at peak rate holds, in bytes: 1000 to 10^8. Default: the interface's MTU where there is a peak rate."""
    ingress_packet_rate: _Packets = 0
    """Most packets/s that the workload receives: 1 to 10000, or 0."""
    egress_packet_rate: _Packets = 0
    """Most packets/s that the workload sends: 1 to 10000, or 0."""
    ingress_packet_burst: _Packets = 0
    """Packets that may arrive at once beyond the rate: 1 to 10000. Default: 5 where there is a packet rate."""
    egress_packet_burst: _Packets = 0
    """Packets that may be sent at once beyond the rate: 1 to 10000. Default: 5 where there is a packet rate."""
    ingress_max_connections: _Connections = 0
    """Most connections to the workload at a time: 1 to 4294967295, or 0."""
    egress_max_connections: _Connections = 0
    """Most connections from the workload at a time: 1 to 4294967295, or 0."""
    dscp: Dscp | None = None
    """Code point (RFC 2474) that is set on packets leaving the cluster: 0 to 63, or a name such as EF or AF11. Default: left as it is."""


class WorkloadEndpointSpec(Record, frozen=True, kw_only=True):
    """A network interface of a virtual machine, container or process."""

    orchestrator: str = ""
    """What made the workload: k8s, openstack, cni, libnetwork or a name of your own."""
    workload: str = ""
    """Name of the workload, as the orchestrator has it; part of the endpoint's name unless the orchestrator is k8s or cni."""
    node: NodeName = ""
    """Name of the host that the workload runs on."""
    container_id: ContainerId = field(default="", name="containerID")
    """Identifier of the container; part of the endpoint's name where the orchestrator is cni."""
    pod: str = ""
    """Name of the pod; part of the endpoint's name where the orchestrator is k8s."""
    endpoint: str = ""
    """Name of the interface within the workload, such as eth0."""
    ip_networks: tuple[HostPrefix, ...] = ()
    """Addresses of the endpoint, as /32 or /128; an endpoint without is not programmed."""
    ip_nats: tuple[IpNat, ...] = field(default=(), name="ipNATs")
    """Addresses outside that lead to addresses of the endpoint."""
    ipv4_gateway: Address4 = ""
    """Address that the workload uses as its IPv4 gateway. Default: 169.254.1.1."""
    ipv6_gateway: Address6 = ""
    """Address that the workload uses as its IPv6 gateway. Default: a link-local address of the host."""
    profiles: tuple[ObjectName, ...] = ()
    """Profiles of the endpoint: labels that it inherits, and rules, in this order, where no policy applies."""
    interface_name: Interface = ""
    """Name of the interface on the host, such as tap145be8b3-67."""
    mac: Mac = ""
    """MAC address of the interface within the workload."""
    ports: tuple[EndpointPort, ...] = ()
    """Ports with names, and ports that are mapped to ports of the host."""
    allow_spoofed_source_prefixes: tuple[Cidr, ...] = ()
    """Prefixes that the workload may send from besides its own addresses; counts only where workloadSourceSpoofing is Any."""
    service_account_name: str = ""
    """Name of the service account that the workload runs under."""
    qos_controls: QosControls | None = None
    """Limits of bandwidth, packets and connections."""
    allowed_ips: tuple[str, ...] = ()
    """Written by networking-calico beside ipNetworks, which holds the same addresses; has no meaning of its own."""


class HostEndpointSpec(Record, frozen=True, kw_only=True):
    """An interface of a host, or all of them, so that policy can apply to the host itself."""

    node: NodeName = ""
    """Name of the host; must be given."""
    interface_name: InterfaceOrAll = ""
    """Name of the interface, or ``*`` for all of the host's. Default: the interface that has one of expectedIPs."""
    expected_ips: tuple[Address, ...] = field(default=(), name="expectedIPs")
    """Addresses of the interface: they find it where interfaceName is absent, and stand for it in selectors of rules."""
    profiles: tuple[ObjectName, ...] = ()
    """Profiles of the endpoint: labels that it inherits, and rules, in this order, where no policy applies."""
    ports: tuple[HostEndpointPort, ...] = ()
    """Ports with names, which rules can use."""


class WorkloadIdentifier(Record, frozen=True, kw_only=True):
    """A workload."""

    hostname: str = ""
    """Name of the host that it runs on; not used for orchestrator k8s."""
    orchestrator_id: str = field(default="", name="orchestratorID")
    """What made it, such as k8s or openstack."""
    workload_id: str = field(default="", name="workloadID")
    """Name of the workload, with its namespace in front: ``<namespace>/<workload>``."""


class WorkloadEndpointIdentifier(WorkloadIdentifier, frozen=True, kw_only=True):
    """One endpoint of a workload."""

    endpoint_id: str = field(default="", name="endpointID")
    """Name of the endpoint within the workload."""


class LiveMigrationSource(Record, frozen=True, kw_only=True):
    """What moves, where it is now; either a workload or one endpoint."""

    workload: WorkloadIdentifier | None = None
    """The workload, with all of its endpoints."""
    workload_endpoint: WorkloadEndpointIdentifier | None = None
    """One endpoint."""


class LiveMigrationTarget(Record, frozen=True, kw_only=True):
    """What moves, where it will be; either found by its labels or one endpoint."""

    selector: SelectorText = ""
    """Labels of the workload that takes over."""
    workload_endpoint: WorkloadEndpointIdentifier | None = None
    """One endpoint."""


class LiveMigrationSpec(Record, frozen=True, kw_only=True):
    """A virtual machine on its way from one host to another."""

    source: LiveMigrationSource | None = None
    """Where it is."""
    target: LiveMigrationTarget | None = None
    """Where it goes; its routes win over those of the source while it moves."""

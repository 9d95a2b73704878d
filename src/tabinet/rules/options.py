"""What a table is made for besides policy: interface names, what workloads may ask of their host, failsafe ports, translation, logging."""

from __future__ import annotations

import enum

import msgspec

from tabinet.calc.messages import PortRange, Tunnel
from tabinet.lib.ip import Prefix


class HostAction(enum.Enum):
    """What happens to traffic from a workload to its own host after the workload's egress policy allowed it."""

    DROP = "Drop"
    ACCEPT = "Accept"
    RETURN = "Return"
    """As Accept: an nftables table cannot overrule the others, so the host's own firewall is asked in any case."""


class DenyAction(enum.Enum):
    """What happens to a packet that policy denies. What is denied for other reasons (spoofed, invalid, over a limit) is dropped."""

    DROP = "Drop"
    REJECT = "Reject"
    """TCP gets a reset, all else "administratively prohibited"."""


class ProtoPort(msgspec.Struct, frozen=True, gc=False):
    """A port of TCP, UDP, SCTP or UDP-Lite, for everyone or only for the peers in ``net``."""

    protocol: int
    port: int
    net: Prefix | None = None
    """Of the other end."""


class Metadata(msgspec.Struct, frozen=True, gc=False):
    """Where workloads' requests to 169.254.169.254 port 80 go (FelixConfiguration ``metadataAddr`` and ``metadataPort``)."""

    address: Prefix
    port: int


TCP, UDP, IPIP = 6, 17, 4
_SHARED_FAILSAFES = tuple(ProtoPort(TCP, port) for port in (179, 2379, 2380, 5473, 6443, 6666, 6667))
FAILSAFE_INBOUND = (ProtoPort(TCP, 22), ProtoPort(UDP, 68), *_SHARED_FAILSAFES)
"""FelixConfiguration ``failsafeInboundHostPorts`` when it says nothing."""
FAILSAFE_OUTBOUND = (ProtoPort(UDP, 53), ProtoPort(UDP, 67), *_SHARED_FAILSAFES)
"""FelixConfiguration ``failsafeOutboundHostPorts`` when it says nothing."""
CONTROL_PORTS = tuple(ProtoPort(UDP, port) for port in (3784, 3785, 4784))
"""BFD (RFC 5881, RFC 5883): without it the routes go, so that no host endpoint may forbid it. BGP is among the failsafe ports."""


class TableOptions(msgspec.Struct, frozen=True):
    """A table depends on these and on policy, on nothing else."""

    interface_prefixes: tuple[str, ...] = ("cali", "tap")
    """Interfaces whose names begin so are workloads' (FelixConfiguration ``interfacePrefix``). Never empty, none is empty."""
    endpoint_to_host: HostAction = HostAction.DROP
    protect_local_sources: bool = True
    """Drop what comes in through any other interface with the source address of a workload of this host."""
    check_hardware: bool = True
    """Drop what a workload with a known MAC sends with another one."""
    allow_source_prefixes: bool = True
    """``allowSpoofedSourcePrefixes`` of endpoints are heeded (FelixConfiguration ``workloadSourceSpoofing: Any``)."""
    deny: DenyAction = DenyAction.DROP
    host_services: tuple[ProtoPort, ...] = ()
    """What workloads may ask of their host whatever policy says, besides DHCP; ``net`` is the host's address. In OpenStack: UDP 53."""
    metadata: Metadata | None = None
    """Asked like ``host_services``."""
    deny_guest_servers: bool = False
    """Workloads may not answer DHCP, whatever policy says. In OpenStack."""
    failsafe_inbound: tuple[ProtoPort, ...] = FAILSAFE_INBOUND
    """Ports of this host that no host endpoint closes."""
    failsafe_outbound: tuple[ProtoPort, ...] = FAILSAFE_OUTBOUND
    """Ports of others that no host endpoint keeps this host from."""
    nat_ports: PortRange | None = None
    """Source ports of natOutgoing for TCP and UDP (``natPortRange``); None: any."""
    nat_addresses: tuple[Prefix, ...] = ()
    """Source addresses of natOutgoing, one of a family at most (``natOutgoingAddress``); else that of the outgoing interface."""
    nat_spares_hosts: bool = False
    """natOutgoing leaves traffic to hosts of the fabric alone (``natOutgoingExclusions: IPPoolsAndHostIPs``)."""
    floating_addresses: bool = True
    """``ipNATs`` are heeded (``floatingIPs``)."""
    floating_sources: bool = True
    """What an endpoint with a floating address sends to addresses outside all pools comes from its floating address."""
    dispatch_from: int = 4
    """Fewest adjacent policies of a tier that are asked by protocol and port instead of one after the other."""
    vxlan_port: int = 4789
    """UDP port of VXLAN (FelixConfiguration ``vxlanPort``)."""
    tunnels_off: frozenset[Tunnel] = frozenset()
    """Tunnels that this host takes no part in, whatever pools say."""
    workloads_send_vxlan: bool = False
    """Workloads may send VXLAN packets (FelixConfiguration ``allowVXLANPacketsFromWorkloads``)."""
    workloads_send_ipip: bool = False
    """Workloads may send IP-in-IP packets (FelixConfiguration ``allowIPIPPacketsFromWorkloads``)."""
    log_group: int = 1
    """nfnetlink_log group of Log rules."""
    log_per_second: int = 10
    log_burst: int = 20
    middle_group: int = 5484
    """nfnetlink_log group of denied TCP packets that no connection is known for (``dataplane.adoption``)."""

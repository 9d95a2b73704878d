"""Hosts, and what is known of their BGP."""

from __future__ import annotations

from typing import Annotated

from msgspec import field

from tabinet.model.formats import Address4, Address6, AsNumber, Cidr, Cidr4, Cidr6, ClusterId, Mac, NodeName, WireguardKey, one_of, within
from tabinet.model.records.base import Record


class NodeBgp(Record, frozen=True, kw_only=True):
    """BGP of a host; a host without takes no part in BGP."""

    ipv4_address: Cidr4 = ""
    """IPv4 address of the host, with the length of its subnet, as in ``172.18.0.2/24``."""
    ipv6_address: Cidr6 = ""
    """IPv6 address of the host, with the length of its subnet."""
    as_number: AsNumber | None = None
    """AS number of the host: 1 to 4294967295, or dotted as in "1.10". Default: that of the BGPConfiguration."""
    route_reflector_cluster_id: ClusterId = field(default="", name="routeReflectorClusterID")
    """Cluster identifier (RFC 4456), written as an IPv4 address; makes the host a route reflector."""
    ipv4_ipip_tunnel_addr: Address4 = field(default="", name="ipv4IPIPTunnelAddr")
    """Address of the host's end of IP-in-IP tunnels."""


class OrchRef(Record, frozen=True, kw_only=True):
    """Name that an orchestrator has for a host."""

    node_name: str = ""
    """The name."""
    orchestrator: str = ""
    """The orchestrator, such as k8s."""


class NodeAddress(Record, frozen=True, kw_only=True):
    """An address of a host."""

    address: Cidr
    """The address."""
    type: Annotated[str, one_of("CalicoNodeIP", "InternalIP", "ExternalIP")] = ""
    """What the address is for."""


class NodeWireguard(Record, frozen=True, kw_only=True):
    """Addresses of a host's WireGuard interfaces."""

    interface_ipv4_address: Address4 = field(default="", name="interfaceIPv4Address")
    """Address of the IPv4 interface."""
    interface_ipv6_address: Address6 = field(default="", name="interfaceIPv6Address")
    """Address of the IPv6 interface."""


class NodeInterface(Record, frozen=True, kw_only=True):
    """A network interface of a host."""

    name: str = ""
    """Name of the interface."""
    addresses: tuple[Cidr, ...] = ()
    """Its addresses."""


class NodeStatus(Record, frozen=True, kw_only=True):
    """What the host's agent reports."""

    wireguard_public_key: WireguardKey = ""
    """Public key of WireGuard for IPv4: 32 bytes in base64."""
    wireguard_public_key_v6: WireguardKey = field(default="", name="wireguardPublicKeyV6")
    """Public key of WireGuard for IPv6: 32 bytes in base64."""
    pod_cidrs: tuple[Cidr, ...] = field(default=(), name="podCIDRs")
    """Prefixes that Kubernetes has given to the host."""


class NodeSpec(Record, frozen=True, kw_only=True):
    """A host."""

    bgp: NodeBgp | None = None
    """BGP of the host: addresses, AS number, route reflection."""
    ipv4_vxlan_tunnel_addr: Address4 = field(default="", name="ipv4VXLANTunnelAddr")
    """Address of the host's end of VXLAN tunnels for IPv4."""
    ipv6_vxlan_tunnel_addr: Address6 = field(default="", name="ipv6VXLANTunnelAddr")
    """Address of the host's end of VXLAN tunnels for IPv6."""
    vxlan_tunnel_mac_addr: Mac = field(default="", name="vxlanTunnelMACAddr")
    """MAC address of the VXLAN interface for IPv4."""
    vxlan_tunnel_mac_addr_v6: Mac = field(default="", name="vxlanTunnelMACAddrV6")
    """MAC address of the VXLAN interface for IPv6."""
    orch_refs: tuple[OrchRef, ...] = ()
    """Names that orchestrators have for the host."""
    wireguard: NodeWireguard | None = None
    """Addresses of the WireGuard interfaces."""
    addresses: tuple[NodeAddress, ...] = ()
    """Addresses of the host."""
    interfaces: tuple[NodeInterface, ...] = ()
    """Network interfaces of the host."""


class BgpDaemonStatus(Record, frozen=True, kw_only=True):
    """State of BIRD."""

    state: Annotated[str, one_of("Ready", "NotReady")] = ""
    """Ready once BIRD answers and has read its configuration."""
    version: str = ""
    """Version of BIRD."""
    router_id: str = field(default="", name="routerID")
    """Router ID, written as an IPv4 address."""
    last_boot_time: str = ""
    """When BIRD was started."""
    last_reconfiguration_time: str = ""
    """When BIRD last read its configuration."""


class NodeAgentStatus(Record, frozen=True, kw_only=True):
    """State of the routing daemons of a host."""

    bird_v4: BgpDaemonStatus | None = field(default=None, name="birdV4")
    """BIRD for IPv4."""
    bird_v6: BgpDaemonStatus | None = field(default=None, name="birdV6")
    """BIRD for IPv6."""


class BgpSessionStatus(Record, frozen=True, kw_only=True):
    """State of a BGP session."""

    peer_ip: str = field(default="", name="peerIP")
    """Address of the peer."""
    type: Annotated[str, one_of("NodeMesh", "NodePeer", "GlobalPeer")] = ""
    """Where the session comes from: the mesh, a BGPPeer for this host, or one for all."""
    state: Annotated[str, one_of("Idle", "Connect", "Active", "OpenSent", "OpenConfirm", "Established", "Close")] = ""
    """State of the session (RFC 4271)."""
    since: str = ""
    """Since when."""


class NodeBgpStatus(Record, frozen=True, kw_only=True):
    """BGP sessions of a host."""

    number_established_v4: int = field(default=0, name="numberEstablishedV4")
    """IPv4 sessions that are up."""
    number_not_established_v4: int = field(default=0, name="numberNotEstablishedV4")
    """IPv4 sessions that are not."""
    number_established_v6: int = field(default=0, name="numberEstablishedV6")
    """IPv6 sessions that are up."""
    number_not_established_v6: int = field(default=0, name="numberNotEstablishedV6")
    """IPv6 sessions that are not."""
    peers_v4: tuple[BgpSessionStatus, ...] = field(default=(), name="peersV4")
    """Each IPv4 session."""
    peers_v6: tuple[BgpSessionStatus, ...] = field(default=(), name="peersV6")
    """Each IPv6 session."""


class RouteOrigin(Record, frozen=True, kw_only=True):
    """Where a route was learned."""

    source_type: Annotated[str, one_of("Kernel", "Static", "Direct", "NodeMesh", "BGPPeer")] = ""
    """Kind of source."""
    peer_ip: str = field(default="", name="peerIP")
    """Address of the peer that told it, for NodeMesh and BGPPeer."""


class NodeRoute(Record, frozen=True, kw_only=True):
    """A route that BIRD knows."""

    type: Annotated[str, one_of("FIB", "RIB")] = ""
    """FIB: packets follow it. RIB: known, but another one is better."""
    destination: str = ""
    """Prefix that it leads to."""
    gateway: str = ""
    """Next hop."""
    interface: str = ""
    """Interface that it leaves through."""
    learned_from: RouteOrigin | None = None
    """Where it was learned."""


class NodeRoutes(Record, frozen=True, kw_only=True):
    """Routes of a host."""

    routes_v4: tuple[NodeRoute, ...] = field(default=(), name="routesV4")
    """IPv4 routes."""
    routes_v6: tuple[NodeRoute, ...] = field(default=(), name="routesV6")
    """IPv6 routes."""


class CalicoNodeStatusSpec(Record, frozen=True, kw_only=True):
    """A request to report the state of a host."""

    node: NodeName = ""
    """Name of the host; must be given."""
    classes: tuple[Annotated[str, one_of("Agent", "BGP", "Routes")], ...] = ()
    """What to report: state of BIRD, of the BGP sessions, routes; at least one, none twice."""
    update_period_seconds: Annotated[int, within(0, 86_400)] | None = None
    """Seconds between reports: 1 to 86400; 0: no more reports. Default: 10."""


class CalicoNodeStatusStatus(Record, frozen=True, kw_only=True):
    """The report."""

    last_updated: str | None = None
    """When it was written: RFC 3339, UTC."""
    agent: NodeAgentStatus | None = None
    """State of BIRD."""
    bgp: NodeBgpStatus | None = None
    """BGP sessions."""
    routes: NodeRoutes | None = None
    """Routes that BIRD knows."""

"""BGP: settings, peers, filters."""

from __future__ import annotations

from typing import Annotated

from msgspec import field

from tabinet.model.formats import (
    Address,
    Address4,
    Address6,
    AsNumber,
    ClusterRoutes,
    CommunityValue,
    Duration,
    InterfacePattern,
    InterfacePatternOrAll,
    LogLevel,
    Net,
    Net4,
    Net6,
    NodeName,
    ObjectName,
    Peer,
    PortOrNone,
    SelectorText,
    Switch,
    one_of,
    within,
)
from tabinet.model.records.base import Record


class ServiceBlock(Record, frozen=True, kw_only=True):
    """A prefix of addresses of Kubernetes services."""

    cidr: Net
    """The prefix."""


class Community(Record, frozen=True, kw_only=True):
    """A name for a BGP community."""

    name: ObjectName = ""
    """The name; must be given."""
    value: CommunityValue = ""
    """The community: two numbers up to 65535 (RFC 1997) or three up to 4294967295 (RFC 8092), with colons; must be given."""


class PrefixAdvertisement(Record, frozen=True, kw_only=True):
    """Communities for routes that are told to peers."""

    cidr: Net = ""
    """Routes within this prefix; must be given."""
    communities: tuple[str, ...] = ()
    """Communities that they get: names from communities, or values."""


class SecretKeySelector(Record, frozen=True, kw_only=True):
    """A value in a Kubernetes secret."""

    name: str = ""
    """Name of the secret."""
    key: str = ""
    """Key in the secret; must be given."""
    optional: bool | None = None
    """True: the secret may be missing."""


class BgpPassword(Record, frozen=True, kw_only=True):
    """Password of BGP sessions (TCP MD5, RFC 2385)."""

    secret_key_ref: SecretKeySelector | None = None
    """Where the password is kept."""


RoutePriority = Annotated[int, within(1, 2_147_483_646)]


class BGPConfigurationSpec(Record, frozen=True, kw_only=True):
    """Settings of BGP: ``default`` for all hosts, ``node.<name>`` for one."""

    log_severity_screen: LogLevel = ""
    """Least severity that BIRD logs. Default: Info."""
    node_to_node_mesh_enabled: bool | None = None
    """True: every host peers with every other one. Default: true."""
    as_number: AsNumber | None = None
    """AS number of hosts that have none of their own: 1 to 4294967295, or dotted as in "1.10". Default: 64512."""
    listen_port: PortOrNone = 0
    """TCP port that BGP listens on: 1 to 65535. Default: 179."""
    bind_mode: Annotated[str, one_of("None", "NodeIP")] = ""
    """NodeIP: listen on the host's own address only. Default: None, on all addresses."""
    ignored_interfaces: tuple[InterfacePattern, ...] = ()
    """Interfaces whose routes are not told to peers; ``*`` stands for anything within a name."""
    node_mesh_password: BgpPassword | None = None
    """Password of the sessions of the mesh; only in ``default``, and only while the mesh is on."""
    node_mesh_max_restart_time: Duration = ""
    """How long peers of the mesh keep routes of a restarting host, such as 120s; only in ``default``. Default: 120s."""
    communities: tuple[Community, ...] = ()
    """Names for BGP communities, for use in prefixAdvertisements."""
    prefix_advertisements: tuple[PrefixAdvertisement, ...] = ()
    """Communities for routes, by prefix."""
    service_cluster_ips: tuple[ServiceBlock, ...] = field(default=(), name="serviceClusterIPs")
    """Prefixes of cluster addresses of Kubernetes services that are told to peers."""
    service_external_ips: tuple[ServiceBlock, ...] = field(default=(), name="serviceExternalIPs")
    """Prefixes of external addresses of Kubernetes services that may be told to peers."""
    service_load_balancer_ips: tuple[ServiceBlock, ...] = field(default=(), name="serviceLoadBalancerIPs")
    """Prefixes of load balancer addresses of Kubernetes services that may be told to peers."""
    service_load_balancer_aggregation: Switch = ""
    """Enabled: whole prefixes of load balancer addresses are told; Disabled: single addresses. Default: Enabled."""
    local_workload_peering_ip_v4: Address4 = field(default="", name="localWorkloadPeeringIPV4")
    """IPv4 address at which the host peers with its own workloads."""
    local_workload_peering_ip_v6: Address6 = field(default="", name="localWorkloadPeeringIPV6")
    """IPv6 address at which the host peers with its own workloads."""
    ipv4_normal_route_priority: RoutePriority | None = None
    """Metric of IPv4 routes in the kernel, lower wins: 1 to 2147483646. Default: 1024."""
    ipv6_normal_route_priority: RoutePriority | None = None
    """Metric of IPv6 routes in the kernel, lower wins: 1 to 2147483646. Default: 1024."""
    program_cluster_routes: ClusterRoutes = ""
    """Which routes between hosts of the cluster BIRD puts into the kernel of Calico's hosts. Tabinet's hosts always have all of them."""


class BGPPeerSpec(Record, frozen=True, kw_only=True):
    """BGP sessions that hosts keep besides the mesh."""

    node: NodeName = ""
    """Name of the one host that has the session. Default: all hosts."""
    node_selector: SelectorText = ""
    """Hosts that have the session, by their labels; instead of node."""
    peer_ip: Peer = field(default="", name="peerIP")
    """Address of the peer, or address and port: ``10.0.0.1:1179``, ``[fd00::1]:1179``."""
    as_number: AsNumber | None = None
    """AS number of the peer: 1 to 4294967295, or dotted as in "1.10"; needed with peerIP and localWorkloadSelector."""
    peer_selector: SelectorText = ""
    """Hosts to peer with, by their labels; instead of peerIP and asNumber."""
    local_workload_selector: SelectorText = ""
    """Workloads on the same host to peer with, by their labels; instead of peerIP."""
    local_as_number: AsNumber | None = field(default=None, name="localASNumber")
    """AS number that the host gives as its own in this session. Default: the host's AS number."""
    num_allowed_local_as_numbers: Annotated[int, within(0, 255)] = field(default=0, name="numAllowedLocalASNumbers")
    """How often the host's own AS number may stand in the path of a received route: 0 to 255; more than 0 weakens the protection from
    loops."""
    next_hop_mode: Annotated[str, one_of("Auto", "Self", "Keep")] = ""
    """Next hop of routes told to the peer: as BGP has it, the host itself, or as it was received. Default: Auto."""
    keep_original_next_hop: bool = False
    """Older form of nextHopMode Keep; not together with nextHopMode."""
    source_address: Annotated[str, one_of("UseNodeIP", "None")] = ""
    """UseNodeIP: the session comes from the host's own address; None: the kernel chooses. Default: UseNodeIP."""
    password: BgpPassword | None = None
    """Password of the session."""
    max_restart_time: Duration = ""
    """How long routes of a restarting peer are kept, such as 120s. Default: 120s."""
    keepalive_time: Duration = ""
    """Time between signs of life, such as 20s; the peer is given up after three times that. Default: as BIRD has it."""
    ttl_security: Annotated[int, within(0, 255, stored=True)] | None = None
    """Hops to the peer, 1 to 255: packets from further away are dropped (GTSM, RFC 5082). Default: off."""
    reachable_by: Address = ""
    """Gateway through which the peer is reached, of the family of peerIP; a route to the peer is added."""
    filters: tuple[ObjectName, ...] = ()
    """Names of BGPFilters, applied in this order."""
    reverse_peering: Annotated[str, one_of("Auto", "Manual")] = ""
    """Auto: hosts found by peerSelector peer back by themselves; Manual: they need a BGPPeer of their own. Default: Auto."""
    failure_detection_mode: Annotated[str, one_of("None", "BFDIfDirectlyConnected")] = ""
    """BFDIfDirectlyConnected: the path is watched with BFD (RFC 5880) where the peer is on a subnet of the host. Default:
    BFDIfDirectlyConnected."""


class PrefixLengthV4(Record, frozen=True, kw_only=True):
    """Lengths of IPv4 prefixes."""

    min: Annotated[int, within(0, 32, stored=True)] | None = None
    """Shortest length, 0 to 32. Default: that of cidr."""
    max: Annotated[int, within(0, 32, stored=True)] | None = None
    """Longest length, 0 to 32. Default: 32."""


class PrefixLengthV6(Record, frozen=True, kw_only=True):
    """Lengths of IPv6 prefixes."""

    min: Annotated[int, within(0, 128, stored=True)] | None = None
    """Shortest length, 0 to 128. Default: that of cidr."""
    max: Annotated[int, within(0, 128, stored=True)] | None = None
    """Longest length, 0 to 128. Default: 128."""


class CommunityMatch(Record, frozen=True, kw_only=True):
    """Routes by their communities."""

    values: tuple[CommunityValue, ...]
    """Communities that the route must carry; exactly one."""


class AddCommunity(Record, frozen=True, kw_only=True):
    """A community is added to the route."""

    value: CommunityValue
    """The community."""


class PrependASPath(Record, frozen=True, kw_only=True):
    """AS numbers are put in front of the route's path."""

    prefix: tuple[AsNumber, ...]
    """The AS numbers, 1 to 10 of them; the path begins with the first."""


class SetPriority(Record, frozen=True, kw_only=True):
    """The route gets another priority."""

    value: RoutePriority
    """The priority, lower wins: 1 to 2147483646."""


class FilterOperation(Record, frozen=True, kw_only=True):
    """One change of a route; exactly one of the fields."""

    add_community: AddCommunity | None = None
    """Add a community."""
    prepend_as_path: PrependASPath | None = field(default=None, name="prependASPath")
    """Make the path longer."""
    set_priority: SetPriority | None = None
    """Set the priority."""


class FilterRule(Record, frozen=True, kw_only=True):
    """What both families of filter rules have; everything that is given must match."""

    source: Annotated[str, one_of("RemotePeers", stored=True)] = ""
    """RemotePeers: only routes that were learned from BGP peers. Default: all routes."""
    interface: InterfacePatternOrAll = ""
    """Only routes that leave through an interface of this name; ``*`` stands for anything. Default: any interface."""
    match_operator: Annotated[str, one_of("Equal", "NotEqual", "In", "NotIn", stored=True)] = ""
    """How the route's prefix is compared with cidr: the same, within, or not so; needed with cidr."""
    peer_type: Annotated[str, one_of("eBGP", "iBGP", stored=True)] = ""
    """Only for peers of another AS (eBGP) or of the same (iBGP). Default: both."""
    communities: CommunityMatch | None = None
    """Only routes that carry a community."""
    as_path_prefix: tuple[AsNumber, ...] = ()
    """Only routes whose AS path begins with these AS numbers."""
    priority: RoutePriority | None = None
    """Only routes with this priority: 1 to 2147483646."""
    action: Annotated[str, one_of("Accept", "Reject", stored=True)]
    """What happens to routes that match; the first rule that matches decides, and without one the route is accepted."""
    operations: tuple[FilterOperation, ...] = ()
    """Changes of routes that are accepted, in order; 1 to 10, only with action Accept."""


class FilterRuleV4(FilterRule, frozen=True, kw_only=True):
    """A filter rule for IPv4 routes; everything that is given must match."""

    cidr: Net4 = ""
    """Prefix that the route's is compared with, as matchOperator says. Default: any prefix."""
    prefix_length: PrefixLengthV4 | None = None
    """Lengths that the route's prefix may have; only with cidr."""


class FilterRuleV6(FilterRule, frozen=True, kw_only=True):
    """A filter rule for IPv6 routes; everything that is given must match."""

    cidr: Net6 = ""
    """Prefix that the route's is compared with, as matchOperator says. Default: any prefix."""
    prefix_length: PrefixLengthV6 | None = None
    """Lengths that the route's prefix may have; only with cidr."""


class BGPFilterSpec(Record, frozen=True, kw_only=True):
    """Which routes are told to and taken from peers that name the filter."""

    export_v4: tuple[FilterRuleV4, ...] = field(default=(), name="exportV4")
    """Rules for IPv4 routes that are told to the peer, in order."""
    import_v4: tuple[FilterRuleV4, ...] = field(default=(), name="importV4")
    """Rules for IPv4 routes that are taken from the peer, in order."""
    export_v6: tuple[FilterRuleV6, ...] = field(default=(), name="exportV6")
    """Rules for IPv6 routes that are told to the peer, in order."""
    import_v6: tuple[FilterRuleV6, ...] = field(default=(), name="importV6")
    """Rules for IPv6 routes that are taken from the peer, in order."""

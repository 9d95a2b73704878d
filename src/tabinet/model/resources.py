"""The resources of ``projectcalico.org/v3`` as typed, frozen records.

These are the *typed views* that the calculation and the commands work with. A writer never rebuilds a document from a
view: it edits the plain document (a ``dict``), so that fields which we do not know survive (see ``codec``). Attribute
names are the JSON names in snake_case. Absent lists are empty tuples; absent numbers and texts are ``None`` where absence
means something. Everything here is data: no defaults that depend on other fields (see ``defaults``), no validation
beyond types when decoded. The annotations (``Net``, ``SelectorText``, ...) name formats of ``formats``: to a type checker they are plain
texts and numbers; ``validate`` and ``semantics`` judge by them.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import field

from tabinet.model import felix
from tabinet.model.formats import (
    Action,
    Address,
    Address4,
    Address6,
    AsNumber,
    Cidr,
    Cidr4,
    Cidr6,
    ClusterId,
    CommunityValue,
    Duration,
    HostPrefix,
    IcmpCode,
    IcmpType,
    Interface,
    InterfacePattern,
    IpVersion,
    LogLevel,
    Mac,
    NamespaceSelectorText,
    Net,
    NodeName,
    ObjectName,
    Peer,
    PolicyType,
    Port,
    PortName,
    PortNumber,
    PortOrNone,
    Protocol,
    SelectorText,
    TierAction,
    one_of,
    within,
)

API_VERSION = "projectcalico.org/v3"


class Record(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False):
    """Base of all records: camelCase on the wire, defaults omitted, unknown fields ignored."""


class Metadata(Record, frozen=True, kw_only=True):
    """Name, labels and bookkeeping of a resource. ``resource_version`` is etcd's mod_revision and never stored."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    creation_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    resource_version: str = ""


# --- policy ---------------------------------------------------------------------------------------------------------


class ServiceAccountMatch(Record, frozen=True, kw_only=True):
    names: tuple[ObjectName, ...] = ()
    selector: SelectorText = ""


class ServiceMatch(Record, frozen=True, kw_only=True):
    name: str = ""
    namespace: str = ""


class EntityRule(Record, frozen=True, kw_only=True):
    """One side (source or destination) of a rule."""

    nets: tuple[Net, ...] = ()
    not_nets: tuple[Net, ...] = ()
    selector: SelectorText = ""
    not_selector: SelectorText = ""
    namespace_selector: NamespaceSelectorText = ""
    services: ServiceMatch | None = None
    ports: tuple[Port, ...] = ()
    """A number, ``"a:b"``, or the name of an endpoint's port."""
    not_ports: tuple[Port, ...] = ()
    service_accounts: ServiceAccountMatch | None = None


class IcmpMatch(Record, frozen=True, kw_only=True):
    type: IcmpType | None = None
    code: IcmpCode | None = None


class HttpPath(Record, frozen=True, kw_only=True):
    exact: str = ""
    prefix: str = ""


class HttpMatch(Record, frozen=True, kw_only=True):
    methods: tuple[str, ...] = ()
    paths: tuple[HttpPath, ...] = ()


class RuleMetadata(Record, frozen=True, kw_only=True):
    annotations: dict[str, str] = {}


class Rule(Record, frozen=True, kw_only=True):
    """One policy rule; everything that is given must match."""

    action: Action
    """Allow, Deny, Log or Pass."""
    ip_version: IpVersion | None = None
    protocol: Protocol | None = None
    not_protocol: Protocol | None = None
    icmp: IcmpMatch | None = None
    not_icmp: IcmpMatch | None = field(default=None, name="notICMP")
    source: EntityRule = EntityRule()
    destination: EntityRule = EntityRule()
    http: HttpMatch | None = None
    metadata: RuleMetadata | None = None


class NetworkPolicySpec(Record, frozen=True, kw_only=True):
    tier: ObjectName = "default"
    order: float | None = None
    selector: SelectorText = ""
    types: tuple[PolicyType, ...] = ()
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()
    service_account_selector: SelectorText = ""
    performance_hints: tuple[Annotated[str, one_of("AssumeNeededOnEveryNode")], ...] = ()


class GlobalNetworkPolicySpec(NetworkPolicySpec, frozen=True, kw_only=True):
    namespace_selector: SelectorText = ""
    do_not_track: bool = False
    pre_dnat: bool = field(default=False, name="preDNAT")
    apply_on_forward: bool = False


class TierSpec(Record, frozen=True, kw_only=True):
    order: float | None = None
    default_action: TierAction = "Deny"


class ProfileSpec(Record, frozen=True, kw_only=True):
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()
    labels_to_apply: dict[str, str] = {}


class NetworkSetSpec(Record, frozen=True, kw_only=True):
    nets: tuple[Cidr, ...] = ()


# --- endpoints ------------------------------------------------------------------------------------------------------


class EndpointPort(Record, frozen=True, kw_only=True):
    name: PortName = ""
    protocol: Protocol
    port: PortNumber
    host_port: PortOrNone = 0
    host_ip: Address = field(default="", name="hostIP")


class IpNat(Record, frozen=True, kw_only=True):
    internal_ip: HostPrefix = field(name="internalIP")
    external_ip: HostPrefix = field(name="externalIP")
    source: str = ""
    """``openstack`` for a floating IP."""


class QosControls(Record, frozen=True, kw_only=True):
    """Rates in bit/s or packet/s; 0 means no limit."""

    ingress_bandwidth: int = 0
    egress_bandwidth: int = 0
    ingress_burst: int = 0
    egress_burst: int = 0
    ingress_peakrate: int = 0
    egress_peakrate: int = 0
    ingress_minburst: int = 0
    egress_minburst: int = 0
    ingress_packet_rate: int = 0
    egress_packet_rate: int = 0
    ingress_packet_burst: int = 0
    egress_packet_burst: int = 0
    ingress_max_connections: int = 0
    egress_max_connections: int = 0
    dscp: int | str | None = None


class WorkloadEndpointSpec(Record, frozen=True, kw_only=True):
    orchestrator: str = ""
    workload: str = ""
    node: NodeName = ""
    container_id: str = field(default="", name="containerID")
    pod: str = ""
    endpoint: str = ""
    ip_networks: tuple[HostPrefix, ...] = ()
    ip_nats: tuple[IpNat, ...] = field(default=(), name="ipNATs")
    ipv4_gateway: Address4 = ""
    ipv6_gateway: Address6 = ""
    profiles: tuple[ObjectName, ...] = ()
    interface_name: Interface = ""
    mac: Mac = ""
    ports: tuple[EndpointPort, ...] = ()
    allow_spoofed_source_prefixes: tuple[Cidr, ...] = ()
    service_account_name: str = ""
    qos_controls: QosControls | None = None


# --- addresses, hosts, routing --------------------------------------------------------------------------------------


class IPPoolSpec(Record, frozen=True, kw_only=True):
    cidr: Net
    block_size: Annotated[int, within(0, 128, stored=True)] | None = None
    ipip_mode: Annotated[str, one_of("Never", "Always", "CrossSubnet")] = ""
    vxlan_mode: Annotated[str, one_of("Never", "Always", "CrossSubnet")] = ""
    nat_outgoing: bool = False
    node_selector: SelectorText = ""
    namespace_selector: SelectorText = ""
    allowed_uses: tuple[Annotated[str, one_of("Workload", "Tunnel", "LoadBalancer")], ...] = ()
    assignment_mode: Annotated[str, one_of("Automatic", "Manual")] = ""
    disabled: bool = False
    disable_bgp_export: bool = field(default=False, name="disableBGPExport")


class NodeBgp(Record, frozen=True, kw_only=True):
    ipv4_address: Cidr4 = ""
    """With the length of the subnet, as in ``172.18.0.2/24``."""
    ipv6_address: Cidr6 = ""
    as_number: AsNumber | None = None
    route_reflector_cluster_id: ClusterId = field(default="", name="routeReflectorClusterID")
    ipv4_ipip_tunnel_addr: Address4 = field(default="", name="ipv4IPIPTunnelAddr")


class OrchRef(Record, frozen=True, kw_only=True):
    node_name: str = ""
    orchestrator: str = ""


class NodeAddress(Record, frozen=True, kw_only=True):
    address: Cidr
    type: Annotated[str, one_of("CalicoNodeIP", "InternalIP", "ExternalIP")] = ""


class NodeWireguard(Record, frozen=True, kw_only=True):
    interface_ipv4_address: Address4 = field(default="", name="interfaceIPv4Address")
    interface_ipv6_address: Address6 = field(default="", name="interfaceIPv6Address")


class NodeInterface(Record, frozen=True, kw_only=True):
    name: str = ""
    addresses: tuple[Cidr, ...] = ()


class NodeStatus(Record, frozen=True, kw_only=True):
    wireguard_public_key: str = ""
    wireguard_public_key_v6: str = field(default="", name="wireguardPublicKeyV6")
    pod_cidrs: tuple[Cidr, ...] = field(default=(), name="podCIDRs")


class NodeSpec(Record, frozen=True, kw_only=True):
    bgp: NodeBgp | None = None
    ipv4_vxlan_tunnel_addr: Address4 = field(default="", name="ipv4VXLANTunnelAddr")
    ipv6_vxlan_tunnel_addr: Address6 = field(default="", name="ipv6VXLANTunnelAddr")
    vxlan_tunnel_mac_addr: Mac = field(default="", name="vxlanTunnelMACAddr")
    vxlan_tunnel_mac_addr_v6: Mac = field(default="", name="vxlanTunnelMACAddrV6")
    orch_refs: tuple[OrchRef, ...] = ()
    wireguard: NodeWireguard | None = None
    addresses: tuple[NodeAddress, ...] = ()
    interfaces: tuple[NodeInterface, ...] = ()


class ServiceBlock(Record, frozen=True, kw_only=True):
    cidr: Net


class Community(Record, frozen=True, kw_only=True):
    name: str = ""
    value: CommunityValue = ""


class PrefixAdvertisement(Record, frozen=True, kw_only=True):
    cidr: Net = ""
    communities: tuple[str, ...] = ()


class SecretKeySelector(Record, frozen=True, kw_only=True):
    name: str = ""
    key: str = ""


class BgpPassword(Record, frozen=True, kw_only=True):
    secret_key_ref: SecretKeySelector | None = None


class BGPConfigurationSpec(Record, frozen=True, kw_only=True):
    log_severity_screen: LogLevel = ""
    node_to_node_mesh_enabled: bool | None = None
    as_number: AsNumber | None = None
    listen_port: PortOrNone = 0
    bind_mode: Annotated[str, one_of("None", "NodeIP")] = ""
    ignored_interfaces: tuple[InterfacePattern, ...] = ()
    node_mesh_password: BgpPassword | None = None
    node_mesh_max_restart_time: Duration = ""
    communities: tuple[Community, ...] = ()
    prefix_advertisements: tuple[PrefixAdvertisement, ...] = ()
    service_cluster_ips: tuple[ServiceBlock, ...] = field(default=(), name="serviceClusterIPs")
    service_external_ips: tuple[ServiceBlock, ...] = field(default=(), name="serviceExternalIPs")
    service_load_balancer_ips: tuple[ServiceBlock, ...] = field(default=(), name="serviceLoadBalancerIPs")
    local_workload_peering_ip_v4: Address4 = field(default="", name="localWorkloadPeeringIPV4")
    local_workload_peering_ip_v6: Address6 = field(default="", name="localWorkloadPeeringIPV6")
    ipv4_normal_route_priority: int | None = None
    ipv6_normal_route_priority: int | None = None
    program_cluster_routes: str = ""


class BGPPeerSpec(Record, frozen=True, kw_only=True):
    node: NodeName = ""
    node_selector: SelectorText = ""
    peer_ip: Peer = field(default="", name="peerIP")
    """An address, or address and port: ``10.0.0.1:1179``, ``[fd00::1]:1179``."""
    as_number: AsNumber | None = None
    peer_selector: SelectorText = ""
    local_workload_selector: SelectorText = ""
    local_as_number: AsNumber | None = field(default=None, name="localASNumber")
    num_allowed_local_as_numbers: Annotated[int, within(0, 255)] = field(default=0, name="numAllowedLocalASNumbers")
    next_hop_mode: Annotated[str, one_of("Auto", "Self", "Keep")] = ""
    keep_original_next_hop: bool = False
    source_address: Annotated[str, one_of("UseNodeIP", "None")] = ""
    password: BgpPassword | None = None
    max_restart_time: Duration = ""
    keepalive_time: Duration = ""
    ttl_security: Annotated[int, within(0, 255, stored=True)] | None = None
    reachable_by: Address = ""
    filters: tuple[ObjectName, ...] = ()
    reverse_peering: Annotated[str, one_of("Auto", "Manual")] = ""
    failure_detection_mode: Annotated[str, one_of("None", "BFDIfDirectlyConnected")] = ""
    """None or BFDIfDirectlyConnected; absent means the latter for explicit peers."""


class ClusterInformationSpec(Record, frozen=True, kw_only=True):
    cluster_guid: str = field(default="", name="clusterGUID")
    cluster_type: str = ""
    calico_version: str = ""
    datastore_ready: bool | None = None
    variant: str = ""


# --- resources ------------------------------------------------------------------------------------------------------


class Resource(Record, frozen=True, kw_only=True):
    """What all resources have; each kind adds its ``spec``."""

    kind: str = ""
    api_version: str = API_VERSION
    metadata: Metadata = Metadata()


class NetworkPolicy(Resource, frozen=True, kw_only=True):
    spec: NetworkPolicySpec = NetworkPolicySpec()


class GlobalNetworkPolicy(Resource, frozen=True, kw_only=True):
    spec: GlobalNetworkPolicySpec = GlobalNetworkPolicySpec()


class Tier(Resource, frozen=True, kw_only=True):
    spec: TierSpec = TierSpec()


class Profile(Resource, frozen=True, kw_only=True):
    spec: ProfileSpec = ProfileSpec()


class NetworkSet(Resource, frozen=True, kw_only=True):
    spec: NetworkSetSpec = NetworkSetSpec()


class GlobalNetworkSet(Resource, frozen=True, kw_only=True):
    spec: NetworkSetSpec = NetworkSetSpec()


class WorkloadEndpoint(Resource, frozen=True, kw_only=True):
    spec: WorkloadEndpointSpec = WorkloadEndpointSpec()


class IPPool(Resource, frozen=True, kw_only=True):
    spec: IPPoolSpec


class Node(Resource, frozen=True, kw_only=True):
    spec: NodeSpec = NodeSpec()
    status: NodeStatus | None = None


class BGPConfiguration(Resource, frozen=True, kw_only=True):
    spec: BGPConfigurationSpec = BGPConfigurationSpec()


class BGPPeer(Resource, frozen=True, kw_only=True):
    spec: BGPPeerSpec = BGPPeerSpec()


class FelixConfiguration(Resource, frozen=True, kw_only=True):
    spec: Annotated[dict[str, object], msgspec.Meta(extra={"fields": felix.FIELDS})] = {}


class ClusterInformation(Resource, frozen=True, kw_only=True):
    spec: ClusterInformationSpec = ClusterInformationSpec()

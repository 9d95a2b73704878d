"""The resources of ``projectcalico.org/v3`` as typed, frozen records.

These are the *typed views* that the calculation and the commands work with. A writer never rebuilds a document from a
view: it edits the plain document (a ``dict``), so that fields which we do not know survive (see ``codec``). Attribute
names are the JSON names in snake_case. Absent lists are empty tuples; absent numbers and texts are ``None`` where absence
means something. Everything here is data: no defaults that depend on other fields (see ``defaults``), no validation
beyond types (see ``validate``).
"""

from __future__ import annotations

import msgspec
from msgspec import field

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
    names: tuple[str, ...] = ()
    selector: str = ""


class ServiceMatch(Record, frozen=True, kw_only=True):
    name: str = ""
    namespace: str = ""


class EntityRule(Record, frozen=True, kw_only=True):
    """One side (source or destination) of a rule."""

    nets: tuple[str, ...] = ()
    not_nets: tuple[str, ...] = ()
    selector: str = ""
    not_selector: str = ""
    namespace_selector: str = ""
    services: ServiceMatch | None = None
    ports: tuple[int | str, ...] = ()
    """A number, ``"a:b"``, or the name of an endpoint's port."""
    not_ports: tuple[int | str, ...] = ()
    service_accounts: ServiceAccountMatch | None = None


class IcmpMatch(Record, frozen=True, kw_only=True):
    type: int | None = None
    code: int | None = None


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

    action: str
    """Allow, Deny, Log or Pass."""
    ip_version: int | None = None
    protocol: int | str | None = None
    not_protocol: int | str | None = None
    icmp: IcmpMatch | None = None
    not_icmp: IcmpMatch | None = field(default=None, name="notICMP")
    source: EntityRule = EntityRule()
    destination: EntityRule = EntityRule()
    http: HttpMatch | None = None
    metadata: RuleMetadata | None = None


class NetworkPolicySpec(Record, frozen=True, kw_only=True):
    tier: str = "default"
    order: float | None = None
    selector: str = ""
    types: tuple[str, ...] = ()
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()
    service_account_selector: str = ""
    performance_hints: tuple[str, ...] = ()


class GlobalNetworkPolicySpec(NetworkPolicySpec, frozen=True, kw_only=True):
    namespace_selector: str = ""
    do_not_track: bool = False
    pre_dnat: bool = field(default=False, name="preDNAT")
    apply_on_forward: bool = False


class TierSpec(Record, frozen=True, kw_only=True):
    order: float | None = None
    default_action: str = "Deny"


class ProfileSpec(Record, frozen=True, kw_only=True):
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()
    labels_to_apply: dict[str, str] = {}


class NetworkSetSpec(Record, frozen=True, kw_only=True):
    nets: tuple[str, ...] = ()


# --- endpoints ------------------------------------------------------------------------------------------------------


class EndpointPort(Record, frozen=True, kw_only=True):
    name: str
    protocol: int | str
    port: int
    host_port: int = 0
    host_ip: str = field(default="", name="hostIP")


class IpNat(Record, frozen=True, kw_only=True):
    internal_ip: str = field(name="internalIP")
    external_ip: str = field(name="externalIP")


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
    node: str = ""
    container_id: str = field(default="", name="containerID")
    pod: str = ""
    endpoint: str = ""
    ip_networks: tuple[str, ...] = ()
    ip_nats: tuple[IpNat, ...] = field(default=(), name="ipNATs")
    ipv4_gateway: str = ""
    ipv6_gateway: str = ""
    profiles: tuple[str, ...] = ()
    interface_name: str = ""
    mac: str = ""
    ports: tuple[EndpointPort, ...] = ()
    allow_spoofed_source_prefixes: tuple[str, ...] = ()
    service_account_name: str = ""
    qos_controls: QosControls | None = None


# --- addresses, hosts, routing --------------------------------------------------------------------------------------


class IPPoolSpec(Record, frozen=True, kw_only=True):
    cidr: str
    block_size: int | None = None
    ipip_mode: str = ""
    vxlan_mode: str = ""
    nat_outgoing: bool = False
    node_selector: str = ""
    namespace_selector: str = ""
    allowed_uses: tuple[str, ...] = ()
    assignment_mode: str = ""
    disabled: bool = False
    disable_bgp_export: bool = field(default=False, name="disableBGPExport")


class NodeBgp(Record, frozen=True, kw_only=True):
    ipv4_address: str = ""
    """With the length of the subnet, as in ``172.18.0.2/24``."""
    ipv6_address: str = ""
    as_number: int | str | None = None
    route_reflector_cluster_id: str = field(default="", name="routeReflectorClusterID")
    ipv4_ipip_tunnel_addr: str = field(default="", name="ipv4IPIPTunnelAddr")


class OrchRef(Record, frozen=True, kw_only=True):
    node_name: str = ""
    orchestrator: str = ""


class NodeAddress(Record, frozen=True, kw_only=True):
    address: str
    type: str = ""


class NodeSpec(Record, frozen=True, kw_only=True):
    bgp: NodeBgp | None = None
    ipv4_vxlan_tunnel_addr: str = field(default="", name="ipv4VXLANTunnelAddr")
    ipv6_vxlan_tunnel_addr: str = field(default="", name="ipv6VXLANTunnelAddr")
    vxlan_tunnel_mac_addr: str = field(default="", name="vxlanTunnelMACAddr")
    orch_refs: tuple[OrchRef, ...] = ()
    addresses: tuple[NodeAddress, ...] = ()


class ServiceBlock(Record, frozen=True, kw_only=True):
    cidr: str


class Community(Record, frozen=True, kw_only=True):
    name: str = ""
    value: str = ""


class PrefixAdvertisement(Record, frozen=True, kw_only=True):
    cidr: str = ""
    communities: tuple[str, ...] = ()


class SecretKeySelector(Record, frozen=True, kw_only=True):
    name: str = ""
    key: str = ""


class BgpPassword(Record, frozen=True, kw_only=True):
    secret_key_ref: SecretKeySelector | None = None


class BGPConfigurationSpec(Record, frozen=True, kw_only=True):
    log_severity_screen: str = ""
    node_to_node_mesh_enabled: bool | None = None
    as_number: int | str | None = None
    listen_port: int = 0
    bind_mode: str = ""
    ignored_interfaces: tuple[str, ...] = ()
    node_mesh_password: BgpPassword | None = None
    node_mesh_max_restart_time: str = ""
    communities: tuple[Community, ...] = ()
    prefix_advertisements: tuple[PrefixAdvertisement, ...] = ()
    service_cluster_ips: tuple[ServiceBlock, ...] = field(default=(), name="serviceClusterIPs")
    service_external_ips: tuple[ServiceBlock, ...] = field(default=(), name="serviceExternalIPs")
    service_load_balancer_ips: tuple[ServiceBlock, ...] = field(default=(), name="serviceLoadBalancerIPs")


class BGPPeerSpec(Record, frozen=True, kw_only=True):
    node: str = ""
    node_selector: str = ""
    peer_ip: str = field(default="", name="peerIP")
    """An address, or address and port: ``10.0.0.1:1179``, ``[fd00::1]:1179``."""
    as_number: int | str | None = None
    peer_selector: str = ""
    local_workload_selector: str = ""
    local_as_number: int | str | None = field(default=None, name="localASNumber")
    num_allowed_local_as_numbers: int = field(default=0, name="numAllowedLocalASNumbers")
    next_hop_mode: str = ""
    keep_original_next_hop: bool = False
    source_address: str = ""
    password: BgpPassword | None = None
    max_restart_time: str = ""
    keepalive_time: str = ""
    ttl_security: int | None = None
    reachable_by: str = ""
    filters: tuple[str, ...] = ()
    reverse_peering: str = ""
    failure_detection_mode: str = ""
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


class BGPConfiguration(Resource, frozen=True, kw_only=True):
    spec: BGPConfigurationSpec = BGPConfigurationSpec()


class BGPPeer(Resource, frozen=True, kw_only=True):
    spec: BGPPeerSpec = BGPPeerSpec()


class FelixConfiguration(Resource, frozen=True, kw_only=True):
    spec: dict[str, object] = {}


class ClusterInformation(Resource, frozen=True, kw_only=True):
    spec: ClusterInformationSpec = ClusterInformationSpec()

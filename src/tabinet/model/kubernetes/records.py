"""Documents of Kubernetes as records: what can be converted, and no more of it than policies need.

Sources: networking.k8s.io/v1 (NetworkPolicy), policy.networking.k8s.io/v1alpha2 (ClusterNetworkPolicy) and v1alpha1
(AdminNetworkPolicy, BaselineAdminNetworkPolicy), core v1 (Namespace, ServiceAccount, Pod). ``model.records.kubernetes`` has the parts of
a NetworkPolicy again, as the stored kind StagedKubernetesNetworkPolicy holds them: there formats are those of our own model, here
those of Kubernetes' API.

Namespace, ServiceAccount and Pod have many more fields than stand here; ``validate`` leaves those out instead of refusing them.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import field

from tabinet.model.formats import (
    Address,
    Cidr,
    NodeName,
    ObjectName,
    PolicyType,
    PortNumber,
    PortOrName,
    PortOrNone,
    one_of,
    pattern,
    within,
)
from tabinet.model.records.base import Record, Resource
from tabinet.model.records.kubernetes import LabelSelector

TransportProtocol = Annotated[str, one_of("TCP", "UDP", "SCTP")]
PORT_NAME = r"(?=.{1,15}$)(?=.*[a-z])(?!.*--)[a-z0-9]([a-z0-9-]*[a-z0-9])?"
"""RFC 6335 section 5.1, in lower case."""
PORT_NAME_WORDS = "the name of a port: up to 15 lower-case letters (at least one), digits and single '-' inside"
NamedPort = Annotated[str, pattern("port name", PORT_NAME, f"allowed: {PORT_NAME_WORDS}")]
RuleName = Annotated[str, pattern("text", r"(?s:.{0,100})", "allowed: at most 100 characters")]

# --- NetworkPolicy --------------------------------------------------------------------------------------------------


class IPBlock(Record, frozen=True, kw_only=True):
    """A prefix with holes; host bits count for nothing."""

    cidr: Cidr
    except_: tuple[Cidr, ...] = field(default=(), name="except")


class NetworkPolicyPeer(Record, frozen=True, kw_only=True):
    """Whom a rule is about: pods, or a block of addresses."""

    pod_selector: LabelSelector | None = None
    """Pods by their labels; in the policy's namespace unless namespaceSelector is given."""
    namespace_selector: LabelSelector | None = None
    """Namespaces by their labels; all pods in them unless podSelector is given."""
    ip_block: IPBlock | None = None
    """Addresses; stands alone."""


class NetworkPolicyPort(Record, frozen=True, kw_only=True):
    """A port or a range of ports."""

    protocol: TransportProtocol = "TCP"
    port: PortOrName | None = None
    """Number, or name of a pod's port. Default: every port of the protocol."""
    end_port: PortNumber | None = None
    """Last port of a range that begins with port."""


class IngressRule(Record, frozen=True, kw_only=True):
    """Packets that are allowed in."""

    ports: tuple[NetworkPolicyPort, ...] = ()
    """Default: all protocols and ports."""
    from_: tuple[NetworkPolicyPeer, ...] = field(default=(), name="from")
    """Default: everybody."""


class EgressRule(Record, frozen=True, kw_only=True):
    """Packets that are allowed out."""

    ports: tuple[NetworkPolicyPort, ...] = ()
    """Default: all protocols and ports."""
    to: tuple[NetworkPolicyPeer, ...] = ()
    """Default: everybody."""


class NetworkPolicySpec(Record, frozen=True, kw_only=True):
    """What a NetworkPolicy says: the pods that it selects accept only what some policy allows them."""

    pod_selector: LabelSelector = LabelSelector()
    """Pods of the namespace that the policy applies to. Default: all of them."""
    ingress: tuple[IngressRule, ...] = ()
    """What is allowed in; nothing else is."""
    egress: tuple[EgressRule, ...] = ()
    """What is allowed out; nothing else is."""
    policy_types: tuple[PolicyType, ...] = ()
    """Directions that the policy applies to. Default: Ingress, and Egress where there are rules for egress."""


class NetworkPolicy(Resource, frozen=True, kw_only=True):
    """networking.k8s.io/v1."""

    spec: NetworkPolicySpec


# --- policies of the cluster ----------------------------------------------------------------------------------------


class NamespacedPod(Record, frozen=True, kw_only=True):
    """Pods in namespaces."""

    namespace_selector: LabelSelector = LabelSelector()
    """Namespaces by their labels. Default: all."""
    pod_selector: LabelSelector
    """Pods by their labels."""


class Subject(Record, frozen=True, kw_only=True):
    """Pods that a policy applies to; exactly one of the fields."""

    namespaces: LabelSelector | None = None
    """All pods in these namespaces."""
    pods: NamespacedPod | None = None
    """Some pods in some namespaces."""


class ClusterIngressPeer(Record, frozen=True, kw_only=True):
    """Whom packets come from; exactly one of the fields."""

    namespaces: LabelSelector | None = None
    """All pods in these namespaces."""
    pods: NamespacedPod | None = None
    """Some pods in some namespaces."""


class ClusterEgressPeer(Record, frozen=True, kw_only=True):
    """Whom packets go to; exactly one of the fields."""

    namespaces: LabelSelector | None = None
    """All pods in these namespaces."""
    pods: NamespacedPod | None = None
    """Some pods in some namespaces."""
    networks: tuple[Cidr, ...] = ()
    """Prefixes, whatever is in them."""
    nodes: LabelSelector | None = None
    """Hosts by their labels. Cannot be converted."""
    domain_names: tuple[str, ...] = ()
    """Names in the DNS. Cannot be converted."""


class PortSpan(Record, frozen=True, kw_only=True):
    """Ports from start to end, both included."""

    start: PortNumber
    end: PortNumber


class PortMatch(Record, frozen=True, kw_only=True):
    """Ports by number; exactly one of the fields."""

    number: PortNumber | None = None
    range: PortSpan | None = None


class ProtocolMatch(Record, frozen=True, kw_only=True):
    """Packets of one protocol."""

    destination_port: PortMatch


class ClusterProtocol(Record, frozen=True, kw_only=True):
    """Protocol and ports; exactly one of the fields."""

    tcp: ProtocolMatch | None = None
    udp: ProtocolMatch | None = None
    sctp: ProtocolMatch | None = None
    destination_named_port: NamedPort = ""
    """The port that the destination calls so, whatever its protocol."""


class ClusterIngressRule(Record, frozen=True, kw_only=True):
    """A rule of a ClusterNetworkPolicy for packets to its subject."""

    name: RuleName = ""
    action: Annotated[str, one_of("Accept", "Deny", "Pass")]
    from_: tuple[ClusterIngressPeer, ...] = field(name="from")
    protocols: tuple[ClusterProtocol, ...] | None = None
    """Default: all, and all ports."""


class ClusterEgressRule(Record, frozen=True, kw_only=True):
    """A rule of a ClusterNetworkPolicy for packets from its subject."""

    name: RuleName = ""
    action: Annotated[str, one_of("Accept", "Deny", "Pass")]
    to: tuple[ClusterEgressPeer, ...]
    protocols: tuple[ClusterProtocol, ...] | None = None
    """Default: all, and all ports."""


Priority = Annotated[int, within(0, 1000)]


class ClusterNetworkPolicySpec(Record, frozen=True, kw_only=True):
    """What a ClusterNetworkPolicy says."""

    tier: Annotated[str, one_of("Admin", "Baseline")]
    """Admin: before NetworkPolicies; Baseline: after them."""
    priority: Priority
    """Policies of a tier are evaluated by ascending priority."""
    subject: Subject
    ingress: tuple[ClusterIngressRule, ...] = ()
    egress: tuple[ClusterEgressRule, ...] = ()


class ClusterNetworkPolicy(Resource, frozen=True, kw_only=True):
    """policy.networking.k8s.io/v1alpha2."""

    spec: ClusterNetworkPolicySpec


# --- their predecessors ---------------------------------------------------------------------------------------------


class AdminPortNumber(Record, frozen=True, kw_only=True):
    """One port of a protocol."""

    protocol: TransportProtocol = "TCP"
    port: PortNumber


class AdminPortSpan(Record, frozen=True, kw_only=True):
    """Ports of a protocol, from start to end, both included."""

    protocol: TransportProtocol = "TCP"
    start: PortNumber
    end: PortNumber


class AdminPort(Record, frozen=True, kw_only=True):
    """Protocol and ports; exactly one of the fields."""

    port_number: AdminPortNumber | None = None
    port_range: AdminPortSpan | None = None
    named_port: NamedPort = ""
    """The port that the destination calls so, whatever its protocol."""


class AdminIngressRule(Record, frozen=True, kw_only=True):
    """A rule of an AdminNetworkPolicy for packets to its subject."""

    name: RuleName = ""
    action: Annotated[str, one_of("Allow", "Deny", "Pass")]
    from_: tuple[ClusterIngressPeer, ...] = field(name="from")
    ports: tuple[AdminPort, ...] | None = None
    """Default: all protocols and ports."""


class AdminEgressRule(Record, frozen=True, kw_only=True):
    """A rule of an AdminNetworkPolicy for packets from its subject."""

    name: RuleName = ""
    action: Annotated[str, one_of("Allow", "Deny", "Pass")]
    to: tuple[ClusterEgressPeer, ...]
    ports: tuple[AdminPort, ...] | None = None
    """Default: all protocols and ports."""


class AdminNetworkPolicySpec(Record, frozen=True, kw_only=True):
    """What an AdminNetworkPolicy says."""

    priority: Priority
    subject: Subject
    ingress: tuple[AdminIngressRule, ...] = ()
    egress: tuple[AdminEgressRule, ...] = ()


class AdminNetworkPolicy(Resource, frozen=True, kw_only=True):
    """policy.networking.k8s.io/v1alpha1."""

    spec: AdminNetworkPolicySpec


class BaselineAdminNetworkPolicySpec(Record, frozen=True, kw_only=True):
    """What the BaselineAdminNetworkPolicy says."""

    subject: Subject
    ingress: tuple[AdminIngressRule, ...] = ()
    egress: tuple[AdminEgressRule, ...] = ()


class BaselineAdminNetworkPolicy(Resource, frozen=True, kw_only=True):
    """policy.networking.k8s.io/v1alpha1; there is one, named default."""

    spec: BaselineAdminNetworkPolicySpec


# --- whom policies are about ----------------------------------------------------------------------------------------


class Namespace(Resource, frozen=True, kw_only=True):
    """v1; only its name and labels count."""


class ServiceAccount(Resource, frozen=True, kw_only=True):
    """v1; only its name and labels count."""


class ContainerPort(Record, frozen=True, kw_only=True):
    """A port of a container."""

    name: NamedPort = ""
    container_port: PortNumber
    protocol: TransportProtocol = "TCP"
    host_port: PortOrNone = 0
    host_ip: Address = field(default="", name="hostIP")


class Container(Record, frozen=True, kw_only=True):
    """A container of a pod."""

    ports: tuple[ContainerPort, ...] = ()


class PodSpec(Record, frozen=True, kw_only=True):
    """Where a pod runs and which ports it has."""

    node_name: NodeName = ""
    """Host; empty until one is chosen."""
    host_network: bool = False
    service_account_name: ObjectName = ""
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()


class PodIP(Record, frozen=True, kw_only=True):
    """An address of a pod."""

    ip: Address


class PodStatus(Record, frozen=True, kw_only=True):
    """What became of a pod."""

    phase: str = ""
    pod_ip: Address = field(default="", name="podIP")
    pod_ips: tuple[PodIP, ...] = field(default=(), name="podIPs")


class Pod(Resource, frozen=True, kw_only=True):
    """v1."""

    spec: PodSpec
    status: PodStatus = PodStatus()

"""The resources of ``projectcalico.org/v3`` as typed, frozen records.

These are the *typed views* that the calculation and the commands work with. A writer never rebuilds a document from a
view: it edits the plain document (a ``dict``), so that fields which we do not know survive (see ``codec``). Attribute
names are the JSON names in snake_case. Absent lists are empty tuples; absent numbers and texts are ``None`` where absence
means something. Everything here is data: no defaults that depend on other fields (see ``defaults``), no validation
beyond types when decoded. The annotations (``Net``, ``SelectorText``, ...) name formats of ``formats``: to a type checker they are plain
texts and numbers; ``validate`` and ``semantics`` judge by them.

The kinds stand here; what they consist of is in ``records`` and can be imported from here too.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from tabinet.model import felix
from tabinet.model.records.addresses import (
    AllocationAttributeSpec,
    BlockAffinitySpec,
    IPAMBlockSpec,
    IPAMConfigurationSpec,
    IPAMHandleSpec,
    IPPoolSpec,
    IPReservationSpec,
)
from tabinet.model.records.base import (
    API_VERSION,
    Metadata,
    Record,
    Resource,
)
from tabinet.model.records.bgp import (
    AddCommunity,
    BGPConfigurationSpec,
    BGPFilterSpec,
    BgpPassword,
    BGPPeerSpec,
    Community,
    CommunityMatch,
    FilterOperation,
    FilterRule,
    FilterRuleV4,
    FilterRuleV6,
    PrefixAdvertisement,
    PrefixLengthV4,
    PrefixLengthV6,
    PrependASPath,
    SecretKeySelector,
    ServiceBlock,
    SetPriority,
)
from tabinet.model.records.cluster import (
    AutoHostEndpointConfig,
    ClusterInformationSpec,
    ControllersConfig,
    HostEndpointTemplate,
    KubeControllersConfigurationSpec,
    KubeControllersConfigurationStatus,
    LoadBalancerControllerConfig,
    MigrationControllerConfig,
    NodeControllerConfig,
    ReconcilerConfig,
)
from tabinet.model.records.endpoints import (
    EndpointPort,
    HostEndpointPort,
    HostEndpointSpec,
    IpNat,
    LiveMigrationSource,
    LiveMigrationSpec,
    LiveMigrationTarget,
    QosControls,
    WorkloadEndpointIdentifier,
    WorkloadEndpointSpec,
    WorkloadIdentifier,
)
from tabinet.model.records.felix import (
    BpfConntrackTimeouts,
    HealthTimeoutOverride,
    ProtoPort,
    RouteTableIDRange,
    RouteTableRange,
)
from tabinet.model.records.kubernetes import (
    EgressRule,
    IngressRule,
    IPBlock,
    LabelRequirement,
    LabelSelector,
    NetworkPolicyPeer,
    NetworkPolicyPort,
    StagedKubernetesNetworkPolicySpec,
)
from tabinet.model.records.nodes import (
    BgpDaemonStatus,
    BgpSessionStatus,
    CalicoNodeStatusSpec,
    CalicoNodeStatusStatus,
    NodeAddress,
    NodeAgentStatus,
    NodeBgp,
    NodeBgpStatus,
    NodeInterface,
    NodeRoute,
    NodeRoutes,
    NodeSpec,
    NodeStatus,
    NodeWireguard,
    OrchRef,
    RouteOrigin,
)
from tabinet.model.records.policy import (
    EntityRule,
    GlobalNetworkPolicySpec,
    HttpMatch,
    HttpPath,
    IcmpMatch,
    NetworkPolicySpec,
    NetworkSetSpec,
    ProfileSpec,
    Rule,
    RuleMetadata,
    ServiceAccountMatch,
    ServiceMatch,
    StagedGlobalNetworkPolicySpec,
    StagedNetworkPolicySpec,
    TierSpec,
)

__all__ = [
    "API_VERSION",
    "AddCommunity",
    "AllocationAttributeSpec",
    "AutoHostEndpointConfig",
    "BGPConfiguration",
    "BGPConfigurationSpec",
    "BGPFilter",
    "BGPFilterSpec",
    "BGPPeer",
    "BGPPeerSpec",
    "BgpDaemonStatus",
    "BgpPassword",
    "BgpSessionStatus",
    "BlockAffinity",
    "BlockAffinitySpec",
    "BpfConntrackTimeouts",
    "CalicoNodeStatus",
    "CalicoNodeStatusSpec",
    "CalicoNodeStatusStatus",
    "ClusterInformation",
    "ClusterInformationSpec",
    "Community",
    "CommunityMatch",
    "ControllersConfig",
    "EgressRule",
    "EndpointPort",
    "EntityRule",
    "FelixConfiguration",
    "FilterOperation",
    "FilterRule",
    "FilterRuleV4",
    "FilterRuleV6",
    "GlobalNetworkPolicy",
    "GlobalNetworkPolicySpec",
    "GlobalNetworkSet",
    "HealthTimeoutOverride",
    "HostEndpoint",
    "HostEndpointPort",
    "HostEndpointSpec",
    "HostEndpointTemplate",
    "HttpMatch",
    "HttpPath",
    "IPAMBlock",
    "IPAMBlockSpec",
    "IPAMConfiguration",
    "IPAMConfigurationSpec",
    "IPAMHandle",
    "IPAMHandleSpec",
    "IPBlock",
    "IPPool",
    "IPPoolSpec",
    "IPReservation",
    "IPReservationSpec",
    "IcmpMatch",
    "IngressRule",
    "IpNat",
    "KubeControllersConfiguration",
    "KubeControllersConfigurationSpec",
    "KubeControllersConfigurationStatus",
    "LabelRequirement",
    "LabelSelector",
    "LiveMigration",
    "LiveMigrationSource",
    "LiveMigrationSpec",
    "LiveMigrationTarget",
    "LoadBalancerControllerConfig",
    "Metadata",
    "MigrationControllerConfig",
    "NetworkPolicy",
    "NetworkPolicyPeer",
    "NetworkPolicyPort",
    "NetworkPolicySpec",
    "NetworkSet",
    "NetworkSetSpec",
    "Node",
    "NodeAddress",
    "NodeAgentStatus",
    "NodeBgp",
    "NodeBgpStatus",
    "NodeControllerConfig",
    "NodeInterface",
    "NodeRoute",
    "NodeRoutes",
    "NodeSpec",
    "NodeStatus",
    "NodeWireguard",
    "OrchRef",
    "PrefixAdvertisement",
    "PrefixLengthV4",
    "PrefixLengthV6",
    "PrependASPath",
    "Profile",
    "ProfileSpec",
    "ProtoPort",
    "QosControls",
    "ReconcilerConfig",
    "Record",
    "Resource",
    "RouteOrigin",
    "RouteTableIDRange",
    "RouteTableRange",
    "Rule",
    "RuleMetadata",
    "SecretKeySelector",
    "ServiceAccountMatch",
    "ServiceBlock",
    "ServiceMatch",
    "SetPriority",
    "StagedGlobalNetworkPolicy",
    "StagedGlobalNetworkPolicySpec",
    "StagedKubernetesNetworkPolicy",
    "StagedKubernetesNetworkPolicySpec",
    "StagedNetworkPolicy",
    "StagedNetworkPolicySpec",
    "Tier",
    "TierSpec",
    "WorkloadEndpoint",
    "WorkloadEndpointIdentifier",
    "WorkloadEndpointSpec",
    "WorkloadIdentifier",
]


class NetworkPolicy(Resource, frozen=True, kw_only=True):
    """Who may talk to endpoints of one namespace, and to whom they may talk."""

    spec: NetworkPolicySpec = NetworkPolicySpec()


class GlobalNetworkPolicy(Resource, frozen=True, kw_only=True):
    """Who may talk to endpoints of all namespaces and to hosts, and to whom they may talk."""

    spec: GlobalNetworkPolicySpec = GlobalNetworkPolicySpec()


class StagedNetworkPolicy(Resource, frozen=True, kw_only=True):
    """A NetworkPolicy on trial: calculated and counted, never enforced."""

    spec: StagedNetworkPolicySpec = StagedNetworkPolicySpec()


class StagedGlobalNetworkPolicy(Resource, frozen=True, kw_only=True):
    """A GlobalNetworkPolicy on trial: calculated and counted, never enforced."""

    spec: StagedGlobalNetworkPolicySpec = StagedGlobalNetworkPolicySpec()


class StagedKubernetesNetworkPolicy(Resource, frozen=True, kw_only=True):
    """A Kubernetes NetworkPolicy on trial: calculated and counted, never enforced."""

    spec: StagedKubernetesNetworkPolicySpec = StagedKubernetesNetworkPolicySpec()


class Tier(Resource, frozen=True, kw_only=True):
    """A group of policies that is evaluated as a whole, before or after others. kube-admin, default and kube-baseline always exist."""

    spec: TierSpec = TierSpec()


class Profile(Resource, frozen=True, kw_only=True):
    """Labels and rules that endpoints take over by naming the profile. The rules count only where no policy applies."""

    spec: ProfileSpec = ProfileSpec()


class NetworkSet(Resource, frozen=True, kw_only=True):
    """Addresses that rules of one namespace can select by labels."""

    spec: NetworkSetSpec = NetworkSetSpec()


class GlobalNetworkSet(Resource, frozen=True, kw_only=True):
    """Addresses that rules everywhere can select by labels."""

    spec: NetworkSetSpec = NetworkSetSpec()


class WorkloadEndpoint(Resource, frozen=True, kw_only=True):
    """A network interface of a virtual machine, container or process. Orchestrators write it."""

    spec: WorkloadEndpointSpec = WorkloadEndpointSpec()


class HostEndpoint(Resource, frozen=True, kw_only=True):
    """An interface of a host, or all of them, so that policy can apply to the host itself."""

    spec: HostEndpointSpec = HostEndpointSpec()


class LiveMigration(Resource, frozen=True, kw_only=True):
    """A virtual machine on its way from one host to another. Named as the endpoint that it will be; orchestrators write it."""

    spec: LiveMigrationSpec = LiveMigrationSpec()


class IPPool(Resource, frozen=True, kw_only=True):
    """Addresses that may be assigned to workloads, and how they are reached."""

    spec: IPPoolSpec


class IPReservation(Resource, frozen=True, kw_only=True):
    """Addresses that are never assigned automatically."""

    spec: IPReservationSpec = IPReservationSpec()


class IPAMConfiguration(Resource, frozen=True, kw_only=True):
    """How addresses are assigned; there is one, named default."""

    spec: IPAMConfigurationSpec = IPAMConfigurationSpec()


class IPAMBlock(Resource, frozen=True, kw_only=True):
    """A block of addresses, which are taken and by whom. Read only: the address management keeps it."""

    spec: IPAMBlockSpec


class IPAMHandle(Resource, frozen=True, kw_only=True):
    """The addresses of one owner. Read only: the address management keeps it."""

    spec: IPAMHandleSpec = IPAMHandleSpec()


class BlockAffinity(Resource, frozen=True, kw_only=True):
    """The claim of a host on a block of addresses. Read only: the address management keeps it."""

    spec: BlockAffinitySpec


class Node(Resource, frozen=True, kw_only=True):
    """A host."""

    spec: NodeSpec = NodeSpec()
    status: NodeStatus | None = None


class CalicoNodeStatus(Resource, frozen=True, kw_only=True):
    """A request to report the state of a host, and the report."""

    spec: CalicoNodeStatusSpec = CalicoNodeStatusSpec()
    status: CalicoNodeStatusStatus | None = None


class BGPConfiguration(Resource, frozen=True, kw_only=True):
    """Settings of BGP: named ``default`` for all hosts, or ``node.<name>`` for one."""

    spec: BGPConfigurationSpec = BGPConfigurationSpec()


class BGPPeer(Resource, frozen=True, kw_only=True):
    """BGP sessions that hosts keep besides the mesh: with routers, route reflectors, workloads."""

    spec: BGPPeerSpec = BGPPeerSpec()


class BGPFilter(Resource, frozen=True, kw_only=True):
    """Which routes are told to and taken from the peers that name the filter."""

    spec: BGPFilterSpec = BGPFilterSpec()


class FelixConfiguration(Resource, frozen=True, kw_only=True):
    """Settings of the agents: named ``default`` for all hosts, or ``node.<name>`` for one. Tabinet's agent uses those that its
    parameters name (see ``docs/parameters.md``); the others are kept and checked for Felix."""

    spec: Annotated[dict[str, object], msgspec.Meta(extra={"fields": felix.FIELDS})] = msgspec.field(default_factory=dict)


class ClusterInformation(Resource, frozen=True, kw_only=True):
    """What is known of the cluster as a whole; there is one, named default."""

    spec: ClusterInformationSpec = ClusterInformationSpec()


class KubeControllersConfiguration(Resource, frozen=True, kw_only=True):
    """Settings of calico-kube-controllers; there is one, named default."""

    spec: KubeControllersConfigurationSpec = KubeControllersConfigurationSpec()
    status: KubeControllersConfigurationStatus | None = None

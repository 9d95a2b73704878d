"""Parts of Kubernetes' NetworkPolicy (networking.k8s.io/v1), as staged policies hold them."""

from __future__ import annotations

from typing import Annotated

from msgspec import field

from tabinet.model.formats import Net, PolicyType, PortNumber, PortOrName, StagedAction, one_of
from tabinet.model.records.base import Record


class LabelRequirement(Record, frozen=True, kw_only=True):
    """One condition on a label."""

    key: str
    """Key of the label."""
    operator: Annotated[str, one_of("In", "NotIn", "Exists", "DoesNotExist", stored=True)]
    """How the label's value is compared; In and NotIn with values, Exists and DoesNotExist without."""
    values: tuple[str, ...] = ()
    """Values for In and NotIn."""


class LabelSelector(Record, frozen=True, kw_only=True):
    """Labels as Kubernetes selects by them; everything that is given must hold, and an empty selector selects everything."""

    match_labels: dict[str, str] = field(default_factory=dict)
    """Labels that must have these values."""
    match_expressions: tuple[LabelRequirement, ...] = ()
    """Conditions that must hold."""


class IPBlock(Record, frozen=True, kw_only=True):
    """A prefix with holes."""

    cidr: Net
    """The prefix."""
    except_: tuple[Net, ...] = field(default=(), name="except")
    """Prefixes within it that are not meant."""


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

    protocol: Annotated[str, one_of("TCP", "UDP", "SCTP", stored=True)] = ""
    """Protocol of the port. Default: TCP."""
    port: PortOrName | None = None
    """Number, or name of a pod's port. Default: every port."""
    end_port: PortNumber | None = None
    """Last port of a range that begins with port, which must be a number then."""


class IngressRule(Record, frozen=True, kw_only=True):
    """Packets that are allowed in."""

    ports: tuple[NetworkPolicyPort, ...] = ()
    """Ports that may be reached. Default: all."""
    from_: tuple[NetworkPolicyPeer, ...] = field(default=(), name="from")
    """Whom packets may come from. Default: everybody."""


class EgressRule(Record, frozen=True, kw_only=True):
    """Packets that are allowed out."""

    ports: tuple[NetworkPolicyPort, ...] = ()
    """Ports that may be reached. Default: all."""
    to: tuple[NetworkPolicyPeer, ...] = ()
    """Whom packets may go to. Default: everybody."""


class StagedKubernetesNetworkPolicySpec(Record, frozen=True, kw_only=True):
    """What a Kubernetes NetworkPolicy would say: it is calculated and counted, never enforced."""

    staged_action: StagedAction = ""
    """What would happen to the NetworkPolicy of the same name: Set puts this one in its place, Delete removes it, Learn and Ignore only
    look on. Default: Set."""
    pod_selector: LabelSelector = LabelSelector()
    """Pods of the namespace that the policy applies to. Default: all of them."""
    ingress: tuple[IngressRule, ...] = ()
    """What is allowed in; nothing else is."""
    egress: tuple[EgressRule, ...] = ()
    """What is allowed out; nothing else is."""
    policy_types: tuple[PolicyType, ...] = ()
    """Directions that the policy applies to. Default: Ingress, and Egress where there are rules for egress."""

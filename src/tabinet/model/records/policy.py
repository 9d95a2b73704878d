"""Policies and what they are made of: rules, tiers, profiles, network sets, and the staged kinds."""

from __future__ import annotations

from typing import Annotated

from msgspec import field

from tabinet.model.formats import (
    Action,
    Cidr,
    IcmpCode,
    IcmpType,
    IpVersion,
    NamespaceSelectorText,
    Net,
    ObjectName,
    PolicyType,
    Port,
    Protocol,
    SelectorText,
    StagedAction,
    TierAction,
    one_of,
)
from tabinet.model.records.base import Record


class ServiceAccountMatch(Record, frozen=True, kw_only=True):
    """Workloads by the service account that they run under."""

    names: tuple[ObjectName, ...] = ()
    """Names of service accounts; any of them matches."""
    selector: SelectorText = ""
    """Selector over the labels of service accounts."""


class ServiceMatch(Record, frozen=True, kw_only=True):
    """The endpoints behind a Kubernetes service."""

    name: str = ""
    """Name of the service."""
    namespace: str = ""
    """Namespace of the service; needed in global policies. Default: the policy's own namespace."""


class EntityRule(Record, frozen=True, kw_only=True):
    """One side (source or destination) of a rule; everything that is given must match."""

    nets: tuple[Net, ...] = ()
    """Prefixes, any of which must hold the address; at most 256."""
    not_nets: tuple[Net, ...] = ()
    """Prefixes, none of which may hold the address; at most 256."""
    selector: SelectorText = ""
    """Endpoints and network sets that are meant, by their labels; in the policy's own namespace unless namespaceSelector says otherwise."""
    not_selector: SelectorText = ""
    """Endpoints and network sets that are not meant. What is neither, such as an address outside, is meant."""
    namespace_selector: NamespaceSelectorText = ""
    """Namespaces whose members are meant, by their labels; ``global()`` alone means what is in no namespace."""
    services: ServiceMatch | None = None
    """A Kubernetes service whose endpoints are meant; stands alone, without other addresses and ports."""
    ports: tuple[Port, ...] = ()
    """Ports, any of which must match: a number, a range ``"a:b"``, or the name of an endpoint's port; at most 50."""
    not_ports: tuple[Port, ...] = ()
    """Ports, none of which may match; written as ports are; at most 50."""
    service_accounts: ServiceAccountMatch | None = None
    """Workloads that are meant, by service account."""


class IcmpMatch(Record, frozen=True, kw_only=True):
    """ICMP messages."""

    type: IcmpType | None = None
    """ICMP type, 0 to 254; every type when absent."""
    code: IcmpCode | None = None
    """ICMP code, 0 to 255; only together with a type."""


class HttpPath(Record, frozen=True, kw_only=True):
    """A path of HTTP requests: either exact or by prefix."""

    exact: str = ""
    """The whole path; begins with ``/``."""
    prefix: str = ""
    """The beginning of the path; begins with ``/``."""


class HttpMatch(Record, frozen=True, kw_only=True):
    """HTTP requests. Kept and checked for programs that judge HTTP; Tabinet itself does not."""

    methods: tuple[str, ...] = ()
    """Methods, any of which must match, such as GET."""
    paths: tuple[HttpPath, ...] = ()
    """Paths, any of which must match."""


class RuleMetadata(Record, frozen=True, kw_only=True):
    """Notes on a rule."""

    annotations: dict[str, str] = field(default_factory=dict)
    """Free texts; without effect on packets, but for ``tabinet.io/protocol``."""


class Rule(Record, frozen=True, kw_only=True):
    """One policy rule; everything that is given must match."""

    action: Action
    """What happens to packets that match: Allow and Deny end the evaluation, Pass goes on with the next tier, Log goes on with the next
    rule."""
    ip_version: IpVersion | None = None
    """4 or 6: only packets of this version of IP. Default: both."""
    protocol: Protocol | None = None
    """Protocol of the packets: TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number from 1 to 255. Default: any."""
    not_protocol: Protocol | None = None
    """Protocol that packets must not have; written as protocol is."""
    icmp: IcmpMatch | None = None
    """ICMP type and code that must match; only with protocol ICMP or ICMPv6."""
    not_icmp: IcmpMatch | None = field(default=None, name="notICMP")
    """ICMP type and code that must not match; only with protocol ICMP or ICMPv6."""
    source: EntityRule = EntityRule()
    """Where packets come from."""
    destination: EntityRule = EntityRule()
    """Where packets go to."""
    http: HttpMatch | None = None
    """HTTP requests that must match; only in rules for ingress with action Allow, and with TCP."""
    metadata: RuleMetadata | None = None
    """Notes on the rule."""


class NetworkPolicySpec(Record, frozen=True, kw_only=True):
    """What a policy says."""

    tier: ObjectName = "default"
    """Tier that the policy belongs to. Default: default."""
    order: float | None = None
    """Policies of a tier are evaluated by ascending order, then by name. Default: after all that have an order."""
    selector: SelectorText = ""
    """Endpoints that the policy applies to, by their labels. Default: all()."""
    types: tuple[PolicyType, ...] = ()
    """Directions that the policy applies to. Default: those that there are rules for; Ingress where there are none."""
    ingress: tuple[Rule, ...] = ()
    """Rules for packets to the endpoints, in order; the first that matches decides."""
    egress: tuple[Rule, ...] = ()
    """Rules for packets from the endpoints, in order; the first that matches decides."""
    service_account_selector: SelectorText = ""
    """Workloads that the policy applies to, by the labels of their service accounts."""
    performance_hints: tuple[Annotated[str, one_of("AssumeNeededOnEveryNode")], ...] = ()
    """Hints that change how fast, not what: AssumeNeededOnEveryNode computes the policy on every host at once."""


class GlobalNetworkPolicySpec(NetworkPolicySpec, frozen=True, kw_only=True):
    """What a policy for endpoints of all namespaces, and for host endpoints, says."""

    namespace_selector: SelectorText = ""
    """Namespaces whose endpoints the policy applies to, by their labels. Default: everywhere, also outside of namespaces."""
    do_not_track: bool = False
    """True: for host endpoints, before connection tracking, so that both directions must be allowed. Needs applyOnForward."""
    pre_dnat: bool = field(default=False, name="preDNAT")
    """True: for host endpoints, before destinations are translated; rules for ingress only. Needs applyOnForward."""
    apply_on_forward: bool = False
    """True: on host endpoints also for packets that the host forwards, not only for its own."""


class StagedNetworkPolicySpec(NetworkPolicySpec, frozen=True, kw_only=True):
    """What a policy would say: it is calculated and counted, never enforced."""

    staged_action: StagedAction = ""
    """What would happen to the policy of the same name: Set puts this one in its place, Delete removes it, Learn and Ignore only look
    on. Default: Set."""


class StagedGlobalNetworkPolicySpec(GlobalNetworkPolicySpec, frozen=True, kw_only=True):
    """What a global policy would say: it is calculated and counted, never enforced."""

    staged_action: StagedAction = ""
    """What would happen to the policy of the same name: Set puts this one in its place, Delete removes it, Learn and Ignore only look
    on. Default: Set."""


class TierSpec(Record, frozen=True, kw_only=True):
    """A group of policies that is evaluated as a whole."""

    order: float | None = None
    """Tiers are evaluated by ascending order, then by name. Default: after all that have an order."""
    default_action: TierAction = "Deny"
    """What happens to packets of an endpoint that policies of the tier apply to when none of their rules matches: Deny, or Pass to the next
    tier. Default: Deny."""


class ProfileSpec(Record, frozen=True, kw_only=True):
    """Rules for endpoints that no policy applies to, and labels for those that name the profile."""

    ingress: tuple[Rule, ...] = ()
    """Rules for packets to the endpoints, in order."""
    egress: tuple[Rule, ...] = ()
    """Rules for packets from the endpoints, in order."""
    labels_to_apply: dict[str, str] = field(default_factory=dict)
    """Labels that every endpoint with this profile has besides its own; its own win."""


class NetworkSetSpec(Record, frozen=True, kw_only=True):
    """Addresses outside, to be selected by labels."""

    nets: tuple[Cidr, ...] = ()
    """Prefixes and addresses of the set."""

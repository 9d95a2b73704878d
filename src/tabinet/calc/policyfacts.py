"""What decides where a policy applies: its tier, order, selectors, directions and kind; and the order that follows.

Order (calico-v3): tiers by order, then name; in a tier policies by order, then name; what has no order comes last. A policy
whose tier does not exist is not enforced. A policy whose selectors cannot be read selects nothing.

Which traffic a policy is asked about is a matter of *parts*: ``WORKLOADS`` and ``HOSTS`` name the fields of ``messages.Endpoint`` and
``messages.HostEndpoint`` that hold policies, and say of each which policies belong there:

- ``preDNAT`` and ``doNotTrack`` policies are for host endpoints only and are in parts of their own; one that claims to be both is in none.
- All others are for workloads and for hosts; with ``applyOnForward`` also for what a host forwards.
- Staged policies (see ``staged``) are in no part: they are judged, never enforced.

Pure. O(size of the policy); arranging n policies O(n log n).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from tabinet.calc.messages import Action, TierPolicies
from tabinet.calc.scopes import policy_scope
from tabinet.calc.translate import Translation, translate
from tabinet.errors import Problem
from tabinet.model.keys import ResourceKey
from tabinet.model.kubernetes.policies import policy_spec
from tabinet.model.resources import (
    GlobalNetworkPolicy,
    GlobalNetworkPolicySpec,
    NetworkPolicy,
    NetworkPolicySpec,
    StagedGlobalNetworkPolicy,
    StagedKubernetesNetworkPolicy,
    StagedNetworkPolicy,
    TierSpec,
)
from tabinet.selector import Node, SelectorError

EnforcedPolicy = NetworkPolicy | GlobalNetworkPolicy
StagedPolicy = StagedNetworkPolicy | StagedGlobalNetworkPolicy | StagedKubernetesNetworkPolicy
PolicyResource = EnforcedPolicy | StagedPolicy

BUILT_IN_TIERS: Mapping[str, TierSpec] = {
    "kube-admin": TierSpec(order=1_000, default_action="Pass"),
    "default": TierSpec(order=1_000_000, default_action="Deny"),
    "kube-baseline": TierSpec(order=10_000_000, default_action="Pass"),
}
"""Tiers that exist without a resource."""


class PolicyFacts(msgspec.Struct, frozen=True):
    """What decides where a policy applies, without its rules."""

    key: ResourceKey
    tier: str
    order: float | None
    scope: Node | None
    """Which endpoints it selects; None when its selectors cannot be read."""
    ingress: bool
    egress: bool
    pre_dnat: bool = False
    untracked: bool = False
    """``doNotTrack``."""
    forward: bool = False
    """``applyOnForward``."""
    staged: bool = False
    problems: tuple[Problem, ...] = ()

    @property
    def rank(self) -> tuple[bool, float, str, str, str]:
        """Sorts the policies of a tier."""
        return (self.order is None, self.order or 0.0, self.key.name, self.key.kind, self.key.namespace)

    @property
    def ordinary(self) -> bool:
        """True when it is asked about connections as they are: after translation, with tracking."""
        return not (self.pre_dnat or self.untracked)


Parts = Mapping[str, Callable[[PolicyFacts], bool]]
"""By field of an endpoint's message: which policies belong there."""

WORKLOADS: Parts = {
    "ingress": lambda facts: facts.ordinary and facts.ingress,
    "egress": lambda facts: facts.ordinary and facts.egress,
}
HOSTS: Parts = {
    "ingress": lambda facts: facts.ordinary and facts.ingress,
    "egress": lambda facts: facts.ordinary and facts.egress,
    "forward_ingress": lambda facts: facts.ordinary and facts.forward and facts.ingress,
    "forward_egress": lambda facts: facts.ordinary and facts.forward and facts.egress,
    "pre_dnat": lambda facts: facts.pre_dnat and not facts.untracked and facts.ingress,
    "untracked_ingress": lambda facts: facts.untracked and not facts.pre_dnat and facts.ingress,
    "untracked_egress": lambda facts: facts.untracked and not facts.pre_dnat and facts.egress,
}


def spec_of(resource: PolicyResource) -> NetworkPolicySpec:
    """What the policy says, in our own words.

    Raises:
        ValueError: a staged policy of Kubernetes that no policy of ours can say.
    """
    return policy_spec(resource.spec) if isinstance(resource, StagedKubernetesNetworkPolicy) else resource.spec


def describe_policy(key: ResourceKey, resource: PolicyResource) -> PolicyFacts:
    """Where the policy applies."""
    staged = isinstance(resource, StagedPolicy)
    try:
        spec = spec_of(resource)
    except ValueError as error:
        problem = _problem(key, "spec", "a policy of Kubernetes", str(error))
        return PolicyFacts(key, "default", None, None, ingress=True, egress=True, staged=staged, problems=(problem,))
    problems: list[Problem] = []
    scope: Node | None = None
    try:
        scope = policy_scope(spec, key.namespace)
    except SelectorError as error:
        problems.append(_problem(key, "spec selectors", error.text, str(error)))
    pre_dnat = untracked = forward = False
    if isinstance(spec, GlobalNetworkPolicySpec):
        pre_dnat, untracked, forward = spec.pre_dnat, spec.do_not_track, spec.apply_on_forward
        if pre_dnat and untracked:
            problems.append(_problem(key, "spec.preDNAT", True, "not together with doNotTrack: this policy is not enforced"))
    return PolicyFacts(
        key=key,
        tier=spec.tier or "default",
        order=spec.order,
        scope=scope,
        ingress="Ingress" in spec.types if spec.types else bool(spec.ingress or not spec.egress),
        egress=not pre_dnat and ("Egress" in spec.types if spec.types else bool(spec.egress)),
        pre_dnat=pre_dnat,
        untracked=untracked,
        forward=forward,
        staged=staged,
        problems=tuple(problems),
    )


def _problem(key: ResourceKey, path: str, value: object, allowed: str) -> Problem:
    return Problem(path=path, value=repr(value)[:80], allowed=allowed, source=str(key))


def translate_policy(facts: PolicyFacts, resource: PolicyResource) -> Translation:
    """The policy's rules as messages; those of a direction that it does not police are left out."""
    try:
        spec = spec_of(resource)
    except ValueError:
        # Its facts say so.
        spec = NetworkPolicySpec()
    ingress = spec.ingress if facts.ingress else ()
    egress = spec.egress if facts.egress else ()
    return translate(ingress, egress, facts.key.namespace, str(facts.key))


def tier_rank(name: str, tier: TierSpec) -> tuple[bool, float, str]:
    """Sorts tiers."""
    return (tier.order is None, tier.order or 0.0, name)


def arrange(policies: Iterable[PolicyFacts], tiers: Mapping[str, TierSpec], parts: Parts) -> dict[str, tuple[TierPolicies, ...]]:
    """Of policies that select an endpoint, those that are enforced in each part, by tier and in order."""
    by_tier: dict[str, list[PolicyFacts]] = {}
    for facts in policies:
        if facts.tier in tiers and not facts.staged:
            by_tier.setdefault(facts.tier, []).append(facts)
    ordered = [
        (name, sorted(by_tier[name], key=lambda facts: facts.rank))
        for name in sorted(by_tier, key=lambda name: tier_rank(name, tiers[name]))
    ]
    arranged: dict[str, tuple[TierPolicies, ...]] = {}
    for part, belongs in parts.items():
        chosen = [(name, tuple([facts.key for facts in of_tier if belongs(facts)])) for name, of_tier in ordered]
        arranged[part] = tuple([TierPolicies(name, _default_action(tiers[name]), keys) for name, keys in chosen if keys])
    return arranged


def _default_action(tier: TierSpec) -> Action:
    # Anything but Pass denies: fails closed.
    return Action.PASS if tier.default_action == "Pass" else Action.DENY

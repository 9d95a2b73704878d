"""Policies and tiers: which policies select a label class, and in what order.

Order (calico-v3): tiers by order, then name; in a tier policies by order, then name; what has no order comes last. A policy
whose tier does not exist is not enforced. Policies with ``doNotTrack`` or ``preDNAT`` are for host endpoints and never apply to workload
endpoints. A policy whose selector cannot be read selects nothing.

Answers are remembered in the label class (``LabelClass.policies``); whoever changes a policy or tier forgets those that it touches.
Pure. A class costs O(labels + policies that may match); a changed policy O(local classes).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from tabinet.calc.labels import LabelClass
from tabinet.calc.messages import Action, TierPolicies
from tabinet.calc.scopes import policy_scope
from tabinet.calc.sieve import Sieve
from tabinet.calc.translate import Translation, translate
from tabinet.errors import Problem
from tabinet.model.keys import ResourceKey
from tabinet.model.resources import GlobalNetworkPolicy, NetworkPolicy, Rule, TierSpec
from tabinet.selector import Node, SelectorError, matches

PolicyResource = NetworkPolicy | GlobalNetworkPolicy
Direction = Literal["Ingress", "Egress"]

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
    workloads: bool
    """It may apply to workload endpoints."""
    problems: tuple[Problem, ...]

    @property
    def rank(self) -> tuple[bool, float, str, str, str]:
        """Sorts the policies of a tier."""
        return (self.order is None, self.order or 0.0, self.key.name, self.key.kind, self.key.namespace)

    def applies(self, direction: Direction) -> bool:
        """True when it polices workload endpoints in this direction."""
        return self.workloads and (self.ingress if direction == "Ingress" else self.egress)


def describe_policy(key: ResourceKey, resource: PolicyResource) -> PolicyFacts:
    """Where the policy applies."""
    spec = resource.spec
    problems: tuple[Problem, ...] = ()
    scope: Node | None = None
    try:
        scope = policy_scope(spec, key.namespace)
    except SelectorError as error:
        problems = (Problem(path="spec selectors", value=repr(error.text)[:80], allowed=str(error), source=str(key)),)
    hosts_only = isinstance(resource, GlobalNetworkPolicy) and (resource.spec.do_not_track or resource.spec.pre_dnat)
    return PolicyFacts(
        key=key,
        tier=spec.tier or "default",
        order=spec.order,
        scope=scope,
        ingress="Ingress" in spec.types if spec.types else True,
        egress="Egress" in spec.types if spec.types else bool(spec.egress),
        workloads=not hosts_only,
        problems=problems,
    )


def translate_policy(facts: PolicyFacts, resource: PolicyResource) -> Translation:
    """The policy's rules as messages; those of a direction that it does not police are left out."""
    ingress: tuple[Rule, ...] = resource.spec.ingress if facts.ingress else ()
    egress: tuple[Rule, ...] = resource.spec.egress if facts.egress else ()
    return translate(ingress, egress, facts.key.namespace, str(facts.key))


def tier_rank(name: str, tier: TierSpec) -> tuple[bool, float, str]:
    """Sorts tiers."""
    return (tier.order is None, tier.order or 0.0, name)


def arrange(policies: Iterable[PolicyFacts], tiers: Mapping[str, TierSpec], direction: Direction) -> tuple[TierPolicies, ...]:
    """Of policies that select an endpoint, those that police it in this direction, by tier and in order."""
    by_tier: dict[str, list[PolicyFacts]] = {}
    for facts in policies:
        if facts.tier in tiers and facts.applies(direction):
            by_tier.setdefault(facts.tier, []).append(facts)
    return tuple(
        TierPolicies(
            tier=name,
            # Anything but Pass denies: fails closed.
            default_action=Action.PASS if tiers[name].default_action == "Pass" else Action.DENY,
            policies=tuple(facts.key for facts in sorted(by_tier[name], key=lambda facts: facts.rank)),
        )
        for name in sorted(by_tier, key=lambda name: tier_rank(name, tiers[name]))
    )


@dataclass(slots=True, eq=False)
class PolicyEntry:
    """A policy, and how many local endpoints it polices."""

    facts: PolicyFacts
    resource: PolicyResource
    users: int = 0


class PolicyMatch(msgspec.Struct, frozen=True):
    """The answer for one label class."""

    selected_by: frozenset[PolicyEntry]
    """Every policy whose selector matches."""
    enforced: tuple[PolicyEntry, ...]
    """Those of them in ``ingress`` or ``egress``, each once."""
    ingress: tuple[TierPolicies, ...]
    egress: tuple[TierPolicies, ...]


class PolicyIndex:
    """All policies and tiers."""

    __slots__ = ("_by_tier", "_sieve", "_tiers", "entries", "troubled")

    def __init__(self) -> None:
        self.entries: dict[ResourceKey, PolicyEntry] = {}
        self.troubled: dict[ResourceKey, tuple[Problem, ...]] = {}
        """Problems of policies that cannot be read."""
        self._tiers: dict[str, TierSpec] = dict(BUILT_IN_TIERS)
        self._by_tier: dict[str, dict[ResourceKey, None]] = {}
        self._sieve: Sieve[PolicyEntry] = Sieve()

    def set_tier(self, name: str, tier: TierSpec | None) -> bool:
        """The tier is this now (None: its resource is gone); True when that changes how policies apply."""
        now = BUILT_IN_TIERS.get(name) if tier is None else TierSpec(order=tier.order, default_action=tier.default_action)
        if now == self._tiers.get(name):
            return False
        if now is None:
            del self._tiers[name]
        else:
            self._tiers[name] = now
        return True

    def set_policy(self, key: ResourceKey, resource: PolicyResource | None, asked: Iterable[LabelClass]) -> list[LabelClass]:
        """The policy is this now (None: gone); gives those of the classes ``asked`` whose answer had to be forgotten."""
        old = self.entries.get(key)
        facts = None if resource is None else describe_policy(key, resource)
        if old is not None and facts is not None and resource is not None and old.facts == facts:
            # Only the rules differ: it applies where it did.
            old.resource = resource
            return []
        if old is not None:
            self._forget(old)
        new = None
        if facts is not None and resource is not None:
            new = PolicyEntry(facts, resource)
            self._file(new)
        touched = []
        for each in asked:
            match = each.policies
            if match is None:
                continue
            was = old is not None and old in match.selected_by
            now = new is not None and new.facts.scope is not None and matches(new.facts.scope, each.labels)
            if was or now:
                each.policies = None
                touched.append(each)
        return touched

    def _file(self, new: PolicyEntry) -> None:
        facts = new.facts
        self.entries[facts.key] = new
        self._by_tier.setdefault(facts.tier, {})[facts.key] = None
        if facts.problems:
            self.troubled[facts.key] = facts.problems
        if facts.scope is not None and facts.workloads:
            self._sieve.add(new, facts.scope)

    def _forget(self, old: PolicyEntry) -> None:
        key = old.facts.key
        del self.entries[key]
        self.troubled.pop(key, None)
        self._sieve.discard(old)
        of_tier = self._by_tier[old.facts.tier]
        del of_tier[key]
        if not of_tier:
            del self._by_tier[old.facts.tier]

    def match(self, of: LabelClass) -> PolicyMatch:
        """The policies of the class; remembered until something that they depend on changes."""
        found = of.policies
        if found is None:
            labels = of.labels
            selected = [
                each for each in self._sieve.candidates(labels) if each.facts.scope is not None and matches(each.facts.scope, labels)
            ]
            facts = [each.facts for each in selected]
            ingress = arrange(facts, self._tiers, "Ingress")
            egress = arrange(facts, self._tiers, "Egress")
            used = dict.fromkeys(key for tier in (*ingress, *egress) for key in tier.policies)
            found = PolicyMatch(frozenset(selected), tuple(self.entries[key] for key in used), ingress, egress)
            of.policies = found
        return found

    def problems(self) -> list[Problem]:
        """Policies that cannot be read, or whose tier does not exist. O(those)."""
        found = [problem for problems in self.troubled.values() for problem in problems]
        for name, keys in self._by_tier.items():
            if name not in self._tiers:
                found.extend(
                    Problem(path="spec.tier", value=repr(name), allowed="the name of a tier that exists", source=str(key)) for key in keys
                )
        return found

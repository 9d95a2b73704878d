"""``PolicyIndex``: which policies select an endpoint, arranged as the endpoint's message has them.

In: policies (also staged ones) and tiers. Out: ``match`` of an endpoint's labels. Labels that agree in all that policies ask for get the
same ``PolicyMatch``, and endpoints of one sort with the same match the same ``Arrangement``, so that a thousand alike cost as much as one;
policies are counted as in use by arrangements, not by endpoints.

Filters early: a namespaced policy selects only endpoints of its own namespace, so those of namespaces that no local endpoint is in
(``enter_namespace``, ``leave_namespace``) are put aside unread.

Pure. A match costs O(labels + policies that may match), and once for labels alike; a changed policy O(local endpoints).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from tabinet.calc.messages import TierPolicies
from tabinet.calc.policyfacts import BUILT_IN_TIERS, HOSTS, WORKLOADS, Parts, PolicyFacts, PolicyResource, arrange, describe_policy
from tabinet.calc.sieve import Sieve
from tabinet.errors import Problem
from tabinet.lib.refcount import RefCounter
from tabinet.model.keys import ResourceKey
from tabinet.model.resources import TierSpec
from tabinet.selector import Labels, Node, label_keys
from tabinet.selector.evaluate import compile_tree

MEMO_LIMIT = 10_000
"""Remembered matches are forgotten beyond this many: labels that differ for every endpoint would fill the memory."""


@dataclass(slots=True, eq=False)
class PolicyEntry:
    """A policy that may select local endpoints."""

    facts: PolicyFacts
    resource: PolicyResource
    selects: Callable[[Labels], bool]
    users: int = 0
    """Arrangements in use that enforce it."""


@dataclass(slots=True, eq=False)
class Arrangement:
    """The policies of endpoints of one sort that have the same match."""

    parts: dict[str, tuple[TierPolicies, ...]]
    """By field of the endpoint's message."""
    enforced: tuple[PolicyEntry, ...]
    """The policies in ``parts``, each once."""
    staged: tuple[PolicyEntry, ...]
    """Those that would be in one of the parts if they were not only staged."""
    users: int = 0
    """Local endpoints."""


@dataclass(slots=True, eq=False)
class PolicyMatch:
    """What is known of endpoints with labels that policies cannot tell apart."""

    selected_by: frozenset[PolicyEntry]
    """Every policy whose selector matches."""
    workloads: Arrangement | None = None
    hosts: Arrangement | None = None


@dataclass(slots=True)
class PolicyIndex:
    """All policies and tiers."""

    entries: dict[ResourceKey, PolicyEntry] = field(default_factory=dict)
    """Without those that were put aside."""
    unread: dict[ResourceKey, PolicyResource | None] = field(default_factory=dict)
    """Policies that changed and were not looked at yet; None: gone."""
    _tiers: dict[str, TierSpec] = field(default_factory=lambda: dict(BUILT_IN_TIERS))
    _sieve: Sieve[PolicyEntry] = field(default_factory=Sieve)
    _asked: RefCounter[str] = field(default_factory=RefCounter)
    """The label keys that selectors ask for."""
    _memo: dict[tuple[tuple[str, str], ...], PolicyMatch] = field(default_factory=dict)
    _by_namespace: dict[str, dict[ResourceKey, PolicyResource]] = field(default_factory=dict)
    """Namespaced policies, also those that were put aside."""
    _namespaces: RefCounter[str] = field(default_factory=RefCounter)
    """Namespaces of local endpoints."""

    # --- what changes -----------------------------------------------------------------------------------------------

    def put(self, key: ResourceKey, resource: PolicyResource | None) -> None:
        """The policy is this now (None: gone); it counts once ``read``, if it has to be read at all."""
        if key.namespace:
            of_namespace = self._by_namespace.setdefault(key.namespace, {})
            if resource is not None:
                of_namespace[key] = resource
            else:
                of_namespace.pop(key, None)
                if not of_namespace:
                    del self._by_namespace[key.namespace]
            if key.namespace not in self._namespaces and key not in self.entries:
                self.unread.pop(key, None)
                return
        self.unread[key] = resource

    def enter_namespace(self, namespace: str) -> None:
        """One more local endpoint is in the namespace."""
        if self._namespaces.add(namespace):
            self.unread.update(self._by_namespace.get(namespace, {}))

    def leave_namespace(self, namespace: str) -> None:
        """One local endpoint less is in the namespace."""
        if self._namespaces.drop(namespace):
            # Reading them puts them aside.
            self.unread.update(self._by_namespace.get(namespace, {}))

    def set_tier(self, name: str, tier: TierSpec | None) -> bool:
        """The tier is this now (None: its resource is gone); True when that changes how policies apply, so that all matches are void."""
        now = BUILT_IN_TIERS.get(name) if tier is None else TierSpec(order=tier.order, default_action=tier.default_action)
        if now == self._tiers.get(name):
            return False
        if now is None:
            del self._tiers[name]
        else:
            self._tiers[name] = now
        self._memo.clear()
        return True

    def read(self, key: ResourceKey, resource: PolicyResource | None) -> tuple[PolicyEntry | None, PolicyEntry | None]:
        """The policy, which was ``unread``, counts; gives what was known of it before and what is now: twice the same where only its
        rules changed. Matches that have the old one, or lack the new one, are void."""
        old = self.entries.get(key)
        aside = bool(key.namespace) and key.namespace not in self._namespaces
        facts = None if resource is None or aside else describe_policy(key, resource)
        if facts is None or resource is None:
            if old is not None:
                self._forget(old)
            return old, None
        if old is not None and old.facts == facts:
            old.resource = resource
            return old, old
        if old is not None:
            self._forget(old)
        new = PolicyEntry(facts, resource, _nothing if facts.scope is None else compile_tree(facts.scope))
        self.entries[key] = new
        if facts.scope is not None:
            self._file(new, facts.scope)
        return old, new

    def _file(self, new: PolicyEntry, scope: Node) -> None:
        self._sieve.add(new, scope)
        for label in label_keys(scope):
            self._asked.add(label)
        self._memo.clear()

    def _forget(self, old: PolicyEntry) -> None:
        del self.entries[old.facts.key]
        scope = old.facts.scope
        if scope is not None:
            self._sieve.discard(old)
            for label in label_keys(scope):
                self._asked.drop(label)
            self._memo.clear()

    # --- what follows -----------------------------------------------------------------------------------------------

    def match(self, labels: dict[str, str]) -> PolicyMatch:
        """The policies that select an endpoint with these labels."""
        asked = self._asked
        projection = tuple([pair for pair in labels.items() if pair[0] in asked])
        found = self._memo.get(projection)
        if found is None:
            if len(self._memo) >= MEMO_LIMIT:
                self._memo.clear()
            found = PolicyMatch(frozenset([each for each in self._sieve.candidates(labels) if each.selects(labels)]))
            self._memo[projection] = found
        return found

    def for_workloads(self, match: PolicyMatch) -> Arrangement:
        """The match's policies as workload endpoints have them."""
        if match.workloads is None:
            match.workloads = self._arrange(match.selected_by, WORKLOADS)
        return match.workloads

    def for_hosts(self, match: PolicyMatch) -> Arrangement:
        """The match's policies as host endpoints have them."""
        if match.hosts is None:
            match.hosts = self._arrange(match.selected_by, HOSTS)
        return match.hosts

    def _arrange(self, selected: Iterable[PolicyEntry], parts: Parts) -> Arrangement:
        arranged = arrange([each.facts for each in selected], self._tiers, parts)
        used = dict.fromkeys(key for tiers in arranged.values() for tier in tiers for key in tier.policies)
        staged = [each for each in selected if each.facts.staged and each.facts.tier in self._tiers and _wanted(each.facts, parts)]
        staged.sort(key=lambda entry: entry.facts.key)
        return Arrangement(arranged, tuple([self.entries[key] for key in used]), tuple(staged))

    def problems(self) -> Iterator[Problem]:
        """What is wrong with policies that may select local endpoints, apart from their rules. O(those policies)."""
        for entry in self.entries.values():
            facts = entry.facts
            yield from facts.problems
            if facts.tier not in self._tiers:
                allowed = "the name of a tier that exists; until then this policy is not enforced"
                yield Problem(path="spec.tier", value=repr(facts.tier), allowed=allowed, source=str(facts.key))


def _wanted(facts: PolicyFacts, parts: Parts) -> bool:
    return any(belongs(facts) for belongs in parts.values())


def _nothing(labels: Labels) -> bool:
    """The selector of a policy whose selectors cannot be read."""
    return False

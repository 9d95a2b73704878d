"""``lint``: rules and policies that do nothing, and names that look like typing errors, each with what shows it.

In: a situation. Out: ``Finding``s. That something does nothing is exact for its end of a flow, as things are now (see ``removal``); two
rules that make each other superfluous are both told, and only one of them may go. Log rules, and policies of host endpoints only, are
not looked at. Pure; O(rules x rules of the policies that concern the same endpoints).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from tabinet.analysis.boxes import TooMany
from tabinet.analysis.breadth import Inhabited, inhabited
from tabinet.analysis.fabric import Fabric
from tabinet.analysis.labels import effective_labels
from tabinet.analysis.relation import Relation
from tabinet.analysis.removal import Removal, Removed
from tabinet.analysis.situation import Situation, relate
from tabinet.analysis.words import Words, rule_text
from tabinet.calc.endpoints import readable
from tabinet.calc.messages import Action, Policy
from tabinet.calc.policyfacts import describe_policy
from tabinet.calc.replica import set_kinds
from tabinet.lib.ip import Prefix
from tabinet.model.keys import ResourceKey
from tabinet.model.resources import (
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    HostEndpoint,
    NetworkPolicy,
    NetworkSet,
    Profile,
    Rule,
    WorkloadEndpoint,
)
from tabinet.rules.options import TableOptions
from tabinet.selector import Eq, In, Ne, NotIn, Selector, label_keys, leaves
from tabinet.selector.tree import Node

ALIKE = 0.8
"""Ratio of difflib from which a name looks like another one mistyped."""
BLOCKERS = 4
"""So many rules are named as evidence."""


class Finding(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """Something that looks wrong."""

    where: str
    """Resource, and path in it."""
    what: str
    """``never-matches``, ``shadowed``, ``no-effect``, ``selects-nobody``, ``broad``, ``typo`` or ``too-many`` (it could not be told)."""
    text: str
    """What is there."""
    evidence: str


def lint(situation: Situation) -> list[Finding]:
    """All findings, by place."""
    _, (relation,) = relate([situation])
    linter = _Linter(situation, relation)
    return sorted([*linter.policies(), *linter.profiles(), *linter.names(), *linter.breadth()])


@dataclass(slots=True)
class _Linter:
    situation: Situation
    relation: Relation
    removal: Removal = field(init=False)
    words: Words = field(init=False)

    def __post_init__(self) -> None:
        self.removal = Removal(self.relation)
        self.words = Words(Fabric(self.situation.resources, lambda _: TableOptions()))

    # --- rules and policies ---

    def policies(self) -> Iterator[Finding]:
        """Of all policies."""
        for key, (value, _) in self.situation.resources.items():
            if not isinstance(value, NetworkPolicy | GlobalNetworkPolicy) or not isinstance(key, ResourceKey):
                continue
            if key not in self.situation.state.policies:
                scope = describe_policy(key, value).scope
                evidence = "no endpoint has what its selector asks for" if scope is not None else "its selector cannot be read"
                yield Finding(where=str(key), what="selects-nobody", text=value.spec.selector or "all()", evidence=evidence)
                continue
            yield from self._directions(key)
            if self._does_nothing(key):
                evidence = "without it every packet has the same verdict"
                yield Finding(where=str(key), what="no-effect", text="the whole policy", evidence=evidence)

    def profiles(self) -> Iterator[Finding]:
        """Of the profiles of endpoints."""
        for name in self.situation.state.profiles:
            key = ResourceKey("Profile", name)
            if key in self.situation.resources:
                yield from self._directions(key)

    def _does_nothing(self, key: ResourceKey) -> bool:
        """The policy applies to workloads, and makes no difference to them."""
        directions = [ingress for ingress in (True, False) if self.relation.local_of(key, ingress=ingress)]
        try:
            return bool(directions) and not any(self.removal.changes(Removed(key, ingress, None)) for ingress in directions)
        except TooMany:
            return False

    def _directions(self, key: ResourceKey) -> Iterator[Finding]:
        policy = self.relation.policy(key)
        for ingress in (True, False):
            if policy is not None and self.relation.local_of(key, ingress=ingress):
                for path, text, numbers in self._rules(key, policy, ingress):
                    yield from self._rule(Removed(key, ingress, numbers), f"{key} {path}", text)

    def _rules(self, key: ResourceKey, policy: Policy, ingress: bool) -> Iterator[tuple[str, str, frozenset[int]]]:
        """The rules as they are written: path, text, and which of the calculation's rules they came to be."""
        found: dict[tuple[str, str], list[int]] = {}
        rules = policy.ingress if ingress else policy.egress
        kept = [index for index, rule in enumerate(rules) if rule.action is not Action.LOG]
        for number, index in enumerate(kept):
            found.setdefault(self.words.rule(key, ingress, index), []).append(number)
        for (path, text), numbers in found.items():
            yield path, text, frozenset(numbers)

    def _rule(self, removed: Removed, where: str, text: str) -> Iterator[Finding]:
        about = self.removal.about(removed)
        if not about:
            yield Finding(where=where, what="never-matches", text=text, evidence=self._why_never(removed))
            return
        try:
            blockers = self.removal.blockers(removed)
            if blockers is not None:
                named = [self._name(key, removed.ingress, number) for key, number in blockers]
                more = f" and {len(named) - BLOCKERS} more" if len(named) > BLOCKERS else ""
                evidence = f"everything that it matches is taken by {', '.join(dict.fromkeys(named[:BLOCKERS]))}{more}"
                yield Finding(where=where, what="shadowed", text=text, evidence=evidence)
            elif not self.removal.changes(removed):
                evidence = "without it the same packets have the same verdict, by earlier tiers or by what follows"
                yield Finding(where=where, what="no-effect", text=text, evidence=evidence)
        except TooMany:
            evidence = f"more than {self.relation.boxes.budget} groups of flows meet"
            yield Finding(where=where, what="too-many", text=text, evidence=evidence)

    def _name(self, key: ResourceKey, ingress: bool, number: int) -> str:
        policy = self.relation.policy(key)
        if policy is None:
            return str(key)
        rules = policy.ingress if ingress else policy.egress
        kept = [index for index, rule in enumerate(rules) if rule.action is not Action.LOG]
        return f"{key} {self.words.rule(key, ingress, kept[number])[0]}"

    def _why_never(self, removed: Removed) -> str:
        """Sets that are empty, or that its parts exclude each other."""
        policy = self.relation.policy(removed.key)
        assert policy is not None
        assert removed.rules is not None
        rules = [rule for rule in (policy.ingress if removed.ingress else policy.egress) if rule.action is not Action.LOG]
        chosen = tuple([rules[number] for number in sorted(removed.rules)])
        sets = self.situation.state.sets
        empty = [self.words.set_text(name) for name in set_kinds(Policy(chosen, ())) if not sets[name][1]]
        return f"nobody is selected by {', '.join(empty)}" if empty else "its parts exclude each other, or leave no packet"

    # --- breadth ---

    def breadth(self) -> Iterator[Finding]:
        """Allow rules with prefixes of which hardly anything exists."""
        existing = inhabited(self.situation.resources)
        for key, (value, _) in self.situation.resources.items():
            if not isinstance(value, NetworkPolicy | GlobalNetworkPolicy | Profile) or not isinstance(key, ResourceKey):
                continue
            for direction, rules in (("ingress", value.spec.ingress), ("egress", value.spec.egress)):
                for index, rule in enumerate(rules):
                    if str(rule.action) == "Allow":
                        for net, narrow, count in _broad_nets(existing, rule):
                            evidence = (
                                f"of {net} there is only {narrow} ({count} pools, sets and addresses); the rest is outside or nobody's"
                            )
                            yield Finding(where=f"{key} spec.{direction}[{index}]", what="broad", text=rule_text(rule), evidence=evidence)

    # --- names ---

    def names(self) -> Iterator[Finding]:
        """Labels and values in selectors that nobody has, and that look like one that somebody has."""
        labels = self._known_labels()
        for where, text, root in self._selectors():
            for key in sorted(label_keys(root) - labels.keys()):
                yield from _typo(where, text, "label", key, labels)
            for leaf in leaves(root):
                values = (leaf.value,) if isinstance(leaf, Eq | Ne) else leaf.values if isinstance(leaf, In | NotIn) else ()
                known = labels.get(getattr(leaf, "key", ""), set())
                for value in values:
                    if known and value not in known:
                        yield from _typo(where, text, f"value of {getattr(leaf, 'key', '')}", value, known)

    def _known_labels(self) -> dict[str, set[str]]:
        """The values of every label of endpoints, of workloads and hosts, and of network sets."""
        found: dict[str, set[str]] = {}
        resources = self.situation.resources
        for key, (value, _) in resources.items():
            labels: dict[str, str] = {}
            if isinstance(value, WorkloadEndpoint) and isinstance(key, ResourceKey):
                labels = effective_labels(resources, key, value)
            elif isinstance(value, NetworkSet | GlobalNetworkSet | HostEndpoint):
                labels = value.metadata.labels
            for name, text in labels.items():
                found.setdefault(name, set()).add(text)
        return found

    def _selectors(self) -> Iterator[tuple[str, str, Node]]:
        """Where a selector stands, its text and its tree: those of policies, and those of rules that are in use."""
        for key, (value, _) in self.situation.resources.items():
            if not isinstance(value, NetworkPolicy | GlobalNetworkPolicy) or not isinstance(key, ResourceKey):
                continue
            scope = describe_policy(key, value).scope
            if scope is not None:
                yield str(key), value.spec.selector or "all()", scope
            policy = self.situation.state.policies.get(key)
            if policy is not None:
                for path, selector in self._of_rules(key, policy):
                    yield f"{key} {path}", selector.text, selector.root

    def _of_rules(self, key: ResourceKey, policy: Policy) -> Iterator[tuple[str, Selector]]:
        for ingress, rules in ((True, policy.ingress), (False, policy.egress)):
            for index, rule in enumerate(rules):
                path, _ = self.words.rule(key, ingress, index)
                for side in (rule.source, rule.destination):
                    for set_id in (*side.sets, *side.not_sets):
                        selector = self.words.selector_of(set_id)
                        if selector is not None:
                            yield path, selector


def _broad_nets(existing: Inhabited, rule: Rule) -> Iterator[tuple[Prefix, Prefix, int]]:
    """Prefixes of a rule that are far wider than what exists in them, with that."""
    for side in (rule.source, rule.destination):
        for net in readable(side.nets):
            found = existing.too_broad(net)
            if found is not None and not side.not_nets and not side.selector:
                yield net, *found


def _typo(where: str, text: str, what: str, name: str, known: Iterable[str]) -> Iterator[Finding]:
    names = sorted(known)
    close = [each for each in names if _is_swapped(name, each)] or difflib.get_close_matches(name, names, n=1, cutoff=ALIKE)
    if close:
        evidence = f"nobody has the {what} {name!r}; did you mean {close[0]!r}?"
        yield Finding(where=where, what="typo", text=text, evidence=evidence)


def _is_swapped(name: str, other: str) -> bool:
    """Two neighbouring letters changed places: the commonest slip, and in short names far from alike by difflib's measure."""
    differing = [index for index, (one, two) in enumerate(zip(name, other, strict=False)) if one != two]
    if len(name) != len(other) or len(differing) != 2 or differing[1] != differing[0] + 1:
        return False
    first, second = differing
    return name[first] == other[second] and name[second] == other[first]

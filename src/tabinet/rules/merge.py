"""Adjacent rules of one action as fewer rules, where one set lookup can answer for many comparisons.

In: the rules of a policy. Out: runs, each a rule that matches exactly what its rules match together. Within a stretch of rules of one
action the order is of no effect, so rules that differ in one thing only (ports or nets of one side) become one whose list is the
union; ``rules.policy`` looks long lists up in a set. Log rules are never merged, nor moved over.

It pays only from ``MERGE_FROM`` rules on: below that, comparing one after the other is as fast, and each rule keeps its own counter.
O(n) in the rules.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tabinet.calc.messages import Action, Rule, Side

MERGE_FROM = 4
"""Fewest rules that are worth a set."""


class Run(msgspec.Struct, frozen=True, gc=False):
    """One rule that stands for some of a policy's rules."""

    rule: Rule
    first: int
    """Position in the policy of the first of them."""
    last: int
    """Of the last. Rules in between may belong to other runs of the same stretch."""


def merge(rules: Iterable[Rule]) -> list[Run]:
    """The rules as runs, in an order that decides the same."""
    merged: list[Run] = []
    stretch: list[Run] = []
    for index, rule in enumerate(rules):
        if stretch and (rule.action is not stretch[0].rule.action or rule.action is Action.LOG):
            merged += _merge_stretch(stretch)
            stretch = []
        stretch.append(Run(rule, index, index))
    return merged + _merge_stretch(stretch)


def _merge_stretch(runs: list[Run]) -> list[Run]:
    for place in _PLACES:
        if len(runs) < MERGE_FROM:
            break
        runs = _merge_at(place, runs)
    return runs


class _Place(msgspec.Struct, frozen=True, gc=False):
    """Where in a rule a list is."""

    side: str
    field: str

    def values(self, rule: Rule) -> tuple[object, ...]:
        """The list. A rule whose list is empty wants any value; so does one that has other ways to match a port."""
        side: Side = getattr(rule, self.side)
        if self.field == "ports" and side.port_sets:
            return ()
        values: tuple[object, ...] = getattr(side, self.field)
        return values

    def replaced(self, rule: Rule, values: tuple[object, ...]) -> Rule:
        """The rule with this list."""
        side: Side = getattr(rule, self.side)
        return msgspec.structs.replace(rule, **{self.side: msgspec.structs.replace(side, **{self.field: values})})


_PLACES = (_Place("destination", "ports"), _Place("source", "ports"), _Place("source", "nets"), _Place("destination", "nets"))


def _merge_at(place: _Place, runs: list[Run]) -> list[Run]:
    groups: dict[tuple[Rule, bool], list[Run]] = {}
    for run in runs:
        listed = bool(place.values(run.rule))
        groups.setdefault((place.replaced(run.rule, ()) if listed else run.rule, listed), []).append(run)
    found: list[Run] = []
    for (_, listed), group in groups.items():
        if not listed or len(group) < MERGE_FROM:
            found += group
            continue
        values = tuple(dict.fromkeys(value for run in group for value in place.values(run.rule)))
        rule = place.replaced(group[0].rule, values)
        found.append(Run(rule, min(run.first for run in group), max(run.last for run in group)))
    return sorted(found, key=lambda run: run.first)

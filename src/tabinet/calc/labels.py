"""``LabelIndex``: who carries which labels, and which of them a selector means.

Everything that has labels (endpoints, network sets) belongs to a *label class*: all those with the same own labels and the same profiles.
Classes, not members, are indexed and matched: the thousand replicas of a workload cost as much as one. A class's *effective* labels are
its own, over those that its profiles apply (of several profiles the first that has the label).

Only label keys that selectors in use ask for are indexed. A selector is answered by set algebra over the indices: O(size of the smaller
operands), not O(classes), except where it is a bare negation. Indexing new keys is one pass over all classes, so ask for many at once.

Pure; does not know what the classes are matched for, but keeps a place for it (``sets``, ``policies``), because a dictionary beside
it would cost a lookup for every change.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from sys import intern
from typing import TYPE_CHECKING

from tabinet.selector import (
    All,
    And,
    Contains,
    EndsWith,
    Eq,
    Global,
    Has,
    In,
    Ne,
    Node,
    Not,
    NotIn,
    Or,
    StartsWith,
    matches,
)

if TYPE_CHECKING:
    from tabinet.calc.locals import LocalEndpoint
    from tabinet.calc.members import ActiveSet, Carrier
    from tabinet.calc.policies import PolicyMatch

Pairs = tuple[tuple[str, str], ...]
"""Labels as pairs, in any order."""


@dataclass(slots=True, eq=False)
class LabelClass:
    """All carriers of the same own labels and profiles."""

    own: Pairs
    profiles: tuple[str, ...]
    labels: dict[str, str]
    """Effective labels."""
    carriers: set[Carrier] = field(default_factory=set)
    sets: tuple[ActiveSet, ...] = ()
    """The active sets whose selectors match; kept by ``members``."""
    locals: dict[LocalEndpoint, None] = field(default_factory=dict)
    """The local endpoints among the carriers; kept by ``locals``."""
    policies: PolicyMatch | None = None
    """The policies that select it; None: not asked, or forgotten; kept by ``policies``."""


@dataclass(slots=True)
class _Profile:
    labels: dict[str, str] = field(default_factory=dict)
    classes: set[LabelClass] = field(default_factory=set)


@dataclass(slots=True)
class _KeyIndex:
    """The classes that have one label key, by value."""

    values: dict[str, set[LabelClass]] = field(default_factory=dict)
    present: set[LabelClass] = field(default_factory=set)
    uses: int = 0
    """How many selectors in use ask for the key."""


_NONE: set[LabelClass] = set()


class LabelIndex:
    """The label classes and their indices."""

    __slots__ = ("_by_own", "_classes", "_keys", "_profiles")

    def __init__(self) -> None:
        self._by_own: dict[tuple[Pairs, tuple[str, ...]], LabelClass] = {}
        self._classes: set[LabelClass] = set()
        self._profiles: dict[str, _Profile] = {}
        self._keys: dict[str, _KeyIndex] = {}

    # --- classes ----------------------------------------------------------------------------------------------------

    def class_of(self, own: Pairs, profiles: tuple[str, ...]) -> tuple[LabelClass, bool]:
        """The class of these labels and profiles, and whether it is new (then nothing has been matched for it)."""
        found = self._by_own.get((own, profiles))
        if found is not None:
            return found, False
        own = tuple([(intern(key), intern(value)) for key, value in own])
        profiles = tuple([intern(name) for name in profiles])
        made = LabelClass(own, profiles, {})
        for name in profiles:
            profile = self._profiles.get(name)
            if profile is None:
                profile = self._profiles[name] = _Profile()
            profile.classes.add(made)
        made.labels = self._effective(made)
        self._by_own[own, profiles] = made
        self._classes.add(made)
        self._add_to_indices(made)
        return made, True

    def drop(self, unused: LabelClass) -> None:
        """The class, which no one belongs to any more, is forgotten."""
        del self._by_own[unused.own, unused.profiles]
        self._classes.discard(unused)
        self._drop_from_indices(unused)
        for name in unused.profiles:
            # A profile that is named twice is gone at the second turn.
            profile = self._profiles.get(name)
            if profile is not None:
                profile.classes.discard(unused)
                if not profile.classes and not profile.labels:
                    del self._profiles[name]

    def set_profile(self, name: str, labels: dict[str, str]) -> list[LabelClass]:
        """The profile applies these labels from now on; gives the classes whose effective labels changed by that."""
        profile = self._profiles.setdefault(name, _Profile())
        if profile.labels == labels:
            if not labels and not profile.classes:
                del self._profiles[name]
            return []
        profile.labels = dict(labels)
        changed = []
        for each in profile.classes:
            effective = self._effective(each)
            if effective != each.labels:
                self._drop_from_indices(each)
                each.labels = effective
                self._add_to_indices(each)
                changed.append(each)
        if not labels and not profile.classes:
            del self._profiles[name]
        return changed

    def _effective(self, of: LabelClass) -> dict[str, str]:
        labels: dict[str, str] = {}
        for name in reversed(of.profiles):
            labels |= self._profiles[name].labels
        labels.update(of.own)
        return labels

    # --- indices ----------------------------------------------------------------------------------------------------

    def ask(self, keys: Iterable[str]) -> None:
        """``select`` may be asked about these keys, until as many ``forget`` them."""
        new: dict[str, _KeyIndex] = {}
        for key in keys:
            index = self._keys.get(key)
            if index is None:
                index = new[key] = self._keys[key] = _KeyIndex()
            index.uses += 1
        if len(new) == 1:
            # The common case after the start, worth its own loop: one lookup for each class.
            for key, index in new.items():
                for each in self._classes:
                    value = each.labels.get(key)
                    if value is not None:
                        _add(index, value, each)
        elif new:
            for each in self._classes:
                labels = each.labels
                for key in labels.keys() & new.keys():
                    _add(new[key], labels[key], each)

    def forget(self, keys: Iterable[str]) -> None:
        """Undoes one ``ask`` for each of the keys."""
        for key in keys:
            index = self._keys[key]
            index.uses -= 1
            if not index.uses:
                del self._keys[key]

    def projection(self, of: LabelClass) -> tuple[tuple[str, str], ...]:
        """The labels of the class that selectors in use ask for: classes with equal projections match the same selectors."""
        keys = self._keys
        return tuple([pair for pair in of.labels.items() if pair[0] in keys])

    def _add_to_indices(self, new: LabelClass) -> None:
        keys = self._keys
        for key, value in new.labels.items():
            index = keys.get(key)
            if index is not None:
                _add(index, value, new)

    def _drop_from_indices(self, old: LabelClass) -> None:
        keys = self._keys
        for key, value in old.labels.items():
            index = keys.get(key)
            if index is not None:
                index.present.discard(old)
                having = index.values[value]
                having.discard(old)
                if not having:
                    del index.values[value]

    # --- selection --------------------------------------------------------------------------------------------------

    def select(self, node: Node) -> set[LabelClass]:
        """The classes that the selector matches; all of its keys must have been asked for. Read only: it may be an index itself."""
        match node:
            case All() | Global():
                return self._classes
            case Has(key):
                return self._keys[key].present
            case Eq(key, value):
                return self._keys[key].values.get(value, _NONE)
            case In(key, values):
                return self._having(key, values)
            case Contains(key) | StartsWith(key) | EndsWith(key):
                index = self._keys[key]
                return _union([having for value, having in index.values.items() if matches(node, {key: value})])
            case And(terms):
                return self._all_of(terms)
            case Or(terms):
                return _union([self.select(term) for term in terms])
            case Ne() | NotIn() | Not():
                return self._classes - self._excluded(node)

    def _all_of(self, terms: tuple[Node, ...]) -> set[LabelClass]:
        wanted: list[set[LabelClass]] = []
        excluded: list[set[LabelClass]] = []
        for term in terms:
            if isinstance(term, (Ne, NotIn, Not)):
                excluded.append(self._excluded(term))
            else:
                wanted.append(self.select(term))
        wanted.sort(key=len)
        found = wanted[0] if wanted else self._classes
        for other in wanted[1:]:
            found = found & other
        for other in excluded:
            found = found - other
        return found

    def _excluded(self, node: Ne | NotIn | Not) -> set[LabelClass]:
        """The classes that a negation leaves out."""
        match node:
            case Ne(key, value):
                return self._keys[key].values.get(value, _NONE)
            case NotIn(key, values):
                return self._having(key, values)
            case Not(term):
                return self.select(term)

    def _having(self, key: str, values: tuple[str, ...]) -> set[LabelClass]:
        by_value = self._keys[key].values
        return _union([by_value.get(value, _NONE) for value in values])


def _add(index: _KeyIndex, value: str, new: LabelClass) -> None:
    index.present.add(new)
    having = index.values.get(value)
    if having is None:
        index.values[value] = {new}
    else:
        having.add(new)


def _union(sets: list[set[LabelClass]]) -> set[LabelClass]:
    return set().union(*sets)

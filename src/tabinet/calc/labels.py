"""``LabelIndex``: who carries which labels, and which of them a selector means.

Everything that has labels (endpoints, network sets) belongs to a *label class*: all those with the same own labels and the same profiles.
Classes, not members, are indexed and matched: the thousand replicas of a workload cost as much as one. A class's *effective* labels are
its own, over those that its profiles apply (of several profiles the first that has the label).

Only label keys that selectors in use need are indexed. A selector that demands few carriers by one label (``app == 'x'`` among
others) needs only that label's index: its candidates are judged one by one. Any other is answered by set algebra over the
indices of all its keys: O(size of the smaller operands), not O(classes), except where it is a bare negation. Indexing a new key
visits the classes that have it, found by *shape* (the tuple of a class's label keys), so ask for many at once. A few indices out
of use are kept, for they come back.

Pure; does not know what the classes are matched for, but keeps a place for it (``sets``), because a dictionary beside
it would cost a lookup for every change.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
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
    Selector,
    StartsWith,
    matches,
)

if TYPE_CHECKING:
    from tabinet.calc.members import ActiveSet, Carrier

NARROW = 2_000
"""Up to this many candidates are judged one by one rather than by set algebra."""
IDLE_INDICES = 32
"""How many indices that nobody needs are kept."""


@dataclass(slots=True, eq=False)
class LabelClass:
    """All carriers of the same own labels and profiles."""

    identity: tuple[str | None, ...]
    own: dict[str, str]
    profiles: tuple[str, ...]
    labels: dict[str, str]
    """Effective labels; the same object as ``own`` where nothing is inherited. Never changed in place."""
    carriers: set[Carrier]
    sets: tuple[ActiveSet, ...] = ()
    """The active sets whose selectors match; kept by ``members``."""


@dataclass(slots=True, eq=False)
class Query:
    """A selector in use, and how it is answered."""

    selector: Selector
    driver: str = ""
    """The label whose values give few candidates; empty: all keys are indexed."""
    values: frozenset[str] = frozenset()
    """The values of the driver that a candidate may have."""


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
    """How many queries need it."""


_NONE: set[LabelClass] = set()


class LabelIndex:
    """The label classes and their indices."""

    __slots__ = ("_asked", "_by_identity", "_classes", "_idle", "_keys", "_narrow", "_profiles", "_shapes")

    def __init__(self, narrow: int = NARROW) -> None:
        self._narrow = narrow
        self._by_identity: dict[tuple[str | None, ...], LabelClass] = {}
        self._classes: set[LabelClass] = set()
        self._profiles: dict[str, _Profile] = {}
        self._shapes: dict[tuple[str, ...], set[LabelClass]] = {}
        """Classes by the keys of their effective labels."""
        self._keys: dict[str, _KeyIndex] = {}
        self._idle: dict[str, None] = {}
        """Indexed keys that no query needs, the longest unused first."""
        self._asked: dict[str, int] = {}
        """By key: how many queries ask for it, indexed or not."""

    # --- classes ----------------------------------------------------------------------------------------------------

    def class_of(self, own: dict[str, str], profiles: tuple[str, ...]) -> tuple[LabelClass, bool]:
        """The class of these labels and profiles, and whether it is new (then nothing has been matched for it)."""
        keys, values = tuple(map(intern, own)), tuple(map(intern, own.values()))
        identity = (*keys, None, *values, None, *profiles)
        found = self._by_identity.get(identity)
        if found is not None:
            return found, False
        own = dict(zip(keys, values, strict=True))
        made = LabelClass(identity, own, profiles, own, set())
        if profiles:
            for name in profiles:
                profile = self._profiles.get(name)
                if profile is None:
                    profile = self._profiles[name] = _Profile()
                profile.classes.add(made)
            made.labels = self._effective(made)
        self._by_identity[identity] = made
        self._classes.add(made)
        self._file(made)
        return made, True

    def drop(self, unused: LabelClass) -> None:
        """The class, which no one belongs to any more, is forgotten."""
        del self._by_identity[unused.identity]
        self._classes.discard(unused)
        self._unfile(unused)
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
        changed = []
        if profile.labels != labels:
            profile.labels = {intern(key): intern(value) for key, value in labels.items()}
            for each in profile.classes:
                effective = self._effective(each)
                if effective != each.labels:
                    self._unfile(each)
                    each.labels = effective
                    self._file(each)
                    changed.append(each)
        if not labels and not profile.classes:
            del self._profiles[name]
        return changed

    def _effective(self, of: LabelClass) -> dict[str, str]:
        labels: dict[str, str] = {}
        for name in reversed(of.profiles):
            inherited = self._profiles[name].labels
            if inherited:
                labels |= inherited
        return labels | of.own if labels else of.own

    def _file(self, new: LabelClass) -> None:
        labels = new.labels
        shape = tuple(labels)
        alike = self._shapes.get(shape)
        if alike is None:
            self._shapes[shape] = {new}
        else:
            alike.add(new)
        keys = self._keys
        if keys:
            for key, value in labels.items():
                index = keys.get(key)
                if index is not None:
                    _add(index, value, new)

    def _unfile(self, old: LabelClass) -> None:
        labels = old.labels
        shape = tuple(labels)
        alike = self._shapes[shape]
        alike.discard(old)
        if not alike:
            del self._shapes[shape]
        keys = self._keys
        if keys:
            for key, value in labels.items():
                index = keys.get(key)
                if index is not None:
                    index.present.discard(old)
                    having = index.values[value]
                    having.discard(old)
                    if not having:
                        del index.values[value]

    # --- queries ----------------------------------------------------------------------------------------------------

    def open(self, selectors: Sequence[Selector]) -> list[Query]:
        """Queries for these selectors, to be closed when they are not needed any more. Cheaper for many at once."""
        queries = [Query(selector, *self._best_driver(selector)) for selector in selectors]
        for query in queries:
            for key in query.selector.keys:
                self._asked[key] = self._asked.get(key, 0) + 1
        self._need([query.driver for query in queries if query.driver])
        wide: list[Query] = []
        for query in queries:
            if not query.driver:
                wide.append(query)
            elif sum(len(self._keys[query.driver].values.get(value, _NONE)) for value in query.values) > self._narrow:
                self._release((query.driver,))
                query.driver = ""
                wide.append(query)
        self._need([key for query in wide for key in query.selector.keys])
        return queries

    def close(self, query: Query) -> None:
        """The query is not needed any more."""
        for key in query.selector.keys:
            self._asked[key] -= 1
            if not self._asked[key]:
                del self._asked[key]
        self._release((query.driver,) if query.driver else query.selector.keys)

    def answer(self, query: Query) -> Collection[LabelClass]:
        """The classes that the query's selector matches. Read only: it may be an index itself."""
        if not query.driver:
            return self._select(query.selector.root)
        by_value = self._keys[query.driver].values
        evaluate = query.selector.evaluate
        return [each for value in query.values for each in by_value.get(value, ()) if evaluate(each.labels)]

    def projection(self, of: LabelClass) -> tuple[tuple[str, str], ...]:
        """The labels of the class that queries ask for: classes with equal projections match the same selectors."""
        asked = self._asked
        return tuple([pair for pair in of.labels.items() if pair[0] in asked])

    def _best_driver(self, selector: Selector) -> tuple[str, frozenset[str]]:
        """The label with the fewest values among those that the selector ties to values; an indexed one among equals."""
        best: tuple[int, bool, str] | None = None
        values: frozenset[str] = frozenset()
        if len(selector.keys) > 1:
            for key, restriction in selector.restrictions.items():
                if restriction.values is not None:
                    rank = (len(restriction.values), key not in self._keys, key)
                    if best is None or rank < best:
                        best, values = rank, restriction.values
        return (best[2], values) if best else ("", frozenset())

    def _need(self, keys: Iterable[str]) -> None:
        """The keys are indexed, until as many ``_release`` them."""
        new: dict[str, _KeyIndex] = {}
        for key in keys:
            index = self._keys.get(key)
            if index is None:
                index = new[key] = self._keys[key] = _KeyIndex()
            index.uses += 1
            self._idle.pop(key, None)
        for key, alike in self._with_keys(new):
            index = new[key]
            index.present |= alike
            by_value = index.values
            for each in alike:
                value = each.labels[key]
                having = by_value.get(value)
                if having is None:
                    by_value[value] = {each}
                else:
                    having.add(each)

    def _with_keys(self, keys: Collection[str]) -> Iterator[tuple[str, set[LabelClass]]]:
        """Each key with each group of classes that have it."""
        if len(keys) <= 4:
            for key in keys:
                for alike in [alike for shape, alike in self._shapes.items() if key in shape]:
                    yield key, alike
        else:
            for shape, alike in self._shapes.items():
                for key in shape:
                    if key in keys:
                        yield key, alike

    def _release(self, keys: Iterable[str]) -> None:
        for key in keys:
            index = self._keys[key]
            index.uses -= 1
            if not index.uses:
                self._idle[key] = None
        while len(self._idle) > IDLE_INDICES:
            oldest = next(iter(self._idle))
            del self._idle[oldest], self._keys[oldest]

    # --- selection --------------------------------------------------------------------------------------------------

    def _select(self, node: Node) -> set[LabelClass]:
        """The classes that the selector matches; all of its keys are indexed."""
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
                return _union([self._select(term) for term in terms])
            case Ne() | NotIn() | Not():
                return self._classes - self._excluded(node)

    def _all_of(self, terms: tuple[Node, ...]) -> set[LabelClass]:
        wanted: list[set[LabelClass]] = []
        excluded: list[set[LabelClass]] = []
        composed: list[Node] = []
        for term in terms:
            if isinstance(term, (And, Or)):
                composed.append(term)
            elif isinstance(term, (Ne, NotIn, Not)):
                excluded.append(self._excluded(term))
            else:
                wanted.append(self._select(term))
        wanted.sort(key=len)
        found = wanted[0] if wanted else self._classes
        for other in wanted[1:]:
            found = found & other
        for other in excluded:
            found = found - other
        for term in composed:
            # Few are judged faster than the operands of the term are united.
            found = {each for each in found if matches(term, each.labels)} if len(found) <= self._narrow else found & self._select(term)
        return found

    def _excluded(self, node: Ne | NotIn | Not) -> set[LabelClass]:
        """The classes that a negation leaves out."""
        match node:
            case Ne(key, value):
                return self._keys[key].values.get(value, _NONE)
            case NotIn(key, values):
                return self._having(key, values)
            case Not(term):
                return self._select(term)

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

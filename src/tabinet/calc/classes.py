"""``ClassIndex``: the label classes, indexed by every label that they have, and which of them a selector means.

A selector is answered by set algebra over the indices: O(size of the smaller operands), not O(classes), except where it is a bare negation.
A key is indexed from ``need`` on, and for as long as a class has it. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tabinet.calc import few
from tabinet.calc.carriers import LabelClass
from tabinet.calc.few import Few
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

NARROW = 2_000
"""Up to this many classes are judged one by one rather than united with others."""


@dataclass(slots=True)
class _KeyIndex:
    """The classes that have one label key, by value."""

    values: dict[str, Few[LabelClass]] = field(default_factory=dict)
    present: set[LabelClass] = field(default_factory=set)
    needed: bool = False


class ClassIndex:
    """The classes, none of which is without carriers."""

    __slots__ = ("_all", "_by_identity", "_keys", "_narrow")

    def __init__(self, narrow: int = NARROW) -> None:
        self._narrow = narrow
        self._by_identity: dict[tuple[str, ...], LabelClass] = {}
        self._all: set[LabelClass] = set()
        self._keys: dict[str, _KeyIndex] = {}

    def get(self, identity: tuple[str, ...]) -> LabelClass:
        """The class of this identity: its keys, all of which are indexed, then its values. A new one has to get carriers."""
        return self._by_identity.get(identity) or self._make(identity)

    def _make(self, identity: tuple[str, ...]) -> LabelClass:
        half = len(identity) // 2
        labels = dict(zip(identity[:half], identity[half:], strict=True))
        made = self._by_identity[identity] = LabelClass(identity, labels)
        self._all.add(made)
        for key, value in labels.items():
            index = self._keys[key]
            index.present.add(made)
            index.values[value] = few.add(index.values.get(value), made)
        return made

    def drop(self, unused: LabelClass) -> None:
        """The class, which has lost its last carrier, is forgotten."""
        del self._by_identity[unused.identity]
        self._all.discard(unused)
        for key, value in unused.labels.items():
            index = self._keys[key]
            index.present.discard(unused)
            having = few.remove(index.values[value], unused)
            if having is None:
                del index.values[value]
            else:
                index.values[value] = having
            if not index.present and not index.needed:
                del self._keys[key]

    def need(self, key: str) -> None:
        """The key is indexed."""
        self._keys.setdefault(key, _KeyIndex()).needed = True

    def release(self, key: str) -> None:
        """The key need not be indexed; it is until no class has it."""
        index = self._keys[key]
        index.needed = False
        if not index.present:
            del self._keys[key]

    def knows(self, key: str) -> bool:
        """True when the key is indexed."""
        return key in self._keys

    def answer(self, selector: Selector) -> list[LabelClass]:
        """The classes that the selector matches; all of its keys are indexed."""
        return list(self._select(selector.root))

    def _select(self, node: Node) -> set[LabelClass]:
        match node:
            case All() | Global():
                return self._all
            case Has(key):
                return self._keys[key].present
            case Eq(key, value):
                return few.as_set(self._keys[key].values.get(value))
            case In(key, values):
                return self._having(key, values)
            case Contains(key) | StartsWith(key) | EndsWith(key):
                index = self._keys[key]
                return _united([having for value, having in index.values.items() if matches(node, {key: value})])
            case And(terms):
                return self._all_of(terms)
            case Or(terms):
                return set().union(*[self._select(term) for term in terms])
            case Ne() | NotIn() | Not():
                return self._all - self._excluded(node)

    def _all_of(self, terms: tuple[Node, ...]) -> set[LabelClass]:
        wanted: list[set[LabelClass]] = []
        others: list[And | Or | Ne | NotIn | Not] = []
        for term in terms:
            if isinstance(term, (And, Or, Ne, NotIn, Not)):
                others.append(term)
            else:
                wanted.append(self._select(term))
        wanted.sort(key=len)
        found = wanted[0] if wanted else self._all
        for other in wanted[1:]:
            found = found & other
        for term in others:
            # Few are judged faster than the operands of the term are united.
            if len(found) <= self._narrow:
                found = {each for each in found if matches(term, each.labels)}
            elif isinstance(term, (And, Or)):
                found = found & self._select(term)
            else:
                found = found - self._excluded(term)
        return found

    def _excluded(self, node: Ne | NotIn | Not) -> set[LabelClass]:
        """The classes that a negation leaves out."""
        match node:
            case Ne(key, value):
                return few.as_set(self._keys[key].values.get(value))
            case NotIn(key, values):
                return self._having(key, values)
            case Not(term):
                return self._select(term)

    def _having(self, key: str, values: tuple[str, ...]) -> set[LabelClass]:
        by_value = self._keys[key].values
        return _united([by_value.get(value) for value in values])


def _united(groups: list[Few[LabelClass]]) -> set[LabelClass]:
    return set().union(*[few.each(group) for group in groups])

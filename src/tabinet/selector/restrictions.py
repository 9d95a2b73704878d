"""What a selector demands of single labels: the sieve that makes matching cost what can match, not what exists.

A restriction is a *necessary* condition: labels that break it are not selected; labels that keep it may still not be. So an index
from (key, value) to selectors, or from (key, value) to endpoints, needs to look only where the most restricted key points.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tabinet.selector.tree import All, And, Contains, EndsWith, Eq, Global, Has, In, Ne, Node, Not, NotIn, Or, StartsWith, negation


class Restriction(msgspec.Struct, frozen=True, gc=False):
    """What one label must be like for a selector to match. All that is set holds together; both ``present`` and ``absent``,
    or an empty ``values``, means that nothing can match."""

    present: bool = False
    """The label must be there."""
    absent: bool = False
    """The label must not be there."""
    values: frozenset[str] | None = None
    """Its value must be one of these; ``None``: any. Implies ``present``."""

    @property
    def possible(self) -> bool:
        """False when no labels can keep it."""
        return not (self.present and self.absent) and self.values != frozenset()


Restrictions = dict[str, Restriction]

_PRESENT = Restriction(present=True)
_ABSENT = Restriction(absent=True)


def restrictions(node: Node) -> Restrictions:
    """The restriction of each label that ``node`` restricts. O(size of the tree)."""
    match node:
        case Eq(key, value):
            return {key: Restriction(present=True, values=frozenset((value,)))}
        case In(key, values):
            return {key: Restriction(present=True, values=frozenset(values))}
        case Has(key) | Contains(key) | StartsWith(key) | EndsWith(key):
            return {key: _PRESENT}
        case Not(Has(key)):
            return {key: _ABSENT}
        case And(terms):
            return _all_of(restrictions(term) for term in terms)
        case Or(terms):
            return _one_of([restrictions(term) for term in terms])
        case Not(And(terms)):
            return _one_of([restrictions(negation(term)) for term in terms])
        case Not(Or(terms)):
            return _all_of(restrictions(negation(term)) for term in terms)
        case All() | Global() | Ne() | NotIn() | Not():
            return {}


def _all_of(parts: Iterable[Restrictions]) -> Restrictions:
    combined: Restrictions = {}
    for part in parts:
        for key, new in part.items():
            old = combined.get(key)
            combined[key] = new if old is None else _both(old, new)
    return combined


def _both(one: Restriction, other: Restriction) -> Restriction:
    if one.values is None or other.values is None:
        values = one.values if other.values is None else other.values
    else:
        values = one.values & other.values
    return Restriction(one.present or other.present, one.absent or other.absent, values)


def _one_of(parts: list[Restrictions]) -> Restrictions:
    """A branch that cannot match restricts nothing in the others; when none can, the first one says so."""
    possible = [part for part in parts if all(restriction.possible for restriction in part.values())]
    if not possible:
        return parts[0]
    combined = possible[0]
    for part in possible[1:]:
        merged: Restrictions = {}
        for key in combined.keys() & part.keys():
            either = _either(combined[key], part[key])
            if either.present or either.absent:
                merged[key] = either
        combined = merged
    return combined


def _either(one: Restriction, other: Restriction) -> Restriction:
    values = None if one.values is None or other.values is None else one.values | other.values
    return Restriction(one.present and other.present, one.absent and other.absent, values)

"""Syntax tree to a function that judges labels, built of closures: no tree is walked for an evaluation.

Also ``matches``, the plain interpreter, slower and obviously right; the tests hold the two against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tabinet.selector.tree import All, And, Contains, EndsWith, Eq, Global, Has, In, Ne, Node, Not, NotIn, Or, StartsWith

Labels = Mapping[str, str]
Evaluator = Callable[[Labels], bool]


def matches(node: Node, labels: Labels) -> bool:
    """True when the labels are selected. Walks the tree."""
    match node:
        case All() | Global():
            return True
        case Has(key):
            return key in labels
        case Eq(key, value):
            return labels.get(key) == value
        case Ne(key, value):
            return labels.get(key) != value
        case In(key, values):
            return key in labels and labels[key] in values
        case NotIn(key, values):
            return key not in labels or labels[key] not in values
        case Contains(key, value):
            return key in labels and value in labels[key]
        case StartsWith(key, value):
            return key in labels and labels[key].startswith(value)
        case EndsWith(key, value):
            return key in labels and labels[key].endswith(value)
        case Not(term):
            return not matches(term, labels)
        case And(terms):
            return all(matches(term, labels) for term in terms)
        case Or(terms):
            return any(matches(term, labels) for term in terms)


def compile_tree(node: Node) -> Evaluator:
    """A function equal to ``lambda labels: matches(node, labels)``, several times faster."""
    match node:
        case Not(term):
            inner = compile_tree(term)
            return lambda labels: not inner(labels)
        case And(terms):
            return _every([compile_tree(term) for term in terms])
        case Or(terms):
            return _any([compile_tree(term) for term in terms])
        case _:
            return _compile_leaf(node)


def _compile_leaf(node: Node) -> Evaluator:
    match node:
        case Has(key):
            return lambda labels: key in labels
        case Eq(key, value):
            return lambda labels: labels.get(key) == value
        case Ne(key, value):
            return lambda labels: labels.get(key) != value
        case In(key, values):
            members = frozenset(values)
            return lambda labels: labels.get(key) in members
        case NotIn(key, values):
            others = frozenset(values)
            return lambda labels: labels.get(key) not in others
        case Contains(key, value):
            return lambda labels: key in labels and value in labels[key]
        case StartsWith(key, value):
            return lambda labels: key in labels and labels[key].startswith(value)
        case EndsWith(key, value):
            return lambda labels: key in labels and labels[key].endswith(value)
        case _:
            return lambda labels: True


def _every(parts: list[Evaluator]) -> Evaluator:
    """All of the parts hold. Up to four in one expression; more are grouped by four, which keeps the depth logarithmic."""
    match parts:
        case [a]:
            return a
        case [a, b]:
            return lambda labels: a(labels) and b(labels)
        case [a, b, c]:
            return lambda labels: a(labels) and b(labels) and c(labels)
        case [a, b, c, d]:
            return lambda labels: a(labels) and b(labels) and c(labels) and d(labels)
        case _:
            return _every([_every(parts[start : start + 4]) for start in range(0, len(parts), 4)])


def _any(parts: list[Evaluator]) -> Evaluator:
    """One of the parts holds; grouped as in ``_every``."""
    match parts:
        case [a]:
            return a
        case [a, b]:
            return lambda labels: a(labels) or b(labels)
        case [a, b, c]:
            return lambda labels: a(labels) or b(labels) or c(labels)
        case [a, b, c, d]:
            return lambda labels: a(labels) or b(labels) or c(labels) or d(labels)
        case _:
            return _any([_any(parts[start : start + 4]) for start in range(0, len(parts), 4)])

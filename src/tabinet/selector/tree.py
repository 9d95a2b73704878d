"""The syntax tree of a selector: frozen nodes, and constructors that keep a tree in normal form.

A tree is in *normal form* when no And directly holds an And, no Or an Or, no Not negates something that has a positive node for
its negation (``!(k == 'v')`` is ``k != 'v'``), and sets of values are sorted, free of duplicates and have not exactly one member.
The parser and the constructors ``negation``, ``conjunction``, ``disjunction`` and ``membership`` return normal forms when given
them. Two selectors with the same normal form share sets and chains. Nodes are plain data: other packages match on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec


class All(msgspec.Struct, frozen=True, tag=True, gc=False):
    """``all()``: matches everything."""


class Global(msgspec.Struct, frozen=True, tag=True, gc=False):
    """``global()``: matches everything by itself; as a whole namespace selector it means "no namespace", which callers rewrite."""


class Has(msgspec.Struct, frozen=True, tag=True, gc=False):
    """``has(key)``: the label is present."""

    key: str


class Eq(msgspec.Struct, frozen=True, tag=True, gc=False):
    """``key == 'value'``."""

    key: str
    value: str


class Ne(msgspec.Struct, frozen=True, tag=True, gc=False):
    """``key != 'value'``: also true when the label is absent."""

    key: str
    value: str


class In(msgspec.Struct, frozen=True, tag=True, gc=False):
    """``key in {...}``: present, with one of these values (sorted, no duplicates)."""

    key: str
    values: tuple[str, ...]


class NotIn(msgspec.Struct, frozen=True, tag=True, gc=False):
    """``key not in {...}``: also true when the label is absent."""

    key: str
    values: tuple[str, ...]


class Contains(msgspec.Struct, frozen=True, tag=True, gc=False):
    """``key contains 'value'``: present, and the text occurs in its value."""

    key: str
    value: str


class StartsWith(msgspec.Struct, frozen=True, tag=True, gc=False):
    """``key starts with 'value'``."""

    key: str
    value: str


class EndsWith(msgspec.Struct, frozen=True, tag=True, gc=False):
    """``key ends with 'value'``."""

    key: str
    value: str


class Not(msgspec.Struct, frozen=True, tag=True):
    """``!term``."""

    term: Node


class And(msgspec.Struct, frozen=True, tag=True):
    """All of the terms; at least two."""

    terms: tuple[Node, ...]


class Or(msgspec.Struct, frozen=True, tag=True):
    """Any of the terms; at least two."""

    terms: tuple[Node, ...]


Leaf = All | Global | Has | Eq | Ne | In | NotIn | Contains | StartsWith | EndsWith
Node = Leaf | Not | And | Or


def membership(key: str, values: Iterable[str]) -> In | Eq:
    """``key in {values}`` in normal form."""
    ordered = tuple(sorted(set(values)))
    return Eq(key, ordered[0]) if len(ordered) == 1 else In(key, ordered)


def negation(term: Node) -> Node:
    """The opposite of ``term`` in normal form."""
    match term:
        case Not(inner):
            return inner
        case Eq(key, value):
            return Ne(key, value)
        case Ne(key, value):
            return Eq(key, value)
        case In(key, values):
            return NotIn(key, values)
        case NotIn(key, values):
            return In(key, values)
        case _:
            return Not(term)


def conjunction(terms: Iterable[Node]) -> Node:
    """True where all of the terms are; ``All`` when there are none. Nested conjunctions are flattened, order is kept."""
    flat: list[Node] = []
    for term in terms:
        flat.extend(term.terms if isinstance(term, And) else (term,))
    if not flat:
        return All()
    return flat[0] if len(flat) == 1 else And(tuple(flat))


def disjunction(terms: Iterable[Node]) -> Node:
    """True where any of the terms is; matches nothing when there are none. Nested disjunctions are flattened, order is kept."""
    flat: list[Node] = []
    for term in terms:
        flat.extend(term.terms if isinstance(term, Or) else (term,))
    if not flat:
        return Not(All())
    return flat[0] if len(flat) == 1 else Or(tuple(flat))


def leaves(node: Node) -> Iterator[Leaf]:
    """Every leaf of the tree, from left to right."""
    match node:
        case Not(term):
            yield from leaves(term)
        case And(terms) | Or(terms):
            for term in terms:
                yield from leaves(term)
        case _:
            yield node


def label_keys(node: Node) -> frozenset[str]:
    """The label keys whose values decide about a match."""
    return frozenset(leaf.key for leaf in leaves(node) if not isinstance(leaf, (All, Global)))


def rewrite(node: Node, leaf: Callable[[Leaf], Node]) -> Node:
    """The tree with every leaf replaced by ``leaf(it)``, in normal form again."""
    match node:
        case Not(term):
            return negation(rewrite(term, leaf))
        case And(terms):
            return conjunction(rewrite(term, leaf) for term in terms)
        case Or(terms):
            return disjunction(rewrite(term, leaf) for term in terms)
        case _:
            return leaf(node)


def with_key_prefix(node: Node, prefix: str) -> Node:
    """The tree asking for ``prefix + key`` instead of each key: how selectors over namespaces and service accounts are mapped."""

    def renamed(leaf: Leaf) -> Node:
        return leaf if isinstance(leaf, (All, Global)) else msgspec.structs.replace(leaf, key=prefix + leaf.key)

    return rewrite(node, renamed)

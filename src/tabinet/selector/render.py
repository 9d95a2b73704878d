"""Syntax tree to canonical text: ``parse_tree(render_tree(tree)) == tree`` for every tree in normal form."""

from __future__ import annotations

from tabinet.selector.tree import All, And, Contains, EndsWith, Eq, Global, Has, In, Ne, Node, Not, NotIn, Or, StartsWith


def render_tree(node: Node) -> str:
    """The canonical text of a selector.

    Raises:
        ValueError: a value holds both kinds of quotes, which no selector can say.
    """
    match node:
        case And(terms):
            return " && ".join(_bracketed(term, Or) for term in terms)
        case Or(terms):
            return " || ".join(render_tree(term) for term in terms)
        case Not(term):
            return "!" + _bracketed(term, And, Or)
        case All():
            return "all()"
        case Global():
            return "global()"
        case Has(key):
            return f"has({key})"
        case Eq(key, value):
            return f"{key} == {_quoted(value)}"
        case Ne(key, value):
            return f"{key} != {_quoted(value)}"
        case In(key, values):
            return f"{key} in {{{', '.join(map(_quoted, values))}}}"
        case NotIn(key, values):
            return f"{key} not in {{{', '.join(map(_quoted, values))}}}"
        case Contains(key, value):
            return f"{key} contains {_quoted(value)}"
        case StartsWith(key, value):
            return f"{key} starts with {_quoted(value)}"
        case EndsWith(key, value):
            return f"{key} ends with {_quoted(value)}"


def _bracketed(node: Node, *kinds: type) -> str:
    text = render_tree(node)
    return f"({text})" if isinstance(node, kinds) else text


def _quoted(value: str) -> str:
    if "'" not in value:
        return f"'{value}'"
    if '"' not in value:
        return f'"{value}"'
    raise ValueError(f"no selector can hold the value {value!r}: it has both kinds of quotes")

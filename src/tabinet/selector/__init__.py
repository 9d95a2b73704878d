"""Selectors: which labels are meant (``role == 'db' && !has(test)``). Pure; the grammar is in ``parser``.

- ``parse(text)`` gives a ``Selector``: ``evaluate(labels)``, ``str()`` (canonical text, a fixed point of parsing), ``keys``, ``uid``,
  ``root`` (the syntax tree) and ``restrictions``. ``SelectorError`` says where a text stops being a selector.
- ``from_tree(root)`` gives the ``Selector`` of a tree that was built or combined by hand; ``tree`` has the nodes and
  the constructors that keep normal form.

Calico's meaning throughout: ``!=`` and ``not in`` hold for absent labels; an empty selector is ``all()``.
"""

from __future__ import annotations

import functools

from tabinet.selector.compiled import Selector, from_tree
from tabinet.selector.evaluate import Labels, matches
from tabinet.selector.parser import MAX_LENGTH, SelectorError, parse_tree
from tabinet.selector.restrictions import Restriction, restrictions
from tabinet.selector.tree import (
    All,
    And,
    Contains,
    EndsWith,
    Eq,
    Global,
    Has,
    In,
    Leaf,
    Ne,
    Node,
    Not,
    NotIn,
    Or,
    StartsWith,
    conjunction,
    disjunction,
    label_keys,
    leaves,
    membership,
    negation,
    rewrite,
    with_key_prefix,
)

__all__ = [
    "MAX_LENGTH",
    "All",
    "And",
    "Contains",
    "EndsWith",
    "Eq",
    "Global",
    "Has",
    "In",
    "Labels",
    "Leaf",
    "Ne",
    "Node",
    "Not",
    "NotIn",
    "Or",
    "Restriction",
    "Selector",
    "SelectorError",
    "StartsWith",
    "conjunction",
    "disjunction",
    "from_tree",
    "label_keys",
    "leaves",
    "matches",
    "membership",
    "negation",
    "parse",
    "parse_tree",
    "restrictions",
    "rewrite",
    "with_key_prefix",
]


@functools.lru_cache(maxsize=65536)
def parse(text: str) -> Selector:
    """The selector that ``text`` says; an empty text is ``all()``. The same object for a text that was parsed recently.

    Raises:
        SelectorError: not a selector, or one beyond the limits of ``parser``.
    """
    return from_tree(parse_tree(text))

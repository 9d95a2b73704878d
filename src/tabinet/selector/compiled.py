"""``Selector``: a syntax tree with everything that its users ask of it over and over, worked out once."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field

from tabinet.selector.evaluate import Evaluator, compile_tree
from tabinet.selector.render import render_tree
from tabinet.selector.restrictions import Restriction, restrictions
from tabinet.selector.tree import Node, label_keys


@dataclass(frozen=True, slots=True)
class Selector:
    """A selector. Equal, and equally hashed, when the canonical texts are equal."""

    text: str
    """Canonical text."""
    root: Node = field(compare=False, repr=False)
    """Syntax tree, in normal form."""
    evaluate: Evaluator = field(compare=False, repr=False)
    """``evaluate(labels)`` is True when the labels are selected. (A closure in a field: a method would cost a call more.)"""
    keys: frozenset[str] = field(compare=False, repr=False)
    """The label keys that it asks for."""
    restrictions: dict[str, Restriction] = field(compare=False, repr=False)
    """What it demands of single labels. Read only."""
    uid: str = field(compare=False, repr=False)
    """16 letters (a-z) and digits (2-7): 80 bits of a hash of the canonical text, the same everywhere and always."""

    def __str__(self) -> str:
        return self.text


def from_tree(root: Node) -> Selector:
    """The selector of a tree in normal form. O(size of the tree).

    Raises:
        ValueError: a value in the tree cannot be written (see ``render``).
    """
    text = render_tree(root)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=10).digest()
    return Selector(
        text=text,
        root=root,
        evaluate=compile_tree(root),
        keys=label_keys(root),
        restrictions=restrictions(root),
        uid=base64.b32encode(digest).decode().lower(),
    )

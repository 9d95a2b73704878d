"""PrefixTrie: prefixes of both families to values, with longest-prefix match.

A binary trie whose nodes skip the bits that no stored prefix decides (a radix tree): at most two nodes for each stored prefix, and
every operation costs at most the length of an address (32 or 128 steps), in practice the depth of the data. Iteration is in the order
of the prefixes. Pure; not thread-safe.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from tabinet.lib.ip import BITS, Prefix

V = TypeVar("V")


@dataclass(slots=True)
class _Node(Generic[V]):
    """A prefix that is stored (``filled``) or at which two stored prefixes part."""

    prefix: Prefix
    value: V | None = None
    filled: bool = False
    zero: _Node[V] | None = None
    one: _Node[V] | None = None


class PrefixTrie(Generic[V]):
    """A mapping from ``Prefix`` to values that also answers which stored prefix covers an address."""

    __slots__ = ("_count", "_roots")

    def __init__(self) -> None:
        self._roots: dict[int, _Node[V]] = {family: _Node(Prefix(family, 0, 0)) for family in BITS}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, prefix: Prefix) -> bool:
        node = self._find(prefix)
        return node is not None and node.filled

    def get(self, prefix: Prefix) -> V | None:
        """The value stored for exactly this prefix, or None."""
        node = self._find(prefix)
        return node.value if node is not None and node.filled else None

    def set(self, prefix: Prefix, value: V) -> None:
        """``prefix`` has this value; an earlier one is replaced."""
        parent = self._roots[prefix.family]
        while parent.prefix != prefix:
            child = _child(parent, prefix)
            if child is None:
                child = _Node(prefix)
                _attach(parent, child)
            elif not child.prefix.contains(prefix):
                child = _split(parent, child, prefix)
            parent = child
        if not parent.filled:
            parent.filled = True
            self._count += 1
        parent.value = value

    def delete(self, prefix: Prefix) -> None:
        """``prefix`` has no value.

        Raises:
            KeyError: it had none.
        """
        path: list[_Node[V]] = []
        node: _Node[V] | None = self._roots[prefix.family]
        while node is not None and node.prefix != prefix:
            path.append(node)
            node = _child(node, prefix)
            if node is not None and not node.prefix.contains(prefix):
                node = None
        if node is None or not node.filled:
            raise KeyError(prefix)
        node.filled = False
        node.value = None
        self._count -= 1
        # A node that is neither stored nor a fork goes; its parent may have become such a node.
        while path and not node.filled and (node.zero is None or node.one is None):
            parent = path.pop()
            _replace(parent, node, node.zero or node.one)
            node = parent

    def longest_match(self, prefix: Prefix) -> tuple[Prefix, V] | None:
        """The longest stored prefix that covers all of ``prefix``, with its value; None when none does."""
        best: _Node[V] | None = None
        for node in self._path(prefix):
            if node.filled:
                best = node
        return None if best is None else (best.prefix, best.value)  # type: ignore[return-value]  # filled: the value is a V

    def covering(self, prefix: Prefix) -> Iterator[tuple[Prefix, V]]:
        """Every stored prefix that covers all of ``prefix``, shortest first."""
        for node in self._path(prefix):
            if node.filled:
                yield node.prefix, node.value  # type: ignore[misc]  # filled: the value is a V

    def covered(self, prefix: Prefix) -> Iterator[tuple[Prefix, V]]:
        """Every stored prefix inside ``prefix``, itself included, in order. Not safe against changes while it runs."""
        node: _Node[V] | None = self._roots[prefix.family]
        while node is not None and node.prefix.length < prefix.length:
            node = _child(node, prefix) if node.prefix.contains(prefix) else None
        if node is not None and prefix.contains(node.prefix):
            yield from _walk(node)

    def items(self) -> Iterator[tuple[Prefix, V]]:
        """Everything stored, IPv4 first, in order. Not safe against changes while it runs."""
        for family in sorted(self._roots):
            yield from _walk(self._roots[family])

    def _path(self, prefix: Prefix) -> Iterator[_Node[V]]:
        node: _Node[V] | None = self._roots[prefix.family]
        while node is not None and node.prefix.contains(prefix):
            yield node
            node = _child(node, prefix) if node.prefix.length < prefix.length else None

    def _find(self, prefix: Prefix) -> _Node[V] | None:
        for node in self._path(prefix):
            if node.prefix == prefix:
                return node
        return None


def _bit(prefix: Prefix, position: int) -> int:
    return prefix.value >> (prefix.bits - 1 - position) & 1


def _child(parent: _Node[V], prefix: Prefix) -> _Node[V] | None:
    """The child on the side where ``prefix``, which is longer than the parent's, would be."""
    return parent.one if _bit(prefix, parent.prefix.length) else parent.zero


def _attach(parent: _Node[V], child: _Node[V]) -> None:
    if _bit(child.prefix, parent.prefix.length):
        parent.one = child
    else:
        parent.zero = child


def _replace(parent: _Node[V], old: _Node[V], new: _Node[V] | None) -> None:
    if parent.one is old:
        parent.one = new
    else:
        parent.zero = new


def _split(parent: _Node[V], child: _Node[V], prefix: Prefix) -> _Node[V]:
    """A new node between parent and child, at the prefix that ``child`` and ``prefix`` share."""
    bits = prefix.bits
    differing = (child.prefix.value ^ prefix.value).bit_length()
    length = min(bits - differing, child.prefix.length, prefix.length)
    shift = bits - length
    fork: _Node[V] = _Node(Prefix(prefix.family, prefix.value >> shift << shift, length))
    _attach(parent, fork)
    _attach(fork, child)
    return fork


def _walk(node: _Node[V]) -> Iterator[tuple[Prefix, V]]:
    stack = [node]
    while stack:
        current = stack.pop()
        if current.filled:
            yield current.prefix, current.value  # type: ignore[misc]  # filled: the value is a V
        if current.one is not None:
            stack.append(current.one)
        if current.zero is not None:
            stack.append(current.zero)

"""The operations of an nf_tables transaction, as data; the socket that executes them and the fake beside it take the same.

Two tables of one name, which come and go together: objects whose name begins with ``ARP_PREFIX`` are in that of family ``arp``, all
others in that of family ``inet``. A list of operations is one transaction over both: all of it happens or nothing.
Names are text; keys, data and rule expressions are the kernel's bytes (linux/netfilter/nf_tables.h), made by ``kernel.nftexpr``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import msgspec

ARP_PREFIX = "arp_"
"""How the names of all objects of the table of family ``arp`` begin."""
INET, ARP = 1, 3
"""Families (NFPROTO_*)."""
FAMILY_NAMES = {INET: "inet", ARP: "arp"}


def family_of(name: str) -> int:
    """The family of the table in which the chain or set of this name is."""
    return ARP if name.startswith(ARP_PREFIX) else INET


class NftOp(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Base of the operations."""


class Hook(msgspec.Struct, frozen=True, gc=False):
    """Makes a chain a base chain."""

    hook: int
    """NF_INET_*: 0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting. In family arp NF_ARP_*: 0 input, 1 output."""
    priority: int
    type: str = "filter"
    policy_accept: bool = True


class AddTable(NftOp, frozen=True):
    """The tables exist (no error when they do)."""


class DeleteTable(NftOp, frozen=True):
    """The tables and all in them are gone. ENOENT when that of family inet is absent."""


class AddChain(NftOp, frozen=True):
    """The chain exists (no error when it does, with the same hook; EOPNOTSUPP when with another)."""

    name: str
    hook: Hook | None = None


class DeleteChain(NftOp, frozen=True):
    """ENOENT when absent; EBUSY when rules or elements still lead to it. Its own rules go with it."""

    name: str


class FlushChain(NftOp, frozen=True):
    """The chain has no rules. ENOENT when absent."""

    name: str


class AddRule(NftOp, frozen=True):
    """Appends a rule."""

    chain: str
    expressions: bytes
    """Encoded NFTA_RULE_EXPRESSIONS content."""
    userdata: bytes = b""
    targets: tuple[str, ...] = ()
    """Chains that the rule jumps or goes to."""
    sets: tuple[str, ...] = ()
    """Sets and maps that it looks up."""


class SetSpec(msgspec.Struct, frozen=True, gc=False):
    """What a set or map is made of."""

    key_type: int
    """nft's datatype number (for listings), concatenations 6 bits each."""
    key_length: int
    """Bytes; each field of a concatenation padded to 4."""
    fields: tuple[int, ...] = ()
    """Lengths in bytes of the fields of a concatenation."""
    interval: bool = False
    verdict_map: bool = False
    size: int = 0
    """Most elements that it can hold; 0 only for interval sets."""
    userdata: bytes = b""
    """For listings: key byte order and the like."""
    counted: bool = False
    """Each element counts the packets of the lookups that find it."""
    forget_s: int = 0
    """Packets add its elements, and each is forgotten so many seconds after it came or was updated; 0: packets add none."""


class AddSet(NftOp, frozen=True):
    """The set exists and is empty or as it was. EEXIST when it exists with another spec; only the size may differ, and changes for
    the transactions that follow.

    A larger size lets more in, but the kernel keeps the buckets that it made: for real growth make a new set.
    """

    name: str
    spec: SetSpec


class DeleteSet(NftOp, frozen=True):
    """ENOENT when absent; EBUSY while rules look it up."""

    name: str


class Element(msgspec.Struct, frozen=True, gc=False, order=True):
    """One element.

    For interval sets ``end`` is the inclusive last key of a concatenation, or ``interval_end`` marks an exclusive end (rbtree).
    """

    key: bytes
    end: bytes = b""
    interval_end: bool = False
    verdict: int | None = None
    """For verdict maps: NF_ACCEPT 1, NF_DROP 0, NFT_JUMP -3, NFT_GOTO -4."""
    chain: str = ""
    """The chain of a jump or goto verdict."""


class AddElements(NftOp, frozen=True):
    """Adds elements; one that is there with the same data is no error, with other data EEXIST. ENFILE over the size."""

    set_name: str
    elements: tuple[Element, ...]


class DeleteElements(NftOp, frozen=True):
    """Removes elements. ENOENT when one is absent."""

    set_name: str
    elements: tuple[Element, ...]


class FlushSet(NftOp, frozen=True):
    """The set is empty."""

    name: str


def describe(operation: NftOp) -> str:
    """What the operation does, in words for an error message."""
    match operation:
        case AddTable():
            return "add table"
        case DeleteTable():
            return "delete table"
        case AddChain(name) | DeleteChain(name) | FlushChain(name):
            return f"{_verb(operation)} chain {name}"
        case AddRule(chain=chain):
            return f"add rule to chain {chain}"
        case AddSet(name) | DeleteSet(name) | FlushSet(name):
            return f"{_verb(operation)} set {name}"
        case AddElements(name, elements):
            return f"add {len(elements)} elements to set {name}"
        case DeleteElements(name, elements):
            return f"delete {len(elements)} elements of set {name}"
        case _:
            raise TypeError(f"not an nf_tables operation: {operation!r}")


def _verb(operation: NftOp) -> str:
    name = type(operation).__name__
    return next(verb for verb in ("add", "delete", "flush") if name.lower().startswith(verb))


class RuleInfo(msgspec.Struct, frozen=True, gc=False):
    """A rule as the kernel holds it."""

    chain: str
    handle: int
    expressions: bytes
    """As the kernel gives them back: it adds attributes and live counters, so compare rules by ``userdata``, not by this."""
    userdata: bytes


class TableInfo(msgspec.Struct, frozen=True):
    """What the kernel holds of our tables, without elements."""

    chains: dict[str, Hook | None]
    rules: dict[str, list[RuleInfo]]
    """By chain, in order."""
    sets: dict[str, SetSpec]
    complete: bool = True
    """False when the table of family arp is missing: ``AddTable`` comes before anything is put there."""


class Nftables(Protocol):
    """The seam between the nft driver and the kernel: the real socket and the fake implement it."""

    def commit(self, operations: list[NftOp]) -> None:
        """Executes all operations as one transaction.

        Raises:
            KernelError: with the errno and the operation at fault; nothing was changed.
        """
        ...

    def read_table(self) -> TableInfo | None:
        """The tables without elements; None when that of family inet does not exist."""
        ...

    def read_elements(self, set_name: str) -> list[Element]:
        """All elements of a set or map."""
        ...

    def read_counters(self) -> dict[tuple[str, bytes], tuple[int, int]]:
        """(packets, bytes) of each rule that has a counter, by (chain, userdata)."""
        ...

    def read_element_counters(self, set_name: str) -> dict[bytes, tuple[int, int]]:
        """(packets, bytes) of each element of a counted set, by key; ENOENT without the set."""
        ...

    def disturbed(self) -> bool:
        """True when somebody else has changed anything in nf_tables since the last call, in any table; so too the first time. O(1)."""
        ...

    def close(self) -> None: ...


class ChainInfo(msgspec.Struct, frozen=True):
    """One chain as the kernel holds it."""

    hook: Hook | None
    rules: list[RuleInfo]
    """In order."""


class NftReader(Protocol):
    """The seam of whoever looks at the table piece by piece: beside the real one the fake implements it.

    ``browse_*`` give a page of bounded size with each ``next``. Between two pages anything may change, so that what they give is a
    hint: look again (``read_chain``, ``find_element``) before acting on it. One browsing at a time: another one ends it.
    """

    def read_chain(self, name: str) -> ChainInfo | None:
        """The chain, as of one moment; None when it does not exist. O(its rules)."""
        ...

    def find_element(self, set_name: str, element: Element) -> Element | None:
        """The element with this key as the set holds it; None when it, or the set, does not exist. Not for interval sets. O(1)."""
        ...

    def find_element_counter(self, set_name: str, key: bytes) -> tuple[int, int] | None:
        """(packets, bytes) of the element of a counted set; None when it, or the set, does not exist. O(1)."""
        ...

    def browse_chains(self) -> Iterator[list[tuple[str, Hook | None]]]:
        """The chains of the table, in no order; none without the table."""
        ...

    def browse_sets(self) -> Iterator[list[tuple[str, SetSpec]]]:
        """The sets and maps of the table."""
        ...

    def browse_elements(self, set_name: str) -> Iterator[list[Element]]:
        """The elements of a set or map (interval sets of one field: from the highest to the lowest); ENOENT without the set."""
        ...

    def close(self) -> None: ...

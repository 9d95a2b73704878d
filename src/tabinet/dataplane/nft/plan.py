"""From what has to change to one ordered transaction, and how large sets are made.

Pure. The kernel checks references while it takes the operations one after the other, so their order matters: sets before the rules
that look them up, chains before what leads to them, and the other way round when they go.

Sizes: hash sets are made for four times what they hold, at least ``SMALLEST``, in steps of four. A set that is full is
replaced by a larger one of another name, since the kernel never gives a set more buckets. The name says the step: ``a4-x``, ``a4-x.g1``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from tabinet.dataplane.nft.encode import HOOKS, Encoded, encode_set
from tabinet.kernel.nftables import (
    AddChain,
    AddElements,
    AddRule,
    AddSet,
    DeleteChain,
    DeleteElements,
    DeleteSet,
    Element,
    FlushChain,
    Hook,
    NftOp,
    SetSpec,
)
from tabinet.rules.ir import HookPoint, SetDef, SetType

SMALLEST = 1024
HEADROOM = 4
GENERATION_SIZE = 16
GENERATIONS = (SetType.GENERATION, SetType.RELATED_GENERATION)
LEARNED = {SetType.SENDERS: 32_768, SetType.RATES: 16_384}
"""Sets whose elements are packets' affair, which nobody compares, and their sizes: room for as many interfaces, and for 350 that go to
their limits at once (``rules.neighbours``). The kernel makes its buckets at once: 768 KiB for a pair of these."""
MAPS_TO_CHAINS = (SetType.CHAINS, SetType.ADDRESS_CHAINS, SetType.PORT_CHAINS)
_UNBOUNDED = (SetType.NETS, SetType.PORTS, SetType.SOURCE_NETS, SetType.PAIRS, SetType.PORT_CHAINS)


def step_for(definition: SetDef, count: int) -> int:
    """The step of a new set that is going to hold ``count`` elements."""
    step = 0
    while definition.type not in _UNBOUNDED and capacity(definition, step) < count * HEADROOM:
        step += 1
    return step


def capacity(definition: SetDef, step: int) -> int:
    """How many elements a set of this step takes; 0 for no bound."""
    if definition.type in _UNBOUNDED:
        return 0
    if definition.type in GENERATIONS:
        return GENERATION_SIZE << 2 * step
    if definition.type in LEARNED:
        return LEARNED[definition.type] << 2 * step
    return SMALLEST << 2 * step


def physical_name(name: str, step: int) -> str:
    """The kernel's name of a set."""
    return f"{name}.g{step}" if step else name


def parse_physical(physical: str) -> tuple[str, int]:
    """(name, step) of a set in the kernel; any text is taken."""
    name, dot, tail = physical.rpartition(".g")
    if dot and tail.isascii() and tail.isdigit() and len(tail) < 3 and not tail.startswith("0"):
        return name, int(tail)
    return physical, 0


def base_hook(point: HookPoint | None) -> Hook | None:
    """Where the kernel hangs a chain."""
    return None if point is None else HOOKS[point]


@dataclass(slots=True)
class NewSet:
    spec: SetSpec
    elements: tuple[Element, ...]
    is_map: bool


@dataclass(slots=True)
class Changes:
    """What has to happen in the kernel; names are the kernel's."""

    chains_added: dict[str, Hook | None] = field(default_factory=dict)
    chains_written: dict[str, list[Encoded]] = field(default_factory=dict)
    """Their rules, all of them: what they held before goes."""
    chains_removed: set[str] = field(default_factory=set)
    sets_added: dict[str, NewSet] = field(default_factory=dict)
    sets_removed: set[str] = field(default_factory=set)
    elements_removed: dict[str, tuple[Element, ...]] = field(default_factory=dict)
    elements_added: dict[str, tuple[Element, ...]] = field(default_factory=dict)
    maps_removed: dict[str, tuple[Element, ...]] = field(default_factory=dict)
    maps_added: dict[str, tuple[Element, ...]] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """True when nothing has to happen."""
        return not any(
            (
                self.chains_added,
                self.chains_written,
                self.chains_removed,
                self.sets_added,
                self.sets_removed,
                self.elements_removed,
                self.elements_added,
                self.maps_removed,
                self.maps_added,
            )
        )

    def compare(self, definition: SetDef, physical: str, present: Iterable[Element], wanted: Iterable[Element]) -> None:
        """The set is to hold what is wanted instead of what is present."""
        length = encode_set(definition, 0).key_length
        # Keys of 2 bytes are read with the padding of their netlink attribute behind them.
        there = {msgspec.structs.replace(item, key=item.key[:length]) for item in present}
        asked = set(wanted)
        if there == asked:
            return
        is_map = definition.type in MAPS_TO_CHAINS
        removed, added = (self.maps_removed, self.maps_added) if is_map else (self.elements_removed, self.elements_added)
        removed[physical] = tuple(sorted(there - asked, key=_place))
        added[physical] = tuple(sorted(asked - there, key=_place))


def _place(element: Element) -> tuple[bytes, bytes, bool]:
    return element.key, element.end, element.interval_end


def preload(changes: Changes, batch: int) -> list[list[NftOp]]:
    """Transactions that fill new sets before anything looks them up, ``batch`` elements in each; they change no verdict.

    Takes what it fills out of ``changes``. Maps stay, since their elements need the chains.
    """
    transactions: list[list[NftOp]] = []
    pending: list[NftOp] = []
    room = batch
    for name, new in changes.sets_added.items():
        if new.is_map:
            continue
        pending.append(AddSet(name, new.spec))
        start = 0
        while start < len(new.elements):
            piece = new.elements[start : start + room]
            pending.append(AddElements(name, piece))
            start += len(piece)
            room -= len(piece)
            if not room:
                transactions.append(pending)
                pending, room = [], batch
    if pending:
        transactions.append(pending)
    changes.sets_added = {name: new for name, new in changes.sets_added.items() if new.is_map}
    return transactions


def prepare(changes: Changes) -> list[NftOp]:
    """A transaction that makes the new chains and all that they need, when elements of maps that are there already will lead to them.

    A packet that began to be judged before a transaction keeps to the rules of before, but sees the elements of maps as they are at the
    moment of the lookup (nft_genmask_cur in net/netfilter/nf_tables.h). It finds a chain that came in the same transaction empty,
    returns from it, and passes as if nothing had been said against it. A chain that was there before has its rules. Until ``order`` is
    committed nothing leads to what this makes. Takes what it makes out of ``changes``; empty when it is not needed.
    """
    new = [name for name, hook in changes.chains_added.items() if hook is None]
    if not any(element.chain in new for elements in changes.maps_added.values() for element in elements):
        return []
    made = Changes(
        chains_added={name: changes.chains_added.pop(name) for name in new},
        chains_written={name: changes.chains_written.pop(name) for name in new},
        sets_added=changes.sets_added,
    )
    changes.sets_added = {}
    return order(made)


def order(changes: Changes) -> list[NftOp]:
    """The changes as one transaction."""
    operations: list[NftOp] = []
    for name, new in changes.sets_added.items():
        operations.append(AddSet(name, new.spec))
        if new.elements and not new.is_map:
            operations.append(AddElements(name, new.elements))
    gone = sorted(changes.chains_removed)
    operations += [AddChain(name, hook) for name, hook in changes.chains_added.items()]
    operations += _elements(changes.elements_removed, changes.elements_added)
    # A map's element holds its chain, and so does a rule: first let go of everything, then take hold again.
    operations += [DeleteElements(name, elements) for name, elements in changes.maps_removed.items() if elements]
    operations += [FlushChain(name) for name in changes.chains_written if name not in changes.chains_added]
    operations += [FlushChain(name) for name in gone]
    for name, rules in changes.chains_written.items():
        operations += [AddRule(name, rule.expressions, rule.userdata, rule.targets, rule.sets) for rule in rules]
    operations += [AddElements(name, new.elements) for name, new in changes.sets_added.items() if new.is_map and new.elements]
    operations += [AddElements(name, elements) for name, elements in changes.maps_added.items() if elements]
    operations += [DeleteSet(name) for name in sorted(changes.sets_removed)]
    operations += [DeleteChain(name) for name in gone]
    return operations


def _elements(removed: dict[str, tuple[Element, ...]], added: dict[str, tuple[Element, ...]]) -> list[NftOp]:
    operations: list[NftOp] = [DeleteElements(name, elements) for name, elements in removed.items() if elements]
    operations += [AddElements(name, elements) for name, elements in added.items() if elements]
    return operations

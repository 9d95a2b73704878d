"""From suspicions about single objects of the table to their repair.

In: names of chains and sets that may not be as wanted. Each is read again, so that a suspicion without substance changes nothing; what
does differ is repaired in one transaction: a chain as a whole, a set by its elements. Out: what differed, in words.

Repairs begin a new generation (see ``NftDriver.repair``). Cost: linear in what is suspected, with all of its elements. What cannot be
repaired by itself (a set that is missing or of another make, a chain that hangs elsewhere) makes the driver read the whole table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from tabinet.dataplane.drift import Drift, DriftKind
from tabinet.dataplane.nft.decode import decode_all
from tabinet.dataplane.nft.driver import NftDriver
from tabinet.dataplane.nft.plan import GENERATIONS, LEARNED, Changes, base_hook, parse_physical
from tabinet.dataplane.nft.render import item_text
from tabinet.errors import KernelError
from tabinet.kernel.nftables import Element, Nftables, NftReader
from tabinet.kernel.nftexpr import parse_comment
from tabinet.rules.ir import SetDef

SHOWN = 3
"""Elements or rules that a text names; the others are counted."""


@dataclass(slots=True)
class Suspects:
    """Objects that may not be as wanted; names are the kernel's."""

    chains: set[str] = field(default_factory=set)
    sets: set[str] = field(default_factory=set)
    whole: str = ""
    """Why the table has to be looked at as a whole; empty when it has not."""

    def __bool__(self) -> bool:
        return bool(self.chains or self.sets or self.whole)


class Repair(msgspec.Struct, frozen=True):
    """What came of suspicions."""

    drifts: tuple[Drift, ...]
    operations: int
    """Sent to the kernel."""


def repair(driver: NftDriver, nftables: Nftables, reader: NftReader, suspects: Suspects) -> Repair:
    """What is suspected is as the driver's table wants it.

    Raises:
        KernelError: nothing was changed; the driver has to read the table again.
    """
    if suspects.whole:
        operations = driver.repair(Changes(), whole=True).operations
        return Repair((Drift(DriftKind.TABLE, "inet tabinet", suspects.whole),), operations)
    if not driver.synced:
        return Repair((), 0)
    work = _Work(driver, nftables, reader)
    for name in sorted(suspects.chains):
        work.look_at_chain(name)
    if suspects.sets:
        work.look_at_sets(sorted(suspects.sets))
    if not work.drifts:
        return Repair((), 0)
    return Repair(tuple(work.drifts), driver.repair(work.changes, whole=work.whole).operations)


@dataclass(slots=True)
class _Work:
    driver: NftDriver
    nftables: Nftables
    reader: NftReader
    changes: Changes = field(default_factory=Changes)
    drifts: list[Drift] = field(default_factory=list)
    whole: bool = False

    def look_at_chain(self, name: str) -> None:
        """Its difference is in ``changes`` and ``drifts``."""
        wanted, found = self.driver.table.chains.get(name), self.reader.read_chain(name)
        if wanted is None:
            if found is not None:
                self.changes.chains_removed.add(name)
                self._report(DriftKind.CHAIN, name, "is not ours: removed")
            return
        rules = self.driver.wanted_rules(name)
        if found is None:
            self.changes.chains_added[name] = base_hook(wanted.hook)
            self.changes.chains_written[name] = rules
            self._report(DriftKind.CHAIN, name, "is missing")
        elif found.hook != base_hook(wanted.hook):
            self.whole = True
            self._report(DriftKind.CHAIN, name, "is at another hook")
        else:
            text = rules_text([rule.userdata for rule in found.rules], [rule.userdata for rule in rules])
            if text:
                self.changes.chains_written[name] = rules
                self._report(DriftKind.CHAIN, name, text)

    def look_at_sets(self, suspected: list[str]) -> None:
        """Their differences are in ``changes`` and ``drifts``."""
        present = {name: spec for page in self.reader.browse_sets() for name, spec in page}
        for physical in suspected:
            name, _ = parse_physical(physical)
            if name not in self.driver.table.sets or self.driver.physical(name) != physical:
                if physical in present:
                    self.changes.sets_removed.add(physical)
                    self._report(DriftKind.SET, physical, "is not ours: removed")
            elif present.get(physical) != self.driver.wanted_spec(name):
                self.whole = True
                self._report(DriftKind.SET, physical, "is of another make" if physical in present else "is missing")
            else:
                self._look_at_elements(name, physical)

    def _look_at_elements(self, name: str, physical: str) -> None:
        definition = self.driver.table.sets[name]
        if definition.type in LEARNED:
            return
        try:
            present = self.nftables.read_elements(physical)
        except KernelError:  # it has just gone
            self.whole = True
            self._report(DriftKind.SET, physical, "cannot be read")
            return
        wanted = self.driver.wanted_elements(name)
        if definition.type in GENERATIONS:
            if set(present) != set(wanted):
                self.whole = True
                self._report(DriftKind.SET, physical, "holds another generation")
            return
        changes = Changes()
        changes.compare(definition, physical, present, wanted)
        if changes.empty:
            return
        self.changes.elements_removed |= changes.elements_removed
        self.changes.elements_added |= changes.elements_added
        self.changes.maps_removed |= changes.maps_removed
        self.changes.maps_added |= changes.maps_added
        foreign = (changes.elements_removed | changes.maps_removed)[physical]
        missing = (changes.elements_added | changes.maps_added)[physical]
        self._report(DriftKind.SET, physical, elements_text(definition, foreign, missing))

    def _report(self, kind: DriftKind, name: str, text: str) -> None:
        self.drifts.append(Drift(kind, name, text))


def rules_text(present: list[bytes], wanted: list[bytes]) -> str:
    """How a chain's rules differ, by their user data; empty when they do not."""
    if present == wanted:
        return ""
    foreign, missing = Counter(present) - Counter(wanted), Counter(wanted) - Counter(present)
    parts = []
    if missing:
        parts.append(_listed("rule", "missing", [parse_comment(data) or "without comment" for data in missing.elements()]))
    if foreign:
        parts.append(_listed("rule", "not ours", [parse_comment(data) or "without comment" for data in foreign.elements()]))
    return "; ".join(parts) or "the rules are in another order"


def elements_text(definition: SetDef, foreign: Iterable[Element], missing: Iterable[Element]) -> str:
    """How a set's elements differ."""
    parts = []
    for how, elements in (("missing", list(missing)), ("not ours", list(foreign))):
        if elements:
            parts.append(_listed("element", how, element_texts(definition, elements)))
    return "; ".join(parts)


def element_texts(definition: SetDef, elements: list[Element]) -> list[str]:
    """Elements as the kernel holds them, in the words of nft(8); boundaries of ranges by themselves where they are no pair."""
    descending = sorted(elements, key=lambda element: (element.key, element.interval_end), reverse=True)
    found = [item_text(definition, item) for item in decode_all(definition, descending) if item is not None]
    return sorted(found) or [element.key.hex() for element in elements]


def _listed(noun: str, how: str, texts: list[str]) -> str:
    more = ", ..." if len(texts) > SHOWN else ""
    count = f"1 {noun} is" if len(texts) == 1 else f"{len(texts)} {noun}s are"
    return f"{count} {how} ({', '.join(texts[:SHOWN])}{more})"

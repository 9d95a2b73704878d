"""Verification: looks at the kernel's table a little at a time and says what seems to differ from the wanted one.

A *round* goes through everything: the list of chains (so that foreign ones are found), the list of sets, each chain's rules, base chains
first, then each set's elements by pages. ``work`` does as much of it as it is given time for and goes on there the next time. What seems
to differ is in ``suspects``, for ``repair``, which looks again: nothing is ever changed here.

While a round lasts, the driver goes on to change the table. Every comparison is with what is wanted at that moment; a member that seems to
be missing or foreign because a page is older than the last change is asked for once more (``NftReader.find_element``).

Cost: one unit of work is a page of at most 32 KiB, ``CHUNK`` elements, or one chain with all of its rules. A set's members seen so far
are kept in memory while it is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tabinet.dataplane.nft.decode import BOUNDARIES, Intervals, Item, decode_item
from tabinet.dataplane.nft.driver import NftDriver
from tabinet.dataplane.nft.encode import encode_item
from tabinet.dataplane.nft.plan import GENERATIONS, LEARNED, MAPS_TO_CHAINS, base_hook, parse_physical
from tabinet.dataplane.nft.repair import Suspects
from tabinet.errors import KernelError
from tabinet.kernel.nftables import Element, NftReader
from tabinet.rules.ir import SetDef, SetType

CHUNK = 1000
"""Members that are compared in one unit of work: about a millisecond."""
INTERVALS = (*BOUNDARIES, SetType.SOURCE_NETS, SetType.PAIRS)
"""Sets whose elements cannot be asked for one by one; they are not the ones with many members."""
ASKED = 64
"""So many single elements are asked for; of a set in which more seem to differ, all is read."""


@dataclass(slots=True)
class TableAudit:
    """Compares one host's table with what its driver wants."""

    driver: NftDriver
    reader: NftReader
    suspects: Suspects = field(default_factory=Suspects)
    """What seems to differ and was not taken yet."""
    rounds: int = 0
    """Rounds that came to their end."""
    _round: Iterator[None] | None = None

    def size(self) -> int:
        """How many units of work a round has, about. O(sets)."""
        table = self.driver.table
        members = sum(1 + len(elements) // CHUNK for elements in table.elements.values())
        return 2 + len(table.chains) + members + len(table.maps)

    def work(self, units: int, deadline_s: float, clock: Callable[[], float]) -> int:
        """``units`` more of the round are done, fewer when ``deadline_s`` of the clock comes or the round ends; gives how many.

        At least one is done. The next call after the end of a round begins another.

        Raises:
            KernelError: the kernel did not answer; the next call begins another round.
        """
        done = 0
        if self._round is None:
            self._round = self._go_round()
        try:
            while done < units and (not done or clock() < deadline_s):
                if next(self._round, self) is self:
                    self._round = None
                    self.rounds += 1
                    break
                done += 1
        except KernelError:
            self._round = None
            raise
        return done

    @property
    def under_way(self) -> bool:
        """A round has begun and not ended."""
        return self._round is not None

    def begin(self) -> None:
        """The next ``work`` begins a new round."""
        self._round = None

    def look_at_gates(self) -> None:
        """The base chains, through which everything passes, are as wanted, or suspected; several of them make the whole table so.

        Raises:
            KernelError: the kernel did not answer.
        """
        chains = self.driver.table.chains
        damaged = {name for name in chains if chains[name].hook is not None and not self._is_as_wanted(name)}
        if len(damaged) > 1:
            self.suspects.whole = f"{len(damaged)} of its base chains are missing or changed: somebody deleted or flushed it"
        self.suspects.chains |= damaged

    def take(self) -> Suspects:
        """The suspects, which are forgotten here."""
        suspects, self.suspects = self.suspects, Suspects()
        return suspects

    # --- a round ---

    def _go_round(self) -> Iterator[None]:
        yield from self._list_chains()
        yield from self._list_sets()
        chains = self.driver.table.chains
        base = [name for name in chains if chains[name].hook is not None]
        for name in dict.fromkeys([*base, *chains]):
            if name in chains:
                if not self._is_as_wanted(name):
                    self.suspects.chains.add(name)
                yield
        for name in sorted(self.driver.table.sets):
            if name in self.driver.table.sets:
                yield from self._look_at_set(name)

    def _list_chains(self) -> Iterator[None]:
        """Chains that are not ours; those that are missing are found one by one."""
        for page in self.reader.browse_chains():
            chains = self.driver.table.chains
            self.suspects.chains |= {name for name, _ in page if name not in chains}
            yield

    def _list_sets(self) -> Iterator[None]:
        before = {self.driver.physical(name) for name in self.driver.table.sets}
        present: set[str] = set()
        for page in self.reader.browse_sets():
            for physical, spec in page:
                present.add(physical)
                name, _ = parse_physical(physical)
                wanted = self.driver.table.sets
                if name not in wanted or self.driver.physical(name) != physical or spec != self.driver.wanted_spec(name):
                    self.suspects.sets.add(physical)
            yield
        wanted_now = {self.driver.physical(name) for name in self.driver.table.sets}
        self.suspects.sets |= (before & wanted_now) - present

    def _is_as_wanted(self, name: str) -> bool:
        found, wanted = self.reader.read_chain(name), self.driver.table.chains[name]
        if found is None or found.hook != base_hook(wanted.hook):
            return False
        return [rule.userdata for rule in found.rules] == [rule.userdata for rule in self.driver.wanted_rules(name)]

    def _look_at_set(self, name: str) -> Iterator[None]:
        definition, physical = self.driver.table.sets[name], self.driver.physical(name)
        if physical in self.suspects.sets or definition.type in LEARNED:
            return
        look = _Comparison(self.driver, self.reader, name, definition, physical)
        try:
            for suspicious in look.run():
                if suspicious:
                    self.suspects.sets.add(physical)
                    return
                yield
        except KernelError:
            # The set may just have been replaced by a larger one; if it is still wanted, it is gone.
            self.suspects.sets.add(physical)


@dataclass(slots=True)
class _Comparison:
    """One set's elements, in pieces."""

    driver: NftDriver
    reader: NftReader
    name: str
    definition: SetDef
    physical: str
    seen: set[Item] = field(default_factory=set)

    def run(self) -> Iterator[bool]:
        """After each unit: whether the set is suspicious."""
        if self.definition.type in GENERATIONS:
            found = {element for page in self.reader.browse_elements(self.physical) for element in page}
            yield self._is_wanted() and found != set(self.driver.wanted_elements(self.name))
            return
        expected = self._wanted_items()
        foreign: list[tuple[Item | None, Element]] = []
        intervals = Intervals(self.definition)
        for page in self.reader.browse_elements(self.physical):
            for element in page:
                by_boundaries = self.definition.type in BOUNDARIES
                item = intervals.take(element) if by_boundaries else decode_item(self.definition, element)
                if item is None and by_boundaries:
                    continue  # only half of one
                if item is not None and self._wants(item):
                    self.seen.add(item)
                else:
                    foreign.append((item, element))
            yield len(foreign) > ASKED
        yield any(self._is_foreign(item, element) for item, element in foreign)
        for start in range(0, len(expected), CHUNK):
            missing = [item for item in expected[start : start + CHUNK] if item not in self.seen and self._wants(item)]
            yield len(missing) > ASKED or any(self._is_missing(item) for item in missing)

    def _is_wanted(self) -> bool:
        return self.name in self.driver.table.sets and self.driver.physical(self.name) == self.physical

    def _wanted_items(self) -> list[Item]:
        table = self.driver.table
        if self.definition.type in MAPS_TO_CHAINS:
            return list(table.maps[self.name].items())
        return list(table.elements[self.name])

    def _wants(self, item: Item) -> bool:
        table = self.driver.table
        if isinstance(item, tuple):
            return table.maps.get(self.name, {}).get(item[0]) == item[1]
        return item in table.elements.get(self.name, ())

    def _is_missing(self, item: Item) -> bool:
        """It was not seen; is it there all the same?"""
        if self.definition.type in INTERVALS or not self._is_wanted():
            return self._is_wanted()
        wanted = encode_item(self.definition, item)
        return self.reader.find_element(self.physical, wanted) != wanted

    def _is_foreign(self, item: Item | None, element: Element) -> bool:
        """It was seen and was not wanted; is it still so?"""
        if not self._is_wanted() or (item is not None and self._wants(item)):
            return False
        return self.definition.type in INTERVALS or self.reader.find_element(self.physical, element) == element

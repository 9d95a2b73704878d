"""NftDriver: keeps the kernel's table equal to the one that ``rules`` wants.

``resync`` reads the kernel, adopts what is right (rule by rule, by the digest in the user data), repairs the difference and removes what
is not ours in our table. ``apply`` brings one delta into the kernel as one transaction, with a new generation if it revokes; chains that
it leads maps to are made by a transaction before it, which by itself changes no verdict (``plan.prepare``).
After a restart with the same table, ``resync`` sends nothing and every flow goes on.

Invariants: no transaction leaves a state that permits more than the old or the new table. A change that is not known to only add
permissions comes with a new generation in the same transaction. Nothing is ever left out because a set is full: the set grows.
After an error the kernel is read again before anything else is tried; how often to try is the caller's affair.

Cost: ``apply`` follows the delta (a set that outgrows its size costs the set and a look at all chains); ``resync`` is linear in the table.
One thread only; the table that was given to ``resync`` is read by ``apply`` and must not change meanwhile.
"""

from __future__ import annotations

import secrets
import sys

import msgspec

from tabinet.dataplane.nft import encode
from tabinet.dataplane.nft.counters import TableCounters, summarize
from tabinet.dataplane.nft.plan import (
    GENERATIONS,
    LEARNED,
    MAPS_TO_CHAINS,
    Changes,
    NewSet,
    base_hook,
    capacity,
    order,
    parse_physical,
    physical_name,
    preload,
    prepare,
    step_for,
)
from tabinet.dataplane.nft.sweep import MarkSweeper
from tabinet.errors import KernelError
from tabinet.kernel.nftables import AddTable, DeleteTable, Element, Nftables, NftOp, SetSpec, TableInfo
from tabinet.rules import layout
from tabinet.rules.ir import SetType, Table, TableDelta
from tabinet.rules.marks import LAST_GENERATION, mark_generation, next_generation

_GENERATIONS = {layout.VALID: SetType.GENERATION, layout.VALID_RELATED: SetType.RELATED_GENERATION}
PRELOAD_ELEMENTS = 100_000
"""New sets with more elements than this are filled in transactions of their own, before anything looks them up."""


class ApplyResult(msgspec.Struct, frozen=True):
    """What one ``apply`` or ``resync`` did."""

    operations: int
    """Operations in the transaction; 0: nothing was sent."""
    generation: int
    revoked: bool
    """A new generation began: established flows are judged again."""
    wrapped: bool
    """The generation began again at 1 (``rules.marks``)."""
    resynced: bool
    """The kernel was read."""
    refused: str = ""
    """What the kernel said when it refused the change, so that it was read; empty when it did not."""


class NftDriver:
    """One host's table in the kernel."""

    def __init__(
        self,
        nftables: Nftables,
        *,
        sweeper: MarkSweeper | None = None,
        first_generation: int = 0,
        preload_elements: int = PRELOAD_ELEMENTS,
    ) -> None:
        """``first_generation``: what a table that does not exist yet counts on from; 0 takes a random one.

        Random, because flows may carry the marks of a table that was deleted; ``sweeper`` clears them besides, and those of flows that
        are idle while the generation wraps.
        ``preload_elements``: how many elements of new sets one transaction takes.
        """
        self._nftables = nftables
        self._first_generation = first_generation
        self._preload_elements = preload_elements
        self._sweeper = sweeper
        self._table: Table | None = None
        self._generation = 0
        self._steps: dict[str, int] = {}
        self._chains: set[str] = set()
        """Chains in the kernel."""
        self._synced = False
        """What is remembered here is what the kernel holds."""
        self._owes_generation = False
        """A revocation may not have reached the kernel."""

    @property
    def table(self) -> Table:
        """What the kernel should hold; read only. Empty before the first ``resync``."""
        return self._table if self._table is not None else Table()

    @property
    def synced(self) -> bool:
        """True while what the kernel holds is known to be ``table``, unless somebody else changed it."""
        return self._synced and not self._owes_generation

    @property
    def generation(self) -> int:
        """The current generation; 0 before the first ``resync``."""
        return self._generation

    def resync(self, table: Table) -> ApplyResult:
        """The kernel holds exactly ``table``, which is the one that later deltas are about. O(table).

        Raises:
            KernelError: nothing was changed, or nothing that changes a verdict; call again.
        """
        self._table, self._synced = table, False
        info = self._nftables.read_table()
        if info is not None and not info.complete:
            self._nftables.commit([AddTable()])
        reset = info is not None and not _repairable(table, info)
        if reset:
            info = None
        before = self._adopt_generation(info)
        self._generation = before or self._initial_generation()
        changes = Changes()
        known = self._adopt_sets(table, info, changes)
        self._compare_chains(table, info, changes)
        self._compare_elements(table, known, changes)
        if changes.empty and before and not self._owes_generation:
            self._synced = True
            return ApplyResult(0, self._generation, False, False, True)
        # What the kernel held may have permitted more, so whatever it accepted is judged again.
        old = {name: tuple(self._nftables.read_elements(name)) for name in _GENERATIONS if name in known}
        wrapped = self._renew(table, changes, old)
        # Where that of family inet is missing, somebody may have left the other one.
        first: list[NftOp] = [AddTable(), DeleteTable(), AddTable()]
        operations = self._commit(changes, first if info is None else [], may_preload=not reset)
        return ApplyResult(operations, self._generation, True, wrapped, True)

    def apply(self, delta: TableDelta) -> ApplyResult:
        """The kernel holds the table as of this delta. An empty delta costs nothing.

        When the kernel refuses, it is read and repaired as a whole once.

        Raises:
            KernelError: the repair failed too; nothing changed. Call ``resync`` later.
            ValueError: ``resync`` was never called.
        """
        if self._table is None:
            raise ValueError("resync first: it says which table the deltas are about")
        if delta.empty and self._synced and not self._owes_generation:
            return ApplyResult(0, self._generation, False, False, False)
        revokes = delta.revokes or self._owes_generation
        self._owes_generation = revokes
        if not self._synced:
            return self.resync(self._table)
        generation = self._generation
        try:
            changes = self._changes(self._table, delta)
            wrapped = False
            if revokes:
                wrapped = self._renew(self._table, changes, _generation_elements(generation))
            operations = self._commit(changes, [], may_preload=True)
        except KernelError as refusal:
            self._generation = generation
            return msgspec.structs.replace(self.resync(self._table), refused=str(refusal))
        return ApplyResult(operations, self._generation, revokes, wrapped, False)

    def repair(self, changes: Changes, *, whole: bool) -> ApplyResult:
        """The kernel is as ``changes`` say, with a new generation: what was there may have permitted more.

        ``whole``, or if the kernel refuses them: the whole table is read and repaired.

        Raises:
            KernelError: nothing was changed; call ``resync`` later.
        """
        table, generation = self.table, self._generation
        self._owes_generation = True
        if not whole:
            try:
                wrapped = self._renew(table, changes, _generation_elements(generation))
                operations = self._commit(changes, [], may_preload=True)
                return ApplyResult(operations, self._generation, True, wrapped, False)
            except KernelError:
                self._generation = generation
        return self.resync(table)

    def counters(self) -> TableCounters:
        """What the rules counted since they were written; a changed chain begins at 0 again (``counters.Totals`` does not). O(rules).

        Raises:
            KernelError: the kernel did not answer.
        """
        return summarize(self.table, self._nftables.read_counters())

    # --- what is wanted, in the kernel's terms: for comparing ---

    def physical(self, name: str) -> str:
        """The kernel's name of a set of the table."""
        return self._physical(name)

    def wanted_rules(self, chain: str) -> list[encode.Encoded]:
        """The rules of a chain of the table."""
        return self._encoded(self.table, chain)

    def wanted_spec(self, name: str) -> SetSpec:
        """What a set of the table is made of."""
        definition = self.table.sets[name]
        return encode.encode_set(definition, capacity(definition, self._steps[name]))

    def wanted_elements(self, name: str) -> tuple[Element, ...]:
        """The elements of a set of the table. O(n log n)."""
        generations = _generation_elements(self._generation)
        return generations[name] if name in generations else self._wanted(self.table, name)

    # --- generation ---

    def _initial_generation(self) -> int:
        if self._generation:  # the table was taken from us: its flows must not pass for current
            return next_generation(self._generation)[0]
        if self._sweeper is not None:
            self._sweeper.before_first()
        return self._first_generation or 1 + secrets.randbelow(LAST_GENERATION)

    def _adopt_generation(self, info: TableInfo | None) -> int:
        """The generation that the kernel's table is in; 0 when it has none."""
        if info is None or not all(name in info.sets for name in _GENERATIONS):
            return 0
        present = {name: self._nftables.read_elements(name) for name in _GENERATIONS}
        found = {mark_generation(int.from_bytes(item.key[4:8], sys.byteorder)) for item in present[layout.VALID]}
        generation = found.pop() if len(found) == 1 else 0
        if not generation or any(set(present[name]) != set(wanted) for name, wanted in _generation_elements(generation).items()):
            return 0
        return generation

    def _renew(self, table: Table, changes: Changes, old: dict[str, tuple[Element, ...]]) -> bool:
        """The changes begin a new generation; True when the counter wrapped."""
        if self._sweeper is not None:
            self._sweeper.before_next(self._generation)
        self._generation, wrapped = next_generation(self._generation)
        changes.chains_written[layout.MARK_FLOW] = self._encoded(table, layout.MARK_FLOW)
        for name, new in _generation_elements(self._generation).items():
            if name in changes.sets_added:
                changes.sets_added[name].elements = new
            else:
                changes.elements_removed[name] = old.get(name, ())
                changes.elements_added[name] = new
        return wrapped

    # --- a delta ---

    def _changes(self, table: Table, delta: TableDelta) -> Changes:
        changes = Changes()
        for name in delta.sets_removed:
            changes.sets_removed.add(physical_name(name, self._steps.pop(name)))
        for name in delta.sets:
            self._add_set(table, name, changes)
        grown = self._grow(table, delta, changes)
        for name in delta.removed.keys() | delta.added.keys():
            if name in delta.sets or name in grown:
                continue
            physical = self._physical(name)
            changes.elements_removed[physical] = encode.encode_elements(table.sets[name], delta.removed.get(name, ()))
            changes.elements_added[physical] = encode.encode_elements(table.sets[name], delta.added.get(name, ()))
        for name in delta.map_removed.keys() | delta.map_set.keys():
            if name not in delta.sets and name not in grown:
                physical, definition = self._physical(name), table.sets[name]
                changes.maps_removed[physical] = encode.encode_keys(definition, delta.map_removed.get(name, ()))
                changes.maps_added[physical] = encode.encode_mapping(definition, delta.map_set.get(name, {}).items())
        rewritten = dict.fromkeys(delta.chains)
        if grown:
            rewritten.update(dict.fromkeys(name for name, chain in table.chains.items() if not grown.isdisjoint(encode.sets_of(chain))))
        for name in rewritten:
            if name not in self._chains:
                changes.chains_added[name] = base_hook(table.chains[name].hook)
            changes.chains_written[name] = self._encoded(table, name)
        changes.chains_removed |= delta.chains_removed
        return changes

    def _grow(self, table: Table, delta: TableDelta, changes: Changes) -> set[str]:
        """Sets that are too small get a successor with all elements; gives their names."""
        grown: set[str] = set()
        for name in delta.added.keys() | delta.map_set.keys():
            if name in delta.sets:
                continue
            room = capacity(table.sets[name], self._steps[name])
            if room and self._count(table, name) > room:
                changes.sets_removed.add(self._physical(name))
                self._add_set(table, name, changes)
                grown.add(name)
        return grown

    def _add_set(self, table: Table, name: str, changes: Changes) -> None:
        definition = table.sets[name]
        step = step_for(definition, self._count(table, name))
        self._steps[name] = step
        is_map = definition.type in MAPS_TO_CHAINS or definition.type is SetType.GENERATION
        spec = encode.encode_set(definition, capacity(definition, step))
        changes.sets_added[physical_name(name, step)] = NewSet(spec, self._wanted(table, name), is_map)

    # --- the whole ---

    def _adopt_sets(self, table: Table, info: TableInfo | None, changes: Changes) -> dict[str, str]:
        """Names in the kernel of the sets that it has as they should be; the others are made or removed."""
        known: dict[str, str] = {}
        self._steps = {}
        for physical in sorted(info.sets if info is not None else (), key=parse_physical):
            name, step = parse_physical(physical)
            definition = table.sets.get(name)
            if definition is None or 0 < capacity(definition, step) < self._count(table, name):
                changes.sets_removed.add(physical)
                continue
            if name in known:  # a smaller one was left behind
                changes.sets_removed.add(known[name])
            known[name] = physical
            self._steps[name] = step
        for name in table.sets:
            if name not in known:
                self._add_set(table, name, changes)
        return known

    def _compare_chains(self, table: Table, info: TableInfo | None, changes: Changes) -> None:
        self._chains = set(info.chains) if info is not None else set()
        for name, chain in table.chains.items():
            wanted = self._encoded(table, name)
            if name not in self._chains:
                changes.chains_added[name] = base_hook(chain.hook)
            elif info is not None and [rule.userdata for rule in info.rules.get(name, [])] == [rule.userdata for rule in wanted]:
                continue
            changes.chains_written[name] = wanted
        changes.chains_removed |= self._chains - table.chains.keys()

    def _compare_elements(self, table: Table, known: dict[str, str], changes: Changes) -> None:
        for name, physical in known.items():
            definition = table.sets[name]
            if definition.type in (*GENERATIONS, *LEARNED):
                continue
            changes.compare(definition, physical, self._nftables.read_elements(physical), self._wanted(table, name))

    # --- both ---

    def _physical(self, name: str) -> str:
        return physical_name(name, self._steps[name])

    def _encoded(self, table: Table, chain: str) -> list[encode.Encoded]:
        basis = table.chains[chain].basis
        return [encode.encode_rule(rule, self._generation, self._physical, basis) for rule in table.chains[chain].rules]

    def _count(self, table: Table, name: str) -> int:
        if table.sets[name].type in MAPS_TO_CHAINS:
            return len(table.maps[name])
        return len(table.elements.get(name, ()))

    def _wanted(self, table: Table, name: str) -> tuple[Element, ...]:
        definition = table.sets[name]
        if definition.type in MAPS_TO_CHAINS:
            return encode.encode_mapping(definition, table.maps[name].items())
        return encode.encode_elements(definition, table.elements.get(name, ()))

    def _commit(self, changes: Changes, first: list[NftOp], *, may_preload: bool) -> int:
        """Executes the changes after ``first``; gives the number of operations.

        Where packets may be in a table that stays, what maps will lead to is made before.
        """
        if may_preload and sum(len(new.elements) for new in changes.sets_added.values() if not new.is_map) > self._preload_elements:
            for transaction in preload(changes, self._preload_elements):
                self._nftables.commit([*first, *transaction])
                first = []
        self._synced = False
        chains = set(changes.chains_added)
        prepared = [] if first else prepare(changes)
        if prepared:
            self._nftables.commit(prepared)
        operations = [*first, *order(changes)]
        self._nftables.commit(operations)
        self._chains = (self._chains - changes.chains_removed) | chains
        self._synced, self._owes_generation = True, False
        return len(prepared) + len(operations)


def _repairable(table: Table, info: TableInfo) -> bool:
    """False when something has one of our names and is of another make: it would have to be deleted while others lead to it."""
    for physical, spec in info.sets.items():
        name, step = parse_physical(physical)
        definition = table.sets.get(name)
        if definition is not None and spec != encode.encode_set(definition, capacity(definition, step)):
            return False
    return all(info.chains.get(name, base_hook(chain.hook)) == base_hook(chain.hook) for name, chain in table.chains.items())


def _generation_elements(generation: int) -> dict[str, tuple[Element, ...]]:
    elements = encode.generation_elements(generation)
    return {name: elements[kind] for name, kind in _GENERATIONS.items()}

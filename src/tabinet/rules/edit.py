"""Changing a table while writing down what changed.

A change and its opposite within one edit leave no trace, so that the delta holds net changes only. Each operation is O(1) in the table's
size, ``replace_elements`` is O(the set).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tabinet.rules.ir import Chain, Element, SetDef, Table, TableDelta


@dataclass(slots=True)
class TableEdit:
    """One flush: edits ``table`` in place, ``finish`` says what came of it."""

    table: Table
    _chains: dict[str, Chain | None] = field(default_factory=dict)
    """What each touched chain was before."""
    _sets: dict[str, SetDef | None] = field(default_factory=dict)
    _dropped: dict[str, set[Element]] = field(default_factory=dict)
    """Elements that a set had when it was removed in this edit."""
    _added: dict[str, set[Element]] = field(default_factory=dict)
    _removed: dict[str, set[Element]] = field(default_factory=dict)
    _maps: dict[tuple[str, str], str | None] = field(default_factory=dict)
    """What each touched key of a map led to before."""

    def set_chain(self, name: str, chain: Chain) -> None:
        """The table has the chain with this content."""
        self._chains.setdefault(name, self.table.chains.get(name))
        self.table.chains[name] = chain

    def remove_chain(self, name: str) -> None:
        """The table does not have the chain."""
        self._chains.setdefault(name, self.table.chains.get(name))
        self.table.chains.pop(name, None)

    def add_set(self, name: str, definition: SetDef) -> None:
        """The table has the set; empty if it is new."""
        if name in self.table.sets:
            return
        self._sets.setdefault(name, None)
        self.table.sets[name] = definition
        self.table.elements[name] = set()

    def remove_set(self, name: str) -> None:
        """The table has neither the set nor its elements."""
        definition = self.table.sets.pop(name, None)
        if definition is None:
            return
        elements = self.table.elements.pop(name)
        if self._sets.setdefault(name, definition) is not None and name not in self._dropped:
            elements -= self._added.get(name, set())
            self._dropped[name] = elements | self._removed.get(name, set())
        self._added.pop(name, None)
        self._removed.pop(name, None)

    def elements(self, name: str) -> set[Element]:
        """The set's elements now; read only."""
        return self.table.elements[name]

    def add_element(self, name: str, element: Element) -> bool:
        """The set has the element. True when it had it not."""
        elements = self.table.elements[name]
        if element in elements:
            return False
        elements.add(element)
        removed = self._removed.get(name)
        if removed is not None and element in removed:
            removed.discard(element)
        else:
            self._added.setdefault(name, set()).add(element)
        return True

    def remove_element(self, name: str, element: Element) -> bool:
        """The set does not have the element. True when it had it."""
        elements = self.table.elements[name]
        if element not in elements:
            return False
        elements.discard(element)
        added = self._added.get(name)
        if added is not None and element in added:
            added.discard(element)
        else:
            self._removed.setdefault(name, set()).add(element)
        return True

    def add_elements(self, name: str, wanted: set[Element]) -> int:
        """The set has these elements; gives how many it had not. O(elements given)."""
        elements = self.table.elements[name]
        new = wanted - elements
        elements |= new
        _note(name, new, self._removed, self._added)
        return len(new)

    def remove_elements(self, name: str, unwanted: set[Element]) -> int:
        """The set has none of these elements; gives how many it had. O(elements given)."""
        elements = self.table.elements[name]
        gone = unwanted & elements
        elements -= gone
        _note(name, gone, self._added, self._removed)
        return len(gone)

    def replace_elements(self, name: str, wanted: set[Element]) -> None:
        """The set has exactly these elements."""
        self.remove_elements(name, self.table.elements[name] - wanted)
        self.add_elements(name, wanted)

    def add_map(self, name: str, definition: SetDef) -> None:
        """The table has the map; empty if it is new."""
        if name in self.table.sets:
            return
        self._sets.setdefault(name, None)
        self.table.sets[name] = definition
        self.table.maps[name] = {}

    def remove_map(self, name: str) -> None:
        """The table has neither the map nor its elements."""
        definition = self.table.sets.pop(name, None)
        if definition is None:
            return
        self._sets.setdefault(name, definition)
        for key, chain in self.table.maps.pop(name).items():
            self._maps.setdefault((name, key), chain)

    def set_mapping(self, name: str, key: str, chain: str) -> None:
        """The map leads from ``key`` to ``chain``."""
        mapping = self.table.maps[name]
        self._maps.setdefault((name, key), mapping.get(key))
        mapping[key] = chain

    def remove_mapping(self, name: str, key: str) -> None:
        """The map does not have the key."""
        mapping = self.table.maps[name]
        self._maps.setdefault((name, key), mapping.get(key))
        mapping.pop(key, None)

    def finish(self, *, revokes: bool) -> TableDelta:
        """What is different now from when the edit began."""
        delta = TableDelta(revokes=revokes)
        for name, before in self._chains.items():
            after = self.table.chains.get(name)
            if after is None:
                if before is not None:
                    delta.chains_removed.add(name)
            elif after != before:
                delta.chains[name] = after
        self._finish_sets(delta)
        for (name, key), before_chain in self._maps.items():
            after_chain = self.table.maps[name].get(key) if name in self.table.maps else before_chain
            if after_chain == before_chain:
                continue
            if before_chain is not None:
                delta.map_removed.setdefault(name, set()).add(key)
            if after_chain is not None:
                delta.map_set.setdefault(name, {})[key] = after_chain
        return delta

    def _finish_sets(self, delta: TableDelta) -> None:
        for name, before in self._sets.items():
            after = self.table.sets.get(name)
            if before is None and after is not None:
                delta.sets[name] = after
            elif before is not None and after is None:
                delta.sets_removed.add(name)
        for name, dropped in self._dropped.items():
            if name in self.table.sets:  # it went and came back: only the difference counts
                elements = self.table.elements[name]
                self._added[name] = elements - dropped
                self._removed[name] = dropped - elements
        delta.added = {name: elements for name, elements in self._added.items() if elements and name in self.table.sets}
        delta.removed = {name: elements for name, elements in self._removed.items() if elements and name in self.table.sets}


def _note(name: str, moved: set[Element], opposite: dict[str, set[Element]], into: dict[str, set[Element]]) -> None:
    """The elements, which moved, are written down; those that moved the opposite way before leave no trace."""
    if not moved:
        return
    before = opposite.get(name)
    if before:
        back = moved & before
        before -= back
        moved = moved - back
    noted = into.get(name)
    if noted is None:
        into[name] = moved
    else:
        noted |= moved

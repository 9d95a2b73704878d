"""Chains of policy in a table, with what they need: constant sets and lists that several share, maps of their own.

In: programs by chain name. What is shared is counted and goes with the last chain that needs it; its name is a function of its
content, so that equal names are equal things. A chain's maps go with the chain and are changed element by element.
``put`` and ``drop`` cost what the program holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from tabinet.rules import ir
from tabinet.rules.edit import TableEdit
from tabinet.rules.policy import Constant, Program


class _Needs(msgspec.Struct, frozen=True):
    """What a chain in the table holds on to."""

    constants: frozenset[str] = frozenset()
    lists: frozenset[str] = frozenset()
    maps: dict[str, dict[str, str]] = {}


_NOTHING = _Needs()


@dataclass(slots=True)
class ChainStore:
    """The chains that were put and not dropped."""

    _needs: dict[str, _Needs] = field(default_factory=dict)
    """Of the chains that need anything."""
    _constants: dict[str, int] = field(default_factory=dict)
    """How many chains need each."""
    _lists: dict[str, int] = field(default_factory=dict)

    def put(self, edit: TableEdit, name: str, program: Program, basis: ir.Basis) -> None:
        """The table has the chain with this content and all that it needs."""
        edit.set_chain(name, ir.Chain(tuple(program.rules), basis=basis))
        before = self._needs.get(name, _NOTHING)
        after = _Needs(frozenset(program.constants), frozenset(program.lists), program.maps)
        for constant in after.constants - before.constants:
            self._hold_constant(edit, constant, program.constants[constant])
        for chain in after.lists - before.lists:
            self._hold_list(edit, chain, ir.Chain(program.lists[chain], basis=basis))
        _change_maps(edit, before.maps, after.maps)
        self._release(edit, before.constants - after.constants, before.lists - after.lists)
        if after == _NOTHING:
            self._needs.pop(name, None)
        else:
            self._needs[name] = after

    def drop(self, edit: TableEdit, name: str) -> None:
        """The table does not have the chain, if it had it."""
        edit.remove_chain(name)
        needs = self._needs.pop(name, _NOTHING)
        _change_maps(edit, needs.maps, {})
        self._release(edit, needs.constants, needs.lists)

    def _hold_constant(self, edit: TableEdit, name: str, constant: Constant) -> None:
        count = self._constants.get(name, 0)
        self._constants[name] = count + 1
        if not count:
            edit.add_set(name, constant.definition)
            for element in constant.elements:
                edit.add_element(name, element)

    def _hold_list(self, edit: TableEdit, name: str, chain: ir.Chain) -> None:
        count = self._lists.get(name, 0)
        self._lists[name] = count + 1
        if not count:
            edit.set_chain(name, chain)

    def _release(self, edit: TableEdit, constants: frozenset[str], lists: frozenset[str]) -> None:
        for name in constants:
            self._constants[name] -= 1
            if not self._constants[name]:
                del self._constants[name]
                edit.remove_set(name)
        for name in lists:
            self._lists[name] -= 1
            if not self._lists[name]:
                del self._lists[name]
                edit.remove_chain(name)


def _change_maps(edit: TableEdit, before: dict[str, dict[str, str]], after: dict[str, dict[str, str]]) -> None:
    for name in before.keys() - after.keys():
        edit.remove_map(name)
    for name, wanted in after.items():
        present = before.get(name)
        if present is None:
            edit.add_map(name, ir.SetDef(ir.SetType.PORT_CHAINS))
            present = {}
        for key in present.keys() - wanted.keys():
            edit.remove_mapping(name, key)
        for key, chain in wanted.items():
            if present.get(key) != chain:
                edit.set_mapping(name, key, chain)

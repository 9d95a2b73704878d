"""From interfaces to the chains of their policy, in two steps: interface to class, class to chain.

In: which chain each interface begins at. Out: elements of two maps. The first has an element for each interface and leads to no chain, so
that the kernel does not look at the chains again when an interface comes or goes; the second has one for each chain in use. A class is
known by a word that is a function of its chain's name. O(1) for each change.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tabinet.rules import names
from tabinet.rules.edit import TableEdit


@dataclass(slots=True)
class Entrances:
    """The interfaces of one direction."""

    classes: str
    """Name of the map from interface to class."""
    chains: str
    """Name of the map from class to chain."""
    _by_interface: dict[str, str] = field(default_factory=dict)
    """The chain of each."""
    _users: dict[str, int] = field(default_factory=dict)
    """How many interfaces begin at each chain."""

    def lead(self, interface: str, chain: str, edit: TableEdit) -> None:
        """What the interface's policy is asked of begins at the chain."""
        before = self._by_interface.get(interface)
        if before == chain:
            return
        self._by_interface[interface] = chain
        count = self._users.get(chain, 0)
        self._users[chain] = count + 1
        word = names.class_word(chain)
        if not count:
            edit.set_mapping(self.chains, word, chain)
        edit.set_mapping(self.classes, interface, word)
        if before is not None:
            self._let_go(before, edit)

    def close(self, interface: str, edit: TableEdit) -> None:
        """The interface is not known any more."""
        edit.remove_mapping(self.classes, interface)
        self._let_go(self._by_interface.pop(interface), edit)

    def _let_go(self, chain: str, edit: TableEdit) -> None:
        self._users[chain] -= 1
        if not self._users[chain]:
            del self._users[chain]
            edit.remove_mapping(self.chains, names.class_word(chain))

"""Reads what the kernel counted, and keeps the counts while the table changes under them.

In: the driver's table and the kernel's counters. Out: ``TableCounters`` that never go back. Lives on the kernel thread, beside
``Dataplane``, which says when chains and interfaces are about to change: the kernel begins at 0 with whatever is written anew.

Cost: a reading is O(rules + endpoints); before a change, what it takes away.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import msgspec

from tabinet.dataplane.nft.counters import Count, EndpointTotals, Half, Place, TableCounters, Totals
from tabinet.dataplane.nft.driver import NftDriver
from tabinet.errors import KernelError
from tabinet.kernel.nftables import Nftables, NftReader
from tabinet.kernel.nftexpr import ifname, parse_counter, parse_ifname
from tabinet.rules.denied import DENIED, CountedInterfaces, Owner
from tabinet.rules.ir import Chain, Interface, Table, TableDelta, Via

KEPT_AT_ONCE = 200
"""Chains and interfaces that are read for their counters before they are taken away: about 0.1 ms each. When more change at once, the
last counts go."""


@dataclass(slots=True)
class Counting:
    """The counts of one host's table."""

    nftables: Nftables
    reader: NftReader
    nft: NftDriver
    interfaces: CountedInterfaces
    _totals: Totals = field(default_factory=Totals)
    _denied: EndpointTotals = field(default_factory=EndpointTotals)
    _sets: dict[Via, str] = field(default_factory=dict)
    """The kernel's names of the sets that count by interface, as they were when they were last read."""

    def read(self) -> TableCounters:
        """Packets and bytes since the agent began; as they were when the kernel does not answer."""
        try:
            counters = self._totals.take_all(self.nft.table, self.nftables.read_counters())
            return msgspec.structs.replace(counters, endpoints=self._read_endpoints())
        except KernelError:
            return TableCounters(dict(self._totals.rules), dict(self._totals.denied), dict(self._denied.counts))

    def before(self, delta: TableDelta, chains: Mapping[str, Chain]) -> None:
        """What the kernel's objects that the delta takes away have counted is kept. ``chains``: as they were; empty when none changes.

        Raises:
            KernelError: the kernel does not answer.
        """
        left = self.interfaces.take_left()
        if 0 < len(left) <= KEPT_AT_ONCE:
            self._take_interfaces(left)
        changing = delta.chains.keys() | delta.chains_removed
        if chains and 0 < len(changing) <= KEPT_AT_ONCE:
            self._take_chains(changing & chains.keys(), chains)

    def after(self, delta: TableDelta) -> None:
        """The kernel has the delta: what came with it counts from 0."""
        self._totals.forget_chains(delta.chains.keys() | delta.chains_removed)
        for element in delta.removed.get(DENIED[Via.IN], ()):
            if isinstance(element, Interface):
                self._denied.forget(element.name)

    def _take_chains(self, names: Collection[str], chains: Mapping[str, Chain]) -> None:
        counted: dict[Place, tuple[int, int]] = {}
        for name in names:
            found = self.reader.read_chain(name)
            for rule in found.rules if found is not None else ():
                counter = parse_counter(rule.expressions)
                if counter is not None:
                    counted[name, rule.userdata] = counter
        self._totals.take_chains(Table(chains=dict(chains)), counted)

    def _take_interfaces(self, left: Mapping[str, Owner]) -> None:
        """What they counted until now is that of the owners that they are about to lose."""
        for via in DENIED:
            physical = self._look_at_set(via)
            for interface, owner in left.items():
                count = self.reader.find_element_counter(physical, ifname(interface))
                if count is not None:
                    self._denied.take(via, interface, owner, count)

    def _read_endpoints(self) -> dict[Half, Count]:
        counted: dict[Via, dict[str, tuple[int, int]]] = {}
        for via in DENIED if self.nft.synced else ():
            found = self.nftables.read_element_counters(self._look_at_set(via))
            counted[via] = {parse_ifname(key): count for key, count in found.items()}
        return self._denied.take_all(self.interfaces.owners, counted)

    def _look_at_set(self, via: Via) -> str:
        """The kernel's name of the set. When it is another one than the last time the set has grown, and counts from 0."""
        physical = self.nft.physical(DENIED[via])
        if self._sets.setdefault(via, physical) != physical:
            self._sets[via] = physical
            self._denied.forget_side(via)
        return physical

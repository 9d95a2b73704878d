"""What the kernel counted, by policy rule, by reason of denial, and of denied packets by endpoint.

A flow is judged at its first packet and once more in each generation; all its other packets pass by the generation in its mark and are not
counted. So these are counts of judgements, not of traffic, except for denied packets: those are judged one by one.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field

import msgspec

from tabinet.kernel.nftexpr import parse_comment
from tabinet.rules import ir
from tabinet.rules.denied import Owner
from tabinet.rules.ir import Via
from tabinet.rules.roles import DENIALS

Place = tuple[str, bytes]
"""(chain, user data) of a rule."""


class Half(msgspec.Struct, frozen=True, gc=False, order=True):
    """One direction of an endpoint."""

    endpoint: str
    """``str(ResourceKey)``."""
    ingress: bool
    """What it would have received, else what it sent; of a host endpoint, what came in through its interface."""


class Count(msgspec.Struct, frozen=True, gc=False):
    packets: int = 0
    octets: int = 0

    def plus(self, packets: int, octets: int) -> Count:
        """Both together."""
        return Count(self.packets + packets, self.octets + octets)


class TableCounters(msgspec.Struct, frozen=True):
    """Counts of one table."""

    rules: dict[ir.Origin, Count]
    """Policy rules, summed over the chains that a rule was made into."""
    denied: dict[str, Count]
    """Dropped packets by reason: the comment of the rule that decided."""
    endpoints: dict[Half, Count] = {}
    """Denied packets by endpoint and direction."""


@dataclass(slots=True)
class Totals:
    """Counts that never go back, whatever becomes of the chains that they were counted in.

    The kernel begins at 0 whenever it is given a rule anew. Each reading adds what has been counted since the one before; what a rule
    has counted between the last reading and its end is lost, so that chains are read before they are rewritten. A policy rule that the
    table does not have any more is forgotten.
    """

    rules: dict[ir.Origin, Count] = field(default_factory=dict)
    denied: dict[str, Count] = field(default_factory=dict)
    _last: dict[Place, tuple[int, int]] = field(default_factory=dict)

    def take_all(self, table: ir.Table, counted: Mapping[Place, tuple[int, int]]) -> TableCounters:
        """The totals after a reading of the whole table. O(rules)."""
        self._add(table, counted)
        self._last = dict(counted)
        known = {rule.origin for chain in table.chains.values() for rule in chain.rules if rule.origin is not None}
        self.rules = {origin: count for origin, count in self.rules.items() if origin in known}
        return TableCounters(dict(self.rules), dict(self.denied))

    def take_chains(self, table: ir.Table, counted: Mapping[Place, tuple[int, int]]) -> None:
        """The totals have what these chains counted so far: they are about to be rewritten. ``table``: as it was before."""
        self._add(table, counted)
        self._last.update(counted)

    def forget_chains(self, chains: Container[str]) -> None:
        """The chains have been rewritten, and count from 0. O(rules)."""
        self._last = {place: count for place, count in self._last.items() if place[0] not in chains}

    def _add(self, table: ir.Table, counted: Mapping[Place, tuple[int, int]]) -> None:
        more = {}
        for place, (packets, octets) in counted.items():
            before = self._last.get(place, (0, 0))
            again = packets < before[0] or octets < before[1]  # rewritten, unknown to us
            more[place] = (packets, octets) if again else (packets - before[0], octets - before[1])
        summary = summarize(table, more)
        for origin, count in summary.rules.items():
            self.rules[origin] = self.rules.get(origin, Count()).plus(count.packets, count.octets)
        for reason, count in summary.denied.items():
            self.denied[reason] = self.denied.get(reason, Count()).plus(count.packets, count.octets)


@dataclass(slots=True)
class EndpointTotals:
    """Denied packets of endpoints, which never go back while an endpoint is there.

    The kernel counts by interface, from 0 whenever an interface comes into the sets. What is counted belongs to whoever owned the interface
    then, so an interface is read before it leaves its owner. An endpoint without an interface is forgotten.
    """

    counts: dict[Half, Count] = field(default_factory=dict)
    _last: dict[tuple[Via, str], tuple[int, int]] = field(default_factory=dict)

    def take_all(self, owners: Mapping[str, Owner], counted: Mapping[Via, Mapping[str, tuple[int, int]]]) -> dict[Half, Count]:
        """The totals after a reading of both sets, by interface. O(endpoints)."""
        halves = {Half(str(owner.key), ingress) for owner in owners.values() for ingress in (True, False)}
        self.counts = {half: self.counts.get(half, Count()) for half in halves}
        for via, found in counted.items():
            for interface, count in found.items():
                owner = owners.get(interface)
                if owner is not None:
                    self.take(via, interface, owner, count)
        self._last = {place: count for place, count in self._last.items() if place[1] in owners}
        return dict(self.counts)

    def take(self, via: Via, interface: str, owner: Owner, count: tuple[int, int]) -> None:
        """The totals have what the interface counted so far, which is this owner's."""
        before = self._last.get((via, interface), (0, 0))
        again = count[0] < before[0] or count[1] < before[1]
        packets, octets = count if again else (count[0] - before[0], count[1] - before[1])
        half = Half(str(owner.key), owner.is_ingress(via))
        self.counts[half] = self.counts.get(half, Count()).plus(packets, octets)
        self._last[via, interface] = count

    def forget(self, interface: str) -> None:
        """The interface has left the sets; if it comes back it counts from 0."""
        for via in Via:
            self._last.pop((via, interface), None)

    def forget_side(self, via: Via) -> None:
        """The set was replaced, so that all of it counts from 0. O(endpoints)."""
        self._last = {place: count for place, count in self._last.items() if place[0] is not via}


def summarize(table: ir.Table, counted: Mapping[tuple[str, bytes], tuple[int, int]]) -> TableCounters:
    """The kernel's counts, which are by (chain, user data), in the words of the table. Rules that the table does not know are left out."""
    rules: dict[ir.Origin, Count] = {}
    denied: dict[str, Count] = {}
    by_comment: dict[str, dict[str, ir.Rule]] = {}
    for (chain, userdata), (packets, octets) in counted.items():
        if chain not in by_comment:
            known = table.chains.get(chain)
            by_comment[chain] = {rule.comment: rule for rule in known.rules if rule.counter} if known is not None else {}
        rule = by_comment[chain].get(parse_comment(userdata))
        if rule is None:
            continue
        if rule.origin is not None:
            rules[rule.origin] = rules.get(rule.origin, Count()).plus(packets, octets)
        if _denies(rule) and chain not in DENIALS:  # what comes to that chain was counted where it came from
            denied[rule.comment] = denied.get(rule.comment, Count()).plus(packets, octets)
    return TableCounters(rules, denied)


def _denies(rule: ir.Rule) -> bool:
    return isinstance(rule.verdict, ir.Drop | ir.Reject) or (isinstance(rule.verdict, ir.Goto) and rule.verdict.chain in DENIALS)

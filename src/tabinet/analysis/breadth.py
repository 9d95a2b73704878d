"""Rules that allow far more addresses than there are: ``10.0.0.0/8`` where all that exists in it is one /16.

In: resources. Out: for a prefix of an Allow rule, the smallest prefix that holds all that exists in it: pools, addresses of endpoints and
hosts, nets of network sets. A prefix in which nothing exists is about addresses outside, one within a pool about the pool: both are not
told, nor are 0.0.0.0/0 and ::/0, which nobody writes by mistake. Pure; O(n log n) once, O(log n) for a prefix.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from tabinet.analysis.fabric import Resources
from tabinet.calc.autohosts import host_addresses
from tabinet.calc.endpoints import readable, readable_addresses
from tabinet.lib.ip import Prefix
from tabinet.model.resources import GlobalNetworkSet, HostEndpoint, IPPool, NetworkSet, Node, WorkloadEndpoint

SPARE_BITS = 4
"""A prefix is told when it is at least 16 times as large as what exists in it."""


@dataclass(slots=True)
class Inhabited:
    """What exists, by family, in the order of addresses."""

    pools: list[Prefix]
    ranges: dict[int, list[tuple[int, int]]]
    """First and last address of each."""

    def within(self, net: Prefix) -> tuple[Prefix, int] | None:
        """The smallest prefix that holds all that exists in ``net``, and how many there are; None: nothing does."""
        known = self.ranges.get(net.family, [])
        first, last = bisect_left(known, (net.value, 0)), bisect_right(known, (net.last, net.last))
        inside = known[first:last]
        if not inside:
            return None
        differing = inside[0][0] ^ max(end for _, end in inside)
        length = net.bits - differing.bit_length()
        value = inside[0][0] >> differing.bit_length() << differing.bit_length()
        return Prefix(net.family, value, length), len(inside)

    def too_broad(self, net: Prefix) -> tuple[Prefix, int] | None:
        """As ``within``, where that is far less than ``net``, and ``net`` is neither everything nor part of a pool."""
        if net.length == 0 or any(pool.contains(net) for pool in self.pools):
            return None
        found = self.within(net)
        return found if found is not None and found[0].length >= net.length + SPARE_BITS and not net.is_host else None


def inhabited(resources: Resources) -> Inhabited:
    """What exists by these resources."""
    pools: list[Prefix] = []
    by_family: dict[int, set[tuple[int, int]]] = {}
    for net in _existing(resources, pools):
        by_family.setdefault(net.family, set()).add((net.value, net.last))
    return Inhabited(pools, {family: sorted(nets) for family, nets in by_family.items()})


def _existing(resources: Resources, pools: list[Prefix]) -> Iterator[Prefix]:
    for value, _ in resources.values():
        match value:
            case IPPool():
                pools += readable([value.spec.cidr])
                yield from readable([value.spec.cidr])
            case WorkloadEndpoint():
                yield from readable(value.spec.ip_networks)
            case HostEndpoint():
                yield from readable_addresses(value.spec.expected_ips)
            case Node():
                yield from host_addresses(value)
            case NetworkSet() | GlobalNetworkSet():
                yield from readable(value.spec.nets)
            case _:
                pass

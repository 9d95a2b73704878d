"""Which policies of a tier a packet can concern, told by its protocol and destination port, so that one lookup replaces asking each.

In: the policies of a tier in order, each with its reach: what protocols and ports its rules can match at all. Out: the same policies as
parts to be asked one after the other: a policy by itself, or a run of adjacent policies. Of a run only those are asked, in their order,
whose reach holds the packet's protocol and port; the others could not have matched.

A policy with a rule that is about no protocol in particular reaches everything and parts the runs; one without rules concerns nothing
and is left out. The lists of a run are never longer together than ``SPREAD`` times the ranges that its policies reach: where wide
ranges would make them so, the run is cut in halves until they are not. So the size of all parts is linear in that of the policies.

Pure. ``parts`` costs O(n log n) in the ranges for each halving, of which there are at most log n.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from tabinet.rules import ir
from tabinet.rules.policy import merge_ranges

LAST_PORT = 65535
SPREAD = 4


class PortRange(msgspec.Struct, frozen=True, gc=False, order=True):
    """Ports of a protocol, both included; all of them also where the protocol has none."""

    protocol: int
    first: int = 0
    last: int = LAST_PORT


class Reach(msgspec.Struct, frozen=True):
    """What a policy can match at most."""

    ranges: tuple[PortRange, ...] = ()
    """Sorted; of one protocol disjoint and not adjacent."""
    everything: bool = False


EVERYTHING = Reach(everything=True)


class Asked(msgspec.Struct, frozen=True):
    """A policy of a tier."""

    chain: str
    reach: Reach


class Segment(msgspec.Struct, frozen=True):
    """Ports for which the same policies are asked."""

    first: int
    last: int
    chains: tuple[str, ...]
    """At least one."""

    @property
    def whole(self) -> bool:
        """True when it is all ports."""
        return self.first == 0 and self.last == LAST_PORT


class Run(msgspec.Struct, frozen=True):
    """Adjacent policies behind one lookup."""

    first: str
    """The chain of the first policy, even if that concerns nothing: the run is known by it."""
    segments: dict[int, list[Segment]]
    """By protocol: ascending, disjoint."""


def reach_of(rules: Iterable[ir.Rule], ports: Mapping[str, Iterable[ir.Range]]) -> Reach:
    """What the rules of a policy can match; ``ports`` are the sets of ports that they name."""
    found: dict[int, list[tuple[int, int]]] = {}
    for rule in rules:
        protocols = [match.number for match in rule.matches if isinstance(match, ir.Protocol) and not match.negated]
        if not protocols:
            return EVERYTHING
        found.setdefault(protocols[0], []).extend(_destination_ports(rule.matches, ports))
    return Reach(
        tuple(PortRange(protocol, item.first, item.last) for protocol in sorted(found) for item in merge_ranges(found[protocol])),
    )


def _destination_ports(matches: Iterable[ir.Match], ports: Mapping[str, Iterable[ir.Range]]) -> list[tuple[int, int]]:
    """The ranges of one of the matches; all ports where none limits them."""
    for match in matches:
        match match:
            case ir.Port(side=ir.Side.DESTINATION, first=first, last=last, negated=False):
                return [(first, last)]
            case ir.PortIn(side=ir.Side.DESTINATION, set_name=name, negated=False):
                return [(item.first, item.last) for item in ports[name]]
            case _:
                pass
    return [(0, LAST_PORT)]


def parts(policies: Sequence[Asked], fewest: int) -> Iterator[str | Run]:
    """What to ask in order: chains of policies, and runs of at least ``fewest`` policies."""
    run: list[Asked] = []
    for policy in policies:
        if policy.reach.everything:
            yield from _cut(run, fewest)
            run = []
            yield policy.chain
        else:
            run.append(policy)
    yield from _cut(run, fewest)


def _cut(policies: list[Asked], fewest: int) -> Iterator[str | Run]:
    able = [policy.chain for policy in policies if policy.reach.ranges]
    if len(able) < fewest:
        yield from able
        return
    segments = _segments(policies)
    if segments is not None:
        yield Run(policies[0].chain, segments)
        return
    middle = len(policies) // 2
    yield from _cut(policies[:middle], fewest)
    yield from _cut(policies[middle:], fewest)


def _segments(policies: list[Asked]) -> dict[int, list[Segment]] | None:
    """The segments of each protocol; None when their lists are too long."""
    ranges: dict[int, list[tuple[int, int, int]]] = {}
    for index, policy in enumerate(policies):
        for item in policy.reach.ranges:
            ranges.setdefault(item.protocol, []).append((item.first, item.last, index))
    room = SPREAD * sum(map(len, ranges.values()))
    found: dict[int, list[Segment]] = {}
    for protocol, listed in sorted(ranges.items()):
        found[protocol] = []
        for first, last, indices in _sweep(listed):
            found[protocol].append(Segment(first, last, tuple(policies[index].chain for index in indices)))
            room -= len(indices)
            if room < 0:
                return None
    return found


def _sweep(ranges: list[tuple[int, int, int]]) -> Iterator[tuple[int, int, list[int]]]:
    """Each stretch of ports between two ends of ranges that some of them hold, with the ascending indices of those that do."""
    begins: dict[int, list[int]] = {}
    ends: dict[int, list[int]] = {}
    for first, last, index in ranges:
        begins.setdefault(first, []).append(index)
        ends.setdefault(last + 1, []).append(index)
    bounds = sorted(begins.keys() | ends.keys())
    held: list[int] = []
    for bound, after in zip(bounds, [*bounds[1:], LAST_PORT + 1], strict=True):
        for index in ends.get(bound, ()):
            del held[bisect.bisect_left(held, index)]
        for index in begins.get(bound, ()):
            bisect.insort(held, index)
        if held:
            yield bound, after - 1, held.copy()

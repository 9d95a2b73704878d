"""Who reaches whom through routers in a row, as their tables say: the subnets that each is attached to, and its extra routes.

In: subnets and routes of routers that know of each other. Out: for each router its ``Neighbour``s, the routers from whose networks
something comes to its own, and between which prefixes. Pure.

A packet goes from router to router by the longest prefix of each, for as long as that is a route by way of another router. It ends at a
router that is attached to its destination, or that has a port behind which it is. Where it goes round in a circle, nowhere, or to different
ends by routes of which a router may choose one, nothing passes. Nor does anything pass where the answers would not come back to the router
that it began at: a router without a way back would not answer either. The two ways need not be the same.

Cost: (routers + prefixes) * prefixes, of those that know of each other.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping

import msgspec

from tabinet.lib.ip import IPV4, IPV6, Prefix, parse_prefix

Route = tuple[str, str, str]
"""Router, next router (empty: by way of a port), destination."""
_Nexts = frozenset[str]
_Pair = tuple[str, str]


class Neighbour(msgspec.Struct, frozen=True, gc=False):
    """Another router, and what passes between its networks and those of this one."""

    router: str
    there: tuple[str, ...]
    """Prefixes that this router reaches at the other."""
    here: tuple[str, ...]
    """Prefixes that the other reaches at this one."""


def neighbours(connected: Mapping[str, Iterable[str]], routes: Iterable[Route]) -> dict[str, tuple[Neighbour, ...]]:
    """By router, those with any. ``connected``: prefixes of the subnets that a router is attached to."""
    ways: dict[str, dict[Prefix, _Nexts]] = defaultdict(dict)
    for router, following, destination in routes:
        net = parse_prefix(destination)
        ways[router][net] = ways[router].get(net, frozenset()) | {following or router}
    for router, nets in connected.items():
        ways[router] |= dict.fromkeys(map(parse_prefix, nets), frozenset({router}))
    reached: dict[_Pair, list[str]] = defaultdict(list)
    for family in (IPV4, IPV6):
        for pair, spans in _reached(ways, family).items():
            reached[pair] += [str(net) for first, last in spans for net in _prefixes(first, last, family)]
    found: dict[str, list[Neighbour]] = defaultdict(list)
    for first, last in sorted(reached):
        if (last, first) in reached:
            found[first].append(Neighbour(last, tuple(reached[first, last]), tuple(reached[last, first])))
    return {router: tuple(others) for router, others in found.items()}


def _reached(ways: Mapping[str, Mapping[Prefix, _Nexts]], family: int) -> dict[_Pair, list[tuple[int, int]]]:
    """By first and last router: the ranges of addresses that go from the one to the other, in order."""
    nets = {net for table in ways.values() for net in table if net.family == family}
    bounds = sorted({net.value for net in nets} | {net.value + net.size for net in nets})
    tables = {router: _by_length(table, family) for router, table in ways.items()}
    found: dict[_Pair, list[tuple[int, int]]] = defaultdict(list)
    for first, after in itertools.pairwise(bounds):  # within one step every table says the same of all addresses
        nexts = {router: _look_up(table, first) for router, table in tables.items()}
        ends: dict[str, str] = {}
        for router in nexts:
            end = _end(router, nexts, ends)
            if not end or end == router:
                continue
            spans = found[router, end]
            if spans and spans[-1][1] == first - 1:
                spans[-1] = (spans[-1][0], after - 1)
            else:
                spans.append((first, after - 1))
    return found


def _by_length(table: Mapping[Prefix, _Nexts], family: int) -> list[tuple[Prefix, _Nexts]]:
    """The longest prefixes first."""
    return sorted(((net, nexts) for net, nexts in table.items() if net.family == family), key=lambda way: -way[0].length)


def _look_up(table: list[tuple[Prefix, _Nexts]], value: int) -> _Nexts:
    return next((nexts for net, nexts in table if net.value <= value <= net.last), frozenset())


def _end(router: str, nexts: Mapping[str, _Nexts], ends: dict[str, str]) -> str:
    """The router at which what comes to this one ends; empty: nobody knows. ``ends``: what is known already."""
    if router in ends:
        return ends[router]
    ends[router] = ""  # whoever comes back here goes round in a circle
    following = nexts.get(router, frozenset())
    if following == {router}:
        ends[router] = router
    elif router not in following:
        possible = {_end(each, nexts, ends) for each in following}
        ends[router] = possible.pop() if len(possible) == 1 else ""
    return ends[router]


def _prefixes(first: int, last: int, family: int) -> Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    if family == IPV4:
        return ipaddress.summarize_address_range(ipaddress.IPv4Address(first), ipaddress.IPv4Address(last))
    return ipaddress.summarize_address_range(ipaddress.IPv6Address(first), ipaddress.IPv6Address(last))

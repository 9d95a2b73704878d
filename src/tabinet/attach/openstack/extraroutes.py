"""Extra routes of routers: which prefixes are behind a port, and who reaches whom through two routers.

In: routes of routers (Networking API v2.0, ``routes`` of a router), and where their next hops are. Out: prefixes that are routed to a port,
with what is wrong with the others; and for a router what comes to it through its neighbours. Pure; linear in the routes and subnets.

- A destination that is behind a port is on no network of Neutron's: what overlaps a subnet is left out, or the owner of a router could send
  in the name of others' ports. So is everything (``0.0.0.0/0``): a router's default way out is the fabric's.
- Through two routers passes what both have routes for, each by way of the other: a router without a way back would not answer either.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from tabinet.attach.openstack.neutron import ExtraRoute
from tabinet.lib.ip import Prefix, parse_prefix


class Neighbour(msgspec.Struct, frozen=True, gc=False):
    """Another router, and what passes between it and this one."""

    router: str
    there: tuple[str, ...]
    """Prefixes that this router reaches through the other."""
    here: tuple[str, ...]
    """Prefixes that the other reaches through this one."""


def prefixes_behind(routes: Iterable[ExtraRoute], subnets: Iterable[str] = ()) -> tuple[tuple[Prefix, ...], list[str]]:
    """What is routed to the port that is the routes' next hop, in order; and the others, in words. ``subnets``: prefixes of all subnets."""
    taken = [parse_prefix(subnet) for subnet in subnets]
    found, refused = set(), []
    for route in sorted(routes, key=lambda route: (route.destination, route.router)):
        try:
            net = parse_prefix(route.destination)
        except ValueError as error:
            refused.append(f"route {route.destination} of router {route.router}: {error}")
            continue
        within = next((other for other in taken if other.contains(net) or net.contains(other)), None)
        if not net.length:
            refused.append(f"route {net} of router {route.router}: everything cannot be behind a port")
        elif within is not None:
            refused.append(f"route {net} of router {route.router}: it overlaps the subnet {within}")
        else:
            found.add(net)
    return tuple(sorted(found)), refused


def neighbours_of(router: str, hops: Iterable[tuple[str, str, str]]) -> tuple[Neighbour, ...]:
    """The router's neighbours, from routes that lead from router to router: (router, next router, destination)."""
    there: dict[str, set[str]] = defaultdict(set)
    here: dict[str, set[str]] = defaultdict(set)
    for first, second, destination in hops:
        if first == router != second:
            there[second].add(destination)
        elif second == router != first:
            here[first].add(destination)
    return tuple(Neighbour(other, tuple(sorted(there[other])), tuple(sorted(here[other]))) for other in sorted(there.keys() & here.keys()))

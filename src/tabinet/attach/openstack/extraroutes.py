"""Extra routes of routers by way of a port: which prefixes are behind it.

In: routes of routers (Networking API v2.0, ``routes`` of a router), and where their next hops are. Out: prefixes that are routed to a port,
with what is wrong with the others. Pure; linear in the routes and subnets.

A destination that is behind a port is on no network of Neutron's: what overlaps a subnet is left out, or the owner of a router could send
in the name of others' ports. So is everything (``0.0.0.0/0``): a router's default way out is the fabric's.
"""

from __future__ import annotations

from collections.abc import Iterable

from tabinet.attach.openstack.neutron import ExtraRoute
from tabinet.lib.ip import Prefix, parse_prefix


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

"""What the inside of an attached network namespace looks like, and the operations that make it so. Pure.

The namespace has its addresses as /32 and /128 and one gateway for each family, the same everywhere: 169.254.1.1 and fe80::1, both
known permanently by the address ee:ee:ee:ee:ee:ee that every host's side has, so that no packet waits for ARP or neighbour discovery, and a
workload that moves to another host needs no new neighbours. Router advertisements are not listened to and addresses not probed for
duplicates: the fabric assigned them. Everything that was asked for before is repeated harmlessly. O(addresses).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from tabinet.kernel.rtnetlink import (
    AddAddress,
    AddSourceRule,
    DeleteAddress,
    InterfaceAddress,
    Link,
    Neighbour,
    ReplaceRoute,
    Route,
    RtOp,
    SetLink,
    SetNeighbour,
    device_route,
    gateway_route,
)
from tabinet.kernel.sysctl import interface_key
from tabinet.lib.ip import IPV4, IPV6, Prefix, parse_address, parse_prefix

HOST_MAC = "ee:ee:ee:ee:ee:ee"
GATEWAYS = {IPV4: parse_address("169.254.1.1"), IPV6: parse_address("fe80::1")}
FIRST_TABLE = 8400
"""Of a second interface in a namespace; its index is added."""
RULE_PRIORITY = 8400
LINK_LOCAL = parse_prefix("fe80::/10")
_DEFAULT = {IPV4: Prefix(IPV4, 0, 0), IPV6: Prefix(IPV6, 0, 0)}
_FORWARDING = {IPV4: "net/ipv4/ip_forward", IPV6: "net/ipv6/conf/all/forwarding"}
_IPV6_PARAMETERS = (("disable_ipv6", "0"), ("accept_ra", "0"), ("autoconf", "0"), ("accept_dad", "0"), ("dad_transmits", "0"))


def plan_parameters(interface: str, addresses: Iterable[Prefix], *, forwarding: bool = False) -> list[tuple[str, str]]:
    """Kernel parameters and their values, to be set before the interface is up; those of IPv6 only with IPv6 addresses.

    ``forwarding``: the workload is a router itself.
    """
    families = {address.family for address in addresses}
    parameters = [(_FORWARDING[family], "1") for family in sorted(families) if forwarding]
    if IPV6 in families:
        parameters += [(interface_key("ipv6", "conf", interface, name), value) for name, value in _IPV6_PARAMETERS]
    return parameters


def plan_inside(
    links: Sequence[Link], interface: Link, present: Iterable[InterfaceAddress], addresses: Sequence[Prefix], routes: Iterable[Route] = ()
) -> list[RtOp]:
    """Operations after which ``interface`` has exactly ``addresses``, the routes and the neighbours, whatever of it was there already.

    Link-local addresses are the kernel's and stay. ``routes`` of the main table: where another interface has the default route already, it
    keeps it, and what is sent from our addresses finds its way by a table of its own; rules that are there already refuse to be added.
    """
    elsewhere = {route.destination.family for route in routes if not route.destination.length and route.hops} - {
        route.destination.family
        for route in routes
        if not route.destination.length and any(hop.index == interface.index for hop in route.hops)
    }
    operations: list[RtOp] = [SetLink(index=link.index, up=True) for link in links if link.name == "lo" and not link.up]
    wanted = {InterfaceAddress(interface.index, address, address.bits) for address in addresses}
    mine = (old for old in present if old.index == interface.index and not LINK_LOCAL.contains(old.address))
    operations += [DeleteAddress(old) for old in mine if old not in wanted]
    operations += [AddAddress(address) for address in sorted(wanted)]
    operations.append(SetLink(index=interface.index, up=True))
    for family in sorted({address.family for address in addresses}):
        gateway = GATEWAYS[family]
        operations.append(SetNeighbour(Neighbour(interface.index, gateway, HOST_MAC)))
        ways = [device_route(gateway, interface.index)] if family == IPV4 else []
        ways.append(gateway_route(_DEFAULT[family], gateway, interface.index))
        if family in elsewhere:
            table = FIRST_TABLE + interface.index
            ways = [msgspec.structs.replace(way, table=table) for way in ways]
            operations += [AddSourceRule(address, table, RULE_PRIORITY) for address in sorted(addresses) if address.family == family]
        operations += [ReplaceRoute(way) for way in ways]
    return operations

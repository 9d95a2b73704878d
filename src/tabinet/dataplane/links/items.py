"""What is wanted of interfaces, as small facts that can each be compared with the kernel. Pure.

An interface of a workload, and the host as a whole, each want a handful of facts: ``workload_items`` and ``host_items`` are the whole
list, with the reasons. Each fact has a key and a text value, so that one delta tracker serves all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from tabinet.kernel.rtnetlink import InterfaceAddress
from tabinet.kernel.sysctl import interface_key
from tabinet.lib.ip import IPV6, Prefix, parse_address

LOOPBACK_INDEX = 1
GATEWAY_IPV4 = parse_address("169.254.1.1")
"""The next hop of every workload; an address of the host itself, because proxy ARP answers only for what is routed elsewhere."""
GATEWAY_IPV6 = parse_address("fe80::1")

UP = "up"
DOWN = "down"
PRESENT = "present"


class Item(msgspec.Struct, frozen=True, gc=False):
    """Base of the facts. ``index``: the interface that it belongs to; 0 for the host."""

    index: int


class Admin(Item, frozen=True):
    """The interface's administrative state: ``UP`` or ``DOWN``."""


class Address(Item, frozen=True):
    """The interface has the address: ``PRESENT``."""

    address: InterfaceAddress


class PermanentNeighbour(Item, frozen=True):
    """The MAC address behind this address, in lower case."""

    address: Prefix


class Parameter(Item, frozen=True):
    """A sysctl and its value."""

    key: str


def host_items(ipv6: bool, addresses: Iterable[Prefix] = ()) -> dict[Item, str]:
    """What makes a host a router for its workloads, whoever they are. ``addresses``: more that it has towards them."""
    items: dict[Item, str] = {
        Parameter(0, "net/ipv4/ip_forward"): "1",
        # flows, not destinations, are spread over equal paths
        Parameter(0, "net/ipv4/fib_multipath_hash_policy"): "1",
        # a route over a dead link would otherwise be a black hole until the routing daemon hears of it
        Parameter(0, "net/ipv4/conf/all/ignore_routes_with_linkdown"): "1",
        Parameter(0, "net/ipv4/conf/default/ignore_routes_with_linkdown"): "1",
        Admin(LOOPBACK_INDEX): UP,
        Address(LOOPBACK_INDEX, InterfaceAddress(LOOPBACK_INDEX, GATEWAY_IPV4, 32)): PRESENT,
    }
    if ipv6:
        for key in (
            "net/ipv6/conf/all/forwarding",
            "net/ipv6/fib_multipath_hash_policy",
            "net/ipv6/conf/all/ignore_routes_with_linkdown",
            "net/ipv6/conf/default/ignore_routes_with_linkdown",
            # the uplinks' global addresses, which sessions are bound to, would go with the link
            "net/ipv6/conf/all/keep_addr_on_down",
            "net/ipv6/conf/default/keep_addr_on_down",
        ):
            items[Parameter(0, key)] = "1"
    for address in addresses:
        if ipv6 or address.family != IPV6:
            items[Address(LOOPBACK_INDEX, InterfaceAddress(LOOPBACK_INDEX, address, address.bits))] = PRESENT
    return items


def workload_items(
    index: int, name: str, neighbours: Mapping[Prefix, str], ipv6: bool, localnet: bool = False, *, answers: bool = True
) -> dict[Item, str]:
    """What an interface wants behind which a workload lives. ``neighbours``: its addresses with the MAC where that is known. ``localnet``:
    what was translated to an address of the loopback net is taken in. ``answers``: the host answers for others' addresses."""

    def parameter(family: str, table: str, what: str) -> Parameter:
        return Parameter(index, interface_key(family, table, name, what))

    items: dict[Item, str] = {
        parameter("ipv4", "conf", "forwarding"): "1",
        # the workload asks for its gateway, and, with a subnet's mask, for its neighbours: the host answers for all of them
        parameter("ipv4", "conf", "proxy_arp"): "1" if answers else "0",
        parameter("ipv4", "neigh", "proxy_delay"): "0",
        # sources are checked by the policy table, which knows more than the routing table does
        parameter("ipv4", "conf", "rp_filter"): "0",
        Admin(index): UP,
    }
    if localnet:
        items[parameter("ipv4", "conf", "route_localnet")] = "1"
    if ipv6:
        items[parameter("ipv6", "conf", "forwarding")] = "1"
        # a workload must not give the host a default route
        items[parameter("ipv6", "conf", "accept_ra")] = "0"
        items[Address(index, InterfaceAddress(index, GATEWAY_IPV6, 64))] = PRESENT
    for address, mac in neighbours.items():
        if mac and address.is_host and (ipv6 or address.family != IPV6):
            items[PermanentNeighbour(index, address)] = mac.lower()
    return items

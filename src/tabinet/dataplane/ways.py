"""How an endpoint's addresses and the prefixes behind it are reached: by which MAC, by which next hop. Pure; linear in its pairs.

A single address is on the endpoint's link, and so is a prefix that is paired with a MAC of its own: the kernel asks there who has an
address of it. Any other prefix is behind the endpoint's first own address, so that guests get what is for their containers without
having to answer for each of them.
"""

from __future__ import annotations

from tabinet.calc.messages import Endpoint
from tabinet.lib.ip import Prefix


def destinations(endpoint: Endpoint) -> tuple[Prefix, ...]:
    """What is routed to the endpoint; nothing while its machine is away."""
    return () if endpoint.is_away else (*endpoint.nets_here, *endpoint.routed)


def hardware_of(endpoint: Endpoint, net: Prefix) -> str:
    """The MAC behind an address of the endpoint's; empty when it is not known."""
    macs = {pair.mac or endpoint.mac for pair in endpoint.pairs if pair.net == net}
    return endpoint.mac if not macs or endpoint.mac in macs else min(macs)


def next_hop(endpoint: Endpoint, net: Prefix) -> Prefix | None:
    """The endpoint's own address by which the prefix is reached; ``None``: the prefix is on its link."""
    if net not in endpoint.routed or hardware_of(endpoint, net) != endpoint.mac:
        return None
    shared = {pair.net for pair in endpoint.pairs} | {nat.external for nat in endpoint.nats}
    return next((own for own in endpoint.nets if own.family == net.family and own.is_host and own not in shared), None)


def shared_destinations(endpoint: Endpoint) -> frozenset[Prefix]:
    """What other endpoints may have as well: of several on one host one has the route, and nobody waits for it."""
    return frozenset((*(pair.net for pair in endpoint.pairs), *endpoint.shared))

"""How a packet finds its way between hosts, as the resources say: pools, blocks, who owns them, encapsulation, translation of the source.

Pure; O(pools + blocks) for each question. What the routers between hosts do is theirs.
"""

from __future__ import annotations

import msgspec

from tabinet.analysis.fabric import Fabric, HostView, Place
from tabinet.calc.endpoints import readable, readable_addresses
from tabinet.calc.routing import confirmed
from tabinet.lib.ip import IPV4, Prefix, parse_prefix
from tabinet.model.keys import AffinityKey
from tabinet.model.resources import IPPool, Node


class Hop(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a host does with the packet."""

    host: str
    prefix: str
    """The route that the packet takes."""
    via: str
    """Interface, or address of the next host."""
    why: str
    """Where the route is from."""


def find_route(fabric: Fabric, source: Place, destination: Place) -> tuple[Hop, ...]:
    """The hops from the source's host on; empty where nothing is routed by us."""
    hops = []
    target = destination.external or destination.address
    if destination.home and source.host != destination.host:
        home = msgspec.structs.replace(destination, host=destination.home)
        hops += [_towards(fabric, source.host, home, target)] if source.host not in ("", destination.home) else []
        via = _node_address(fabric.nodes.get(destination.host), target.family) or destination.host
        why = f"{destination.home} announces {target.address}, and this port of it leads there"
        hops.append(Hop(host=destination.home, prefix=str(target), via=via, why=why))
    elif source.host and source.host != destination.host:
        hops.append(_towards(fabric, source.host, destination, target))
    if destination.kind == "workload":
        why = "a local workload"
        if destination.external is not None:
            why = f"a local workload, behind {'a port of ' if destination.port else 'its floating address '}{target.address}"
        hops.append(Hop(host=destination.host, prefix=str(destination.address), via=destination.interface, why=why))
    return tuple(hops)


def _towards(fabric: Fabric, host: str, destination: Place, target: Prefix) -> Hop:
    if not destination.host:
        return Hop(host=host, prefix=str(target), via="the underlay", why="no workload or host of the fabric has this address")
    node = fabric.nodes.get(destination.host)
    via = _node_address(node, target.family) or destination.host
    if destination.kind == "host":
        return Hop(host=host, prefix=str(target), via=via, why="an address of a host: the underlay knows the way")
    pool, owner, block = _pool_of(fabric, target), *_block_of(fabric, target)
    how = encapsulation(pool[1], fabric.nodes.get(host), node, target.family) if pool is not None else "no encapsulation"
    if block is not None and owner == destination.host:
        return Hop(host=host, prefix=str(block), via=via, why=f"block of {owner}, pool {pool[0] if pool else '?'}, {how}")
    reason = f"an address of its own: block {block} is {owner}'s" if block is not None else "an address of its own: it is in no block"
    return Hop(host=host, prefix=str(target), via=via, why=f"{reason}, {how}")


def is_outside_pools(fabric: Fabric, address: Prefix) -> bool:
    """True when no pool has the address."""
    return _pool_of(fabric, address) is None


def sent_from(fabric: Fabric, source: Place, destination: Place, view: HostView) -> Prefix:
    """The source address with which the packet leaves its host: another one with a floating address, natOutgoing, or a host's tunnel."""
    target = destination.external or destination.address
    if source.kind == "host":
        return _tunnel_address(fabric, source, destination, target)
    if source.kind != "workload" or source.endpoint is None or not is_outside_pools(fabric, target):
        return source.address
    options = view.world.options
    endpoint = view.world.endpoints.get(source.endpoint)
    if endpoint is not None and options.floating_addresses and options.floating_sources:
        for nat in endpoint.nats:
            if nat.internal == source.address:
                return nat.external
    pool = _pool_of(fabric, source.address)
    if pool is None or not pool[1].spec.nat_outgoing:
        return source.address
    if options.nat_spares_hosts and any(place.kind == "host" for place in fabric.places_of(target)):
        return source.address
    named = [address for address in options.nat_addresses if address.family == target.family]
    own = _node_address(fabric.nodes.get(source.host), target.family)
    return named[0] if named else parse_prefix(own) if own else source.address


def _pool_of(fabric: Fabric, address: Prefix) -> tuple[str, IPPool] | None:
    for name, pool in fabric.of_kind(IPPool):
        if any(cidr.contains(address) for cidr in readable((pool.spec.cidr,))):
            return name, pool
    return None


def _block_of(fabric: Fabric, address: Prefix) -> tuple[str, Prefix | None]:
    for key, (value, _) in fabric.resources.items():
        if isinstance(key, AffinityKey) and key.block.contains(address) and confirmed(value):
            return key.host, key.block
    return "", None


def encapsulation(pool: IPPool, here: Node | None, there: Node | None, family: int) -> str:
    """How packets to the pool's addresses on the one host leave the other, in words."""
    for name, mode in (("VXLAN", pool.spec.vxlan_mode), ("IP-in-IP", pool.spec.ipip_mode)):
        if mode == "Always" or (mode == "CrossSubnet" and not _share_a_subnet(here, there, family)):
            return f"in {name} ({mode})"
    return "no encapsulation"


def _tunnel_address(fabric: Fabric, source: Place, destination: Place, target: Prefix) -> Prefix:
    """What a host itself sends through a VXLAN tunnel comes from its address in the tunnel (``rules.tunnels``)."""
    here, there = fabric.nodes.get(source.host), fabric.nodes.get(destination.host)
    pool = _pool_of(fabric, target)
    if here is None or pool is None or "VXLAN" not in encapsulation(pool[1], here, there, target.family):
        return source.address
    return tunnel_address_of(here, target.family) or source.address


def tunnel_address_of(node: Node | None, family: int) -> Prefix | None:
    """The host's own address in its VXLAN tunnel."""
    if node is None:
        return None
    text = node.spec.ipv4_vxlan_tunnel_addr if family == IPV4 else node.spec.ipv6_vxlan_tunnel_addr
    return next(readable_addresses([text]), None)


def _share_a_subnet(here: Node | None, there: Node | None, family: int) -> bool:
    mine, other = _with_length(here, family), _node_address(there, family)
    return bool(mine and other) and parse_prefix(mine).contains(parse_prefix(other))


def _with_length(node: Node | None, family: int) -> str:
    bgp = node.spec.bgp if node is not None else None
    return (bgp.ipv4_address if family == IPV4 else bgp.ipv6_address) if bgp is not None else ""


def node_address(node: Node | None, family: int) -> Prefix | None:
    """The address that the host has by its BGP."""
    return next(readable_addresses([_with_length(node, family)]), None)


def _node_address(node: Node | None, family: int) -> str:
    found = node_address(node, family)
    return found.address if found is not None else ""

"""What ``RemoteIndex`` must come to, from scratch: part of the specification in ``naive``. O(everything). Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tabinet.calc.nodefacts import node_facts, pool_facts
from tabinet.calc.overlays import LocalTunnel, RemoteRoute, Tunnel, TunnelPeer
from tabinet.calc.remote import local_tunnel, next_route, tunnel_peer
from tabinet.lib.ip import Prefix
from tabinet.model.resources import IPPool, Node


def tunnels(
    host: str, nodes: Mapping[str, Node], pools: Mapping[str, IPPool]
) -> tuple[dict[Tunnel, LocalTunnel], dict[tuple[Tunnel, str], TunnelPeer]]:
    """A host's own ends of tunnels, and those of all others."""
    facts = {name: read for name, pool in pools.items() if (read := pool_facts(pool)) is not None}
    wanted = {each.tunnel for each in facts.values()}
    own = node_facts(host, nodes[host]) if host in nodes else None
    locals_ = {tunnel: local_tunnel(tunnel, own, facts, wanted=tunnel in wanted) for tunnel in Tunnel}
    peers = {
        (tunnel, name): tunnel_peer(tunnel, node_facts(name, node))
        for name, node in nodes.items()
        for tunnel in (Tunnel.VXLAN4, Tunnel.VXLAN6)
        if name != host and tunnel in wanted
    }
    return {key: local for key, local in locals_.items() if local}, {key: peer for key, peer in peers.items() if peer}


def remote_routes(
    host: str,
    nodes: Mapping[str, Node],
    pools: Mapping[str, IPPool],
    blocks: Mapping[str, set[Prefix]],
    has: Collection[tuple[str, Prefix]],
) -> dict[Prefix, RemoteRoute]:
    """A host's routes to what the others have. ``blocks``: by host, what it has claimed; ``has``: hosts, and what endpoints there have."""
    facts = {name: node_facts(name, node) for name, node in nodes.items()}

    def in_own_block(name: str, net: Prefix) -> bool:
        return any(block.contains(net) for block in blocks.get(name, ()))

    found: dict[Prefix, RemoteRoute] = {}
    claimed = {block for own in blocks.values() for block in own}
    for destination in claimed | {net for _, net in has} | {end for each in facts.values() for end in each.tunnels.values()}:
        around = (
            sorted(
                (read.cidr.length, name, read)
                for name, pool in pools.items()
                if (read := pool_facts(pool)) is not None and read.cidr.contains(destination)
            )
            if pools
            else []
        )
        if not around:
            continue
        longest = around[-1][0]
        pool = next(read for length, _, read in around if length == longest)
        ends = sorted(name for name, each in facts.items() if pool.tunnel is not None and each.tunnels.get(pool.tunnel) == destination)
        ends = [name for name in ends if destination in claimed or not in_own_block(name, destination)]
        holders = {name for name, net in has if net == destination}
        owners = sorted(name for name in holders if not in_own_block(name, destination))
        claims = sorted(name for name, own in blocks.items() if destination in own)
        if ends:
            owner = ends[0]
        elif host in holders:
            continue
        elif owners:
            owner = owners[0]
        elif claims and host not in claims:
            owner = claims[0]
        else:
            continue
        route = next_route(facts.get(host), facts.get(owner), pool, is_end=bool(ends) and pool.tunnel is not Tunnel.IPIP)
        if owner != host and route is not None:
            found[destination] = route
    return found

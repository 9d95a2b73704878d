"""``RemoteIndex``: keeps tunnels, and the routes to other hosts' workloads in pools that have one, right as the resources change.

In: nodes, pools, claims on blocks, workload endpoints. Out: desired tunnels, peers and routes of each of our hosts, in the outbox. What a
route is:

- to a block: to the host that has claimed it;
- to a single address: where an endpoint has it that is on another host than the block's (borrowed, migrated, in no block), to that host;
  and to the end of a tunnel that has an address outside of its own host's blocks, or a block to itself, by the link.

With ``CrossSubnet`` the next hop is the other host itself where it is in the subnet of ours. Without an address of the other host, or of
its end of the tunnel, there is no route.

Cost: a claim O(size of the block) lookups; an endpoint O(its addresses); a node O(what it has); a pool, or a change of one of our own
nodes, O(everything in such pools). While no pool has a tunnel, an endpoint costs a dictionary entry. Pure. ``naive_remote`` says the same
from scratch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from tabinet.calc import few
from tabinet.calc.endpoints import readable
from tabinet.calc.few import Few
from tabinet.calc.nodefacts import NodeFacts, PoolFacts, node_facts, pool_facts
from tabinet.calc.outbox import Outbox
from tabinet.calc.overlays import LocalTunnel, RemoteRoute, Tunnel, TunnelPeer
from tabinet.lib.ip import Prefix
from tabinet.lib.trie import PrefixTrie
from tabinet.model.keys import AffinityKey, ResourceKey
from tabinet.model.resources import IPPool, Node, WorkloadEndpoint

LISTED = 4096
"""A block of at most so many addresses is asked for each of them, a larger one is compared with all addresses."""

Place = tuple[str, tuple[str, ...], tuple[str, ...]]
"""Host and addresses of an endpoint, and those of them that others may have as well, as its resource has them."""


def next_route(own: NodeFacts | None, other: NodeFacts | None, pool: PoolFacts, *, is_end: bool) -> RemoteRoute | None:
    """The way from a host to what another one has of this pool; ``is_end``: its end of the tunnel itself."""
    tunnel = pool.tunnel
    if tunnel is None or other is None:
        return None
    underlay = other.addresses.get(tunnel.family)
    if underlay is None:
        return None
    subnet = own.subnets.get(tunnel.family) if own is not None else None
    if pool.cross_subnet and subnet is not None and subnet.contains(underlay):
        return RemoteRoute(tunnel, underlay, direct=True)
    if tunnel is Tunnel.IPIP:
        return RemoteRoute(tunnel, underlay)
    end = other.tunnels.get(tunnel)
    if end is None:
        return None
    return RemoteRoute(tunnel, None if is_end else end)


@dataclass(slots=True)
class RemoteIndex:
    """Who has what, and the destinations whose routes have to be looked at again."""

    hosts: frozenset[str]
    outbox: Outbox
    _nodes: dict[str, NodeFacts] = field(default_factory=dict)
    _pools: dict[str, PoolFacts] = field(default_factory=dict)
    _by_cidr: PrefixTrie[PoolFacts] = field(default_factory=PrefixTrie)
    _blocks: PrefixTrie[set[str]] = field(default_factory=PrefixTrie)
    """By block: the hosts that claim it."""
    _blocks_of: dict[str, set[Prefix]] = field(default_factory=dict)
    _places: dict[ResourceKey, Place] = field(default_factory=dict)
    _away: set[ResourceKey] = field(default_factory=set)
    """Endpoints whose machine runs elsewhere."""
    _chosen: dict[Prefix, ResourceKey] = field(default_factory=dict)
    """Of addresses that several endpoints have: the one that holds it."""
    _active: bool = False
    """A pool has a tunnel; the following are kept only then."""
    _holders: dict[Prefix, Few[ResourceKey]] = field(default_factory=dict)
    """By address: the endpoints that have it."""
    _held: dict[str, dict[Prefix, int]] = field(default_factory=dict)
    """By host: the addresses of its endpoints, and how many have each."""
    _ends: dict[Prefix, set[tuple[str, Tunnel]]] = field(default_factory=dict)
    """By address: whose end of which tunnel has it."""
    _dirty: dict[Prefix, None] = field(default_factory=dict)
    _dirty_peers: dict[str, None] = field(default_factory=dict)

    # --- in ---------------------------------------------------------------------------------------------------------

    def on_node_update(self, name: str, node: Node | None) -> None:
        before, now = self._nodes.get(name), node_facts(name, node) if node is not None else None
        if before == now:
            return
        if now is None:
            del self._nodes[name]
        else:
            self._nodes[name] = now
        for facts in (before, now):
            for tunnel, address in facts.tunnels.items() if facts is not None else ():
                owners = self._ends.setdefault(address, set())
                (owners.add if facts is now else owners.discard)((name, tunnel))
                if not owners:
                    del self._ends[address]
                self._dirty[address] = None
        self._dirty_peers[name] = None
        self._dirty.update(dict.fromkeys(self._blocks_of.get(name, ())))
        self._dirty.update(dict.fromkeys(self._held.get(name, ())))
        if name in self.hosts:
            self._dirty_all()

    def on_pool_update(self, name: str, pool: IPPool | None) -> None:
        before, now = self._pools.get(name), pool_facts(pool) if pool is not None else None
        if before == now:
            return
        if before is not None:
            del self._pools[name]
        if now is not None:
            self._pools[name] = now
        for facts in (before, now):
            if facts is not None:
                self._settle_cidr(facts.cidr)
        active = any(each.tunnel is not None for each in self._pools.values())
        if active != self._active:
            self._active = active
            self._holders, self._held = {}, {}
            for key, place in self._places.items() if active else ():
                if key not in self._away:
                    self._hold(key, place)
        self._dirty_all()

    def _settle_cidr(self, cidr: Prefix) -> None:
        """Of pools with one prefix the first by name counts."""
        named = [name for name, facts in self._pools.items() if facts.cidr == cidr]
        if named:
            self._by_cidr.set(cidr, self._pools[min(named)])
        elif cidr in self._by_cidr:
            self._by_cidr.delete(cidr)

    def on_affinity_update(self, key: AffinityKey, claimed: bool) -> None:
        """The host has claimed the block, or has not (any more)."""
        owners = self._blocks.get(key.block) or set()
        if claimed == (key.host in owners):
            return
        owners = owners ^ {key.host}
        if owners:
            self._blocks.set(key.block, owners)
        else:
            self._blocks.delete(key.block)
        self._blocks_of.setdefault(key.host, set()).symmetric_difference_update((key.block,))
        self._dirty[key.block] = None
        if self._active:
            self._dirty.update(dict.fromkeys(self._known_within(key.block)))

    def _known_within(self, block: Prefix) -> Iterator[Prefix]:
        if block.size <= LISTED:
            addresses: Iterable[Prefix] = (block.host(index) for index in range(block.size))
        else:
            addresses = [address for address in (*self._holders, *self._ends) if block.contains(address)]
        return (address for address in addresses if address in self._holders or address in self._ends)

    def on_endpoint_update(self, key: ResourceKey, endpoint: WorkloadEndpoint | None) -> None:
        before = self._places.get(key)
        spec = endpoint.spec if endpoint is not None else None
        now = (sys.intern(spec.node), spec.ip_networks, spec.allowed_ips) if spec is not None else None
        if before == now:
            return
        if before is not None:
            del self._places[key]
        if now is not None:
            self._places[key] = now
        if self._active and key not in self._away:
            if before is not None:
                self._let_go(key, before)
            if now is not None:
                self._hold(key, now)

    def knows_endpoint(self, key: ResourceKey) -> bool:
        """True: there is an endpoint of this key."""
        return key in self._places

    def set_away(self, key: ResourceKey, away: bool) -> None:
        """The endpoint's addresses are not on its host, because its machine runs at the other end of a migration; or they are."""
        if away == (key in self._away):
            return
        place = self._places.get(key)
        if away:
            self._away.add(key)
        else:
            self._away.discard(key)
        if place is not None and self._active:
            (self._let_go if away else self._hold)(key, place)

    def set_holder(self, address: Prefix, key: ResourceKey | None) -> None:
        """Of the endpoints that share the address this one holds it; ``None``: all of them."""
        if key is None:
            self._chosen.pop(address, None)
        else:
            self._chosen[address] = key
        if self._active:
            self._dirty[address] = None

    def nets_of(self, key: ResourceKey) -> frozenset[Prefix]:
        """The endpoint's addresses, on whichever host it is."""
        place = self._places.get(key)
        return frozenset(readable(place[1])) if place is not None else frozenset()

    def addresses_of(self, host: str) -> tuple[Prefix, ...]:
        """The host's own addresses, at most one of each family."""
        facts = self._nodes.get(host)
        return tuple(sorted(facts.addresses.values())) if facts is not None else ()

    def _hold(self, key: ResourceKey, place: Place) -> None:
        host, texts, _ = place
        held = self._held.setdefault(host, {})
        for net in set(readable(texts)):
            self._holders[net] = few.add(self._holders.get(net), key)
            held[net] = held.get(net, 0) + 1
            self._dirty[net] = None

    def _let_go(self, key: ResourceKey, place: Place) -> None:
        host, texts, _ = place
        held = self._held[host]
        for net in set(readable(texts)):
            left = few.remove(self._holders[net], key)
            if left is None:
                del self._holders[net]
            else:
                self._holders[net] = left
            held[net] -= 1
            if not held[net]:
                del held[net]
            self._dirty[net] = None

    def _dirty_all(self) -> None:
        self._dirty.update((block, None) for block, _ in self._blocks.items())
        self._dirty.update(dict.fromkeys(self._holders))
        self._dirty.update(dict.fromkeys(self._ends))
        self._dirty.update((destination, None) for _, destination in self.outbox.remote_routes.desired)
        self._dirty_peers.update(dict.fromkeys(self._nodes))
        self._dirty_peers.update(dict.fromkeys(self.hosts))
        self._dirty_peers.update((peer, None) for _, _, peer in self.outbox.tunnel_peers.desired)

    # --- work -------------------------------------------------------------------------------------------------------

    def settle(self, limit: int) -> int:
        """Works out up to ``limit`` destinations and hosts; gives how many."""
        hosts = list(islice(self._dirty_peers, limit))
        for name in hosts:
            del self._dirty_peers[name]
            self._settle_host(name)
        destinations = list(islice(self._dirty, limit - len(hosts)))
        for destination in destinations:
            del self._dirty[destination]
            self._settle_destination(destination)
        return len(hosts) + len(destinations)

    def _wanted(self) -> set[Tunnel]:
        return {facts.tunnel for facts in self._pools.values() if facts.tunnel is not None}

    def _settle_host(self, name: str) -> None:
        wanted, facts = self._wanted(), self._nodes.get(name)
        if name in self.hosts:
            for tunnel in Tunnel:
                local = local_tunnel(tunnel, facts, self._pools, wanted=tunnel in wanted)
                if local is None:
                    self.outbox.tunnels.drop_desired((name, tunnel))
                else:
                    self.outbox.tunnels.set_desired((name, tunnel), local)
        for tunnel in (Tunnel.VXLAN4, Tunnel.VXLAN6):
            end = tunnel_peer(tunnel, facts) if tunnel in wanted else None
            for host in self.hosts - {name}:
                if end is None:
                    self.outbox.tunnel_peers.drop_desired((host, tunnel, name))
                else:
                    self.outbox.tunnel_peers.set_desired((host, tunnel, name), end)

    def _settle_destination(self, destination: Prefix) -> None:
        found = self._by_cidr.longest_match(destination)
        pool = found[1] if found is not None else None
        for host in self.hosts:
            route = self._route(host, destination, pool) if pool is not None and pool.tunnel is not None else None
            if route is None:
                self.outbox.remote_routes.drop_desired((host, destination))
            else:
                self.outbox.remote_routes.set_desired((host, destination), route)

    def _route(self, host: str, destination: Prefix, pool: PoolFacts) -> RemoteRoute | None:
        owner, is_end = self._owner(host, destination, pool)
        if owner in ("", host):
            return None
        return next_route(self._nodes.get(host), self._nodes.get(owner), pool, is_end=is_end)

    def _owner(self, host: str, destination: Prefix, pool: PoolFacts) -> tuple[str, bool]:
        """Who has the destination, as far as a route of its own is due, and whether that is its end of the pool's tunnel; else ``""``."""
        for name, tunnel in sorted(self._ends.get(destination, ()), key=lambda end: end[0]):
            if tunnel is pool.tunnel and (destination in self._blocks or not self._covers(name, destination)):
                return name, tunnel is not Tunnel.IPIP
        keys, chosen = few.each(self._holders.get(destination)), self._chosen.get(destination)
        if chosen is not None:
            keys = [key for key in keys if key == chosen or destination not in readable(self._places[key][2])]
        holders = {self._places[key][0] for key in keys}
        if host in holders:
            return "", False
        owners = sorted(name for name in holders if not self._covers(name, destination))
        if not owners:
            claims = self._blocks.get(destination) or set()
            owners = [] if host in claims else sorted(claims)
        return (owners[0], False) if owners else ("", False)

    def _covers(self, host: str, destination: Prefix) -> bool:
        """A block of the host has the destination in it."""
        return any(host in owners for _, owners in self._blocks.covering(destination))


def local_tunnel(tunnel: Tunnel, facts: NodeFacts | None, pools: dict[str, PoolFacts], *, wanted: bool) -> LocalTunnel | None:
    """A host's own end of a tunnel; ``None`` when there is nothing to say about it."""
    address = facts.tunnels.get(tunnel) if facts is not None else None
    if not wanted:
        return LocalTunnel(None, address, "", (), wanted=False) if address is not None else None
    return LocalTunnel(
        underlay=facts.addresses.get(tunnel.family) if facts is not None else None,
        address=address,
        mac=facts.macs.get(tunnel, "") if facts is not None else "",
        pools=tuple(pool.cidr for _, pool in sorted(pools.items()) if pool.tunnel is tunnel and pool.gives),
    )


def tunnel_peer(tunnel: Tunnel, facts: NodeFacts | None) -> TunnelPeer | None:
    """Another host's end of a VXLAN tunnel, once everything about it is known."""
    if facts is None or tunnel not in facts.tunnels or tunnel.family not in facts.addresses:
        return None
    return TunnelPeer(facts.addresses[tunnel.family], facts.tunnels[tunnel], facts.macs[tunnel])

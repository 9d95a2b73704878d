"""Which host everybody is on, what hosts have for addresses, and what each host's host endpoint says about flows that come and go.

In: situations, and how options follow from FelixConfiguration. Out: a ``Hosting`` for each, or None where no fabric among them has a host
endpoint: then hosts judge nothing, and addresses of hosts count as outside. The interface between hosts is the one that ``explain`` takes
for it (``fabric.uplink``). An address that a workload has as well is the workload's.
Pure; O(resources), for fabrics with host endpoints only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from tabinet.analysis.fabric import Fabric, interfaces_of
from tabinet.analysis.routes import encapsulation, node_address, tunnel_address_of
from tabinet.calc.endpoints import readable
from tabinet.calc.messages import HostEndpoint
from tabinet.calc.replica import State
from tabinet.lib.ip import IPV4, IPV6, Prefix
from tabinet.model.keys import ResourceKey
from tabinet.model.resources import IPPool
from tabinet.rules.naive import World
from tabinet.rules.options import CONTROL_PORTS, TableOptions

AT_MOST = 64
"""So many hosts at most: workloads are told apart by host then."""


class HostRole(msgspec.Struct, frozen=True):
    """A host as the others see it."""

    endpoint: HostEndpoint | None
    """What judges at the interface towards others."""
    options: TableOptions


class PoolRange(msgspec.Struct, frozen=True):
    """A pool, as far as it changes what others see of a packet's source."""

    cidr: Prefix
    nat_outgoing: bool
    tunnelled: frozenset[tuple[str, str]]
    """Pairs of hosts that reach each other in VXLAN."""


class Hosting(msgspec.Struct, frozen=True):
    """The hosts of a situation."""

    roles: dict[str, HostRole]
    addresses: dict[Prefix, ResourceKey]
    """Of hosts, with the resource that says so."""
    of_address: dict[Prefix, str]
    residents: dict[ResourceKey, str]
    """The host of each workload endpoint."""
    pools: tuple[PoolRange, ...]
    """In the order in which they are asked."""
    nat_sources: dict[tuple[str, int], Prefix]
    """By host and family: the address that natOutgoing gives."""
    tunnel_sources: dict[tuple[str, int], Prefix]
    """Likewise: the host's own address in its VXLAN tunnel."""
    floating_sources: dict[str, tuple[tuple[Prefix, Prefix], ...]]
    """By host: addresses of workloads, and the floating ones that packets to outside all pools come from."""

    def nets(self) -> Iterator[Prefix]:
        """What has to be told apart."""
        for pairs in self.floating_sources.values():
            yield from (internal for internal, _ in pairs)
        for pool in self.pools:
            yield pool.cidr
        for role in self.roles.values():
            options = role.options
            for port in (*options.failsafe_inbound, *options.failsafe_outbound, *options.host_services, *CONTROL_PORTS):
                if port.net is not None:
                    yield port.net


def find_hosting(situations: Sequence[tuple[State, Fabric]]) -> tuple[Hosting, ...]:
    """The hosts of each; empty when there are no host endpoints, or too many hosts."""
    if not any(state.host_endpoints for state, _ in situations):
        return ()
    hosts = [_hosts_of(state, fabric) for state, fabric in situations]
    if max(map(len, hosts)) > AT_MOST:
        return ()
    return tuple([_hosting(state, fabric, names) for (state, fabric), names in zip(situations, hosts, strict=True)])


def _hosts_of(state: State, fabric: Fabric) -> set[str]:
    hosts = {*fabric.nodes, *[endpoint.spec.node for endpoint in fabric.workloads.values()]}
    return hosts | {endpoint.host for _, endpoint in state.host_endpoints.values()}


def _hosting(state: State, fabric: Fabric, hosts: set[str]) -> Hosting:
    residents = {key: endpoint.spec.node for key, endpoint in fabric.workloads.items()}
    of_address: dict[Prefix, str] = {}
    addresses: dict[Prefix, ResourceKey] = {}
    for address, places in fabric.places.items():
        if all(place.kind == "host" for place in places):
            of_address[address] = places[0].host
            addresses[address] = ResourceKey("Node", places[0].host)
    roles = {host: _role(state, fabric, host) for host in sorted(hosts)}
    nat_sources: dict[tuple[str, int], Prefix] = {}
    tunnel_sources: dict[tuple[str, int], Prefix] = {}
    for host, role in roles.items():
        for family in (IPV4, IPV6):
            named = [address for address in role.options.nat_addresses if address.family == family]
            own = named[0] if named else node_address(fabric.nodes.get(host), family)
            if own is not None:
                nat_sources[host, family] = own
            tunnel = tunnel_address_of(fabric.nodes.get(host), family)
            if tunnel is not None:
                tunnel_sources[host, family] = tunnel
    return Hosting(
        roles=roles,
        addresses=addresses,
        of_address=of_address,
        residents=residents,
        pools=tuple([_pool(fabric, cidr, pool, hosts) for _, pool in fabric.of_kind(IPPool) for cidr in readable((pool.spec.cidr,))]),
        nat_sources=nat_sources,
        tunnel_sources=tunnel_sources,
        floating_sources=_floating_sources(state, roles),
    )


def _role(state: State, fabric: Fabric, host: str) -> HostRole:
    options = fabric.options_of(state.config.get(host, {}))
    mine = {key: endpoint for key, (_, endpoint) in state.host_endpoints.items() if endpoint.host == host}
    world = World(hosts=mine, interfaces=interfaces_of(mine.values()), options=options)
    return HostRole(world.host_at(fabric.uplink(host)), options)


def _pool(fabric: Fabric, cidr: Prefix, pool: IPPool, hosts: set[str]) -> PoolRange:
    pairs: set[tuple[str, str]] = set()
    if pool.spec.vxlan_mode not in ("", "Never"):
        for here in fabric.nodes:
            for there in hosts:
                mode = encapsulation(pool, fabric.nodes[here], fabric.nodes.get(there), cidr.family)
                if here != there and "VXLAN" in mode:
                    pairs.add((here, there))
    return PoolRange(cidr, bool(pool.spec.nat_outgoing), frozenset(pairs))


def _floating_sources(state: State, roles: dict[str, HostRole]) -> dict[str, tuple[tuple[Prefix, Prefix], ...]]:
    found: dict[str, tuple[tuple[Prefix, Prefix], ...]] = {}
    for _, endpoint in state.endpoints.values():
        options = roles[endpoint.host].options if endpoint.host in roles else TableOptions()
        if endpoint.nats and options.floating_addresses and options.floating_sources:
            first: dict[Prefix, Prefix] = {}
            for nat in endpoint.nats:
                first.setdefault(nat.internal, nat.external)
            found[endpoint.host] = found.get(endpoint.host, ()) + tuple(first.items())
    return found

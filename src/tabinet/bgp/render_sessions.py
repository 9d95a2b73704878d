"""A BGP session of a host as a protocol of bird.conf.

In: the ``PeerIntent`` with the peer's address, the host's intent, facts and options. Out: lines. Pure; linear in the host's addresses.

- A peer in a connected subnet is ``direct`` on that interface, with BFD if wanted; any other is multihop, its next hops resolved
  recursively through the kernel's routes. So are next hops that a reflector passes on, as they can be anywhere.
- An unnumbered peer is direct on its interface by its link-local address, and the session carries both families, IPv4 with IPv6 next hops
  (RFC 8950).
- A workload is spoken to from the gateway address that every workload has (IPv4), or the host's own (IPv6), unless one is configured;
  an IPv4 session can carry IPv6 routes too (RFC 4760).
- Routes of another host of the cluster become the last resort as soon as BFD or the connection fails (long-lived graceful restart,
  RFC 9494), so that a restart of a host's BIRD loses nothing, and neither does the death of a host whose addresses others have as well.
  Peers of other makes do so where they are said to (``long_lived``); with the others routes go with BFD, and stay while BIRD restarts
  only where the peer leaves BFD alone then (as FRR does).
- TTL security (RFC 5082) asks for 255 minus the hops in between; a connected peer is one hop away.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tabinet.bgp.names import description, is_interface, protocol_name
from tabinet.bgp.prepare import link_local
from tabinet.bgp.records import BgpOptions, HostFacts, InterfaceAddress
from tabinet.bgp.render_policy import export_filter, import_filter
from tabinet.calc.intents import BgpIntent, NextHop, PeerIntent
from tabinet.lib.ip import IPV4, IPV6, Prefix, parse_address

WORKLOAD_GATEWAY = parse_address("169.254.1.1")
"""Address of every host towards its workloads."""


class Route(msgspec.Struct, frozen=True, gc=False):
    """How a peer is reached."""

    direct: bool
    """In one hop."""
    interface: str = ""
    """Of a direct peer."""
    source: Prefix | None = None
    """Our address in the session; ``None``: BIRD or the kernel chooses."""


def route_to(peer: PeerIntent, intent: BgpIntent, facts: HostFacts) -> Route:
    """How the peer is reached, and from which address."""
    if peer.interface:
        return Route(True, peer.interface, link_local(peer.interface, facts))
    own = own_address(intent, peer.address.family)
    if peer.workload is not None:
        given = intent.peering4 if peer.address.family == IPV4 else intent.peering6
        return Route(False, source=given or (WORKLOAD_GATEWAY if peer.address.family == IPV4 else own))
    found = direct_interface(peer, intent, facts)
    if found is not None:
        return Route(True, found.interface, found.address)
    return Route(False, source=own if peer.use_node_ip or intent.bind_node_ip else None)


def connected_interface(peer: Prefix, facts: HostFacts) -> InterfaceAddress | None:
    """The host's address in the smallest connected subnet that holds ``peer``; ``None`` when there is none that BIRD can name."""
    candidates = [
        entry
        for entry in facts.addresses
        if entry.length < entry.address.bits and entry.subnet.contains(peer) and is_interface(entry.interface)
    ]
    return max(candidates, key=lambda entry: (entry.length, entry), default=None)


def direct_interface(peer: PeerIntent, intent: BgpIntent, facts: HostFacts) -> InterfaceAddress | None:
    """The address and interface over which the session runs in one hop; ``None`` when it runs over several.

    A session whose source is the host's own address is direct only where that address is on the connected interface.
    """
    found = connected_interface(peer.address, facts)
    own = own_address(intent, peer.address.family)
    if found is None or not peer.use_node_ip or own is None or found.address == own:
        return found
    entry = InterfaceAddress(found.interface, own, found.length)
    return entry if entry in facts.addresses else None


def own_address(intent: BgpIntent, family: int) -> Prefix | None:
    """The host's own address of a family."""
    return intent.ipv4 if family == IPV4 else intent.ipv6


def families_of(peer: PeerIntent, intent: BgpIntent) -> tuple[int, ...]:
    """The families whose routes the session carries."""
    wanted = peer.families or ((IPV4, IPV6) if peer.interface else (peer.address.family,))
    return tuple(family for family in wanted if family == peer.address.family or own_address(intent, family) is not None)


def render_session(peer: PeerIntent, intent: BgpIntent, route: Route, password: str, options: BgpOptions) -> Iterator[str]:
    """The protocol. ``password``: empty for none."""
    own_as = peer.local_as or intent.as_number
    external = peer.as_number != own_as
    keepalive = peer.keepalive_time_s or (options.external_keepalive_time_s if external else options.internal_keepalive_time_s)
    yield f"protocol bgp '{protocol_name(peer)}' {{"
    yield f'  description "{description(peer.name)}";'
    yield f"  local {f'{route.source.address} ' if route.source else ''}port {intent.listen_port} as {own_as};"
    yield f"  neighbor {peer.address.address} port {peer.port} {f'as {peer.as_number}' if peer.as_number else 'external'};"
    if route.direct and intent.bind_node_ip and not peer.interface:
        # BIRD would bind its listening socket to the interface too, and the kernel allows no second one on that address and port.
        yield "  direct;"
    elif route.direct:
        yield f'  direct; interface "{route.interface}";'
    else:
        yield f"  multihop{f' {peer.ttl_hops}' if peer.ttl_hops else ''};"
    if intent.bind_node_ip:
        yield "  strict bind on;"
    if peer.ttl_hops:
        yield "  ttl security on;"
    if password:
        yield f'  password "{password}";'
    yield f"  hold time {3 * keepalive}; keepalive time {keepalive};"
    yield "  connect delay time 1; connect retry time 2; error wait time 1, 5;"
    yield from _render_restart(peer, options)
    if peer.allowed_own_as:
        yield f"  allow local as {peer.allowed_own_as};"
    if peer.client:
        yield f"  rr client; rr cluster id {intent.cluster_id};"
    if peer.bfd and route.direct:
        yield from _render_bfd(peer, options)
    for family in families_of(peer, intent):
        yield from _render_channel(peer, intent, family, route, options, external=external)
    yield "}"


def _render_restart(peer: PeerIntent, options: BgpOptions) -> Iterator[str]:
    """What becomes of routes while the session is away."""
    restart_s = peer.max_restart_time_s or options.restart_time_s
    if _long_lived(peer):
        # Both ends keep the other's routes as the last resort from the first moment on (RFC 9494).
        yield f"  graceful restart on; graceful restart time 0; long lived graceful restart on; long lived stale time {restart_s};"
    else:
        yield f"  graceful restart on; graceful restart time {restart_s};"


def _long_lived(peer: PeerIntent) -> bool:
    return peer.ours or peer.long_lived


def _render_bfd(peer: PeerIntent, options: BgpOptions) -> Iterator[str]:
    graceful = " graceful;" if _long_lived(peer) else ""
    slower_ms = max(options.bfd_interval_ms, options.mesh_bfd_interval_ms) if peer.ours else options.bfd_interval_ms
    interval_ms = peer.bfd_interval_ms or slower_ms
    multiplier = peer.bfd_multiplier or options.bfd_multiplier
    if not graceful and (interval_ms, multiplier) == (options.bfd_interval_ms, options.bfd_multiplier):
        yield "  bfd on;"
    else:
        yield f"  bfd {{{graceful} interval {interval_ms} ms; multiplier {multiplier}; }};"


def _render_channel(
    peer: PeerIntent, intent: BgpIntent, family: int, route: Route, options: BgpOptions, *, external: bool
) -> Iterator[str]:
    coming, going = (chosen(peer, intent, family, external=external) for chosen in (import_filter, export_filter))
    yield f"  ipv{family} {{"
    yield f"    import {coming}; export {going};"
    gateway = "direct" if route.direct and not peer.reflected else "recursive"
    yield f"    next hop {_next_hop(peer, intent, external=external)}; gateway {gateway};"
    own = own_address(intent, family)
    if family != peer.address.family and not peer.interface and own is not None:
        yield f"    next hop address {own.address};"
    if peer.interface and family == IPV4:
        yield "    extended next hop on;"
    if peer.reflected:
        yield "    add paths on;"
    yield f"    import limit {peer.route_limit or options.import_limit} action restart;"
    yield "  };"


def _next_hop(peer: PeerIntent, intent: BgpIntent, *, external: bool) -> str:
    if peer.next_hop is NextHop.KEEP or (peer.next_hop is NextHop.KEEP_EXTERNAL and external):
        return "keep"
    # What a reflector has from its own AS keeps its next hop; its own routes have none, and get its address.
    return "self ebgp" if intent.cluster_id and peer.reflected and peer.next_hop is not NextHop.SELF else "self"

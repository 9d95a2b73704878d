"""What BIRD shall do on a host, as the text of bird.conf (BIRD 2.0.12 and later 2.x; https://bird.network.cz/?get_doc&f=bird.html).

In: the host's ``BgpIntent`` (or ``None``: no sessions), ``HostFacts``, ``BgpOptions``. Out: text that is the same whenever they are. Pure.
Linear in peers, blocks, pools and rules, times the host's addresses for each peer.

What the text says:

- One BIRD for both families. Every name starts with ``tb_``, so none is a keyword; the peer's own name is in ``description``.
- Routes of protocol 84 (local workloads) are learned with preference 250: no BGP route for the same prefix wins over a local workload.
- Own blocks are static blackholes, announced as aggregates; what lies inside an own block is not announced, what lies outside is.
- Addresses of services are announced and not routed here, as whoever serves them translates them first.
- In pools with a tunnel the agent programs the routes to other hosts: what BGP says of them is passed on as ever, and not installed.
- The kernel's other routes are learned, with their low preference, only where something needs them: next hops of multihop or reflected
  routes, and BGPFilters that may announce them.
- Routes stay in the kernel when BIRD ends; a BIRD that is started with ``-R`` keeps them for ``recovery_time_s`` while the peers tell
  theirs again (RFC 4724). Left alone it ends that too early: it does not wait for peers that say that they restarted themselves, and
  FRR says so for two minutes after its start. So there is a session ``tb_recovery``, with nobody, which is always waited for.

Which routes pass says ``render_policy``, how sessions are run ``render_sessions``, and which of them can be run ``prepare``.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping

from tabinet.bgp.names import is_interface
from tabinet.bgp.prepare import Prepared, prepare
from tabinet.bgp.records import RECOVERY, REMOTE_PROTOCOL, ROUTE_PROTOCOL, BgpOptions, HostFacts, InterfaceAddress
from tabinet.bgp.render_policy import OF_WORKLOAD, render_policy
from tabinet.bgp.render_sessions import Route, families_of, own_address, render_session, route_to
from tabinet.calc.intents import BgpIntent
from tabinet.lib.ip import IPV4, IPV6, Prefix, parse_address

FAMILIES = (IPV4, IPV6)
NO_ROUTER_ID = "0.0.0.1"
"""For a BIRD without sessions: it wants one that is not zero."""
LOCAL_PREFERENCE = 250
"""Preference of local workloads; BGP has 100, static routes 200."""

LOG_CLASSES = ("bug", "fatal", "error", "auth", "warning", "remote", "info", "trace", "debug")
LOG_DEPTH = {"none": 1, "fatal": 2, "error": 4, "warning": 6, "info": 7, "debug": 9}
"""How many of the classes each severity of BGPConfiguration logs."""


def render_config(intent: BgpIntent | None, facts: HostFacts, options: BgpOptions, refused: Mapping[str, str] | None = None) -> str:
    """The whole bird.conf. Without an intent BIRD runs no session and removes the routes that it had installed.

    ``refused``: peers that are left out, by name, with the reason.

    Raises:
        ValueError: the intent's router id is not a dotted quad.
    """
    if intent is None:
        lines = [*_render_head(NO_ROUTER_ID, "Info"), *_render_bare_kernel(options)]
    else:
        lines = list(_render_all(prepare(intent, facts, refused), facts, options))
    return "\n".join(lines) + "\n"


def _render_all(prepared: Prepared, facts: HostFacts, options: BgpOptions) -> Iterator[str]:
    intent = prepared.intent
    routes = {peer.name: route_to(peer, intent, facts) for peer in intent.peers}
    loopbacks = _loopbacks(intent, facts)
    resolving = {family for family in FAMILIES if _resolves(intent, routes, family)}
    yield from _render_head(intent.router_id, intent.log_severity)
    interfaces = {entry.interface for entry in loopbacks}
    if resolving:
        interfaces |= {entry.interface for entry in facts.addresses}
    yield from _render_direct(interfaces, intent.ignored_interfaces)
    if any(peer.bfd and routes[peer.name].direct for peer in intent.peers):
        yield "protocol bfd tb_bfd {"
        yield "  accept direct;"
        yield f'  interface "*" {{ interval {options.bfd_interval_ms} ms; multiplier {options.bfd_multiplier}; }};'
        yield "}"
    yield from _render_advertising(prepared.links)
    if intent.peers:
        yield from _render_recovery(intent, options)
    local = {entry.address for entry in facts.addresses}
    for family in FAMILIES:
        yield ""
        yield f"# IPv{family}"
        yield from _render_statics(intent, family)
        yield from _render_kernel(intent, family, options, local, resolve=family in resolving)
        yield from render_policy(intent, family, [entry.address for entry in loopbacks if entry.address.family == family])
    for peer in sorted(intent.peers, key=lambda peer: peer.name):
        yield ""
        yield from render_session(peer, intent, routes[peer.name], prepared.passwords.get(peer.name, ""), options)


def _resolves(intent: BgpIntent, routes: Mapping[str, Route], family: int) -> bool:
    """True when next hops are looked up in the kernel's routes, or a filter may announce those."""
    return any(
        peer.workload is None and (not routes[peer.name].direct or peer.reflected)
        for peer in intent.peers
        if family in families_of(peer, intent)
    ) or any(rule.accept and not rule.remote_only for found in intent.filters for rules, rule in found.export_rules if rules == family)


def _render_head(router_id: str, severity: str) -> Iterator[str]:
    if parse_address(router_id).family != IPV4:
        raise ValueError(f"router id {router_id!r} is not a dotted quad")
    classes = LOG_CLASSES[: LOG_DEPTH.get(severity.lower(), LOG_DEPTH["info"])]
    yield "# Written by tabinet; changes are overwritten."
    yield f"log stderr {{ {', '.join(classes)} }};"
    yield f"router id {router_id};"
    yield "timeformat protocol iso long ms;"
    yield "protocol device tb_device { scan time 10; }"


def _render_recovery(intent: BgpIntent, options: BgpOptions) -> Iterator[str]:
    """A planned restart is given its whole time. The neighbour's address is one for documentation (RFC 5737, RFC 3849): nobody has it."""
    own = (own_address(intent, IPV4) or own_address(intent, IPV6)) if intent.bind_node_ip else None
    nobody = "2001:db8::1" if own is not None and own.family == IPV6 else "192.0.2.1"
    yield f"graceful restart wait {options.recovery_time_s};"
    yield f"protocol bgp {RECOVERY} {{"
    yield f"  local {f'{own.address} ' if own else ''}port {intent.listen_port} as {intent.as_number};"
    yield f"  neighbor {nobody} as {intent.as_number}; multihop; passive;"
    if own:
        yield "  strict bind on;"
    yield "  graceful restart on;"
    yield from (f"  ipv{family} {{ import none; export none; }};" for family in FAMILIES)
    yield "}"


def _render_direct(interfaces: Iterable[str], ignored: Iterable[str]) -> Iterator[str]:
    """Connected subnets as routes: the loopback address, to be announced; where next hops are looked up all, for that."""
    names = {name for name in interfaces if is_interface(name)}
    for pattern in ignored:
        names -= set(fnmatch.filter(names, pattern))
    if names:
        patterns = ", ".join(f'"{name}"' for name in sorted(names))
        yield f"protocol direct tb_direct {{ ipv4; ipv6; interface {patterns}; }}"


def _render_advertising(links: Iterable[str]) -> Iterator[str]:
    """Router advertisements by which unnumbered peers learn our address; lifetime 0, so that nobody takes us for a default gateway."""
    names = [name for name in links if is_interface(name)]
    if names:
        patterns = ", ".join(f'"{name}"' for name in names)
        yield "protocol radv tb_radv {"
        yield f"  interface {patterns} {{ min ra interval 3; max ra interval 4; default lifetime 0; }};"
        yield "}"


def _render_statics(intent: BgpIntent, family: int) -> Iterator[str]:
    """Own blocks, addresses of services, ways to peers behind a gateway."""
    blocks = [f"{block} blackhole" for block in intent.blocks if block.family == family]
    services = [f"{net} unreachable" for net in intent.services if net.family == family]
    ways = {(peer.address, peer.reachable_by) for peer in intent.peers if peer.reachable_by is not None and peer.address.family == family}
    reach = [f"{address} via {gateway.address}" for address, gateway in sorted(ways) if gateway is not None]
    for name, routes in (("blocks", blocks), ("services", services), ("reach", reach)):
        if routes:
            yield f"protocol static tb_{name}{family} {{"
            yield f"  ipv{family};"
            yield from (f"  route {route};" for route in routes)
            yield "}"


def _render_kernel_options(family: int, metric: int, options: BgpOptions) -> Iterator[str]:
    """The metric is one for all routes: BIRD does not remove a route whose metric changed."""
    yield f"protocol kernel tb_kernel{family} {{"
    yield f"  learn; persist; graceful restart; merge paths yes limit {options.multipath_limit}; scan time {options.kernel_scan_time_s};"
    yield f"  metric {metric};"
    # One socket serves both kernel protocols, so the size is said once.
    if family == IPV4:
        yield f"  netlink rx buffer {options.netlink_buffer_bytes};"


def _render_bare_kernel(options: BgpOptions) -> Iterator[str]:
    """Kernel protocols with nothing to install: BIRD removes its own routes, which ``persist`` would otherwise leave for ever."""
    for family in FAMILIES:
        yield from _render_kernel_options(family, options.route_metric, options)
        yield f"  ipv{family} {{ import none; export none; }};"
        yield "}"


def _render_kernel(intent: BgpIntent, family: int, options: BgpOptions, local: set[Prefix], *, resolve: bool) -> Iterator[str]:
    """``resolve``: also learn the kernel's other routes, with their low preference, so that next hops of multihop peers resolve."""
    yield f"filter tb_learn{family} {{"
    yield f"  if krt_source = {ROUTE_PROTOCOL} then {{ preference = {LOCAL_PREFERENCE}; accept; }}"
    if resolve:
        yield f"  if krt_source = {REMOTE_PROTOCOL} then reject;"
    yield "  accept;" if resolve else "  reject;"
    yield "}"
    yield f"filter tb_install{family} {{"
    yield f'  if proto = "tb_services{family}" then reject;'
    yield "  if source = RTS_STATIC then accept;"
    yield "  if source != RTS_BGP then reject;"
    tunnels = [f"{pool.cidr}+" for pool in intent.pools if pool.tunnel and pool.cidr.family == family]
    if tunnels:
        yield f"  if net ~ [ {', '.join(sorted(tunnels))} ] && !({OF_WORKLOAD}) then reject;"
    own = own_address(intent, family)
    # The kernel refuses a route whose source address it does not have.
    if own is not None and own in local:
        yield f"  krt_prefsrc = {own.address};"
    yield "  accept;"
    yield "}"
    yield from _render_kernel_options(family, intent.metrics[family == IPV6] or options.route_metric, options)
    yield f"  ipv{family} {{ import filter tb_learn{family}; export filter tb_install{family}; }};"
    yield "}"


def _loopbacks(intent: BgpIntent, facts: HostFacts) -> list[InterfaceAddress]:
    """The host's own addresses that are not part of a subnet: the fabric learns them only from us."""
    own = (intent.ipv4, intent.ipv6)
    return [entry for entry in sorted(facts.addresses) if entry.address in own and entry.length == entry.address.bits]

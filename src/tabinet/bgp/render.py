"""What BIRD shall do on a host, as the text of bird.conf (BIRD 2.0.12 and later 2.x; https://bird.network.cz/?get_doc&f=bird.html).

In: the host's ``BgpIntent`` (or ``None``: no sessions), ``HostFacts``, ``BgpOptions``. Out: text that is the same whenever they are. Pure.
Linear in peers, blocks and pools, times the host's addresses for each peer.

What the text says:

- One BIRD for both families. Every name starts with ``tb_``, so none is a keyword; the peer's own name is in ``description``.
- Routes of protocol 84 (local workloads) are learned with preference 250: no BGP route for the same prefix wins over a local workload.
- Own blocks are static blackholes, announced as aggregates; what lies inside an own block is not announced, what lies outside is.
- Only what is in a pool that may be announced, and the host's own loopback address, leaves the host. Nothing learned by BGP does: a
  host is never transit. Link-local addresses never leave or enter.
- A peer in a connected subnet is ``direct`` on that interface, with BFD if wanted; any other is multihop, its next hops resolved
  recursively through the kernel's routes, which BIRD then learns for that only.
- GRACEFUL_SHUTDOWN (RFC 8326) of a peer makes its routes the last choice; with ``drain`` we announce it ourselves.
- Routes stay in the kernel when BIRD ends; a BIRD that is started with ``-R`` keeps them for ``recovery_time_s`` while the peers tell
  theirs again (RFC 4724). Left alone it ends that too early: it does not wait for peers that say that they restarted themselves, and
  FRR says so for two minutes after its start. So there is a session ``tb_recovery``, with nobody, which is always waited for.

Not here: passwords, filters of BGPFilter resources, route reflectors.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator

from tabinet.bgp.records import RECOVERY, ROUTE_PROTOCOL, BgpOptions, HostFacts, InterfaceAddress
from tabinet.calc.messages import BgpIntent, PeerIntent
from tabinet.lib.ip import IPV4, IPV6, Prefix, parse_address

FAMILIES = (IPV4, IPV6)
NO_ROUTER_ID = "0.0.0.1"
"""For a BIRD without sessions: it wants one that is not zero."""
LOCAL_PREFERENCE = 250
"""Preference of local workloads; BGP has 100, static routes 200."""
LEAVING = "(65535, 0)"
"""GRACEFUL_SHUTDOWN, RFC 8326 section 3."""

NEVER = {
    IPV4: "127.0.0.0/8+, 169.254.0.0/16+, 224.0.0.0/4+",
    IPV6: "::/128, ::1/128, fe80::/10+, ff00::/8+",
}
"""Neither announced nor accepted."""

LOG_CLASSES = ("bug", "fatal", "error", "auth", "warning", "remote", "info", "trace", "debug")
LOG_DEPTH = {"none": 1, "fatal": 2, "error": 4, "warning": 6, "info": 7, "debug": 9}
"""How many of the classes each severity of BGPConfiguration logs."""

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,48}")
_PLAIN_INTERFACE = re.compile(r"[A-Za-z0-9_.:@+][A-Za-z0-9_.:@+-]{0,14}")


def render_config(intent: BgpIntent | None, facts: HostFacts, options: BgpOptions) -> str:
    """The whole bird.conf. Without an intent BIRD runs no session and removes the routes that it had installed.

    Raises:
        ValueError: the intent's router id is not a dotted quad.
    """
    if intent is None:
        lines = [*_render_head(NO_ROUTER_ID, "Info"), *_render_bare_kernel(options)]
    else:
        lines = list(_render_all(intent, facts, options))
    return "\n".join(lines) + "\n"


def protocol_name(peer: str) -> str:
    """The name of a peer's protocol in BIRD: a legal quoted symbol that differs for different peers and depends on nothing else."""
    if _PLAIN_NAME.fullmatch(peer) and "__" not in peer:
        return f"tb_peer_{peer}"
    digest = hashlib.sha256(peer.encode()).hexdigest()[:12]
    return f"tb_peer_{re.sub('[^A-Za-z0-9]+', '_', peer)[:34]}__{digest}"


def connected_interface(peer: Prefix, facts: HostFacts) -> InterfaceAddress | None:
    """The host's address in the smallest connected subnet that holds ``peer``; ``None`` when there is none that BIRD can name."""
    candidates = [
        entry
        for entry in facts.addresses
        if entry.length < entry.address.bits and entry.subnet.contains(peer) and _PLAIN_INTERFACE.fullmatch(entry.interface)
    ]
    return max(candidates, key=lambda entry: (entry.length, entry), default=None)


def direct_interface(peer: PeerIntent, intent: BgpIntent, facts: HostFacts) -> InterfaceAddress | None:
    """The address and interface over which the session runs in one hop; ``None`` when it runs over several.

    A session whose source is the host's own address is direct only where that address is on the connected interface.
    """
    found = connected_interface(peer.address, facts)
    own = _own_address(intent, peer.address.family)
    if found is None or not peer.use_node_ip or own is None or found.address == own:
        return found
    entry = InterfaceAddress(found.interface, own, found.length)
    return entry if entry in facts.addresses else None


def _render_all(intent: BgpIntent, facts: HostFacts, options: BgpOptions) -> Iterator[str]:
    direct = {peer.name: direct_interface(peer, intent, facts) for peer in intent.peers}
    multihop = [peer for peer in intent.peers if direct[peer.name] is None]
    loopbacks = _loopbacks(intent, facts)
    yield from _render_head(intent.router_id, intent.log_severity)
    interfaces = {entry.interface for entry in loopbacks}
    if multihop:
        interfaces |= {entry.interface for entry in facts.addresses}
    yield from _render_direct(interfaces - set(intent.ignored_interfaces))
    if any(peer.bfd and direct[peer.name] for peer in intent.peers):
        yield "protocol bfd tb_bfd {"
        yield "  accept direct;"
        yield f'  interface "*" {{ interval {options.bfd_interval_ms} ms; multiplier {options.bfd_multiplier}; }};'
        yield "}"
    if intent.peers:
        yield from _render_recovery(intent, options)
    local = {entry.address for entry in facts.addresses}
    for family in FAMILIES:
        yield ""
        yield f"# IPv{family}"
        yield from _render_blocks(intent, family)
        yield from _render_kernel(intent, family, options, local, resolve=any(peer.address.family == family for peer in multihop))
        yield from _render_import(family)
        own = [entry.address for entry in loopbacks if entry.address.family == family]
        yield from _render_export(f"tb_export_internal{family}", intent, family, (), options)
        yield from _render_export(f"tb_export_external{family}", intent, family, own, options)
    for peer in sorted(intent.peers, key=lambda peer: peer.name):
        yield ""
        yield from _render_session(peer, intent, direct[peer.name], options)


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
    """A planned restart is given its whole time. The neighbour's address is of TEST-NET-1 (RFC 5737), so nobody has it."""
    yield f"graceful restart wait {options.recovery_time_s};"
    yield f"protocol bgp {RECOVERY} {{"
    yield f"  local port {intent.listen_port} as {intent.as_number}; neighbor 192.0.2.1 as {intent.as_number}; multihop; passive;"
    yield "  graceful restart on;"
    yield from (f"  ipv{family} {{ import none; export none; }};" for family in FAMILIES)
    yield "}"


def _render_direct(interfaces: Iterable[str]) -> Iterator[str]:
    """Connected subnets as routes: the loopback address, to be announced; with multihop peers all, for the resolution of next hops."""
    names = sorted(name for name in interfaces if _PLAIN_INTERFACE.fullmatch(name))
    if names:
        patterns = ", ".join(f'"{name}"' for name in names)
        yield f"protocol direct tb_direct {{ ipv4; ipv6; interface {patterns}; }}"


def _render_blocks(intent: BgpIntent, family: int) -> Iterator[str]:
    blocks = [block for block in intent.blocks if block.family == family]
    if blocks:
        yield f"protocol static tb_blocks{family} {{"
        yield f"  ipv{family};"
        yield from (f"  route {block} blackhole;" for block in blocks)
        yield "}"


def _render_kernel_options(family: int, options: BgpOptions) -> Iterator[str]:
    yield f"protocol kernel tb_kernel{family} {{"
    yield f"  learn; persist; graceful restart; merge paths yes limit {options.multipath_limit}; scan time {options.kernel_scan_time_s};"
    # One socket serves both kernel protocols, so the size is said once.
    if family == IPV4:
        yield f"  netlink rx buffer {options.netlink_buffer_bytes};"


def _render_bare_kernel(options: BgpOptions) -> Iterator[str]:
    """Kernel protocols with nothing to install: BIRD removes its own routes, which ``persist`` would otherwise leave for ever."""
    for family in FAMILIES:
        yield from _render_kernel_options(family, options)
        yield f"  ipv{family} {{ import none; export none; }};"
        yield "}"


def _render_kernel(intent: BgpIntent, family: int, options: BgpOptions, local: set[Prefix], *, resolve: bool) -> Iterator[str]:
    """``resolve``: also learn the kernel's other routes, with their low preference, so that next hops of multihop peers resolve."""
    yield f"filter tb_learn{family} {{"
    yield f"  if krt_source = {ROUTE_PROTOCOL} then {{ preference = {LOCAL_PREFERENCE}; accept; }}"
    yield "  accept;" if resolve else "  reject;"
    yield "}"
    yield f"filter tb_install{family} {{"
    yield "  if source = RTS_STATIC then accept;"
    yield "  if source != RTS_BGP then reject;"
    own = _own_address(intent, family)
    # The kernel refuses a route whose source address it does not have.
    if own is not None and own in local:
        yield f"  krt_prefsrc = {own.address};"
    yield "  accept;"
    yield "}"
    yield from _render_kernel_options(family, options)
    yield f"  ipv{family} {{ import filter tb_learn{family}; export filter tb_install{family}; }};"
    yield "}"


def _render_import(family: int) -> Iterator[str]:
    yield f"filter tb_import{family} {{"
    yield f"  if net ~ [ {NEVER[family]} ] then reject;"
    yield f"  if {LEAVING} ~ bgp_community then bgp_local_pref = 0;"
    yield "  accept;"
    yield "}"


def _render_export(name: str, intent: BgpIntent, family: int, own: Iterable[Prefix], options: BgpOptions) -> Iterator[str]:
    """``own``: addresses of the host itself that are announced too."""
    yield f"filter {name} {{"
    yield "  if source = RTS_BGP then reject;"
    yield f"  if net ~ [ {NEVER[family]} ] then reject;"
    if options.drain:
        yield f"  bgp_community.add({LEAVING});"
    for address in own:
        yield f"  if source = RTS_DEVICE && net = {address} then accept;"
    yield f"  if source != RTS_STATIC && !(source = RTS_INHERIT && krt_source = {ROUTE_PROTOCOL}) then reject;"
    inside = [f"{block}{{{block.length + 1},{block.bits}}}" for block in intent.blocks if block.family == family and not block.is_host]
    if inside:
        yield f"  if net ~ [ {', '.join(inside)} ] then reject;"
    for keep, verdict in ((True, "reject"), (False, "accept")):
        pools = [f"{pool.cidr}+" for pool in intent.pools if pool.cidr.family == family and pool.disable_bgp_export is keep]
        if pools:
            yield f"  if net ~ [ {', '.join(sorted(pools))} ] then {verdict};"
    yield "  reject;"
    yield "}"


def _render_session(peer: PeerIntent, intent: BgpIntent, direct: InterfaceAddress | None, options: BgpOptions) -> Iterator[str]:
    family = peer.address.family
    external = peer.as_number != intent.as_number
    side = "external" if external else "internal"
    keepalive = peer.keepalive_time_s or (options.external_keepalive_time_s if external else options.internal_keepalive_time_s)
    source = direct.address if direct else _own_address(intent, family) if peer.use_node_ip else None
    local = f"local {source.address} port" if source else "local port"
    yield f"protocol bgp '{protocol_name(peer.name)}' {{"
    yield f'  description "{_description(peer.name)}";'
    yield f"  {local} {intent.listen_port} as {intent.as_number};"
    yield f"  neighbor {peer.address.address} port {peer.port} as {peer.as_number};"
    if direct:
        yield f'  direct; interface "{direct.interface}";'
    else:
        yield "  multihop;"
    yield f"  hold time {3 * keepalive}; keepalive time {keepalive};"
    yield "  connect delay time 1; connect retry time 2; error wait time 1, 5;"
    yield f"  graceful restart on; graceful restart time {peer.max_restart_time_s or options.restart_time_s};"
    if peer.bfd and direct:
        yield "  bfd on;"
    yield f"  ipv{family} {{"
    yield f"    import filter tb_import{family}; export filter tb_export_{side}{family};"
    yield f"    next hop self; gateway {'direct' if direct else 'recursive'};"
    yield f"    import limit {options.import_limit} action restart;"
    yield "  };"
    yield "}"


def _own_address(intent: BgpIntent, family: int) -> Prefix | None:
    return intent.ipv4 if family == IPV4 else intent.ipv6


def _loopbacks(intent: BgpIntent, facts: HostFacts) -> list[InterfaceAddress]:
    """The host's own addresses that are not part of a subnet: the fabric learns them only from us."""
    own = (intent.ipv4, intent.ipv6)
    return [entry for entry in sorted(facts.addresses) if entry.address in own and entry.length == entry.address.bits]


def _description(text: str) -> str:
    """``text`` as it may stand in a string of bird.conf, which knows no escapes."""
    return "".join(character if character.isascii() and character.isprintable() and character != '"' else "_" for character in text)

"""Which routes a host tells to its peers and takes from them, as filters of bird.conf.

In: the host's ``BgpIntent``, the names of its BGPFilters. Out: lines of functions and filters for one family. Pure; linear in rules, blocks
and pools.

Order in which a route that is to leave is judged: what never leaves, then marks (drain, priority, communities), then the peer's
BGPFilters, then what holds without them (``tb_default``). For routes that come in: what is never taken, marks, for workloads
their prefixes, then the BGPFilters, else accepted. A BGPFilter's rule that accepts ends this order, with two exceptions: link-local and
multicast addresses never pass, and routes learned from peers leave only by rules that say so (``source: RemotePeers``), so that
no filter makes a host a transit router by accident; towards a reflector's own AS and towards workloads every rule may.

Priority (as Calico 3.32 has it): among hosts it travels as local preference, which is 2147483647 minus the priority; 1024 is normal. It
decides between routes for one prefix; their metric in the kernel is another thing, and the same for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tabinet.bgp.names import WORKLOAD, filter_name, is_pattern
from tabinet.bgp.records import ROUTE_PROTOCOL
from tabinet.calc.intents import (
    AddCommunity,
    BgpIntent,
    Drain,
    FilterIntent,
    FilterRule,
    MatchOperator,
    Operation,
    PeerIntent,
    Prepend,
    SetPriority,
)
from tabinet.lib.ip import IPV4, IPV6, Prefix

LEAVING = "(65535, 0)"
"""GRACEFUL_SHUTDOWN, RFC 8326 section 3."""
NEVER = {
    IPV4: "127.0.0.0/8+, 169.254.0.0/16+, 224.0.0.0/4+",
    IPV6: "::/128, ::1/128, fe80::/10+, ff00::/8+",
}
"""Neither announced nor accepted."""
HIGHEST_PREFERENCE = 2147483647
NORMAL_PRIORITY = 1024
OF_WORKLOAD = f'proto ~ "{WORKLOAD}*"'


def render_policy(intent: BgpIntent, family: int, own: Iterable[Prefix]) -> Iterator[str]:
    """Functions and filters that all sessions share. ``own``: addresses of the host itself that are told to other ASes."""
    yield from _render_arrive(family)
    yield from _render_leave(intent, family)
    yield from _render_default(intent, family, own)
    used = [
        found for found in intent.filters if any(rule_family == family for rule_family, _ in (*found.export_rules, *found.import_rules))
    ]
    if any(rule.priority is not None for found in used for _, rule in (*found.export_rules, *found.import_rules)):
        yield from _render_priority(family)
    for found in used:
        yield from _render_filter(found, "export", family)
        yield from _render_filter(found, "import", family)
    for side, external in (("internal", "false"), ("external", "true")):
        yield f"filter tb_import_{side}{family} {{ tb_arrive{family}({external}); accept; }}"
        yield f"filter tb_export_{side}{family} {{ tb_leave{family}({external}); tb_default{family}({external}, false); }}"


def import_filter(peer: PeerIntent, intent: BgpIntent, family: int, *, external: bool) -> str:
    """What follows ``import`` in the session's channel."""
    calls = _calls(peer, intent, "import", family, _word(external))
    if not calls and peer.workload is None:
        return f"filter tb_import_{'external' if external else 'internal'}{family}"
    steps = [f"tb_arrive{family}({_word(external)});"]
    if peer.workload is not None:
        allowed = ", ".join(f"{prefix}+" for prefix in peer.workload if prefix.family == family)
        steps.append(f"if net !~ [ {allowed} ] then reject;" if allowed else "reject;")
    return f"filter {{ {' '.join((*steps, *calls))} accept; }}"


def export_filter(peer: PeerIntent, intent: BgpIntent, family: int, *, external: bool) -> str:
    """What follows ``export`` in the session's channel."""
    reflects = bool(intent.cluster_id) and peer.reflected
    transit = _word(reflects or peer.workload is not None)
    calls = _calls(peer, intent, "export", family, f"{_word(external)}, {transit}")
    if not calls and not reflects:
        return f"filter tb_export_{'external' if external else 'internal'}{family}"
    steps = (f"tb_leave{family}({_word(external)});", *calls, f"tb_default{family}({_word(external)}, {_word(reflects)});")
    return f"filter {{ {' '.join(steps)} }}"


def _calls(peer: PeerIntent, intent: BgpIntent, direction: str, family: int, arguments: str) -> list[str]:
    known = {found.name: found.export_rules if direction == "export" else found.import_rules for found in intent.filters}
    names = [name for name in peer.filters if any(rule_family == family for rule_family, _ in known.get(name, ()))]
    return [f"'{filter_name(name, direction, family)}'({arguments});" for name in names]


def _word(value: bool) -> str:
    return "true" if value else "false"


def _render_arrive(family: int) -> Iterator[str]:
    yield f"function tb_arrive{family}(bool tb_external) {{"
    yield f"  if net ~ [ {NEVER[family]} ] then reject;"
    yield f"  if tb_external then bgp_local_pref = {HIGHEST_PREFERENCE - NORMAL_PRIORITY};"
    yield f"  if {LEAVING} ~ bgp_community then bgp_local_pref = 0;"
    yield "}"


def _render_leave(intent: BgpIntent, family: int) -> Iterator[str]:
    """Our own routes are marked, those that a reflector passes on are left alone."""
    drain = intent.drain
    ours = f"source != RTS_BGP || {OF_WORKLOAD}"
    yield f"function tb_leave{family}(bool tb_external) {{"
    yield f"  if net ~ [ {NEVER[family]} ] then reject;"
    yield f'  if proto = "tb_reach{family}" then reject;'
    for pattern in intent.ignored_interfaces:
        if is_pattern(pattern):
            yield f'  if ifname ~ "{pattern}" then reject;'
    yield f"  if {ours} then {{"
    if drain is Drain.WITHDRAWN:
        # The host's own address stays: from it the agent reaches the store, where the end of the drain will be written.
        yield "    if source != RTS_DEVICE then reject;"
    if drain is not Drain.NONE:
        yield f"    bgp_community.add({LEAVING});"
    preference = HIGHEST_PREFERENCE - NORMAL_PRIORITY if drain is Drain.NONE else 0
    yield f"    if !tb_external then bgp_local_pref = {preference};"
    if intent.prepends:
        yield f"    if tb_external then {{ {_render_operation(Prepend((intent.as_number,) * intent.prepends))} }}"
    yield "  }"
    for advertisement in intent.advertisements:
        if advertisement.net.family == family and advertisement.communities:
            added = " ".join(_render_community(community) for community in advertisement.communities)
            yield f"  if net ~ {advertisement.net} then {{ {added} }}"
    yield "}"


def _render_default(intent: BgpIntent, family: int, own: Iterable[Prefix]) -> Iterator[str]:
    yield f"function tb_default{family}(bool tb_external; bool tb_reflects) {{"
    yield f"  if source = RTS_BGP then {{ if tb_reflects || {OF_WORKLOAD} then accept; reject; }}"
    for address in own:
        yield f"  if tb_external && source = RTS_DEVICE && net = {address} then accept;"
    yield f'  if proto = "tb_services{family}" then accept;'
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


# --- BGPFilters -----------------------------------------------------------------------------------------------------


def _render_priority(family: int) -> Iterator[str]:
    yield f"function tb_priority{family}() {{"
    half = HIGHEST_PREFERENCE // 2
    yield f"  if source = RTS_BGP && bgp_local_pref > {half} then return {HIGHEST_PREFERENCE} - bgp_local_pref;"
    yield f"  return {NORMAL_PRIORITY};"
    yield "}"


def _render_filter(found: FilterIntent, direction: str, family: int) -> Iterator[str]:
    rules = found.export_rules if direction == "export" else found.import_rules
    mine = [rule for rule_family, rule in rules if rule_family == family]
    if not mine:
        return
    arguments = "bool tb_external; bool tb_transit" if direction == "export" else "bool tb_external"
    yield f"function '{filter_name(found.name, direction, family)}'({arguments}) {{"
    for rule in mine:
        conditions = list(_conditions(rule, family))
        if direction == "export" and rule.accept and not rule.remote_only:
            conditions.append(f"(tb_transit || source != RTS_BGP || {OF_WORKLOAD})")
        steps = [_render_operation(operation) for operation in rule.operations]
        body = " ".join((*steps, "accept;" if rule.accept else "reject;"))
        yield f"  if {' && '.join(conditions)} then {{ {body} }}" if conditions else f"  {body}"
    yield "}"


def _conditions(rule: FilterRule, family: int) -> Iterator[str]:
    if rule.external is not None:
        yield "tb_external" if rule.external else "!tb_external"
    if rule.net is not None:
        yield _render_match(rule.net, rule.operator, rule.lengths)
    if rule.remote_only:
        yield "source = RTS_BGP"
    if rule.interface:
        yield f'ifname ~ "{rule.interface}"'
    if rule.community:
        kind = "bgp_community" if len(rule.community) == 2 else "bgp_large_community"
        yield f"({', '.join(map(str, rule.community))}) ~ {kind}"
    if rule.as_path:
        yield f"bgp_path ~ [= {' '.join(map(str, rule.as_path))} * =]"
    if rule.priority is not None:
        yield f"tb_priority{family}() = {rule.priority}"


def _render_match(net: Prefix, operator: MatchOperator, lengths: tuple[int, int] | None) -> str:
    shortest, longest = lengths or (net.length, net.bits)
    match operator:
        case MatchOperator.IN:
            return f"net ~ [ {net}{{{shortest},{longest}}} ]"
        case MatchOperator.NOT_IN:
            return f"net !~ [ {net}{{{shortest},{longest}}} ]"
        case MatchOperator.EQUAL:
            # A prefix is equal to another one only if its length is too.
            return f"net = {net}" if shortest <= net.length <= longest else "false"
        case MatchOperator.NOT_EQUAL:
            return f"net != {net}" if shortest <= net.length <= longest else "true"


def _render_operation(operation: Operation) -> str:
    match operation:
        case AddCommunity(community):
            return _render_community(community)
        case Prepend(as_numbers):
            return " ".join(f"bgp_path.prepend({number});" for number in reversed(as_numbers))
        case SetPriority(priority):
            return f"bgp_local_pref = {HIGHEST_PREFERENCE - priority};"


def _render_community(community: tuple[int, ...]) -> str:
    kind = "bgp_community" if len(community) == 2 else "bgp_large_community"
    return f"{kind}.add(({', '.join(map(str, community))}));"

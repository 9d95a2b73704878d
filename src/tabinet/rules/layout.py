"""The fixed part of the table: the same on every host, whatever the policy is.

The way of a packet: ``antispoof`` (before connection tracking) lets a workload use only its own addresses. ``forward``, ``input`` and
``output`` let flows go on that were accepted in the current generation; the rest of what concerns workloads goes to ``judge``. A flow is
judged by the tuple that it began with, in whichever direction its next packet happens to go: first by the egress policy of the
source's endpoint, which ``source`` finds and from which allowed flows come back, then by the ingress policy of the destination's,
which ``judge`` finds. ``accepted`` and ``deny`` never return.

Whenever rules are added, the kernel follows all ways through the chains from each base chain on; older kernels walk a chain once for
each way that leads there. So few rules lead to ``judge``, and what it asks first does not lead to what it asks second. It lets chains
nest 15 deep and counts Goto as it counts Jump: ``NESTING_LIMIT``; a test follows every path.

Between a workload and its own host: what the host begins is always accepted, so that health checks work without policy (as
Calico does it). What the workload begins needs its egress policy and then ``TableOptions.endpoint_to_host``. DHCP, DHCPv6,
``TableOptions.host_services``, neighbour discovery and MLD to the host are always accepted. ARP meets chains of its own, and how many
neighbours a workload has is limited (``rules.neighbours``).

Interfaces of ours that no map knows pass nothing. Packets that concern neither workload nor host endpoint (``rules.hostlayout``)
are left alone, except those that claim the address of a local workload while coming in from elsewhere.
"""

from __future__ import annotations

import msgspec

from tabinet.lib.ip import IPV4, IPV6, parse_prefix
from tabinet.rules.addresslimits import ADDRESS_EGRESS, ADDRESS_INGRESS, address_limit_chains
from tabinet.rules.denied import DENIED, count_denied
from tabinet.rules.hostlayout import COVERED, JUDGE, RAW_IN, HostUse, accepted_untracked, covered, host_chains
from tabinet.rules.ir import (
    Accept,
    Address,
    Chain,
    CheckGeneration,
    Dispatch,
    Drop,
    Family,
    Goto,
    HardwareIn,
    HeaderAddress,
    HeaderAddressIn,
    HeaderIcmp6,
    HeaderUdp,
    HookPoint,
    InterfaceIn,
    InterfacePrefix,
    Jump,
    Log,
    MarkFlow,
    Match,
    Next,
    NoInterface,
    OriginalDirection,
    PairedIn,
    Port,
    Protocol,
    Reject,
    RelatedIn,
    ReplyDirection,
    RoutedBack,
    Rule,
    SetDef,
    SetType,
    Side,
    SourceIn,
    State,
    StateIs,
    Table,
    Tuple,
    Undecide,
    Via,
)
from tabinet.rules.limits import QOS_EGRESS, QOS_INGRESS, qos_chains
from tabinet.rules.nat import FLOATING, FLOATING_SOURCE, FORWARDED_SOURCE, NatUse, nat_chains
from tabinet.rules.neighbours import LINK_LOCAL6, learn_link_local, learn_neighbours, learn_pairs, neighbour_chains, neighbour_sets
from tabinet.rules.options import TCP, UDP, DenyAction, HostAction, ProtoPort, TableOptions
from tabinet.rules.passed import PASSED
from tabinet.rules.roles import ACCEPTED, DENY, DROPPED, HOST_MAPS
from tabinet.rules.servers import deny_servers, keep_from_loopback, server_chains
from tabinet.rules.stateless import PACKET_EGRESS, PACKET_INGRESS, STATELESS, look_at_packets, packet_chains
from tabinet.rules.tunnels import TUNNEL_IN, TUNNEL_OUT, TunnelUse, deny_tunnelled, look_at_tunnels, tunnel_chains

EGRESS = "egress"
"""Map: interface of a workload to the first chain of its egress policy."""
INGRESS = "ingress"
SOURCE = "source"
"""Chain: asks the end that a flow began at. Comes back when that allows the flow."""
VALID = "valid"
VALID_RELATED = "valid_related"
MARK_FLOW = "mark_flow"
OWN = {IPV4: "own4", IPV6: "own6"}
"""Sets of (interface, address): what a workload may send from."""
SPOOF = {IPV4: "spoof4", IPV6: "spoof6"}
"""The same for prefixes that an endpoint may use besides."""
HARDWARE = "hardware"
"""Set of (interface, MAC) of workloads whose MAC is checked."""
PAIR = {IPV4: "pair4", IPV6: "pair6"}
"""Sets of (interface, MAC, addresses): what a workload may send from with other MACs than its own."""
PAIR_HARDWARE = "pair_hardware"
"""Set of (interface, MAC) of these MACs."""
ANY_HARDWARE = "any_hardware"
"""Set of interfaces of the other workloads."""
LOCAL = {IPV4: "local4", IPV6: "local6"}
"""Addresses of this host's workloads."""

MIDDLES_PER_SECOND, MIDDLES_BURST = 200, 400
"""How many denied TCP packets are logged for adoption; others are sent again by their senders."""

RELATED = "related"
"""Where an ICMP error about a current flow is judged."""

NESTING_LIMIT = 15
"""Chains below a base chain (NFT_JUMP_STACK_SIZE in net/netfilter/nf_tables_core.c)."""

_DHCP_CLIENT, _DHCP_SERVER = 68, 67  # RFC 2131 section 4.1
_DHCP6_CLIENT, _DHCP6_SERVER = 546, 547  # RFC 8415 section 7.2
_UNSPECIFIED4 = parse_prefix("0.0.0.0/32")
_UNSPECIFIED6 = parse_prefix("::/128")
_MLD1_AND_ND = (130, 136)  # RFC 2710, RFC 4861: router and neighbour solicitation and advertisement; redirects are 137
_MLD1 = (130, 132)
_MLD2 = (143, 143)  # RFC 3810
_MLD_AND_ND = (130, 143)


def fixed_sets() -> dict[str, SetDef]:
    """Sets and maps that every table has."""
    sets = {
        name: SetDef(SetType.CHAINS)
        for name in (EGRESS, INGRESS, *HOST_MAPS.values(), QOS_EGRESS, QOS_INGRESS, PACKET_EGRESS, PACKET_INGRESS)
    }
    sets[VALID] = SetDef(SetType.GENERATION)
    sets[VALID_RELATED] = SetDef(SetType.RELATED_GENERATION)
    sets[HARDWARE] = SetDef(SetType.HARDWARE)
    sets[PAIR_HARDWARE] = SetDef(SetType.HARDWARE)
    sets[ANY_HARDWARE] = SetDef(SetType.INTERFACES)
    sets[COVERED] = SetDef(SetType.INTERFACES)
    sets[STATELESS] = SetDef(SetType.INTERFACES)
    sets |= {name: SetDef(SetType.COUNTED) for name in DENIED.values()}
    for family in (IPV4, IPV6):
        sets[OWN[family]] = SetDef(SetType.SOURCES, family)
        sets[SPOOF[family]] = SetDef(SetType.SOURCE_NETS, family)
        sets[PAIR[family]] = SetDef(SetType.PAIRS, family)
        sets[LOCAL[family]] = SetDef(SetType.ADDRESSES, family)
        sets[FLOATING[family]] = SetDef(SetType.ADDRESS_CHAINS, family)
        for name in (FLOATING_SOURCE, FORWARDED_SOURCE, ADDRESS_INGRESS, ADDRESS_EGRESS):
            sets[name[family]] = SetDef(SetType.ADDRESS_CHAINS, family)
    return sets | neighbour_sets()


class Uses(msgspec.Struct, frozen=True):
    """What the endpoints need of the fixed part."""

    hosts: HostUse | None = None
    """None without host endpoints."""
    nat: NatUse = NatUse()
    qos: bool = False
    address_qos: bool = False
    """Floating addresses have limits."""
    passed: bool = False
    """Ports of floating addresses lead to other hosts."""
    tunnels: TunnelUse = TunnelUse()
    stateless: bool = False
    pairs: bool = False
    """Some workloads send with other MACs than their own."""


NO_USES = Uses()


def fixed_chains(options: TableOptions, uses: Uses = NO_USES) -> dict[str, Chain]:
    """Chains that every table has, and those that are needed."""
    hosts = uses.hosts
    prefixes = options.interface_prefixes
    if not prefixes or not all(prefixes):
        raise ValueError("interface prefixes must not be empty")
    # Two rules, because a map with a chain in it makes the kernel look at all chains whenever its elements change.
    check = (
        Rule(CheckGeneration(VALID), comment="accepted in this generation"),
        Rule(Goto(RELATED), (RelatedIn(VALID_RELATED),)),
    )
    discovery = Rule(Accept(), (HeaderIcmp6(*_MLD_AND_ND),), comment="neighbour discovery and MLD")
    untracked = accepted_untracked(hosts, passed=uses.passed)
    others: dict[str, tuple[Rule, ...]] = {}
    if hosts is not None:
        into, out = covered(Via.IN, hosts), covered(Via.OUT, hosts)
        others = {"forward_others": (*untracked, *into, *out), "input_others": (*untracked, *into)}
        others["output_others"] = (*untracked, *look_at_tunnels(uses.tunnels, TUNNEL_OUT), *out)
    forward = _ours((Via.IN, Via.OUT), prefixes, JUDGE, "forward_others" if others else "")
    into = _ours((Via.IN,), prefixes, "with_host", "input_others" if others else "")
    # The kernel's own errors (TTL, MTU) leave before forward judged the flow that they are about.
    errors = Rule(Accept(), (StateIs((State.RELATED,)),), comment="errors that this host reports")
    out = _ours((Via.OUT,), prefixes, "with_host", "output_others" if others else "")
    elsewhere = (ACCEPTED, ACCEPTED) if hosts is None else ("elsewhere_target_original", "elsewhere_target_reply")
    chains = {
        "antispoof": Chain(_antispoof(options, uses.pairs), HookPoint.PREROUTING_RAW),
        "sources": Chain(_sources(options)),
        "fabric": Chain(
            (*(_fabric(prefixes) if options.protect_local_sources else ()), *((Rule(Jump(PASSED)),) if uses.passed else ()), *_raw(hosts))
        ),
        "forward": Chain((*look_at_packets(uses.stateless), *check, *forward), HookPoint.FORWARD),
        "input": Chain((*look_at_tunnels(uses.tunnels, TUNNEL_IN), *check, discovery, *into), HookPoint.INPUT),
        "output": Chain((*check, errors, discovery, *out), HookPoint.OUTPUT),
        "with_host": Chain((*_host_services(options), Rule(Goto(JUDGE)))),
        JUDGE: Chain(
            (
                Rule(Goto(DROPPED), (StateIs((State.INVALID, State.UNTRACKED)),), counter=True, comment="invalid or untracked"),
                Rule(Goto(DROPPED), (StateIs((State.RELATED,)),), counter=True, comment="error about a flow that is not current"),
                *deny_tunnelled(options),
                *deny_servers(options),
                Rule(Undecide()),
                Rule(Jump(SOURCE)),
                Rule(Undecide()),
                *_half(INGRESS, Via.OUT, OriginalDirection(), prefixes, host="to_host", other=elsewhere[0]),
                *_half(INGRESS, Via.IN, ReplyDirection(), prefixes, host="to_host", other=elsewhere[1]),
            )
        ),
        SOURCE: Chain((*_source(Via.IN, "original", prefixes, hosts), *_source(Via.OUT, "reply", prefixes, hosts))),
        RELATED: Chain(_related(prefixes, uses.pairs)),
        "to_host": Chain((_to_host(options.endpoint_to_host),)),
        ACCEPTED: Chain((Rule(Jump(MARK_FLOW)), Rule(Accept()))),
        # By itself and without a verdict, so that a new generation costs the kernel nothing but this rule.
        MARK_FLOW: Chain((Rule(MarkFlow()),)),
        DENY: Chain(_deny(options)),
        DROPPED: Chain((*count_denied(), Rule(Drop()))),
    }
    if hosts is not None:
        chains |= host_chains(options, hosts, LOCAL) | {name: Chain(rules) for name, rules in others.items()}
    if uses.qos:
        chains |= qos_chains()
    if uses.address_qos:
        chains |= address_limit_chains()
    if uses.pairs:
        spoofed = Rule(Goto(DROPPED), counter=True, comment="spoofed source")
        chains["pair_sources"] = Chain((learn_link_local(), *_discovery(), spoofed))
    chains |= neighbour_chains(prefixes)
    chains |= packet_chains(options, uses.stateless, hosts)
    return chains | server_chains(options) | nat_chains(options, uses.nat) | tunnel_chains(options, uses.tunnels)


def empty_table(options: TableOptions) -> Table:
    """A table in which every interface of ours is unknown and therefore denied."""
    table = Table(chains=fixed_chains(options), sets=fixed_sets())
    for name, definition in table.sets.items():
        if definition.type in (SetType.CHAINS, SetType.ADDRESS_CHAINS):
            table.maps[name] = {}
        elif definition.type not in (SetType.GENERATION, SetType.RELATED_GENERATION):
            table.elements[name] = set()
    return table


def _ours(ways: tuple[Via, ...], prefixes: tuple[str, ...], chain: str, others: str) -> tuple[Rule, ...]:
    """What comes or goes through an interface of ours goes to ``chain``, by one rule; all else to ``others``, or is let alone."""
    foreign = tuple(InterfacePrefix(via, prefix, negated=True) for via in ways for prefix in prefixes)
    return (Rule(Goto(others) if others else Accept(), foreign), Rule(Goto(chain)))


def _antispoof(options: TableOptions, pairs: bool) -> tuple[Rule, ...]:
    accepted = (Rule(Accept(), (PairedIn(family, PAIR[family]),), comment="allowed address pairs") for family in (IPV4, IPV6))
    foreign = tuple(InterfacePrefix(Via.IN, prefix, negated=True) for prefix in options.interface_prefixes)
    return (
        Rule(Goto("fabric"), foreign),
        *((*keep_from_loopback(options), learn_pairs(PAIR[IPV6]), *accepted) if pairs else ()),
        Rule(Goto("sources"), (HardwareIn(HARDWARE),)),
        Rule(Goto("sources"), (InterfaceIn(ANY_HARDWARE),)),
        *((Rule(Goto("pair_sources"), (HardwareIn(PAIR_HARDWARE),)),) if pairs else ()),
        Rule(Goto(DROPPED), counter=True, comment="unknown interface or hardware address"),
    )


def _sources(options: TableOptions) -> tuple[Rule, ...]:
    rules = [*keep_from_loopback(options), *(Rule(Accept(), (SourceIn(family, OWN[family]),)) for family in (IPV4, IPV6))]
    rules += learn_neighbours(SPOOF[IPV6])
    rules += [Rule(Accept(), (SourceIn(family, SPOOF[family]),), comment="allowSpoofedSourcePrefixes") for family in (IPV4, IPV6)]
    rules += [
        *_discovery(),
        Rule(Accept(), (HeaderUdp(_DHCP_CLIENT, _DHCP_SERVER), HeaderAddress(Side.SOURCE, _UNSPECIFIED4)), comment="DHCP"),
        Rule(Accept(), (HeaderUdp(_DHCP6_CLIENT, _DHCP6_SERVER), HeaderAddress(Side.SOURCE, LINK_LOCAL6)), comment="DHCPv6"),
        Rule(Goto(DROPPED), counter=True, comment="spoofed source"),
    ]
    return tuple(rules)


def _discovery() -> tuple[Rule, ...]:
    """What else a workload says on its link whatever its addresses."""
    link_local = HeaderAddress(Side.SOURCE, LINK_LOCAL6)
    return (
        Rule(Accept(), (HeaderIcmp6(*_MLD1), link_local), comment="multicast listeners"),
        Rule(Accept(), (HeaderIcmp6(*_MLD1_AND_ND), HeaderAddress(Side.SOURCE, _UNSPECIFIED6)), comment="duplicate address detection"),
        Rule(Accept(), (HeaderIcmp6(*_MLD2), link_local), comment="multicast listeners"),
        Rule(Accept(), (HeaderIcmp6(*_MLD2), HeaderAddress(Side.SOURCE, _UNSPECIFIED6)), comment="multicast listeners"),
    )


def _raw(hosts: HostUse | None) -> tuple[Rule, ...]:
    return (Rule(Goto(RAW_IN)),) if hosts is not None and hosts.untracked else ()


def _fabric(prefixes: tuple[str, ...]) -> tuple[Rule, ...]:
    """Only while the address is here: the kernel takes the route with the interface when a workload moves, whatever we know by then."""
    comment = "local source from elsewhere"
    return tuple(
        Rule(Goto(DROPPED), (HeaderAddressIn(Side.SOURCE, family, LOCAL[family]), RoutedBack(prefix)), counter=True, comment=comment)
        for family in (IPV4, IPV6)
        for prefix in prefixes
    )


def _host_services(options: TableOptions) -> tuple[Rule, ...]:
    """What a workload may always ask of its host; judged by flow, so that the answer passes as well."""
    accepted = Goto(ACCEPTED)
    rules = []
    for family, client, server in ((IPV4, _DHCP_CLIENT, _DHCP_SERVER), (IPV6, _DHCP6_CLIENT, _DHCP6_SERVER)):
        ports = (Port(Side.SOURCE, client, client), Port(Side.DESTINATION, server, server))
        rules.append(Rule(accepted, (Family(family), Protocol(UDP), *ports), comment="DHCP"))
    services = list(options.host_services)
    if options.metadata is not None:
        services.append(ProtoPort(TCP, options.metadata.port, options.metadata.address))
    for service in services:
        net = () if service.net is None else (Address(Side.DESTINATION, service.net.family, service.net.value, service.net.last),)
        matches = (*net, Protocol(service.protocol), Port(Side.DESTINATION, service.port, service.port))
        rules.append(Rule(accepted, matches, comment=f"service of the host {service.protocol}/{service.port}"))
    return tuple(rules)


def _related(prefixes: tuple[str, ...], pairs: bool) -> tuple[Rule, ...]:
    """An ICMP error carries the mark of the flow that it is about; from a workload it counts only if the flow is the workload's own."""
    foreign = tuple(InterfacePrefix(Via.IN, prefix, negated=True) for prefix in prefixes)
    rules = [Rule(Accept(), foreign)]
    for direction, origin in ((OriginalDirection(), Tuple.ORIGINAL), (ReplyDirection(), Tuple.REPLY)):
        for family in (IPV4, IPV6):
            rules.append(Rule(Accept(), (direction, SourceIn(family, OWN[family], origin))))
            rules.append(Rule(Accept(), (direction, SourceIn(family, SPOOF[family], origin))))
            if pairs:
                rules.append(Rule(Accept(), (direction, PairedIn(family, PAIR[family], origin))))
    rules.append(Rule(Goto(DROPPED), counter=True, comment="error about another's flow"))
    return tuple(rules)


def _half(map_name: str, via: Via, direction: Match, prefixes: tuple[str, ...], *, host: str, other: str = "") -> tuple[Rule, ...]:
    """One end of a flow: a workload has its chain, the host goes to ``host``, everything else to ``other``, or is not asked."""
    comment = f"{map_name}: unknown interface"
    unknown = tuple(Rule(Goto(DENY), (direction, InterfacePrefix(via, prefix)), counter=True, comment=comment) for prefix in prefixes)
    return (
        Rule(Dispatch(map_name, via), (direction,)),
        *unknown,
        Rule(Goto(host), (direction, NoInterface(via))),
        *((Rule(Goto(other), (direction,)),) if other else ()),
    )


def _source(via: Via, word: str, prefixes: tuple[str, ...], hosts: HostUse | None) -> tuple[Rule, ...]:
    direction = OriginalDirection() if word == "original" else ReplyDirection()
    if hosts is None:
        return _half(EGRESS, via, direction, prefixes, host=ACCEPTED)
    return _half(EGRESS, via, direction, prefixes, host=f"host_source_{word}", other=f"elsewhere_source_{word}")


def _to_host(action: HostAction) -> Rule:
    if action is HostAction.DROP:
        return Rule(Goto(DROPPED), counter=True, comment="workload to its host")
    return Rule(Goto(ACCEPTED), comment=f"workload to its host: {action.value}")


def _deny(options: TableOptions) -> tuple[Rule, ...]:
    log = Log("middle", options.middle_group, MIDDLES_PER_SECOND, MIDDLES_BURST)
    middle = Rule(Next(), (Protocol(TCP), StateIs((State.NEW,))), log=log)  # nobody listens but for adoption
    if options.deny is DenyAction.DROP:
        return (middle, *count_denied(), Rule(Drop(), counter=True, comment="denied"))
    return (
        middle,
        *count_denied(),
        Rule(Reject(reset=True), (Protocol(TCP),), counter=True, comment="denied"),
        Rule(Reject(reset=False), counter=True, comment="denied"),
    )

"""Why a rule does not match a packet: the first thing in it that the packet is not.

In: a rule as the calculation translated it, a packet, the members of sets. Out: a ``Mismatch``, or nothing when the rule matches. Agrees
with ``rules.naive``, of which it is the talkative twin. Pure; O(size of the rule and of the sets that it names).
"""

from __future__ import annotations

from collections.abc import Mapping, Set

import msgspec

from tabinet.calc.messages import Icmp, Member, PortMember, PortRange, Rule, SetKind, Side
from tabinet.lib.ip import IPV4, Prefix
from tabinet.model.extended import DCCP, PORTED
from tabinet.model.protocols import ICMP, ICMPV6, NAMES
from tabinet.rules.evaluate import Packet
from tabinet.rules.policy import asks_dccp

Sets = Mapping[str, tuple[SetKind, Set[Member]]]


class Mismatch(msgspec.Struct, frozen=True):
    """The first part of a rule that the packet does not fit."""

    path: str
    """Dotted path in the rule, as in ``destination.ports``."""
    wanted: str
    """What the rule asks for. Of sets: nothing, and ``set_id`` says which one."""
    got: str
    """What the packet has."""
    set_id: str = ""
    address: Prefix | None = None
    """With ``set_id``: the address that was looked for."""
    negated: bool = False
    """The packet has what it must not have."""


def find_mismatch(rule: Rule, packet: Packet, sets: Sets) -> Mismatch | None:
    """What keeps the rule from matching; None: it matches."""
    own_icmp = ICMP if packet.family == IPV4 else ICMPV6
    if rule.ip_version is not None and rule.ip_version != packet.family:
        return Mismatch("ipVersion", str(rule.ip_version), str(packet.family))
    if rule.protocol is not None and rule.protocol != packet.protocol:
        return Mismatch("protocol", protocol_text(rule.protocol), protocol_text(packet.protocol))
    if rule.protocol in (ICMP, ICMPV6) and rule.protocol != own_icmp:
        return Mismatch("protocol", protocol_text(rule.protocol), f"{protocol_text(packet.protocol)} in IPv{packet.family}")
    if rule.not_protocol is not None and rule.not_protocol == packet.protocol:
        return Mismatch("notProtocol", protocol_text(rule.not_protocol), protocol_text(packet.protocol), negated=True)
    if (rule.icmp is not None or rule.not_icmp is not None) and packet.protocol != own_icmp:
        return Mismatch("icmp" if rule.icmp is not None else "notICMP", "an ICMP message", protocol_text(packet.protocol))
    if rule.icmp is not None and not _is_icmp(rule.icmp, packet):
        return Mismatch("icmp", _icmp_text(rule.icmp), f"type {packet.icmp_type} code {packet.icmp_code}")
    if rule.not_icmp is not None and _is_icmp(rule.not_icmp, packet):
        return Mismatch("notICMP", _icmp_text(rule.not_icmp), f"type {packet.icmp_type} code {packet.icmp_code}", negated=True)
    if packet.protocol == DCCP and any(map(_asks_ports, (rule.source, rule.destination))) and not asks_dccp(rule):
        return Mismatch("ports", "a protocol with ports", protocol_text(packet.protocol))
    return _side("source", rule.source, packet, packet.source, packet.source_port, sets) or _side(
        "destination", rule.destination, packet, packet.destination, packet.destination_port, sets
    )


def unreadable_set(rules: tuple[Rule, ...], sets: Sets) -> str:
    """A set that one of the rules names and that is missing or of the wrong kind: such a policy denies. Empty when there is none."""
    for rule in rules:
        for side in (rule.source, rule.destination):
            for kind, names in (
                (SetKind.NETS, (*side.sets, *side.not_sets)),
                (SetKind.PORTS, (*side.port_sets, *side.not_port_sets)),
            ):
                for name in names:
                    if name not in sets or sets[name][0] is not kind:
                        return name
    return ""


def _side(path: str, side: Side, packet: Packet, address: Prefix, port: int, sets: Sets) -> Mismatch | None:
    got = address.address
    if side.nets and not any(net.contains(address) for net in side.nets):
        return Mismatch(f"{path}.nets", ", ".join(map(str, side.nets)), got)
    for net in side.not_nets:
        if net.contains(address):
            return Mismatch(f"{path}.notNets", str(net), got, negated=True)
    for set_id in side.sets:
        if not _holds(sets, set_id, address):
            return Mismatch(f"{path}.selector", "", got, set_id, address)
    for set_id in side.not_sets:
        if _holds(sets, set_id, address):
            return Mismatch(f"{path}.notSelector", "", got, set_id, address, negated=True)
    return _ports(path, side, packet, address, port, sets)


def _asks_ports(side: Side) -> bool:
    return bool(side.ports or side.port_sets or side.not_ports or side.not_port_sets)


def _ports(path: str, side: Side, packet: Packet, address: Prefix, port: int, sets: Sets) -> Mismatch | None:
    if not _asks_ports(side):
        return None
    if packet.protocol not in PORTED:
        return Mismatch(f"{path}.ports", "a protocol with ports", protocol_text(packet.protocol))
    member = PortMember(address, packet.protocol, port)
    in_ranges = any(item.first <= port <= item.last for item in side.ports)
    if (side.ports or side.port_sets) and not in_ranges and not any(member in sets[name][1] for name in side.port_sets):
        named = side.port_sets[0] if side.port_sets else ""
        return Mismatch(f"{path}.ports", ", ".join(map(_port_text, side.ports)), str(port), named, address if named else None)
    for item in side.not_ports:
        if item.first <= port <= item.last:
            return Mismatch(f"{path}.notPorts", _port_text(item), str(port), negated=True)
    for name in side.not_port_sets:
        if member in sets[name][1]:
            return Mismatch(f"{path}.notPorts", "", str(port), name, address, negated=True)
    return None


def _holds(sets: Sets, set_id: str, address: Prefix) -> bool:
    members = sets[set_id][1]
    return address in members or any(isinstance(member, Prefix) and member.contains(address) for member in members)


def _is_icmp(icmp: Icmp, packet: Packet) -> bool:
    return packet.icmp_type == icmp.type and icmp.code in (None, packet.icmp_code)


def _icmp_text(icmp: Icmp) -> str:
    return f"type {icmp.type}" if icmp.code is None else f"type {icmp.type} code {icmp.code}"


def _port_text(item: PortRange) -> str:
    return str(item.first) if item.first == item.last else f"{item.first}:{item.last}"


def protocol_text(number: int) -> str:
    """A protocol's name, or its number."""
    return NAMES.get(number, f"protocol {number}")

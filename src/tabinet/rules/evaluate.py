"""What a table does to the first packet of a new flow: the shared oracle of every datapath.

In: a table and a packet as the hook would see it. Out: accepted or not, and by which rules. Connection tracking is taken to see the packet
for the first time (state new, original direction), except for messages that it does not track or that begin no flow: neighbour
discovery and MLD are untracked, ICMP other than a request is invalid (linux/net/netfilter/nf_conntrack_proto_icmp.c, ..._icmpv6.c).
A packet whose destination is translated on the way is asked about as it is afterwards, and says where it was sent (``original_...``).
Rates and numbers of connections are taken to be within their limits.

Pure. Cost: one visit for each rule on the way, a set lookup is O(1), in interval sets O(ranges).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from tabinet.calc.messages import PortMember
from tabinet.lib.ip import IPV4, Prefix
from tabinet.rules import ir
from tabinet.rules.ir import Basis, HookPoint, Rule, SetType, Side, State, Table, Via

UDP, ICMP, ICMPV6 = 17, 1, 58
_REQUESTS4 = frozenset({8, 13, 15, 17})  # echo, timestamp, information, address mask
_REQUESTS6 = frozenset({128, 139})  # echo, node information
_UNTRACKED6 = frozenset({130, 131, 132, 133, 134, 135, 136, 143})  # MLD and neighbour discovery


class Packet(msgspec.Struct, frozen=True, gc=False):
    """The first packet of a flow. The empty interface name: made by this host (in), or for this host (out)."""

    in_interface: str
    out_interface: str
    source: Prefix
    destination: Prefix
    protocol: int
    source_port: int = 0
    destination_port: int = 0
    icmp_type: int = 0
    icmp_code: int = 0
    mac: str = ""
    """Source hardware address; empty: that of the endpoint whose interface it comes in from."""
    original_destination: Prefix | None = None
    """Where it was sent, if that is another address than ``destination``."""
    original_destination_port: int | None = None

    @property
    def family(self) -> int:
        """4 or 6."""
        return self.source.family


class Verdict(msgspec.Struct, frozen=True):
    """What becomes of a packet."""

    accepted: bool
    reason: str
    """Comment of the last rule with one; "chain policy" when no rule said anything."""
    trace: tuple[str, ...]
    """``chain: comment`` of each rule with a comment that matched, in order."""


def evaluate(table: Table, packet: Packet, hook: str = "forward") -> Verdict:
    """What the table does to the packet on its way: ``forward`` and ``input`` include what comes before routing, ``output`` does not.

    Raises:
        ValueError: no such hook.
    """
    way = {
        "prerouting": (HookPoint.PREROUTING_RAW,),
        "forward": (HookPoint.PREROUTING_RAW, HookPoint.FORWARD),
        "input": (HookPoint.PREROUTING_RAW, HookPoint.INPUT),
        "output": (HookPoint.OUTPUT_RAW, HookPoint.OUTPUT),
    }
    if hook not in way:
        raise ValueError(f"no hook {hook!r}; there are {', '.join(way)}")
    run = _Run(table, packet)
    accepted = True
    for point in way[hook]:
        # Before routing nobody knows yet where the packet goes.
        run.out_interface = "" if point is HookPoint.PREROUTING_RAW else packet.out_interface
        for name in sorted(name for name, chain in table.chains.items() if chain.hook is point):
            accepted = accepted and run.base_chain(name)
    return Verdict(accepted, run.reason, tuple(run.trace))


@dataclass(slots=True)
class _Run:
    table: Table
    packet: Packet
    out_interface: str = ""
    basis: Basis = Basis.FLOW
    untracked: bool = False
    decided: bool = False
    reason: str = "chain policy"
    trace: list[str] = field(default_factory=list)

    def base_chain(self, name: str) -> bool:
        """Runs a chain to its end; True when it accepts."""
        stack: list[tuple[str, int]] = []
        chain, position = name, 0
        while True:
            rules = self.table.chains[chain].rules
            self.basis = self.table.chains[chain].basis
            if position >= len(rules):
                if not stack:
                    return True
                chain, position = stack.pop()
                continue
            rule = rules[position]
            position += 1
            if not all(self.matches(match) for match in rule.matches):
                continue
            target = self._target(rule)
            if rule.comment and (target is not None or not isinstance(rule.verdict, ir.CheckGeneration | ir.Dispatch)):
                self.trace.append(f"{chain}: {rule.comment}")
                self.reason = rule.comment
            match rule.verdict:
                case ir.Accept():
                    return True
                case ir.AcceptUntracked():
                    self.untracked = True
                    return True
                case ir.Drop() | ir.Reject():
                    return False
                case ir.Return():
                    position = len(rules)
                case ir.Decide():
                    self.decided, position = True, len(rules)
                case ir.Undecide():
                    self.decided = False
                case ir.Jump() | ir.DispatchPort() if target is not None:
                    stack.append((chain, position))
            if target is not None:
                chain, position = target, 0

    def _target(self, rule: Rule) -> str | None:
        """The chain that the rule leads to."""
        match rule.verdict:
            case ir.Jump(chain=chain) | ir.Goto(chain=chain):
                return chain
            case ir.Dispatch(map_name=name, via=via):
                return self.table.maps[name].get(self._interface(via))
            case ir.DispatchPort(map_name=name):
                port = self._port(Side.DESTINATION)
                ranges = ((ir.parse_ports(key), chain) for key, chain in self.table.maps[name].items())
                return next((chain for item, chain in ranges if item.first <= port <= item.last), None)
            case _:
                return None  # a new flow is of no generation

    def _interface(self, via: Via) -> str:
        return self.packet.in_interface if via is Via.IN else self.out_interface

    def _address(self, side: Side) -> Prefix:
        packet = self.packet
        if side is Side.SOURCE:
            return packet.source
        if self.basis in (Basis.FLOW, Basis.PACKET) or packet.original_destination is None:
            return packet.destination
        return packet.original_destination

    def _port(self, side: Side) -> int:
        packet = self.packet
        if side is Side.SOURCE:
            return packet.source_port
        if self.basis in (Basis.FLOW, Basis.PACKET) or packet.original_destination_port is None:
            return packet.destination_port
        return packet.original_destination_port

    def _state(self) -> State:
        packet = self.packet
        if self.untracked:
            return State.UNTRACKED
        if packet.protocol == ICMP and packet.family == IPV4 and packet.icmp_type not in _REQUESTS4:
            return State.INVALID
        if packet.protocol == ICMPV6 and packet.family != IPV4 and packet.icmp_type not in _REQUESTS6:
            return State.UNTRACKED if packet.icmp_type in _UNTRACKED6 else State.INVALID
        return State.NEW

    def matches(self, match: ir.Match) -> bool:  # one arm for each kind of match
        """True when the packet fulfils it."""
        packet = self.packet
        match match:
            case ir.InterfacePrefix(via=via, prefix=prefix, negated=negated):
                return self._interface(via).startswith(prefix) is not negated
            case ir.InterfaceIs(via=via, name=name, negated=negated):
                return (self._interface(via) == name) is not negated
            case ir.NoInterface(via=via):
                return not self._interface(via)
            case ir.Untracked():
                return self.untracked
            case ir.Decided():
                return self.decided
            case ir.RelatedIn() | ir.RateOver() | ir.BytesOver() | ir.ConnectionsOver():
                return False
            case ir.Family(family=family):
                return packet.family == family
            case ir.StateIs(states=states):
                return self._state() in states
            case ir.ReplyDirection():
                return False
            case ir.OriginalDirection():
                return True
            case ir.Protocol(number=number, negated=negated):
                return (packet.protocol == number) is not negated
            case ir.Icmp(type=kind, code=code, negated=negated):
                return (packet.icmp_type == kind and code in (None, packet.icmp_code)) is not negated
            case ir.Port(side=side, first=first, last=last, negated=negated):
                return (first <= self._port(side) <= last) is not negated
            case _:
                return self._matches_address(match)

    def _matches_address(self, match: ir.Match) -> bool:
        packet = self.packet
        match match:
            case ir.Address(side=side, family=family, first=first, last=last, negated=negated):
                return packet.family == family and (first <= self._address(side).value <= last) is not negated
            case ir.AddressIn(side=side, family=family, set_name=name, negated=negated):
                return packet.family == family and self._holds(name, self._address(side)) is not negated
            case ir.PortIn(side=side, set_name=name, negated=negated):
                return self._in_ranges(name, self._port(side)) is not negated
            case ir.AddressPortIn(side=side, family=family, set_name=name, negated=negated):
                member = PortMember(self._address(side), packet.protocol, self._port(side))
                return packet.family == family and (member in self.table.elements[name]) is not negated
            case ir.HardwareIn(set_name=name):
                return self._hardware_in(name)
            case ir.InterfaceIn(set_name=name, via=via):
                return ir.Interface(self._interface(via)) in self.table.elements[name]
            case ir.SourceIn(family=family, set_name=name):
                return packet.family == family and self._source_in(name)
            case ir.PairedIn(family=family, set_name=name):
                return packet.family == family and self._paired_in(name)
            case ir.HeaderAddress(side=side, net=net):
                return net.contains(self._address(side))
            case ir.HeaderAddressIn(side=side, family=family, set_name=name):
                return packet.family == family and self._address(side) in self.table.elements[name]
            case ir.RoutedBack():
                return True  # addresses of workloads are routed to where they are
            case ir.RateWithin() | ir.Remember():
                return True  # one packet is no flood
            case ir.HeaderUdp(source_port=source, destination_port=destination):
                return packet.protocol == UDP and packet.source_port == source and packet.destination_port == destination
            case ir.HeaderIcmp6(first=first, last=last):
                return packet.protocol == ICMPV6 and packet.family != IPV4 and first <= packet.icmp_type <= last
            case _:
                raise AssertionError(match)

    def _holds(self, name: str, address: Prefix) -> bool:
        if self.table.sets[name].type is SetType.NETS:
            return self._in_ranges(name, address.value)
        return address in self.table.elements[name]

    def _in_ranges(self, name: str, value: int) -> bool:
        return any(isinstance(item, ir.Range) and item.first <= value <= item.last for item in self.table.elements[name])

    def _hardware_in(self, name: str) -> bool:
        packet = self.packet
        if packet.mac:
            return ir.Hardware(packet.in_interface, packet.mac) in self.table.elements[name]
        return any(isinstance(item, ir.Hardware) and item.interface == packet.in_interface for item in self.table.elements[name])

    def _paired_in(self, name: str) -> bool:
        packet = self.packet
        return any(
            isinstance(item, ir.Paired)
            and item.interface == packet.in_interface
            and packet.mac in ("", item.mac)
            and item.first <= packet.source.value <= item.last
            for item in self.table.elements[name]
        )

    def _source_in(self, name: str) -> bool:
        packet = self.packet
        if self.table.sets[name].type is SetType.SOURCES:
            return ir.Source(packet.in_interface, packet.source) in self.table.elements[name]
        return any(
            isinstance(item, ir.SourceRange) and item.interface == packet.in_interface and item.first <= packet.source.value <= item.last
            for item in self.table.elements[name]
        )


def answer_to(packet: Packet) -> Packet:
    """The packet that answers this one, as the same host forwards it."""
    replies = {ICMP: {kind: kind + 1 for kind in _REQUESTS4} | {8: 0}, ICMPV6: {kind: kind + 1 for kind in _REQUESTS6}}
    return Packet(
        packet.out_interface,
        packet.in_interface,
        packet.destination,
        packet.source,
        packet.protocol,
        packet.destination_port,
        packet.source_port,
        replies.get(packet.protocol, {}).get(packet.icmp_type, packet.icmp_type),
    )


def begins_flow(protocol: int, icmp_type: int) -> bool:
    """True unless it is an ICMP message that connection tracking takes for part of a flow that exists: an error or an answer."""
    requests = {ICMP: _REQUESTS4, ICMPV6: _REQUESTS6}.get(protocol)
    return requests is None or icmp_type in requests

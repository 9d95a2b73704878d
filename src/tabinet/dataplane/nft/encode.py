"""IR as the kernel's bytes: rules to expressions, sets to specifications, elements to keys.

Pure. A rule's encoding depends on the rule, on the current generation (for the two verdicts that deal with it) and on the physical names of
sets (``name_of``: the driver renames a set when it grows). The user data of a rule carries its comment, as nft(8) shows it, and a digest
of its expressions, by which a restarted agent knows its own rules again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator

import msgspec

from tabinet.calc.messages import PortMember
from tabinet.kernel import nftexpr as x
from tabinet.kernel.nftables import Element, Hook, SetSpec
from tabinet.lib.ip import IPV4, Prefix, parse_address
from tabinet.rules import ir
from tabinet.rules.ir import Basis, HookPoint, SetDef, SetType, Side, State, Via
from tabinet.rules.marks import DECIDED_MARK, GENERATION_MASK, UNTRACKED_MARK, generation_mark

NameOf = Callable[[str], str]
"""The name in the kernel of a set or map of the IR."""

HOOKS = {
    HookPoint.PREROUTING_RAW: Hook(0, -300),
    HookPoint.PREROUTING_QOS: Hook(0, -290),
    HookPoint.PREROUTING_NAT: Hook(0, -100, "nat"),
    HookPoint.INPUT: Hook(1, 0),
    HookPoint.FORWARD: Hook(2, 0),
    HookPoint.OUTPUT_RAW: Hook(3, -300),
    HookPoint.OUTPUT_NAT: Hook(3, -100, "nat"),
    HookPoint.OUTPUT: Hook(3, 0),
    HookPoint.POSTROUTING_QOS: Hook(4, -150),
    HookPoint.POSTROUTING_NAT: Hook(4, 100, "nat"),
    HookPoint.POSTROUTING_LAST: Hook(4, 150),
    HookPoint.ARP_INPUT: Hook(0, 0),
    HookPoint.ARP_OUTPUT: Hook(1, 0),
}
"""Priorities as nft(8) has them: raw -300, mangle -150, dstnat -100, filter 0, srcnat 100."""

FORGET_S = 60
"""How long sets that packets fill remember: as long as the kernel lets a neighbour be idle (gc_stale_time, arp(7))."""

_DIGEST_KIND = 0x74
"""Type of our entry in a rule's user data; nft(8) knows 0 and 1 and skips the others."""

_STATES = {
    State.INVALID: x.CtState.INVALID,
    State.UNTRACKED: x.CtState.UNTRACKED,
    State.NEW: x.CtState.NEW,
    State.ESTABLISHED: x.CtState.ESTABLISHED,
    State.RELATED: x.CtState.RELATED,
}
_NFPROTO = {4: b"\x02", 6: b"\x0a"}
_ADDRESS_TYPE = {4: x.Datatype.IPV4_ADDR, 6: x.Datatype.IPV6_ADDR}
_BYTES = {4: 4, 6: 16}
_HEADER_OFFSET = {(4, Side.SOURCE): 12, (4, Side.DESTINATION): 16, (6, Side.SOURCE): 8, (6, Side.DESTINATION): 24}
_UDP, _ICMPV6 = b"\x11", b"\x3a"


class Encoded(msgspec.Struct, frozen=True, gc=False):
    """A rule as the kernel takes it."""

    expressions: bytes
    userdata: bytes
    targets: tuple[str, ...]
    """Chains that it leads to."""
    sets: tuple[str, ...]
    """Sets and maps that it looks up, by their names in the kernel."""


def encode_rule(rule: ir.Rule, generation: int, name_of: NameOf, basis: Basis = Basis.FLOW) -> Encoded:
    """The bytes of a rule of a chain with this basis."""
    parts: list[bytes] = []
    sets: list[str] = []
    for match in rule.matches:
        parts += _match(match, name_of, basis)
        named = _set_of(match)
        if named:
            sets.append(name_of(named))
    if rule.counter:
        parts.append(x.counter())
    if rule.log is not None:
        parts.append(x.limit(rule.log.per_second, 1, rule.log.burst))
        parts.append(x.nflog(rule.log.prefix, rule.log.group))
    targets: tuple[str, ...] = ()
    match rule.verdict:
        case ir.Accept():
            parts.append(x.verdict(x.Verdict.ACCEPT))
        case ir.Drop():
            parts.append(x.verdict(x.Verdict.DROP))
        case ir.Return():
            parts.append(x.verdict(x.Verdict.RETURN))
        case ir.Jump(chain=chain):
            parts.append(x.verdict(x.Verdict.JUMP, chain))
            targets = (chain,)
        case ir.Goto(chain=chain):
            parts.append(x.verdict(x.Verdict.GOTO, chain))
            targets = (chain,)
        case ir.Dispatch(map_name=name, via=via):
            parts += [x.meta(_interface_key(via), x.reg(0)), x.verdict_map(name_of(name), x.reg(0))]
            sets.append(name_of(name))
        case ir.DispatchAddress(map_name=name, family=family, side=side):
            parts += [*_header_address(family, side), x.verdict_map(name_of(name), x.reg(0))]
            sets.append(name_of(name))
        case ir.DispatchPort(map_name=name):
            parts += [_port(basis, Side.DESTINATION, x.reg(0)), x.verdict_map(name_of(name), x.reg(0))]
            sets.append(name_of(name))
        case ir.CountFor(set_name=name, via=via):
            parts += [x.meta(_interface_key(via), x.reg(0)), x.lookup(name_of(name), x.reg(0))]
            sets.append(name_of(name))
        case ir.CheckGeneration(map_name=name):
            parts += [*_state_and_generation(), x.verdict_map(name_of(name), x.reg(0))]
            sets.append(name_of(name))
        case _:
            parts += _statement(rule.verdict, generation)
    expressions = x.rule(*parts)
    return Encoded(expressions, _userdata(rule.comment, expressions), targets, tuple(sets))


def _state_and_generation() -> list[bytes]:
    """Loads the key of the sets of generations."""
    second = x.reg(1)
    return [x.ct(x.Ct.STATE, x.reg(0)), x.ct(x.Ct.MARK, second), x.bitwise(second, second, x.host32(GENERATION_MASK), x.host32(0))]


def _statement(verdict: ir.Verdict, generation: int) -> list[bytes]:
    """Verdicts that do something to the packet or its flow."""
    first = x.reg(0)
    match verdict:
        case ir.Next():
            return []
        case ir.MarkFlow():
            # An immediate, not a map element: a packet that still runs the old rules must mark the old generation.
            keep, put = x.host32(~GENERATION_MASK), x.host32(generation_mark(generation))
            return [x.ct(x.Ct.MARK, first), x.bitwise(first, first, keep, put), x.ct_set(x.Ct.MARK, first)]
        case ir.Decide():
            return [*_mark_packet(DECIDED_MARK, DECIDED_MARK), x.verdict(x.Verdict.RETURN)]
        case ir.Undecide():
            return _mark_packet(DECIDED_MARK, 0)
        case ir.Reject(reset=reset):
            return [x.reject_tcp_reset() if reset else x.reject_icmp_admin_prohibited()]
        case ir.AcceptUntracked():
            return [x.notrack(), *_mark_packet(UNTRACKED_MARK, UNTRACKED_MARK), x.verdict(x.Verdict.ACCEPT)]
        case ir.TranslateDestination(address=address, port=port):
            load = [x.immediate(first, address.packed)]
            if port:
                load.append(x.immediate(x.reg(4), x.port(port)))
            chosen = x.reg(4) if port else 0
            nfproto = _NFPROTO[address.family][0]
            return [*load, x.translate(source=False, nfproto=nfproto, address=first, first_port=chosen, last_port=chosen)]
        case ir.TranslateSource(address=address_or_none, first_port=low, last_port=high):
            load = [x.immediate(x.reg(4), x.port(low)), x.immediate(x.reg(5), x.port(high))] if low else []
            ports = (x.reg(4), x.reg(5)) if low else (0, 0)
            if address_or_none is None:
                return [*load, x.masquerade(*ports)]
            load.append(x.immediate(first, address_or_none.packed))
            nfproto = _NFPROTO[address_or_none.family][0]
            return [*load, x.translate(source=True, nfproto=nfproto, address=first, first_port=ports[0], last_port=ports[1])]
        case ir.SetDscp(family=family, value=value):
            return _set_dscp(family, value)
        case _:
            raise AssertionError(verdict)


def _mark_packet(mask: int, value: int) -> list[bytes]:
    """Gives these bits of the packet's mark this value."""
    first = x.reg(0)
    return [x.meta(x.Meta.MARK, first), x.bitwise(first, first, x.host32(~mask), x.host32(value)), x.meta_set(x.Meta.MARK, first)]


def _set_dscp(family: int, value: int) -> list[bytes]:
    """RFC 2474: in IPv4 the upper 6 bits of the second byte; in IPv6 the upper 6 bits of the traffic class, which begins at bit 4."""
    if family == IPV4:
        mask, put, checksum = 0xFF03, value << 2, 10
    else:
        mask, put, checksum = 0xF03F, value << 6, -1
    first = x.reg(0)
    return [
        *_family(family),
        x.payload(x.NETWORK_HEADER, 0, 2, first),
        x.bitwise(first, first, mask.to_bytes(2, "big"), put.to_bytes(2, "big")),
        x.payload_set(x.NETWORK_HEADER, 0, 2, first, checksum_offset_bytes=checksum),
    ]


def sets_of(chain: ir.Chain) -> Iterator[str]:
    """The IR names of the sets and maps that a chain looks up."""
    for rule in chain.rules:
        for match in rule.matches:
            named = _set_of(match)
            if named:
                yield named
        if isinstance(rule.verdict, ir.Dispatch | ir.DispatchAddress | ir.DispatchPort | ir.CheckGeneration):
            yield rule.verdict.map_name
        elif isinstance(rule.verdict, ir.CountFor):
            yield rule.verdict.set_name


def generation_elements(generation: int) -> dict[SetType, tuple[Element, ...]]:
    """What the sets of (state, generation) hold.

    New belongs to it, or every packet of a flow that is never answered would be judged.
    """
    mark = x.host32(generation_mark(generation))
    return {
        SetType.GENERATION: (
            Element(x.host32(x.CtState.ESTABLISHED) + mark, verdict=x.Verdict.ACCEPT),
            Element(x.host32(x.CtState.NEW) + mark, verdict=x.Verdict.ACCEPT),
        ),
        SetType.RELATED_GENERATION: (Element(x.host32(x.CtState.RELATED) + mark),),
    }


def encode_set(definition: SetDef, size: int) -> SetSpec:
    """The set's specification for at most ``size`` elements; interval sets have no bound."""
    match definition.type:
        case SetType.ADDRESSES:
            return x.set_spec(_ADDRESS_TYPE[definition.family], size=size)
        case SetType.NETS:
            return x.set_spec(_ADDRESS_TYPE[definition.family], interval=True)
        case SetType.PORTS:
            return x.set_spec(x.Datatype.INET_SERVICE, interval=True)
        case SetType.ADDRESS_PORTS:
            return x.set_spec(_ADDRESS_TYPE[definition.family], x.Datatype.INET_PROTO, x.Datatype.INET_SERVICE, size=size)
        case SetType.SOURCES:
            return x.set_spec(x.Datatype.IFNAME, _ADDRESS_TYPE[definition.family], size=size)
        case SetType.SOURCE_NETS:
            return x.set_spec(x.Datatype.IFNAME, _ADDRESS_TYPE[definition.family], interval=True)
        case SetType.HARDWARE:
            return x.set_spec(x.Datatype.IFNAME, x.Datatype.ETHER_ADDR, size=size)
        case SetType.PAIRS:
            return x.set_spec(x.Datatype.IFNAME, x.Datatype.ETHER_ADDR, _ADDRESS_TYPE[definition.family], interval=True)
        case SetType.INTERFACES:
            return x.set_spec(x.Datatype.IFNAME, size=size)
        case SetType.COUNTED:
            return x.set_spec(x.Datatype.IFNAME, size=size, counted=True)
        case SetType.CHAINS:
            return x.set_spec(x.Datatype.IFNAME, size=size, verdict_map=True)
        case SetType.ADDRESS_CHAINS:
            return x.set_spec(_ADDRESS_TYPE[definition.family], size=size, verdict_map=True)
        case SetType.PORT_CHAINS:
            return x.set_spec(x.Datatype.INET_SERVICE, interval=True, verdict_map=True)
        case SetType.GENERATION | SetType.RELATED_GENERATION:
            is_map = definition.type is SetType.GENERATION
            return x.set_spec(x.Datatype.CT_STATE, x.Datatype.MARK, size=size, verdict_map=is_map)
        case SetType.SENDERS:
            return x.set_spec(x.Datatype.IFNAME, _ADDRESS_TYPE[definition.family], size=size, forget_s=FORGET_S)
        case SetType.RATES:
            return x.set_spec(x.Datatype.IFNAME, size=size, forget_s=FORGET_S)


def encode_elements(definition: SetDef, elements: Iterable[ir.Element]) -> tuple[Element, ...]:
    """The kernel's elements for those of a set, sorted; intervals of plain sets become a start and an exclusive end."""
    found: list[Element] = []
    for element in elements:
        match element:
            case Prefix():
                found.append(Element(element.packed))
            case PortMember():
                found.append(Element(x.key(element.address.packed, bytes((element.protocol,)), x.port(element.port))))
            case ir.Source():
                found.append(Element(x.key(x.ifname(element.interface), element.address.packed)))
            case ir.SourceRange():
                name, length = x.ifname(element.interface), _BYTES[definition.family]
                first, last = element.first.to_bytes(length, "big"), element.last.to_bytes(length, "big")
                found.append(Element(x.key(name, first), end=x.key(name, last)))
            case ir.Paired(interface=interface, mac=mac):
                before, length = (x.ifname(interface), bytes.fromhex(mac.replace(":", ""))), _BYTES[definition.family]
                first, last = element.first.to_bytes(length, "big"), element.last.to_bytes(length, "big")
                found.append(Element(x.key(*before, first), end=x.key(*before, last)))
            case ir.Hardware(interface=interface, mac=mac):
                found.append(Element(x.key(x.ifname(interface), bytes.fromhex(mac.replace(":", "")))))
            case ir.Interface(name=interface):
                found.append(Element(x.ifname(interface)))
            case ir.Range():
                found += _interval(element, 2 if definition.type is SetType.PORTS else _BYTES[definition.family])
    return tuple(sorted(found, key=_element_order))


def encode_mapping(definition: SetDef, mapping: Iterable[tuple[str, str]]) -> tuple[Element, ...]:
    """The kernel's elements of a map to chains, sorted."""
    found: list[Element] = []
    for key, chain in mapping:
        if definition.type is SetType.PORT_CHAINS:
            start, *end = _interval(ir.parse_ports(key), 2)
            found += [msgspec.structs.replace(start, verdict=x.Verdict.JUMP, chain=chain), *end]
        else:
            found.append(Element(_map_key(definition, key), verdict=x.Verdict.GOTO, chain=chain))
    return tuple(sorted(found, key=_element_order))


def encode_item(definition: SetDef, item: ir.Element | tuple[str, str]) -> Element:
    """The kernel's element for one of a hash set, or for what a map leads from and to."""
    return (encode_mapping(definition, (item,)) if isinstance(item, tuple) else encode_elements(definition, (item,)))[0]


def encode_keys(definition: SetDef, keys: Iterable[str]) -> tuple[Element, ...]:
    """The kernel's elements of a map to chains by which keys are deleted, sorted."""
    if definition.type is SetType.PORT_CHAINS:
        found = [item for key in keys for item in _interval(ir.parse_ports(key), 2)]
    else:
        found = [Element(_map_key(definition, key)) for key in keys]
    return tuple(sorted(found, key=_element_order))


def _map_key(definition: SetDef, key: str) -> bytes:
    return x.ifname(key) if definition.type is SetType.CHAINS else parse_address(key).packed


def _interval(element: ir.Range, length: int) -> list[Element]:
    start = Element(element.first.to_bytes(length, "big"))
    if element.last + 1 >= 1 << (8 * length):
        return [start]  # open to the end of the address space
    return [start, Element((element.last + 1).to_bytes(length, "big"), interval_end=True)]


def _element_order(element: Element) -> tuple[bytes, bool]:
    return element.key, not element.interval_end


def _userdata(comment: str, expressions: bytes) -> bytes:
    content = hashlib.blake2b(expressions, digest_size=12).digest()
    return (x.comment(comment) if comment else b"") + bytes((_DIGEST_KIND, len(content))) + content


def _set_of(match: ir.Match) -> str:
    match match:
        case (
            ir.AddressIn()
            | ir.PortIn()
            | ir.AddressPortIn()
            | ir.SourceIn()
            | ir.HeaderAddressIn()
            | ir.HardwareIn()
            | ir.InterfaceIn()
            | ir.PairedIn()
            | ir.RateWithin()
            | ir.ArpSaid()
            | ir.Remember()
        ):
            return match.set_name
        case ir.RelatedIn():
            return match.set_name
        case _:
            return ""


def _interface_key(via: Via) -> x.Meta:
    return x.Meta.IIFNAME if via is Via.IN else x.Meta.OIFNAME


def _compare(negated: bool) -> x.Compare:
    return x.Compare.NE if negated else x.Compare.EQ


def _address(basis: Basis, side: Side, family: int, register: int) -> list[bytes]:
    """Loads an address of the flow or of the packet; goes on only in the family."""
    source = side is Side.SOURCE
    match basis:
        case Basis.FLOW:  # the destination after translation is where the replies come from
            key = x.Ct.SRC_IP if family == IPV4 else x.Ct.SRC_IP6
            return [x.ct(key, register, x.CtDirection.ORIGINAL if source else x.CtDirection.REPLY)]
        case Basis.ORIGINAL:
            keys = (x.Ct.SRC_IP, x.Ct.DST_IP) if family == IPV4 else (x.Ct.SRC_IP6, x.Ct.DST_IP6)
            return [x.ct(keys[0] if source else keys[1], register, x.CtDirection.ORIGINAL)]
        case Basis.HEADER | Basis.PACKET:
            return _header_address(family, side, register)


def _port(basis: Basis, side: Side, register: int) -> bytes:
    source = side is Side.SOURCE
    match basis:
        case Basis.FLOW:
            return x.ct(x.Ct.PROTO_SRC, register, x.CtDirection.ORIGINAL if source else x.CtDirection.REPLY)
        case Basis.ORIGINAL:
            return x.ct(x.Ct.PROTO_SRC if source else x.Ct.PROTO_DST, register, x.CtDirection.ORIGINAL)
        case Basis.HEADER | Basis.PACKET:
            return x.payload(x.TRANSPORT_HEADER, 0 if source else 2, 2, register)


def _icmp(basis: Basis, register: int) -> bytes:
    """Type and code, as connection tracking keeps them: in the place of the destination port."""
    if basis in (Basis.HEADER, Basis.PACKET):
        return x.payload(x.TRANSPORT_HEADER, 0, 2, register)
    return x.ct(x.Ct.PROTO_DST, register, x.CtDirection.ORIGINAL)


def _header_address(family: int, side: Side, register: int = x.reg(0)) -> list[bytes]:
    return [*_family(family), x.payload(x.NETWORK_HEADER, _HEADER_OFFSET[family, side], _BYTES[family], register)]


def _source_address(family: int, source: ir.Tuple, register: int) -> list[bytes]:
    if source is ir.Tuple.HEADER:
        return _header_address(family, Side.SOURCE, register)
    if source is ir.Tuple.ARP:
        return [_arp_sender(register)]
    key = x.Ct.SRC_IP if family == IPV4 else x.Ct.SRC_IP6
    return [x.ct(key, register, x.CtDirection.ORIGINAL if source is ir.Tuple.ORIGINAL else x.CtDirection.REPLY)]


def _arp_sender(register: int) -> bytes:
    """RFC 826; the kernel has seen to it that hardware addresses have the interface's length before any hook."""
    return x.payload(x.NETWORK_HEADER, 14, 4, register)


def _between(first: bytes, last: bytes, negated: bool) -> bytes:
    if first == last:
        return x.compare(x.reg(0), _compare(negated), first)
    return x.in_range(x.reg(0), _compare(negated), first, last)


def _match(match: ir.Match, name_of: NameOf, basis: Basis) -> list[bytes]:
    """The expressions that go on only where the match holds."""
    first = x.reg(0)
    match match:
        case ir.Protocol(number=number, negated=negated):
            return [x.meta(x.Meta.L4PROTO, first), x.compare(first, _compare(negated), bytes((number,)))]
        case ir.Icmp(type=kind, code=code, negated=negated):
            low, high = bytes((kind, code or 0)), bytes((kind, 255 if code is None else code))
            return [_icmp(basis, first), _between(low, high, negated)]
        case ir.Port(side=side, first=low_port, last=high_port, negated=negated):
            return [_port(basis, side, first), _between(x.port(low_port), x.port(high_port), negated)]
        case ir.PortIn(side=side, set_name=name, negated=negated):
            return [_port(basis, side, first), x.lookup(name_of(name), first, inverted=negated)]
        case ir.Address(side=side, family=family, first=low_value, last=high_value, negated=negated):
            size = _BYTES[family]
            values = low_value.to_bytes(size, "big"), high_value.to_bytes(size, "big")
            return [*_address(basis, side, family, first), _between(*values, negated)]
        case ir.AddressIn(side=side, family=family, set_name=name, negated=negated):
            return [*_address(basis, side, family, first), x.lookup(name_of(name), first, inverted=negated)]
        case ir.AddressPortIn(side=side, family=family, set_name=name, negated=negated):
            after = _BYTES[family] // 4
            return [
                *_address(basis, side, family, first),
                x.meta(x.Meta.L4PROTO, x.reg(after)),
                _port(basis, side, x.reg(after + 1)),
                x.lookup(name_of(name), first, inverted=negated),
            ]
        case _:
            return _state_match(match, name_of)


def _state_match(match: ir.Match, name_of: NameOf) -> list[bytes]:
    first = x.reg(0)
    match match:
        case ir.InterfacePrefix(via=via, prefix=prefix, negated=negated):
            return [x.meta(_interface_key(via), first), x.compare(first, _compare(negated), x.ifname_prefix(prefix))]
        case ir.InterfaceIs(via=via, name=interface, negated=negated):
            return [x.meta(_interface_key(via), first), x.compare(first, _compare(negated), x.ifname(interface))]
        case ir.NoInterface(via=via):
            key = x.Meta.IIF if via is Via.IN else x.Meta.OIF
            return [x.meta(key, first), x.compare(first, x.Compare.EQ, x.host32(0))]
        case ir.Family(family=family):
            return _family(family)
        case ir.StateIs(states=states):
            bits = 0
            for state in states:
                bits |= _STATES[state]
            return _any_bit([x.ct(x.Ct.STATE, first)], bits)
        case ir.Untracked():
            return [*_any_bit([x.ct(x.Ct.STATE, first)], x.CtState.UNTRACKED), *_any_bit([x.meta(x.Meta.MARK, first)], UNTRACKED_MARK)]
        case ir.Decided():
            return _any_bit([x.meta(x.Meta.MARK, first)], DECIDED_MARK)
        case ir.ReplyDirection():
            return [x.ct(x.Ct.DIRECTION, first), x.compare(first, x.Compare.EQ, bytes((x.CtDirection.REPLY,)))]
        case ir.OriginalDirection():
            return [x.ct(x.Ct.DIRECTION, first), x.compare(first, x.Compare.EQ, bytes((x.CtDirection.ORIGINAL,)))]
        case ir.RelatedIn(set_name=name):
            return [*_state_and_generation(), x.lookup(name_of(name), first)]
        case ir.RateOver(per_second=rate, burst=burst):
            return [x.limit(rate, 1, burst, over=True)]
        case ir.BytesOver(per_second=rate, burst_bytes=burst):
            return [x.limit_bytes(rate, burst, over=True)]
        case ir.ConnectionsOver(count=count):
            return [x.connections_over(count)]
        case _:
            return _header_match(match, name_of)


def _any_bit(load: list[bytes], bits: int) -> list[bytes]:
    first = x.reg(0)
    return [*load, x.bitwise(first, first, x.host32(bits), x.host32(0)), x.compare(first, x.Compare.NE, x.host32(0))]


def _header_match(match: ir.Match, name_of: NameOf) -> list[bytes]:
    first = x.reg(0)
    match match:
        case ir.SourceIn(family=family, set_name=name, source=source):
            return [*_source_address(family, source, x.reg(4)), x.meta(x.Meta.IIFNAME, first), x.lookup(name_of(name), first)]
        case ir.HardwareIn(set_name=name):
            return [x.meta(x.Meta.IIFNAME, first), x.payload(x.LINK_HEADER, 6, 6, x.reg(4)), x.lookup(name_of(name), first)]
        case ir.PairedIn(family=family, set_name=name, source=source):
            address = _source_address(family, source, x.reg(6))
            interface, hardware = x.meta(x.Meta.IIFNAME, first), x.payload(x.LINK_HEADER, 6, 6, x.reg(4))
            return [*address, interface, hardware, x.lookup(name_of(name), first)]
        case ir.InterfaceIn(set_name=name, via=via):
            return [x.meta(_interface_key(via), first), x.lookup(name_of(name), first)]
        case ir.HeaderAddress(side=side, net=net):
            size = _BYTES[net.family]
            return [*_header_address(net.family, side), _between(net.packed, net.last.to_bytes(size, "big"), False)]
        case ir.HeaderAddressIn(side=side, family=family, set_name=name):
            return [*_header_address(family, side), x.lookup(name_of(name), first)]
        case ir.RoutedBack(prefix=prefix):
            return [x.fib_source_interface(first), x.compare(first, x.Compare.EQ, x.ifname_prefix(prefix))]
        case ir.ArpProbe():
            return [_arp_sender(first), x.compare(first, x.Compare.EQ, bytes(4))]
        case ir.ArpSaid(set_name=name):
            return [_arp_sender(x.reg(4)), x.meta(x.Meta.OIFNAME, first), x.lookup(name_of(name), first)]
        case ir.RateWithin(set_name=name, per_second=rate, burst=burst):
            return [x.meta(x.Meta.IIFNAME, first), x.limit_by_key(name_of(name), first, rate, 1, burst)]
        case ir.Remember(family=family, set_name=name, source=source):
            return [*_source_address(family, source, x.reg(4)), x.meta(x.Meta.IIFNAME, first), x.remember(name_of(name), first)]
        case ir.HeaderUdp(source_port=source_port, destination_port=destination_port):
            ports = x.port(source_port) + x.port(destination_port)
            return [
                x.meta(x.Meta.L4PROTO, first),
                x.compare(first, x.Compare.EQ, _UDP),
                x.payload(x.TRANSPORT_HEADER, 0, 4, first),
                x.compare(first, x.Compare.EQ, ports),
            ]
        case ir.HeaderIcmp6(first=low, last=high):
            return [
                x.meta(x.Meta.L4PROTO, first),
                x.compare(first, x.Compare.EQ, _ICMPV6),
                x.payload(x.TRANSPORT_HEADER, 0, 1, first),
                _between(bytes((low,)), bytes((high,)), False),
            ]
        case _:
            raise AssertionError(match)


def _family(family: int) -> list[bytes]:
    """An inet chain sees both families: look before reading a header."""
    return [x.meta(x.Meta.NFPROTO, x.reg(0)), x.compare(x.reg(0), x.Compare.EQ, _NFPROTO[family])]

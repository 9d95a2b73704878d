"""The table in the words of nft(8): for people, for bug reports, and as a second opinion in tests.

``nft -c -f`` accepts the text. Loading it gives the same verdicts as what the driver programs. Two things nft's grammar (1.0.6) cannot
say are said otherwise: a concatenation of flow address, protocol and port is looked up by header fields, which is the same for the
first packet of an untranslated flow; and a flow's port needs ``meta l4proto`` in front.
Pure, deterministic: chains and sets by name. Linear in the table.
"""

from __future__ import annotations

from collections.abc import Iterator

from tabinet.calc.messages import PortMember
from tabinet.dataplane.nft.encode import FORGET_S, HOOKS
from tabinet.dataplane.nft.plan import LEARNED, MAPS_TO_CHAINS
from tabinet.kernel.nftables import ARP, FAMILY_NAMES, INET, Hook, family_of
from tabinet.lib.ip import BITS, IPV4, Prefix
from tabinet.rules import ir
from tabinet.rules.ir import Basis, SetDef, SetType, Side, Table, Via
from tabinet.rules.marks import DECIDED_MARK, GENERATION_MASK, UNTRACKED_MARK, generation_mark

HOOK_NAMES = {INET: ("prerouting", "input", "forward", "output", "postrouting"), ARP: ("input", "output")}
_ADDRESS = {4: "ipv4_addr", 6: "ipv6_addr"}
_IP = {4: "ip", 6: "ip6"}


def render_table(table: Table, generation: int, name: str = "tabinet") -> str:
    """All of it, as ``nft -f`` takes it: the table of family inet, then that of family arp."""
    lines = [line for family in FAMILY_NAMES for line in _render_family(table, generation, name, family)]
    return "\n".join(lines) + "\n"


def _render_family(table: Table, generation: int, name: str, family: int) -> Iterator[str]:
    chains = [chain for chain in sorted(table.chains) if family_of(chain) == family]
    yield f"table {FAMILY_NAMES[family]} {name} {{"
    # A name must be there before something leads to it, and maps lead to chains.
    for chain in chains:
        yield f"\tchain {chain} {{"
        hook = table.chains[chain].hook
        if hook is not None:
            yield f"\t\t{hook_text(chain, HOOKS[hook])}"
        yield "\t}"
    for set_name, definition in sorted(table.sets.items()):
        if family_of(set_name) == family:
            yield from _render_set(table, set_name, definition, generation)
    for chain in chains:
        yield f"\tchain {chain} {{"
        basis = table.chains[chain].basis
        yield from (f"\t\t{render_rule(rule, generation, basis)}" for rule in table.chains[chain].rules)
        yield "\t}"
    yield "}"


def hook_text(chain: str, hook: Hook | None) -> str:
    """Where a base chain is, as nft(8) has it; empty for another."""
    if hook is None:
        return ""
    names = HOOK_NAMES[family_of(chain)]
    where = names[hook.hook] if hook.hook < len(names) else str(hook.hook)
    return f"type {hook.type} hook {where} priority {hook.priority}; policy {'accept' if hook.policy_accept else 'drop'};"


def render_rule(rule: ir.Rule, generation: int, basis: Basis = Basis.FLOW) -> str:
    """One rule of a chain with this basis as a line."""
    parts = [_match(match, basis) for match in rule.matches]
    if rule.counter:
        parts.append("counter")
    if rule.log is not None:
        parts.append(f"limit rate {rule.log.per_second}/second burst {rule.log.burst} packets")
        parts.append(f'log prefix "{rule.log.prefix}" group {rule.log.group}')
    parts.append(_verdict(rule.verdict, generation, basis))
    if rule.comment:
        parts.append(f'comment "{rule.comment}"')
    return " ".join(part for part in parts if part)


def _verdict(verdict: ir.Verdict, generation: int, basis: Basis) -> str:
    match verdict:
        case ir.Accept():
            return "accept"
        case ir.Drop():
            return "drop"
        case ir.Return():
            return "return"
        case ir.Jump(chain=chain):
            return f"jump {chain}"
        case ir.Goto(chain=chain):
            return f"goto {chain}"
        case ir.DispatchPort(map_name=name):
            return f"{_port(basis, Side.DESTINATION)} vmap @{name}"
        case ir.Dispatch(map_name=name, via=via):
            return f"{_interface(via)} vmap @{name}"
        case ir.DispatchAddress(map_name=name, family=family, side=side):
            return f"{_header_address(side, family)} vmap @{name}"
        case ir.CountFor(set_name=name, via=via):
            return f"{_interface(via)} @{name}"
        case ir.CheckGeneration(map_name=name):
            return f"ct state . ct mark & {GENERATION_MASK:#010x} vmap @{name}"
        case _:
            return _statement(verdict, generation)


def _statement(verdict: ir.Verdict, generation: int) -> str:
    match verdict:
        case ir.MarkFlow():
            keep = ~GENERATION_MASK & 0xFFFFFFFF
            return f"ct mark set ct mark & {keep:#010x} | {generation_mark(generation):#010x}"
        case ir.Next():
            return ""
        case ir.Decide():
            return f"meta mark set meta mark | {DECIDED_MARK:#010x} return"
        case ir.Undecide():
            return f"meta mark set meta mark & {~DECIDED_MARK & 0xFFFFFFFF:#010x}"
        case ir.Reject(reset=reset):
            return f"reject with {'tcp reset' if reset else 'icmpx admin-prohibited'}"
        case ir.AcceptUntracked():
            return f"notrack meta mark set meta mark | {UNTRACKED_MARK:#010x} accept"
        case ir.TranslateDestination(address=address, port=port):
            return f"dnat {_IP[address.family]} to {_with_port(address, str(port) if port else '')}"
        case ir.TranslateSource(address=address_or_none, first_port=low, last_port=high):
            ports = _between(low, high) if low else ""
            if address_or_none is None:
                return f"masquerade to :{ports}" if ports else "masquerade"
            return f"snat {_IP[address_or_none.family]} to {_with_port(address_or_none, ports)}"
        case ir.SetDscp(family=family, value=value):
            return f"{_IP[family]} dscp set {value}"
        case _:
            raise AssertionError(verdict)


def _with_port(address: Prefix, port: str) -> str:
    if not port:
        return address.address
    return f"{address.address}:{port}" if address.family == IPV4 else f"[{address.address}]:{port}"


def _interface(via: Via) -> str:
    return "iifname" if via is Via.IN else "oifname"


def _address(basis: Basis, side: Side, family: int) -> str:
    match basis:
        case Basis.FLOW:
            return f"ct {'original' if side is Side.SOURCE else 'reply'} {_IP[family]} saddr"
        case Basis.ORIGINAL:
            return f"ct original {_IP[family]} {'saddr' if side is Side.SOURCE else 'daddr'}"
        case Basis.HEADER | Basis.PACKET:
            return _header_address(side, family)


def _header_address(side: Side, family: int) -> str:
    return f"{_IP[family]} {'saddr' if side is Side.SOURCE else 'daddr'}"


def _port(basis: Basis, side: Side) -> str:
    match basis:
        case Basis.FLOW:
            return f"ct {'original' if side is Side.SOURCE else 'reply'} proto-src"
        case Basis.ORIGINAL:
            return f"ct original {'proto-src' if side is Side.SOURCE else 'proto-dst'}"
        case Basis.HEADER | Basis.PACKET:
            return f"th {'sport' if side is Side.SOURCE else 'dport'}"


def _unequal(negated: bool) -> str:
    return "!= " if negated else ""


def _between(first: object, last: object) -> str:
    return f"{first}" if first == last else f"{first}-{last}"


def _match(match: ir.Match, basis: Basis) -> str:
    match match:
        case ir.Protocol(number=number, negated=negated):
            return f"meta l4proto {_unequal(negated)}{number}"
        case ir.Icmp(type=kind, code=code, negated=negated):
            low = kind << 8 | (code or 0)
            high = kind << 8 | (255 if code is None else code)
            where = "@th,0,16" if basis in (Basis.HEADER, Basis.PACKET) else "ct original proto-dst"
            return f"{where} {_unequal(negated)}{_between(low, high)}"
        case ir.Port(side=side, first=first, last=last, negated=negated):
            return f"{_port(basis, side)} {_unequal(negated)}{_between(first, last)}"
        case ir.PortIn(side=side, set_name=name, negated=negated):
            return f"{_port(basis, side)} {_unequal(negated)}@{name}"
        case ir.Address(side=side, family=family, first=first, last=last, negated=negated):
            return f"{_address(basis, side, family)} {_unequal(negated)}{_between(_text(family, first), _text(family, last))}"
        case ir.AddressIn(side=side, family=family, set_name=name, negated=negated):
            return f"{_address(basis, side, family)} {_unequal(negated)}@{name}"
        case ir.AddressPortIn(side=side, family=family, set_name=name, negated=negated):
            port = _port(Basis.HEADER, side)
            return f"{_header_address(side, family)} . meta l4proto . {port} {_unequal(negated)}@{name}"
        case _:
            return _state_match(match)


def _state_match(match: ir.Match) -> str:
    match match:
        case ir.InterfacePrefix(via=via, prefix=prefix, negated=negated):
            return f'{_interface(via)} {_unequal(negated)}"{prefix}*"'
        case ir.InterfaceIs(via=via, name=name, negated=negated):
            return f'{_interface(via)} {_unequal(negated)}"{name}"'
        case ir.NoInterface(via=via):
            return f"{'iif' if via is Via.IN else 'oif'} 0"
        case ir.Family(family=family):
            return f"meta nfproto {'ipv4' if family == IPV4 else 'ipv6'}"
        case ir.StateIs(states=states):
            return f"ct state {','.join(state.value for state in states)}"
        case ir.Untracked():
            return f"ct state untracked meta mark & {UNTRACKED_MARK:#010x} != 0"
        case ir.Decided():
            return f"meta mark & {DECIDED_MARK:#010x} != 0"
        case ir.ReplyDirection():
            return "ct direction reply"
        case ir.OriginalDirection():
            return "ct direction original"
        case ir.RelatedIn(set_name=name):
            return f"ct state . ct mark & {GENERATION_MASK:#010x} @{name}"
        case ir.RateOver(per_second=rate, burst=burst):
            return f"limit rate over {rate}/second burst {burst} packets"
        case ir.BytesOver(per_second=rate, burst_bytes=burst):
            return f"limit rate over {rate} bytes/second" + (f" burst {burst} bytes" if burst else "")
        case ir.ConnectionsOver(count=count):
            return f"ct count over {count}"
        case _:
            return _header_match(match)


def _header_match(match: ir.Match) -> str:
    match match:
        case ir.SourceIn(family=family, set_name=name, source=source):
            return f"iifname . {_source(family, source)} @{name}"
        case ir.HardwareIn(set_name=name):
            return f"iifname . ether saddr @{name}"
        case ir.PairedIn(family=family, set_name=name, source=source):
            return f"iifname . ether saddr . {_source(family, source)} @{name}"
        case ir.InterfaceIn(set_name=name, via=via):
            return f"{_interface(via)} @{name}"
        case ir.HeaderAddress(side=side, net=net):
            return f"{_header_address(side, net.family)} {net}"
        case ir.HeaderAddressIn(side=side, family=family, set_name=name):
            return f"{_header_address(side, family)} @{name}"
        case ir.RoutedBack(prefix=prefix):
            return f'fib saddr oifname "{prefix}*"'
        case ir.ArpProbe():
            return "arp saddr ip 0.0.0.0"
        case ir.ArpSaid(set_name=name):
            return f"oifname . arp saddr ip @{name}"
        case ir.RateWithin(set_name=name, per_second=rate, burst=burst):
            return f"update @{name} {{ iifname limit rate {rate}/second burst {burst} packets }}"
        case ir.Remember(family=family, set_name=name, source=source):
            return f"add @{name} {{ iifname . {_source(family, source)} }}"
        case ir.HeaderUdp(source_port=source_port, destination_port=destination_port):
            return f"udp sport {source_port} udp dport {destination_port}"
        case ir.HeaderIcmp6(first=first, last=last):
            return f"icmpv6 type {_between(first, last)}"
        case _:
            raise AssertionError(match)


def _source(family: int, source: ir.Tuple) -> str:
    match source:
        case ir.Tuple.HEADER:
            return f"{_IP[family]} saddr"
        case ir.Tuple.ARP:
            return "arp saddr ip"
        case ir.Tuple.ORIGINAL | ir.Tuple.REPLY:
            return f"ct {source.value} {_IP[family]} saddr"


def _text(family: int, value: int) -> str:
    return Prefix(family, value, BITS[family]).address


def _render_set(table: Table, name: str, definition: SetDef, generation: int) -> Iterator[str]:
    key = key_type(definition)
    is_map = definition.type in MAPS_TO_CHAINS or definition.type is SetType.GENERATION
    yield f"\t{'map' if is_map else 'set'} {name} {{"
    yield f"\t\ttype {key}{' : verdict' if is_map else ''}"
    if definition.type in (SetType.NETS, SetType.PORTS, SetType.SOURCE_NETS, SetType.PAIRS, SetType.PORT_CHAINS):
        yield "\t\tflags interval"
    if definition.type in LEARNED:
        yield f"\t\tsize {LEARNED[definition.type]}"
        yield "\t\tflags dynamic,timeout"
        yield f"\t\ttimeout {FORGET_S}s"
    if definition.type is SetType.COUNTED:
        yield "\t\tcounter"
    if is_map or definition.type is SetType.RELATED_GENERATION:
        elements = _map_elements(table, name, definition, generation)
    else:
        elements = [element_text(definition, element) for element in sorted(table.elements[name], key=_element_order)]
    if elements:
        yield f"\t\telements = {{ {', '.join(elements)} }}"
    yield "\t}"


def key_type(definition: SetDef) -> str:
    """What the keys of a set are, as nft(8) has it."""
    match definition.type:
        case SetType.ADDRESSES | SetType.NETS | SetType.ADDRESS_CHAINS:
            return _ADDRESS[definition.family]
        case SetType.PORTS | SetType.PORT_CHAINS:
            return "inet_service"
        case SetType.ADDRESS_PORTS:
            return f"{_ADDRESS[definition.family]} . inet_proto . inet_service"
        case SetType.SOURCES | SetType.SOURCE_NETS | SetType.SENDERS:
            return f"ifname . {_ADDRESS[definition.family]}"
        case SetType.PAIRS:
            return f"ifname . ether_addr . {_ADDRESS[definition.family]}"
        case SetType.HARDWARE:
            return "ifname . ether_addr"
        case SetType.CHAINS | SetType.INTERFACES | SetType.COUNTED | SetType.RATES:
            return "ifname"
        case SetType.GENERATION | SetType.RELATED_GENERATION:
            return "ct_state . mark"


def _map_elements(table: Table, name: str, definition: SetDef, generation: int) -> list[str]:
    if definition.type is SetType.PORT_CHAINS:
        return [item_text(definition, item) for item in sorted(table.maps[name].items(), key=lambda item: ir.parse_ports(item[0]))]
    if definition.type in MAPS_TO_CHAINS:
        return [item_text(definition, item) for item in sorted(table.maps[name].items())]
    mark = f"{generation_mark(generation):#010x}"
    if definition.type is SetType.RELATED_GENERATION:
        return [f"related . {mark}"]
    return [f"established . {mark} : accept", f"new . {mark} : accept"]


def _element_order(element: ir.Element) -> tuple[object, ...]:
    match element:
        case Prefix():
            return (element.family, element.value, element.length)
        case PortMember():
            return (element.address.family, element.address.value, element.protocol, element.port)
        case ir.Source():
            return (element.interface, element.address.value)
        case ir.SourceRange():
            return (element.interface, element.first)
        case ir.Range():
            return (element.first,)
        case ir.Paired():
            return (element.interface, element.mac, element.first)
        case ir.Hardware():
            return (element.interface, element.mac)
        case ir.Interface():
            return (element.name,)


def item_text(definition: SetDef, item: ir.Element | tuple[str, str]) -> str:
    """The element of a set, or what a map to chains leads from and to."""
    if not isinstance(item, tuple):
        return element_text(definition, item)
    key, chain = item
    if definition.type is SetType.PORT_CHAINS:
        ports = ir.parse_ports(key)
        return f"{_between(ports.first, ports.last)} : jump {chain}"
    return f'"{key}" : goto {chain}' if definition.type is SetType.CHAINS else f"{key} : goto {chain}"


def element_text(definition: SetDef, element: ir.Element) -> str:
    """The element of a set that is no map."""
    match element:
        case Prefix():
            return element.address
        case PortMember():
            return f"{element.address.address} . {element.protocol} . {element.port}"
        case ir.Source():
            return f'"{element.interface}" . {element.address.address}'
        case ir.SourceRange():
            return f'"{element.interface}" . {_range(definition.family, element.first, element.last)}'
        case ir.Paired():
            return f'"{element.interface}" . {element.mac} . {_range(definition.family, element.first, element.last)}'
        case ir.Hardware():
            return f'"{element.interface}" . {element.mac}'
        case ir.Interface():
            return f'"{element.name}"'
        case ir.Range() if definition.type is SetType.PORTS:
            return _between(element.first, element.last)
        case ir.Range():
            return _range(definition.family, element.first, element.last)


def _range(family: int, first: int, last: int) -> str:
    return _between(_text(family, first), _text(family, last))

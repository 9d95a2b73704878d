"""rtnetlink's bytes: operations to requests, messages to records. Pure; linear in the bytes.

Sources: rtnetlink(7), linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/neighbour.h. A message that is none of ours, or of a
family other than IPv4 and IPv6, parses to None.
"""

from __future__ import annotations

import errno
import socket
import struct

from tabinet.errors import KernelError
from tabinet.kernel import tunnelcodec
from tabinet.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    Request,
    attribute,
    nested,
    parse_attributes,
    parse_text,
    text,
    u32,
)
from tabinet.kernel.rtnetlink import (
    SCOPE_HOST,
    SCOPE_LINK,
    SCOPE_UNIVERSE,
    TABINET_PROTOCOL,
    AddAddress,
    AddInterfaceRule,
    AddIpip,
    AddPortRule,
    AddressEvent,
    AddRoute,
    AddSourceRule,
    AddVeth,
    AddVlan,
    AddVxlan,
    DeleteAddress,
    DeleteForwarding,
    DeleteInterfaceRule,
    DeleteLink,
    DeleteNeighbour,
    DeletePortRule,
    DeleteRoute,
    Event,
    ForwardingEvent,
    Hop,
    InterfaceAddress,
    InterfaceRule,
    Link,
    LinkEvent,
    Neighbour,
    NeighbourEvent,
    PortRule,
    ReplaceRoute,
    Route,
    RouteEvent,
    RouteKind,
    RtOp,
    SetAlias,
    SetForwarding,
    SetLink,
    SetNeighbour,
)
from tabinet.lib.ip import BITS, IPV4, IPV6, Prefix

NEWLINK, DELLINK, GETLINK = 16, 17, 18
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30
NEWRULE, DELRULE, GETRULE = 32, 33, 34

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_LINKINFO = 1, 3, 4, 5, 18
_IFLA_IFALIAS, _IFLA_NET_NS_FD, _IFLA_EXT_MASK = 20, 28, 29
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_VLAN_ID, _VLAN_FLAGS, _VLAN_FLAG_LOOSE_BINDING = 1, 2, 4
_SKIP_STATISTICS = 1 << 3  # RTEXT_FILTER_SKIP_STATS
_IFF_UP, _IFF_RUNNING, _IFF_LOWER_UP = 1, 0x40, 0x10000
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFA_F_NODAD = 2
_NDA_DST, _NDA_LLADDR = 1, 2
_NUD_PERMANENT = 0x80
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_MULTIPATH, _RTA_TABLE, _RTA_VIA = 1, 4, 5, 6, 7, 9, 15, 18
_FRA_SRC, _FRA_IIFNAME, _FRA_PRIORITY, _FRA_TABLE, _FRA_PROTOCOL, _FR_ACT_TO_TBL = 2, 3, 6, 15, 21, 1
_FRA_DST, _FRA_IP_PROTO, _FRA_DPORT_RANGE = 1, 22, 24
_SCOPE_NOWHERE = 255
_RTM_F_CLONED = 0x200
_RTNH_F_ONLINK = 4

_IFINFO = struct.Struct("=BxHiII")  # family, type, index, flags, change
_IFADDR = struct.Struct("=BBBBI")  # family, length, flags, scope, index
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, destination and source length, tos, table, protocol, scope, type, flags
_PORTS = struct.Struct("=HH")  # first, last
_RULE = struct.Struct("=BBBBBxxBI")  # family, destination and source length, tos, table, action, flags
_VLAN_ID_FORM, _VLAN_FLAGS_FORM = struct.Struct("=H"), struct.Struct("=II")  # flags and their mask
_HOP = struct.Struct("=HBBi")  # length, flags, weight - 1, index

_AF = {IPV4: int(socket.AF_INET), IPV6: int(socket.AF_INET6)}
_FAMILY = {number: family for family, number in _AF.items()}
FAMILIES = tuple(_AF.values())
"""AF_INET and AF_INET6, in this order."""


def parse_mac(data: bytes) -> str:
    """``aa:bb:cc:dd:ee:ff``; empty for loopback's zeros and where there is no address."""
    return data.hex(":") if any(data) else ""


def render_mac(mac: str) -> bytes:
    """The 6 bytes.

    Raises:
        ValueError: not a MAC address.
    """
    data = bytes.fromhex(mac.replace(":", ""))
    if len(data) != 6 or mac.count(":") != 5:
        raise ValueError(f"{mac!r} is not a MAC address")
    return data


# --- operations to requests -----------------------------------------------------------------------------------------


def render(operation: RtOp) -> Request:
    """The request that does it.

    Raises:
        ValueError: a MAC address does not parse.
    """
    match operation:
        case AddVeth():
            return Request(NEWLINK, NLM_F_CREATE | NLM_F_EXCL, _veth(operation))
        case AddVxlan() | AddIpip():
            return Request(NEWLINK, NLM_F_CREATE | NLM_F_EXCL, _tunnel(operation))
        case AddVlan():
            return Request(NEWLINK, NLM_F_CREATE | NLM_F_EXCL, _vlan(operation))
        case SetAlias(name, alias):
            return Request(
                NEWLINK, 0, _IFINFO.pack(0, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, text(name)) + attribute(_IFLA_IFALIAS, text(alias))
            )
        case SetForwarding(entry):
            return Request(NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, tunnelcodec.render_forwarding(entry, render_mac(entry.mac)))
        case DeleteForwarding(entry):
            return Request(DELNEIGH, 0, tunnelcodec.render_forwarding(entry, render_mac(entry.mac)))
        case DeleteLink(name, index):
            # The kernel takes the name only where there is no index.
            return Request(DELLINK, 0, _IFINFO.pack(0, 0, index, 0, 0) + (b"" if index else attribute(_IFLA_IFNAME, text(name))))
        case SetLink():
            return Request(NEWLINK, 0, _set_link(operation))
        case AddAddress(address):
            return Request(NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, _address(address))
        case DeleteAddress(address):
            return Request(DELADDR, 0, _address(address))
        case SetNeighbour(neighbour):
            return Request(NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, _neighbour(neighbour))
        case DeleteNeighbour(neighbour):
            return Request(DELNEIGH, 0, _neighbour(neighbour))
        case AddRoute(route):
            return Request(NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, _route(route))
        case ReplaceRoute(route):
            return Request(NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, _route(route))
        case DeleteRoute(route):
            return Request(DELROUTE, 0, _route_key(route))
        case AddSourceRule():
            return Request(NEWRULE, NLM_F_CREATE | NLM_F_EXCL, _source_rule(operation))
        case AddInterfaceRule(rule):
            return Request(NEWRULE, NLM_F_CREATE | NLM_F_EXCL, _interface_rule(rule))
        case DeleteInterfaceRule(rule):
            return Request(DELRULE, 0, _interface_rule(rule))
        case AddPortRule(port_rule):
            return Request(NEWRULE, NLM_F_CREATE | NLM_F_EXCL, _port_rule(port_rule))
        case DeletePortRule(port_rule):
            return Request(DELRULE, 0, _port_rule(port_rule))
        case _:
            raise TypeError(f"not an rtnetlink operation: {operation!r}")


def _veth(operation: AddVeth) -> bytes:
    def end(name: str, mac: str, namespace: int | None, index: int) -> bytes:
        body = _IFINFO.pack(0, 0, index, 0, 0) + attribute(_IFLA_IFNAME, text(name))
        if mac:
            body += attribute(_IFLA_ADDRESS, render_mac(mac))
        if operation.mtu:
            body += attribute(_IFLA_MTU, u32(operation.mtu))
        if namespace is not None:
            body += attribute(_IFLA_NET_NS_FD, u32(namespace))
        return body

    peer = attribute(_VETH_INFO_PEER, end(operation.peer_name, operation.peer_mac, operation.peer_namespace, operation.peer_index))
    information = nested(_IFLA_LINKINFO, attribute(_IFLA_INFO_KIND, b"veth"), nested(_IFLA_INFO_DATA, peer))
    return end(operation.name, operation.mac, None, operation.index) + information


def _tunnel(operation: AddVxlan | AddIpip) -> bytes:
    body = _IFINFO.pack(0, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, text(operation.name)) + attribute(_IFLA_MTU, u32(operation.mtu))
    if isinstance(operation, AddVxlan):
        body += attribute(_IFLA_ADDRESS, render_mac(operation.mac))
        kind, data = b"vxlan", tunnelcodec.render_vxlan(operation.vxlan)
    else:
        kind, data = b"ipip", tunnelcodec.render_ipip()
    return body + nested(_IFLA_LINKINFO, attribute(_IFLA_INFO_KIND, kind), nested(_IFLA_INFO_DATA, data))


def _vlan(operation: AddVlan) -> bytes:
    flags = _VLAN_FLAGS_FORM.pack(_VLAN_FLAG_LOOSE_BINDING, _VLAN_FLAG_LOOSE_BINDING)
    data = attribute(_VLAN_ID, _VLAN_ID_FORM.pack(operation.tag)) + attribute(_VLAN_FLAGS, flags)
    body = _IFINFO.pack(0, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, text(operation.name)) + attribute(_IFLA_LINK, u32(operation.parent))
    return body + nested(_IFLA_LINKINFO, attribute(_IFLA_INFO_KIND, b"vlan"), nested(_IFLA_INFO_DATA, data))


def _set_link(operation: SetLink) -> bytes:
    flags = _IFF_UP if operation.up else 0
    change = 0 if operation.up is None else _IFF_UP
    body = _IFINFO.pack(0, 0, operation.index, flags, change)
    if operation.name:
        body += attribute(_IFLA_IFNAME, text(operation.name))
    if operation.mac:
        body += attribute(_IFLA_ADDRESS, render_mac(operation.mac))
    if operation.mtu:
        body += attribute(_IFLA_MTU, u32(operation.mtu))
    if operation.alias is not None:
        body += attribute(_IFLA_IFALIAS, text(operation.alias))
    if operation.namespace is not None:
        body += attribute(_IFLA_NET_NS_FD, u32(operation.namespace))
    return body


def _address(address: InterfaceAddress) -> bytes:
    host = address.address
    head = _IFADDR.pack(_AF[host.family], address.length, _IFA_F_NODAD if host.family == IPV6 else 0, _address_scope(host), address.index)
    return head + attribute(_IFA_LOCAL, host.packed) + attribute(_IFA_ADDRESS, host.packed)


def _address_scope(host: Prefix) -> int:
    """Loopback and link-local addresses are not valid beyond; IPv6 addresses know it themselves."""
    if host.family == IPV6:
        return SCOPE_UNIVERSE
    if host.value >> 24 == 127:
        return SCOPE_HOST
    return SCOPE_LINK if host.value >> 16 == 0xA9FE else SCOPE_UNIVERSE


def _neighbour(neighbour: Neighbour) -> bytes:
    body = _NEIGHBOUR.pack(_AF[neighbour.address.family], neighbour.index, _NUD_PERMANENT, 0, 0) + attribute(
        _NDA_DST, neighbour.address.packed
    )
    return body + attribute(_NDA_LLADDR, render_mac(neighbour.mac)) if neighbour.mac else body


def _route_head(route: Route, scope: int) -> bytes:
    table = route.table if route.table < 256 else 0
    flags = _RTNH_F_ONLINK if any(hop.on_link for hop in route.hops) else 0
    head = _ROUTE.pack(_AF[route.destination.family], route.destination.length, 0, 0, table, route.protocol, scope, route.kind, flags)
    body = attribute(_RTA_DST, route.destination.packed) if route.destination.length else b""
    return head + body + attribute(_RTA_TABLE, u32(route.table)) + (attribute(_RTA_PRIORITY, u32(route.metric)) if route.metric else b"")


def _route_key(route: Route) -> bytes:
    """Enough to say which route is meant; the hops may have changed since."""
    return _route_head(route, _SCOPE_NOWHERE)


def _route(route: Route) -> bytes:
    body = _route_head(route, route.scope)
    if route.source is not None:
        body += attribute(_RTA_PREFSRC, route.source.packed)
    if len(route.hops) == 1:
        return body + _hop_attributes(route.hops[0])
    if route.hops:
        body += attribute(_RTA_MULTIPATH, b"".join(_render_hop(hop) for hop in route.hops))
    return body


def _source_rule(rule: AddSourceRule) -> bytes:
    source = rule.source
    body = _RULE.pack(_AF[source.family], 0, source.length, 0, 0, _FR_ACT_TO_TBL, 0) + attribute(_FRA_SRC, source.packed)
    body += attribute(_FRA_PRIORITY, u32(rule.priority)) + attribute(_FRA_TABLE, u32(rule.table))
    return body + attribute(_FRA_PROTOCOL, bytes((TABINET_PROTOCOL,)))


def _interface_rule(rule: InterfaceRule) -> bytes:
    body = _RULE.pack(_AF[rule.family], 0, 0, 0, 0, _FR_ACT_TO_TBL, 0) + attribute(_FRA_IIFNAME, text(rule.interface))
    body += attribute(_FRA_PRIORITY, u32(rule.priority)) + attribute(_FRA_TABLE, u32(rule.table))
    return body + attribute(_FRA_PROTOCOL, bytes((TABINET_PROTOCOL,)))


def _port_rule(rule: PortRule) -> bytes:
    net = rule.destination
    body = _RULE.pack(_AF[net.family], net.length, 0, 0, 0, _FR_ACT_TO_TBL, 0) + attribute(_FRA_DST, net.packed)
    body += attribute(_FRA_PRIORITY, u32(rule.priority)) + attribute(_FRA_TABLE, u32(rule.table))
    body += attribute(_FRA_IP_PROTO, bytes((rule.protocol,)))
    body += attribute(_FRA_DPORT_RANGE, _PORTS.pack(rule.first_port, rule.last_port))
    return body + attribute(_FRA_PROTOCOL, bytes((TABINET_PROTOCOL,)))


def _hop_attributes(hop: Hop) -> bytes:
    body = attribute(_RTA_OIF, u32(hop.index)) if hop.index else b""
    return body + attribute(_RTA_GATEWAY, hop.gateway.packed) if hop.gateway is not None else body


def _render_hop(hop: Hop) -> bytes:
    gateway = attribute(_RTA_GATEWAY, hop.gateway.packed) if hop.gateway is not None else b""
    return _HOP.pack(_HOP.size + len(gateway), 0, hop.weight - 1, hop.index) + gateway


# --- requests to read -----------------------------------------------------------------------------------------------


def get_links() -> Request:
    """Dump of all links, without their statistics, which are most of the bytes."""
    return Request(GETLINK, 0, _IFINFO.pack(0, 0, 0, 0, 0) + attribute(_IFLA_EXT_MASK, u32(_SKIP_STATISTICS)))


def get_link(name: str) -> Request:
    """The link of this name, without its statistics."""
    attributes = attribute(_IFLA_IFNAME, text(name)) + attribute(_IFLA_EXT_MASK, u32(_SKIP_STATISTICS))
    return Request(GETLINK, 0, _IFINFO.pack(0, 0, 0, 0, 0) + attributes)


def get_addresses() -> Request:
    """Dump of all addresses of both families."""
    return Request(GETADDR, 0, _IFADDR.pack(0, 0, 0, 0, 0))


def get_neighbours(family: int) -> Request:
    """Dump of all neighbours of AF_INET or AF_INET6."""
    return Request(GETNEIGH, 0, _NEIGHBOUR.pack(family, 0, 0, 0, 0))


def get_routes(family: int, protocol: int, table: int) -> Request:
    """Dump of the routes of AF_INET or AF_INET6 in a table, filtered by the kernel (NETLINK_GET_STRICT_CHK)."""
    head = _ROUTE.pack(family, 0, 0, 0, table if table < 256 else 0, protocol, 0, 0, 0)
    return Request(GETROUTE, 0, head + attribute(_RTA_TABLE, u32(table)))


def get_rules(family: int) -> Request:
    """Dump of the routing rules of AF_INET or AF_INET6."""
    return Request(GETRULE, 0, _RULE.pack(family, 0, 0, 0, 0, 0, 0))


# --- messages to records --------------------------------------------------------------------------------------------


def _u32(data: bytes | None) -> int:
    return struct.unpack("=I", data)[0] if data is not None and len(data) == 4 else 0


def _prefix(family: int, data: bytes, length: int | None = None) -> Prefix:
    """The address in network order, host bits cleared.

    Raises:
        KernelError: EBADMSG when the size is not the family's.
    """
    bits = BITS[family]
    length = bits if length is None else length
    if len(data) * 8 != bits or length > bits:
        raise KernelError(errno.EBADMSG, f"parse address of IPv{family} from {len(data)} bytes")
    shift = bits - length
    return Prefix(family, int.from_bytes(data, "big") >> shift << shift, length)


def _head(layout: struct.Struct, message: Message) -> tuple[int, ...]:
    if len(message.payload) < layout.size:
        raise KernelError(errno.EBADMSG, f"parse rtnetlink message of type {message.type}")
    return layout.unpack_from(message.payload)


def parse_link(message: Message) -> Link | None:
    """A NEWLINK or DELLINK. None when it is about a bridge's port, not about the interface itself."""
    family, _, index, flags, _ = _head(_IFINFO, message)
    if family != socket.AF_UNSPEC:
        return None
    found = parse_attributes(message.payload, _IFINFO.size)
    information = parse_attributes(found.get(_IFLA_LINKINFO, b""))
    kind = parse_text(information.get(_IFLA_INFO_KIND, b""))
    data = information.get(_IFLA_INFO_DATA, b"")
    return Link(
        index=index,
        name=parse_text(found.get(_IFLA_IFNAME, b"")),
        # the "hardware address" of an IP tunnel is its IP address
        mac=parse_mac(found.get(_IFLA_ADDRESS, b"")) if kind not in ("ipip", "sit", "gre", "ip6tnl") else "",
        mtu=_u32(found.get(_IFLA_MTU)),
        up=bool(flags & _IFF_UP),
        carrier=bool(flags & _IFF_LOWER_UP),
        running=bool(flags & _IFF_RUNNING),
        kind=kind,
        peer_index=_u32(found.get(_IFLA_LINK)) if kind != "vxlan" else 0,
        alias=parse_text(found.get(_IFLA_IFALIAS, b"")),
        vxlan=tunnelcodec.parse_vxlan(data) if kind == "vxlan" else None,
        vlan=_vlan_tag(data) if kind == "vlan" else 0,
    )


def _vlan_tag(data: bytes) -> int:
    value = parse_attributes(data).get(_VLAN_ID, b"")
    return int(_VLAN_ID_FORM.unpack(value)[0]) if len(value) == _VLAN_ID_FORM.size else 0


def parse_address(message: Message) -> InterfaceAddress | None:
    """A NEWADDR or DELADDR."""
    number, length, _, _, index = _head(_IFADDR, message)
    family = _FAMILY.get(number)
    if family is None:
        return None
    found = parse_attributes(message.payload, _IFADDR.size)
    data = found.get(_IFA_LOCAL, found.get(_IFA_ADDRESS, b""))  # they differ on point-to-point interfaces; LOCAL is ours
    return InterfaceAddress(index, _prefix(family, data), length)


def parse_neighbour(message: Message) -> Neighbour | None:
    """A NEWNEIGH or DELNEIGH. None for bridges' forwarding entries."""
    number, index, state, _, _ = _head(_NEIGHBOUR, message)
    family = _FAMILY.get(number)
    if family is None:
        return None
    found = parse_attributes(message.payload, _NEIGHBOUR.size)
    if _NDA_DST not in found:
        return None
    return Neighbour(index, _prefix(family, found[_NDA_DST]), parse_mac(found.get(_NDA_LLADDR, b"")), bool(state & _NUD_PERMANENT))


def parse_route(message: Message) -> Route | None:
    """A NEWROUTE or DELROUTE. None for cached routes and families that are not IP."""
    number, length, _, _, table, protocol, scope, kind, flags = _head(_ROUTE, message)
    family = _FAMILY.get(number)
    if family is None or flags & _RTM_F_CLONED or kind not in RouteKind._value2member_map_:
        return None
    found = parse_attributes(message.payload, _ROUTE.size)
    zero = bytes(BITS[family] // 8)
    return Route(
        destination=_prefix(family, found.get(_RTA_DST, zero), length),
        hops=_parse_hops(family, kind, found, on_link=bool(flags & _RTNH_F_ONLINK)),
        kind=RouteKind(kind),
        protocol=protocol,
        table=_u32(found.get(_RTA_TABLE)) or table,
        metric=_u32(found.get(_RTA_PRIORITY)),
        scope=scope,
        source=_prefix(family, found[_RTA_PREFSRC]) if _RTA_PREFSRC in found else None,
    )


def parse_interface_rule(message: Message) -> InterfaceRule | None:
    """The rule; None for one that is about something else than an interface, or not ours."""
    family = _FAMILY.get(_head(_RULE, message)[0])
    found = parse_attributes(message.payload, _RULE.size)
    if family is None or _FRA_IIFNAME not in found or found.get(_FRA_PROTOCOL) != bytes((TABINET_PROTOCOL,)):
        return None
    return InterfaceRule(parse_text(found[_FRA_IIFNAME]), family, _u32(found.get(_FRA_TABLE)), _u32(found.get(_FRA_PRIORITY)))


def parse_port_rule(message: Message) -> PortRule | None:
    """The rule; None for one that is about something else than ports of an address, or not ours."""
    number, length = _head(_RULE, message)[:2]
    family = _FAMILY.get(number)
    found = parse_attributes(message.payload, _RULE.size)
    wanted = {_FRA_DST, _FRA_IP_PROTO, _FRA_DPORT_RANGE}
    if family is None or wanted - found.keys() or found.get(_FRA_PROTOCOL) != bytes((TABINET_PROTOCOL,)):
        return None
    first, last = _PORTS.unpack(found[_FRA_DPORT_RANGE])
    destination = _prefix(family, found[_FRA_DST], length)
    return PortRule(destination, found[_FRA_IP_PROTO][0], first, last, _u32(found.get(_FRA_TABLE)), _u32(found.get(_FRA_PRIORITY)))


def _parse_hops(family: int, kind: int, found: dict[int, bytes], *, on_link: bool) -> tuple[Hop, ...]:
    if kind in (RouteKind.BLACKHOLE, RouteKind.UNREACHABLE, RouteKind.PROHIBIT, RouteKind.THROW):
        return ()  # IPv6 names the loopback interface here, IPv4 none
    if _RTA_MULTIPATH not in found:
        return (Hop(_u32(found.get(_RTA_OIF)), _parse_gateway(family, found), on_link=on_link),)
    hops = []
    data, offset = found[_RTA_MULTIPATH], 0
    while offset + _HOP.size <= len(data):
        size, _, weight, index = _HOP.unpack_from(data, offset)
        if size < _HOP.size:
            raise KernelError(errno.EBADMSG, "parse hops of a route")
        inner = parse_attributes(data[offset + _HOP.size : offset + size])
        hops.append(Hop(index, _parse_gateway(family, inner), weight + 1))
        offset += (size + 3) & ~3
    return tuple(hops)


def _parse_gateway(family: int, found: dict[int, bytes]) -> Prefix | None:
    if _RTA_GATEWAY in found:
        return _prefix(family, found[_RTA_GATEWAY])
    if _RTA_VIA in found:  # an IPv4 route through an IPv6 gateway (RFC 8950)
        via = found[_RTA_VIA]
        other = _FAMILY.get(struct.unpack_from("=H", via)[0]) if len(via) >= 2 else None
        return _prefix(other, via[2:]) if other is not None else None
    return None


def parse_event(message: Message) -> Event | None:
    """What a notification says; None when it is about nothing that we know."""
    match message.type:
        case 16 | 17:
            link = parse_link(message)
            return LinkEvent(link, message.type == DELLINK) if link else None
        case 20 | 21:
            address = parse_address(message)
            return AddressEvent(address, message.type == DELADDR) if address else None
        case 24 | 25:
            route = parse_route(message)
            return RouteEvent(route, message.type == DELROUTE, message.sender) if route else None
        case 28 | 29:
            entry = tunnelcodec.parse_forwarding(message)
            if entry is not None:
                return ForwardingEvent(entry, message.type == DELNEIGH)
            neighbour = parse_neighbour(message)
            return NeighbourEvent(neighbour, message.type == DELNEIGH) if neighbour else None
        case _:
            return None

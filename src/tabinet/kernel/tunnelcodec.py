"""The part of rtnetlink's bytes that is about tunnels: what interfaces are made of, and whom a VXLAN interface sends to. Pure.

Sources: linux/if_link.h (IFLA_VXLAN_*), linux/if_tunnel.h (IFLA_IPTUN_*), linux/neighbour.h, bridge(8), ip-link(8).
"""

from __future__ import annotations

import socket
import struct

from tabinet.kernel.netlink import Message, Request, attribute, parse_attributes
from tabinet.kernel.rtnetlink import Forwarding, Vxlan
from tabinet.lib.ip import IPV4, IPV6, Prefix

NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30

_VXLAN_ID, _VXLAN_LOCAL, _VXLAN_LEARNING, _VXLAN_PORT, _VXLAN_LOCAL6 = 1, 4, 7, 15, 17
_IPTUN_TTL, _IPTUN_PROTO, _IPTUN_PMTUDISC = 4, 9, 10
_IPPROTO_IPIP = 4
_NDA_DST, _NDA_LLADDR = 1, 2
_NTF_SELF = 2
_NUD_NOARP, _NUD_PERMANENT = 0x40, 0x80

_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
_U32, _PORT = struct.Struct("=I"), struct.Struct("!H")


def render_vxlan(vxlan: Vxlan) -> bytes:
    """IFLA_INFO_DATA of a VXLAN interface. It is tied to no other interface, so that all paths to the other host are used."""
    body = attribute(_VXLAN_ID, _U32.pack(vxlan.vni)) + attribute(_VXLAN_LEARNING, b"\0") + attribute(_VXLAN_PORT, _PORT.pack(vxlan.port))
    if vxlan.local is not None:
        body += attribute(_VXLAN_LOCAL if vxlan.local.family == IPV4 else _VXLAN_LOCAL6, vxlan.local.packed)
    return body


def parse_vxlan(data: bytes) -> Vxlan | None:
    """What IFLA_INFO_DATA of a VXLAN interface says; ``None`` when it says nothing."""
    found = parse_attributes(data)
    if len(found.get(_VXLAN_ID, b"")) != _U32.size or len(found.get(_VXLAN_PORT, b"")) != _PORT.size:
        return None
    local = None
    for kind, family in ((_VXLAN_LOCAL, IPV4), (_VXLAN_LOCAL6, IPV6)):
        address = _address(found.get(kind, b""))
        if address is not None and address.family == family and address.value:
            local = address
    return Vxlan(_U32.unpack(found[_VXLAN_ID])[0], _PORT.unpack(found[_VXLAN_PORT])[0], local)


def render_ipip() -> bytes:
    """IFLA_INFO_DATA of an IP-in-IP interface from and to anywhere; as RFC 2003 section 5.1 has it, the path's MTU is found."""
    return attribute(_IPTUN_PROTO, bytes((_IPPROTO_IPIP,))) + attribute(_IPTUN_TTL, b"\0") + attribute(_IPTUN_PMTUDISC, b"\1")


def render_forwarding(entry: Forwarding, mac: bytes) -> bytes:
    """The payload of a NEWNEIGH or DELNEIGH about it."""
    head = _NEIGHBOUR.pack(int(socket.AF_BRIDGE), entry.index, _NUD_NOARP | _NUD_PERMANENT, _NTF_SELF, 0)
    return head + attribute(_NDA_LLADDR, mac) + attribute(_NDA_DST, entry.remote.packed)


def get_forwarding(index: int) -> Request:
    """Dump of the entries of one interface."""
    return Request(GETNEIGH, 0, _NEIGHBOUR.pack(int(socket.AF_BRIDGE), index, 0, 0, 0))


def parse_forwarding(message: Message) -> Forwarding | None:
    """A NEWNEIGH or DELNEIGH. ``None`` when it is not about a permanent entry that leads to another host."""
    if len(message.payload) < _NEIGHBOUR.size:
        return None
    family, index, state, _, _ = _NEIGHBOUR.unpack_from(message.payload)
    if family != socket.AF_BRIDGE or not state & _NUD_PERMANENT:
        return None
    found = parse_attributes(message.payload, _NEIGHBOUR.size)
    mac, remote = found.get(_NDA_LLADDR, b""), _address(found.get(_NDA_DST, b""))
    return Forwarding(index, mac.hex(":"), remote) if len(mac) == 6 and remote is not None else None


def _address(data: bytes) -> Prefix | None:
    """The address in network order; ``None`` for any other size."""
    if len(data) not in (4, 16):
        return None
    return Prefix(IPV4 if len(data) == 4 else IPV6, int.from_bytes(data, "big"), len(data) * 8)

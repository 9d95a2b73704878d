"""Announcements of addresses on a guest's link: a host's, to a guest that has just come from another host, that its gateways are here now;
and guests', that an address is theirs, as a machine does that takes an address over from another one (VRRP: RFC 9568).

In: the hardware addresses of guest and host, addresses; frames of guests. Out: Ethernet frames; ``Announcement``. Pure; linear in the
gateways.

A guest that was moved remembers where its gateway was on the host that it came from. Where the interfaces of the two hosts have
different hardware addresses its packets would be dropped (PACKET_OTHERHOST) until it asks anew, which takes Linux 24 to 57 s. An
announcement changes the entry at once: ARP with the gateway as sender and target (RFC 5227 section 3), and an unsolicited neighbour
advertisement that overrides (RFC 4861 section 7.2.6). The frames go to the guest alone.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import msgspec

from tabinet.errors import PacketError
from tabinet.guest.advert import ROUTER
from tabinet.guest.frames import ICMP6, Frame, parse_frame, render_frame
from tabinet.guest.neighbours import ADVERTISEMENT, HOPS, SOLICITATION
from tabinet.lib.ip import IPV4, IPV6, Prefix, parse_address

BROADCAST = b"\xff" * 6
_ARP = struct.Struct(">HHBBH6s4s6s4s")
_ADVERTISEMENT = struct.Struct(">BBHI16sBB6s")
_ETHERNET, _ARP_TYPE, _IPV4_TYPE, _REQUEST, _REPLY = 1, 0x0806, 0x0800, 1, 2
_ARP_AT = 14
_ROUTER, _SOLICITED, _OVERRIDE = 0x80000000, 0x40000000, 0x20000000
_SOURCE_LINK_LAYER, _TARGET_LINK_LAYER = 1, 2
_HOST4 = parse_address("169.254.1.1")
_ALL_NODES = bytes.fromhex("ff02" + "00" * 13 + "01")


def render_announcements(gateways: Iterable[Prefix], guest_mac: bytes, host_mac: bytes) -> Iterator[bytes]:
    """A frame for each gateway: it is at ``host_mac``. ``guest_mac``: who is told; all ones when nobody knows it."""
    for gateway in gateways:
        address = gateway.packed
        if gateway.family == IPV4:
            arp = _ARP.pack(_ETHERNET, _IPV4_TYPE, 6, 4, _REQUEST, host_mac, address, bytes(6), address)
            yield guest_mac + host_mac + struct.pack(">H", _ARP_TYPE) + arp.ljust(46, b"\0")
        else:
            flags = _ROUTER | _OVERRIDE
            message = _ADVERTISEMENT.pack(ADVERTISEMENT, 0, 0, flags, address, _TARGET_LINK_LAYER, 1, host_mac)
            frame = Frame(
                to_mac=guest_mac, from_mac=host_mac, source=address, target=_ALL_NODES, protocol=ICMP6, hops=HOPS, payload=message
            )
            yield render_frame(frame)


class Announcement(msgspec.Struct, frozen=True, gc=False):
    """A guest says that an address is its own."""

    mac: str
    """Whose frame it is."""
    address: Prefix
    asked: bool
    """It answers a question. False: it says so of itself, which it does when it takes the address."""


def parse_announcement(frame: bytes) -> Announcement | None:
    """What a guest's frame announces: by ARP (sender and target are the same address; RFC 5227 section 3), or an answer; by a neighbour
    advertisement, which is unsolicited or an answer (RFC 4861 section 7.2). None: nothing."""
    mac = frame[6:12].hex(":")
    if frame[12:14] == _ARP_TYPE.to_bytes(2, "big"):
        if len(frame) < _ARP_AT + _ARP.size:
            return None
        hardware, protocol, long, short, kind, _, sender, _, target = _ARP.unpack_from(frame, _ARP_AT)
        if (hardware, protocol, long, short) != (_ETHERNET, _IPV4_TYPE, 6, 4) or (sender != target and kind != _REPLY):
            return None
        return Announcement(mac, Prefix(IPV4, int.from_bytes(sender, "big"), 32), sender != target)
    try:
        found = parse_frame(frame)
    except PacketError:
        return None
    if found.protocol != ICMP6 or found.hops != HOPS or len(found.payload) < 24 or found.payload[0] != ADVERTISEMENT:
        return None
    _, _, _, flags, address = struct.unpack_from(">BBHI16s", found.payload)
    return Announcement(mac, Prefix(IPV6, int.from_bytes(address, "big"), 128), bool(flags & _SOLICITED))


def render_question(address: Prefix, host_mac: bytes) -> bytes:
    """A frame to everybody on the link: who has the address. Answered by whoever has it to the host's own address on the link."""
    packed = address.packed
    if address.family == IPV4:
        arp = _ARP.pack(_ETHERNET, _IPV4_TYPE, 6, 4, _REQUEST, host_mac, _HOST4.packed, bytes(6), packed)
        return BROADCAST + host_mac + struct.pack(">H", _ARP_TYPE) + arp.ljust(46, b"\0")
    group = bytes.fromhex("ff02" + "00" * 9 + "01ff") + packed[13:]  # RFC 4291 section 2.7.1
    message = struct.pack(">BBHI16sBB6s", SOLICITATION, 0, 0, 0, packed, _SOURCE_LINK_LAYER, 1, host_mac)
    frame = Frame(
        to_mac=b"\x33\x33" + group[12:], from_mac=host_mac, source=ROUTER.packed, target=group, protocol=ICMP6, hops=HOPS, payload=message
    )
    return render_frame(frame)

"""What a host tells a guest that has just come from another host: that its gateways are here now.

In: the hardware addresses of guest and host, the gateways' addresses. Out: Ethernet frames. Pure; linear in the gateways.

A guest that was moved remembers where its gateway was on the host that it came from. Where the interfaces of the two hosts have
different hardware addresses its packets would be dropped (PACKET_OTHERHOST) until it asks anew, which takes Linux 24 to 57 s. An
announcement changes the entry at once: ARP with the gateway as sender and target (RFC 5227 section 3), and an unsolicited neighbour
advertisement that overrides (RFC 4861 section 7.2.6). The frames go to the guest alone.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from tabinet.guest.frames import ICMP6, Frame, render_frame
from tabinet.guest.neighbours import ADVERTISEMENT, HOPS
from tabinet.lib.ip import IPV4, Prefix

BROADCAST = b"\xff" * 6
_ARP = struct.Struct(">HHBBH6s4s6s4s")
_ADVERTISEMENT = struct.Struct(">BBHI16sBB6s")
_ETHERNET, _ARP_TYPE, _IPV4_TYPE, _REQUEST = 1, 0x0806, 0x0800, 1
_ROUTER, _OVERRIDE = 0x80000000, 0x20000000
_TARGET_LINK_LAYER = 2
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

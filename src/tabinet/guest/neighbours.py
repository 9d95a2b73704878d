"""Neighbour solicitations of guests, and what is answered (RFC 4861 sections 4.3, 4.4 and 7.2): the host, for everybody else.

In: an ICMPv6 message, a port. Out: an advertisement, or why there is none. Pure; linear in the port's addresses.

A guest that takes a prefix for its link looks there for its neighbours, and for its subnet's router. In a routed network all of them are
behind its host, so the host says that they are where it is: for every address in the prefix, whether or not somebody has it, as proxy
ARP does for IPv4. Not for the guest's own addresses, and not when a guest asks whether an address is in use (duplicate address
detection): it would have to give its own up. Only the guest that asks is told, and of itself it would send to nobody else.
"""

from __future__ import annotations

import enum
import struct

from tabinet.guest.directory import Directory, Port
from tabinet.lib.ip import IPV6, Prefix

SOLICITATION, ADVERTISEMENT = 135, 136
HOPS = 255
_HEAD = struct.Struct(">BBHI16s")
_ROUTER, _SOLICITED = 0x80000000, 0x40000000
_TARGET_LINK_LAYER = 2
_UNSPECIFIED, _MULTICAST = bytes(16), 0xFF
_LINK_BITS = 64
"""Length of a prefix on a link, where nobody says another one (RFC 4291 section 2.5.1)."""


class Unanswered(enum.Enum):
    """Why a solicitation is not answered."""

    MALFORMED = "not a neighbour solicitation"
    DETECTION = "duplicate address detection"
    OWN = "about the guest's own address"
    ELSEWHERE = "about an address outside the guest's prefixes"


def link_prefixes(port: Port, directory: Directory) -> list[Prefix]:
    """What a guest may take for its link: its subnets, or else the /64 of each of its addresses."""
    found: dict[Prefix, None] = {}
    for address in port.addresses:
        if address.family == IPV6:
            subnet = directory.subnet(port, address) if port.is_neutrons else None
            shift = 128 - _LINK_BITS
            found[subnet.net if subnet is not None else Prefix(IPV6, address.value >> shift << shift, _LINK_BITS)] = None
    return list(found)


def decide(data: bytes, source: bytes, hops: int, port: Port, directory: Directory) -> Prefix | Unanswered:
    """The address that a solicitation of the port's guest asks for, if the host answers for it."""
    if hops != HOPS or len(data) < _HEAD.size or data[0] != SOLICITATION or data[1] != 0 or data[8] == _MULTICAST:
        return Unanswered.MALFORMED
    if source == _UNSPECIFIED:
        return Unanswered.DETECTION
    target = Prefix(IPV6, int.from_bytes(data[8:24], "big"), 128)
    if target in port.addresses:
        return Unanswered.OWN
    if not any(prefix.contains(target) for prefix in link_prefixes(port, directory)):
        return Unanswered.ELSEWHERE
    return target


def render_advertisement(target: Prefix, mac: bytes) -> bytes:
    """The ICMPv6 message that says the target is at ``mac``, with a checksum of 0. It does not override what the guest knows, because it
    is said for another (RFC 4861 section 7.2.8)."""
    return _HEAD.pack(ADVERTISEMENT, 0, 0, _ROUTER | _SOLICITED, target.packed) + bytes((_TARGET_LINK_LAYER, 1)) + mac

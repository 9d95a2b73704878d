"""Ethernet frames with IPv6 in them (RFC 2464, RFC 8200), as far as guests are answered over them: UDP and ICMPv6, without
extension headers.

In: a frame, or a ``Frame``. Out: the other one. Any bytes give a ``Frame`` or a ``PacketError``;
``parse_frame(render_frame(frame)) == frame``. Pure; linear in the bytes.

Checksums are written and not looked at: between a guest and its host there is no wire, and a virtual interface hands on what the guest's
kernel left to hardware to sum up.
"""

from __future__ import annotations

import struct

import msgspec

from tabinet.errors import PacketError

UDP, ICMP6 = 17, 58
HEAD_BYTES = 54
"""Before what IPv6 carries."""
UDP_BYTES = 8
_ETHERTYPE = 0x86DD
_HEAD = struct.Struct(">6s6sHIHBB16s16s")
_UDP = struct.Struct(">HHHH")
_VERSION = 6 << 28
_CHECKSUM_AT = {UDP: 6, ICMP6: 2}


class Frame(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One frame. Hardware addresses have six bytes, others sixteen."""

    to_mac: bytes
    from_mac: bytes
    source: bytes
    target: bytes
    protocol: int
    """``UDP`` or ``ICMP6``."""
    hops: int
    payload: bytes
    """With the header of UDP or ICMPv6, and 0 for the checksum."""


def parse_frame(data: bytes) -> Frame:
    """The frame.

    Raises:
        PacketError: it is none with UDP or ICMPv6 right in IPv6, or it is cut off.
    """
    if len(data) < HEAD_BYTES:
        raise PacketError("a frame that is cut off")
    to_mac, from_mac, ethertype, first, length, protocol, hops, source, target = _HEAD.unpack_from(data)
    place = _CHECKSUM_AT.get(protocol)
    if ethertype != _ETHERTYPE or first >> 28 != 6 or place is None:
        raise PacketError("neither UDP nor ICMPv6 in IPv6")
    payload = data[HEAD_BYTES : HEAD_BYTES + length]
    if len(payload) < length or length < UDP_BYTES:
        raise PacketError("a packet that is cut off")
    payload = payload[:place] + b"\0\0" + payload[place + 2 :]
    return Frame(to_mac=to_mac, from_mac=from_mac, source=source, target=target, protocol=protocol, hops=hops, payload=payload)


def render_frame(frame: Frame) -> bytes:
    """The frame's bytes, with the checksum."""
    payload, place = frame.payload, _CHECKSUM_AT[frame.protocol]
    total = checksum(frame.source + frame.target + struct.pack(">II", len(payload), frame.protocol) + payload)
    payload = payload[:place] + total.to_bytes(2, "big") + payload[place + 2 :]
    head = _HEAD.pack(
        frame.to_mac, frame.from_mac, _ETHERTYPE, _VERSION, len(payload), frame.protocol, frame.hops, frame.source, frame.target
    )
    return head + payload


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071), never 0, which would mean that there is none in UDP (RFC 8200 section 8.1)."""
    total = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF or 0xFFFF


def udp_datagram(source_port: int, target_port: int, data: bytes) -> bytes:
    """A payload for ``Frame``."""
    return _UDP.pack(source_port, target_port, UDP_BYTES + len(data), 0) + data


def parse_udp(payload: bytes) -> tuple[int, int, bytes]:
    """Source port, target port and data of a frame's payload.

    Raises:
        PacketError: it is cut off.
    """
    source, target, length, _ = _UDP.unpack_from(payload)
    if not UDP_BYTES <= length <= len(payload):
        raise PacketError("a datagram that is cut off")
    return source, target, payload[UDP_BYTES:length]

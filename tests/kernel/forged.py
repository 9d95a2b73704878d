"""Frames as a malicious guest would make them, and a raw interface to send them by and to see what comes. No code of the product in it."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable

from fence import LOST_S, settle

ETH_P_ALL, IPV4, ARP, IPV6 = 3, 0x0800, 0x0806, 0x86DD
EVERYBODY = "ff:ff:ff:ff:ff:ff"


def mac_bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def ether(target: str, source: str, kind: int, payload: bytes) -> bytes:
    return mac_bytes(target) + mac_bytes(source) + struct.pack(">H", kind) + payload


def _sum(data: bytes) -> int:
    total = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(source: str, target: str, protocol: int, payload: bytes) -> bytes:
    addresses = socket.inet_aton(source) + socket.inet_aton(target)
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0) + addresses
    return head[:10] + struct.pack(">H", _sum(head)) + head[12:] + payload


def ipv6(source: str, target: str, protocol: int, payload: bytes, hops: int = 255) -> bytes:
    """The checksum of UDP or ICMPv6 in ``payload`` is filled in."""
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target)
    place = {17: 6, 58: 2}[protocol]
    total = _sum(addresses + struct.pack(">II", len(payload), protocol) + payload)
    payload = payload[:place] + struct.pack(">H", total or 0xFFFF) + payload[place + 2 :]
    return struct.pack(">IHBB", 6 << 28, len(payload), protocol, hops) + addresses + payload


def udp(source: int, target: int, data: bytes) -> bytes:
    return struct.pack(">HHHH", source, target, 8 + len(data), 0) + data


def icmp4(kind: int, code: int, rest: bytes) -> bytes:
    data = bytes((kind, code, 0, 0)) + rest
    return data[:2] + struct.pack(">H", _sum(data)) + data[4:]


def icmp6(kind: int, rest: bytes) -> bytes:
    return bytes((kind, 0, 0, 0)) + rest


def arp(operation: int, mac: str, address: str, asked: str, target_mac: str = "00:00:00:00:00:00") -> bytes:
    head = struct.pack(">HHBBH", 1, IPV4, 6, 4, operation)
    return head + mac_bytes(mac) + socket.inet_aton(address) + mac_bytes(target_mac) + socket.inet_aton(asked)


class Wire:
    """A guest's end of its link."""

    def __init__(self, sock: socket.socket) -> None:
        """``sock``: a packet socket that is bound to the interface."""
        self.sock = sock
        self.sock.setblocking(False)

    def send(self, *frames: bytes) -> None:
        """All are on their way; where the kernel is behind, that is waited for."""
        for frame in frames:
            while True:
                try:
                    self.sock.send(frame)
                    break
                except BlockingIOError:
                    assert select.select([], [self.sock], [], LOST_S)[1], "the link takes no frames any more"

    def seen(self, what: Callable[[bytes], bool]) -> list[bytes]:
        """What has come in until now that is like this; everything else is forgotten."""
        settle()
        found = []
        while True:
            try:
                data, address = self.sock.recvfrom(2000)
            except BlockingIOError:
                return found
            if address[2] != socket.PACKET_OUTGOING and what(data):
                found.append(data)


def open_wire(interface: str = "eth0") -> Wire:
    """In the network namespace of the calling thread."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sock.bind((interface, 0))
    return Wire(sock)

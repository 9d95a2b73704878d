"""The sockets over which guests are answered: one for all interfaces, because thousands of them are no reason for thousands of sockets.

In: datagrams with the interface that they came by. Out: datagrams to one interface. A filter of the kernel keeps out what comes from the
interfaces that are shut off (bpf(4): classic programs; SKF_AD_IFINDEX in linux/filter.h). A socket belongs to the network namespace of the
thread that opened it. Sources: ip(7), ipv6(7), RFC 3542. Never waits: what the kernel does not take is lost, and the guest asks again.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterable

import msgspec

from tabinet.errors import SetupError
from tabinet.guest.dhcp4 import CLIENT_PORT, SERVER_PORT, UNSPECIFIED

_IP_PKTINFO = 8
_SO_ATTACH_FILTER, _SO_DETACH_FILTER, _SO_RCVBUFFORCE = 26, 27, 33
_BUFFER_BYTES = 4 << 20
_LONGEST_BYTES = 9000
_PKTINFO = struct.Struct("@i4s4s")
_PKTINFO6 = struct.Struct("@16sI")
_ICMP6_FILTER = 1
_HOPS = 255
SOLICITATION = 133
_LOAD_INDEX = (0x20, 0, 0, 0xFFFFF000 + 8)
_BROADCAST = "255.255.255.255"


class Datagram(msgspec.Struct, frozen=True, gc=False):
    """What came."""

    index: int
    """Of the interface."""
    source: str
    data: bytes


Program = tuple[tuple[int, int, int, int], ...]
"""Instructions of classic BPF: code, where to go if true and if false, and a constant."""


def render_filter(shut: Iterable[int], before: Program = ()) -> bytes:
    """A classic BPF program that drops what came by these interfaces and keeps all else that ``before`` lets through."""
    program = [*before, _LOAD_INDEX]
    for index in sorted(shut):
        program += [(0x15, 0, 1, index), (0x06, 0, 0, 0)]
    program.append((0x06, 0, 0, 0xFFFFFFFF))
    return b"".join(struct.pack("@HBBI", *instruction) for instruction in program)


def shut_off(sock: socket.socket, shut: frozenset[int], before: Program = ()) -> None:
    """Nothing more comes from these interfaces, and from all others what ``before`` lets through."""
    if not shut and not before:
        sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
        return
    program = render_filter(shut, before)
    buffer = ctypes.create_string_buffer(program, len(program))  # the kernel reads it during the call
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer)))


def open_dhcp4() -> socket.socket:
    """A socket that hears DHCPv4 requests on every interface.

    Raises:
        SetupError: another server has the port, or we are not root.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        sock.bind(("0.0.0.0", SERVER_PORT))
    except OSError as error:
        sock.close()
        raise SetupError(f"cannot serve DHCP on UDP port {SERVER_PORT}: {error.strerror}; is another DHCP server running here?") from error
    return sock


def open_solicitations() -> socket.socket:
    """A socket that hears router solicitations on every interface that forwards, and sends advertisements. It need not join a group: the
    kernel of a router listens to all of them (ff02::2), and raw sockets hear what the kernel does (IPV6_MULTICAST_ALL in ipv6(7)).

    Raises:
        SetupError: we are not root.
    """
    sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMPV6)
    try:
        blocked = bytearray(b"\xff" * 32)  # struct icmp6_filter: a set bit is a type that is not heard
        struct.pack_into("@I", blocked, (SOLICITATION >> 5) * 4, 0xFFFFFFFF & ~(1 << (SOLICITATION & 31)))
        sock.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, bytes(blocked))
        for option, value in (
            (socket.IPV6_RECVPKTINFO, 1),
            (socket.IPV6_RECVHOPLIMIT, 1),
            (socket.IPV6_MULTICAST_HOPS, _HOPS),
            (socket.IPV6_UNICAST_HOPS, _HOPS),
            (socket.IPV6_MULTICAST_LOOP, 0),
        ):
            sock.setsockopt(socket.IPPROTO_IPV6, option, value)
    except OSError as error:
        sock.close()
        raise SetupError(f"cannot hear router solicitations: {error.strerror}") from error
    return sock


def receive6(sock: socket.socket) -> Datagram | None:
    """The next solicitation; None: there is none now. One that was forwarded (RFC 4861 section 6.1.1) comes with interface 0."""
    try:
        data, ancillary, _, source = sock.recvmsg(_LONGEST_BYTES, 2 * socket.CMSG_SPACE(_PKTINFO6.size))
    except BlockingIOError:
        return None
    index = hops = 0
    for level, kind, value in ancillary:
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            index = _PKTINFO6.unpack(value)[1]
        elif level == socket.IPPROTO_IPV6 and kind == socket.IPV6_HOPLIMIT:
            hops = struct.unpack("@i", value)[0]
    return Datagram(index if hops == _HOPS else 0, source[0], data)


def send6(sock: socket.socket, index: int, source: bytes, target: str, data: bytes) -> None:
    """The ICMPv6 message leaves by the interface; the kernel fills in its checksum.

    Raises:
        OSError: the interface is gone or down, or does not have the source address.
    """
    info = _PKTINFO6.pack(source, index)
    sock.sendmsg([data], [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, info)], 0, (target, 0, 0, index))


def receive4(sock: socket.socket) -> Datagram | None:
    """The next datagram; None: there is none now."""
    try:
        data, ancillary, _, source = sock.recvmsg(_LONGEST_BYTES, socket.CMSG_SPACE(_PKTINFO.size))
    except BlockingIOError:
        return None
    for level, kind, value in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            return Datagram(_PKTINFO.unpack(value)[0], source[0], data)
    return Datagram(0, source[0], data)


def send4(sock: socket.socket, index: int, source: bytes, target: bytes, data: bytes) -> None:
    """The datagram leaves by the interface, from ``source`` (an address of this host); ``UNSPECIFIED`` as target: to everyone there.

    Raises:
        OSError: the interface is gone or down, the source is no address of this host, or there is no room.
    """
    info = _PKTINFO.pack(index, source, UNSPECIFIED)
    address = _BROADCAST if target == UNSPECIFIED else socket.inet_ntoa(target)
    sock.sendmsg([data], [(socket.IPPROTO_IP, _IP_PKTINFO, info)], 0, (address, CLIENT_PORT))

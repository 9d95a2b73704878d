"""Packet sockets, over which guests' frames come that no socket of the kernel's takes: ARP, and IPv6 to groups that nobody joined.

In: frames of all interfaces that a filter in the kernel lets through. Out: frames to one interface. One socket for all guests: one that
joins a group on every interface reaches a limit at about 2,300 of them (net.core.optmem_max), and nobody can join the groups of all
addresses of a prefix. The filter looks at every IPv6 packet that the host receives, two or three instructions each. Frames are seen before
the host's table looks at them, so that whoever answers checks hardware addresses by itself. Sources: packet(7), bpf(4).

Answers leave as frames too, so that what a guest claims of link-local addresses makes no entry in the host's table of neighbours.
Never waits: what the kernel does not take is lost, and the guest asks again.
"""

from __future__ import annotations

import fcntl
import socket
import struct

from tabinet.errors import SetupError
from tabinet.guest.dhcp6 import SERVER_PORT
from tabinet.guest.frames import ICMP6, UDP
from tabinet.guest.neighbours import ADVERTISEMENT, SOLICITATION
from tabinet.guest.sockets import Datagram, Program, shut_off

IPV6_FRAMES, ARP = 0x86DD, 0x0806
"""Protocols, for ``open_frames`` and ``send_frame``."""
_SIOCGIFHWADDR = 0x8927
_SO_RCVBUFFORCE = 33
_BUFFER_BYTES = 1 << 20
_LONGEST_BYTES = 9000
_EARLY = 1000
_LOAD_BYTE, _LOAD_HALF, _LOAD_WORD, _JUMP_EQUAL, _RETURN = 0x30, 0x28, 0x20, 0x15, 0x06
_KEEP, _JUMP_EQUAL_KEPT = 0x07, 0x1D
_PROTOCOL_AT, _TYPE_AT, _TARGET_PORT_AT = 20, 54, 56


def _only(protocol: int, load: int, place: int, value: int) -> Program:
    return (
        (_LOAD_BYTE, 0, 0, _PROTOCOL_AT),
        (_JUMP_EQUAL, 0, 2, protocol),
        (load, 0, 0, place),
        (_JUMP_EQUAL, 1, 0, value),
        (_RETURN, 0, 0, 0),
    )


DHCP6 = _only(UDP, _LOAD_HALF, _TARGET_PORT_AT, SERVER_PORT)
"""Lets through what is sent to a DHCPv6 server."""
NEIGHBOURS = _only(ICMP6, _LOAD_BYTE, _TYPE_AT, SOLICITATION)
"""Lets through neighbour solicitations."""
ADVERTISEMENTS = _only(ICMP6, _LOAD_BYTE, _TYPE_AT, ADVERTISEMENT)
"""Lets through neighbour advertisements."""
ARP_CLAIMS: Program = (
    (_LOAD_WORD, 0, 0, 28),  # the sender's address
    (_KEEP, 0, 0, 0),
    (_LOAD_WORD, 0, 0, 38),  # the target's
    (_JUMP_EQUAL_KEPT, 3, 0, 0),
    (_LOAD_HALF, 0, 0, 20),
    (_JUMP_EQUAL, 1, 0, 2),
    (_RETURN, 0, 0, 0),
)
"""Of ARP (RFC 826), lets through who announces an address (sender and target are the same), and answers."""


def open_frames(which: Program, protocol: int = IPV6_FRAMES) -> socket.socket:
    """A socket that hears these frames on every interface, of one protocol.

    Raises:
        SetupError: we are not root.
    """
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    try:
        sock = socket.socket(socket.AF_PACKET, kind, socket.htons(protocol))
    except OSError as error:
        raise SetupError(f"cannot hear guests' frames: {error.strerror}") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        shut_off(sock, frozenset(), which)
    except OSError as error:
        sock.close()
        raise SetupError(f"cannot hear guests' frames: {error.strerror}") from error
    for _ in range(_EARLY):
        if receive_frame(sock) is None:
            break  # what came before the filter was there is read and forgotten
    return sock


def receive_frame(sock: socket.socket) -> Datagram | None:
    """The next frame; None: there is none now. One of an interface that is gone comes with interface 0."""
    try:
        data, address = sock.recvfrom(_LONGEST_BYTES)
    except BlockingIOError:
        return None
    except OSError:
        return None  # an interface that it waited on went down: told once (packet(7), ENETDOWN)
    try:
        return Datagram(socket.if_nametoindex(address[0]), "", data)
    except OSError:
        return Datagram(0, "", data)


def hardware_address(sock: socket.socket, interface: str) -> bytes:
    """The six bytes of an interface of this host (netdevice(7)).

    Raises:
        OSError: there is no such interface.
    """
    told = fcntl.ioctl(sock, _SIOCGIFHWADDR, struct.pack("256s", interface.encode()[:15]))
    return told[18:24]


def send_frame(sock: socket.socket, interface: str, data: bytes, protocol: int = IPV6_FRAMES) -> None:
    """The frame leaves by the interface.

    Raises:
        OSError: the interface is gone or down, or there is no room.
    """
    sock.sendto(data, (interface, protocol))

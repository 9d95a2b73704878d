"""DHCPv4 messages (RFC 2131, RFC 2132), as records and as bytes.

In: the payload of a UDP datagram, or a ``Message``. Out: the other one. Any bytes give a ``Message`` or a ``PacketError``;
``parse_message(render_message(message)) == message`` for every message that is not longer than the limit. An option that occurs several
times is one (RFC 3396), and one of more than 255 bytes is split. Pure; linear in the bytes.

Knows no option's meaning but that of its framing (see ``options4``). Options in the fields ``sname`` and ``file`` (overload) are not read:
no client sends them.
"""

from __future__ import annotations

import enum
import struct

import msgspec

from tabinet.errors import PacketError

SERVER_PORT, CLIENT_PORT = 67, 68
REQUEST_OP, REPLY_OP = 1, 2
BROADCAST_FLAG = 0x8000
UNSPECIFIED = bytes(4)

_HEADER = struct.Struct(">BBBBIHH4s4s4s4s16s64s128s4s")
_COOKIE = b"\x63\x82\x53\x63"
_ETHERNET, _MAC_BYTES = 1, 6
_PAD, _END = 0, 255
_CHUNK = 255
MESSAGE_TYPE = 53
SHORTEST_BYTES = 300
"""Some clients, and relays, drop what is shorter than BOOTP's messages were (RFC 1542 section 2.1)."""


class Kind(enum.IntEnum):
    """Option 53."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


class Message(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One message; addresses are four bytes in network order, ``UNSPECIFIED`` for none."""

    op: int
    kind: Kind
    xid: int
    mac: bytes
    """Six bytes: the client's hardware address (``chaddr``)."""
    secs: int = 0
    flags: int = 0
    ciaddr: bytes = UNSPECIFIED
    """The client's address, when it has one and answers to it."""
    yiaddr: bytes = UNSPECIFIED
    """The address that the client gets."""
    siaddr: bytes = UNSPECIFIED
    """The server to boot from."""
    giaddr: bytes = UNSPECIFIED
    """The relay."""
    sname: bytes = b""
    """At most 64 bytes, without zeros at the end."""
    file: bytes = b""
    """At most 128 bytes, without zeros at the end."""
    options: tuple[tuple[int, bytes], ...] = ()
    """Code (1 to 254, each once, 53 never) and value, in order."""

    def option(self, code: int) -> bytes | None:
        """The option's value; None: it is not there."""
        return next((value for found, value in self.options if found == code), None)


def parse_message(data: bytes) -> Message:
    """The message in a UDP payload.

    Raises:
        PacketError: it is none of DHCP over Ethernet.
    """
    if len(data) < _HEADER.size:
        raise PacketError(f"{len(data)} bytes are too few for DHCP")
    op, hardware, length, _, xid, secs, flags, ciaddr, yiaddr, siaddr, giaddr, chaddr, sname, file, cookie = _HEADER.unpack_from(data)
    if cookie != _COOKIE or hardware != _ETHERNET or length != _MAC_BYTES or op not in (REQUEST_OP, REPLY_OP):
        raise PacketError("not DHCP over Ethernet")
    options = _parse_options(data[_HEADER.size :])
    kind = options.pop(MESSAGE_TYPE, b"")
    if len(kind) != 1 or kind[0] not in Kind.__members__.values():
        raise PacketError(f"DHCP message type {kind.hex() or 'missing'}")
    return Message(
        op=op,
        kind=Kind(kind[0]),
        xid=xid,
        mac=chaddr[:_MAC_BYTES],
        secs=secs,
        flags=flags,
        ciaddr=ciaddr,
        yiaddr=yiaddr,
        siaddr=siaddr,
        giaddr=giaddr,
        sname=sname.rstrip(b"\0"),
        file=file.rstrip(b"\0"),
        options=tuple(options.items()),
    )


def _parse_options(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    place = 0
    while place < len(data):
        code = data[place]
        if code == _END:
            return found
        place += 1
        if code == _PAD:
            continue
        if place >= len(data) or place + 1 + data[place] > len(data):
            raise PacketError(f"DHCP option {code} is cut off")
        end = place + 1 + data[place]
        found[code] = found.get(code, b"") + data[place + 1 : end]
        place = end
    return found  # without an end mark: some clients forget it


def render_message(message: Message, limit_bytes: int = 0xFFFF) -> bytes:
    """The message as a UDP payload; options that do not fit into the limit any more are left out, later ones as long as they fit."""
    head = _HEADER.pack(
        message.op,
        _ETHERNET,
        _MAC_BYTES,
        0,
        message.xid,
        message.secs,
        message.flags,
        message.ciaddr,
        message.yiaddr,
        message.siaddr,
        message.giaddr,
        message.mac,
        message.sname,
        message.file,
        _COOKIE,
    )
    data = head + bytes((MESSAGE_TYPE, 1, message.kind))
    for code, value in message.options:
        option = _render_option(code, value)
        if len(data) + len(option) < limit_bytes:  # one byte is for the end mark
            data += option
    return (data + bytes((_END,))).ljust(SHORTEST_BYTES, b"\0")


def _render_option(code: int, value: bytes) -> bytes:
    chunks = [value[start : start + _CHUNK] for start in range(0, len(value), _CHUNK)] or [b""]
    return b"".join(bytes((code, len(chunk))) + chunk for chunk in chunks)

"""DHCPv6 messages (RFC 8415 sections 8 and 21), as records and as bytes.

In: the payload of a UDP datagram, or a ``Message``. Out: the other one. Any bytes give a ``Message`` or a ``PacketError``;
``parse_message(render_message(message)) == message`` for every message that is not longer than the limit. Pure; linear in the bytes.

Knows the framing of options and of identity associations, and nothing of what others mean. Messages of relays are no messages here: between
a guest and its host there is none.
"""

from __future__ import annotations

import enum
import struct

import msgspec

from tabinet.errors import PacketError

CLIENT_PORT, SERVER_PORT = 546, 547
SERVERS = bytes.fromhex("ff020000000000000000000000010002")
"""All_DHCP_Relay_Agents_and_Servers, ff02::1:2."""

CLIENT_ID, SERVER_ID, IA_NA, IA_TA, IA_ADDRESS, OPTION_REQUEST = 1, 2, 3, 4, 5, 6
STATUS, RAPID_COMMIT, IA_PD = 13, 14, 25
ASSOCIATIONS = frozenset((IA_NA, IA_TA, IA_PD))

_OPTION = struct.Struct(">HH")
_HEAD_BYTES = 4
_LONGEST_DUID_BYTES = 130
"""Two bytes of type and 128 (RFC 8415 section 11.1)."""
_IA_HEAD_BYTES = {IA_NA: 12, IA_TA: 4, IA_PD: 12}
_IA_TIMES = struct.Struct(">II")
_IA_ADDRESS = struct.Struct(">16sII")

Options = tuple[tuple[int, bytes], ...]


class Kind(enum.IntEnum):
    """What a message is."""

    SOLICIT = 1
    ADVERTISE = 2
    REQUEST = 3
    CONFIRM = 4
    RENEW = 5
    REBIND = 6
    REPLY = 7
    RELEASE = 8
    DECLINE = 9
    RECONFIGURE = 10
    INFORMATION_REQUEST = 11


class Status(enum.IntEnum):
    """Option 13 (RFC 8415 section 21.13)."""

    SUCCESS = 0
    NO_ADDRESSES = 2
    NO_BINDING = 3
    NOT_ON_LINK = 4
    NO_PREFIX = 6


class Message(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One message."""

    kind: Kind
    xid: int
    """24 bits."""
    options: Options = ()
    """Code and value, in order; a code may come several times."""

    def option(self, code: int) -> bytes | None:
        """The first value of the option; None: it is not there."""
        return next((value for found, value in self.options if found == code), None)


class Association(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An identity association, or an answer about one."""

    code: int
    """``IA_NA``, ``IA_TA`` or ``IA_PD``."""
    identifier: bytes
    """Four bytes, the client's."""
    addresses: tuple[bytes, ...] = ()
    """Sixteen bytes each; of ``IA_PD`` none is read."""


def parse_message(data: bytes) -> Message:
    """The message in a UDP payload.

    Raises:
        PacketError: it is none between a client and a server.
    """
    if len(data) < _HEAD_BYTES or data[0] not in Kind.__members__.values():
        raise PacketError("not DHCPv6 of a client or a server")
    return Message(kind=Kind(data[0]), xid=int.from_bytes(data[1:4], "big"), options=parse_options(data[_HEAD_BYTES:]))


def parse_options(data: bytes) -> Options:
    """The options.

    Raises:
        PacketError: one is cut off, or is a name of a client or server that is too long.
    """
    found: list[tuple[int, bytes]] = []
    place = 0
    while place < len(data):
        if place + _OPTION.size > len(data):
            raise PacketError("a DHCPv6 option that is cut off")
        code, length = _OPTION.unpack_from(data, place)
        place += _OPTION.size
        if place + length > len(data):
            raise PacketError(f"DHCPv6 option {code} is cut off")
        if code in (CLIENT_ID, SERVER_ID) and not 2 < length <= _LONGEST_DUID_BYTES:
            raise PacketError(f"a DUID of {length} bytes")
        found.append((code, data[place : place + length]))
        place += length
    return tuple(found)


def render_message(message: Message, limit_bytes: int = 0xFFFF) -> bytes:
    """The message as a UDP payload; options that do not fit into the limit any more are left out, later ones as long as they fit."""
    data = bytes((message.kind,)) + message.xid.to_bytes(3, "big")
    for code, value in message.options:
        option = render_option(code, value)
        if len(data) + len(option) <= limit_bytes:
            data += option
    return data


def render_option(code: int, value: bytes) -> bytes:
    """Code, length and value, which has up to 65,535 bytes."""
    return _OPTION.pack(code, len(value)) + value


def parse_association(code: int, value: bytes) -> Association:
    """The association in an option.

    Raises:
        PacketError: it is cut off.
    """
    head = _IA_HEAD_BYTES[code]
    if len(value) < head:
        raise PacketError("an identity association that is cut off")
    addresses = []
    for inner, text in parse_options(value[head:]) if code != IA_PD else ():
        if inner == IA_ADDRESS:
            if len(text) < _IA_ADDRESS.size:
                raise PacketError("an address that is cut off")
            addresses.append(text[:16])
    return Association(code=code, identifier=value[:4], addresses=tuple(addresses))


def render_association(association: Association, t1_s: int, t2_s: int, options: Options) -> tuple[int, bytes]:
    """The option that answers about an association. Times in seconds, 0: up to the client."""
    times = b"" if association.code == IA_TA else _IA_TIMES.pack(t1_s, t2_s)
    return association.code, association.identifier + times + b"".join(render_option(code, value) for code, value in options)


def render_address(address: bytes, preferred_s: int, valid_s: int) -> tuple[int, bytes]:
    """An address in an association; 0 and 0: it is not the client's (any more)."""
    return IA_ADDRESS, _IA_ADDRESS.pack(address, preferred_s, valid_s)


def render_status(status: Status, text: str = "") -> tuple[int, bytes]:
    """A status, of a message or an association."""
    return STATUS, status.to_bytes(2, "big") + text.encode()

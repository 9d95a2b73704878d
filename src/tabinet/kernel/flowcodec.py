"""Entries of connection tracking as records, and as ctnetlink(7)-style attributes, both ways; and the form in which hosts hand them over.

Sources: linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_conntrack_netlink.c. The tuples of a record are the kernel's own bytes, so
that nobody has to understand every protocol to hand its flows on.

What is handed over carries no permission: our bits of the mark are the business of whoever adds the flow. TCP windows are not known at
the other host, so they are not looked at there (IP_CT_TCP_FLAG_BE_LIBERAL). Address translation is told from the two tuples, because the
kernel does not say it: where the answer's is not the reverse of the original's.

Pure; linear in the bytes.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from tabinet.errors import DataError, KernelError, Problem
from tabinet.kernel.netlink import attribute, be32, nested, parse_attributes
from tabinet.lib.ip import IPV4, Prefix

TUPLE_ORIGINAL, TUPLE_REPLY, STATUS, PROTOCOL_INFO, NAT_SOURCE, TIMEOUT, MARK, NAT_TARGET, ZONE, FILTER = 1, 2, 3, 4, 6, 7, 8, 13, 18, 25
_ADDRESSES, _PROTOCOL = 1, 2
_NUMBER, _SOURCE_PORT, _TARGET_PORT = 1, 2, 3
_SEEN_ASSURED_CONFIRMED = 0x2 | 0x4 | 0x8  # IPS_SEEN_REPLY, IPS_ASSURED, IPS_CONFIRMED
_EXPECTED, _DYING, _TEMPLATE, _UNTRACKED, _OFFLOAD = 0x1, 0x200, 0x800, 0x1000, 0x4000
_TCP_INFO, _LIBERAL = 1, 0x08
_TCP_FLAGS = (4, 5)
_NAT_ADDRESS = {4: (1, 2), 16: (4, 5)}  # CTA_NAT_V4_MINIP and MAXIP, the same of IPv6, by length of the address
_NAT_PROTOCOL, _NAT_PORT_FIRST, _NAT_PORT_LAST = 3, 1, 2
_WITH_PORTS = (6, 17)
CHUNK_BYTES = 512 << 10
"""Most bytes of a part of what is handed over: the store takes 1.5 MiB in a request."""
LONGEST = 100_000
"""Most flows in a part that is taken."""


class Flow(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An entry."""

    original: bytes
    """Content of the kernel's tuple of the direction that it began in."""
    reply: bytes
    status: int
    timeout_s: int
    mark: int = 0
    information: bytes = b""
    """What the kernel keeps of the protocol's state (CTA_PROTOINFO)."""

    def addresses(self) -> tuple[bytes, bytes]:
        """Source and destination as it began, 4 or 16 bytes each."""
        return _ends(self.original)


def parse_flow(payload: bytes) -> Flow | None:
    """The flow in a message after its header of 4 bytes; None for one that cannot be handed over (expected, dying, in a zone)."""
    found = parse_attributes(payload, 4)
    status = int.from_bytes(found.get(STATUS, b""), "big")
    if TUPLE_ORIGINAL not in found or TUPLE_REPLY not in found or ZONE in found:
        return None
    if status & (_EXPECTED | _DYING | _TEMPLATE | _UNTRACKED):
        return None
    return Flow(
        original=found[TUPLE_ORIGINAL],
        reply=found[TUPLE_REPLY],
        status=status & _SEEN_ASSURED_CONFIRMED,
        timeout_s=int.from_bytes(found.get(TIMEOUT, b"\0\0\0\x78"), "big"),
        mark=int.from_bytes(found.get(MARK, b""), "big"),
        information=found.get(PROTOCOL_INFO, b""),
    )


def render_question(address: Prefix) -> bytes:
    """Body of a dump of the flows that this address began, chosen by the kernel (Linux 5.8)."""
    tuple_ = nested(TUPLE_ORIGINAL, nested(_ADDRESSES, attribute(1 if address.family == IPV4 else 3, address.packed)))
    wanted = nested(FILTER, attribute(1, struct.pack("=I", 0x1)), attribute(2, struct.pack("=I", 0)))  # CTA_FILTER_FLAG: IP_SRC
    return struct.pack(">BBH", 2 if address.family == IPV4 else 10, 0, 0) + tuple_ + wanted


def render_reply_question(address: Prefix) -> bytes:
    """The same for flows whose answers come from this address, whichever they began towards."""
    tuple_ = nested(TUPLE_REPLY, nested(_ADDRESSES, attribute(1 if address.family == IPV4 else 3, address.packed)))
    wanted = nested(FILTER, attribute(1, struct.pack("=I", 0)), attribute(2, struct.pack("=I", 0x1)))
    return struct.pack(">BBH", 2 if address.family == IPV4 else 10, 0, 0) + tuple_ + wanted


def render_flow(flow: Flow) -> bytes | None:
    """Body of the message that adds the flow; None for one that cannot be added: translated, and of a protocol without ports, or
    without addresses.

    Raises:
        KernelError: the flow's bytes are no attributes.
    """
    source, target = _ends(flow.original)
    answering, answered = _ends(flow.reply)
    if not (len(source) == len(target) == len(answering) == len(answered)) or len(source) not in _NAT_ADDRESS:
        return None
    reply, translation = flow.reply, b""
    if (source, target) != (answered, answering) or _ports(flow.original) != _ports(flow.reply)[::-1]:
        if _number(flow.original) not in _WITH_PORTS:
            return None
        translation = _translation(flow)
        reply = _reverse(flow.original)
    body = struct.pack(">BBH", 2 if len(source) == 4 else 10, 0, 0)
    body += nested(TUPLE_ORIGINAL, _nested_again(flow.original)) + nested(TUPLE_REPLY, _nested_again(reply)) + translation
    body += attribute(STATUS, be32(flow.status & _SEEN_ASSURED_CONFIRMED)) + attribute(TIMEOUT, be32(flow.timeout_s))
    if flow.mark:
        body += attribute(MARK, be32(flow.mark))
    return body + (nested(PROTOCOL_INFO, _with_any_window(flow.information)) if flow.information else b"")


def renderable(flows: Iterable[Flow]) -> Iterator[tuple[Flow, bytes]]:
    """Those of the flows that can be added, each with the body of its message."""
    for flow in flows:
        with contextlib.suppress(KernelError):
            body = render_flow(flow)
            if body is not None:
                yield flow, body


def render_name(flow: Flow) -> bytes | None:
    """Body of a message about the flow; None when its bytes have no addresses.

    Raises:
        KernelError: the flow's bytes are no attributes.
    """
    source, target = _ends(flow.original)
    if len(source) != len(target) or len(source) not in _NAT_ADDRESS:
        return None
    return struct.pack(">BBH", 2 if len(source) == 4 else 10, 0, 0) + nested(TUPLE_ORIGINAL, _nested_again(flow.original))


def _nested_again(tuple_: bytes) -> bytes:
    """The parts of a tuple are marked as nested, which the kernel wants to see and does not show everywhere."""
    return b"".join(
        attribute(kind | 0x8000, content) if kind in (_ADDRESSES, _PROTOCOL) else attribute(kind, content)
        for kind, content in parse_attributes(tuple_).items()
    )


def _translation(flow: Flow) -> bytes:
    """What the kernel shall make of source and destination."""
    (source, target), (answering, answered) = _ends(flow.original), _ends(flow.reply)
    ports, reply_ports = _ports(flow.original), _ports(flow.reply)
    made = b""
    for kind, before, after, port, new_port in (
        (NAT_SOURCE, source, answered, ports[0], reply_ports[1]),
        (NAT_TARGET, target, answering, ports[1], reply_ports[0]),
    ):
        if (before, port) == (after, new_port):
            continue
        first, last = _NAT_ADDRESS[len(after)]
        range_ = nested(_NAT_PROTOCOL, attribute(_NAT_PORT_FIRST, new_port), attribute(_NAT_PORT_LAST, new_port))
        made += nested(kind, attribute(first, after), attribute(last, after), range_)
    return made


def _reverse(tuple_: bytes) -> bytes:
    """The tuple of the other direction, of a protocol with ports."""
    (source, target), (source_port, target_port) = _ends(tuple_), _ports(tuple_)
    first = 1 if len(source) == 4 else 3
    addresses = nested(_ADDRESSES, attribute(first, target), attribute(first + 1, source))
    protocol = (attribute(_NUMBER, bytes((_number(tuple_),))), attribute(_SOURCE_PORT, target_port), attribute(_TARGET_PORT, source_port))
    return addresses + nested(_PROTOCOL, *protocol)


def _with_any_window(information: bytes) -> bytes:
    """TCP packets outside of the window that is known are taken."""
    found = parse_attributes(information)
    if _TCP_INFO not in found:
        return b"".join(attribute(kind | 0x8000, content) for kind, content in found.items())
    tcp = parse_attributes(found[_TCP_INFO])
    for kind in _TCP_FLAGS:
        flags = (tcp.get(kind) or b"\0")[0] | _LIBERAL
        tcp[kind] = bytes((flags, flags))
    return nested(_TCP_INFO, *(attribute(kind, content) for kind, content in tcp.items()))


def _ends(tuple_: bytes) -> tuple[bytes, bytes]:
    addresses = parse_attributes(parse_attributes(tuple_).get(_ADDRESSES, b""))
    source, target = (addresses.get(v4) or addresses.get(v4 + 2) or b"" for v4 in (1, 2))
    return source, target


def _ports(tuple_: bytes) -> tuple[bytes, bytes]:
    protocol = parse_attributes(parse_attributes(tuple_).get(_PROTOCOL, b""))
    return protocol.get(_SOURCE_PORT, b""), protocol.get(_TARGET_PORT, b"")


def _number(tuple_: bytes) -> int:
    return int.from_bytes(parse_attributes(parse_attributes(tuple_).get(_PROTOCOL, b"")).get(_NUMBER, b"\0"), "big")


# --- handing over ---------------------------------------------------------------------------------------------------


def render_parts(flows: Sequence[Flow], chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """All flows, compressed, in parts that can stand in the store; none without flows."""
    count = len(flows)
    step = max(1, count)
    while step > 1 and len(zlib.compress(msgspec.msgpack.encode(flows[:step]), 1)) > chunk_bytes // 2:
        step //= 2
    for start in range(0, count, step):
        yield zlib.compress(msgspec.msgpack.encode(flows[start : start + step]), 1)


def parse_part(data: bytes, source: str = "") -> list[Flow]:
    """The flows of a part.

    Raises:
        DataError: it is none; ``source`` is named in it.
    """
    try:
        unpacker = zlib.decompressobj()
        raw = unpacker.decompress(data, LONGEST * 1000)
        flows = msgspec.msgpack.decode(raw, type=list[Flow])
    except (zlib.error, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(source, [Problem(path="", value=f"{len(data)} bytes", allowed=f"flows that are handed over: {error}")]) from None
    return flows[:LONGEST]


def about(flows: Iterable[Flow], addresses: frozenset[bytes]) -> list[Flow]:
    """Those of the flows that one of these addresses (packed) is an end of, translated or not."""
    found = []
    for flow in flows:
        ends = {*_ends(flow.original), *_ends(flow.reply)}
        if ends & addresses:
            found.append(flow)
    return found

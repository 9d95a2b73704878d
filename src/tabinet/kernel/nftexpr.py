"""nf_tables expressions, keys and set specifications as the kernel's bytes.

Out: each encoder gives one element of NFTA_RULE_EXPRESSIONS, so that joining them (``rule(...)``) gives a rule's content.
Numbers and names are those of linux/netfilter/nf_tables.h; datatype numbers are those of nft(8) (``nft describe``), which the
kernel only stores and which decide how listings look. Pure; every function is linear in its output.

Registers: ``reg(0)`` to ``reg(15)`` hold 4 bytes each (NFT_REG32_00 and on). A value of 16 bytes takes four in a row; the fields of a
concatenated key lie in a row, each padded to 4 bytes. Byte order in registers: addresses, ports and protocols as on the
wire; ct state, ct mark, meta mark and interface indices as the host has them (``host32``); interface names padded with NULs.

It does not check that a rule makes sense: the kernel does.
"""

from __future__ import annotations

import enum
import struct

from tabinet.kernel.netlink import attribute, be32, be64, nested, parse_attributes, read_attributes, text
from tabinet.kernel.nftables import SetSpec

VERDICT_REGISTER = 0
"""NFT_REG_VERDICT: where a verdict map puts what it found."""

LINK_HEADER, NETWORK_HEADER, TRANSPORT_HEADER = 0, 1, 2
"""Bases of ``payload`` (NFT_PAYLOAD_*)."""

_LIST_ELEMENT = 1
_FROM_ZERO = (attribute(1, be64(0)), attribute(2, be64(0)))
_LIMIT_PACKETS, _LIMIT_BYTES = 0, 1
_PORTS_GIVEN = 2
"""NF_NAT_RANGE_PROTO_SPECIFIED."""


class Verdict(enum.IntEnum):
    """Codes of NFTA_VERDICT_CODE."""

    DROP = 0
    ACCEPT = 1
    CONTINUE = -1
    JUMP = -3
    GOTO = -4
    RETURN = -5


class Meta(enum.IntEnum):
    """Keys of ``meta`` (NFT_META_*)."""

    LENGTH = 0
    PROTOCOL = 1
    MARK = 3
    IIF = 4
    OIF = 5
    IIFNAME = 6
    OIFNAME = 7
    IIFTYPE = 8
    NFPROTO = 15
    L4PROTO = 16
    PKTTYPE = 19


class Ct(enum.IntEnum):
    """Keys of ``ct`` (NFT_CT_*). Those with addresses match their own family only, which is what an ``inet`` table needs."""

    STATE = 0
    DIRECTION = 1
    STATUS = 2
    MARK = 3
    PROTOCOL = 10
    PROTO_SRC = 11
    PROTO_DST = 12
    SRC_IP = 19
    DST_IP = 20
    SRC_IP6 = 21
    DST_IP6 = 22


class CtDirection(enum.IntEnum):
    """IP_CT_DIR_*."""

    ORIGINAL = 0
    REPLY = 1


class CtState(enum.IntFlag):
    """Bits of ``ct state`` as nf_tables has them (NF_CT_STATE_BIT)."""

    INVALID = 1
    ESTABLISHED = 2
    RELATED = 4
    NEW = 8
    UNTRACKED = 64


class Compare(enum.IntEnum):
    """Operators of ``compare`` and (EQ, NE) of ``in_range`` (NFT_CMP_*, NFT_RANGE_*)."""

    EQ = 0
    NE = 1
    LT = 2
    LTE = 3
    GT = 4
    GTE = 5


class Datatype(enum.Enum):
    """nft's datatypes: (number, bytes)."""

    INTEGER = (4, 4)
    IPV4_ADDR = (7, 4)
    IPV6_ADDR = (8, 16)
    ETHER_ADDR = (9, 6)
    INET_PROTO = (12, 1)
    INET_SERVICE = (13, 2)
    MARK = (19, 4)
    CT_STATE = (26, 4)
    IFNAME = (41, 16)

    @property
    def number(self) -> int:
        return self.value[0]

    @property
    def length_bytes(self) -> int:
        return self.value[1]

    @property
    def host_order(self) -> bool:
        """True where the value is a number (or text) in the host's byte order."""
        return self in (Datatype.INTEGER, Datatype.MARK, Datatype.CT_STATE, Datatype.IFNAME)


# --- values ---------------------------------------------------------------------------------------------------------


def reg(index: int) -> int:
    """NFT_REG32_00 + ``index`` (0 to 15)."""
    return 8 + index


def host32(value: int) -> bytes:
    """ct state, ct mark, meta mark, interface index: 32 bits in host order."""
    return struct.pack("=I", value & 0xFFFFFFFF)


def port(value: int) -> bytes:
    """A port as on the wire."""
    return struct.pack(">H", value)


def ifname(name: str) -> bytes:
    """An interface name as a key or as an exact comparison: 16 bytes."""
    return name.encode().ljust(16, b"\0")


def parse_ifname(key: bytes) -> str:
    """The interface name at the beginning of a key."""
    return key[:16].split(b"\0", 1)[0].decode(errors="surrogateescape")


def ifname_prefix(prefix: str) -> bytes:
    """What an interface name begins with: compare this many bytes only."""
    return prefix.encode()


def key(*fields: bytes) -> bytes:
    """A set's key: the fields, each padded to 4 bytes when there are several."""
    if len(fields) == 1:
        return fields[0]
    return b"".join(field + b"\0" * (-len(field) & 3) for field in fields)


# --- sets -----------------------------------------------------------------------------------------------------------


def set_spec(
    *types: Datatype, size: int = 0, interval: bool = False, verdict_map: bool = False, counted: bool = False, forget_s: int = 0
) -> SetSpec:
    """The specification of a set (or verdict map) with a key of these types, such that nft(8) lists it right.

    ``size`` bounds the elements; give one to every set that is not an interval set, generously (four times what is expected): the kernel
    makes its buckets from it, and a hash set without one is slow to fill and dumps wrong right after a bulk load.
    """
    number = 0
    for datatype in types:
        number = number << 6 | datatype.number
    lengths = tuple(datatype.length_bytes for datatype in types)
    if len(types) == 1:
        userdata = _userdata32(0, 1) if types[0].host_order else b""  # NFTNL_UDATA_SET_KEYBYTEORDER, BYTEORDER_HOST_ENDIAN
        return SetSpec(number, lengths[0], (), interval, verdict_map, size, userdata, counted, forget_s)
    total = sum((length + 3) & ~3 for length in lengths)
    return SetSpec(number, total, lengths, interval, verdict_map, size, counted=counted, forget_s=forget_s)


def _userdata32(kind: int, value: int) -> bytes:
    """One entry of libnftnl's user data: type, length, value in host order."""
    return bytes((kind, 4)) + struct.pack("=I", value)


def comment(words: str) -> bytes:
    """Rule user data that nft(8) shows as ``comment "words"``; at most 127 bytes of it (NFTNL_UDATA_COMMENT_MAXLEN is 128)."""
    data = words.encode()[:127] + b"\0"
    return bytes((0, len(data))) + data


def parse_comment(userdata: bytes) -> str:
    """The comment in a rule's user data; empty when there is none, whatever the bytes are."""
    offset = 0
    while offset + 2 <= len(userdata):
        kind, length = userdata[offset], userdata[offset + 1]
        if kind == 0:
            return userdata[offset + 2 : offset + 2 + length].rstrip(b"\0").decode(errors="replace")
        offset += 2 + length
    return ""


# --- expressions ----------------------------------------------------------------------------------------------------


def rule(*expressions: bytes) -> bytes:
    """The content of NFTA_RULE_EXPRESSIONS: the expressions in the order in which they are evaluated."""
    return b"".join(expressions)


def _expression(name: str, *attributes: bytes) -> bytes:
    """NFTA_LIST_ELEM { NFTA_EXPR_NAME, NFTA_EXPR_DATA }."""
    return nested(_LIST_ELEMENT, _content(name, *attributes))


def _content(name: str, *attributes: bytes) -> bytes:
    return attribute(1, text(name)) + nested(2, *attributes)


def meta(what: Meta, register: int) -> bytes:
    """Loads a property of the packet into the register."""
    return _expression("meta", attribute(2, be32(what)), attribute(1, be32(register)))


def meta_set(what: Meta, register: int) -> bytes:
    """Stores the register as a property of the packet (``Meta.MARK``)."""
    return _expression("meta", attribute(2, be32(what)), attribute(3, be32(register)))


def ct(what: Ct, register: int, direction: CtDirection | None = None) -> bytes:
    """Loads a property of the packet's flow. Addresses and ports need the direction whose tuple is meant.

    A packet without a flow (invalid, untracked) ends the rule here without a match, except for the state.
    """
    parts = [attribute(1, be32(register)), attribute(2, be32(what))]
    if direction is not None:
        parts.append(attribute(3, bytes((direction,))))
    return _expression("ct", *parts)


def ct_set(what: Ct, register: int) -> bytes:
    """Stores the register as a property of the flow (``Ct.MARK``)."""
    return _expression("ct", attribute(2, be32(what)), attribute(4, be32(register)))


def fib_source_interface(register: int) -> bytes:
    """Loads the name of the interface through which the host would send to the packet's source; empty without a route."""
    by_name, source = 2, 1  # NFT_FIB_RESULT_OIFNAME, NFTA_FIB_F_SADDR
    return _expression("fib", attribute(1, be32(register)), attribute(2, be32(by_name)), attribute(3, be32(source)))


def payload(base: int, offset_bytes: int, length_bytes: int, register: int) -> bytes:
    """Loads bytes of a header. A packet that is too short ends the rule without a match."""
    return _expression(
        "payload",
        attribute(1, be32(register)),
        attribute(2, be32(base)),
        attribute(3, be32(offset_bytes)),
        attribute(4, be32(length_bytes)),
    )


def compare(register: int, operator: Compare, value: bytes) -> bytes:
    """Goes on only if the first ``len(value)`` bytes from the register compare so (as bytes, so network order for LT and GT)."""
    return _expression("cmp", attribute(1, be32(register)), attribute(2, be32(operator)), nested(3, attribute(1, value)))


def in_range(register: int, operator: Compare, first: bytes, last: bytes) -> bytes:
    """Goes on only if the value is (``EQ``) or is not (``NE``) between ``first`` and ``last``, both included."""
    return _expression(
        "range",
        attribute(1, be32(register)),
        attribute(2, be32(operator)),
        nested(3, attribute(1, first)),
        nested(4, attribute(1, last)),
    )


def bitwise(source: int, target: int, mask: bytes, xor: bytes) -> bytes:
    """``target = (source & mask) ^ xor`` over ``len(mask)`` bytes, so bits are set by clearing them in the mask and naming them in xor."""
    return _expression(
        "bitwise",
        attribute(1, be32(source)),
        attribute(2, be32(target)),
        attribute(3, be32(len(mask))),
        nested(4, attribute(1, mask)),
        nested(5, attribute(1, xor)),
    )


def lookup(set_name: str, register: int, *, inverted: bool = False) -> bytes:
    """Goes on only if the key that begins in the register is in the set (``inverted``: is not)."""
    parts = [attribute(1, text(set_name)), attribute(2, be32(register))]
    if inverted:
        parts.append(attribute(5, be32(1)))  # NFT_LOOKUP_F_INV
    return _expression("lookup", *parts)


def verdict_map(map_name: str, register: int) -> bytes:
    """Executes the verdict that the map has for the key; without one, goes on with the next rule."""
    return _expression("lookup", attribute(1, text(map_name)), attribute(2, be32(register)), attribute(3, be32(VERDICT_REGISTER)))


def immediate(register: int, value: bytes) -> bytes:
    """The register holds ``value``."""
    return _expression("immediate", attribute(1, be32(register)), nested(2, attribute(1, value)))


def verdict_data(code: int, chain: str = "") -> bytes:
    """NFTA_DATA_VERDICT: what a verdict map stores for a key, and what ``verdict`` executes."""
    parts = [attribute(1, be32(code))]
    if chain:
        parts.append(attribute(2, text(chain)))
    return nested(2, *parts)


def verdict(code: Verdict, chain: str = "") -> bytes:
    """Ends the rule with a verdict; ``chain`` for JUMP and GOTO."""
    return _expression("immediate", attribute(1, be32(VERDICT_REGISTER)), nested(2, verdict_data(code, chain)))


def counter() -> bytes:
    """Counts packets and bytes that come here, from 0."""
    return _expression("counter", *_FROM_ZERO)


def element_counter() -> bytes:
    """What NFTA_SET_EXPR holds so that each element of the set counts the packets that find it."""
    return _content("counter", *_FROM_ZERO)


def parse_counter(expressions: bytes) -> tuple[int, int] | None:
    """(packets, bytes) of the first counter in a rule's content; None when it has none.

    Raises:
        KernelError: EBADMSG when it is not made of attributes.
    """
    for _, expression in read_attributes(expressions):
        found = parse_element_counter(expression)
        if found is not None:
            return found
    return None


def parse_element_counter(expression: bytes) -> tuple[int, int] | None:
    """(packets, bytes) of one expression, as a set's element holds it; None when it is no counter.

    Raises:
        KernelError: EBADMSG when it is not made of attributes.
    """
    attributes = parse_attributes(expression)
    if attributes.get(1) != b"counter\0":
        return None
    values = parse_attributes(attributes[2])
    return int.from_bytes(values[2], "big"), int.from_bytes(values[1], "big")


def log(prefix: str, level: int = 5) -> bytes:
    """A line in the kernel's log; ``level`` as in syslog(3) (5 is notice)."""
    return _expression("log", attribute(2, text(prefix[:127])), attribute(5, be32(level)))


def nflog(prefix: str, group: int) -> bytes:
    """The packet goes to the listener of an nfnetlink_log group (0 to 65535)."""
    return _expression("log", attribute(1, struct.pack(">H", group)), attribute(2, text(prefix[:127])))


def limit(packets: int, per_s: int = 1, burst: int = 5, *, over: bool = False) -> bytes:
    """Goes on for at most ``packets`` in ``per_s`` seconds, after a burst; ``over``: only for what is more than that."""
    parts = _rate(packets, per_s, burst)
    if over:
        parts.append(attribute(5, be32(1)))  # NFT_LIMIT_F_INV
    return _expression("limit", *parts)


def limit_bytes(per_second: int, burst: int, *, over: bool = False) -> bytes:
    """As ``limit``, in bytes. The bucket holds ``burst`` and what a second may bring (nft_limit_init in net/netfilter/nft_limit.c)."""
    kind = attribute(4, be32(_LIMIT_BYTES))
    parts = [attribute(1, be64(per_second)), attribute(2, be64(1)), attribute(3, be32(burst)), kind]
    if over:
        parts.append(attribute(5, be32(1)))  # NFT_LIMIT_F_INV
    return _expression("limit", *parts)


def _rate(packets: int, per_s: int, burst: int) -> list[bytes]:
    return [attribute(1, be64(packets)), attribute(2, be64(per_s)), attribute(3, be32(burst)), attribute(4, be32(_LIMIT_PACKETS))]


def limit_by_key(set_name: str, register: int, packets: int, per_s: int = 1, burst: int = 5) -> bytes:
    """As ``limit``, for each key by itself: the set, which forgets (``SetSpec.forget_s``), has an element with a limit for each.

    When the set is full, keys that it does not have end the rule without a match.
    """
    rate = _content("limit", *_rate(packets, per_s, burst))
    return _expression("dynset", attribute(1, text(set_name)), attribute(4, be32(register)), attribute(3, be32(1)), nested(7, rate))


def remember(set_name: str, register: int) -> bytes:
    """The set, which forgets, has the key; when it is full and does not, the rule ends without a match."""
    return _expression("dynset", attribute(1, text(set_name)), attribute(4, be32(register)), attribute(3, be32(0)))


def connections_over(count: int) -> bytes:
    """Goes on for a flow that is one more than ``count`` that came to this rule and still exist."""
    return _expression("connlimit", attribute(1, be32(count)), attribute(2, be32(1)))  # NFT_CONNLIMIT_F_INV


def reject_icmp_admin_prohibited() -> bytes:
    """Answers with ICMP or ICMPv6 'administratively prohibited' (NFT_REJECT_ICMPX_UNREACH, code 3); ends the packet."""
    return _expression("reject", attribute(1, be32(2)), attribute(2, bytes((3,))))


def reject_tcp_reset() -> bytes:
    """Answers with a TCP reset; the rule must have matched TCP before."""
    return _expression("reject", attribute(1, be32(1)), attribute(2, bytes((0,))))


def notrack() -> bytes:
    """The packet gets no flow (prerouting or output, priority raw)."""
    return _expression("notrack")


def masquerade(first_port: int = 0, last_port: int = 0) -> bytes:
    """The flow's source becomes the outgoing interface's address (chains of type nat at postrouting).

    Ports are the registers that hold the first and the last port to choose from; 0: any.
    """
    if not first_port:
        return _expression("masq")
    return _expression("masq", attribute(1, be32(_PORTS_GIVEN)), attribute(2, be32(first_port)), attribute(3, be32(last_port)))


def translate(*, source: bool, nfproto: int, address: int, first_port: int = 0, last_port: int = 0) -> bytes:
    """The flow's source or destination becomes the address in the register (chains of type nat); ports as in ``masquerade``."""
    parts = [attribute(1, be32(0 if source else 1)), attribute(2, be32(nfproto)), attribute(3, be32(address)), attribute(4, be32(address))]
    flags = 1  # NF_NAT_RANGE_MAP_IPS
    if first_port:
        parts += [attribute(5, be32(first_port)), attribute(6, be32(last_port))]
        flags |= _PORTS_GIVEN
    parts.append(attribute(7, be32(flags)))
    return _expression("nat", *parts)


def payload_set(base: int, offset_bytes: int, length_bytes: int, register: int, *, checksum_offset_bytes: int = -1) -> bytes:
    """Writes the register into a header; the Internet checksum at ``checksum_offset_bytes`` of the same header is kept right."""
    parts = [
        attribute(5, be32(register)),
        attribute(2, be32(base)),
        attribute(3, be32(offset_bytes)),
        attribute(4, be32(length_bytes)),
    ]
    if checksum_offset_bytes >= 0:
        parts += [attribute(6, be32(1)), attribute(7, be32(checksum_offset_bytes))]  # NFT_PAYLOAD_CSUM_INET
    return _expression("payload", *parts)

"""What nf_tables says of chains, sets, rules and elements, as records. Pure, linear in the bytes. Source: linux/netfilter/nf_tables.h."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tabinet.kernel.netlink import parse_attributes, parse_text, read_attributes
from tabinet.kernel.nftables import Element, Hook, RuleInfo, SetSpec
from tabinet.kernel.nftexpr import parse_element_counter

SET_INTERVAL, SET_MAP, SET_TIMEOUT, SET_EVAL, SET_CONCAT = 0x04, 0x08, 0x10, 0x20, 0x80
ELEMENT_INTERVAL_END = 1
_SET_EXPRESSION, _ELEMENT_EXPRESSION = 17, 7


def read_be32(attributes: dict[int, bytes], kind: int) -> int:
    """The number in network byte order, of any length; 0 when it is not there."""
    return int.from_bytes(attributes.get(kind, b""), "big")


def parse_chain(attributes: dict[int, bytes]) -> tuple[str, Hook | None]:
    """A chain's name and, of a base chain, its place."""
    name = parse_text(attributes[3])
    if 4 not in attributes:
        return name, None
    where = parse_attributes(attributes[4])
    priority = struct.unpack(">i", where[2])[0]
    return name, Hook(read_be32(where, 1), priority, parse_text(attributes[7]), read_be32(attributes, 5) == 1)


def parse_set(attributes: dict[int, bytes]) -> tuple[str, SetSpec]:
    """A set's or map's name, and what it is made of."""
    flags = read_be32(attributes, 3)
    description = parse_attributes(attributes.get(9, b""))
    fields = tuple(read_be32(parse_attributes(field), 1) for _, field in read_attributes(description.get(2, b"")))
    spec = SetSpec(
        key_type=read_be32(attributes, 4),
        key_length=read_be32(attributes, 5),
        fields=fields,
        interval=bool(flags & SET_INTERVAL),
        verdict_map=bool(flags & SET_MAP),
        size=read_be32(description, 1),
        userdata=attributes.get(13, b""),
        counted=parse_element_counter(attributes.get(_SET_EXPRESSION, b"")) is not None,
        forget_s=read_be32(attributes, 11) // 1000 if flags & SET_EVAL else 0,
    )
    return parse_text(attributes[2]), spec


def parse_elements(data: bytes) -> Iterator[Element]:
    """The elements in an NFTA_SET_ELEM_LIST_ELEMENTS."""
    for _, content in read_attributes(data):
        attributes = parse_attributes(content)
        key = _value(attributes[1])
        if len(attributes) == 1:
            yield Element(key)
            continue
        end = _value(attributes[10]) if 10 in attributes else b""
        code: int | None = None
        chain = ""
        if 2 in attributes:
            verdict = parse_attributes(parse_attributes(attributes[2]).get(2, b""))
            if 1 in verdict:
                code = struct.unpack(">i", verdict[1])[0]
                chain = parse_text(verdict.get(2, b""))
        yield Element(key, end, bool(read_be32(attributes, 3) & ELEMENT_INTERVAL_END), code, chain)


def parse_element_counters(data: bytes) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Key and (packets, bytes) of the elements that count in an NFTA_SET_ELEM_LIST_ELEMENTS."""
    for _, content in read_attributes(data):
        attributes = parse_attributes(content)
        counted = parse_element_counter(attributes.get(_ELEMENT_EXPRESSION, b""))
        if counted is not None:
            yield _value(attributes[1]), counted


def _value(data: bytes) -> bytes:
    """What the NFTA_DATA_VALUE holds that is all there is in ``data``, without the padding that follows it."""
    length, _ = struct.unpack_from("=HH", data)
    return data[4:length]


def parse_rule(attributes: dict[int, bytes]) -> RuleInfo:
    """A rule as the kernel holds it."""
    return RuleInfo(parse_text(attributes[2]), int.from_bytes(attributes[3], "big"), attributes.get(4, b""), attributes.get(7, b""))

"""The kernel's elements as those of the IR: the way back of ``encode``, for whoever compares or shows what is there.

Pure. What cannot be an element of the set is None: somebody else's. Elements of interval sets come one boundary at a time, and
``Intervals`` puts them together. ``decode_element(definition, e) == element`` for what ``encode_elements`` makes of an element.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tabinet.calc.messages import PortMember
from tabinet.dataplane.nft.plan import MAPS_TO_CHAINS
from tabinet.kernel.nftables import Element
from tabinet.kernel.nftexpr import Verdict, parse_ifname
from tabinet.lib.ip import BITS, Prefix
from tabinet.rules import ir
from tabinet.rules.ir import SetDef, SetType

_IFNAME = 16
"""Bytes of an interface's name in a key, with its closing NULs (IFNAMSIZ)."""
Item = ir.Element | tuple[str, str]
"""An element of a set, or what a map leads from and to."""
BOUNDARIES = (SetType.NETS, SetType.PORTS, SetType.PORT_CHAINS)
"""Sets and maps whose elements are boundaries of ranges."""
_TWO_BYTES = (SetType.PORTS, SetType.PORT_CHAINS)


def decode_element(definition: SetDef, element: Element) -> ir.Element | None:
    """The element of a set that is neither a map nor one of ``BOUNDARIES``."""
    key = element.key
    size = BITS[definition.family] // 8 if definition.family else 0
    match definition.type:
        case SetType.ADDRESSES:
            return _address(definition.family, key)
        case SetType.ADDRESS_PORTS:
            address = _address(definition.family, key[:size])
            protocol, port = key[size : size + 1], key[size + 4 : size + 6]
            return PortMember(address, protocol[0], int.from_bytes(port, "big")) if address is not None and len(port) == 2 else None
        case SetType.SOURCES:
            address = _address(definition.family, key[_IFNAME:])
            return ir.Source(parse_ifname(key), address) if address is not None else None
        case SetType.SOURCE_NETS:
            last = element.end or key
            return ir.SourceRange(parse_ifname(key), int.from_bytes(key[_IFNAME:], "big"), int.from_bytes(last[_IFNAME:], "big"))
        case SetType.HARDWARE:
            return ir.Hardware(parse_ifname(key), key[_IFNAME : _IFNAME + 6].hex(":"))
        case SetType.PAIRS:
            last, start = element.end or key, _IFNAME + 8
            mac = key[_IFNAME : _IFNAME + 6].hex(":")
            return ir.Paired(parse_ifname(key), mac, int.from_bytes(key[start:], "big"), int.from_bytes(last[start:], "big"))
        case SetType.INTERFACES | SetType.COUNTED:
            return ir.Interface(parse_ifname(key))
        case _:
            return None


def decode_item(definition: SetDef, element: Element) -> Item | None:
    """The element of a set that is none of ``BOUNDARIES``, or of a map to chains."""
    return _decode_mapping(definition, element) if definition.type in MAPS_TO_CHAINS else decode_element(definition, element)


def _decode_mapping(definition: SetDef, element: Element) -> tuple[str, str]:
    """(interface or address, chain)."""
    if definition.type is SetType.CHAINS:
        return parse_ifname(element.key), _chain(element, Verdict.GOTO)
    address = _address(definition.family, element.key)
    return (address.address if address is not None else element.key.hex()), _chain(element, Verdict.GOTO)


def _chain(element: Element, expected: Verdict) -> str:
    """Where the element leads to in the expected way; empty when it does something else."""
    return element.chain if element.verdict == expected else ""


@dataclass(slots=True)
class Intervals:
    """Puts boundaries together to ranges, as they come: from the highest to the lowest."""

    definition: SetDef
    _end: int | None = None
    """The boundary above, where a range ends exclusively."""

    def take(self, element: Element) -> Item | None:
        """The range that this boundary completes; of a map with where it leads to."""
        length = 2 if self.definition.type in _TWO_BYTES else BITS[self.definition.family] // 8
        value = int.from_bytes(element.key[:length], "big")
        if element.interval_end:
            self._end = value
            return None
        end, self._end = self._end, None
        last = (end if end is not None else 1 << (8 * length)) - 1
        return (f"{value}-{last}", _chain(element, Verdict.JUMP)) if self.definition.type is SetType.PORT_CHAINS else ir.Range(value, last)


def decode_all(definition: SetDef, elements: list[Element]) -> Iterator[Item | None]:
    """The elements of a whole set or map to chains, in the order in which they were read."""
    if definition.type not in BOUNDARIES:
        for element in elements:
            yield decode_item(definition, element)
        return
    intervals = Intervals(definition)
    for element in elements:
        found = intervals.take(element)
        if found is not None:
            yield found


def _address(family: int, key: bytes) -> Prefix | None:
    bits = BITS[family]
    return Prefix(family, int.from_bytes(key, "big"), bits) if len(key) == bits // 8 else None

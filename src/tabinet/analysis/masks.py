"""Sets of small numbers as the bits of one large integer: union, intersection and difference at the speed of memory. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

Mask = int
_SET_BITS = [tuple(bit for bit in range(8) if byte >> bit & 1) for byte in range(256)]
_NONZERO = re.compile(rb"[^\0]", re.DOTALL)
_FEW = 8


def mask_of(numbers: Iterable[int], size: int) -> Mask:
    """The set of these numbers, all less than ``size``. O(size / 8 + numbers)."""
    if isinstance(numbers, list | tuple) and len(numbers) <= _FEW:
        mask = 0
        for number in numbers:
            mask |= 1 << number
        return mask
    content = bytearray((size >> 3) + 1)
    for number in numbers:
        content[number >> 3] |= 1 << (number & 7)
    return int.from_bytes(content, "little")


def numbers_of(mask: Mask) -> Iterator[int]:
    """The numbers in the set, ascending. O(bytes from the first to the last)."""
    if mask.bit_count() <= _FEW:
        while mask:
            lowest = mask & -mask
            yield lowest.bit_length() - 1
            mask ^= lowest
        return
    content = mask.to_bytes((mask.bit_length() + 7) // 8, "little")
    for found in _NONZERO.finditer(content):
        base = found.start() * 8
        for bit in _SET_BITS[content[found.start()]]:
            yield base + bit


def lowest_of(mask: Mask) -> int:
    """The lowest number in the set, which is not empty."""
    return (mask & -mask).bit_length() - 1

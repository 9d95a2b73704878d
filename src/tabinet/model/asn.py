"""AS numbers: plain (``64512``) or dotted (``1.10``, RFC 5396 asdot)."""

from __future__ import annotations

import re

ALLOWED = "allowed: 1 to 4294967295, or two numbers from 0 to 65535 with a dot between them, in quotes"
MAX = 4294967295

_PLAIN = re.compile(r"[0-9]{1,10}")
_DOTTED = re.compile(r"([0-9]{1,5})\.([0-9]{1,5})")


def parse_as_number(value: int | str) -> int:
    """The 32-bit number that ``value`` writes.

    Raises:
        ValueError: not an AS number; 0 is none (RFC 7607).
    """
    number = 0
    if isinstance(value, int):
        number = value
    elif _PLAIN.fullmatch(value):
        number = int(value)
    elif dotted := _DOTTED.fullmatch(value):
        high, low = int(dotted[1]), int(dotted[2])
        if high <= 65535 and low <= 65535:
            number = high << 16 | low
    if not 1 <= number <= MAX:
        raise ValueError(f"{value!r} is not an AS number; {ALLOWED}")
    return number

"""IP protocols by name and by number, as policies and ports write them (IANA protocol numbers)."""

from __future__ import annotations

TCP = 6
UDP = 17
ICMP = 1
ICMPV6 = 58
SCTP = 132
UDPLITE = 136

NAMES: dict[int, str] = {TCP: "TCP", UDP: "UDP", ICMP: "ICMP", ICMPV6: "ICMPv6", SCTP: "SCTP", UDPLITE: "UDPLite"}
"""Number to canonical name."""
WITH_PORTS = frozenset((TCP, UDP, SCTP))
"""Protocols whose ports a policy may match."""

ALLOWED = "allowed: TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number from 1 to 255"

_NUMBERS: dict[str, int] = {name.lower(): number for number, name in NAMES.items()}


def parse_protocol(value: int | str) -> int:
    """The number of a protocol: a name in any case, a number, or a number as text.

    Raises:
        ValueError: neither a known name nor 1 to 255.
    """
    if isinstance(value, str):
        number = _NUMBERS.get(value.lower(), 0)
        if not number and value.isascii() and value.isdigit() and len(value) <= 3:
            number = int(value)
    else:
        number = value
    if not 1 <= number <= 255:
        raise ValueError(f"{value!r} is not a protocol; {ALLOWED}")
    return number


def protocol_name(number: int) -> str:
    """The canonical name of a protocol, or its number as text when it has no name here."""
    return NAMES.get(number, str(number))

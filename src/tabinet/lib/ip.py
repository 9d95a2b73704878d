"""IP prefixes and addresses as small integer structs.

An address is a prefix of full length (a *host prefix*), so that one type serves routes, sets and pools.
Parsing is strict where it matters for security: a text that does not parse raises ``ValueError``, it never
becomes "any". Equality, order and hash are those of (family, value, length). O(1) in everything.
"""

from __future__ import annotations

import ipaddress

import msgspec

IPV4 = 4
IPV6 = 6
BITS = {IPV4: 32, IPV6: 128}
_OCTETS = {str(value): value for value in range(256)}
"""Octets as texts; leading zeros are not accepted (to some programs they mean octal)."""
_LENGTHS = {str(length): length for length in range(129)}


class Prefix(msgspec.Struct, frozen=True, order=True, gc=False):
    """An IPv4 or IPv6 prefix; host bits of ``value`` are zero."""

    family: int
    """4 or 6."""
    value: int
    """The network address as an unsigned integer."""
    length: int
    """0 to 32, or 0 to 128."""

    @property
    def bits(self) -> int:
        """Length of an address of this family: 32 or 128."""
        return 32 if self.family == IPV4 else 128

    @property
    def is_host(self) -> bool:
        """True for a single address."""
        return self.length == (32 if self.family == IPV4 else 128)

    @property
    def packed(self) -> bytes:
        """The network address in network byte order, 4 or 16 bytes."""
        return self.value.to_bytes(4 if self.family == IPV4 else 16, "big")

    @property
    def last(self) -> int:
        """The highest address in the prefix, as an integer."""
        return self.value | ((1 << (self.bits - self.length)) - 1)

    @property
    def size(self) -> int:
        """How many addresses the prefix holds."""
        return 1 << (self.bits - self.length)

    @property
    def address(self) -> str:
        """The network address as text, without the length."""
        if self.family == IPV4:
            v = self.value
            return f"{v >> 24}.{v >> 16 & 255}.{v >> 8 & 255}.{v & 255}"
        return str(ipaddress.IPv6Address(self.value))

    def contains(self, other: Prefix) -> bool:
        """True when every address of ``other`` is in this prefix."""
        if self.family != other.family or self.length > other.length:
            return False
        shift = self.bits - self.length
        return self.value >> shift == other.value >> shift

    def overlaps(self, other: Prefix) -> bool:
        """True when an address is in both."""
        return self.contains(other) or other.contains(self)

    def host(self, index: int) -> Prefix:
        """The address at ``index`` (from 0) in this prefix, as a host prefix.

        Raises:
            IndexError: the prefix is not that large.
        """
        if not 0 <= index < self.size:
            raise IndexError(f"{self} has no address number {index}")
        return Prefix(self.family, self.value + index, self.bits)

    def __str__(self) -> str:
        return f"{self.address}/{self.length}"


def parse_address(text: str) -> Prefix:
    """The host prefix that ``text`` (RFC 791 dotted quad or RFC 4291 text) names.

    Raises:
        ValueError: not an address; a zone (``%eth0``) is not accepted.
    """
    if ":" not in text:
        try:
            first, second, third, fourth = text.split(".")
            value = _OCTETS[first] << 24 | _OCTETS[second] << 16 | _OCTETS[third] << 8 | _OCTETS[fourth]
        except (KeyError, ValueError):
            raise ValueError(f"{text!r} is not an IP address") from None
        return Prefix(IPV4, value, 32)
    if "%" in text:
        raise ValueError(f"{text!r} carries a zone")
    try:
        return Prefix(IPV6, int(ipaddress.IPv6Address(text)), 128)
    except ipaddress.AddressValueError as error:
        raise ValueError(f"{text!r} is not an IP address") from error


def parse_prefix(text: str, *, strict: bool = False) -> Prefix:
    """The prefix that ``text`` names; an address without a length is a host prefix. Host bits are cleared.

    Raises:
        ValueError: not a prefix; with ``strict`` also when host bits are set.
    """
    if text.endswith("/32") and ":" not in text:  # as nearly all are written
        return parse_address(text[:-3])
    head, slash, tail = text.partition("/")
    host = parse_address(head)
    if not slash:
        return host
    length = _LENGTHS.get(tail)
    if length is None or length > host.bits:
        raise ValueError(f"{text!r} is not a prefix")
    if length == host.bits:
        return host
    shift = host.bits - length
    value = host.value >> shift << shift
    if strict and value != host.value:
        raise ValueError(f"{text!r} has host bits set")
    return Prefix(host.family, value, length)

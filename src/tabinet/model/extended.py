"""Matches on protocols that Calico's rules have no field for: ports of DCCP and UDP-Lite, protocol 0, ICMP type 255. Text and record.

In and out: the value of a rule's annotation ``tabinet.io/protocol``: ``number``, ``number:port``, ``number:first-last``, for ICMP
``number:type`` or ``number:type/code``. Pure; O(1).

Whoever does not know the annotation must not take the rule for one that matches more. So a rule with it has ``NOBODY`` as the selector of
one of its sides, which whoever knows the annotation takes for no selector.
"""

from __future__ import annotations

import re

import msgspec

from tabinet.model.protocols import ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE

DCCP = 33
PORTED = frozenset((TCP, UDP, SCTP, UDPLITE, DCCP))
"""Protocols whose ports stand where TCP's do (RFC 4340 section 5.1, RFC 3828)."""
NOBODY = "!all()"
ALLOWED = "as in 33, 33:5000, 33:5000-5010, 1:255 or 1:255/0"
_TEXT = re.compile(r"(\d{1,3})(?::(\d{1,5})(?:-(\d{1,5})|/(\d{1,3}))?)?", re.ASCII)


class ProtocolMatch(msgspec.Struct, frozen=True, gc=False):
    """Packets of one protocol, and what of it."""

    number: int
    """0 to 255."""
    ports: tuple[int, int] | None = None
    """First and last destination port."""
    icmp: tuple[int, int | None] | None = None
    """Type, and code unless any."""


def render_protocol(match: ProtocolMatch) -> str:
    """The annotation's text."""
    if match.ports is not None:
        first, last = match.ports
        return f"{match.number}:{first}" if first == last else f"{match.number}:{first}-{last}"
    if match.icmp is not None:
        kind, code = match.icmp
        return f"{match.number}:{kind}" if code is None else f"{match.number}:{kind}/{code}"
    return f"{match.number}"


def parse_extended(text: str) -> ProtocolMatch:
    """What the annotation says.

    Raises:
        ValueError: it is none.
    """
    found = _TEXT.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a protocol, {ALLOWED}")
    number, first, last, code = (None if part is None else int(part) for part in found.groups())
    assert number is not None
    if first is None:
        match = ProtocolMatch(number)
    elif number in (ICMP, ICMPV6):
        match = ProtocolMatch(number, icmp=(first, code))
    else:
        match = ProtocolMatch(number, ports=(first, first if last is None else last))
    if number > 255 or not _fits(match) or (last is not None and match.icmp is not None) or (code is not None and match.ports is not None):
        raise ValueError(f"{text!r} is not a protocol, {ALLOWED}")
    return match


def _fits(match: ProtocolMatch) -> bool:
    if match.ports is not None:
        return match.number in PORTED and match.ports[0] <= match.ports[1] <= 65535
    if match.icmp is not None:
        return match.icmp[0] <= 255 and (match.icmp[1] or 0) <= 255
    return True

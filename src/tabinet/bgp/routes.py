"""BIRD's answer to ``show route``, as values.

In: the lines of the reply. Out: ``RouteStatus`` records in BIRD's order, of each prefix the best first. Pure; linear in the lines. What
does not look like a route is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec

from tabinet.bgp.replies import CODE_ROUTES, ReplyLine
from tabinet.lib.ip import Prefix, parse_prefix

_ROUTE = re.compile(r"(\S*)\s+(unicast|blackhole|unreachable|prohibit)\s+\[(\S+)\s[^\]]*?(?:from (\S+))?\](\s+\*)?.*")
_HOP = re.compile(r"\s*via (\S+) on (\S+).*")
_DEVICE = re.compile(r"\s*dev (\S+).*")


class RouteStatus(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A route that BIRD knows."""

    destination: Prefix
    protocol: str
    """BIRD's protocol that it is from."""
    learned_from: str = ""
    """Address of the peer that told it, where that is not the gateway."""
    best: bool = False
    """The one that counts for its prefix."""
    kind: str = "unicast"
    """unicast, blackhole, unreachable or prohibit."""
    hops: tuple[tuple[str, str], ...] = ()
    """Gateway (empty: on the link) and interface of each next hop."""


def parse_routes(reply: Sequence[ReplyLine], limit: int) -> tuple[RouteStatus, ...]:
    """The routes in the answer to ``show route``; the first ``limit`` of them."""
    found: list[RouteStatus] = []
    for route in _each_route(reply):
        found.append(route)
        if len(found) == limit:
            break
    return tuple(found)


def _each_route(reply: Sequence[ReplyLine]) -> Iterator[RouteStatus]:
    current: RouteStatus | None = None
    destination: Prefix | None = None
    for line in reply:
        if line.code != CODE_ROUTES:
            continue
        head = _ROUTE.fullmatch(line.text)
        if head is None:
            hop = _read_hop(line.text)
            if current is not None and hop is not None:
                current = msgspec.structs.replace(current, hops=(*current.hops, hop))
            continue
        if current is not None:
            yield current
        if head[1]:
            destination = _read_prefix(head[1])
        current = None
        if destination is not None:
            source = (head[4] or "").partition("%")[0]
            current = RouteStatus(destination=destination, protocol=head[3], learned_from=source, best=head[5] is not None, kind=head[2])
    if current is not None:
        yield current


def _read_hop(text: str) -> tuple[str, str] | None:
    if match := _HOP.fullmatch(text):
        return match[1], match[2]
    match = _DEVICE.fullmatch(text)
    return ("", match[1]) if match else None


def _read_prefix(text: str) -> Prefix | None:
    try:
        return parse_prefix(text)
    except ValueError:
        return None

"""What a BGPPeer can say by annotations, beyond Calico's fields.

In: the resource. Out: ``PeerOptions``, and what is wrong. Calico's programs ignore these annotations. Pure, O(1).

=============================== ======================================================================================================
``tabinet.io/interfaces``       Unnumbered: one session over each of these interfaces, separated by commas, with the one router at the
                                other end of the link, whatever its link-local address; both families in it (RFC 8950).
                                ``spec.peerIP`` is ``fe80::`` then, or left out.
``tabinet.io/remote-as``        ``external``: the peer may be of any AS but our own; ``spec.asNumber`` is not looked at, or left out.
``tabinet.io/bfd-interval``     Between BFD packets, as in ``50ms``: 10 ms to 10 s.
``tabinet.io/bfd-multiplier``   So many packets missing mean that the path is dead: 2 to 255.
``tabinet.io/route-limit``      Most routes of a family that are taken from the peer: more of them restart the session.
``tabinet.io/long-lived``       ``true``: both ends keep the other's routes as the last resort as soon as BFD or the connection fails
                                (RFC 9494), as hosts of the cluster do among themselves. The peer has to be configured so too.
=============================== ======================================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from tabinet.lib.ip import Prefix, parse_prefix
from tabinet.model.annotations import EXTERNAL, INTERFACES, REMOTE_AS
from tabinet.model.formats import parse_duration_s
from tabinet.model.resources import BGPPeer

BFD_INTERVAL = "tabinet.io/bfd-interval"
BFD_MULTIPLIER = "tabinet.io/bfd-multiplier"
ROUTE_LIMIT = "tabinet.io/route-limit"
LONG_LIVED = "tabinet.io/long-lived"
ANNOTATIONS = (INTERFACES, REMOTE_AS, BFD_INTERVAL, BFD_MULTIPLIER, ROUTE_LIMIT, LONG_LIVED)

ANY_NEIGHBOUR: Prefix = parse_prefix("fe80::/10")
"""Stands for the peer's address where that is not configured."""

_INTERFACE = re.compile(r"[A-Za-z0-9_.:@+][A-Za-z0-9_.:@+-]{0,14}")


class PeerOptions(msgspec.Struct, frozen=True, gc=False):
    """What the annotations say; 0 and empty where they say nothing."""

    interfaces: tuple[str, ...] = ()
    external: bool = False
    bfd_interval_ms: int = 0
    bfd_multiplier: int = 0
    route_limit: int = 0
    long_lived: bool = False


def read_options(peer: BGPPeer, report: Callable[[str, object, str], None]) -> PeerOptions:
    """The options of a peering; ``report`` is told path, value and what is allowed where one is wrong."""
    annotations = peer.metadata.annotations

    def wrong(name: str, allowed: str) -> None:
        report(f"metadata.annotations.{name}", annotations[name], allowed)

    def number(name: str, low: int, high: int) -> int:
        text = annotations.get(name)
        if text is None:
            return 0
        if text.isascii() and text.isdigit() and len(text) < 12 and low <= int(text) <= high:
            return int(text)
        wrong(name, f"a number from {low} to {high}")
        return 0

    names = tuple(text.strip() for text in annotations.get(INTERFACES, "").split(",") if text.strip())
    if INTERFACES in annotations and not (names and all(_INTERFACE.fullmatch(name) for name in names)):
        wrong(INTERFACES, "names of interfaces, separated by commas")
    if INTERFACES in annotations and peer.spec.peer_ip not in ("", "fe80::"):
        report("spec.peerIP", peer.spec.peer_ip, "fe80::, as the peer is whoever is at the other end of the interfaces")
    external = annotations.get(REMOTE_AS)
    if external not in (None, EXTERNAL):
        wrong(REMOTE_AS, EXTERNAL)
    long_lived = annotations.get(LONG_LIVED)
    if long_lived not in (None, "true", "false"):
        wrong(LONG_LIVED, "true or false")
    interval_ms = 0
    if BFD_INTERVAL in annotations:
        try:
            interval_ms = round(parse_duration_s(annotations[BFD_INTERVAL]) * 1000)
        except ValueError:
            interval_ms = 0
        if not 10 <= interval_ms <= 10_000:
            wrong(BFD_INTERVAL, "a duration from 10ms to 10s")
    return PeerOptions(
        interfaces=tuple(dict.fromkeys(names)),
        external=external is not None,
        bfd_interval_ms=interval_ms,
        bfd_multiplier=number(BFD_MULTIPLIER, 2, 255),
        route_limit=number(ROUTE_LIMIT, 1, 10_000_000),
        long_lived=long_lived == "true",
    )

"""Who is at the other end of a link: the link-local address of the one router there, for unnumbered sessions.

In: names of interfaces. Out: ``LinkPeer`` for each. A router solicitation and an echo request to all nodes make a peer speak up, whether it
is a router that advertises itself (FRR, switches) or not (BIRD without ``radv``); advertisements heard later count as well. If
routers are heard, they alone count; of several none is chosen. RFC 4861, RFC 4443.

``Neighbourhood`` is the memory (pure); ``LinkListener`` has the raw ICMPv6 sockets, one for each interface: needs CAP_NET_RAW.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tabinet.bgp.records import LinkPeer
from tabinet.lib.ip import IPV6, Prefix

ECHO_REQUEST, ECHO_REPLY = 128, 129
ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT = 133, 134
NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT = 135, 136
HEARD = (ECHO_REPLY, ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT)
ON_LINK_HOP_LIMIT = 255
"""Of neighbour discovery: what came through a router has less (RFC 4861 section 6.1). Echo replies have no such rule."""
STALE_S = 5.0
"""Who was not heard for so long, while others were, is gone."""
ICMP6_FILTER = 1
ALL_NODES, ALL_ROUTERS = "ff02::1", "ff02::2"
_ECHO_ID = 0x5442


@dataclass(slots=True)
class Neighbourhood:
    """Who was heard on each interface, and when."""

    _heard: dict[str, dict[Prefix, tuple[float, bool]]] = field(default_factory=dict)
    """By interface and address: when last (monotonic), and whether it is a router."""

    def on_heard(self, interface: str, address: Prefix, *, router: bool, now_s: float) -> None:
        """A packet of ``address`` came in."""
        known = self._heard.setdefault(interface, {})
        known[address] = (now_s, router or known.get(address, (0.0, False))[1])

    def forget(self, interface: str) -> None:
        """Nothing is known of the interface."""
        self._heard.pop(interface, None)

    def peer(self, interface: str) -> LinkPeer:
        """The one neighbour of the interface, or why there is none."""
        known = self._heard.get(interface, {})
        newest = max((heard_s for heard_s, _ in known.values()), default=0.0)
        fresh = {address: router for address, (heard_s, router) in known.items() if heard_s >= newest - STALE_S}
        routers = sorted(address for address, router in fresh.items() if router)
        candidates = routers or sorted(fresh)
        if len(candidates) == 1:
            return LinkPeer(interface, candidates[0])
        if not candidates:
            return LinkPeer(interface, None, f"no router was heard on {interface} yet")
        names = ", ".join(address.address for address in candidates[:3])
        return LinkPeer(interface, None, f"several routers are on {interface} ({names}): an unnumbered link has one")


def parse_heard(data: bytes, source: str, hop_limit: int) -> tuple[Prefix, bool] | None:
    """Who sent an ICMPv6 message, and whether it is a router; ``None`` when the message says nothing of a neighbour."""
    if not data or data[0] not in HEARD or not source.lower().startswith("fe80"):
        return None
    if data[0] != ECHO_REPLY and hop_limit != ON_LINK_HOP_LIMIT:
        return None
    address = socket.inet_pton(socket.AF_INET6, source.partition("%")[0])
    return Prefix(IPV6, int.from_bytes(address, "big"), 128), data[0] == ROUTER_ADVERTISEMENT


@dataclass(slots=True)
class LinkListener:
    """Sockets on interfaces, and what was heard there."""

    clock: Callable[[], float] = time.monotonic
    neighbourhood: Neighbourhood = field(default_factory=Neighbourhood)
    _sockets: dict[str, socket.socket] = field(default_factory=dict)

    def listen(self, interfaces: Iterable[str], seeking: Iterable[str], wait_s: float) -> tuple[LinkPeer, ...]:
        """The neighbours of ``interfaces``, sorted. Asks on those in ``seeking``, and waits ``wait_s`` at most for the first answers.

        Interfaces that are not named any more are listened to no longer. One that does not exist has no neighbour.
        """
        wanted = set(interfaces)
        for gone in set(self._sockets) - wanted:
            self._close(gone)
            self.neighbourhood.forget(gone)
        for interface in sorted(wanted):
            self._read(interface)
        asked = [interface for interface in seeking if interface in wanted and self._ask(interface)]
        deadline = time.monotonic() + wait_s
        while (silent := [name for name in asked if self.neighbourhood.peer(name).address is None]) and time.monotonic() < deadline:
            select.select([self._sockets[name] for name in silent if name in self._sockets], [], [], max(0.0, deadline - time.monotonic()))
            for interface in silent:
                self._read(interface)
        return tuple(self.neighbourhood.peer(interface) for interface in sorted(wanted))

    def close(self) -> None:
        """No socket is open."""
        for interface in list(self._sockets):
            self._close(interface)

    def _open(self, interface: str) -> socket.socket | None:
        if interface in self._sockets:
            return self._sockets[interface]
        try:
            opened = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMPV6)
        except OSError:
            return None
        try:
            index = socket.if_nametoindex(interface)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            # A set bit blocks a type (RFC 3542 section 3.2).
            passed = sum(1 << kind for kind in HEARD)
            blocked = ((1 << 256) - 1) ^ passed
            opened.setsockopt(socket.IPPROTO_ICMPV6, ICMP6_FILTER, blocked.to_bytes(32, "little"))
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, ON_LINK_HOP_LIMIT)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
            for group in (ALL_NODES, ALL_ROUTERS):
                membership = socket.inet_pton(socket.AF_INET6, group) + struct.pack("@I", index)
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)
        except OSError:
            opened.close()
            return None
        self._sockets[interface] = opened
        return opened

    def _ask(self, interface: str) -> bool:
        """Whoever is there has been asked to say so."""
        opened = self._open(interface)
        if opened is None:
            return False
        try:
            index = socket.if_nametoindex(interface)
            opened.sendto(struct.pack("!BBHI", ROUTER_SOLICITATION, 0, 0, 0), (ALL_ROUTERS, 0, 0, index))
            opened.sendto(struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, _ECHO_ID, 1), (ALL_NODES, 0, 0, index))
        except OSError:
            # The interface went away or is down; perhaps it is another one of that name later. Who was there probably still is.
            self._close(interface)
            return False
        return True

    def _read(self, interface: str) -> None:
        opened = self._open(interface)
        while opened is not None:
            try:
                data, ancillary, _, source = opened.recvmsg(2048, socket.CMSG_SPACE(4))
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._close(interface)
                return
            hops = [struct.unpack("@i", value[:4])[0] for level, kind, value in ancillary if (level, kind) == _HOP_LIMIT]
            heard = parse_heard(data, source[0], hops[0] if hops else 0)
            if heard is not None:
                self.neighbourhood.on_heard(interface, heard[0], router=heard[1], now_s=self.clock())

    def _close(self, interface: str) -> None:
        self._sockets.pop(interface).close()


_HOP_LIMIT = (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT)

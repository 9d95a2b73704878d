"""``Dhcp6Responder``: DHCPv6 over one socket for all guests of the host.

In: frames, ports from the directory. Out: answers, and counts of what was not answered and why. The interface decides who asks, never what
the message says of itself, and only the port's own hardware address is answered. From one message to the next it keeps how many a port has
sent, and its lease until something about it changes. The loop owns it; it never waits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tabinet.errors import PacketError
from tabinet.guest.advert import ROUTER
from tabinet.guest.dhcp6 import CLIENT_PORT, SERVER_PORT, SERVERS, Kind, Message, parse_message, render_message
from tabinet.guest.directory import Port
from tabinet.guest.frames import UDP, Frame, parse_frame, parse_udp, render_frame, udp_datagram
from tabinet.guest.framesocket import hardware_address, send_frame
from tabinet.guest.inbox import Inbox
from tabinet.guest.lease6 import Lease6, Silence6, answer6
from tabinet.guest.leases import Leases
from tabinet.guest.sockets import Datagram

Note = Callable[[str, Port, str], None]
HOPS = 64
LIMIT_BYTES = 1232
"""Of a message: what every link carries (RFC 8200 section 5), less the headers."""


@dataclass(slots=True)
class Dhcp6Responder:
    """Answers what comes into ``inbox``."""

    inbox: Inbox
    leases: Leases[Lease6]
    note: Note

    def begin(self) -> None:
        """What comes is answered from now on."""
        self.inbox.begin(self.on_datagram)

    def end(self) -> None:
        """Nothing is answered any more."""
        self.inbox.end()

    def on_changed(self, interfaces: set[str]) -> None:
        """What guests behind these interfaces get may be another thing now."""
        self.leases.forget(interfaces)

    def on_datagram(self, datagram: Datagram, interface: str) -> None:
        """It is answered, or counted."""
        counts = self.inbox.counts
        leased = self.leases.find(interface)
        if leased is None:
            counts["no port with DHCP"] += 1
            return
        port, lease = leased
        try:
            frame = parse_frame(datagram.data)
            if frame.from_mac != lease.mac:
                counts["from another hardware address than the port's"] += 1
                self.note("dhcpv6 not answered", port, "from another hardware address than the port's")
                return
            if frame.target != SERVERS or frame.source[:2] != b"\xfe\x80":
                # Others than clients on the link, or one that talks to a single server, which nobody allowed (RFC 8415 section 16).
                counts["not to all servers, from a link-local address"] += 1
                return
            _, target_port, data = parse_udp(frame.payload)
            if target_port != SERVER_PORT:
                raise PacketError("to another port")
            request = parse_message(data)
            outcome = answer6(request, lease)
        except PacketError:
            counts["not DHCP"] += 1
            return
        if isinstance(outcome, Silence6):
            counts[outcome.value] += 1
            return
        if request.kind is Kind.DECLINE:
            self.note("dhcpv6 declined", port, "the guest says that somebody else uses its address")
        self._send(frame, outcome, interface, port)
        for text in lease.refused:
            self.note("dhcpv6 option left out", port, text)

    def _send(self, request: Frame, message: Message, interface: str, port: Port) -> None:
        sock = self.inbox.sock
        try:
            answer = Frame(
                to_mac=request.from_mac,
                from_mac=hardware_address(sock, interface),
                source=ROUTER.packed,
                target=request.source,
                protocol=UDP,
                hops=HOPS,
                payload=udp_datagram(SERVER_PORT, CLIENT_PORT, render_message(message, LIMIT_BYTES)),
            )
            send_frame(sock, interface, render_frame(answer))
        except OSError as error:
            self.inbox.counts["not sent"] += 1
            self.note("dhcpv6 not sent", port, str(error))
            return
        self.inbox.counts[message.kind.name] += 1

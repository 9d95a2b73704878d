"""``Responder4``: DHCPv4 over one socket for all guests of the host.

In: datagrams from the socket, ports from the directory. Out: answers, and counts of what was not answered and why. The interface decides
who asks, never what the message says of itself; so a guest can ask for its own port only. Nothing is kept from one message to the next
but how many a port has sent.

About 50 microseconds a message. The loop owns it; it never waits.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tabinet.errors import PacketError
from tabinet.guest.dhcp4 import parse_message, render_message
from tabinet.guest.directory import Directory, Port
from tabinet.guest.lease4 import SERVER, Lease4, Silence, answer4, make_lease4
from tabinet.guest.limiter import Limiter
from tabinet.guest.options import GuestOptions
from tabinet.guest.sockets import Datagram, receive4, send4, shut_off
from tabinet.lib.ip import IPV4

AT_ONCE = 64
"""So many datagrams are answered before others on the loop have a turn."""

Note = Callable[[str, Port, str], None]
"""What happened, to whom, and more about it."""


def lease_of(port: Port, directory: Directory, options: GuestOptions) -> Lease4 | None:
    """What the port gets: its first IPv4 address that has DHCP; None: none has."""
    for address in port.addresses:
        if address.family == IPV4:
            subnet = directory.subnet(port, address) if port.is_neutrons else None
            if subnet is not None or not port.is_neutrons:
                return make_lease4(port, subnet, address, options)
    return None


@dataclass(slots=True)
class Responder4:
    """Answers what comes by ``sock``."""

    sock: socket.socket
    directory: Directory
    options: GuestOptions
    note: Note
    now: Callable[[], float]
    limiter: Limiter = field(default_factory=Limiter)
    counts: Counter[str] = field(default_factory=Counter)
    """What was answered (``OFFER``, ``ACK``, ``NAK``), and how often not, by reason."""
    _shut: frozenset[int] = frozenset()
    """Whom the filter keeps out."""
    _opening: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """What comes is answered from now on."""
        asyncio.get_running_loop().add_reader(self.sock.fileno(), self.on_readable)

    def end(self) -> None:
        """The socket is closed."""
        asyncio.get_running_loop().remove_reader(self.sock.fileno())
        if self._opening is not None:
            self._opening.cancel()
        self.sock.close()

    def on_readable(self) -> None:
        """Some of what came is answered."""
        for _ in range(AT_ONCE):
            datagram = receive4(self.sock)
            if datagram is None:
                return
            if self.limiter.allows(datagram.index, self.now()):
                self._answer(datagram)
            else:
                self.counts["too many"] += 1
                if self.limiter.shut() != self._shut:
                    self._shut_off()

    def _answer(self, datagram: Datagram) -> None:
        try:
            interface = socket.if_indextoname(datagram.index)
        except OSError:
            return  # it is gone, and whoever was behind it
        port = self.directory.port(interface)
        lease = lease_of(port, self.directory, self.options) if port is not None else None
        if port is None or lease is None:
            self.counts["no port with DHCP"] += 1
            return
        try:
            request = parse_message(datagram.data)
        except PacketError:
            self.counts["not DHCP"] += 1
            return
        outcome = answer4(request, lease)
        if isinstance(outcome, Silence):
            self.counts[outcome.value] += 1
            if outcome in (Silence.DECLINED, Silence.OTHER_HARDWARE):
                self.note("dhcp not answered", port, outcome.value)
            return
        try:
            send4(self.sock, datagram.index, SERVER.packed, outcome.target, render_message(outcome.message, outcome.limit_bytes))
        except OSError as error:
            self.counts["not sent"] += 1
            self.note("dhcp not sent", port, str(error))
            return
        self.counts[outcome.message.kind.name] += 1
        for text in lease.refused:
            self.note("dhcp option left out", port, text)

    def _shut_off(self) -> None:
        """The filter is as the limiter says, now and when somebody's time is over."""
        wait_s = self.limiter.open_s(self.now())
        self._shut = self.limiter.shut()
        shut_off(self.sock, self._shut)
        if self._opening is not None:
            self._opening.cancel()
        self._opening = asyncio.get_running_loop().call_later(wait_s, self._shut_off) if wait_s is not None else None

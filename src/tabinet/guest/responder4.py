"""``Responder4``: DHCPv4 over one socket for all guests of the host.

In: datagrams from the socket, ports from the directory. Out: answers, and counts of what was not answered and why. The interface decides
who asks, never what the message says of itself; so a guest can ask for its own port only. From one message to the next
it keeps how many a port has sent, and its lease until something about it changes.

About 30 microseconds a message beside the system calls, with 5,000 ports or with one. The loop owns it; it never waits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from tabinet.errors import PacketError
from tabinet.guest.dhcp4 import parse_message, render_message
from tabinet.guest.directory import Port
from tabinet.guest.inbox import Inbox
from tabinet.guest.lease4 import SERVER, Lease4, Silence, answer4
from tabinet.guest.leases import Leases
from tabinet.guest.sockets import Datagram, send4

Note = Callable[[str, Port, str], None]
"""What happened, to whom, and more about it."""


@dataclass(slots=True)
class Responder4:
    """Answers what comes into ``inbox``."""

    inbox: Inbox
    leases: Leases[Lease4]
    note: Note

    @property
    def counts(self) -> Counter[str]:
        """What was answered (``OFFER``, ``ACK``, ``NAK``), and how often not, by reason."""
        return self.inbox.counts

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
        leased = self.leases.find(interface)
        if leased is None:
            self.counts["no port with DHCP"] += 1
            return
        port, lease = leased
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
        data = render_message(outcome.message, outcome.limit_bytes)
        try:
            send4(self.inbox.sock, datagram.index, SERVER.packed, outcome.target, data)
        except OSError as error:
            self.counts["not sent"] += 1
            self.note("dhcp not sent", port, str(error))
            return
        self.counts[outcome.message.kind.name] += 1
        for text in lease.refused:
            self.note("dhcp option left out", port, text)

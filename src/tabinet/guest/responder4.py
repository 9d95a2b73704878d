"""``Responder4``: DHCPv4 over one socket for all guests of the host.

In: datagrams from the socket, ports from the directory. Out: answers, and counts of what was not answered and why. The interface decides
who asks, never what the message says of itself; so a guest can ask for its own port only. From one message to the next
it keeps how many a port has sent, and its lease until something about it changes.

About 30 microseconds a message beside the system calls, with 5,000 ports or with one. The loop owns it; it never waits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tabinet.errors import PacketError
from tabinet.guest.dhcp4 import parse_message, render_message
from tabinet.guest.directory import Directory, Port
from tabinet.guest.inbox import Inbox
from tabinet.guest.lease4 import SERVER, Lease4, Silence, answer4, make_lease4
from tabinet.guest.options import GuestOptions
from tabinet.guest.sockets import Datagram, send4
from tabinet.lib.ip import IPV4

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
    """Answers what comes into ``inbox``."""

    inbox: Inbox
    directory: Directory
    options: GuestOptions
    note: Note
    _leases: dict[str, Lease4 | None] = field(default_factory=dict)
    """By interface, of those that asked and have not changed since."""

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
        for interface in interfaces:
            self._leases.pop(interface, None)

    def _lease(self, interface: str, port: Port) -> Lease4 | None:
        if interface not in self._leases:
            self._leases[interface] = lease_of(port, self.directory, self.options)
        return self._leases[interface]

    def on_datagram(self, datagram: Datagram, interface: str) -> None:
        """It is answered, or counted."""
        port = self.directory.port(interface)
        lease = self._lease(interface, port) if port is not None else None
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

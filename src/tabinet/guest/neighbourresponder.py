"""``NeighbourResponder``: neighbour solicitations of all guests of the host, over one socket.

In: frames, ports from the directory. Out: advertisements that the host is the neighbour, to the guest that asks (``neighbours`` says for
what). What the kernel answers by itself, for fe80::1, is none of a guest's prefixes. The loop owns it; it never waits.
"""

from __future__ import annotations

from dataclasses import dataclass

from tabinet.errors import PacketError
from tabinet.guest.directory import Directory
from tabinet.guest.frames import ICMP6, Frame, parse_frame, render_frame
from tabinet.guest.framesocket import hardware_address, send_frame
from tabinet.guest.inbox import Inbox
from tabinet.guest.neighbours import HOPS, Unanswered, decide, render_advertisement
from tabinet.guest.sockets import Datagram

RATE, BURST = 20.0, 200.0
"""Solicitations of a guest a second, and at once: it looks for each of its neighbours by itself, and again every half minute."""


@dataclass(slots=True)
class NeighbourResponder:
    """Answers what comes into ``inbox``."""

    inbox: Inbox
    directory: Directory

    def begin(self) -> None:
        """What comes is answered from now on."""
        self.inbox.begin(self.on_datagram)

    def end(self) -> None:
        """Nothing is answered any more."""
        self.inbox.end()

    def on_changed(self, interfaces: set[str]) -> None:
        """Nothing to do: nothing of them is kept."""

    def on_datagram(self, datagram: Datagram, interface: str) -> None:
        """It is answered, or counted."""
        counts = self.inbox.counts
        port = self.directory.port(interface)
        if port is None:
            counts["no port"] += 1
            return
        try:
            frame = parse_frame(datagram.data)
        except PacketError:
            counts[Unanswered.MALFORMED.value] += 1
            return
        if frame.from_mac != port.mac:
            counts["from another hardware address than the port's"] += 1
            return
        target = decide(frame.payload, frame.source, frame.hops, port, self.directory)
        if isinstance(target, Unanswered):
            counts[target.value] += 1
            return
        sock = self.inbox.sock
        try:
            mac = hardware_address(sock, interface)
            answer = Frame(
                to_mac=frame.from_mac,
                from_mac=mac,
                source=target.packed,
                target=frame.source,
                protocol=ICMP6,
                hops=HOPS,
                payload=render_advertisement(target, mac),
            )
            send_frame(sock, interface, render_frame(answer))
        except OSError:
            counts["not sent"] += 1
            return
        counts["advertised"] += 1

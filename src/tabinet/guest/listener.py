"""``Listener``: hears what guests announce of addresses, and asks them.

In: ARP and neighbour advertisements of guests, by packet sockets (``framesocket``); whom to ask. Out: announcements, with the interface
that each came by. One pair of sockets for the whole host, open only while somebody wants to know. Who sends too much is not heard for a
while (``limiter``). Never waits; belongs to the loop. ``FakeListener`` is the fake.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from tabinet.guest.announcements import Announcement, parse_announcement, render_question
from tabinet.guest.framesocket import (
    ADVERTISEMENTS,
    ARP,
    ARP_CLAIMS,
    IPV6_FRAMES,
    hardware_address,
    open_frames,
    receive_frame,
    send_frame,
)
from tabinet.guest.inbox import Inbox
from tabinet.guest.limiter import Limiter
from tabinet.guest.sockets import Datagram
from tabinet.lib.ip import IPV4, IPV6, Prefix

Deliver = Callable[[str, Announcement], None]
"""Interface, and what was announced there."""
RATE, BURST = 5.0, 200.0
"""Announcements of one port, a second and at once: a machine that takes over some dozen addresses says each five times, and again after
5 s. Two that take an address from each other for ever write to the store so often."""


class Listener(Protocol):
    """Of one host."""

    def listen(self, deliver: Deliver | None) -> None:
        """Announcements are handed on from now on; None: nobody listens any more.

        Raises:
            SetupError: we are not root.
        """

    def ask(self, interface: str, address: Prefix) -> None:
        """Whoever has the address behind the interface is asked to say so; nothing happens where that cannot be."""


@dataclass(slots=True)
class SocketListener:
    """The kernel behind ``Listener``, in the network namespace of the thread that calls ``listen``."""

    now: Callable[[], float]
    _inboxes: dict[int, Inbox] = field(default_factory=dict)
    """By family."""

    def listen(self, deliver: Deliver | None) -> None:
        """See ``Listener.listen``."""
        for family in list(self._inboxes):
            self._inboxes.pop(family).end()
        if deliver is None:
            return

        def on_datagram(datagram: Datagram, interface: str) -> None:
            found = parse_announcement(datagram.data)
            if found is not None:
                deliver(interface, found)

        for family, which, protocol in ((IPV4, ARP_CLAIMS, ARP), (IPV6, ADVERTISEMENTS, IPV6_FRAMES)):
            self._inboxes[family] = Inbox(open_frames(which, protocol), receive_frame, self.now, Limiter(RATE, BURST), before=which)
            self._inboxes[family].begin(on_datagram)

    def ask(self, interface: str, address: Prefix) -> None:
        """See ``Listener.ask``."""
        inbox = self._inboxes.get(address.family)
        if inbox is None:
            return
        with contextlib.suppress(OSError):
            frame = render_question(address, hardware_address(inbox.sock, interface))
            send_frame(inbox.sock, interface, frame, ARP if address.family == IPV4 else IPV6_FRAMES)


@dataclass(slots=True)
class FakeListener:
    """In memory: ``say`` is what guests do."""

    asked: list[tuple[str, Prefix]] = field(default_factory=list)
    _deliver: Deliver | None = None

    @property
    def listens(self) -> bool:
        return self._deliver is not None

    def say(self, interface: str, announcement: Announcement) -> None:
        """A guest announces an address."""
        if self._deliver is not None:
            self._deliver(interface, announcement)

    def listen(self, deliver: Deliver | None) -> None:
        """See ``Listener.listen``."""
        self._deliver = deliver

    def ask(self, interface: str, address: Prefix) -> None:
        """See ``Listener.ask``."""
        if self._deliver is not None:
            self.asked.append((interface, address))

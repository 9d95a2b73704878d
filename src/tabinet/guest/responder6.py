"""``Responder6``: router advertisements for all guests of the host over one socket.

In: solicitations, changes of endpoints. Out: advertisements: to who asks, to whose endpoint changed, and to everyone every now and then,
because a router is believed in for a limited time. Which port asks is told by the interface. About 60 microseconds an advertisement.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass

from tabinet.guest.advert import EVERYONE, ROUTER, is_solicitation, make_advert, render_advert, subnets_of
from tabinet.guest.directory import Directory, Port
from tabinet.guest.inbox import Inbox
from tabinet.guest.options import GuestOptions
from tabinet.guest.sockets import Datagram, send6

Note = Callable[[str, Port, str], None]
PACE = 50
"""So many advertisements are sent before others on the loop have a turn."""


@dataclass(slots=True)
class Responder6:
    """Answers what comes into ``inbox``."""

    inbox: Inbox
    directory: Directory
    options: GuestOptions
    note: Note

    def begin(self) -> None:
        """What comes is answered from now on."""
        self.inbox.begin(self.on_datagram)

    def end(self) -> None:
        """Nothing is answered any more."""
        self.inbox.end()

    def on_datagram(self, datagram: Datagram, interface: str) -> None:
        """The guest behind the interface is told about its router."""
        if is_solicitation(datagram.data):
            self.advertise(interface)
        else:
            self.inbox.counts["not a solicitation"] += 1

    def on_changed(self, interfaces: set[str]) -> None:
        """What guests behind these interfaces are told may be another thing now."""
        for interface in interfaces:
            self.advertise(interface)

    def advertise(self, interface: str) -> None:
        """The guest is told, if there is something to tell and it is there."""
        port = self.directory.port(interface)
        advert = make_advert(port, subnets_of(port, self.directory), self.options) if port is not None else None
        if port is None or advert is None:
            return
        try:
            # To everyone on the link, where there is only the guest: it may not have an address to answer to yet.
            send6(self.inbox.sock, socket.if_nametoindex(interface), ROUTER.packed, EVERYONE, render_advert(advert))
        except OSError as error:
            # Most often the interface is not there yet, or not set up: its guest asks when it is.
            self.inbox.counts[f"not sent: {error.strerror}"] += 1
            return
        self.inbox.counts["advertised"] += 1

    async def advertise_forever(self) -> None:
        """Everyone is told again, before they stop to believe it."""
        while True:
            interfaces = self.directory.interfaces()
            for place, interface in enumerate(interfaces, 1):
                self.advertise(interface)
                if place % PACE == 0:
                    await asyncio.sleep(0)
            await asyncio.sleep(self.options.advertise_s)

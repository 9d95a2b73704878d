"""``Inbox``: what guests send over one socket, each datagram handed on with the interface that it came by, and floods kept out.

In: a socket, how to read from it. Out: calls of ``deliver`` with a datagram and the name of its interface. A port that sends too much is
shut off by a filter in the kernel for a while (``limiter``), so that a flood costs nothing. Never waits; the loop owns it.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tabinet.guest.limiter import Limiter
from tabinet.guest.sockets import Datagram, Program, shut_off

AT_ONCE = 64
"""So many datagrams are handed on before others on the loop have a turn."""


@dataclass(slots=True)
class Inbox:
    """Reads ``sock`` while it has begun."""

    sock: socket.socket
    receive: Callable[[socket.socket], Datagram | None]
    now: Callable[[], float]
    limiter: Limiter = field(default_factory=Limiter)
    counts: Counter[str] = field(default_factory=Counter)
    before: Program = ()
    """What the socket's filter looks at before who is shut off."""
    _shut: frozenset[int] = frozenset()
    """Whom the filter keeps out."""
    _opening: asyncio.TimerHandle | None = None

    def begin(self, deliver: Callable[[Datagram, str], None]) -> None:
        """What comes is handed on from now on."""
        asyncio.get_running_loop().add_reader(self.sock.fileno(), self.on_readable, deliver)

    def end(self) -> None:
        """The socket is closed."""
        asyncio.get_running_loop().remove_reader(self.sock.fileno())
        if self._opening is not None:
            self._opening.cancel()
        self.sock.close()

    def on_readable(self, deliver: Callable[[Datagram, str], None]) -> None:
        """Some of what came is handed on."""
        for _ in range(AT_ONCE):
            datagram = self.receive(self.sock)
            if datagram is None:
                return
            if not self.limiter.allows(datagram.index, self.now()):
                self.counts["too many"] += 1
                if self.limiter.shut() != self._shut:
                    self._shut_off()
                continue
            try:
                interface = socket.if_indextoname(datagram.index)
            except OSError:
                continue  # it is gone, and whoever was behind it
            deliver(datagram, interface)

    def _shut_off(self) -> None:
        """The filter is as the limiter says, now and when somebody's time is over."""
        wait_s = self.limiter.open_s(self.now())
        self._shut = self.limiter.shut()
        shut_off(self.sock, self._shut, self.before)
        if self._opening is not None:
            self._opening.cancel()
        self._opening = asyncio.get_running_loop().call_later(wait_s, self._shut_off) if wait_s is not None else None

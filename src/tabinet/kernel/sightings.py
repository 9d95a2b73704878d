"""The seam to what a guest sends first: a frame that comes in from an interface tells that somebody is there, who can be told something.

``Sightings`` listens on few interfaces, each with a packet socket of its own (packet(7)), so that no other traffic of the host is looked
at; a filter keeps out what the host itself sends there. ``SocketSightings`` is the kernel's, ``FakeSightings`` the fake.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from tabinet.kernel.netlink import attach_filter

_ETH_P_ALL = 0x0003
_HEADER_BYTES = 14
_READS = 16
"""Most frames that are read of an interface at a time: the first one says it all."""
_FROM_OUTSIDE = b"".join(  # struct sock_filter[], Documentation/networking/filter.rst
    struct.pack("=HBBI", *instruction)
    for instruction in (
        (0x20, 0, 0, 0xFFFFF004),  # load SKF_AD_PKTTYPE
        (0x15, 0, 1, 4),  # PACKET_OUTGOING
        (0x06, 0, 0, 0),
        (0x06, 0, 0, _HEADER_BYTES),
    )
)


class Sighting(msgspec.Struct, frozen=True, gc=False):
    """A frame came in from the interface."""

    index: int
    mac: str
    """Who sent it."""


class Sightings(Protocol):
    """Looks at interfaces of one network namespace, and says something there."""

    def watch(self, indices: Iterable[int]) -> None:
        """These interfaces are looked at, and no others. One that does not exist is left out."""
        ...

    def fileno(self) -> int:
        """Readable when ``read`` would give something."""
        ...

    def say(self, index: int, frames: Iterable[bytes]) -> None:
        """The frames go out by the interface, which is being looked at; nothing happens otherwise, or where it takes none."""
        ...

    def read(self) -> list[Sighting]:
        """What was seen since; never waits. Some of many frames of one interface are enough."""
        ...

    def close(self) -> None: ...


class SocketSightings:
    """The kernel behind ``Sightings``, in the network namespace of the thread that calls ``watch``."""

    __slots__ = ("_epoll", "_sockets")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}

    def watch(self, indices: Iterable[int]) -> None:
        """See ``Sightings.watch``."""
        wanted = set(indices)
        for index in self._sockets.keys() - wanted:
            self._drop(index)
        for index in wanted - self._sockets.keys():
            with contextlib.suppress(OSError):
                self._add(index)

    def _add(self, index: int) -> None:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
        try:
            attach_filter(sock, _FROM_OUTSIDE)
            sock.bind((socket.if_indextoname(index), _ETH_P_ALL))
        except OSError:
            sock.close()
            raise
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        self._sockets[index] = sock

    def _drop(self, index: int) -> None:
        sock = self._sockets.pop(index)
        self._epoll.unregister(sock.fileno())
        sock.close()

    def fileno(self) -> int:
        return self._epoll.fileno()

    def say(self, index: int, frames: Iterable[bytes]) -> None:
        """See ``Sightings.say``."""
        sock = self._sockets.get(index)
        if sock is None:
            return
        # That the interface went down, or was down when it was first looked at, is told to whoever uses the socket next: once.
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        with contextlib.suppress(OSError):
            for frame in frames:
                sock.send(frame)

    def read(self) -> list[Sighting]:
        """See ``Sightings.read``."""
        found: dict[Sighting, None] = {}
        for index, sock in self._sockets.items():
            for _ in range(_READS):
                try:
                    frame = sock.recv(_HEADER_BYTES)
                except BlockingIOError:
                    break
                except OSError:
                    continue  # the interface went down: once
                found[Sighting(index, frame[6:12].hex(":"))] = None
        return list(found)

    def close(self) -> None:
        """Nothing is looked at any more."""
        for index in list(self._sockets):
            self._drop(index)
        self._epoll.close()


@dataclass(slots=True)
class FakeSightings:
    """In memory: ``see`` is what happens."""

    watched: frozenset[int] = frozenset()
    said: list[tuple[int, bytes]] = field(default_factory=list)
    """What went out: interfaces and frames."""
    _seen: list[Sighting] = field(default_factory=list)
    _signal: int = field(default_factory=lambda: os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))

    def see(self, index: int, mac: str) -> None:
        """A frame came in."""
        if index in self.watched:
            self._seen.append(Sighting(index, mac))
            os.eventfd_write(self._signal, 1)

    def watch(self, indices: Iterable[int]) -> None:
        """See ``Sightings.watch``."""
        self.watched = frozenset(indices)
        self._seen = [sighting for sighting in self._seen if sighting.index in self.watched]

    def fileno(self) -> int:
        return self._signal

    def say(self, index: int, frames: Iterable[bytes]) -> None:
        """See ``Sightings.say``."""
        if index in self.watched:
            self.said += [(index, frame) for frame in frames]

    def read(self) -> list[Sighting]:
        """See ``Sightings.read``."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._signal)
        seen, self._seen = self._seen, []
        return seen

    def close(self) -> None:
        """Nothing is looked at any more."""
        os.close(self._signal)

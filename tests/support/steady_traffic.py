"""Traffic that goes on while something is done to the host in between: every echo request must be answered, every stream must go on.

A thread sends and reads; packets are answered by kernels, so that a slow machine makes them fewer, not fail. No time is asserted: a packet
counts as lost when its answer has not come although later traffic has, long after.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass, field

EVERY_S = 0.01
ANSWERED_WITHIN_S = 10.0


@dataclass(slots=True)
class Pings:
    """Echo requests to one address, numbered."""

    socket: socket.socket
    address: str
    identity: int = field(default_factory=lambda: int.from_bytes(os.urandom(2), "big"))
    sent: int = 0
    answered: set[int] = field(default_factory=set)

    @property
    def missing(self) -> set[int]:
        return set(range(self.sent)) - self.answered

    def turn(self) -> None:
        """One more is sent."""
        self.read()
        kind = 128 if ":" in self.address else 8
        body = struct.pack(">BBHHHI", kind, 0, 0, self.identity, 1, self.sent)
        if kind == 8:
            body = body[:2] + struct.pack(">H", _checksum(body)) + body[4:]
        self.socket.sendto(body, (self.address, 0))
        self.sent += 1

    def read(self) -> None:
        """What has come is known."""
        while select.select([self.socket], [], [], 0)[0]:
            data = self.socket.recv(2000)
            if ":" not in self.address:
                data = data[(data[0] & 15) * 4 :]
            kind, _, _, identity, _, number = struct.unpack_from(">BBHHHI", data) if len(data) >= 12 else (1, 0, 0, 0, 0, 0)
            if kind in (0, 129) and identity == self.identity:
                self.answered.add(number)


@dataclass(slots=True)
class Stream:
    """A connection on which numbers go to and fro."""

    client: socket.socket
    server: socket.socket
    sent: int = 0
    echoed: int = 0
    _back: bytes = b""

    def turn(self) -> None:
        """One more number is under way; what arrived at the server goes back."""
        self.client.send(struct.pack(">I", self.sent))
        self.sent += 1
        self.read()

    def read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self.server.send(self.server.recv(4096))
        with contextlib.suppress(BlockingIOError):
            self._back += self.client.recv(4096)
        while len(self._back) >= 4:
            (number,) = struct.unpack_from(">I", self._back)
            assert number == self.echoed
            self.echoed, self._back = self.echoed + 1, self._back[4:]

    @property
    def complete(self) -> bool:
        return self.sent == self.echoed


@dataclass(slots=True)
class Traffic:
    """All of them, until ``stop``."""

    pings: list[Pings] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    error: BaseException | None = None
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stopping.wait(EVERY_S):
                for each in (*self.pings, *self.streams):
                    each.turn()
        except BaseException as error:  # noqa: BLE001  # told by ``stop``
            self.error = error

    def stop(self) -> None:
        """Nothing is sent any more, and all that will ever be answered is."""
        if self._thread is None:
            return
        self._stopping.set()
        self._thread.join()
        self._thread = None
        if self.error is not None:
            raise self.error
        deadline = time.monotonic() + ANSWERED_WITHIN_S
        while time.monotonic() < deadline and not self.whole:
            for each in (*self.pings, *self.streams):
                each.read()
            time.sleep(EVERY_S)

    @property
    def whole(self) -> bool:
        """Nothing is lost."""
        return not any(ping.missing for ping in self.pings) and all(stream.complete for stream in self.streams)

    def losses(self) -> dict[str, tuple[int, int]]:
        """Lost and sent by destination, where something is lost."""
        found = {ping.address: (len(ping.missing), ping.sent) for ping in self.pings if ping.missing}
        return found | {
            f"stream {index}": (each.sent - each.echoed, each.sent) for index, each in enumerate(self.streams) if not each.complete
        }

    def close(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        for ping in self.pings:
            ping.socket.close()
        for stream in self.streams:
            stream.client.close()
            stream.server.close()


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF

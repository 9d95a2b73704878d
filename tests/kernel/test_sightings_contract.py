"""What ``Sightings`` promises, of the kernel and of the fake."""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tabinet.kernel import netns
from tabinet.kernel.sightings import FakeSightings, Sighting, Sightings, SocketSightings

GUEST, HOST = "02:00:00:00:00:01", "02:00:00:00:00:02"
WITHIN_S = 10.0


class Place:
    """A namespace with an interface, "tap", whose other end is the guest's; or the fake, where it has index 7."""

    def __init__(self, real: bool) -> None:
        self.name = f"tbt-{uuid.uuid4().hex[:8]}" if real else ""
        self.index = 7
        self.sightings: Sightings = FakeSightings()
        if real:
            self.sightings.close()
            self.sightings = SocketSightings()
            netns.create(self.name)
            # Nothing is sent there but what a test sends.
            netns.run_in(self.name, lambda: Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1"))
            commands = f"link add tap address {HOST} type veth peer name guest address {GUEST}\nlink set tap up\nlink set guest up\n"
            subprocess.run(["ip", "-n", self.name, "-batch", "-"], input=commands, text=True, check=True)
            self.index = netns.run_in(self.name, lambda: socket.if_nametoindex("tap"))

    def watch(self, *indices: int) -> None:
        if self.name:
            netns.run_in(self.name, lambda: self.sightings.watch(indices))
        else:
            self.sightings.watch(indices)

    def send(self, interface: str = "guest") -> None:
        """A frame leaves by the interface."""
        if not self.name:
            assert isinstance(self.sightings, FakeSightings)
            if interface == "guest":
                self.sightings.see(self.index, GUEST)
            return
        mac = bytes.fromhex((GUEST if interface == "guest" else HOST).replace(":", ""))
        with contextlib.closing(netns.run_in(self.name, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))) as sender:
            sender.bind((interface, 0))
            sender.send(b"\xff" * 6 + mac + b"\x80\x35" + bytes(28))

    def seen(self) -> set[Sighting]:
        """What there is when the guest sends something: again, as a new interface drops what it is given until its carrier is known."""
        deadline = time.monotonic() + WITHIN_S
        while True:
            self.send()
            if select.select([self.sightings.fileno()], [], [], 0.1)[0]:
                return set(self.sightings.read())
            assert time.monotonic() < deadline, "nobody was seen"

    def heard(self, frame: bytes) -> bool:
        """The guest gets the frame, which is said again and again, as the interface may not have seen its carrier yet."""
        if not self.name:
            assert isinstance(self.sightings, FakeSightings)
            self.sightings.say(self.index, [frame])
            return (self.index, frame) in self.sightings.said
        with contextlib.closing(netns.run_in(self.name, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))) as guest:
            guest.bind(("guest", 0x0003))
            guest.settimeout(0.1)
            deadline = time.monotonic() + WITHIN_S
            while time.monotonic() < deadline:
                self.sightings.say(self.index, [frame])
                with contextlib.suppress(TimeoutError):
                    if guest.recv(200) == frame:
                        return True
        return False

    def close(self) -> None:
        self.sightings.close()
        if self.name:
            netns.delete(self.name)


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.kernel)], ids=["fake", "kernel"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    made = Place(request.param)
    yield made
    made.close()


def test_who_sends_is_seen_and_the_host_itself_is_not(place: Place) -> None:
    place.watch(place.index)
    place.send("tap")
    assert place.sightings.read() == []
    assert place.seen() == {Sighting(place.index, GUEST)}


def test_who_is_not_looked_at_is_not_seen(place: Place) -> None:
    place.send()
    assert place.sightings.read() == []
    place.watch(place.index)
    place.watch()
    place.send()
    assert place.sightings.read() == []
    place.watch(4711, place.index)
    assert place.seen() == {Sighting(place.index, GUEST)}


def test_who_is_looked_at_can_be_told_something(place: Place) -> None:
    frame = bytes.fromhex((GUEST + HOST).replace(":", "")) + b"\x80\x35" + bytes(46)
    place.sightings.say(place.index, [frame])
    place.sightings.say(4711, [frame])
    place.watch(place.index)
    assert place.heard(frame)
    assert place.sightings.read() == []

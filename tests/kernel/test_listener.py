"""What guests announce is heard by real sockets, and a kernel that has an address says so when it is asked."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator

import pytest
from fence import settle

from tabinet.guest.announcements import Announcement, render_announcements, render_question
from tabinet.guest.listener import BURST, SocketListener
from tabinet.kernel import netns
from tabinet.lib.ip import parse_address

pytestmark = pytest.mark.kernel

GUEST, OTHER = "02:00:00:00:00:01", "02:00:00:00:00:02"
SHARED = ("10.65.0.99", "fd65::99")
WITHIN_S = 30.0


@pytest.fixture
def place() -> Iterator[str]:
    """A namespace of the host with a cable to one of the guest, who has the addresses."""
    name = f"tbt-{uuid.uuid4().hex[:8]}"
    for each in (name, f"{name}-g"):
        netns.create(each)
    host = [f"link add tap type veth peer name eth0 address {GUEST} netns {name}-g", "link set tap up", "addr add 169.254.1.1/32 dev lo"]
    host += ["-6 addr add fe80::1/64 dev tap nodad", "link set lo up"]
    guest = ["link set lo up", "link set eth0 up", "route add 169.254.1.1 dev eth0", f"addr add {SHARED[0]}/32 dev eth0"]
    guest += [f"-6 addr add {SHARED[1]}/128 dev eth0 nodad"]
    try:
        for where, lines in ((name, host), (f"{name}-g", guest)):
            for line in lines:
                subprocess.run(["ip", "-n", where, *line.split()], check=True)
        yield name
    finally:
        for each in (name, f"{name}-g"):
            netns.delete(each)


async def until(heard: list[tuple[str, Announcement]], wanted: set[tuple[str, Announcement]], again: object = None) -> None:
    """All of these were heard; ``again``: is called until they are."""
    deadline = time.monotonic() + WITHIN_S
    while not wanted <= set(heard):
        assert time.monotonic() < deadline, heard
        if callable(again):
            again()
        await asyncio.sleep(0.05)


def said(address: str, mac: str = GUEST, *, asked: bool = False) -> tuple[str, Announcement]:
    return "tap", Announcement(mac, parse_address(address), asked)


def test_announcements_and_answers_are_heard(place: str) -> None:
    netns.run_in(place, lambda: asyncio.run(announcements_and_answers(place)))


async def announcements_and_answers(place: str) -> None:
    heard: list[tuple[str, Announcement]] = []
    listener = SocketListener(time.monotonic)
    guest = netns.run_in(f"{place}-g", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
    with contextlib.closing(guest), contextlib.ExitStack() as stack:
        guest.bind(("eth0", 0))
        stack.callback(listener.listen, None)
        listener.listen(lambda interface, announcement: heard.append((interface, announcement)))
        mac = bytes.fromhex(OTHER.replace(":", ""))
        frames = list(render_announcements(map(parse_address, SHARED), b"\xff" * 6, mac))
        question = render_question(parse_address("10.65.0.7"), mac)

        def announce() -> None:
            for frame in (question, *frames):  # again: a new interface drops what it is given until its carrier is known
                guest.send(frame)

        await until(heard, {said(address, OTHER) for address in SHARED}, announce)
        assert {announcement.address for _, announcement in heard} == set(map(parse_address, SHARED)), "a question announces nothing"

        def ask() -> None:
            for address in SHARED:
                listener.ask("tap", parse_address(address))

        await until(heard, {said(address, asked=True) for address in SHARED}, ask)
        listener.ask("nowhere", parse_address(SHARED[0]))

        heard.clear()
        for _ in range(3 * int(BURST)):
            guest.send(frames[0])
        settle()
        await until(heard, {said(SHARED[0], OTHER)})
        assert len(heard) <= 2 * BURST, "who says too much is not heard for a while"

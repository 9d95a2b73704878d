"""A guest that remembers its gateways at the hardware address of another host takes the word of the new one."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator

import pytest

from tabinet.guest.announcements import BROADCAST, render_announcements
from tabinet.kernel import netns
from tabinet.lib.ip import parse_address

pytestmark = pytest.mark.kernel

GUEST, HOST, FORMER = "02:00:00:00:00:01", "ee:ee:ee:ee:ee:ee", "fe:00:00:00:00:09"
GATEWAYS = ("169.254.1.1", "10.0.0.1", "fe80::1")
WITHIN_S = 10.0


def packed(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


@pytest.fixture
def place() -> Iterator[str]:
    """A namespace with both ends of a cable: "tap" is the host's, "guest" the guest's, who remembers."""
    name = f"tbt-{uuid.uuid4().hex[:8]}"
    netns.create(name)
    commands = [f"link add tap address {HOST} type veth peer name guest address {GUEST}", "link set tap up", "link set guest up"]
    commands += [f"neigh replace {gateway} lladdr {FORMER} dev guest nud reachable" for gateway in GATEWAYS]
    try:
        subprocess.run(["ip", "-n", name, "-batch", "-"], input="\n".join(commands) + "\n", text=True, check=True)
        yield name
    finally:
        netns.delete(name)


def remembered(place: str) -> dict[str, str]:
    lines = subprocess.run(["ip", "-n", place, "neigh", "show", "dev", "guest"], check=True, capture_output=True, text=True).stdout.split(
        "\n"
    )
    return {words[0]: words[words.index("lladdr") + 1] for line in lines if "lladdr" in (words := line.split())}


@pytest.mark.parametrize("told", [packed(GUEST), BROADCAST], ids=["by its address", "by broadcast"])
def test_a_guest_believes_what_is_announced(place: str, told: bytes) -> None:
    assert remembered(place) == dict.fromkeys(GATEWAYS, FORMER)
    frames = list(render_announcements(map(parse_address, GATEWAYS), told, packed(HOST)))
    assert len(frames) == len(GATEWAYS)
    deadline = time.monotonic() + WITHIN_S
    with contextlib.closing(netns.run_in(place, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))) as host:
        host.bind(("tap", 0))
        while remembered(place) != dict.fromkeys(GATEWAYS, HOST):
            assert time.monotonic() < deadline, remembered(place)
            for frame in frames:  # again: a new interface drops what it is given until its carrier is known
                host.send(frame)

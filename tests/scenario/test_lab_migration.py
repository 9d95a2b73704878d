"""A machine moves from one host to another while others ping it a hundred times a second: what is lost, and whose flows go on."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from moving_world import ADDRESS, MAC, Machine, Moving, Pinger, eventually, migrate, moving_lab

from tabinet.kernel import netns
from tabinet.lab.lab import Lab
from tabinet.lab.vm import missing

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

PORT = 7001
LOST_S = 3.0
"""Far beyond what is lost on an idle machine; see docs/performance.md for that."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with moving_lab() as made:
        yield made


class Guest:
    """Namespaces that stand for one machine: the same addresses on either host, of which one is up."""

    def __init__(self, moving: Moving) -> None:
        self.moving = moving
        self.names = {host: f"{moving.lab.name}-{moving.name}-{host}" for host in ("h1", "h2")}

    def plug(self, host: str) -> None:
        """There is an interface for it, and nothing runs behind it."""
        inside = self.names[host]
        netns.create(inside)
        tap = ("link", "add", self.moving.tap, "type", "veth", "peer", "name", "eth0", "address", MAC, "netns", inside)
        self.moving.ip(host, *tap)
        self.moving.ip(host, "link", "set", self.moving.tap, "up")

    def run(self, host: str, gateway: str = "") -> None:
        """It runs there, and says so, as QEMU does. ``gateway``: the hardware address that it remembers its gateway at."""
        commands = f"link set lo up\naddr add {ADDRESS}/32 dev eth0\nlink set eth0 up\n"
        commands += "route add 169.254.1.1 dev eth0\nroute add default via 169.254.1.1\n"
        if gateway:
            commands += f"neigh add 169.254.1.1 lladdr {gateway} dev eth0 nud reachable\n"
        subprocess.run(["ip", "-n", self.names[host], "-batch", "-"], input=commands, text=True, check=True)
        sender = netns.run_in(self.names[host], lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
        with contextlib.closing(sender):
            sender.bind(("eth0", 0))
            mac = bytes.fromhex(MAC.replace(":", ""))
            reverse = b"\x00\x01\x08\x00\x06\x04\x00\x03" + (mac + bytes(4)) * 2
            sender.send(b"\xff" * 6 + mac + b"\x80\x35" + reverse)

    def gateway(self, host: str) -> str:
        """What it remembers, running there."""
        found = subprocess.run(["ip", "-n", self.names[host], "neigh", "show", "169.254.1.1"], check=True, capture_output=True, text=True)
        return found.stdout.split()[found.stdout.split().index("lladdr") + 1]

    def stop(self, host: str) -> None:
        subprocess.run(["ip", "-n", self.names[host], "link", "set", "eth0", "down"], check=True)

    def socket(self, host: str) -> socket.socket:
        made = netns.run_in(self.names[host], lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("", PORT))
        made.settimeout(5)
        return made

    def remove(self) -> None:
        for name in self.names.values():
            if netns.exists(name):
                netns.delete(name)


@pytest.fixture
def guest(lab: Lab) -> Iterator[Guest]:
    made = Guest(Moving(lab, "caliguest"))
    try:
        made.moving.put_endpoint("h1")
        made.plug("h1")
        made.run("h1")
        made.moving.wait_up("h1")
        yield made
    finally:
        made.moving.forget()
        made.remove()


@pytest.mark.parametrize("told", [True, False], ids=["with hooks", "by what it sends"])
def test_a_machine_moves(lab: Lab, guest: Guest, told: bool) -> None:
    moving = guest.moving
    peer = moving.namespace("peer")
    with contextlib.ExitStack() as stack:
        pinger = stack.enter_context(Pinger(peer))
        near, there = (stack.enter_context(Pinger(moving.namespace(name))) for name in ("near", "there"))
        for each in (pinger, near, there):
            each.wait_answers()
        outside = stack.enter_context(netns.run_in(peer, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
        outside.bind(("", PORT))
        outside.settimeout(10)
        with guest.socket("h1") as inside:
            inside.sendto(b"a question", (moving.address_of("peer"), PORT))
            assert outside.recvfrom(100)[1] == (ADDRESS, PORT)
            outside.sendto(b"an answer", (ADDRESS, PORT))
            assert inside.recv(100) == b"an answer"

        guest.plug("h2")
        moving.begin()
        for each in (pinger, near, there):
            each.wait_answers()
            assert each.lost() == 0, "it runs where it was"

        remembered = guest.gateway("h1")
        guest.stop("h1")
        if told:
            moving.hook("h1", running=False)
            eventually(lambda: "via" in moving.ip("h1", "route", "show", ADDRESS))
            eventually(lambda: "proto 84" in moving.ip("h2", "route", "show", ADDRESS))
        guest.run("h2", remembered)
        for each in (pinger, near, there):
            each.wait_answers()
        with guest.socket("h2") as inside:
            eventually(lambda: _arrives(outside, inside, b"another answer"))
        with netns.run_in(peer, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as stranger, guest.socket("h2") as inside:
            outside.sendto(b"again", (ADDRESS, PORT))
            stranger.sendto(b"not an answer", (ADDRESS, PORT))
            outside.sendto(b"and again", (ADDRESS, PORT))
            assert [inside.recv(100), inside.recv(100)] == [b"again", b"and again"]

        eventually(lambda: "proto 84" in moving.ip("h2", "route", "show", ADDRESS))
        moving.end()
        eventually(lambda: moving.status("h1") == "")
        for each in (pinger, near, there):
            each.wait_answers()
        assert guest.gateway("h2") != remembered
        for each in (pinger, near, there):
            assert each.lost() * 0.01 < LOST_S
    assert "8600" not in moving.ip("h2", "rule", "show")


def _arrives(outside: socket.socket, inside: socket.socket, data: bytes) -> bool:
    outside.sendto(data, (ADDRESS, PORT))
    inside.settimeout(0.2)
    try:
        return inside.recv(100) == data
    except TimeoutError:
        return False


@pytest.mark.skipif(bool(missing()), reason=f"no virtual machines here, for want of {', '.join(missing())}: make setup VMS=1")
def test_a_virtual_machine_is_live_migrated(lab: Lab, tmp_path: Path) -> None:
    """To a TAP with another hardware address, of which it is told."""
    moving = Moving(lab, "tapguest")
    source, target = Machine(moving, "h1", tmp_path, hardware=""), Machine(moving, "h2", tmp_path, incoming=True, hardware="")
    try:
        report = migrate(moving, source, target)
    finally:
        source.stop()
        target.stop()
        moving.forget()
    assert report["lost"] * 0.01 < report["downtime_s"] + LOST_S, report
    print(report)

"""An address that three machines on two hosts may have: the one that announced it last has it, as with VRRP."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
from collections.abc import Iterator

import pytest
from moving_world import Moving, Pinger, eventually, moving_lab

from tabinet.guest.announcements import BROADCAST, parse_announcement
from tabinet.guest.framesocket import ARP
from tabinet.kernel import netns
from tabinet.lab.lab import Lab
from tabinet.lib.ip import parse_address
from tabinet.model.keys import HolderKey, path_of

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

SHARED = "10.65.200.99"
RECORD = path_of(HolderKey(parse_address(SHARED)))
PLACES = {"one": "h1", "two": "h1", "three": "h2"}
LOST_S = 3.0
"""Far beyond what is lost on an idle machine; see docs/openstack.md for that."""


class Machine:
    """A namespace with an address of its own, which takes the shared one and says so, or lets it go."""

    def __init__(self, lab: Lab, name: str, number: int) -> None:
        self.host, self.address, self.mac = PLACES[name], f"10.65.200.{number}", f"02:00:00:00:98:{number:02x}"
        self.moving = Moving(lab, f"cali{name}", name)
        self.inside = f"{lab.name}-{name}"
        netns.create(self.inside)
        peer = ("peer", "name", "eth0", "address", self.mac, "netns", self.inside)
        self.moving.ip(self.host, "link", "add", self.moving.tap, "type", "veth", *peer)
        commands = f"link set lo up\naddr add {self.address}/32 dev eth0\nlink set eth0 up\n"
        commands += "route add 169.254.1.1 dev eth0\nroute add default via 169.254.1.1\n"
        subprocess.run(["ip", "-n", self.inside, "-batch", "-"], input=commands, text=True, check=True)
        self.wire = netns.run_in(self.inside, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ARP)))
        self.wire.setblocking(False)

    def put_endpoint(self) -> None:
        names = {"node": self.host, "orchestrator": "lab", "workload": self.moving.name, "endpoint": "eth0"}
        nets = {"ipNetworks": [f"{self.address}/32", f"{SHARED}/32"], "allowedIps": [f"{SHARED}/32"]}
        self.moving.put(
            self.moving.key(self.host), spec=names | nets | {"interfaceName": self.moving.tap, "mac": self.mac, "profiles": ["open"]}
        )

    def ip(self, *argv: str) -> None:
        subprocess.run(["ip", "-n", self.inside, *argv], check=True)

    def take(self) -> None:
        """It has the address, and announces it (gratuitous ARP, RFC 5227 section 3)."""
        self.ip("addr", "add", f"{SHARED}/32", "dev", "eth0")
        mac, address = bytes.fromhex(self.mac.replace(":", "")), parse_address(SHARED).packed
        arp = b"\x00\x01\x08\x00\x06\x04\x00\x01" + mac + address + bytes(6) + address
        self.wire.sendto(BROADCAST + mac + b"\x08\x06" + arp, ("eth0", ARP))

    def rivals(self) -> list[str]:
        """Who else said by ARP that the address is its own."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, where = self.wire.recvfrom(100)
                said = parse_announcement(frame)
                if said is not None and said.address.address == SHARED and where[2] != socket.PACKET_OUTGOING:
                    found.append(said.mac)
        return found

    def let_go(self) -> None:
        self.ip("addr", "del", f"{SHARED}/32", "dev", "eth0")

    def remove(self) -> None:
        self.wire.close()
        self.moving.delete(self.moving.key(self.host))
        netns.delete(self.inside)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with moving_lab() as made:
        yield made


@pytest.fixture
def machines(lab: Lab) -> Iterator[dict[str, Machine]]:
    made = {name: Machine(lab, name, number) for number, name in enumerate(PLACES, 11)}
    try:
        for machine in made.values():
            machine.put_endpoint()
        for machine in made.values():
            machine.moving.wait_up(machine.host)
        yield made
    finally:
        for machine in made.values():
            machine.remove()


def address_of_host(machine: Machine, host: str) -> str:
    shown = machine.moving.ip(host, "-4", "-o", "addr", "show", "scope", "global")
    return next(word.partition("/")[0] for word in shown.split() if word.startswith("172.20.0."))


def ways(machine: Machine) -> set[str]:
    """How the third host reaches the address."""
    words = machine.moving.ip("h3", "route", "show", SHARED).split()
    return {after for word, after in itertools.pairwise(words) if word == "via"}


def test_the_address_follows_the_machine_that_announced_it_last(lab: Lab, machines: dict[str, Machine]) -> None:
    first = machines["one"]
    hosts = {name: address_of_host(first, name) for name in ("h1", "h2")}
    eventually(lambda: ways(first) == set(hosts.values()))  # nobody was heard
    with Pinger(first.moving.namespace("peer"), SHARED) as pinger, Pinger(first.moving.namespace("near"), SHARED) as near:
        holder: Machine | None = None
        for name in ("one", "three", "two", "one", "three"):
            if holder is not None:
                holder.let_go()
            holder = machines[name]
            holder.take()
            for each in (pinger, near):
                each.wait_answers()
            assert holder.rivals() == []
            eventually(lambda name=name: ways(first) == {hosts[PLACES[name]]})
        for each in (pinger, near):
            assert each.gap_s() < LOST_S
        print({"longest gap, ms": [round(each.gap_s() * 1000) for each in (pinger, near)]})
    # Its endpoint goes, and with it what was said of it: the others are asked no more than before anybody was heard.
    machines["three"].moving.delete(machines["three"].moving.key("h2"))
    eventually(lambda: ways(first) == {hosts["h1"]})
    eventually(lambda: first.moving.run(lambda store: store.get(RECORD)) is None)

"""Whom the host hears by ARP and neighbour discovery: a workload's own addresses always, of others that it may use few new ones."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fence import settle
from forged import ARP, EVERYBODY, IPV6, Wire, arp, ether, icmp6, ipv6, mac_bytes, open_wire

from tabinet.calc import messages as m
from tabinet.dataplane.nft.driver import NftDriver
from tabinet.kernel import netns
from tabinet.kernel.nftsocket import NftSocket, open_nftables
from tabinet.lib.ip import parse_address, parse_prefix
from tabinet.model.keys import ResourceKey
from tabinet.rules.builder import TableBuilder
from tabinet.rules.neighbours import NEW_SENDERS_BURST, NEW_SENDERS_PER_S

pytestmark = pytest.mark.kernel

MAC, OTHER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
GATEWAY4, GATEWAY6 = "169.254.1.1", "fe80::1"
OWN4, OWN6 = "10.65.0.7", "fd65::7"
MANY = 400
ARP_ANSWER = bytes.fromhex("08060001080006040002")
"""From the type of the frame to the operation."""


class Host:
    """A workload that may send from prefixes too, and from others with another MAC."""

    def __init__(self, tag: str) -> None:
        self.host, self.inner = f"tbn-{tag}-h", f"tbn-{tag}-w"
        for name in (self.host, self.inner):
            netns.create(name)
        self.ip(self.host, "link add calia type veth peer name eth0 netns " + self.inner)
        # By itself the workload says nothing.
        self.ip(self.inner, f"link set dev eth0 address {MAC} addrgenmode none")
        self.ip(self.inner, "link set dev eth0 up")
        netns.run_in(self.host, lambda: Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1"))
        for command in ("link set dev lo up", f"addr add {GATEWAY4}/32 dev lo", "link set dev calia up"):
            self.ip(self.host, command)
        self.ip(self.host, f"addr add {GATEWAY6}/64 dev calia nodad")
        for net in (OWN4, "10.80.0.0/16", "10.81.0.0/16", OWN6, "fd80::/64", "fd81::/64"):
            self.ip(self.host, f"{'-6 ' if ':' in net else ''}route add {net} dev calia")
        self.mac = self.ip(self.host, "-o link show dev calia").partition("link/ether ")[2].partition(" ")[0]
        self.nftables: NftSocket = netns.run_in(self.host, open_nftables)
        self.driver = NftDriver(self.nftables)
        self.wire: Wire = netns.run_in(self.inner, open_wire)

    def ip(self, namespace: str, command: str) -> str:
        return subprocess.run(["ip", "-n", namespace, *command.split()], check=True, capture_output=True, text=True).stdout

    def neighbours(self, *begin: str) -> set[str]:
        """Addresses that begin so and that the host knows behind the interface."""
        settle()
        shown = self.ip(self.host, "neigh show dev calia nud all").splitlines()
        return {line.split()[0] for line in shown if line.startswith(begin)}

    def answers(self, *frames: bytes) -> int:
        """How many of these the host answers by ARP or neighbour discovery."""
        self.wire.seen(lambda data: False)
        self.wire.send(*frames)
        return len(self.wire.seen(lambda data: data[12:22] == ARP_ANSWER or (data[12:14] == b"\x86\xdd" and data[54] == 136)))

    def close(self) -> None:
        self.wire.sock.close()
        self.nftables.close()
        for name in (self.host, self.inner):
            netns.delete(name)


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host(f"{os.getpid():x}")
    yield made
    made.close()


def program(host: Host) -> None:
    builder = TableBuilder()
    pairs = tuple(m.Pair(parse_prefix(net), OTHER_MAC) for net in ("10.81.0.0/16", "fd81::/64"))
    body = m.Endpoint(
        host="h",
        interface="calia",
        mac=MAC,
        nets=(parse_address(OWN4), parse_address(OWN6)),
        spoof_nets=(parse_prefix("10.80.0.0/16"), parse_prefix("fd80::/64")),
        ingress=(),
        egress=(),
        profiles=(),
        pairs=pairs,
    )
    builder.on_update(m.EndpointUpdate(ResourceKey("WorkloadEndpoint", "a", "default"), 1, body))
    builder.flush()
    host.driver.resync(builder.table)


def who_has(source: str, mac: str = MAC) -> bytes:
    return ether(EVERYBODY, mac, ARP, arp(1, mac, source, GATEWAY4))


def solicit(host: Host, source: str, mac: str = MAC) -> bytes:
    asked = icmp6(135, bytes(4) + parse_address(GATEWAY6).packed + b"\1\1" + mac_bytes(mac))
    return ether(host.mac, mac, IPV6, ipv6(source, GATEWAY6, 58, asked))


def test_who_is_heard(host: Host) -> None:
    assert host.answers(who_has("10.80.0.1")) == 1, "without a table everybody is heard"
    program(host)
    assert host.answers(*[who_has(OWN4)] * MANY) == MANY
    assert host.answers(*[solicit(host, OWN6)] * MANY) == MANY
    assert host.answers(who_has("0.0.0.0")) == 1, "RFC 5227"
    assert host.answers(who_has("10.82.0.1"), solicit(host, "fd82::1")) == 0
    began = time.monotonic()
    spoofed4 = [who_has(f"10.80.{number >> 8}.{number & 255}") for number in range(1, MANY)]
    paired4 = [who_has(f"10.81.{number >> 8}.{number & 255}", OTHER_MAC) for number in range(1, MANY)]
    spoofed6 = [solicit(host, f"fd80::{number:x}") for number in range(1, MANY)]
    paired6 = [solicit(host, f"fd81::{number:x}", OTHER_MAC) for number in range(1, MANY)]
    links = [solicit(host, f"fe80::a:{number:x}") for number in range(1, MANY)]
    heard4, heard6 = host.answers(*spoofed4, *paired4), host.answers(*spoofed6, *paired6, *links)
    known4, known6 = host.neighbours("10.8"), host.neighbours("fd8", "fe8")
    most = NEW_SENDERS_BURST + NEW_SENDERS_PER_S * (int(time.monotonic() - began) + 1)
    for heard in (heard4, heard6):
        assert NEW_SENDERS_BURST <= heard <= most
    assert len(known4) <= most
    assert len(known6) <= most
    assert host.answers(*[spoofed4[0]] * MANY) == MANY, "who was heard is heard again"
    assert host.answers(*[spoofed6[0]] * MANY) == MANY
    assert host.answers(who_has(OWN4), solicit(host, OWN6)) == 2
    reasons = host.driver.counters().denied
    assert reasons["too many senders"].packets >= 2 * MANY - 2 - most
    assert reasons["too many neighbours"].packets >= 3 * MANY - 3 - most
    assert reasons["spoofed sender"].packets == 1

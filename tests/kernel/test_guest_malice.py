"""What a malicious guest sends reaches no other guest and changes nothing that the host believes; a flood keeps nobody from an answer."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from fence import settle
from forged import ARP, EVERYBODY, IPV4, IPV6, arp, ether, icmp4, icmp6, ipv4, ipv6, mac_bytes, open_wire, udp
from guest_world import ADDRESSES, ALLOW_ALL, DEADLINE_S, GUESTS, MACS, SUBNETS, GuestWorld, endpoint, eventually, guest_world

from tabinet.agent.http import fetch
from tabinet.kernel import netns
from tabinet.rules.neighbours import NEW_SENDERS_BURST, NEW_SENDERS_PER_S

pytestmark = pytest.mark.kernel

SUBNET6 = {
    "network_id": "n",
    "cidr": "fd65::/64",
    "gateway_ip": "fd65::1",
    "host_routes": [],
    "dns_servers": ["fd00::53"],
    "ipv6_ra_mode": "dhcpv6-stateful",
    "ipv6_address_mode": "dhcpv6-stateful",
}
ME, VICTIM = "g1", "g2"
MINE4, MINE6 = ADDRESSES[ME]
THEIRS4, THEIRS6 = ADDRESSES[VICTIM]
MARK = b"from-a-guest"
INVENTED = 2000
"""Senders, of each kind."""
FLOOD = 1500
"""Of each kind, at once."""
MORE = '[felix]\ninterface_prefix = ["tap"]\ndefault_endpoint_to_host_action = "Accept"\n[guest]\nhttp_address = "unix:{path}"\n'


class Malice:
    """The attacker's wire, the victim's, and the host's hardware address on the attacker's link."""

    def __init__(self, world: GuestWorld) -> None:
        self.world = world
        self.me = netns.run_in(world.namespace(ME), open_wire)
        self.victim = netns.run_in(world.namespace(VICTIM), open_wire)
        shown = self.on_host("-o", "link", "show", f"tap{ME}")
        self.host_mac = shown.partition("link/ether ")[2].partition(" ")[0]

    def close(self) -> None:
        self.me.sock.close()
        self.victim.sock.close()

    def on_host(self, *arguments: str) -> str:
        return subprocess.run(["ip", "-n", self.world.host, *arguments], capture_output=True, text=True, check=True).stdout

    def packet4(self, payload: bytes, *, source: str = MINE4, target: str = THEIRS4, protocol: int = 17, mac: str = MACS[ME]) -> bytes:
        return ether(self.host_mac, mac, IPV4, ipv4(source, target, protocol, payload))

    def packet6(
        self, payload: bytes, *, source: str = MINE6, target: str = THEIRS6, protocol: int = 17, to: str = "", hops: int = 255
    ) -> bytes:
        return ether(to or self.host_mac, MACS[ME], IPV6, ipv6(source, target, protocol, payload, hops))

    def honest_arrive(self) -> None:
        """What the attacker may send comes through, so that what does not come was stopped."""
        fours = self.packet4(udp(5000, 5001, b"honest4" + MARK))
        sixes = self.packet6(udp(5000, 5001, b"honest6" + MARK))
        for frame, text in ((fours, b"honest4"), (sixes, b"honest6")):

            def comes(frame: bytes = frame, text: bytes = text) -> list[bytes]:
                self.me.send(frame)
                return self.victim.seen(lambda data: text in data)

            assert eventually(comes), (text, self.world.logs())

    def nothing_arrives(self, what: str, *frames: bytes) -> None:
        self.victim.seen(lambda data: False)
        self.me.send(*frames)
        assert not self.victim.seen(lambda data: MARK in data), what
        self.honest_arrive()


@contextlib.contextmanager
def malice(world: GuestWorld) -> Iterator[Malice]:
    made = Malice(world)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[GuestWorld]:
    with guest_world(tmp_path, MORE.format(path=tmp_path / "http")) as made:
        await made.fill(ALLOW_ALL, *map(endpoint, GUESTS), subnets=SUBNETS | {"s6": SUBNET6})
        made.start("agent")
        made.start("guest")
        for guest in GUESTS:
            made.address(guest)
            made.ip(made.namespace(guest), f"-6 addr add {ADDRESSES[guest][1]}/128 dev eth0 nodad")
        yield made


async def test_a_malicious_guest(world: GuestWorld):
    with malice(world) as made:
        made.honest_arrive()
        forged_senders(made)
        forged_servers(made)
        forged_routers(made)
        forged_neighbours(made)
        await a_flood_keeps_nobody_from_being_answered(made)
        invented_neighbours(made)


def forged_senders(made: Malice) -> None:
    data = udp(5000, 5001, MARK)
    other = "fa:16:3e:00:00:99"
    made.nothing_arrives("another's address", made.packet4(data, source="10.65.0.9"), made.packet6(data, source="fd65::9"))
    made.nothing_arrives("the victim's own address", made.packet4(data, source=THEIRS4), made.packet6(data, source=THEIRS6))
    made.nothing_arrives("the host's address", made.packet4(data, source="169.254.1.1"), made.packet6(data, source="fe80::1"))
    made.nothing_arrives("another hardware address", made.packet4(data, mac=other), made.packet4(data, mac=MACS[VICTIM]))
    made.nothing_arrives("no address", made.packet4(udp(68, 67, MARK), source="0.0.0.0"), made.packet6(data, source="::"))


def forged_servers(made: Malice) -> None:
    answer4, answer6 = udp(67, 68, b"\2\1\6\0" + MARK), udp(547, 546, b"\7abc" + MARK)
    made.nothing_arrives("DHCP", made.packet4(answer4), made.packet4(answer4, target="255.255.255.255"))
    everybody = ether(EVERYBODY, MACS[ME], IPV4, ipv4(MINE4, "255.255.255.255", 17, answer4))
    made.nothing_arrives("DHCP to everybody", everybody, everybody.replace(mac_bytes(MACS[ME]), mac_bytes(made.host_mac)))
    made.nothing_arrives("DHCPv6", made.packet6(answer6), made.packet6(answer6, target="ff02::1", to="33:33:00:00:00:01"))


def forged_routers(made: Malice) -> None:
    prefix = b"\3\4\x40\xc0" + (86400).to_bytes(4, "big") * 2 + bytes(4) + bytes.fromhex("fd660000000000000000000000000000")
    advert = icmp6(134, b"\x40\0\x07\x08" + bytes(8) + prefix + b"\1\1" + mac_bytes(MACS[ME]) + b"\x19\2" + MARK + bytes(2))
    link_local = "fe80::f816:3eff:fe00:7"
    before = believed(made)
    for source in (link_local, MINE6, "fe80::1"):
        made.nothing_arrives(
            "router advertisements",
            made.packet6(advert, source=source, target="ff02::1", protocol=58, to="33:33:00:00:00:01"),
            made.packet6(advert, source=source, target="fe80::1", protocol=58),
            made.packet6(advert, source=source, protocol=58),
        )
    target = bytes.fromhex("fd650000000000000000000000000007") + bytes.fromhex("fd650000000000000000000000000008")
    redirect6 = icmp6(137, bytes(4) + target + MARK)
    inner = ipv4(THEIRS4, "192.0.2.1", 17, udp(1, 2, MARK))
    redirect4 = icmp4(5, 1, bytes((10, 65, 0, 7)) + inner)
    made.nothing_arrives(
        "redirects",
        made.packet4(redirect4, protocol=1),
        made.packet4(redirect4, protocol=1, source="10.65.0.1"),
        made.packet6(redirect6, protocol=58),
        made.packet6(redirect6, protocol=58, source=link_local),
    )
    made.me.send(
        made.packet4(redirect4, protocol=1, target="169.254.1.1"),
        made.packet6(redirect6, protocol=58, source=link_local, target="fe80::1"),
        made.packet6(redirect6, protocol=58, source=link_local, target="ff02::1", to="33:33:00:00:00:01"),
    )
    settle()
    assert believed(made) == before, "the host believes nothing of it"


def believed(made: Malice) -> tuple[list[str], ...]:
    """Destinations and addresses of the host, without what may change by itself (states and times)."""
    routes = [[line.split()[0] for line in made.on_host(family, "route").splitlines()] for family in ("-4", "-6")]
    return (*routes, [line.split()[3] for line in made.on_host("-6", "-o", "addr").splitlines()])


def forged_neighbours(made: Malice) -> None:
    """What the attacker says of others' addresses stays on its own link, and what is meant for the victim goes to the victim."""
    frames = []
    for address in (THEIRS4, "10.65.0.1", "169.254.1.1"):
        for to in (EVERYBODY, made.host_mac):
            frames += [
                ether(to, MACS[ME], ARP, arp(kind, MACS[ME], address, asked, MACS[ME]))
                for kind in (1, 2)
                for asked in (address, "10.65.0.1")
            ]
    for address in (THEIRS6, "fd65::1", "fe80::1"):
        told = bytes.fromhex("a0000000") + netns_address(address) + b"\2\1" + mac_bytes(MACS[ME])
        asked = bytes(4) + netns_address("fe80::1") + b"\1\1" + mac_bytes(MACS[ME])
        frames.append(made.packet6(icmp6(136, told), source=MINE6, target="ff02::1", protocol=58, to="33:33:00:00:00:01"))
        frames.append(made.packet6(icmp6(136, told), source=address, target="fe80::1", protocol=58))
        frames.append(made.packet6(icmp6(135, asked), source=address, target="fe80::1", protocol=58))
    made.victim.seen(lambda data: False)
    made.me.seen(lambda data: False)
    made.me.send(*frames)
    assert not made.victim.seen(lambda data: mac_bytes(MACS[ME]) in data), (
        "nothing of the attacker's hardware address is heard on the victim's link"
    )
    family = {4: "10.65.0.8", 6: THEIRS6}
    for version, address in family.items():
        argv = ["nsenter", f"--net=/run/netns/{made.world.host}", "ping", f"-{version}", "-c1", "-W5", address]
        assert eventually(lambda argv=argv: subprocess.run(argv, capture_output=True, check=False).returncode == 0), address
    kinds = {4: mac_bytes("08:00:00:00:00:00")[:1], 6: b"\x80"}
    heard = made.me.seen(
        lambda data: (data[12:14] == b"\x08\x00" and data[34:35] == kinds[4]) or (data[12:14] == b"\x86\xdd" and data[54:55] == kinds[6])
    )
    assert not heard, "what the host sends to the victim does not come to the attacker"
    made.honest_arrive()


def invented_neighbours(made: Malice) -> None:
    """Whoever claims to be many fills no table that others need."""
    frames = []
    for number in range(INVENTED):
        low = f"{number >> 8}.{number & 255}"
        solicited = icmp6(135, bytes(4) + netns_address("fe80::1") + b"\1\1" + mac_bytes(MACS[ME]))
        frames.append(ether(EVERYBODY, MACS[ME], ARP, arp(1, MACS[ME], f"10.66.{low}", "10.65.0.1")))
        frames.append(ether(EVERYBODY, MACS[ME], ARP, arp(1, MACS[ME], f"10.67.{low}", THEIRS4)))
        frames.append(made.packet6(solicited, source=f"fe80::bad:{number:x}", target="fe80::1", protocol=58))
        asked = icmp6(133, bytes(4) + b"\1\1" + mac_bytes(MACS[ME]))
        frames.append(made.packet6(asked, source=f"fe80::bae:{number:x}", target="ff02::2", protocol=58, to="33:33:00:00:00:02"))
    began = time.monotonic()
    half = len(frames) // 2
    made.me.send(*frames[:half])
    for family, source, gateway in (("-4", THEIRS4, "10.65.0.1"), ("-6", THEIRS6, "fe80::1%eth0")):
        made.world.ip(made.world.namespace(VICTIM), f"{family} neigh flush dev eth0")
        argv = ["ping", family, "-I", source, "-c1", "-W5", gateway]
        assert eventually(lambda argv=argv: made.world.run(VICTIM, argv).returncode == 0), gateway
    made.me.send(*frames[half:])
    settle()
    known = {line.split()[0] for line in made.on_host("neigh", "show", "dev", f"tap{ME}", "nud", "all").splitlines()}
    waited_s = int(time.monotonic() - began) + 1
    assert not {address for address in known if address.startswith(("10.66.", "10.67."))}, "nobody speaks by ARP with invented addresses"
    invented = {address for address in known if address.startswith("fe80::ba")}
    assert 0 < len(invented) <= NEW_SENDERS_BURST + NEW_SENDERS_PER_S * waited_s, len(invented)
    made.honest_arrive()


def netns_address(text: str) -> bytes:
    return ipv6("::", text, 58, bytes(8))[24:40]


def floods(made: Malice, number: int) -> list[bytes]:
    """What is answered by the guest service, as often as this."""
    mac = mac_bytes(MACS[ME])
    link_local = "fe80::f816:3eff:fe00:7"
    discover = b"\1\1\6\0" + bytes(24) + mac + bytes(202) + b"\x63\x82\x53\x63" + b"\x35\1\1\xff"
    solicit = b"\1abc" + b"\0\1\0\x0a\0\3\0\1" + mac + b"\0\3\0\x0c" + bytes(12)
    each = (
        ether(EVERYBODY, MACS[ME], IPV4, ipv4("0.0.0.0", "255.255.255.255", 17, udp(68, 67, discover))),
        made.packet6(udp(546, 547, solicit), source=link_local, target="ff02::1:2", to="33:33:00:01:00:02"),
        made.packet6(icmp6(133, bytes(4)), source=link_local, target="ff02::2", protocol=58, to="33:33:00:00:00:02"),
        made.packet6(
            icmp6(135, bytes(4) + netns_address("fd65::99")),
            source=link_local,
            target="ff02::1:ff00:99",
            protocol=58,
            to="33:33:ff:00:00:99",
        ),
    )
    return list(each) * number


async def until_guests_are_known(world: GuestWorld) -> None:
    """What is sent before counts for nothing but the sender's limit."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            with contextlib.suppress(OSError):
                if b"in-sync" in (await fetch(f"unix:{world.directory}/http", "/readiness", DEADLINE_S)).body:
                    return
            await asyncio.sleep(0.02)


async def a_flood_keeps_nobody_from_being_answered(made: Malice) -> None:
    world = made.world
    await until_guests_are_known(world)
    flood = floods(made, FLOOD)
    made.me.send(*flood)
    got = world.udhcpc(VICTIM)
    assert got["ip"] == THEIRS4
    made.me.send(*flood)
    victim = mac_bytes(MACS[VICTIM])
    ask = b"\x0bxyz" + b"\0\1\0\x0a\0\3\0\1" + victim
    source = "fe80::f816:3eff:fe00:8"
    packet = ether("33:33:00:01:00:02", MACS[VICTIM], IPV6, ipv6(source, "ff02::1:2", 17, udp(546, 547, ask)))

    def answered() -> list[bytes]:
        made.victim.send(packet)
        return made.victim.seen(lambda data: data[12:14] == b"\x86\xdd" and data[62:66] == b"\7xyz")

    assert eventually(answered), world.logs()
    text = (await fetch(f"unix:{world.directory}/http", "/metrics", DEADLINE_S)).body.decode()
    counts = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith("tabinet_guest_messages")
    }
    # What the attacker got, of twice as many that it sent of each: a burst, and a rate for as long as the whole took.
    for outcome in (
        'outcome="OFFER",protocol="dhcp4"',
        'outcome="ADVERTISE",protocol="dhcp6"',
        'outcome="advertised",protocol="neighbour"',
    ):
        assert 0 < counts[f"tabinet_guest_messages_total{{{outcome}}}"] < FLOOD, (outcome, text)
    made.honest_arrive()

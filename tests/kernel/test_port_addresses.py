"""Real packets of Neutron's ports: several addresses, subnets with and without gateways, one family only, allowed address pairs."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator

import pytest
from one_host import arrives, checksum
from ports_world import GATEWAY, MACS, OTHER, PARENT, World

from tabinet.calc import messages as m
from tabinet.kernel import netns
from tabinet.lib.ip import parse_address, parse_prefix

pytestmark = pytest.mark.kernel

SECOND, SHARED, VIRTUAL_MAC = "10.65.0.3", "10.65.0.7", "00:00:5e:00:01:07"
PORT = 5000


@pytest.fixture
def world() -> Iterator[World]:
    with contextlib.closing(World()) as world:
        world.plug("guest", "tapp", MACS["p"], PARENT, GATEWAY)
        world.plug("other", "tapo", MACS["o"], OTHER, GATEWAY)
        yield world


def test_several_addresses_of_one_subnet_with_and_without_a_gateway(world: World) -> None:
    world.ip("guest", f"addr add {SECOND}/24 dev eth0")
    world.ip("other", "route del default")  # its subnet has none
    world.tell(world.endpoint("p", f"{PARENT} {SECOND}", GATEWAY), world.endpoint("o", OTHER))
    world.settle("p", "o")
    for address in (PARENT, SECOND):
        assert world.pings("other", address)
        assert world.pings("guest", OTHER, "-I", address)
    # One that is in no subnet of its own is asked for by ARP as well.
    world.ip("guest", "route replace default via 10.65.0.99")
    world.tell(world.endpoint("p", f"{PARENT} {SECOND}", "10.65.0.99"))
    world.settle("p", "o")
    assert world.pings("guest", OTHER)


def test_ports_with_ipv6_only(world: World) -> None:
    for place, address in (("guest", "fd65::1"), ("other", "fd65::2")):
        world.ip(place, "addr flush dev eth0 scope global", f"addr add {address}/128 dev eth0 nodad")
        world.ip(place, "route add default via fe80::1 dev eth0")
    world.tell(world.endpoint("p", "fd65::1"), world.endpoint("o", "fd65::2"))
    world.settle("p", "o")
    assert world.pings("guest", "fd65::2")
    assert world.pings("other", "fd65::1")


def test_a_pair_with_a_mac_passes_with_exactly_this_mac(world: World) -> None:
    pair = m.Pair(parse_address(SHARED), VIRTUAL_MAC)
    world.tell(world.endpoint("p", f"{PARENT} {SHARED}", GATEWAY, pairs=(pair,)), world.endpoint("o", OTHER, GATEWAY))
    world.settle("p", "o")
    target = next(link.mac for link in world.rt.links() if link.name == "tapp")
    ways = [(mac, source) for mac in (MACS["p"], VIRTUAL_MAC, MACS["o"]) for source in (PARENT, SHARED)]
    passed = {(mac, source) for mac, source in ways if _sends(world, mac, target, source)}
    assert passed == {(MACS["p"], PARENT), (VIRTUAL_MAC, SHARED)}
    found = {entry.address.address: entry.mac for entry in world.rt.neighbours() if entry.permanent}
    assert (found[PARENT], found[SHARED]) == (MACS["p"], VIRTUAL_MAC)


def test_a_prefix_is_behind_the_port_and_everything_is_not(world: World) -> None:
    pairs = (m.Pair(parse_prefix("0.0.0.0/0"), ""), m.Pair(parse_prefix("10.99.0.0/24"), ""))
    routed = (parse_prefix("10.99.0.0/24"),)
    world.ip("guest", "addr add 10.99.0.5/32 dev lo")  # a container's, say: nothing on the port's link answers for it
    world.tell(world.endpoint("p", PARENT, GATEWAY, pairs=pairs, routed=routed), world.endpoint("o", OTHER, GATEWAY))
    world.settle("p", "o")
    assert world.pings("other", "10.99.0.5")
    assert {str(route.destination) for route in world.rt.routes(protocol=84)} == {f"{PARENT}/32", f"{OTHER}/32", "10.99.0.0/24"}
    world.tell(world.endpoint("p", PARENT, GATEWAY))
    world.settle("p", "o")
    assert {str(route.destination) for route in world.rt.routes(protocol=84)} == {f"{PARENT}/32", f"{OTHER}/32"}


def test_an_address_of_two_ports_is_at_one_of_them_and_neither_waits(world: World) -> None:
    pair = (m.Pair(parse_address(SHARED), ""),)
    first, second = (world.endpoint(name, f"{own} {SHARED}", GATEWAY, pairs=pair) for name, own in (("o", OTHER), ("p", PARENT)))
    world.tell(first, second)
    world.settle("p", "o")
    assert _interface_of(world, SHARED) == "tapo"
    world.tell(world.endpoint("o", OTHER, GATEWAY))
    world.settle("p", "o")
    assert _interface_of(world, SHARED) == "tapp"
    world.ip("guest", f"addr add {SHARED}/32 dev eth0")
    assert world.pings("other", SHARED)


def _interface_of(world: World, address: str) -> str:
    names = {link.index: link.name for link in world.rt.links()}
    return next(names[route.hops[0].index] for route in world.rt.routes(protocol=84) if route.destination == parse_address(address))


def _sends(world: World, mac: str, target: str, source: str) -> bool:
    """A datagram from the guest, with these addresses, arrives."""
    with contextlib.ExitStack() as stack:
        receiver = stack.enter_context(_socket(world, "other", socket.AF_INET, socket.SOCK_DGRAM))
        receiver.bind(("0.0.0.0", PORT))
        sender = stack.enter_context(_socket(world, "guest", socket.AF_PACKET, socket.SOCK_RAW))
        sender.bind(("eth0", 0x800))
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 0, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(OTHER))
        head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
        frame = bytes.fromhex((target + mac).replace(":", "")) + b"\x08\x00" + head + struct.pack("!HHHH", PORT, PORT, 8, 0)
        sender.send(frame)
        return arrives(receiver)


def _socket(world: World, place: str, family: int, kind: int) -> socket.socket:
    return netns.run_in(world.places[place], lambda: socket.socket(family, kind))

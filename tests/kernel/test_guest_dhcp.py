"""Real DHCP clients get what the store says of their port, and nothing else, through the real agent's rules."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fence import settle
from guest_world import ADDRESSES, ALLOW_ALL, GUESTS, MACS, SUBNETS, GuestWorld, endpoint, guest_world

from tabinet.guest.dhcp4 import Kind, Message, parse_message, render_message
from tabinet.guest.limiter import BURST

pytestmark = pytest.mark.kernel


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[GuestWorld]:
    with guest_world(tmp_path) as made:
        await made.fill(ALLOW_ALL, *map(endpoint, GUESTS), subnets=SUBNETS)
        made.start("agent")
        made.start("guest")
        yield made


async def test_clients_of_debian_get_what_the_store_says(world: GuestWorld):
    got = world.udhcpc("g1")
    expected = {
        "ip": ADDRESSES["g1"][0],
        "subnet": "255.255.255.0",
        "mask": "24",
        "router": "10.65.0.1",
        "staticroutes": "0.0.0.0/0 10.65.0.1",
        "dns": "192.0.2.53",
        "mtu": "1400",
        "hostname": "g1",
        "domain": "example.org",
        "lease": "86400",
        "serverid": "169.254.1.1",
    }
    assert {name: got.get(name) for name in expected} == expected

    got = world.dhclient("g2")
    expected = {
        "new_ip_address": ADDRESSES["g2"][0],
        "new_subnet_mask": "255.255.255.0",
        "new_routers": "10.65.0.1",
        "new_rfc3442": "0 10 65 0 1",
        "new_domain_name_servers": "192.0.2.53",
        "new_interface_mtu": "1400",
        "new_host_name": "g2",
        "new_dhcp_server_identifier": "169.254.1.1",
    }
    assert {name: got.get(name) for name in expected} == expected

    await only_its_own_hardware_address_is_answered(world)
    await a_renewal_goes_on_after_a_restart_and_changes_with_the_subnet(world)
    await a_flood_shuts_off_nobody_else(world)


async def only_its_own_hardware_address_is_answered(world: GuestWorld) -> None:
    with client_socket(world, "g1") as client:
        for xid, mac in enumerate((MACS["g2"], MACS["g1"])):
            message = Message(op=1, kind=Kind.DISCOVER, xid=xid, mac=bytes.fromhex(mac.replace(":", "")), flags=0x8000)
            client.sendto(render_message(message), ("255.255.255.255", 67))
        offer = parse_message(client.recv(2000))
        assert (offer.kind, offer.xid) == (Kind.OFFER, 1), "the one that came first was not answered"


async def a_renewal_goes_on_after_a_restart_and_changes_with_the_subnet(world: GuestWorld) -> None:
    world.stop("guest")
    await world.fill(subnets={"s4": SUBNETS["s4"] | {"dns_servers": ["192.0.2.54"]}})
    world.start("guest")
    assert world.udhcpc("g1", "-r", ADDRESSES["g1"][0])["dns"] == "192.0.2.54"


async def a_flood_shuts_off_nobody_else(world: GuestWorld) -> None:
    with client_socket(world, "g1") as client:
        message = Message(op=1, kind=Kind.DISCOVER, xid=1, mac=bytes.fromhex(MACS["g1"].replace(":", "")), flags=0x8000)
        for _ in range(2000):
            client.sendto(render_message(message), ("255.255.255.255", 67))
        assert world.udhcpc("g2")["ip"] == ADDRESSES["g2"][0]
        settle()
        answers = 0
        client.setblocking(False)
        while True:
            try:
                client.recv(2000)
            except BlockingIOError:
                break
            answers += 1
        assert 0 < answers <= BURST + 10


def client_socket(world: GuestWorld, guest: str) -> socket.socket:
    """Speaks as a DHCP client does once it has an address."""
    world.address(guest)
    return world.socket(guest, socket.SOCK_DGRAM, 68)

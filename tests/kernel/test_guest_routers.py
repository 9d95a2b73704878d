"""A guest's kernel finds its router, its prefix and its MTU by what the host advertises."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from guest_world import ALLOW_ALL, GUESTS, SUBNETS, GuestWorld, endpoint, eventually, guest_world

pytestmark = pytest.mark.kernel

SUBNET6 = {"network_id": "n", "cidr": "fd65::/64", "gateway_ip": "fd65::1", "host_routes": [], "ipv6_ra_mode": "slaac"}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[GuestWorld]:
    with guest_world(tmp_path) as made:
        await made.fill(ALLOW_ALL, *map(endpoint, GUESTS), subnets=SUBNETS | {"s6": SUBNET6})
        made.start("agent")
        made.start("guest")
        yield made


def shown(world: GuestWorld, guest: str, what: str) -> str:
    command = ["ip", "-n", world.namespace(guest), "-6", *what.split()]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


async def test_a_guest_finds_its_router(world: GuestWorld):
    # Guests ask when their interface comes up, and a few times more; the host tells them when it learns of them as well.
    assert eventually(lambda: "via fe80::1 " in shown(world, "g1", "route show default")), world.logs()
    assert "mtu 1400" in shown(world, "g1", "route show default")
    assert "fd65::f816:3eff:fe00:7/64" in shown(world, "g1", "addr show dev eth0"), "made from the hardware address (RFC 4291 appendix A)"
    assert "fd65::/64" not in shown(world, "g1", "route show table all proto ra"), "nothing is on the link"

    await world.fill(subnets={"s6": SUBNET6 | {"gateway_ip": None}})
    assert eventually(lambda: "fe80::1" not in shown(world, "g1", "route show default")), "guests are told of changes of their subnet"

"""A real DHCPv6 client gets what the store says of its port, and guests that take a prefix for their link find their neighbours there."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from guest_world import ADDRESSES, ALLOW_ALL, GUESTS, SUBNETS, GuestWorld, endpoint, eventually, guest_world

from tabinet.model.openstack import DhcpOption, FixedAddress, PortFacts

pytestmark = pytest.mark.kernel

STATEFUL = {
    "network_id": "n",
    "cidr": "fd65::/64",
    "gateway_ip": "fd65::1",
    "host_routes": [],
    "dns_servers": ["fd00::53"],
    "ipv6_ra_mode": "dhcpv6-stateful",
    "ipv6_address_mode": "dhcpv6-stateful",
}
STATELESS = STATEFUL | {"ipv6_ra_mode": "dhcpv6-stateless", "ipv6_address_mode": "dhcpv6-stateless"}


def port(guest: str) -> PortFacts:
    v4, v6 = ADDRESSES[guest]
    boot = DhcpOption(name="bootfile-url", value="tftp://[fd00::9]/boot", ip_version=6)
    fixed = (FixedAddress(address=v4, subnet="s4"), FixedAddress(address=v6, subnet="s6"))
    return PortFacts(mtu=1400, hostname=guest, fqdn=f"{guest}.example.org", fixed=fixed, dhcp_options=(boot,))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[GuestWorld]:
    with guest_world(tmp_path) as made:
        await made.fill(ALLOW_ALL, *(endpoint(guest, port(guest)) for guest in GUESTS), subnets=SUBNETS | {"s6": STATEFUL})
        made.start("agent")
        made.start("guest")
        yield made


def shown(world: GuestWorld, guest: str, what: str) -> str:
    command = ["ip", "-n", world.namespace(guest), "-6", *what.split()]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


async def test_a_client_gets_what_the_store_says(world: GuestWorld):
    # The guest's link-local address must be past duplicate address detection, or the client has none to ask from.
    assert eventually(lambda: "via fe80::1 " in shown(world, "g1", "route show default")), world.logs()
    assert eventually(lambda: all("tentative" not in shown(world, guest, "addr show dev eth0") for guest in GUESTS))
    expected = {
        "reason": "BOUND6",
        "new_ip6_address": ADDRESSES["g1"][1],
        "new_max_life": "86400",
        "new_preferred_life": "86400",
        "new_dhcp6_name_servers": "fd00::53",
        "new_dhcp6_domain_search": "example.org.",
        "new_dhcp6_bootfile_url": "tftp://[fd00::9]/boot",
        "new_dhcp6_server_id": "0:3:0:1:ee:ee:ee:ee:ee:ee",
    }
    got = world.dhclient6("g1")
    assert {name: got.get(name) for name in expected} == expected
    got = world.dhclient6("g1")  # it has a lease, and asks whether that is still right
    assert got["reason"] in ("BOUND6", "RENEW6", "REBIND6") and got["new_ip6_address"] == ADDRESSES["g1"][1]
    assert "fd65::" not in shown(world, "g1", "addr show dev eth0"), "no address of its own making where addresses come by DHCP"

    await world.fill(subnets={"s6": STATELESS})
    assert eventually(lambda: "fd65::f816:3eff:fe00:8/64" in shown(world, "g2", "addr show dev eth0")), "now it makes one of the prefix"
    got = world.dhclient6("g2", "-S")
    assert (got.get("new_dhcp6_name_servers"), got.get("new_ip6_address")) == ("fd00::53", None)

    neighbours_are_found_on_the_link(world)


def neighbours_are_found_on_the_link(world: GuestWorld) -> None:
    """Both guests take their /64 for their link; each reaches the other, over their host. And nobody loses its address for it."""
    for guest in GUESTS:
        world.ip(world.namespace(guest), "addr flush dev eth0 scope global")
        world.ip(world.namespace(guest), f"-6 addr add {ADDRESSES[guest][1]}/64 dev eth0")  # with duplicate address detection
    assert eventually(lambda: "tentative" not in shown(world, "g1", "addr show dev eth0")), world.logs()
    assert "dadfailed" not in shown(world, "g1", "addr show dev eth0")
    assert eventually(lambda: world.run("g1", ["ping", "-6", "-c1", "-W1", ADDRESSES["g2"][1]]).returncode == 0), world.logs()
    known = shown(world, "g1", f"neigh show {ADDRESSES['g2'][1]}")
    outside = subprocess.run(["ip", "-n", world.host, "-o", "link", "show", "tapg1"], capture_output=True, text=True, check=True).stdout
    mac = outside.partition("link/ether ")[2].partition(" ")[0]
    assert mac and mac in known, (known, outside)

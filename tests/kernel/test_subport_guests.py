"""A trunk's subport is answered as any port by its VLAN: DHCP, router advertisements, metadata. Skipped where the kernel has no VLANs.

::

    guest g1: eth0, eth0.7 ---- tapg1, tapsub (VLAN 7 of tapg1): host: tapg2 ---- guest g2
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from guest_world import ADDRESSES, ALLOW_ALL, GUESTS, SUBNETS, GuestWorld, endpoint, eventually, guest_world
from metadata_world import MORE, NOVA, SECRET, ask, nova

from tabinet.model.openstack import FixedAddress, PortFacts

pytestmark = pytest.mark.kernel

SUBPORT, SUBPORT6, MAC = "10.66.7.5", "fd66:7::5", "fa:16:3e:00:07:05"
MTU, TAG = 1300, 7
VLAN = f"eth0.{TAG}"
STARTED_WITHIN_S = 300.0
"""A virtual machine without hardware support takes its time."""
SUBPORTS = {
    "t4": {"network_id": "t", "cidr": "10.66.7.0/24", "gateway_ip": "10.66.7.1", "host_routes": [], "dns_servers": ["192.0.2.77"]},
    "t6": {
        "network_id": "t",
        "cidr": "fd66:7::/64",
        "gateway_ip": "fd66:7::1",
        "host_routes": [],
        "dns_servers": ["fd00::77"],
        "ipv6_ra_mode": "dhcpv6-stateful",
        "ipv6_address_mode": "dhcpv6-stateful",
    },
}
PARENTS6 = {"network_id": "n", "cidr": "fd65::/64", "gateway_ip": "fd65::1", "host_routes": [], "ipv6_ra_mode": "slaac"}


def subport() -> dict[str, Any]:
    """As the driver writes it: Neutron gives a subport no device, so it is named by itself."""
    fixed = (FixedAddress(address=SUBPORT, subnet="t4"), FixedAddress(address=SUBPORT6, subnet="t6"))
    made = endpoint("g1", PortFacts(mtu=MTU, hostname="sub", fixed=fixed, trunk_parent="tapg1", vlan=TAG))
    made["metadata"]["name"] = "h1-openstack-sub-sub"
    networks = {"ipNetworks": [f"{SUBPORT}/32", f"{SUBPORT6}/128"], "ipv4Gateway": "10.66.7.1"}
    made["spec"] |= {"workload": "sub", "endpoint": "sub", "interfaceName": "tapsub", "mac": MAC} | networks
    return made


@pytest.fixture
def world(tmp_path: Path) -> Iterator[GuestWorld]:
    secret = tmp_path / "secret"
    secret.write_text(SECRET + "\n")
    with guest_world(tmp_path, MORE.format(port=NOVA, secret=secret)) as made:
        inside = f"link add link eth0 name {VLAN} address {MAC} type vlan id {TAG}"
        if made.run("g1", ["ip", *inside.split()]).returncode:
            pytest.skip("this kernel has no VLAN interfaces")
        made.ip(made.namespace("g1"), f"link set dev {VLAN} up")
        asyncio.run(made.fill(ALLOW_ALL, *map(endpoint, GUESTS), subport(), subnets=SUBNETS | SUBPORTS | {"s6": PARENTS6}))
        made.start("agent")
        made.start("guest")
        with nova(made):
            yield made


def shown(world: GuestWorld, what: str) -> str:
    command = ["ip", "-n", world.namespace("g1"), *what.split()]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_subport_is_answered_by_its_vlan(world: GuestWorld) -> None:
    assert eventually(lambda: "via fe80::1 " in shown(world, f"-6 route show default dev {VLAN}"), STARTED_WITHIN_S), world.logs()
    its_router_is_advertised(world)
    it_gets_its_addresses(world)
    metadata_is_its_machines(world)


def its_router_is_advertised(world: GuestWorld) -> None:
    """With its own network's MTU, and none of the parent's prefix."""
    assert f"mtu {MTU}" in shown(world, f"-6 route show default dev {VLAN}")
    assert eventually(lambda: "fd65::f816:3eff:fe00:7/64" in shown(world, "-6 addr show dev eth0")), world.logs()
    assert "fd65::" not in shown(world, f"-6 addr show dev {VLAN}")
    assert "mtu 1400" in shown(world, "-6 route show default dev eth0")


def it_gets_its_addresses(world: GuestWorld) -> None:
    """Each of the two interfaces gets its own port's."""
    got = world.udhcpc("g1", interface=VLAN)
    expected = {"ip": SUBPORT, "mask": "24", "router": "10.66.7.1", "dns": "192.0.2.77", "mtu": str(MTU), "hostname": "sub"}
    assert {name: got.get(name) for name in expected} == expected
    got = world.udhcpc("g1")
    assert (got["ip"], got["dns"]) == (ADDRESSES["g1"][0], "192.0.2.53")
    assert eventually(lambda: "tentative" not in shown(world, f"-6 addr show dev {VLAN}"))
    got = world.dhclient6("g1", interface=VLAN)
    assert (got["new_ip6_address"], got["new_dhcp6_name_servers"]) == (SUBPORT6, "fd00::77")


def metadata_is_its_machines(world: GuestWorld) -> None:
    """Nova learns of the machine, by whichever interface it asks."""
    namespace = world.namespace("g1")
    world.address("g1")
    world.ip(namespace, f"addr add {SUBPORT}/24 dev {VLAN}")
    world.ip(namespace, f"route add 169.254.169.254 via 10.66.7.1 dev {VLAN} src {SUBPORT} metric 9")
    for interface, address in (("eth0", ADDRESSES["g1"][0]), (VLAN, SUBPORT)):
        assert eventually(lambda by=interface: ask(world, "g1", by=by)), world.logs()
        told = (ask(world, "g1", by=interface) or "").splitlines()
        assert {"x-instance-id=g1", "x-tenant-id=project", f"x-forwarded-for={address}"} <= set(told), told

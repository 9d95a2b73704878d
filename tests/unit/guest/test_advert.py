"""What a port is told by router advertisements."""

import msgspec
import pytest

from tabinet.guest.advert import Advert, AdvertPrefix, is_solicitation, make_advert
from tabinet.guest.directory import Port, Subnet
from tabinet.guest.options import GuestOptions
from tabinet.lib.ip import parse_address, parse_prefix
from tabinet.model.keys import ResourceKey
from tabinet.model.openstack import PortFacts

NET = parse_prefix("fd65::/64")
SUBNET = Subnet(cidr="fd65::/64", gateway_ip="fd65::1", dns_servers=("192.0.2.53", "fd00::53"), ipv6_ra_mode="slaac")
PORT = Port(
    key=ResourceKey("WorkloadEndpoint", "x", "openstack"),
    interface="tap0",
    mac=bytes(6),
    addresses=(parse_address("fd65::7"),),
    network="n",
    facts=PortFacts(mtu=1400),
)


@pytest.mark.parametrize(
    ("mode", "managed", "other", "autonomous"),
    [("slaac", False, False, True), ("dhcpv6-stateless", False, True, True), ("dhcpv6-stateful", True, True, False)],
)
def test_modes(mode: str, managed: bool, other: bool, autonomous: bool):
    found = make_advert(PORT, [msgspec.structs.replace(SUBNET, ipv6_ra_mode=mode)], GuestOptions(advertise_s=100))
    assert found == Advert(
        lifetime_s=300,
        managed=managed,
        other=other,
        mtu=1400,
        prefixes=(AdvertPrefix(NET, autonomous),),
        dns=(parse_address("fd00::53"),),
        dns_lifetime_s=300,
    )


def test_nothing_is_said_where_another_router_is():
    assert make_advert(PORT, [msgspec.structs.replace(SUBNET, ipv6_ra_mode="")], GuestOptions()) is None
    assert make_advert(PORT, [], GuestOptions()) is None


def test_a_subnet_without_a_gateway_has_no_router():
    found = make_advert(PORT, [msgspec.structs.replace(SUBNET, gateway_ip=None)], GuestOptions())
    assert found is not None and found.lifetime_s == 0


def test_the_operators_dns_servers_are_for_subnets_without():
    options = GuestOptions(dns_servers=(parse_address("192.0.2.1"), parse_address("fd00::1")))
    found = make_advert(PORT, [msgspec.structs.replace(SUBNET, dns_servers=())], options)
    assert found is not None and found.dns == (parse_address("fd00::1"),)


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", False), (bytes((133, 0)) + bytes(6), True), (bytes((133, 1)) + bytes(6), False), (bytes((133, 0, 0)), False)],
)
def test_solicitations(data: bytes, expected: bool):
    assert is_solicitation(data) is expected

"""What a port is answered over DHCPv4."""

import msgspec
import pytest

from tabinet.guest import options4 as opt
from tabinet.guest.dhcp4 import Kind, Message
from tabinet.guest.directory import HostRoute, Port, Subnet
from tabinet.guest.lease4 import Lease4, Reply4, Silence, answer4, make_lease4
from tabinet.guest.options import GuestOptions
from tabinet.lib.ip import parse_address
from tabinet.model.keys import ResourceKey
from tabinet.model.openstack import DhcpOption, PortFacts

MAC = bytes.fromhex("fa163e000001")
ADDRESS = parse_address("10.65.0.7")
SUBNET = Subnet(
    cidr="10.65.0.0/24",
    network_id="net",
    gateway_ip="10.65.0.1",
    host_routes=(HostRoute("192.168.0.0/16", "10.65.0.9"),),
    dns_servers=("10.0.0.53", "fd00::53"),
)
PLAIN = GuestOptions()
FACTS = PortFacts(mtu=1450, hostname="vm", fqdn="vm.example.org")


def port(**facts: object) -> Port:
    return Port(
        key=ResourceKey("WorkloadEndpoint", "x", "openstack"),
        interface="tap0",
        mac=MAC,
        addresses=(ADDRESS,),
        facts=msgspec.structs.replace(FACTS, **facts),
    )


def lease(subnet: Subnet | None = SUBNET, options: GuestOptions = PLAIN, **facts: object) -> Lease4:
    return make_lease4(port(**facts), subnet, ADDRESS, options)


def request(kind: Kind, *options: tuple[int, bytes], **fields: object) -> Message:
    return msgspec.structs.replace(Message(op=1, kind=kind, xid=7, mac=MAC, options=options), **fields)


def test_a_port_of_neutron_gets_what_its_subnet_says():
    assert dict(lease().options) == {
        opt.SUBNET_MASK: bytes((255, 255, 255, 0)),
        opt.ROUTER: bytes((10, 65, 0, 1)),
        opt.CLASSLESS_ROUTES: bytes((16, 192, 168, 10, 65, 0, 9, 0, 10, 65, 0, 1)),
        opt.DNS_SERVERS: bytes((10, 0, 0, 53)),
        opt.MTU: (1450).to_bytes(2, "big"),
        opt.DOMAIN_NAME: b"example.org",
        opt.HOST_NAME: b"vm",
    }


def test_a_port_that_is_not_neutrons_gets_its_address_alone():
    found = dict(lease(None, GuestOptions(dns_servers=(parse_address("192.0.2.53"),)), mtu=0, hostname="", fqdn="").options)
    assert found == {
        opt.SUBNET_MASK: bytes((255, 255, 255, 255)),
        opt.ROUTER: bytes((169, 254, 1, 1)),
        opt.CLASSLESS_ROUTES: bytes((32, 169, 254, 1, 1, 0, 0, 0, 0, 0, 169, 254, 1, 1)),
        opt.DNS_SERVERS: bytes((192, 0, 2, 53)),
    }


def test_without_a_gateway_only_the_metadata_is_routed():
    found = dict(lease(msgspec.structs.replace(SUBNET, gateway_ip=None, host_routes=())).options)
    assert opt.ROUTER not in found
    assert found[opt.CLASSLESS_ROUTES] == bytes((32, 169, 254, 1, 1, 0, 0, 0, 0, 32, 169, 254, 169, 254, 169, 254, 1, 1))


def test_by_the_operators_word_every_route_is_over_the_gateway():
    found = dict(lease(msgspec.structs.replace(SUBNET, host_routes=()), GuestOptions(on_link=False)).options)
    assert found[opt.SUBNET_MASK] == bytes((255, 255, 255, 255))
    assert found[opt.CLASSLESS_ROUTES] == bytes((32, 10, 65, 0, 1, 0, 0, 0, 0, 0, 10, 65, 0, 1))


@pytest.mark.parametrize(
    ("name", "value", "code", "expected"),
    [
        ("mtu", "1400", 26, (1400).to_bytes(2, "big")),
        ("26", "1400", 26, (1400).to_bytes(2, "big")),
        ("interface-mtu", "1400", 26, (1400).to_bytes(2, "big")),
        ("dns-server", "192.0.2.1,192.0.2.2", 6, bytes((192, 0, 2, 1, 192, 0, 2, 2))),
        ("bootfile-name", "pxelinux.0", 67, b"pxelinux.0"),
        ("option:ntp-server", "192.0.2.3", 42, bytes((192, 0, 2, 3))),
        ("domain-search", "a.example", 119, b"\1a\7example\0"),
        ("224", "01:ab", 224, b"\x01\xab"),
        ("224", "192.0.2.3", 224, bytes((192, 0, 2, 3))),
        ("224", "text", 224, b"text"),
    ],
)
def test_extra_options(name: str, value: str, code: int, expected: bytes):
    found = lease(dhcp_options=(DhcpOption(name=name, value=value),))
    assert dict(found.options)[code] == expected
    assert found.refused == ()


@pytest.mark.parametrize(("name", "value"), [("mtu", "many"), ("no-such", "1"), ("54", "192.0.2.1"), ("256", "a"), ("router", "fd00::1")])
def test_extra_options_that_cannot_be_had_change_nothing(name: str, value: str):
    found = lease(dhcp_options=(DhcpOption(name=name, value=value),))
    assert found.options == lease().options
    assert len(found.refused) == 1 and found.refused[0].startswith(f"{name}: ")


def test_an_extra_option_without_value_is_not_sent():
    assert opt.ROUTER not in dict(lease(dhcp_options=(DhcpOption(name="router", value=""),)).options)


def test_extra_options_of_ipv6_are_not_of_ipv4():
    assert lease(dhcp_options=(DhcpOption(name="mtu", value="1", ip_version=6),)) == lease()


def test_the_server_to_boot_from():
    assert lease(dhcp_options=(DhcpOption(name="server-ip-address", value="192.0.2.9"),)).boot_server == bytes((192, 0, 2, 9))


OWN, OTHER, SERVER = ADDRESS.packed, parse_address("10.65.0.8").packed, parse_address("169.254.1.1").packed


@pytest.mark.parametrize(
    ("message", "kind", "yours", "target"),
    [
        (request(Kind.DISCOVER), Kind.OFFER, OWN, bytes(4)),
        (request(Kind.DISCOVER, (opt.REQUESTED_ADDRESS, OTHER)), Kind.OFFER, OWN, bytes(4)),
        (request(Kind.REQUEST, (opt.REQUESTED_ADDRESS, OWN), (opt.SERVER_IDENTIFIER, SERVER)), Kind.ACK, OWN, bytes(4)),
        (request(Kind.REQUEST, (opt.REQUESTED_ADDRESS, OWN)), Kind.ACK, OWN, bytes(4)),
        (request(Kind.REQUEST, (opt.REQUESTED_ADDRESS, OTHER)), Kind.NAK, bytes(4), bytes(4)),
        (request(Kind.REQUEST, ciaddr=OWN), Kind.ACK, OWN, OWN),
        (request(Kind.REQUEST, ciaddr=OWN, flags=0x8000), Kind.ACK, OWN, bytes(4)),
        (request(Kind.REQUEST, ciaddr=OTHER), Kind.NAK, bytes(4), bytes(4)),
        (request(Kind.REQUEST), Kind.NAK, bytes(4), bytes(4)),
        (request(Kind.INFORM, ciaddr=OWN), Kind.ACK, bytes(4), OWN),
        (request(Kind.INFORM, ciaddr=OTHER), Kind.ACK, bytes(4), bytes(4)),
    ],
)
def test_answers(message: Message, kind: Kind, yours: bytes, target: bytes):
    outcome = answer4(message, lease())
    assert isinstance(outcome, Reply4)
    assert (outcome.message.kind, outcome.message.yiaddr, outcome.target) == (kind, yours, target)
    assert outcome.message.option(opt.SERVER_IDENTIFIER) == SERVER
    assert (outcome.message.option(opt.LEASE_TIME) is None) == (kind is Kind.NAK or message.kind is Kind.INFORM)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (request(Kind.DISCOVER, op=2), Silence.NO_REQUEST),
        (request(Kind.OFFER), Silence.NO_REQUEST),
        (request(Kind.DISCOVER, mac=bytes(6)), Silence.OTHER_HARDWARE),
        (request(Kind.DISCOVER, giaddr=OTHER), Silence.RELAYED),
        (request(Kind.REQUEST, (opt.REQUESTED_ADDRESS, OWN), (opt.SERVER_IDENTIFIER, OTHER)), Silence.OTHER_SERVER),
        (request(Kind.DECLINE, (opt.REQUESTED_ADDRESS, OWN)), Silence.DECLINED),
        (request(Kind.RELEASE, ciaddr=OWN), Silence.RELEASED),
    ],
)
def test_silence(message: Message, why: Silence):
    assert answer4(message, lease()) is why


def test_a_port_without_hardware_address_is_not_answered():
    bare = msgspec.structs.replace(lease(), mac=b"")
    assert answer4(request(Kind.DISCOVER, mac=b""), bare) is Silence.OTHER_HARDWARE


@pytest.mark.parametrize(("longest", "limit"), [(None, 548), (300, 548), (1500, 1472), (9000, 1472), (1000, 972)])
def test_the_longest_message_is_the_clients_choice(longest: int | None, limit: int):
    options = () if longest is None else ((opt.LONGEST_MESSAGE, longest.to_bytes(2, "big")),)
    outcome = answer4(request(Kind.DISCOVER, *options), lease())
    assert isinstance(outcome, Reply4) and outcome.limit_bytes == limit

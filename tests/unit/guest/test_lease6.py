"""What a port is answered over DHCPv6."""

import json

import msgspec
import pytest

from tabinet.guest import dhcp6, options6
from tabinet.guest.dhcp6 import CLIENT_ID, IA_NA, IA_PD, OPTION_REQUEST, RAPID_COMMIT, SERVER_ID, STATUS, Kind, Message, Status
from tabinet.guest.directory import Directory, Port
from tabinet.guest.lease6 import SERVER_DUID, Lease6, Silence6, answer6, lease6_of
from tabinet.guest.options import GuestOptions
from tabinet.lib.ip import parse_address
from tabinet.model.keys import ResourceKey
from tabinet.model.openstack import DhcpOption, FixedAddress, PortFacts
from tabinet.store.api import KeyValue, PutEvent

MAC = bytes.fromhex("fa163e000001")
OWN, OTHER = parse_address("fd65::7"), parse_address("fd65::8")
CLIENT = (CLIENT_ID, bytes.fromhex("00030001fa163e000001"))
SERVER = (SERVER_ID, SERVER_DUID)
SUBNET = {"network_id": "n", "cidr": "fd65::/64", "gateway_ip": "fd65::1", "dns_servers": ["fd00::53", "192.0.2.53"]}
FACTS = PortFacts(hostname="vm", fqdn="vm.example.org", fixed=(FixedAddress(address="fd65::7", subnet="s6"),))


def port(**fields: object) -> Port:
    key = ResourceKey("WorkloadEndpoint", "x", "openstack")
    made = Port(key=key, interface="tap0", mac=MAC, addresses=(parse_address("10.0.0.7"), OWN), network="n", facts=FACTS)
    return msgspec.structs.replace(made, **fields)


def lease(ra: str = "dhcpv6-stateful", address: str = "dhcpv6-stateful", *, of: Port | None = None, **options: object) -> Lease6 | None:
    directory = Directory("h1")
    subnet = SUBNET | {"ipv6_ra_mode": ra, "ipv6_address_mode": address}
    directory.on_events([PutEvent(KeyValue("/calico/dhcp/v2/no-region/subnet/s6", json.dumps(subnet).encode(), 1, 1))])
    return lease6_of(of or port(), directory, GuestOptions(lease_s=1000, **options))


def stateful(**facts: object) -> Lease6:
    found = lease(of=port(facts=msgspec.structs.replace(FACTS, **facts)))
    assert found is not None
    return found


def association(*addresses: bytes, code: int = IA_NA, identifier: bytes = b"once") -> tuple[int, bytes]:
    empty = dhcp6.Association(code=code, identifier=identifier)
    return dhcp6.render_association(empty, 0, 0, tuple(dhcp6.render_address(address, 5, 9) for address in addresses))


def ask(kind: Kind, *options: tuple[int, bytes], of: Lease6 | None = None) -> Message:
    found = answer6(Message(kind=kind, xid=7, options=options), of or stateful())
    assert isinstance(found, Message) and found.xid == 7
    return found


def given(reply: Message) -> list[tuple[bytes, list[tuple[bytes, int, int]], int | None]]:
    """Identifier, addresses with times, and status of each association."""
    found = []
    for code, value in reply.options:
        if code in dhcp6.ASSOCIATIONS:
            options = dhcp6.parse_options(value[12:])
            times = [
                (v[:16], int.from_bytes(v[16:20], "big"), int.from_bytes(v[20:24], "big")) for c, v in options if c == dhcp6.IA_ADDRESS
            ]
            status = next((int.from_bytes(v[:2], "big") for c, v in options if c == STATUS), None)
            found.append((value[:4], times, status))
    return found


def status_of(reply: Message) -> int | None:
    value = reply.option(STATUS)
    return int.from_bytes(value[:2], "big") if value is not None else None


@pytest.mark.parametrize(
    ("ra", "address", "addresses"),
    [
        ("dhcpv6-stateful", "dhcpv6-stateful", (OWN,)),
        ("", "dhcpv6-stateful", (OWN,)),
        ("dhcpv6-stateful", "", (OWN,)),
        ("", "", (OWN,)),
        ("dhcpv6-stateless", "dhcpv6-stateless", ()),
        ("dhcpv6-stateless", "", ()),
        ("slaac", "slaac", None),
        ("slaac", "", None),
        ("", "slaac", None),
    ],
)
def test_modes_of_a_subnet(ra: str, address: str, addresses: tuple[object, ...] | None):
    found = lease(ra, address)
    assert (found.addresses if found is not None else None) == addresses


def test_an_allowed_address_is_not_leased():
    found = lease(of=port(addresses=(OWN, OTHER)))
    assert found is not None and found.addresses == (OWN,)


def test_a_guest_of_others_gets_all_its_addresses_and_a_container_none():
    others = port(network="", facts=PortFacts(), addresses=(OWN, OTHER))
    found = lease(of=others)
    assert found is not None and found.addresses == (OWN, OTHER)
    assert lease(of=msgspec.structs.replace(others, in_container=True)) is None
    assert lease(of=msgspec.structs.replace(others, addresses=(parse_address("10.0.0.7"),))) is None


def test_four_messages():
    offer = ask(Kind.SOLICIT, CLIENT, association())
    assert offer.kind is Kind.ADVERTISE
    assert (offer.option(CLIENT_ID), offer.option(SERVER_ID)) == (CLIENT[1], SERVER_DUID)
    assert given(offer) == [(b"once", [(OWN.packed, 1000, 1000)], None)]
    reply = ask(Kind.REQUEST, CLIENT, SERVER, association(OWN.packed))
    assert reply.kind is Kind.REPLY and given(reply) == given(offer)
    value = reply.option(IA_NA)
    assert value is not None and (value[4:8], value[8:12]) == ((500).to_bytes(4, "big"), (800).to_bytes(4, "big"))


def test_rapid_commit():
    reply = ask(Kind.SOLICIT, CLIENT, (RAPID_COMMIT, b""), association())
    assert reply.kind is Kind.REPLY and reply.option(RAPID_COMMIT) == b""
    reply = ask(Kind.SOLICIT, CLIENT, (RAPID_COMMIT, b""), association(), of=lease("", "dhcpv6-stateless"))
    assert reply.kind is Kind.ADVERTISE and given(reply) == [(b"once", [], Status.NO_ADDRESSES)]


@pytest.mark.parametrize(("kind", "server"), [(Kind.RENEW, (SERVER,)), (Kind.REBIND, ())])
def test_what_is_not_the_ports_is_taken_away(kind: Kind, server: tuple[tuple[int, bytes], ...]):
    reply = ask(kind, CLIENT, *server, association(OTHER.packed, OWN.packed))
    assert given(reply) == [(b"once", [(OWN.packed, 1000, 1000), (OTHER.packed, 0, 0)], None)]


def test_one_association_has_it_all():
    reply = ask(Kind.SOLICIT, CLIENT, association(code=IA_PD), association(), association(identifier=b"more"))
    assert given(reply) == [
        (b"once", [], Status.NO_PREFIX),
        (b"once", [(OWN.packed, 1000, 1000)], None),
        (b"more", [], Status.NO_ADDRESSES),
    ]


@pytest.mark.parametrize(("address", "expected"), [(OWN, Status.SUCCESS), (OTHER, Status.NOT_ON_LINK)])
def test_confirm(address: object, expected: Status):
    reply = ask(Kind.CONFIRM, CLIENT, association(parse_address(str(address).partition("/")[0]).packed))
    assert reply.kind is Kind.REPLY and status_of(reply) == expected


@pytest.mark.parametrize("kind", [Kind.RELEASE, Kind.DECLINE])
def test_giving_up(kind: Kind):
    reply = ask(kind, CLIENT, SERVER, association(OWN.packed), association(OTHER.packed, identifier=b"more"))
    assert reply.kind is Kind.REPLY and status_of(reply) == Status.SUCCESS
    assert given(reply) == [(b"more", [], Status.NO_BINDING)]


def test_configuration_is_what_was_asked_for():
    wanted = (OPTION_REQUEST, bytes((0, 23, 0, 24)))
    reply = ask(Kind.INFORMATION_REQUEST, wanted)
    found = dict(reply.options)
    assert found == {
        SERVER_ID: SERVER_DUID,
        options6.REFRESH_TIME: (1000).to_bytes(4, "big"),
        options6.DNS_SERVERS: parse_address("fd00::53").packed,
        options6.DOMAIN_SEARCH: b"\7example\3org\0",
    }
    named = ask(Kind.INFORMATION_REQUEST, CLIENT, (OPTION_REQUEST, bytes((0, 39))), (options6.FQDN, b"\1\2vm"))
    assert named.option(options6.FQDN) == b"\6\2vm\7example\3org\0"
    assert named.option(options6.DNS_SERVERS) is None


def test_extra_options_of_a_port():
    found = stateful(
        dhcp_options=(
            DhcpOption(name="dns-server", value="fd00::1,[fd00::2]", ip_version=6),
            DhcpOption(name="bootfile-url", value="tftp://[fd00::9]/boot", ip_version=6),
            DhcpOption(name="domain-search", value="", ip_version=6),
            DhcpOption(name="option6:56", value="fd00::3 ntp.example.org", ip_version=6),
            DhcpOption(name="4000", value="01:ab", ip_version=6),
            DhcpOption(name="mtu", value="1400", ip_version=4),
            DhcpOption(name="server-id", value="x", ip_version=6),
            DhcpOption(name="3", value="x", ip_version=6),
            DhcpOption(name="31", value="192.0.2.1", ip_version=6),
        )
    )
    ntp = b"\0\1\0\x10" + parse_address("fd00::3").packed + b"\0\3\0\x11\3ntp\7example\3org\0"
    assert dict(found.options) == {
        options6.DNS_SERVERS: parse_address("fd00::1").packed + parse_address("fd00::2").packed,
        options6.BOOTFILE_URL: b"tftp://[fd00::9]/boot",
        options6.NTP_SERVER: ntp,
        4000: b"\x01\xab",
    }
    assert [text.partition(":")[0] for text in found.refused] == ["server-id", "3", "31"]


def test_a_name_that_is_none_is_left_out():
    found = stateful(hostname="x" * 64, fqdn="")
    assert found.fqdn == "" and found.refused


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        (Kind.SOLICIT, (association(),), Silence6.NAMELESS),
        (Kind.SOLICIT, (CLIENT, SERVER), Silence6.MALFORMED),
        (Kind.REBIND, (CLIENT, SERVER), Silence6.MALFORMED),
        (Kind.REQUEST, (CLIENT,), Silence6.OTHER_SERVER),
        (Kind.RENEW, (CLIENT, (SERVER_ID, b"\0\3other")), Silence6.OTHER_SERVER),
        (Kind.INFORMATION_REQUEST, (CLIENT, (SERVER_ID, b"\0\3other")), Silence6.OTHER_SERVER),
        (Kind.INFORMATION_REQUEST, (CLIENT, association()), Silence6.MALFORMED),
        (Kind.CONFIRM, (CLIENT, association()), Silence6.NOTHING),
        (Kind.ADVERTISE, (CLIENT, SERVER), Silence6.NO_REQUEST),
        (Kind.REPLY, (CLIENT, SERVER), Silence6.NO_REQUEST),
        (Kind.RECONFIGURE, (CLIENT, SERVER), Silence6.NO_REQUEST),
    ],
)
def test_not_answered(kind: Kind, options: tuple[tuple[int, bytes], ...], expected: Silence6):
    assert answer6(Message(kind=kind, xid=1, options=options), stateful()) is expected

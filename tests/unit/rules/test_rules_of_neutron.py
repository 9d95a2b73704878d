"""What Neutron's Calico driver wrote into an etcd, calculated into the rules that it means: from stored bytes to verdicts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tabinet.calc.graph import Graph
from tabinet.calc.inputs import InSync, Put
from tabinet.calc.messages import EndpointUpdate
from tabinet.errors import DataError
from tabinet.lib.ip import Prefix, parse_address
from tabinet.model.codec import decode_stored, fail_closed
from tabinet.rules.builder import TableBuilder
from tabinet.rules.evaluate import Packet, evaluate

DUMP = Path(__file__).parents[1] / "model" / "data" / "neutron" / "networking-calico-dump.txt"
UPLINK = "eth0"
WEB, BARE = "tap145be8b3-67", "tapfb40a754-52"
"""WEB is in a security group, BARE in none; both on hostA. A third endpoint, 10.65.0.30, is in none either."""
WEB_ADDRESS, WEB_ADDRESS6, OUTSIDE, OUTSIDE6 = "10.65.0.65", "fd00:65::78", "203.0.113.9", "2001:db8::9"
HostTable = tuple[TableBuilder, dict[str, tuple[Prefix, ...]]]
TCP, UDP, ICMP, ICMP6, VRRP, ESP = 6, 17, 1, 58, 112, 50


@pytest.fixture(scope="module")
def host() -> HostTable:
    """The table of hostA, and the addresses of its endpoints by interface."""
    graph = Graph(frozenset({"hostA"}))
    lines = DUMP.read_text().splitlines()
    for path, text in zip(lines[::2], lines[1::2], strict=True):
        try:
            decoded = decode_stored(path, text.encode())
        except DataError:
            decoded = fail_closed(path, text.encode())
        if decoded is not None:
            graph.on_input(Put(*decoded, 1))
    graph.on_input(InSync())
    builder, addresses = TableBuilder(), {}
    for update in graph.flush():
        builder.on_update(update)
        if isinstance(update, EndpointUpdate):
            addresses[update.endpoint.interface] = update.endpoint.nets
    builder.flush()
    return builder, addresses


def test_the_address_that_is_none_is_left_out_and_the_others_live(host: HostTable) -> None:
    assert set(map(str, host[1][WEB])) == {"10.65.0.65/32", "10.65.0.77/32", "fd00:65::78/128"}
    assert len(host[1]) == 3


@pytest.mark.parametrize(
    ("source", "protocol", "port", "icmp_type", "accepted"),
    [
        (OUTSIDE, TCP, 22, 0, True),
        (OUTSIDE, TCP, 80, 0, True),
        (OUTSIDE, TCP, 81, 0, False),
        (OUTSIDE, TCP, 1500, 0, False),  # only for members of a group that has none
        (OUTSIDE, UDP, 53, 0, False),
        (OUTSIDE, ICMP, 0, 8, True),
        (OUTSIDE, ICMP, 0, 13, False),
        (OUTSIDE, VRRP, 0, 0, True),
        (OUTSIDE, ESP, 0, 0, False),
        (OUTSIDE6, TCP, 22, 0, False),  # the rule is for IPv4
        (OUTSIDE6, ICMP6, 0, 128, True),
        (OUTSIDE6, ICMP6, 0, 1, False),
    ],
)
def test_what_the_security_group_lets_in(host: HostTable, source: str, protocol: int, port: int, icmp_type: int, accepted: bool) -> None:
    target = WEB_ADDRESS if "." in source else WEB_ADDRESS6
    packet = Packet(
        UPLINK,
        WEB,
        parse_address(source),
        parse_address(target),
        protocol,
        source_port=40_000,
        destination_port=port,
        icmp_type=icmp_type,
    )
    assert evaluate(host[0].table, packet).accepted is accepted


@pytest.mark.parametrize(
    ("interface", "source", "destination", "accepted"),
    [
        (WEB, WEB_ADDRESS, OUTSIDE, True),
        (WEB, WEB_ADDRESS6, OUTSIDE6, True),
        (BARE, "10.65.0.114", OUTSIDE, False),  # no group: nothing is allowed, out or in
        ("tap-unknown", "10.65.0.200", OUTSIDE, False),
    ],
)
def test_what_may_leave(host: HostTable, interface: str, source: str, destination: str, accepted: bool) -> None:
    packet = Packet(interface, UPLINK, parse_address(source), parse_address(destination), UDP, source_port=40_000, destination_port=9)
    assert evaluate(host[0].table, packet).accepted is accepted


def test_an_address_of_another_port_is_spoofed(host: HostTable) -> None:
    own, other = parse_address(WEB_ADDRESS), parse_address("10.65.0.114")
    for source, accepted in ((own, True), (other, False)):
        packet = Packet(WEB, UPLINK, source, parse_address(OUTSIDE), UDP, source_port=40_000, destination_port=9)
        assert evaluate(host[0].table, packet, "prerouting").accepted is accepted

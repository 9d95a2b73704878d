"""Security groups mean what Neutron says: ports, groups and packets at random, calculated into rules, against a naive reading of the API.

The naive side knows Neutron's records only. A rule that the translation refuses must allow nothing; everything else must agree exactly.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tabinet.attach.openstack.groups import (
    Inexpressible,
    open_policy,
    path_of_document,
    translate_address_group,
    translate_group,
    translate_rule,
)
from tabinet.attach.openstack.names import Region, interface_of
from tabinet.attach.openstack.neutron import AddressGroup, AllowedPair, FixedIp, Network, Port, PortView, SecurityGroup, SecurityGroupRule
from tabinet.attach.openstack.translate import translate_port
from tabinet.calc.graph import Graph
from tabinet.calc.inputs import InSync, Put
from tabinet.lib.ip import IPV4, Prefix, parse_address, parse_prefix
from tabinet.model.codec import decode_stored, encode_document
from tabinet.rules.builder import TableBuilder
from tabinet.rules.evaluate import Packet, begins_flow, evaluate
from tabinet.rules.options import TableOptions

EXAMPLES = int(os.environ.get("TABINET_OPENSTACK_EXAMPLES", "60"))
REGION = Region()
UPLINK = "eth0"
GROUPS = ("g1", "g2", "g3")
ADDRESS_GROUPS = ("a1", "a2")
PORTS = {
    "port-1": ("hosta", "10.0.0.1", "fd00::1"),
    "port-2": ("hosta", "10.0.0.2", "fd00::2"),
    "port-3": ("hostb", "10.0.0.3", "fd00::3"),
}
OUTSIDE = ("192.0.2.9", "10.99.0.5", "10.0.1.1", "2001:db8::9", "fd00:99::5")
NETS = ("0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/31", "192.0.2.9/32", "10.99.0.0/24", "::/0", "fd00::/127", "2001:db8::/32", "fd00:99::/64")
NUMBERS = (0, 1, 6, 17, 33, 58, 112, 132, 136)
NAMES = {"hopopt": 0, "icmp": 1, "tcp": 6, "udp": 17, "dccp": 33, "ipv6-icmp": 58, "icmpv6": 58, "vrrp": 112, "sctp": 132, "udplite": 136}
WITH_PORTS = (6, 17, 33, 132, 136)


@st.composite
def rules(draw: st.DrawFn, number: int) -> SecurityGroupRule:
    """A rule that Neutron's API would take."""
    ethertype = draw(st.sampled_from(["IPv4", "IPv6"]))
    protocol = draw(st.sampled_from([None, "any", "0", *NAMES, *map(str, NUMBERS[1:])]))
    low = high = None
    if NAMES.get(str(protocol), int(protocol) if protocol and protocol.isdigit() else 0) in (*WITH_PORTS, 1, 58) and draw(st.booleans()):
        low, high = sorted((draw(st.sampled_from([22, 80, 81])), draw(st.sampled_from([22, 80, 81]))))
        if protocol in ("icmp", "icmpv6", "ipv6-icmp", "1", "58"):
            low, high = draw(st.sampled_from([(8, 0), (8, None), (128, None), (13, 1), (255, None)]))
    family = [net for net in NETS if (":" in net) == (ethertype == "IPv6")]
    remote = draw(st.sampled_from(["none", "prefix", "group", "address group"]))
    return SecurityGroupRule(
        id=f"rule-{number}",
        direction=draw(st.sampled_from(["ingress", "ingress", "egress"])),
        ethertype=ethertype,
        protocol=protocol,
        port_range_min=low,
        port_range_max=high,
        remote_ip_prefix=draw(st.sampled_from(family)) if remote == "prefix" else None,
        remote_group_id=draw(st.sampled_from(GROUPS)) if remote == "group" else None,
        remote_address_group_id=draw(st.sampled_from(ADDRESS_GROUPS)) if remote == "address group" else None,
    )


@dataclass
class Cloud:
    """What Neutron knows, and its naive meaning."""

    groups: dict[str, SecurityGroup]
    address_groups: dict[str, AddressGroup]
    ports: dict[str, Port]
    owners: dict[Prefix, Port] = field(default_factory=dict)

    def member_nets(self, group: str) -> list[Prefix]:
        """The addresses of a group's ports, pairs included."""
        return [
            parse_prefix(text)
            for port in self.ports.values()
            if port.port_security_enabled and group in port.security_groups
            for text in (*(fixed.ip_address for fixed in port.fixed_ips), *(pair.ip_address for pair in port.allowed_address_pairs))
        ]

    def addresses_on(self, host: str) -> set[Prefix]:
        """Single addresses of the host's ports, pairs included."""
        texts = [
            text
            for port in self.ports.values()
            if port.host == host
            for text in (*(fixed.ip_address for fixed in port.fixed_ips), *(pair.ip_address for pair in port.allowed_address_pairs))
        ]
        return {net for net in map(parse_prefix, texts) if net.is_host}

    def allows(self, port: Port, direction: str, packet: Packet) -> bool:
        """Neutron's semantics: any rule of any group; everything without port security; nothing otherwise."""
        if not port.port_security_enabled:
            return True
        remote = packet.source if direction == "ingress" else packet.destination
        return any(
            self.matches(rule, packet, remote)
            for group in port.security_groups
            for rule in self.groups[group].security_group_rules
            if rule.direction == direction and expressible(rule)
        )

    def matches(self, rule: SecurityGroupRule, packet: Packet, remote: Prefix) -> bool:
        if (rule.ethertype == "IPv4") != (packet.family == IPV4):
            return False
        if rule.protocol not in (None, "any", "0"):
            number = number_of(rule)
            if rule.ethertype == "IPv6" and number == 1:
                number = 58
            if number != packet.protocol:
                return False
        if rule.port_range_min is not None:
            if packet.protocol in (1, 58):
                if packet.icmp_type != rule.port_range_min or rule.port_range_max not in (None, packet.icmp_code):
                    return False
            elif not rule.port_range_min <= packet.destination_port <= (rule.port_range_max or 0):
                return False
        nets = [parse_prefix(rule.remote_ip_prefix)] if rule.remote_ip_prefix else None
        if rule.remote_group_id:
            nets = self.member_nets(rule.remote_group_id)
        if rule.remote_address_group_id:
            nets = [parse_prefix(text) for text in self.address_groups[rule.remote_address_group_id].addresses]
        return nets is None or any(net.contains(remote) for net in nets)


def number_of(rule: SecurityGroupRule) -> int:
    name = rule.protocol or ""
    return NAMES[name] if name in NAMES else int(name)


def expressible(rule: SecurityGroupRule) -> bool:
    try:
        translate_rule(rule)
    except Inexpressible:
        assert (number_of(rule), rule.ethertype) == (58, "IPv4"), rule  # such packets there are none
        return False
    return True


@st.composite
def clouds(draw: st.DrawFn) -> Cloud:
    groups = {
        group: SecurityGroup(
            id=group, security_group_rules=tuple(draw(rules(number)) for number in range(draw(st.integers(min_value=0, max_value=4))))
        )
        for group in GROUPS
    }
    address_groups = {
        group: AddressGroup(id=group, addresses=tuple(draw(st.lists(st.sampled_from(NETS), max_size=2)))) for group in ADDRESS_GROUPS
    }
    ports = {}
    for name, (host, four, six) in PORTS.items():
        pairs = draw(st.lists(st.sampled_from(["10.99.0.0/24", "10.0.1.1", "fd00:99::/64"]), max_size=2, unique=True))
        secure = draw(st.integers(min_value=0, max_value=4)) > 0
        ports[name] = Port(
            id=name,
            network_id="n",
            device_owner="compute:nova",
            device_id="device",
            host=host,
            vif_type="tap",
            mac_address="fa:16:3e:00:00:01",
            fixed_ips=(FixedIp(ip_address=four, subnet_id="s"), FixedIp(ip_address=six, subnet_id="s")),
            security_groups=tuple(draw(st.lists(st.sampled_from(GROUPS), max_size=2, unique=True))) if secure else (),
            port_security_enabled=secure,
            allowed_address_pairs=tuple(AllowedPair(ip_address=pair) for pair in pairs) if secure else (),
        )
    return Cloud(groups, address_groups, ports)


def build_table(cloud: Cloud) -> TableBuilder:
    """The table of hosta, through bytes as they are stored."""
    documents: dict[str, dict[str, Any]] = {}
    for document in (
        open_policy(REGION),
        *(translate_group(group, REGION) for group in cloud.groups.values()),
        *(translate_address_group(group, REGION) for group in cloud.address_groups.values()),
    ):
        documents[path_of_document(document)] = document
    for port in cloud.ports.values():
        documents |= translate_port(PortView(port=port, network=Network(id="n"), groups=dict.fromkeys(port.security_groups, "n")), REGION)
    graph = Graph(frozenset({"hosta"}))
    for path, document in documents.items():
        decoded = decode_stored(path, encode_document(document))
        assert decoded is not None
        graph.on_input(Put(*decoded, 1))
    graph.on_input(InSync())
    builder = TableBuilder(TableOptions(interface_prefixes=("tap",), allow_source_prefixes=True))
    for update in graph.flush():
        builder.on_update(update)
    builder.flush()
    return builder


@st.composite
def packets(draw: st.DrawFn, family: int) -> Packet:
    index = 1 if family == IPV4 else 2
    outside = [parse_address(text) for text in OUTSIDE if (":" in text) != (family == IPV4)]
    addresses = {parse_address(place[index]): name for name, place in PORTS.items()}
    source = draw(st.sampled_from([*addresses, *outside]))
    target = draw(st.sampled_from([address for address in [*addresses, *outside] if address != source]))
    protocol = draw(st.sampled_from([number for number in NUMBERS if number != (58 if family == IPV4 else 1)]))
    icmp = draw(st.sampled_from([(8, 0), (128, 0), (8, 1), (13, 1), (13, 0)])) if protocol in (1, 58) else (0, 0)
    return Packet(
        _interface(addresses.get(source)),
        _interface(addresses.get(target)),
        source,
        target,
        protocol,
        source_port=40_000,
        destination_port=draw(st.sampled_from([22, 80, 81, 443])),
        icmp_type=icmp[0],
        icmp_code=icmp[1],
    )


def _interface(port: str | None) -> str:
    return interface_of(port) if port is not None and PORTS[port][0] == "hosta" else UPLINK


@settings(max_examples=EXAMPLES, deadline=None)
@given(clouds(), st.lists(st.one_of(packets(4), packets(6)), min_size=15, max_size=15))
def test_rules_mean_what_neutron_says(cloud: Cloud, sent: list[Packet]) -> None:
    builder = build_table(cloud)
    by_interface = {interface_of(name): port for name, port in cloud.ports.items() if port.host == "hosta"}
    for packet in sent:
        ends = ((by_interface.get(packet.in_interface), "egress"), (by_interface.get(packet.out_interface), "ingress"))
        expected = all(cloud.allows(port, direction, packet) for port, direction in ends if port is not None)
        if packet.in_interface == packet.out_interface == UPLINK or not begins_flow(packet.protocol, packet.icmp_type):
            continue  # through the host, to nobody here; or part of a flow that was judged before
        if packet.in_interface == UPLINK and packet.source in cloud.addresses_on("hosta"):
            continue  # an address of a workload here, from elsewhere: hosts let nobody pretend that
        verdict = evaluate(builder.table, packet)
        assert verdict.accepted is expected, (packet, verdict)

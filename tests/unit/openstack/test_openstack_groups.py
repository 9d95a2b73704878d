"""Security groups and address groups as policies and network sets."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tabinet.attach.openstack.groups import open_policy, path_of_document, translate_address_group, translate_group, translate_rule
from tabinet.attach.openstack.names import Region
from tabinet.attach.openstack.neutron import AddressGroup, SecurityGroup, SecurityGroupRule, parse_fact
from tabinet.errors import InputError
from tabinet.model.codec import decode_stored, encode_document

REGION = Region()


def rule(identifier: str = "r", **fields: Any) -> SecurityGroupRule:
    return parse_fact(SecurityGroupRule, {"id": identifier, "direction": "ingress", "ethertype": "IPv4"} | fields)


def translated(**fields: Any) -> dict[str, Any]:
    document = translate_rule(rule(**fields))
    return {name: value for name, value in document.items() if name not in ("action", "metadata", "ipVersion")}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {}),
        ({"protocol": "any"}, {}),
        ({"protocol": "0"}, {}),
        ({"protocol": "ip"}, {}),
        ({"protocol": "tcp"}, {"protocol": "TCP"}),
        ({"protocol": "6"}, {"protocol": "TCP"}),
        ({"protocol": "vrrp"}, {"protocol": 112}),
        ({"protocol": "255"}, {"protocol": 255}),
        ({"protocol": "icmp", "port_range_min": 8, "port_range_max": 0}, {"protocol": "ICMP", "icmp": {"type": 8, "code": 0}}),
        ({"protocol": "icmp", "port_range_min": 3}, {"protocol": "ICMP", "icmp": {"type": 3}}),
        ({"protocol": "udp", "port_range_min": 53, "port_range_max": 53}, {"protocol": "UDP", "destination": {"ports": [53]}}),
        ({"protocol": "sctp", "port_range_min": 1, "port_range_max": 9}, {"protocol": "SCTP", "destination": {"ports": ["1:9"]}}),
        ({"remote_ip_prefix": "10.1.2.3/8"}, {"source": {"nets": ["10.0.0.0/8"]}}),
        ({"remote_group_id": "g"}, {"source": {"selector": "has(sg.projectcalico.org/openstack-g)"}}),
        ({"remote_address_group_id": "a"}, {"source": {"selector": "has(ag.tabinet/openstack-a)"}}),
        ({"direction": "egress", "remote_group_id": "g"}, {"destination": {"selector": "has(sg.projectcalico.org/openstack-g)"}}),
        (
            {"direction": "egress", "protocol": "tcp", "port_range_min": 1, "port_range_max": 2, "remote_ip_prefix": "0.0.0.0/0"},
            {"protocol": "TCP", "destination": {"nets": ["0.0.0.0/0"], "ports": ["1:2"]}},
        ),
        ({"ethertype": "IPv6", "protocol": "1"}, {"protocol": "ICMPv6"}),
        ({"ethertype": "IPv6", "protocol": "icmpv6", "port_range_min": 128}, {"protocol": "ICMPv6", "icmp": {"type": 128}}),
        ({"ethertype": "IPv6", "remote_ip_prefix": "2001:db8::1/32"}, {"source": {"nets": ["2001:db8::/32"]}}),
    ],
)
def test_what_a_rule_allows(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert translated(**fields) == expected


@pytest.mark.parametrize(
    ("fields", "text", "others"),
    [
        ({"protocol": "hopopt"}, "0", {}),
        ({"protocol": "dccp", "port_range_min": 1, "port_range_max": 2}, "33:1-2", {"protocol": 33}),
        ({"protocol": "136", "port_range_min": 7, "port_range_max": 7}, "136:7", {"protocol": "UDPLite"}),
        ({"protocol": "icmp", "port_range_min": 255}, "1:255", {"protocol": "ICMP"}),
        ({"ethertype": "IPv6", "protocol": "icmp", "port_range_min": 255, "port_range_max": 0}, "58:255/0", {"protocol": "ICMPv6"}),
    ],
)
def test_what_rules_have_no_field_for_is_in_an_annotation_and_for_others_about_nobody(
    fields: dict[str, Any], text: str, others: dict[str, Any]
) -> None:
    remote = {"remote_group_id": "g"}
    ingress, egress = (translate_rule(rule(direction=direction, **fields, **remote)) for direction in ("ingress", "egress"))
    for made, near, far in ((ingress, "destination", "source"), (egress, "source", "destination")):
        assert made["metadata"]["annotations"]["tabinet.io/protocol"] == text
        assert made[near] == {"selector": "!all()"}
        assert made[far] == {"selector": "has(sg.projectcalico.org/openstack-g)"}
        known = ("action", "metadata", "ipVersion", "source", "destination")
        assert {name: value for name, value in made.items() if name not in known} == others


@pytest.mark.parametrize(
    "fields",
    [
        {"protocol": "nonsense"},
        {"protocol": "256"},
        {"protocol": "ipv6-icmp"},
        {"protocol": "icmp", "port_range_min": 256},
        {"protocol": "icmp", "port_range_max": 0},
        {"protocol": "gre", "port_range_min": 1, "port_range_max": 2},
        {"protocol": "hopopt", "port_range_min": 1, "port_range_max": 2},
        {"protocol": "tcp", "port_range_min": 9, "port_range_max": 2},
        {"protocol": "tcp", "port_range_min": 9},
        {"port_range_min": 9, "port_range_max": 9},
        {"remote_ip_prefix": "10.0.0.0/33"},
        {"remote_ip_prefix": "2001:db8::/32"},
        {"direction": "sideways"},
        {"ethertype": "ARP"},
    ],
)
def test_what_cannot_be_expressed_allows_nothing_and_is_told(fields: dict[str, Any]) -> None:
    group = SecurityGroup(id="g", security_group_rules=(rule("bad", **fields), rule("good")))
    document = translate_group(group, REGION)
    spec = document["spec"]
    assert [each["metadata"]["annotations"]["openstack.tabinet/rule"] for each in spec["ingress"] + spec["egress"]] == ["good"]
    assert "rule bad: " in document["metadata"]["annotations"]["openstack.tabinet/refused"]


def test_a_group_is_a_policy_about_both_directions() -> None:
    group = SecurityGroup(id="g", name="web", revision_number=7, security_group_rules=(rule("b"), rule("a", direction="egress")))
    document = translate_group(group, REGION)
    assert path_of_document(document) == "/calico/resources/v3/projectcalico.org/networkpolicies/openstack/ossg.default.g"
    assert document["spec"]["types"] == ["Ingress", "Egress"]
    assert document["spec"]["selector"] == "has(sg.projectcalico.org/openstack-g)"
    assert document["metadata"]["annotations"] == {"openstack.tabinet/revision": "7"}


def test_the_order_in_which_rules_come_means_nothing() -> None:
    rules = (rule("b"), rule("a", protocol="tcp"), rule("c", direction="egress"))
    documents = [translate_group(SecurityGroup(id="g", security_group_rules=order), REGION) for order in (rules, rules[::-1])]
    assert documents[0] == documents[1]


def test_a_thousand_rules_are_a_thousand_rules_and_fit_into_a_value() -> None:
    rules = tuple(rule(f"{number:036}", protocol="tcp", port_range_min=number, port_range_max=number) for number in range(1, 1001))
    document = translate_group(SecurityGroup(id="g", security_group_rules=rules), REGION)
    assert [each["destination"]["ports"] for each in document["spec"]["ingress"]] == [[number] for number in range(1, 1001)]
    assert len(encode_document(document)) < 1_000_000, "etcd takes 1.5 MiB"


def test_an_address_group_is_a_network_set() -> None:
    group = AddressGroup(id="a", name="büro 1", addresses=("203.0.113.0/24", "10.1.1.1/32", "2001:db8::1/64", "203.0.113.0/24"))
    document = translate_address_group(group, REGION)
    assert document["spec"] == {"nets": ["10.1.1.1/32", "203.0.113.0/24", "2001:db8::/64"]}
    assert document["metadata"]["labels"] == {"ag.tabinet/openstack-a": "b_ro_1"}


@pytest.mark.parametrize("region", [Region(), Region("North 1")])
def test_what_is_written_can_be_acted_on(region: Region) -> None:
    group = SecurityGroup(id="72ed70e1-2593-433e-9d56-39c53817fbb2", security_group_rules=(rule(), rule("s", protocol="sctp")))
    for document in (
        translate_group(group, region),
        open_policy(region),
        translate_address_group(AddressGroup(id="a", addresses=("10.0.0.0/8",)), region),
    ):
        decoded = decode_stored(path_of_document(document), encode_document(document))
        assert decoded is not None
        assert decoded[0].namespace == region.namespace  # type: ignore[union-attr]  # these are resources


def test_a_dictionary_that_is_none_of_neutrons() -> None:
    with pytest.raises(InputError, match="SecurityGroupRule"):
        parse_fact(SecurityGroupRule, {"id": "r", "direction": 5})
    assert msgspec.to_builtins(parse_fact(AddressGroup, {"id": "a", "unknown": 1, "name": None}))["addresses"] == ()

"""Values that can be written in several ways, and defaults."""

from __future__ import annotations

from typing import Any

import pytest

from tabinet.model.asn import parse_as_number
from tabinet.model.defaults import with_defaults
from tabinet.model.formats import parse_community, parse_duration_s, parse_peer
from tabinet.model.ports import NamedPort, Ports, parse_port
from tabinet.model.protocols import parse_protocol, protocol_name


@pytest.mark.parametrize(
    ("value", "number"),
    [("TCP", 6), ("tcp", 6), ("UDPLite", 136), ("icmpv6", 58), ("SCTP", 132), (1, 1), ("112", 112), (255, 255), ("Icmp", 1)],
)
def test_protocols(value: int | str, number: int) -> None:
    assert parse_protocol(value) == number
    assert parse_protocol(protocol_name(number)) == number


@pytest.mark.parametrize("value", [0, 256, -1, "", "0", "256", "tcp ", "x", "6.0", "٦", "0x6", "1000"])
def test_what_is_no_protocol(value: int | str) -> None:
    with pytest.raises(ValueError, match="allowed"):
        parse_protocol(value)


@pytest.mark.parametrize(
    ("value", "number"),
    [(64512, 64512), ("64512", 64512), ("1.10", 65546), ("0.1", 1), ("65535.65535", 4294967295), (4294967295, 4294967295)],
)
def test_as_numbers(value: int | str, number: int) -> None:
    assert parse_as_number(value) == number


@pytest.mark.parametrize(
    "value", [0, -1, 4294967296, "", "0", "0.0", "1.65536", "65536.1", "1.", ".1", "1.2.3", "AS1", "99999999999", "-5", "١"]
)
def test_what_is_no_as_number(value: int | str) -> None:
    with pytest.raises(ValueError, match="allowed"):
        parse_as_number(value)


@pytest.mark.parametrize(
    ("value", "port"),
    [
        (80, Ports(80, 80)),
        ("80", Ports(80, 80)),
        ("80:90", Ports(80, 90)),
        ("0:1024", Ports(0, 1024)),
        ("65535:65535", Ports(65535, 65535)),
        ("http", NamedPort("http")),
        ("http-2", NamedPort("http-2")),
        ("8080-tcp", NamedPort("8080-tcp")),
    ],
)
def test_ports(value: int | str, port: Ports | NamedPort) -> None:
    assert parse_port(value) == port


@pytest.mark.parametrize(
    "value", [0, -1, 65536, "0", "0:0", "65536", "9:8", "1:", ":1", "1:2:3", "a:b", "", "a b", "999999", "ä", "x" * 129]
)
def test_what_is_no_port(value: int | str) -> None:
    with pytest.raises(ValueError, match="allowed"):
        parse_port(value)


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("90s", 90), ("1m30s", 90), ("1h", 3600), ("500ms", 0.5), ("1.5s", 1.5), ("2h3m4s5ms", 7384.005)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "s", "-1s", "1s 1m", "1 s", "1d", "s5", ".5s", "1.s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration_s(text)


@pytest.mark.parametrize(
    ("text", "peer"),
    [
        ("10.0.0.1", ("10.0.0.1", 0)),
        ("10.0.0.1:179", ("10.0.0.1", 179)),
        ("fd00::1", ("fd00::1", 0)),
        ("[fd00:0::1]:1179", ("fd00::1", 1179)),
    ],
)
def test_peers(text: str, peer: tuple[str, int]) -> None:
    assert parse_peer(text) == peer


@pytest.mark.parametrize(
    "text", ["", "10.0.0.1:0", "10.0.0.1:65536", "[10.0.0.1]:5", "[fd00::1]", "fd00::1:x", "host:5", "10.0.0.1:", "[]:5"]
)
def test_what_is_no_peer(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_peer(text)


@pytest.mark.parametrize(("text", "numbers"), [("64512:1", (64512, 1)), ("4200000000:1:2", (4200000000, 1, 2))])
def test_communities(text: str, numbers: tuple[int, ...]) -> None:
    assert parse_community(text) == numbers


@pytest.mark.parametrize("text", ["", "1", "1:", "1:65536", "1:2:3:4", "a:b", "1:2:4294967296", "1:-2"])
def test_what_is_no_community(text: str) -> None:
    with pytest.raises(ValueError, match="not a community"):
        parse_community(text)


@pytest.mark.parametrize(
    ("kind", "metadata", "spec", "filled"),
    [
        (
            "IPPool",
            {},
            {"cidr": "10.0.0.0/16"},
            {
                "cidr": "10.0.0.0/16",
                "blockSize": 26,
                "ipipMode": "Never",
                "vxlanMode": "Never",
                "allowedUses": ["Workload", "Tunnel"],
                "nodeSelector": "all()",
                "assignmentMode": "Automatic",
            },
        ),
        ("Tier", {"name": "x"}, {"order": 0}, {"order": 0, "defaultAction": "Deny"}),
        ("Tier", {"name": "default"}, {}, {"order": 1_000_000, "defaultAction": "Deny"}),
        ("Tier", {"name": "kube-admin"}, {}, {"order": 1_000, "defaultAction": "Pass"}),
        ("GlobalNetworkPolicy", {}, {"new": 1}, {"new": 1, "tier": "default", "types": ["Ingress"]}),
        ("NetworkPolicy", {}, {"egress": [1]}, {"egress": [1], "tier": "default", "types": ["Egress"]}),
        (
            "NetworkPolicy",
            {},
            {"ingress": [1], "egress": [1]},
            {"ingress": [1], "egress": [1], "tier": "default", "types": ["Ingress", "Egress"]},
        ),
        ("NetworkPolicy", {}, {"tier": "a", "types": ["Egress"], "order": None}, {"tier": "a", "types": ["Egress"], "order": None}),
        ("NetworkSet", {}, {"nets": []}, {"nets": []}),
    ],
)
def test_defaults(kind: str, metadata: dict[str, Any], spec: dict[str, Any], filled: dict[str, Any]) -> None:
    before = {"kind": kind, "metadata": metadata, "spec": spec, "other": 1}
    after = with_defaults(before)
    assert after["spec"] == filled
    assert after["other"] == 1
    assert before == {"kind": kind, "metadata": metadata, "spec": spec, "other": 1}
    assert with_defaults(after) == after


def test_ipv6_pools_have_their_own_block_size() -> None:
    assert with_defaults({"kind": "IPPool", "spec": {"cidr": "fd00::/64"}})["spec"]["blockSize"] == 122


def test_namespaced_resources_have_a_namespace_and_names_stay() -> None:
    filled = with_defaults({"kind": "NetworkPolicy", "metadata": {"name": "default.a"}})
    assert filled["metadata"] == {"name": "default.a", "namespace": "default"}
    assert with_defaults({"kind": "NetworkSet", "metadata": {"namespace": "n"}})["metadata"] == {"namespace": "n"}


def test_endpoints_carry_namespace_and_orchestrator_as_labels() -> None:
    metadata = with_defaults(
        {"kind": "WorkloadEndpoint", "metadata": {"namespace": "n", "labels": {"a": "b"}}, "spec": {"orchestrator": "k8s"}}
    )["metadata"]
    assert metadata["labels"] == {"a": "b", "projectcalico.org/namespace": "n", "projectcalico.org/orchestrator": "k8s"}


def test_unknown_kinds_are_left_alone() -> None:
    document = {"kind": "Sandwich"}
    assert with_defaults(document) is document

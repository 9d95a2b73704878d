"""What workload endpoints say by annotations."""

from __future__ import annotations

import json

import pytest

from tabinet.calc.messages import ForwardElsewhere, Limits, Qos, Trunk
from tabinet.calc.ports import NOTHING, port_needs
from tabinet.lib.ip import parse_address


@pytest.mark.parametrize(("text", "stateless"), [("true", True), ("false", False), ("yes", True), ("", True)])
def test_what_cannot_be_read_allows_less(text: str, stateless: bool):
    needs = port_needs({"tabinet.io/stateless": text}, "WorkloadEndpoint/w")
    assert needs.stateless is stateless
    assert len(needs.problems) == (0 if text in ("true", "false") else 1)


def forwards(**fields: object) -> str:
    common = {"externalIP": "192.0.2.1", "protocol": 6, "externalPort": 8080, "internalIP": "10.0.0.1", "internalPort": 80}
    return json.dumps([common | fields])


def test_a_range_of_ports_is_a_forward_for_each():
    needs = port_needs({"tabinet.io/port-forwards": forwards(count=3)}, "w")
    assert [(each.external_port, each.internal_port) for each in needs.forwards] == [(8080, 80), (8081, 81), (8082, 82)]


def test_ports_that_lead_to_other_hosts():
    needs = port_needs({"tabinet.io/port-forwards": forwards(count=3, node="other")}, "w")
    assert (needs.forwards, needs.elsewhere) == ((), (ForwardElsewhere(parse_address("192.0.2.1"), 6, 8080, 8082, "other"),))
    needs = port_needs({"tabinet.io/port-forwards": forwards(home="other")}, "w")
    assert ([each.home for each in needs.forwards], needs.elsewhere) == (["other"], ())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        forwards(protocol=47),
        forwards(count=2000),
        forwards(externalPort=65535, count=2),
        forwards(externalIP="x"),
        forwards(count=0),
    ],
)
def test_forwards_that_are_none_are_reported(text: str):
    needs = port_needs({"tabinet.io/port-forwards": text}, "w")
    assert needs.forwards == ()
    assert len(needs.problems) == 1


def limits(*asked: dict[str, object]) -> str:
    return json.dumps([{"externalIP": f"192.0.2.{index}", "qosControls": each} for index, each in enumerate(asked, 1)])


def test_limits_of_floating_addresses():
    needs = port_needs({"tabinet.io/address-limits": limits({"ingressBandwidth": 8000, "egressPacketRate": 9}, {"dscp": "AF11"}, {})}, "w")
    first, second = needs.address_qos
    assert (str(first.external), first.qos) == ("192.0.2.1/32", Qos(Limits(bandwidth_bit_s=8000), Limits(packets_per_s=9)))
    assert second.qos == Qos(dscp=10)
    assert needs.problems == ()


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", 0),
        ("[1]", 0),
        (limits({"ingressBandwidth": "much"}), 0),
        (limits({"ingressBandwidth": -1}), 0),
        (limits({"ingressMaxConnections": 3, "egressBurst": 9}), 0),
        (limits({"ingressPeakrate": 3000, "ingressBandwidth": 2000}), 1),
        (limits({"dscp": 99, "ingressBandwidth": 2000}), 1),
        (limits({"dscp": 9}).replace("192.0.2.1", "x"), 0),
        (limits({"dscp": 9}, {"dscp": 8}).replace("192.0.2.2", "192.0.2.1"), 1),
    ],
)
def test_limits_that_cannot_be_followed_are_left_out_and_reported(text: str, kept: int):
    needs = port_needs({"tabinet.io/address-limits": text}, "w")
    assert len(needs.address_qos) == kept
    [problem] = needs.problems
    assert problem.path.startswith("metadata.annotations.tabinet.io/address-limits")


def test_one_annotation_does_not_spoil_the_other():
    facts = '{"trunkParent": "tap1", "vlan": 7}'
    assert port_needs({"openstack.tabinet/port": facts, "tabinet.io/stateless": "true"}, "w").trunk == Trunk("tap1", 7)
    assert port_needs({"openstack.tabinet/port": "{", "tabinet.io/stateless": "true"}, "w").stateless
    assert port_needs({"a": "b"}, "w") is NOTHING

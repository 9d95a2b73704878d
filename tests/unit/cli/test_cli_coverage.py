"""Hosts are calculated with where they are few; what ``plan`` and ``verify`` do not calculate is named, floating addresses too."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cli_world import Tabinet, resource
from test_cli_explain_flow import DOCUMENTS, policy, workload

from tabinet.analysis.hosting import AT_MOST

INTERFACE = resource("HostEndpoint", "h1-eth0", labels={"role": "host"}, node="h1", interfaceName="eth0", expectedIPs=["192.168.1.1"])
WIDE = policy("db", "app == 'db'", [{"action": "Allow"}])


def on_hosts(**more: Any) -> dict[str, Any]:
    return resource("GlobalNetworkPolicy", "hosts", selector="role == 'host'", ingress=[{"action": "Allow", "protocol": "TCP"}], **more)


@pytest.fixture
def small(tabinet: Tabinet) -> Tabinet:
    assert tabinet("apply", "-f", "-", given=[*DOCUMENTS, INTERFACE]).code == 0
    return tabinet


@pytest.fixture
def filled(small: Tabinet) -> Tabinet:
    """With too many hosts to be told apart."""
    assert small("apply", "-f", "-", given=[resource("Node", f"more{number}") for number in range(AT_MOST)]).code == 0
    return small


def test_hosts_are_calculated_with_where_they_are_few(small: Tabinet) -> None:
    said = small("plan", "-f", "-", given=on_hosts())
    assert said.code == 11
    assert "NOT COVERED" not in said.out
    print(said.out)
    assert "host h1" in said.out
    assert small("apply", "-f", "-", given=on_hosts()).code == 0
    assert small("plan", "-f", "-", given=on_hosts()).code == 0
    assert small("plan", "-f", "-", "--delete", given=on_hosts()).code == 10
    reach = small("reach")
    print(reach.out)
    assert "host h1" in reach.out


def test_invariants_are_about_hosts_where_they_are_few(small: Tabinet) -> None:
    def reaching(port: int) -> dict[str, Any]:
        packets = [{"protocol": "TCP", "ports": [port]}]
        spec = {"always": {"from": {"nets": ["203.0.113.0/24"]}, "to": {"nets": ["192.168.1.1/32"]}, "packets": packets}}
        return {"apiVersion": "tabinet/v1", "kind": "Invariant", "metadata": {"name": "guarded"}, "spec": spec}

    assert small("verify", "-f", "-", given=reaching(22)).code == 0, "failsafe ports"
    said = small("verify", "-f", "-", given=reaching(80))
    print(said, small("explain", "203.0.113.1", "192.168.1.1", "--protocol", "tcp", "--port", "80"))
    assert (said.code, "flows of hosts themselves" in said.err) == (1, False)
    assert small("apply", "-f", "-", given=on_hosts()).code == 0
    assert small("verify", "-f", "-", given=reaching(80)).code == 0


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        ({}, "its host's own flows"),
        ({"applyOnForward": True}, "forwarded flows, its host's own flows"),
        ({"applyOnForward": True, "preDNAT": True, "types": ["Ingress"]}, "preDNAT"),
        ({"applyOnForward": True, "doNotTrack": True}, "doNotTrack"),
    ],
)
def test_a_change_of_host_endpoints_is_no_unchanged_fabric(filled: Tabinet, more: dict[str, Any], parts: str) -> None:
    said = filled("plan", "-f", "-", given=on_hosts(**more))
    assert said.code == 11
    assert f"not in here: HostEndpoint/h1-eth0 ({parts})\n" in said.out
    assert "no flow is opened or closed between workloads, or with the outside" in said.out
    assert filled("plan", "-f", "-", given=on_hosts(**more)).code == 11
    assert filled("apply", "-f", "-", given=on_hosts(**more)).code == 0
    assert filled("plan", "-f", "-", given=on_hosts(**more)).code == 0


def test_members_of_their_sets_and_profiles_count(filled: Tabinet) -> None:
    partners = resource("GlobalNetworkSet", "partners", labels={"role": "partner"}, nets=["203.0.113.0/25"])
    rule = {"action": "Allow", "source": {"selector": "role == 'partner'"}}
    assert filled("apply", "-f", "-", given=resource("GlobalNetworkPolicy", "hosts", selector="role == 'host'", ingress=[rule])).code == 0
    assert "NOT COVERED" in filled("plan", "-f", "-", given=partners).out
    moved = {**INTERFACE, "spec": {**INTERFACE["spec"], "profiles": ["open"]}}
    assert "HostEndpoint/h1-eth0 (its host's own flows)" in filled("plan", "-f", "-", given=moved).out
    assert filled("apply", "-f", "-", given=moved).code == 0
    profile = resource("Profile", "open", ingress=[], egress=[{"action": "Allow"}])
    assert "HostEndpoint/h1-eth0 (its host's own flows)" in filled("plan", "-f", "-", given=profile).out
    assert "NOT COVERED" in filled("plan", "-f", "-", "--delete", given=moved).out


def test_a_change_that_does_not_concern_them_is_covered(filled: Tabinet) -> None:
    assert filled("apply", "-f", "-", given=on_hosts(applyOnForward=True)).code == 0
    said = filled("plan", "-f", "-", given=WIDE)
    assert (said.code, "NOT COVERED" in said.out) == (11, False)
    assert "note: flows of hosts themselves, which host endpoints judge, are not in here: HostEndpoint/h1-eth0" in said.out
    assert "policy also judges flows that pass these, which is not in here: HostEndpoint/h1-eth0" in said.out
    assert "as the addresses behind them: 198.51.100.3" in said.out


def test_addresses_of_which_ports_are_forwarded_are_named(filled: Tabinet) -> None:
    """Of endpoints as well that are otherwise like others."""
    forward = {"externalIP": "198.51.100.9", "protocol": 6, "externalPort": 8080, "internalIP": "10.65.0.9", "internalPort": 80}
    twins = [workload(name, "h2", address) for name, address in (("web8", "10.65.0.8/32"), ("web9", "10.65.0.9/32"))]
    twins[1]["metadata"]["annotations"] = {"tabinet.io/port-forwards": json.dumps([forward])}
    assert filled("apply", "-f", "-", given=twins).code == 0
    assert "as the addresses behind them: 198.51.100.3, 198.51.100.9" in filled("plan", "-f", "-", given=WIDE).out


def test_verify_says_it_too(filled: Tabinet) -> None:
    invariant = {
        "apiVersion": "tabinet/v1",
        "kind": "Invariant",
        "metadata": {"name": "closed"},
        "spec": {"never": {"from": {"selector": "app == 'web'"}, "to": {"selector": "app == 'db'"}, "except": [{"protocol": "TCP"}]}},
    }
    said = filled("verify", "-f", "-", given=invariant)
    assert said.code == 0
    assert "note: flows of hosts themselves" in said.err
    assert "note: floating addresses" in said.err
    assert "passes" not in said.err

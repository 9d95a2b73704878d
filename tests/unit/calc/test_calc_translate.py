"""Rules that cannot be understood, wholly or in part: a Deny rule denies more, any other one matches nothing, and all is reported."""

from __future__ import annotations

import pytest
from calc_build import Fabric, endpoint, global_policy

from tabinet.calc.messages import ANY, Action, PortRange, Rule, Side
from tabinet.calc.translate import Translation, translate
from tabinet.lib.ip import parse_prefix
from tabinet.model import resources as written
from tabinet.model.resources import EntityRule, HttpMatch, IcmpMatch, ServiceMatch

SERVICE = EntityRule(services=ServiceMatch(name="dns", namespace="kube-system"))
BAD_SELECTOR = EntityRule(selector="app ==")


def one(action: str, **fields: object) -> tuple[tuple[Rule, ...], Translation]:
    translation = translate((), (written.Rule(action=action, **fields),), "", "GlobalNetworkPolicy/p")
    return translation.policy.egress, translation


BROKEN = [
    ("egress[0].destination.services", {"destination": SERVICE}),
    ("egress[0].source.services", {"source": SERVICE}),
    ("egress[0].destination selectors", {"destination": BAD_SELECTOR}),
    ("egress[0].source.notSelector", {"source": EntityRule(not_selector="app ==")}),
    ("egress[0].protocol", {"protocol": "nonsense"}),
    ("egress[0].notProtocol", {"not_protocol": "nonsense"}),
    ("egress[0].ipVersion", {"ip_version": 5}),
    ("egress[0].icmp", {"protocol": "ICMP", "icmp": IcmpMatch(code=1)}),
    ("egress[0].notICMP", {"protocol": "ICMP", "not_icmp": IcmpMatch(code=1)}),
    ("egress[0].http", {"protocol": "TCP", "http": HttpMatch(methods=("GET",))}),
    ("egress[0].destination.nets[0]", {"destination": EntityRule(nets=("300.0.0.1",))}),
    ("egress[0].destination.notNets[1]", {"destination": EntityRule(not_nets=("10.0.0.0/8", "x"))}),
    ("egress[0].destination.ports[0]", {"protocol": "ICMP", "destination": EntityRule(ports=("http",))}),
    ("egress[0].destination.notPorts[0]", {"protocol": "TCP", "destination": EntityRule(not_ports=("9:1",))}),
]


@pytest.mark.parametrize(("path", "fields"), BROKEN)
@pytest.mark.parametrize("action", ["Allow", "Pass", "Log"])
def test_others_match_nothing(action: str, path: str, fields: dict[str, object]) -> None:
    rules, translation = one(action, **fields)
    assert rules == ()
    assert translation.specs == {}
    assert [problem.path for problem in translation.problems] == [f"spec.{path}"]


@pytest.mark.parametrize(("path", "fields"), BROKEN)
def test_deny_denies_more(path: str, fields: dict[str, object]) -> None:
    (rule,), translation = one("Deny", **fields)
    assert rule.action is Action.DENY
    assert (rule.ip_version, rule.not_protocol, rule.icmp, rule.not_icmp, rule.source) == (None, None, None, None, ANY)
    kept = (parse_prefix("10.0.0.0/8"),) if "notNets" in path else ()
    assert rule.destination == Side(not_nets=kept)
    assert translation.specs == {}
    assert [problem.path for problem in translation.problems] == [f"spec.{path}"]


def test_part_of_a_list_of_which_any_may_match() -> None:
    entity = EntityRule(nets=("10.0.0.0/8", "x"), ports=(80, "9:1"))
    (allowed,), _ = one("Allow", protocol="TCP", destination=entity)
    assert allowed.destination == Side(nets=(parse_prefix("10.0.0.0/8"),), ports=(PortRange(80, 80),))
    (denied,), _ = one("Deny", protocol="TCP", destination=entity)
    assert denied.destination == ANY


def test_deny_with_an_unreadable_protocol_goes_without_ports() -> None:
    (rule,), _ = one("Deny", protocol="x", icmp=IcmpMatch(type=1), destination=EntityRule(nets=("10.0.0.0/8",), ports=(80,)))
    assert rule == Rule(Action.DENY, destination=Side(nets=(parse_prefix("10.0.0.0/8"),)))


def test_unknown_action_denies() -> None:
    (rule,), translation = one("Admit", protocol="TCP")
    assert rule == Rule(Action.DENY, protocol=6)
    assert [problem.path for problem in translation.problems] == ["spec.egress[0].action"]


def test_services_are_reported_with_what_they_do() -> None:
    fabric = Fabric()
    rules = (written.Rule(action="Deny", destination=SERVICE), written.Rule(action="Allow", destination=SERVICE))
    fabric.put(endpoint("web", "10.0.0.1/32"), global_policy("p", egress=rules))
    deny, allow = fabric.problems()
    assert "denies every address" in deny
    assert "matches nothing" in allow
    (policy,) = fabric.state.policies.values()
    assert policy.egress == (Rule(Action.DENY),)

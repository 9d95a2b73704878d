"""``tabinet verify``: invariants that hold, that are broken, that say nothing, and that are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from cli_world import Tabinet, resource
from test_cli_explain_flow import DOCUMENTS, policy, workload


def invariant(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "tabinet/v1", "kind": "Invariant", "metadata": {"name": name}, "spec": spec}


WEB, DB = {"selector": "app == 'web'"}, {"selector": "app == 'db'"}
TCP = {"protocol": "TCP", "ports": [5432, "6000:6010"]}
HOLD = {
    "only-database-ports": {"never": {"from": WEB, "to": DB, "except": [TCP]}},
    "databases-answer": {"always": {"from": WEB, "to": DB, "packets": [TCP]}},
    "nobody-outside-reaches-db": {"never": {"from": {"outside": True, "notNets": ["192.168.1.1"]}, "to": DB}},
    "partners-reach-web": {"always": {"from": {"nets": ["203.0.113.0/25"]}, "to": WEB}},
    "isolated-but-for": {"isolated": {"label": "app", "except": [TCP]}},
}
BROKEN = {
    "no-database": ({"never": {"from": WEB, "to": DB}}, "tcp 5432,6000-6010"),
    "everybody-pings": ({"always": {"from": WEB, "to": DB, "packets": [{"protocol": "ICMP"}]}}, "icmp"),
    "nobody-outside": ({"never": {"from": {"outside": True}, "to": DB}}, "net 192.168.1.1/32 -> app=db: tcp 443"),
    "isolated": ({"isolated": {"label": "app"}}, "app=web -> app=db"),
    "wide": ({"always": {"from": {"nets": ["203.0.0.0/16"]}, "to": WEB}}, "-> app=web"),
}


@pytest.fixture
def filled(tabinet: Tabinet) -> Tabinet:
    assert tabinet("apply", "-f", "-", given=DOCUMENTS).code == 0
    return tabinet


def test_what_holds(filled: Tabinet) -> None:
    said = filled("verify", "-f", "-", given=[invariant(name, **spec) for name, spec in HOLD.items()])
    assert said.code == 0, said.out + said.err
    assert [line.split()[:2] for line in said.out.splitlines()[:-1]] == [["holds", name] for name in HOLD]
    assert said.out.endswith("5 of 5 hold\n")


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_shown_with_a_packet(filled: Tabinet, name: str) -> None:
    spec, shown = BROKEN[name]
    said = filled("verify", "-f", "-", given=[invariant(name, **spec)])
    assert said.code == 1, said.err
    assert said.out.startswith(f"BROKEN  {name}")
    assert shown in said.out
    assert "such as" in said.out


def test_an_exception_by_policy(filled: Tabinet) -> None:
    said = filled("verify", "-f", "-", given=[invariant("i", isolated={"label": "app", "unlessPolicies": "exception == 'yes'"})])
    assert said.code == 1
    marked = policy("db", "app == 'db'", DOCUMENTS[8]["spec"]["ingress"])
    marked["metadata"]["labels"] = {"exception": "yes"}
    assert filled("apply", "-f", "-", given=[marked]).code == 0
    said = filled("verify", "-f", "-", given=[invariant("i", isolated={"label": "app", "unlessPolicies": "exception == 'yes'"})])
    assert said.code == 0, said.out


def test_vacuous_invariants_are_warned_about_and_fail_strictly(filled: Tabinet, tmp_path: Path) -> None:
    vacuous = invariant("v", never={"from": {"selector": "app == 'wbe'"}, "to": DB})
    said = filled("verify", "-f", "-", given=[vacuous])
    assert said.code == 0
    assert "it says nothing: nobody is meant by `from`" in said.out
    report = tmp_path / "junit.xml"
    assert (
        filled(
            "verify",
            "-f",
            "-",
            "--strict",
            "--junit",
            str(report),
            given=[vacuous, invariant("no", never=BROKEN["no-database"][0]["never"])],
        ).code
        == 1
    )
    suite = ElementTree.parse(report).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "2")
    assert [case.get("name") for case in suite] == ["v", "no"]


def test_a_policy_change_is_noticed(filled: Tabinet) -> None:
    statement = invariant("only-database-ports", **HOLD["only-database-ports"])
    assert filled("verify", "-f", "-", given=[statement]).code == 0
    assert filled("apply", "-f", "-", given=[policy("db", "app == 'db'", [{"action": "Allow"}])]).code == 0
    assert filled("verify", "-f", "-", given=[statement]).code == 1
    assert filled("apply", "-f", "-", given=[workload("db9", "h9", "10.65.0.99/32")]).code == 0
    said = filled("verify", "-f", "-", "--json", given=[statement])
    assert said.json[0]["breaches"][0]["destination_endpoints"] == 2


@pytest.mark.parametrize(
    ("document", "error"),
    [
        (invariant("x"), "must have one of never, always, isolated"),
        (invariant("x", never={"from": WEB}), "spec.never.to"),
        (invariant("x", never={"from": {"selector": "app = 1"}, "to": DB}), "spec.never.from.selector"),
        (invariant("x", never={"form": WEB, "from": WEB, "to": DB}), "did you mean from?"),
        (invariant("x", always={"from": {}, "to": DB}), "must have a selector, nets, or outside: true"),
        (invariant("x", never={"from": {"nets": ["10.0.0.0/99"]}, "to": DB}), "spec.never.from.nets[0]"),
        (invariant("x", never={"from": WEB, "to": DB, "except": [{"protocol": "ICMP", "ports": [3]}]}), "only with TCP, UDP or SCTP"),
        (resource("GlobalNetworkPolicy", "x"), "must be tabinet/v1, Invariant"),
    ],
)
def test_wrong_invariants_are_told_with_their_place(filled: Tabinet, document: dict[str, Any], error: str) -> None:
    said = filled("verify", "-f", "-", given=[document])
    assert said.code == 2
    assert error in said.err
    assert "standard input:1 document 1" in said.err


def test_what_is_not_proven_in_time_is_named(filled: Tabinet, tmp_path: Path) -> None:
    report = tmp_path / "junit.xml"
    given = [invariant(name, **spec) for name, spec in HOLD.items()]
    said = filled("verify", "-f", "-", "--timeout", "0", "--junit", str(report), given=given)
    assert said.code == 1
    assert said.out.endswith(f"0 of 5 hold; not known of 5: {', '.join(HOLD)}\n")
    assert ElementTree.parse(report).getroot().get("failures") == "5"
    assert filled("verify", "-f", "-", "--timeout", "600", given=given).code == 0

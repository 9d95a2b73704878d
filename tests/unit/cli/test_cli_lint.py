"""``tabinet lint``: what does nothing, and what looks mistyped."""

from __future__ import annotations

from typing import Any

import pytest
from cli_world import Tabinet, resource
from test_cli_explain_flow import DOCUMENTS, policy

WEB_TO_DB = {"action": "Allow", "protocol": "TCP", "source": {"selector": "app == 'web'"}, "destination": {"ports": [5432]}}
NARROW = {**WEB_TO_DB, "source": {"selector": "app in {'web'}"}}
PROFILE = resource("Profile", "open", ingress=[{"action": "Allow"}], egress=[{"action": "Allow"}, {"action": "Deny", "protocol": "UDP"}])


def rule(**sides: Any) -> dict[str, Any]:
    return {"action": "Allow", **sides}


CASES: dict[str, tuple[list[dict[str, Any]], list[tuple[str, str, str]]]] = {
    "empty selector": (
        [policy("db", "app == 'db'", [WEB_TO_DB, rule(source={"selector": "team == 'nobody'"})])],
        [("never-matches", "NetworkPolicy/shop/db spec.ingress[1]", "nobody is selected by")],
    ),
    "shadowed": (
        [policy("db", "app == 'db'", [WEB_TO_DB, NARROW])],
        [
            ("no-effect", "NetworkPolicy/shop/db spec.ingress[0]", "what follows"),
            ("shadowed", "NetworkPolicy/shop/db spec.ingress[1]", "taken by NetworkPolicy/shop/db spec.ingress[0]"),
        ],
    ),
    "deny before the end": (
        [policy("db", "app == 'db'", [WEB_TO_DB, {"action": "Deny", "protocol": "UDP"}])],
        [("no-effect", "NetworkPolicy/shop/db spec.ingress[1]", "the same verdict")],
    ),
    "nobody": (
        [policy("db", "app == 'db'", [WEB_TO_DB]), policy("old", "app == 'cache'", [WEB_TO_DB])],
        [("selects-nobody", "NetworkPolicy/shop/old", "")],
    ),
    "typos": (
        [policy("db", "app == 'db'", [WEB_TO_DB]), policy("web", "aqpp == 'web'", [])],
        [("selects-nobody", "NetworkPolicy/shop/web", ""), ("typo", "NetworkPolicy/shop/web", "did you mean 'app'?")],
    ),
    "twice": (
        [policy("db", "app == 'db'", [WEB_TO_DB]), policy("db2", "app == 'db'", [WEB_TO_DB])],
        [
            ("no-effect", "NetworkPolicy/shop/db", "without it every packet"),
            ("no-effect", "NetworkPolicy/shop/db spec.ingress[0]", "what follows"),
            ("no-effect", "NetworkPolicy/shop/db2", "without it every packet"),
            ("shadowed", "NetworkPolicy/shop/db2 spec.ingress[0]", "taken by NetworkPolicy/shop/db spec.ingress[0]"),
        ],
    ),
    "broad": (
        [policy("db", "app == 'db'", [WEB_TO_DB, rule(source={"nets": ["10.0.0.0/8", "172.16.0.0/12", "10.65.0.0/24", "10.64.0.0/15"]})])],
        [("broad", "NetworkPolicy/shop/db spec.ingress[1]", "of 10.0.0.0/8 there is only 10.65.0.0/16")],
    ),
    "broad in parts": (
        [
            policy("db", "app == 'db'", [WEB_TO_DB, rule(source={"nets": ["192.168.0.0/16"]}), rule(source={"nets": ["fd00::/8"]})]),
        ],
        [
            ("broad", "NetworkPolicy/shop/db spec.ingress[1]", "of 192.168.0.0/16 there is only 192.168.0.0/22"),
            ("broad", "NetworkPolicy/shop/db spec.ingress[2]", "of fd00::/8 there is only fd00::/25"),
        ],
    ),
    "value of a refusal": (
        [policy("db", "app == 'db'", [{**WEB_TO_DB, "source": {"selector": "app != 'wbe'"}}])],
        [("typo", "NetworkPolicy/shop/db spec.ingress[0]", "did you mean 'web'?")],
    ),
    "profile": (
        [policy("db", "app == 'db'", [WEB_TO_DB]), PROFILE],
        [("shadowed", "Profile/open spec.egress[1]", "taken by Profile/open spec.egress[0]")],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_findings(tabinet: Tabinet, name: str) -> None:
    documents, expected = CASES[name]
    base = [document for document in DOCUMENTS if document["kind"] != "NetworkPolicy"]
    assert tabinet("apply", "-f", "-", given=base).code == 0
    assert tabinet("apply", "-f", "-", given=documents).code == 0
    said = tabinet("lint", "--json")
    assert said.code == 1, said.err
    assert [(each["what"], each["where"]) for each in said.json] == [(what, where) for what, where, _ in expected]
    for each, (_, _, evidence) in zip(said.json, expected, strict=True):
        assert evidence in each["evidence"]
    assert "finding" in tabinet("lint").err


def test_nothing_to_find(tabinet: Tabinet) -> None:
    base = [document for document in DOCUMENTS if document["kind"] != "NetworkPolicy"]
    assert tabinet("apply", "-f", "-", given=[*base, policy("db", "app == 'db'", [WEB_TO_DB])]).code == 0
    said = tabinet("lint")
    assert (said.code, said.out) == (0, ""), said.out

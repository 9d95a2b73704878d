"""``tabinet plan``: what files would open and close, in words, with packets and exit codes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli_world import Tabinet, resource
from test_cli_explain_flow import DOCUMENTS, policy, workload

GOLDEN = Path(__file__).parents[2] / "golden" / "cli"
WEB_TO_DB = {"action": "Allow", "protocol": "TCP", "source": {"selector": "app == 'web'"}, "destination": {"ports": [5432]}}
PARTNERS = {"action": "Allow", "source": {"selector": "role == 'partner'", "namespaceSelector": "global()"}}
DNS = {"action": "Allow", "protocol": "UDP", "destination": {"ports": [53]}}
NO_PING = [{"action": "Deny", "protocol": "ICMP"}, {"action": "Allow"}]
TCP_OUT = {"selector": "app == 'web'", "types": ["Egress"], "egress": [{"action": "Allow", "protocol": "TCP"}]}
CASES = {
    "same": ([policy("web", "app == 'web'", [PARTNERS])], 0),
    "narrower": ([policy("db", "app == 'db'", [WEB_TO_DB])], 10),
    "wider": ([policy("db", "app == 'db'", [WEB_TO_DB, DNS])], 11),
    "first-egress": ([resource("GlobalNetworkPolicy", "out", **TCP_OUT)], 10),
    "new-endpoint": ([workload("web3", "h3", "10.65.0.33/32")], 11),
    "profile": ([resource("Profile", "open", ingress=[{"action": "Allow"}], egress=NO_PING)], 10),
}


@pytest.fixture
def filled(tabinet: Tabinet) -> Tabinet:
    assert tabinet("apply", "-f", "-", given=DOCUMENTS).code == 0
    return tabinet


@pytest.mark.parametrize("name", CASES)
def test_plans(filled: Tabinet, name: str, request: pytest.FixtureRequest) -> None:
    documents, code = CASES[name]
    before = filled("get", "all", "-A", "-o", "json").out
    said = filled("plan", "-f", "-", given=documents)
    path = GOLDEN / f"plan-{name}.txt"
    text = re.sub(r"\d+ rules \([+-]\d+\), \d+ elements \([+-]\d+\)", "... rules, ... elements", said.out)  # not this test's business
    if request.config.getoption("--update-golden"):
        path.write_text(text)
    assert text == path.read_text()
    assert said.code == code, said.err
    assert filled("get", "all", "-A", "-o", "json").out == before


def test_deleting_the_last_policy_opens(filled: Tabinet) -> None:
    said = filled("plan", "-f", "-", "--delete", "--json", given=[policy("db", "app == 'db'", [])])
    assert said.code == 11
    (turned,) = said.json["first_policies"]
    assert (turned["gets"], turned["direction"], turned["endpoints"]) == (False, "ingress", 1)


@pytest.mark.parametrize("name", [name for name, (_, code) in CASES.items() if code])
def test_witnesses_are_what_explain_says_before_and_after(filled: Tabinet, name: str) -> None:
    documents, _ = CASES[name]
    found = filled("plan", "-f", "-", "--json", given=documents).json
    assert found["opened"] or found["closed"]

    def verdicts(groups: list[dict[str, dict[str, object]]]) -> list[bool]:
        said = []
        for group in groups:
            packet = group["witness"]
            words = [str(packet["source"]), str(packet["destination"]), "-p", str(packet["protocol"])]
            if packet["protocol"] in (6, 17, 132):
                words += ["--port", str(packet["port"]), "--source-port", str(packet["source_port"])]
            said.append(filled("explain", *words, "--json").json["allowed"])
        return said

    # Errors and answers of ICMP begin no flow, so that explain has nothing to say of them.
    closed = [group for group in found["closed"] if group["witness"]["protocol"] not in (1, 58)]
    opened = [group for group in found["opened"] if group["witness"]["protocol"] not in (1, 58)]
    if name != "new-endpoint":
        assert not any(verdicts(opened))
    assert all(verdicts(closed))
    assert filled("apply", "-f", "-", given=documents).code == 0
    assert all(verdicts(opened))
    assert not any(verdicts(closed))


def test_what_it_costs(filled: Tabinet) -> None:
    documents, _ = CASES["narrower"]
    (host,) = filled("plan", "-f", "-", "--json", given=documents).json["hosts"]
    assert host["host"] == "h2"
    assert host["rules"][0] > host["rules"][1] > 50
    assert host["elements"][0] > host["elements"][1] > 5


def test_nothing_to_plan(filled: Tabinet) -> None:
    said = filled("plan")
    assert said.code == 2
    said = filled("plan", "-f", "-", given=[resource("GlobalNetworkPolicy", "x", selector="app = 'x'")])
    assert said.code == 2
    assert "spec.selector" in said.err


def test_what_is_not_known_in_time_may_open(filled: Tabinet) -> None:
    wider = policy("db", "app == 'db'", [{"action": "Allow"}])
    said = filled("plan", "-f", "-", "--timeout", "0", given=[wider])
    assert said.code == 11
    assert said.out.startswith("NOT ENUMERATED: the time given was over")

"""``apply --plan`` and ``apply --confirm``: nothing without consent, and everything as before when nobody confirms."""

from __future__ import annotations

import time

import pytest
from cli_world import Tabinet
from test_cli_explain_flow import DOCUMENTS, policy

WIDE = policy("db", "app == 'db'", [{"action": "Allow"}])
NEW = policy("more", "app == 'db'", [{"action": "Allow"}])
DEADLINE_S = 60.0


@pytest.fixture
def filled(tabinet: Tabinet) -> Tabinet:
    assert tabinet("apply", "-f", "-", given=DOCUMENTS).code == 0
    return tabinet


def policies(tabinet: Tabinet) -> list[tuple[str, object]]:
    items = tabinet("get", "np", "-A", "-o", "json").json["items"]
    return [(item["metadata"]["name"], item["spec"]) for item in items]


def test_what_is_not_confirmed_is_taken_back(filled: Tabinet) -> None:
    before = policies(filled)
    said = filled("apply", "-f", "-", "--confirm", "1s", given=[WIDE, NEW])
    assert (said.code, "unless you say: tabinet confirm" in said.err) == (0, True)
    deadline = time.monotonic() + DEADLINE_S
    while policies(filled) != before:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert filled("confirm").code == 1


def test_what_is_confirmed_stays(filled: Tabinet) -> None:
    before = policies(filled)
    assert filled("apply", "-f", "-", "--confirm", "1h", given=[WIDE, NEW]).code == 0
    assert filled("apply", "-f", "-", "--confirm", "1h", given=[WIDE]).code == 1
    assert filled("confirm").out == "confirmed\n"
    assert policies(filled) != before
    assert filled("confirm", "--roll-back").code == 1


def test_what_others_changed_since_is_left_alone(filled: Tabinet) -> None:
    before = policies(filled)
    assert filled("apply", "-f", "-", "--confirm", "1h", given=[WIDE, NEW]).code == 0
    assert filled("label", "np", "db", "-n", "shop", "seen=yes").code == 0
    said = filled("confirm", "--roll-back")
    assert "left alone, because others have changed it since" in said.out
    assert [name for name, _ in policies(filled)] == [name for name, _ in before]
    assert policies(filled) != before


def test_plan_is_shown_and_asked_for(filled: Tabinet) -> None:
    before = policies(filled)
    said = filled("apply", "-f", "-", "--plan", given=[WIDE])
    assert (said.code, "say --yes" in said.err) == (2, True)
    assert policies(filled) == before
    said = filled("apply", "-f", "-", "--plan", "--yes", given=[WIDE])
    assert (said.code, "OPENS" in said.err) == (0, True)
    assert policies(filled) != before


@pytest.mark.parametrize("text", ["5", "0s", "25h", "soon"])
def test_wrong_times(filled: Tabinet, text: str) -> None:
    assert filled("apply", "-f", "-", "--confirm", text, given=[WIDE]).code == 2

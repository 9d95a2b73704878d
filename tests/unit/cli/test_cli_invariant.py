"""Invariants that the store keeps: changes that would break one are refused, or forced and recorded."""

from __future__ import annotations

import pytest
from cli_world import Tabinet
from test_cli_explain_flow import DOCUMENTS, policy
from test_cli_verify import DB, HOLD, WEB, invariant

KEPT = [invariant(name, **spec) for name, spec in HOLD.items()]
WIDE = policy("db", "app == 'db'", [{"action": "Allow"}])
FROM_PARTNERS = {"action": "Allow", "protocol": "UDP", "source": {"nets": ["203.0.113.0/24"]}}
FINE = policy("web", "app == 'web'", [*DOCUMENTS[9]["spec"]["ingress"], FROM_PARTNERS])


@pytest.fixture
def guarded(tabinet: Tabinet) -> Tabinet:
    assert tabinet("apply", "-f", "-", given=DOCUMENTS).code == 0
    assert tabinet("invariant", "set", "-f", "-", given=KEPT).code == 0
    return tabinet


@pytest.mark.parametrize("command", ["apply", "replace"])
def test_what_would_break_one_is_refused(guarded: Tabinet, command: str) -> None:
    before = guarded("get", "np", "-A", "-o", "json").out
    said = guarded(command, "-f", "-", given=[WIDE])
    assert said.code == 2
    assert "invariant only-database-ports" in said.err
    assert "such as" in said.err
    assert "nothing was changed" in said.err
    assert guarded("get", "np", "-A", "-o", "json").out == before


def test_deleting_and_creating_too(guarded: Tabinet) -> None:
    said = guarded("delete", "np/shop/db")
    assert (said.code, "invariant only-database-ports" in said.err) == (2, True)
    assert guarded("create", "-f", "-", given=[policy("more", "app == 'db'", [{"action": "Allow"}])]).code == 2


def test_what_breaks_nothing_passes(guarded: Tabinet) -> None:
    assert guarded("apply", "-f", "-", given=[FINE]).code == 0
    assert guarded("apply", "-f", "-", given=DOCUMENTS).code == 0


def test_force_is_recorded(guarded: Tabinet) -> None:
    said = guarded("apply", "-f", "-", "--force", given=[WIDE])
    assert said.code == 0
    assert "broken and recorded: isolated-but-for, nobody-outside-reaches-db, only-database-ports" in said.err
    records = guarded("invariant", "overrides").out
    assert "apply" in records
    assert "NetworkPolicy/shop/db" in records
    assert guarded("verify").code == 1
    assert guarded("apply", "-f", "-", given=[FINE]).code == 0  # what is broken already hinders nobody


def test_kept_ones_are_verified_listed_and_deleted(guarded: Tabinet) -> None:
    assert guarded("verify").out.endswith("5 of 5 hold\n")
    assert "only-database-ports        never" in guarded("invariant", "list").out
    exported = guarded("invariant", "list", "-o", "yaml").out
    assert guarded("invariant", "delete", *HOLD).code == 0
    assert guarded("invariant", "delete", "isolated-but-for").code == 1
    assert guarded("verify").code == 2
    assert guarded("apply", "-f", "-", given=[WIDE]).code == 0
    assert guarded("invariant", "set", "-f", "-", given=exported).code == 0
    assert guarded("verify").code == 1


def test_wrong_ones_are_not_kept(guarded: Tabinet) -> None:
    assert guarded("invariant", "set", "-f", "-", given=[invariant("x")]).code == 2
    said = guarded("invariant", "set", "-f", "-", given=[invariant("Not/A Name", never={"from": WEB, "to": DB})])
    assert (said.code, "metadata.name" in said.err) == (2, True)

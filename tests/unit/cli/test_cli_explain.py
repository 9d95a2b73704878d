"""explain-kind: every kind can be explained, as text and as data."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_world import Tabinet

from tabinet.model.kinds import KINDS

GOLDEN = Path(__file__).parents[2] / "golden" / "cli" / "explain-tier.txt"


@pytest.fixture(autouse=True)
def width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "90")


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_every_kind(tabinet: Tabinet, kind: str) -> None:
    text = tabinet("explain-kind", kind.lower(), "--recursive")
    assert (text.code, text.err) == (0, "")
    data = tabinet("explain-kind", kind, "--json").json
    assert data["name"] == kind
    for field in data["fields"]:
        if field["name"] != "metadata":
            assert all(f"  {inner['name']}  <" in text.out for inner in field["fields"])
    example = tabinet("explain-kind", kind, "--example").out
    assert f"kind: {kind}" in example
    if not data["read_only"]:
        assert tabinet("validate", "-f", "-", given=example).code == 0


def test_text(tabinet: Tabinet, request: pytest.FixtureRequest) -> None:
    said = tabinet("explain-kind", "tier")
    if request.config.getoption("--update-golden"):
        GOLDEN.write_text(said.out)
    assert said.out == GOLDEN.read_text()
    assert max(map(len, said.out.splitlines())) <= 90


@pytest.mark.parametrize("words", ["gnp spec.ingress.source.nets", "gnp.spec.ingress.source.nets", "gnp spec.ingress[].source.nets"])
def test_a_field(tabinet: Tabinet, words: str) -> None:
    said = tabinet("explain-kind", *words.split())
    assert said.out.splitlines()[2] == "nets  <list: prefix>"
    assert tabinet("explain-kind", *words.split(), "--json").json["name"] == "nets"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("teir", "did you mean Tier?"),
        ("gnp spec.ingres", "did you mean spec.ingress?"),
        ("gnp specc", "did you mean spec?"),
        ("gnp spec.zzz", "there are: tier, order"),
        ("gnp spec.tier.zzz", "there are none below that"),
    ],
)
def test_what_there_is_not(tabinet: Tabinet, words: str, message: str) -> None:
    said = tabinet("explain-kind", *words.split())
    assert said.code == 2
    assert message in said.err

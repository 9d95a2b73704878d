"""``tabinet reach``: groups, matrix and pictures."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from cli_world import Tabinet
from test_cli_explain_flow import DOCUMENTS

GOLDEN = Path(__file__).parents[2] / "golden" / "cli"
CASES = {
    "all": [],
    "by-app": ["--by", "app", "app in {'web', 'db'}"],
    "web-to-db": ["app == 'web'", "app == 'db'"],
    "mermaid": ["--mermaid"],
    "dot": ["--dot"],
}


@pytest.fixture
def filled(tabinet: Tabinet) -> Tabinet:
    assert tabinet("apply", "-f", "-", given=DOCUMENTS).code == 0
    return tabinet


@pytest.mark.parametrize("name", CASES)
def test_matrix(filled: Tabinet, name: str, request: pytest.FixtureRequest) -> None:
    said = filled("reach", *CASES[name])
    assert said.code == 0, said.err
    path = GOLDEN / f"reach-{name}.txt"
    if request.config.getoption("--update-golden"):
        path.write_text(said.out)
    assert said.out == path.read_text()


def test_json_and_svg_say_the_same(filled: Tabinet, tmp_path: Path) -> None:
    file = tmp_path / "reach.svg"
    matrix = filled("reach", "--json", "--svg", str(file)).json
    titles = [title.text or "" for title in ElementTree.parse(file).getroot().iter("{http://www.w3.org/2000/svg}title")]
    assert len(titles) == len(matrix["groups"]) ** 2
    assert sum(not title.endswith(": nothing") for title in titles) == len(matrix["cells"])


def test_a_selector_of_nobody_and_no_selector(filled: Tabinet) -> None:
    said = filled("reach", "app == 'wbe'")
    assert (said.code, "a selector that selects a workload endpoint" in said.err) == (2, True)
    assert filled("reach", "app = 1").code == 2
    assert filled("reach", "--dot", "--mermaid").code == 2

"""What the systemd units run are commands and options that exist, and systemd can read the units."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from tabinet.cli.main import tabinet as root

DEPLOY = Path(__file__).parents[3] / "deploy"
PROGRAM = "/opt/tabinet/bin/tabinet"
UNITS = sorted(DEPLOY.glob("*.service"))


def commands(unit: Path) -> list[list[str]]:
    """Command lines of ours in the unit."""
    lines = [line.partition("=")[2] for line in unit.read_text().splitlines() if line.startswith("Exec")]
    return [words[1:] for words in map(shlex.split, lines) if words[0] == PROGRAM]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_what_a_unit_runs_is_a_command(unit: Path) -> None:
    for words in commands(unit):
        command: click.Command = root
        context = click.Context(root)
        while isinstance(command, click.Group):
            found = command.get_command(context, words[0])
            assert found is not None, words
            command, words = found, words[1:]
        command.make_context(command.name, list(words))


def test_the_units_are_seen() -> None:
    assert sum(len(commands(unit)) for unit in UNITS) == 3


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_knows_every_setting(unit: Path, tmp_path: Path) -> None:
    copy = tmp_path / unit.name
    # The programs are not installed where the tests run; whether they are is not what is asked.
    lines = ["ExecStart=/bin/true" if line.startswith("ExecStart=") else line for line in unit.read_text().splitlines()]
    copy.write_text("\n".join(line for line in lines if not line.startswith(("ExecReload", "ExecStop", "ExecStartPre"))) + "\n")
    said = subprocess.run(["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, timeout=60, check=False)
    complaints = [line for line in (said.stdout + said.stderr).splitlines() if unit.name in line and "not found" not in line]
    assert complaints == []

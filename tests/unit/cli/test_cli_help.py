"""What the commands say of themselves: help, the reference page, completion, wrong words, and what is imported for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from cli_world import Tabinet, resource

from tabinet.cli.main import tabinet as root
from tabinet.cli.reference import render_page
from tabinet.cli.roster import GROUPS

COMMANDS = [(name, text) for group in GROUPS.values() for name, (_, text) in group.items()]


@pytest.mark.parametrize(("name", "text"), COMMANDS)
def test_each_command_begins_with_the_text_of_the_list(name: str, text: str) -> None:
    command = root.get_command(click.Context(root), name)
    assert command is not None
    assert command.name == name
    assert (command.help or "").split("\n")[0] == text


def test_the_reference_page_is_what_the_commands_say() -> None:
    page = Path(__file__).parents[3] / "docs" / "cli.md"
    assert page.read_text() == render_page(), "run: python -m tabinet.cli.reference > docs/cli.md"


@pytest.mark.parametrize(
    ("words", "hint"), [("gett nodes", "did you mean 'get'?"), ("zzz", "see 'tabinet --help'"), ("get --lap x", "--lab")]
)
def test_wrong_words(tabinet: Tabinet, words: str, hint: str) -> None:
    said = tabinet(*words.split())
    assert said.code == 2
    assert hint in said.err


def test_help_imports_neither_asyncio_nor_msgspec_nor_grpc() -> None:
    heavy = ("asyncio", "msgspec", "grpc", "rich")
    code = f"import sys; from tabinet.cli.main import run; run(['--help']); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(tabinet: Tabinet, shell: str) -> None:
    said = tabinet("completion", shell)
    assert said.code == 0
    assert "_TABINET_COMPLETE" in said.out
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=said.out, text=True, check=False, timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["de"], {"delete", "demo"}),
        (["get", "ti"], {"tiers"}),
        (["get", "np,ti"], {"np,tiers"}),
        (["get", "tier", ""], {"one", "other"}),
        (["get", "tier", "one", "o"], {"other"}),
        (["delete", "tiers", "on"], {"one"}),
        (["label", "tier", "ot"], {"other"}),
        (["get", "np", "-n", "red", ""], {"inred"}),
        (["get", "np", "in"], set()),
        (["get", "nodez", ""], set()),
        (["completion", "b"], {"bash"}),
    ],
)
def test_what_is_offered(tabinet: Tabinet, words: list[str], offered: set[str]) -> None:
    from click.shell_completion import ShellComplete

    tabinet("apply", "-f", "-", given=[resource("Tier", "one"), resource("Tier", "other"), resource("NetworkPolicy", "inred", "red")])
    found = ShellComplete(root, {}, "tabinet", "_TABINET_COMPLETE").get_completions(words[:-1], words[-1])
    assert {item.value for item in found} == offered


def test_a_store_that_is_away_offers_nothing_and_says_nothing(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    from click.shell_completion import ShellComplete

    monkeypatch.setenv("TABINET_STORE_ENDPOINTS", "unix:///nowhere:0")
    assert ShellComplete(root, {}, "tabinet", "_TABINET_COMPLETE").get_completions(["get", "tier"], "") == []
    assert capfd.readouterr() == ("", "")

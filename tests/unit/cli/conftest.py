"""The command line as people use it: arguments in; exit code, standard output and standard error out. The store is a sqlite file."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
import yaml
from cli_world import Said, Tabinet

from tabinet.cli.main import run


@pytest.fixture
def tabinet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tabinet:
    """Runs ``tabinet ARGUMENTS``; ``given`` is standard input (documents are written as YAML)."""
    monkeypatch.setenv("TABINET_STORE_KIND", "sqlite")
    monkeypatch.setenv("TABINET_STORE_PATH", str(tmp_path / "store.db"))
    for name in ("TABINET_CONFIG", "TABINET_LAB"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: str, given: object = None) -> Said:
        text = given if isinstance(given, str) else yaml.safe_dump_all(given if isinstance(given, list) else [given])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        capsys.readouterr()
        code = run(arguments)
        return Said(code, *capsys.readouterr())

    return call

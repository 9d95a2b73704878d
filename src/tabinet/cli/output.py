"""How results are shown: rich tables to a terminal, plain aligned columns to a pipe, JSON and YAML for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import click


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "") -> None:
    """Prints a table: with rich on a terminal, else plain text with two spaces between the columns."""
    texts = [[str(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich import box
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        table = Table(*columns, box=box.SIMPLE_HEAD, title=title or None, title_justify="left")
        for row in texts:
            table.add_row(*(escape(cell) for cell in row))
        Console().print(table)
        return
    widths = [max(len(row[i]) for row in [list(columns), *texts]) for i in range(len(columns))]
    for row in [list(columns), *texts]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def show_json(value: object) -> None:
    """Prints JSON with two spaces of indentation."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def show_yaml(value: object) -> None:
    """Prints YAML, keys in their own order."""
    import yaml

    click.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), nl=False)


def fail(text: str) -> None:
    """Prints an error line on standard error."""
    click.echo(f"{click.style('error:', fg='red', bold=True)} {text}", err=True)


def note(text: str) -> None:
    """Prints a remark on standard error, where it does not disturb a pipe."""
    click.echo(text, err=True)

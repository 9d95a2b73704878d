"""How results are shown: tables, JSON and YAML on standard output; remarks and errors on standard error.

A pipe gets plain text, aligned with two spaces between the columns. A terminal gets the same with a bold head; rows that are too wide
for it are wrapped within their columns (by rich, which is imported only then: that takes as long as half of the other commands).
Control characters in what others wrote are never sent to a terminal.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterable, Sequence

import click

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "") -> None:
    """Prints a table."""
    texts = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
    terminal = sys.stdout.isatty()
    if terminal and sum(widths) + 2 * (len(widths) - 1) > shutil.get_terminal_size().columns:
        _show_wrapped(columns, texts, title)
        return
    if title and terminal:
        click.secho(title, italic=True)
    head, *body = (line(row, widths) for row in [columns, *texts])
    click.echo(click.style(head, bold=True) if terminal else head)
    for each in body:
        click.echo(each)


def line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """One line of a table."""
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _show_wrapped(columns: Sequence[str], texts: Sequence[Sequence[str]], title: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*columns, box=box.SIMPLE_HEAD, title=title or None, title_justify="left")
    for row in texts:
        table.add_row(*(escape(cell) for cell in row))
    Console().print(table)


def printable(text: str) -> str:
    """The text with control characters as escapes: what is in a store must not drive somebody's terminal."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def show_json(value: object) -> None:
    """Prints JSON with two spaces of indentation."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def show_yaml(value: object) -> None:
    """Prints YAML, keys in their own order."""
    click.echo(to_yaml([value]), nl=False)


def to_yaml(values: Iterable[object]) -> str:
    """The values as documents of one YAML text, keys in their own order."""
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump_all(values, Dumper=dumper, sort_keys=False, allow_unicode=True, width=120)
    return text


def show_outcomes(outcomes: Sequence[tuple[str, str]], *, as_json: bool, errors: Sequence[tuple[str, str]] = ()) -> None:
    """Says what was done with each resource, then what went wrong (resource and message)."""
    if as_json:
        done = [{"resource": name, "outcome": outcome} for name, outcome in outcomes]
        show_json(done + [{"resource": name, "outcome": "failed", "error": text} for name, text in errors])
    else:
        for name, outcome in outcomes:
            click.echo(printable(f"{name} {outcome}"))
    for _, text in errors:
        fail(text)


def fail(text: str) -> None:
    """Prints an error line on standard error."""
    click.echo(f"{click.style('error:', fg='red', bold=True)} {printable(text)}", err=True)


def note(text: str) -> None:
    """Prints a remark on standard error, where it does not disturb a pipe."""
    click.echo(text, err=True)

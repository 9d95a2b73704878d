"""``tabinet reach``: who reaches whom, as a matrix and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tabinet.cli.place import STORE_OPTIONS, Place

if TYPE_CHECKING:
    from tabinet.analysis.reach import Matrix
    from tabinet.selector import Selector

SHOWN = 40
"""Groups in the text; JSON and pictures have all."""


@click.command()
@click.argument("source", metavar="[SELECTOR", required=False)
@click.argument("destination", metavar="[SELECTOR]]", required=False)
@click.option("--by", metavar="LABEL", help="Group endpoints by the values of this label, instead of by what policy makes of them.")
@click.option("--svg", type=click.Path(dir_okay=False, writable=True), help="Draw the matrix into this file.")
@click.option("--mermaid", is_flag=True, help="Print a graph for Mermaid.")
@click.option("--dot", is_flag=True, help="Print a graph for Graphviz.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@STORE_OPTIONS
@click.pass_obj
def reach(
    place: Place, source: str | None, destination: str | None, by: str | None, svg: str | None, mermaid: bool, dot: bool, as_json: bool
) -> int:
    """Show who reaches whom: a matrix of groups and packets.

    Groups are as coarse as policy allows: all of a group send and receive alike. One SELECTOR: among those; two: from the first to the
    second; none: all endpoints, and addresses outside.

    \b
    tabinet reach                                 tabinet reach --by tenant --svg tenants.svg
    tabinet reach "app == 'web'" "app == 'db'"    tabinet reach --mermaid
    """
    import msgspec

    from tabinet.analysis.pictures import render_dot, render_mermaid, render_svg
    from tabinet.analysis.reach import find_reach
    from tabinet.analysis.situation import calculate
    from tabinet.cli.fabric_reading import options_reader, read_all
    from tabinet.cli.output import note, printable, show_json

    if mermaid + dot + as_json > 1:
        raise click.UsageError("--mermaid, --dot and --json exclude each other")
    ends = [read_selector(text, name) for text, name in ((source, "SOURCE"), (destination, "DESTINATION")) if text is not None]
    senders, receivers = (ends[0], ends[-1]) if ends else (None, None)
    matrix = find_reach(calculate(read_all(place)).situation, senders, receivers, by, options_reader(place))
    if svg:
        Path(svg).write_text(render_svg(matrix))
        note(f"{svg}: {len(matrix.groups)} groups")
    if as_json:
        show_json(msgspec.to_builtins(matrix))
    elif mermaid or dot:
        for line in render_mermaid(matrix) if mermaid else render_dot(matrix):
            click.echo(printable(line))
    elif not svg:
        show_matrix(matrix)
    return 0


def read_selector(text: str, argument: str) -> Selector:
    """The selector.

    Raises:
        InputError: it is none.
    """
    from tabinet.errors import InputError, Problem
    from tabinet.selector import SelectorError, parse

    try:
        return parse(text)
    except SelectorError as error:
        raise InputError([Problem(path=argument, value=text, allowed=str(error))]) from None


def show_matrix(matrix: Matrix) -> None:
    """Prints the groups, then rows that send and columns that receive."""
    from tabinet.analysis.pictures import packets_of
    from tabinet.cli.output import note, show_table

    groups = matrix.groups[:SHOWN]
    rows = [[number, group.endpoints or "-", group.name] for number, group in enumerate(groups, 1)]
    show_table(["GROUP", "ENDPOINTS", "WHO"], rows)
    click.echo()
    cells = {(cell.source, cell.destination): packets_of(cell) for cell in matrix.cells}
    numbers = range(len(groups))
    table = [[f"{row + 1} ->", *[cells.get((row, column), "-") for column in numbers]] for row in numbers]
    show_table(["FROM", *[f"TO {column + 1}" for column in numbers]], table)
    if len(matrix.groups) > SHOWN:
        note(f"and {len(matrix.groups) - SHOWN} more groups (--json has them)")

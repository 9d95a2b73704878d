"""``apply --plan`` and ``apply --confirm``: what happens between reading the files and writing the store."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tabinet.analysis.fabric import Resources
    from tabinet.analysis.situation import Changes
    from tabinet.cli.place import Place
    from tabinet.store.api import Datastore

_UNITS = {"s": 1, "m": 60, "h": 3600}
LONGEST_S = 86_400


class Duration(click.ParamType[float]):
    """A time such as 90s, 5m or 1h; seconds. (A subclass because that is click's own way to do it.)"""

    name = "time"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if not isinstance(value, str):
            return value
        found = re.fullmatch(r"(\d+)([smh])", value)
        seconds = int(found[1]) * _UNITS[found[2]] if found else 0
        if not 0 < seconds <= LONGEST_S:
            self.fail(f"{value!r} is not a time such as 90s, 5m or 1h, up to 24h", param, ctx)
        return float(seconds)


async def plan_and_ask(
    store: Datastore, place: Place, changes_of: Callable[[Resources], Changes], *, yes: bool, question: str = "Apply this?"
) -> None:
    """The plan was shown on standard error, and somebody agreed.

    Raises:
        click.UsageError: nobody can be asked.
        click.Abort: they did not agree.
    """
    from tabinet.cli.fabric_reading import options_reader, read_resources
    from tabinet.cli.output import note, printable
    from tabinet.cli.plan import plan_changes, render_plan

    if not yes and not sys.stdin.isatty():
        raise click.UsageError("--plan asks on a terminal, and this is none: say --yes, or use tabinet plan")
    resources = await read_resources(store)
    for line in render_plan(plan_changes(resources, changes_of(resources), options_reader(place))):
        note(printable(line))
    if not yes:
        click.confirm(question, abort=True, err=True)

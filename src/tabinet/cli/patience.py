"""``--timeout`` of commands that prove: how long they may look before they say what they know."""

from __future__ import annotations

import time
from collections.abc import Callable

import click

Expired = Callable[[], bool]
"""True once the time given is over."""

TIMEOUT = click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Stop to look for flows after so long; what is not known by then is said. Reading the store is not stopped.",
)


def unhurried() -> bool:
    """There is time without end."""
    return False


def expiry(timeout_s: float | None) -> Expired:
    """Whether so many seconds have passed since this call; None: they never do."""
    if timeout_s is None:
        return unhurried
    deadline = time.monotonic() + timeout_s
    return lambda: time.monotonic() >= deadline

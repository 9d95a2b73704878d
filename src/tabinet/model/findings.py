"""What a constraint is: a rule that involves several fields of one record, and what it finds wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class Finding(NamedTuple):
    """One thing wrong: where below the record (``egress[0].source``), what is there, what is allowed."""

    path: str
    value: Any
    allowed: str


class Constraint(NamedTuple):
    """A rule about a record of one type."""

    reads: tuple[str, ...]
    """What it looks at: dotted names on the wire, without indices."""
    check: Callable[[Any], Iterator[Finding]]
    stored: bool = False

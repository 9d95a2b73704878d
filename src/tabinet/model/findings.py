"""What a constraint is: a rule that involves several fields of one record, and what it finds wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class Finding(NamedTuple):
    """One thing wrong: where below the record (``egress[0].source``; empty: the record itself), what is there, what is allowed."""

    path: str
    value: Any
    allowed: str

    def below(self, path: str) -> str:
        """Where it is, for a record at ``path``."""
        return f"{path}.{self.path}" if path and self.path else path or self.path


class Constraint(NamedTuple):
    """A rule about a record of one type."""

    reads: tuple[str, ...]
    """What it looks at: dotted names on the wire, without indices."""
    check: Callable[[Any], Iterator[Finding]]
    stored: bool = False

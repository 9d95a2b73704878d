"""Invariants that the store keeps: ``/tabinet/v1/invariant/<name>``, the document; and what went against them:
``/tabinet/v1/override/<time>-<number>``, an ``Override``.

Tabinet's own keys; Calico's programs do not read below ``/tabinet/``. Pure.
"""

from __future__ import annotations

import re

import msgspec

from tabinet.errors import InputError, Problem

INVARIANTS = "/tabinet/v1/invariant/"
OVERRIDES = "/tabinet/v1/override/"
KEPT_OVERRIDES = 100
"""The latest so many records are kept."""
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


class Override(msgspec.Struct, frozen=True):
    """Somebody changed resources although an invariant broke."""

    when: str
    """RFC 3339, UTC."""
    who: str
    """User and machine, as the command saw them: not authenticated."""
    command: str
    broken: tuple[str, ...]
    """Names of the invariants."""
    resources: tuple[str, ...]


def invariant_path(name: str) -> str:
    """The key of an invariant.

    Raises:
        InputError: it cannot be a name in the store.
    """
    if not _NAME.fullmatch(name):
        allowed = "lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit"
        raise InputError([Problem(path="metadata.name", value=name, allowed=allowed)])
    return INVARIANTS + name

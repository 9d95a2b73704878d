"""Ports as policy rules write them: a number, a range ``"a:b"``, or the name of an endpoint's port."""

from __future__ import annotations

import re

import msgspec

ALLOWED = "allowed: a number from 1 to 65535, a range such as 1000:2000, or the name of a port"

_RANGE = re.compile(r"([0-9]{1,5}):([0-9]{1,5})")
_NUMBER = re.compile(r"[0-9]{1,5}")
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,128}")


class Ports(msgspec.Struct, frozen=True, order=True, gc=False):
    """Ports from ``first`` to ``last``, both included."""

    first: int
    last: int


class NamedPort(msgspec.Struct, frozen=True, order=True, gc=False):
    """The port that each endpoint calls ``name``."""

    name: str


def parse_port(value: int | str) -> Ports | NamedPort:
    """What an entry of ``ports`` or ``notPorts`` means. A text of digits only is a number, never a name.

    Raises:
        ValueError: out of range, a range that runs backwards, or not a name.
    """
    if isinstance(value, int):
        found = Ports(value, value)
    elif _NUMBER.fullmatch(value):
        found = Ports(int(value), int(value))
    elif limits := _RANGE.fullmatch(value):
        found = Ports(int(limits[1]), int(limits[2]))
    elif _NAME.fullmatch(value) and not value.isdigit():
        return NamedPort(value)
    else:
        raise ValueError(f"{value!r} is not a port; {ALLOWED}")
    # Port 0 begins some ranges ("0:1024"); alone it is no port.
    if not 0 <= found.first <= found.last <= 65535 or found.last == 0:
        raise ValueError(f"{value!r} is not a port; {ALLOWED}")
    return found

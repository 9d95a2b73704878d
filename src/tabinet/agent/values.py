"""Kinds of parameters: what their values look like in the file, in the environment and in FelixConfiguration, and how they are read.

``convert`` takes what any of the three gives and returns the value, or says what is allowed. Pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from tabinet.calc.messages import PortRange
from tabinet.lib.ip import IPV4, parse_address, parse_prefix
from tabinet.model.protocols import parse_protocol
from tabinet.rules.options import ProtoPort

Value = str | int | float | bool | tuple[str, ...]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s)")
_UNIT_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def convert(kind: str, value: object) -> Value:
    """The value that a parameter of this kind has when it is given like this.

    Raises:
        ValueError: with what is allowed.
    """
    if kind.startswith("one of: "):
        choices = kind.removeprefix("one of: ").split(", ")
        for choice in choices:
            if str(value).lower() == choice.lower():
                return choice
        raise ValueError(f"must be {kind}")
    return _CONVERTERS[kind](value)


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise ValueError("must be a text")


def _integer(value: object) -> int:
    try:
        number = int(value) if isinstance(value, str | int) and not isinstance(value, bool) else -1
    except ValueError:
        number = -1
    if number < 0:
        raise ValueError("must be a whole number, 0 or more")
    return number


def _pattern(value: object) -> str:
    text = _text(value)
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"must be a regular expression ({error})") from None
    return text


def _seconds(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0:
        return float(value)
    if isinstance(value, str):
        parts = _DURATION.findall(value)
        if parts and "".join(number + unit for number, unit in parts) == value:
            return sum(float(number) * _UNIT_S[unit] for number, unit in parts)
        if re.fullmatch(r"\d+(\.\d+)?", value):
            return float(value)
    raise ValueError("must be a number of seconds, or a duration such as 30s or 1m30s")


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).lower()
    if text in ("true", "1", "yes", "y", "t"):
        return True
    if text in ("false", "0", "no", "n", "f"):
        return False
    raise ValueError("must be true or false")


def parse_failsafe(text: str) -> ProtoPort:
    """The port that ``protocol:port`` or ``protocol:net:port`` names, as Felix writes them.

    Raises:
        ValueError: it names none.
    """
    protocol, _, rest = text.strip().partition(":")
    net, _, port = rest.rpartition(":")
    number = parse_protocol(protocol)
    if not port.isdigit() or not 0 < int(port) <= 65535:
        raise ValueError(f"{text!r} is no port such as tcp:22 or udp:10.0.0.0/8:53")
    return ProtoPort(number, int(port), parse_prefix(net.strip("[]")) if net else None)


def _ports(value: object) -> tuple[str, ...]:
    """Texts as ``parse_failsafe`` reads them; FelixConfiguration writes records, Felix's environment ``none`` for no port at all."""
    if value == "none" or value == [] or value == ["none"]:
        return ()
    items = value if isinstance(value, list | tuple) else _list(value)
    texts = []
    for item in items:
        if isinstance(item, dict):
            net = f"{item['net']}:" if item.get("net") else ""
            item = f"{item.get('protocol', 'tcp')}:{net}{item.get('port', '')}"
        parse_failsafe(str(item))
        texts.append(str(item).strip())
    return tuple(texts)


def parse_port_range(text: str) -> PortRange | None:
    """The range that ``first:last``, or a single number, names; None for an empty text.

    Raises:
        ValueError: it names none.
    """
    if not text:
        return None
    first, _, last = text.partition(":")
    last = last or first
    if not (first.isdigit() and last.isdigit() and 0 < int(first) <= int(last) <= 65535):
        raise ValueError("must be a port, or first:last, from 1 to 65535")
    return PortRange(int(first), int(last))


def _address(value: object) -> str:
    if value not in ("", "Auto"):
        parse_address(str(value))
    return "" if value == "Auto" else str(value)


def _metadata_address(value: object) -> str:
    text = str(value).lower()
    if text not in ("", "none") and parse_address(text).family != IPV4:
        raise ValueError("must be an IPv4 address, or none")
    return text or "none"


def _port_range(value: object) -> str:
    text = str(value)
    parse_port_range(text)
    return text


def _list(value: object) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if isinstance(items, list | tuple):
        texts = [str(item).strip() for item in items]
        if texts and all(texts):
            return tuple(texts)
    raise ValueError("must be a list of texts, or one text with commas; not empty")


def _addresses(value: object) -> tuple[str, ...]:
    """Addresses; an empty text for none."""
    texts = () if value == "" or value == [] else _list(value)
    for text in texts:
        parse_address(text)
    return texts


_CONVERTERS: dict[str, Callable[[object], Value]] = {
    "text": _text,
    "pattern": _pattern,
    "integer": _integer,
    "milliseconds": _integer,
    "seconds": _seconds,
    "switch": _switch,
    "list": _list,
    "addresses": _addresses,
    "ports": _ports,
    "port range": _port_range,
    "address": _address,
    "metadata address": _metadata_address,
}

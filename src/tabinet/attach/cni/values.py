"""Values as people write them in annotations and arguments: quantities, lists of addresses, labels. Pure.

Each function says in its error which key had which value and what is allowed there. Source: Kubernetes' quantities (``1M``, ``10Ki``),
Calico's annotations, the CNI conventions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal

import msgspec

from tabinet.attach.cni.protocol import Code
from tabinet.errors import CniError
from tabinet.lib.ip import Prefix, parse_prefix

_QUANTITY = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?)(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?")
_FACTORS = {None: 1} | {name: 1000**power for power, name in enumerate("kMGTP", 1)} | {f"{n}i": 1024**p for p, n in enumerate("KMGTP", 1)}
_SWITCHES = {"true": True, "false": False}


def wrong(key: str, value: object, allowed: str, code: Code = Code.CONFIG) -> CniError:
    """The error of a value that is not allowed."""
    return CniError(code, f"{key}: got {_shown(value)}; {allowed}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def parse_switch(key: str, value: object, default: bool) -> bool:
    """A truth value, also in quotes, as Calico's ``assign_ipv4`` has it.

    Raises:
        CniError: something else.
    """
    if value is None:
        return default
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _SWITCHES:
        return _SWITCHES[value.lower()]
    raise wrong(key, value, "true or false")


def parse_quantity(key: str, value: str) -> int:
    """A whole number with a suffix, such as ``10M`` or ``1Ki``.

    Raises:
        CniError: something else.
    """
    match = _QUANTITY.fullmatch(value)
    number = Decimal(match[1]) * _FACTORS[match[2]] if match else Decimal("0.5")
    if number != int(number):
        raise wrong(key, value, "a whole number, with or without k, M, G, T, P, Ki, Mi, Gi, Ti or Pi")
    return int(number)


def parse_addresses(key: str, values: Iterable[object]) -> tuple[Prefix, ...]:
    """Single addresses; a prefix length behind one does not count.

    Raises:
        CniError: something else.
    """
    addresses = []
    for value in values:
        try:
            address = parse_prefix(str(value).partition("/")[0])
        except ValueError:
            raise wrong(key, value, "an IPv4 or IPv6 address") from None
        addresses.append(address)
    return tuple(dict.fromkeys(addresses))


def parse_list(key: str, text: str) -> tuple[str, ...]:
    """A JSON list of texts, as Calico's annotations have it, or texts separated by commas.

    Raises:
        CniError: JSON of another kind.
    """
    if not text.lstrip().startswith("["):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    try:
        return msgspec.json.decode(text, type=tuple[str, ...])
    except msgspec.DecodeError:
        raise wrong(key, text, 'a JSON list of texts, such as ["10.0.0.1"]') from None


def parse_labels(key: str, text: str) -> dict[str, str]:
    """``key=value`` pairs separated by commas.

    Raises:
        CniError: a part is none.
    """
    labels = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, found, value = part.partition("=")
        if not found or not name:
            raise wrong(key, part, "key=value, separated by commas", Code.ENVIRONMENT)
        labels[name] = value
    return labels


def named(values: Mapping[str, object], names: Iterable[str]) -> str:
    """The first of the names that has a value; empty: none."""
    return next((name for name in names if values.get(name)), "")

"""Limits of an endpoint (``qosControls``) as people write them: ``egressBandwidth=10M``. Pure.

In: words, and what to call the place where they stand. Out: ``QosControls``, or everything that is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tabinet.attach.cni.values import parse_quantity
from tabinet.errors import CniError, InputError, Problem
from tabinet.model.resources import QosControls


def parse_limits(words: Iterable[str], place: str) -> QosControls | None:
    """The limits that the words (``FIELD=VALUE``) say; None: they say nothing.

    Raises:
        InputError: not the name of a limit, or no value for it; says everything that is wrong.
    """
    known = QosControls.__struct_encode_fields__
    found: dict[str, int | str] = {}
    problems = []
    for word in words:
        field, _, value = word.partition("=")
        if field not in known:
            problems.append(Problem(path=place, value=repr(word), allowed=f"FIELD=VALUE, the field one of {', '.join(known)}"))
            continue
        try:
            found[field] = value if field == "dscp" else parse_quantity(f"{place} {field}", value)
            msgspec.convert({field: found[field]}, QosControls)
        except (CniError, msgspec.ValidationError):
            problems.append(
                Problem(path=f"{place} {field}", value=repr(value), allowed="a number with or without k, M, G, in the limit's range")
            )
    if problems:
        raise InputError(problems)
    return msgspec.convert(found, QosControls) if found else None

"""What passes through single floating addresses of an endpoint: the annotation ``tabinet.io/address-limits`` and its codec.

In and out: a list in JSON. ``parse_address_limits(render_address_limits(limits)) == limits`` for limits in order. Pure; linear in the size
of the text.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tabinet.errors import DataError, Problem
from tabinet.model.annotations import ADDRESS_LIMITS
from tabinet.model.records.endpoints import QosControls


class AddressLimits(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The limits of one floating address, for all that goes to it and comes from it together."""

    external_ip: str = msgspec.field(name="externalIP")
    qos_controls: QosControls
    """As of an endpoint: ingress is to the workload. Bandwidth, packet rate and code point count."""


def render_address_limits(limits: Iterable[AddressLimits]) -> str:
    """The annotation's text; equal limits give equal texts."""
    return msgspec.json.encode(sorted(limits, key=lambda each: each.external_ip)).decode()


def parse_address_limits(text: str, source: str = "") -> tuple[AddressLimits, ...]:
    """The limits.

    Raises:
        DataError: the text is no such annotation; ``source`` is named in it.
    """
    try:
        return msgspec.json.decode(text, type=tuple[AddressLimits, ...])
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        path = f"metadata.annotations.{ADDRESS_LIMITS}"
        raise DataError(source, [Problem(path=path, value=repr(text)[:80], allowed=f"limits of floating addresses: {error}")]) from None

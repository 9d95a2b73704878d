"""Ports of addresses outside that lead to ports of an endpoint: the annotation ``tabinet.io/port-forwards`` and its codec.

An address of which ports lead to endpoints on several hosts is announced by one of them, its home. The endpoints elsewhere name it
(``home``), and an endpoint at home names those ports with their hosts (``node``).

In and out: a list in JSON. ``parse_forwards(render_forwards(forwards)) == forwards``. Pure; linear in the size of the text.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from tabinet.errors import DataError, Problem
from tabinet.model.annotations import PORT_FORWARDS

_Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
_Protocol = Annotated[int, msgspec.Meta(ge=0, le=255)]


class PortForward(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False, order=True):
    """A range of ports outside, and the range of the same length that it leads to."""

    external_ip: str = msgspec.field(name="externalIP")
    protocol: _Protocol
    """Number."""
    external_port: _Port
    """The first."""
    internal_ip: str = msgspec.field(name="internalIP")
    """One of the endpoint's addresses, or of one on ``node``."""
    internal_port: _Port
    count: _Port = 1
    """How many ports."""
    home: str = ""
    """The host that announces the address, and passes on what is for this endpoint; empty: the endpoint's own."""
    node: str = ""
    """The host of the endpoint that these ports lead to; empty: it is this endpoint."""
    host: bool = False
    """The address outside is one of the endpoint's host, which has it in any case."""


def render_forwards(forwards: tuple[PortForward, ...]) -> str:
    """The annotation's text; equal forwards give equal texts."""
    return msgspec.json.encode(sorted(forwards)).decode()


def parse_forwards(text: str, source: str = "") -> tuple[PortForward, ...]:
    """The forwards.

    Raises:
        DataError: the text is no such annotation; ``source`` is named in it.
    """
    try:
        return msgspec.json.decode(text, type=tuple[PortForward, ...])
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        path = f"metadata.annotations.{PORT_FORWARDS}"
        raise DataError(source, [Problem(path=path, value=repr(text)[:80], allowed=f"forwards of ports: {error}")]) from None

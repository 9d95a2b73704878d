"""Flows that a host must not lose: the operator's session, the store, its BGP peers.

In: a fabric as it would be, flows between the host and others. Out: those that it would deny, each with its explanation. What is
established goes on for as long as it is tracked, but comes back only if a new connection may begin, so that is what is asked. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tabinet.analysis.explain import Explanation, explain
from tabinet.analysis.fabric import Fabric, Place
from tabinet.analysis.way import Question
from tabinet.lib.ip import Prefix
from tabinet.model.protocols import TCP


class Lifeline(msgspec.Struct, frozen=True, kw_only=True):
    """A TCP connection that the host needs."""

    what: str
    """In words, as in ``the store at 10.0.0.1``."""
    local: Prefix
    remote: Prefix
    port: int
    """Of whoever accepts the connection."""
    inbound: bool = False
    """The other side begins it."""


def find_denied(fabric: Fabric, host: str, lifelines: Iterable[Lifeline]) -> list[tuple[Lifeline, Explanation]]:
    """The lifelines that the fabric denies, with why."""
    denied = []
    for line in lifelines:
        here = Place(line.local, "host", host)
        there = fabric.places_of(line.remote)[0]
        source, destination = (there, here) if line.inbound else (here, there)
        found = explain(fabric, Question(source=source, destination=destination, protocol=TCP, destination_port=line.port))
        if not found.allowed:
            denied.append((line, found))
    return denied

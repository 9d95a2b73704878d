"""What a host's agent says about itself: ``/tabinet/v1/host/<host>/report``, under the host's lease, so that it goes with the agent.

Tabinet's own key; Calico's programs do not read below ``/tabinet/``. ``tabinet status`` shows these records.
"""

from __future__ import annotations

import msgspec

PREFIX = "/tabinet/v1/host/"


class SessionReport(msgspec.Struct, frozen=True, gc=False):
    """A BGP session as BIRD sees it."""

    name: str
    peer: str
    state: str
    """``up`` or ``down``."""
    reason: str = ""
    """Why it is down, in words."""
    since: str = ""
    imported: int = 0
    exported: int = 0


class EndpointTrouble(msgspec.Struct, frozen=True, gc=False):
    """An endpoint that is not ready."""

    endpoint: str
    reason: str


class HostReport(msgspec.Struct, frozen=True, gc=False):
    """State of one host."""

    host: str
    version: str
    started: str
    """RFC 3339, UTC."""
    revision: int
    """Store revision that the kernel holds; up to 5 s old when nothing else changes."""
    in_sync: bool
    endpoints_ready: int
    endpoints_waiting: int
    troubles: tuple[EndpointTrouble, ...] = ()
    """At most 20."""
    sessions: tuple[SessionReport, ...] = ()
    bird: str = ""
    """Empty: all well. Else why BIRD does not do what it should."""
    problems: tuple[str, ...] = ()
    """Broken resources that this host met; at most 20."""
    kernel: str = ""
    """Empty: all well. Else why the kernel does not hold what it should."""


def report_path(host: str) -> str:
    """The key of a host's report."""
    return f"{PREFIX}{host}/report"

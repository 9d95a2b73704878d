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
    """Since when it is in its state, in the host's local time."""
    imported: int = 0
    """Routes taken from the peer, all families."""
    exported: int = 0
    """Routes told to the peer, all families."""
    address: str = ""
    """Of the peer; empty where it is not known."""
    peer_as: int = 0
    """AS number of the peer; 0 where it is not known."""
    origin: str = ""
    """``mesh``, ``node`` (a BGPPeer that names the host), ``global`` (any other), or ``workload``."""
    resource: str = ""
    """Which resource asks for the session, as in ``BGPPeer/rack-1``; empty where that is not known."""
    bgp_state: str = ""
    """State of RFC 4271: Idle, Connect, Active, OpenSent, OpenConfirm, Established; Down when it cannot be run."""
    last_error: str = ""
    """What BIRD saw last; it stays after the session has come back."""
    bfd: str = ""
    """State of BFD with the peer: Up, Down, Init, AdminDown; empty without."""
    bfd_interval_ms: int = 0
    """Between BFD packets, as both sides agreed; 0 without BFD."""
    bfd_timeout_ms: int = 0
    """After this silence the path is dead; 0 without BFD."""
    filtered: int = 0
    """Routes of the peer that were refused."""
    preferred: int = 0
    """Routes of the peer that are the best."""


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
    bird_version: str = ""
    router_id: str = ""
    bird_started: str = ""
    """When BIRD was started, in the host's local time."""
    bird_configured: str = ""
    """When BIRD last read its configuration, in the host's local time."""
    as_number: int = 0
    """Of the host; 0: it takes no part in BGP."""
    drain: str = ""
    """How far BIRD has drained the host: empty, ``true`` (graceful shutdown) or ``withdrawn``."""
    workload_mtu: int = 0
    """The largest packet that workloads here can send wherever it goes, in bytes; 0 when no tunnel limits it."""


def report_path(host: str) -> str:
    """The key of a host's report."""
    return f"{PREFIX}{host}/report"

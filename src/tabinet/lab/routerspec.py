"""What a lab router is (``RouterSpec``), and what running one takes (``RouterFile``, ``Command``): records only.

Invariants: addresses are host prefixes of the right family; names are those of the topology file. Nothing is computed here.
"""

from __future__ import annotations

import enum

import msgspec

from tabinet.lib.ip import Prefix


class Software(enum.Enum):
    """Which routing daemon a router runs."""

    BIRD = "bird"
    FRR = "frr"
    NONE = "none"
    """None: it forwards between the subnets that it is in, and learns nothing from anybody."""


class NeighbourSpec(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One link of a router and the BGP speaker at its far end. A family whose two addresses are ``None`` gets no session.

    On an unnumbered link there is one session for both families, with whoever is at the far end (RFC 8950); only FRR can do that.
    """

    interface: str
    """The router's own interface."""
    peer_name: str
    """Node at the far end, as in the topology; used for names and descriptions only."""
    peer_as: int
    """1 to 4294967295."""
    local4: Prefix | None = None
    """The router's address on the link, as a host prefix; on the link it has length 31."""
    peer4: Prefix | None = None
    local6: Prefix | None = None
    """As ``local4``; on the link it has length 127."""
    peer6: Prefix | None = None
    is_host: bool = False
    """The far end is a host: only ``host_prefixes`` are accepted from it."""
    unnumbered: bool = False


class RouterSpec(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """All that the configuration of a lab router says."""

    name: str
    as_number: int
    router_id: str
    """Dotted quad, unique in the fabric."""
    loopbacks: tuple[Prefix, ...] = ()
    """Host prefixes on ``lo``, announced to every neighbour."""
    neighbours: tuple[NeighbourSpec, ...] = ()
    software: Software = Software.BIRD
    host_prefixes: tuple[Prefix, ...] = ()
    """What hosts may announce: anything inside these (IP pools, and the range of the hosts' own addresses)."""
    bfd_interval_ms: int = 150
    """Both directions; 0 runs no BFD."""
    bfd_multiplier: int = 5
    """A neighbour that is silent for this many intervals is dead."""
    keepalive_time_s: int = 3
    hold_time_s: int = 9
    restart_time_s: int = 120
    """How long neighbours keep this router's routes while its daemon is away (RFC 4724)."""
    recovery_time_s: int = 6
    """How long a BIRD that comes back from a planned restart keeps the routes it found in the kernel."""
    route_limit: int = 20_000
    """Routes accepted from one neighbour and family."""


class RouterFile(msgspec.Struct, frozen=True, gc=False):
    """A file to be written into the router's directory."""

    name: str
    """Without directories."""
    text: str


class Command(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One daemon of a router, to be run inside its namespace; it stays in the foreground and logs to its standard output or error."""

    name: str
    """``bird``, ``zebra``, ``bfdd`` or ``bgpd``."""
    argv: tuple[str, ...]
    restart_argv: tuple[str, ...]
    """The same for coming back from a planned restart: stale routes are kept until the neighbours have told theirs again."""
    socket: str
    """Unix stream socket that accepts connections as soon as the daemon is ready (``is_ready``)."""

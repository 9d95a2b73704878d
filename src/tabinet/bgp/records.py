"""What BGP on a host is rendered from, beside the intent, and what it reports: records only.

``BgpIntent`` and ``PeerIntent`` come from ``calc.messages``; here are the facts of the machine (``HostFacts``), the operator's choices
(``BgpOptions``) and the state of a session (``SessionStatus``). All times are seconds unless the name says otherwise.
"""

from __future__ import annotations

import enum

import msgspec

from tabinet.lib.ip import Prefix

ROUTE_PROTOCOL = 84
"""rtm_protocol of the routes to local workloads (rtnetlink(7)): BIRD learns these and no others."""


REMOTE_PROTOCOL = 85
"""rtm_protocol of the agent's routes to other hosts' workloads: none of BIRD's business."""

RECOVERY = "tb_recovery"
"""A session of BIRD that is none: see ``render``."""


class InterfaceAddress(msgspec.Struct, frozen=True, order=True, gc=False):
    """An address on an interface of the host, with the length of its subnet."""

    interface: str
    address: Prefix
    """As a host prefix."""
    length: int
    """Length of the connected subnet, as in ``ip address``; 32 or 128 on a loopback."""

    @property
    def subnet(self) -> Prefix:
        """The connected subnet."""
        shift = self.address.bits - self.length
        return Prefix(self.address.family, self.address.value >> shift << shift, self.length)


class LinkPeer(msgspec.Struct, frozen=True, order=True, gc=False):
    """Who is at the other end of an interface."""

    interface: str
    address: Prefix | None
    """Its link-local address; ``None``: not known."""
    problem: str = ""
    """Why not, in words."""


class Secret(msgspec.Struct, frozen=True, order=True, gc=False):
    """A password as it was found on this host."""

    name: str
    key: str
    value: str = ""
    found: bool = False
    problem: str = ""
    """Why it was not found, in words."""


class HostFacts(msgspec.Struct, frozen=True, gc=False):
    """What the machine looks like to BGP."""

    addresses: tuple[InterfaceAddress, ...] = ()
    """Of its interfaces, ``lo`` included, interfaces of workloads left out."""
    neighbours: tuple[LinkPeer, ...] = ()
    """At the interfaces of unnumbered sessions."""
    secrets: tuple[Secret, ...] = ()
    """Those that sessions need."""


class BgpOptions(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Choices of the operator that no resource carries. The defaults suit a host under two top-of-rack switches."""

    bfd_interval_ms: int = 100
    """Wanted between BFD packets in both directions (RFC 5880); raise it where many hosts share few cores."""
    bfd_multiplier: int = 3
    """A peer that is silent for this many intervals is dead."""
    mesh_bfd_interval_ms: int = 250
    """The same for other hosts of the cluster, of which there can be many; where ``bfd_interval_ms`` is longer, that counts."""
    external_keepalive_time_s: int = 3
    """For peers of another AS that do not say otherwise; the hold time is three times that (RFC 4271 section 10)."""
    internal_keepalive_time_s: int = 10
    """The same for peers of our own AS: a mesh has many of them, and none is the only way out."""
    restart_time_s: int = 120
    """How long peers keep our routes while BIRD restarts (RFC 4724), when the peer does not say otherwise."""
    recovery_time_s: int = 6
    """How long a BIRD that comes back from a planned restart keeps the routes that it found in the kernel, and installs no others."""
    import_limit: int = 100_000
    """Routes accepted in one session; more of them restart the session."""
    route_metric: int = 32
    """Of routes in the kernel where resources do not say otherwise: differs from the 0 and 1024 of routes that people add."""
    multipath_limit: int = 16
    """Equal-cost next hops installed for one prefix."""
    kernel_scan_time_s: int = 20
    """How often BIRD compares its routes with the kernel's."""
    netlink_buffer_bytes: int = 16_000_000
    """Receive buffer for route changes: with the default, a burst of thousands is seen only at the next scan."""


class Channel(msgspec.Struct, frozen=True, gc=False):
    """Routes of one family in a session."""

    family: int
    """4 or 6."""
    imported: int
    filtered: int
    """Received, and refused by our import filter."""
    exported: int
    preferred: int
    """Imported, and the best for their prefix."""


class SessionState(enum.Enum):
    """States of RFC 4271 section 8.2.2, and DOWN for a session that BIRD does not run."""

    DOWN = "Down"
    IDLE = "Idle"
    CONNECT = "Connect"
    ACTIVE = "Active"
    OPEN_SENT = "OpenSent"
    OPEN_CONFIRM = "OpenConfirm"
    ESTABLISHED = "Established"
    CLOSED = "Close"
    PASSIVE = "Passive"


class Origin(enum.Enum):
    """Why a host has a session."""

    MESH = "mesh"
    NODE = "node"
    """From a BGPPeer that names the host."""
    GLOBAL = "global"
    """From a BGPPeer for several hosts."""
    WORKLOAD = "workload"


class SessionStatus(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One BGP session as BIRD sees it."""

    name: str
    """Of BIRD's protocol."""
    peer: str
    """Name of the peer in the intent; the protocol's name where BIRD does not tell."""
    address: str = ""
    """The neighbour's address."""
    peer_as: int | None = None
    state: SessionState
    since: str = ""
    """When it came into this state, as BIRD prints it (local time)."""
    last_error: str = ""
    """BIRD keeps it while it reconnects, and after."""
    bfd: str = ""
    """State of the peer's BFD session (``Up``, ``Down``, ``Init``, ``AdminDown``); empty when it has none."""
    bfd_interval_ms: int = 0
    """Between BFD packets, as both sides agreed; 0 without BFD."""
    bfd_timeout_ms: int = 0
    """After this silence BFD says that the path is dead; 0 without BFD."""
    channels: tuple[Channel, ...] = ()
    reason: str = ""
    """Why it is not established, in words; empty when it is."""
    resource: str = ""
    """Which resource asks for it, as in ``BGPPeer/rack-1``; empty where that is not known."""
    origin: Origin | None = None
    """``None``: BIRD has it for another reason than ours."""

"""What the BGP daemon of a host shall do: records only, part of the messages of ``messages``.

Everything here is decided from resources alone: no facts of the machine, no secrets (only where they are kept), no text of a daemon.
Prefixes and addresses are parsed, names are resolved, defaults that depend on other resources are filled in. Tuples are sorted unless
their order means something.
"""

from __future__ import annotations

import enum

import msgspec

from tabinet.lib.ip import Prefix


class Intent(msgspec.Struct, frozen=True, gc=False):
    """Base of the records."""


class PoolIntent(Intent, frozen=True):
    """An IP pool as routing sees it."""

    name: str
    cidr: Prefix
    nat_outgoing: bool
    disable_bgp_export: bool
    tunnel: bool = False
    """Routes to other hosts' addresses of the pool are the agent's: a pool with ``vxlanMode`` or ``ipipMode``."""


# --- filters --------------------------------------------------------------------------------------------------------


class MatchOperator(enum.Enum):
    """How a route's prefix is compared with a rule's."""

    EQUAL = "Equal"
    NOT_EQUAL = "NotEqual"
    IN = "In"
    NOT_IN = "NotIn"


class AddCommunity(Intent, frozen=True, tag=True):
    """The route gets a community."""

    community: tuple[int, ...]
    """Two numbers (RFC 1997) or three (RFC 8092)."""


class Prepend(Intent, frozen=True, tag=True):
    """The route's AS path begins with these numbers."""

    as_numbers: tuple[int, ...]


class SetPriority(Intent, frozen=True, tag=True):
    """The route gets this priority; lower wins."""

    priority: int


Operation = AddCommunity | Prepend | SetPriority


class FilterRule(Intent, frozen=True, kw_only=True):
    """A rule of a BGPFilter. All that is given must match."""

    accept: bool
    net: Prefix | None = None
    operator: MatchOperator = MatchOperator.IN
    """How the route's prefix is compared with ``net``."""
    lengths: tuple[int, int] | None = None
    """Shortest and longest length that the route's prefix may have; only with ``net``."""
    remote_only: bool = False
    """Only routes that were learned by BGP."""
    interface: str = ""
    """Pattern with ``*`` for the interface that the route leaves through; empty: any."""
    external: bool | None = None
    """Only for peers of another AS (True), or of our own (False)."""
    community: tuple[int, ...] = ()
    as_path: tuple[int, ...] = ()
    """The route's AS path begins with these."""
    priority: int | None = None
    operations: tuple[Operation, ...] = ()
    """In order; only where ``accept``."""


class FilterIntent(Intent, frozen=True, kw_only=True):
    """A BGPFilter: the first rule that matches decides; without one, what would be without the filter."""

    name: str
    export_rules: tuple[tuple[int, FilterRule], ...] = ()
    """In order, each with the family of routes that it is for."""
    import_rules: tuple[tuple[int, FilterRule], ...] = ()


class Advertisement(Intent, frozen=True, order=True):
    """Routes within ``net`` are told with these communities."""

    net: Prefix
    communities: tuple[tuple[int, ...], ...]


# --- sessions -------------------------------------------------------------------------------------------------------


class SecretRef(Intent, frozen=True, order=True):
    """Where a password is kept: ``secretKeyRef``."""

    name: str
    key: str
    optional: bool = False
    """Without the secret the session has no password; else it is not run."""


class NextHop(enum.Enum):
    """Next hop of routes that are told to a peer."""

    AUTO = "Auto"
    """The host itself for its own routes and those of its workloads; a reflector leaves that of others alone."""
    SELF = "Self"
    KEEP = "Keep"
    KEEP_EXTERNAL = "keepOriginalNextHop"
    """As ``KEEP`` for peers of another AS, as ``AUTO`` for those of our own."""


class Drain(enum.Enum):
    """How far a host has withdrawn from carrying traffic; see the Node annotation ``tabinet.io/drain``."""

    NONE = ""
    GRACEFUL = "true"
    """Its routes carry GRACEFUL_SHUTDOWN (RFC 8326): peers go elsewhere where they can."""
    WITHDRAWN = "withdrawn"
    """It announces nothing but its own address, with GRACEFUL_SHUTDOWN."""


class PeerIntent(Intent, frozen=True):
    """One BGP session that this host shall have."""

    name: str
    """Unique on the host; from the peer's node (mesh) or BGPPeer resource."""
    address: Prefix
    """The peer's; ``fe80::/10`` with ``interface``."""
    port: int
    as_number: int
    """Of the peer; 0: any but our own."""
    mesh: bool
    use_node_ip: bool
    """The session's source is the host's own address (``sourceAddress: UseNodeIP``)."""
    bfd: bool
    """Detect a dead path with BFD when the peer is directly connected."""
    max_restart_time_s: int
    """How long the peer shall keep our routes while our daemon restarts; 0: as the host likes."""
    keepalive_time_s: int
    """Between signs of life; a third of the time after which the peer is given up. 0: as the host likes."""
    for_node: bool = False
    """From a BGPPeer that names this node."""
    ours: bool = False
    """The peer is another node of the cluster."""
    interface: str = ""
    """Unnumbered: the peer is the one router at the other end of this link, and the session carries both families (RFC 8950)."""
    local_as: int = 0
    """AS number that the host gives as its own; 0: the host's."""
    allowed_own_as: int = 0
    """How often our own AS number may be in the path of an accepted route."""
    next_hop: NextHop = NextHop.AUTO
    password: SecretRef | None = None
    ttl_hops: int = 0
    """GTSM (RFC 5082): the peer is at most so many hops away; 0: not asked for."""
    reachable_by: Prefix | None = None
    """Gateway of a route to the peer."""
    filters: tuple[str, ...] = ()
    """Names in ``BgpIntent.filters``, in order."""
    reflected: bool = False
    """Same AS, and one end may be a route reflector: next hops can be anywhere, and there can be several paths (RFC 7911)."""
    client: bool = False
    """The host reflects routes to this peer (RFC 4456)."""
    workload: tuple[Prefix, ...] | None = None
    """The peer is a workload of this host, which may announce what is within these."""
    families: tuple[int, ...] = ()
    """Of the routes in the session; empty: that of ``address``, or both with ``interface``."""
    bfd_interval_ms: int = 0
    """0: the host's."""
    bfd_multiplier: int = 0
    """0: the host's."""
    route_limit: int = 0
    """Most routes of a family that are taken from the peer; 0: the host's limit."""
    resource: str = ""
    """Which resource asks for the session, as in ``BGPPeer/rack-1``."""
    long_lived: bool = False
    """Each end keeps the other's routes as the last resort (RFC 9494); so it always is with other nodes of the cluster."""


class BgpIntent(Intent, frozen=True):
    """All that the BGP daemon of one host shall do. ``None`` addresses: the host has none of that family."""

    host: str
    as_number: int
    router_id: str
    """Dotted quad: the IPv4 address, or a hash of the host's name where it has none."""
    ipv4: Prefix | None
    """The host's own address as a host prefix."""
    ipv6: Prefix | None
    listen_port: int
    log_severity: str
    peers: tuple[PeerIntent, ...]
    blocks: tuple[Prefix, ...]
    """Confirmed IPAM blocks of this host: announced as aggregates, blackholed locally. Sorted."""
    pools: tuple[PoolIntent, ...]
    ignored_interfaces: tuple[str, ...]
    """Patterns with ``*``: routes through these are not told to peers."""
    filters: tuple[FilterIntent, ...] = ()
    """Those that ``peers`` name, by name."""
    advertisements: tuple[Advertisement, ...] = ()
    services: tuple[Prefix, ...] = ()
    """Addresses of services, told to peers and not routed here. Sorted."""
    bind_node_ip: bool = False
    """Listen on the sessions' own addresses only (``bindMode: NodeIP``)."""
    cluster_id: str = ""
    """The host is a route reflector of this cluster (RFC 4456)."""
    drain: Drain = Drain.NONE
    prepends: int = 0
    """So often more stands the host's AS number in paths that it tells to other ASes: only on the way to a drain, never calculated."""
    metrics: tuple[int, int] = (0, 0)
    """Metric of routes in the kernel, IPv4 and IPv6; 0: the host's default."""
    peering4: Prefix | None = None
    """The host's address towards its workloads' BGP; ``None``: the gateway's that every workload has."""
    peering6: Prefix | None = None


def peering_addresses(intent: BgpIntent | None) -> tuple[Prefix, ...]:
    """The addresses that the host needs towards its workloads' BGP, beside the gateway's."""
    if intent is None or all(peer.workload is None for peer in intent.peers):
        return ()
    return tuple(address for address in (intent.peering4, intent.peering6) if address is not None)

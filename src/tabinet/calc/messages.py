"""What the calculation says to the dataplane and to BGP: frozen messages, a tagged union for ``match``.

Order within one flush: SetUpdate, SetDelta, PolicyUpdate, ProfileUpdate, EndpointUpdate; then the removals in reverse
(EndpointRemove, ProfileRemove, PolicyRemove, SetRemove); then the rest. A consumer that applies the messages in order never meets a
reference to something that it was not told. Each message carries whole, current state, so the last one for a key wins.
"""

from __future__ import annotations

import enum

import msgspec

from tabinet.lib.ip import Prefix
from tabinet.model.keys import ResourceKey


class Message(msgspec.Struct, frozen=True, gc=False):
    """Base of all messages and of the records in them."""


# --- sets -----------------------------------------------------------------------------------------------------------


class SetKind(enum.Enum):
    """What the members of a set are."""

    NETS = "nets"
    """Members are ``Prefix``: addresses of endpoints (host prefixes) and nets of network sets; they may overlap."""
    PORTS = "ports"
    """Members are ``PortMember``: a named port of selected endpoints."""


class PortMember(Message, frozen=True, order=True):
    """One (address, protocol, port) that a named port stands for."""

    address: Prefix
    protocol: int
    port: int


Member = Prefix | PortMember


class SetUpdate(Message, frozen=True):
    """The set exists and has exactly these members."""

    set_id: str
    """Letters, digits, ``-`` and ``_``; at most 24 characters; a function of the set's meaning only, same on every host."""
    kind: SetKind
    members: frozenset[Member]


class SetDelta(Message, frozen=True):
    """Members came to and went from a set that was announced before."""

    set_id: str
    added: frozenset[Member]
    removed: frozenset[Member]


class SetRemove(Message, frozen=True):
    set_id: str


# --- policies -------------------------------------------------------------------------------------------------------


class Action(enum.Enum):
    ALLOW = "Allow"
    DENY = "Deny"
    LOG = "Log"
    PASS = "Pass"


class PortRange(Message, frozen=True, order=True):
    """Ports from ``first`` to ``last``, both included, 0 to 65535."""

    first: int
    last: int


class Side(Message, frozen=True):
    """What a rule wants of the source or of the destination. All that is given must match."""

    nets: tuple[Prefix, ...] = ()
    """Any of these; empty means every address."""
    not_nets: tuple[Prefix, ...] = ()
    """None of these."""
    sets: tuple[str, ...] = ()
    """Member of every one of these NETS sets."""
    not_sets: tuple[str, ...] = ()
    """Member of none of these NETS sets."""
    ports: tuple[PortRange, ...] = ()
    port_sets: tuple[str, ...] = ()
    """The port is in one of ``ports``, or (address, protocol, port) in one of these PORTS sets; both empty means every port."""
    not_ports: tuple[PortRange, ...] = ()
    not_port_sets: tuple[str, ...] = ()


ANY = Side()


class Icmp(Message, frozen=True):
    """An ICMP or ICMPv6 type, and optionally a code."""

    type: int
    code: int | None = None


class Rule(Message, frozen=True):
    """A policy rule with every selector replaced by set ids and every name by a number."""

    action: Action
    ip_version: int | None = None
    protocol: int | None = None
    not_protocol: int | None = None
    icmp: Icmp | None = None
    not_icmp: Icmp | None = None
    source: Side = ANY
    destination: Side = ANY


class Policy(Message, frozen=True):
    """The rules of a policy or profile, in order."""

    ingress: tuple[Rule, ...]
    egress: tuple[Rule, ...]


class PolicyUpdate(Message, frozen=True):
    key: ResourceKey
    policy: Policy


class PolicyRemove(Message, frozen=True):
    key: ResourceKey


class ProfileUpdate(Message, frozen=True):
    name: str
    policy: Policy


class ProfileRemove(Message, frozen=True):
    name: str


# --- endpoints ------------------------------------------------------------------------------------------------------


class TierPolicies(Message, frozen=True):
    """The policies of one tier that select an endpoint in one direction, in order; never empty."""

    tier: str
    default_action: Action
    """DENY or PASS: what happens when none of them matched."""
    policies: tuple[ResourceKey, ...]


class Endpoint(Message, frozen=True):
    """A local workload endpoint with its policy resolved."""

    host: str
    interface: str
    mac: str
    """``aa:bb:cc:dd:ee:ff`` or empty when unknown."""
    nets: tuple[Prefix, ...]
    """Addresses of the workload, sorted."""
    spoof_nets: tuple[Prefix, ...]
    """Further source prefixes that it may use."""
    ingress: tuple[TierPolicies, ...]
    egress: tuple[TierPolicies, ...]
    """Tiers in order; empty means that no policy selects it in this direction, so the profiles decide."""
    profiles: tuple[str, ...]
    """In order. A profile that does not exist is in here but is never announced: it allows nothing."""


class EndpointUpdate(Message, frozen=True):
    key: ResourceKey
    revision: int
    """Store revision of the endpoint's own resource."""
    endpoint: Endpoint


class EndpointRemove(Message, frozen=True):
    key: ResourceKey


# --- routing --------------------------------------------------------------------------------------------------------


class PoolIntent(Message, frozen=True):
    """An IP pool as routing sees it."""

    name: str
    cidr: Prefix
    nat_outgoing: bool
    disable_bgp_export: bool


class PeerIntent(Message, frozen=True):
    """One BGP session that this host shall have."""

    name: str
    """Unique on the host; from the peer's node (mesh) or BGPPeer resource."""
    address: Prefix
    port: int
    as_number: int
    mesh: bool
    use_node_ip: bool
    """The session's source is the host's own address (``sourceAddress: UseNodeIP``)."""
    bfd: bool
    """Detect a dead path with BFD when the peer is directly connected."""
    max_restart_time_s: int
    keepalive_time_s: int


class BgpIntent(Message, frozen=True):
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


class BgpUpdate(Message, frozen=True):
    """Replaces the host's BGP intent; ``None`` when the host has no Node resource with BGP: run no session."""

    host: str
    intent: BgpIntent | None


class ConfigUpdate(Message, frozen=True):
    """FelixConfiguration for a host: ``default`` overlaid by ``node.<host>``; values as in the resources."""

    host: str
    parameters: dict[str, object]


class ReadyUpdate(Message, frozen=True):
    """ClusterInformation.datastoreReady: while False the store is being changed as a whole, so hold still."""

    ready: bool


Update = (
    SetUpdate
    | SetDelta
    | SetRemove
    | PolicyUpdate
    | PolicyRemove
    | ProfileUpdate
    | ProfileRemove
    | EndpointUpdate
    | EndpointRemove
    | BgpUpdate
    | ConfigUpdate
    | ReadyUpdate
)

"""What the calculation says to the dataplane and to BGP: frozen messages, a tagged union for ``match``.

Order within one flush: SetUpdate, SetDelta, PolicyUpdate, ProfileUpdate, EndpointUpdate, HostEndpointUpdate; then the removals in
reverse (HostEndpointRemove, EndpointRemove, ProfileRemove, PolicyRemove, SetRemove); then the rest. A consumer that applies the
messages in order never meets a reference to something that it was not told. Each message carries whole, current state, so the last
one for a key wins.
"""

from __future__ import annotations

import enum

import msgspec

from tabinet.calc.intents import BgpIntent as BgpIntent
from tabinet.calc.intents import PeerIntent as PeerIntent
from tabinet.calc.intents import PoolIntent as PoolIntent
from tabinet.calc.overlays import LocalTunnel as LocalTunnel
from tabinet.calc.overlays import RemoteRoute as RemoteRoute
from tabinet.calc.overlays import Tunnel as Tunnel
from tabinet.calc.overlays import TunnelPeer as TunnelPeer
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


ALL_POOLS = "ippools-all"
"""Reserved id of a NETS set: the CIDRs of all IP pools, whatever they are for. Announced always, if empty, to every host.

Addresses outside of it are outside the fabric: that is where natOutgoing and the floating address as a source apply.
"""
NAT_POOLS = "ippools-nat"
"""Reserved id of a NETS set: the CIDRs of the pools with ``natOutgoing``, disabled ones too: their workloads live on. Announced always."""
ALL_HOSTS = "hosts-all"
"""Reserved id of a NETS set: the addresses of all hosts (Node ``spec.bgp`` and ``spec.addresses``), both families. Announced always.

Consumers look at it only with ``natOutgoingExclusions: IPPoolsAndHostIPs``.
"""


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
    """A policy rule with every selector replaced by set ids and every name by a number.

    Services: a destination's service is a PORTS set of its endpoints' (address, protocol, port) in ``destination.port_sets``, without
    ``ports``; a source's service is a NETS set of its endpoints' addresses in ``source.sets``. A service that is not there is an empty set.
    """

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


class Nat(Message, frozen=True, order=True):
    """A floating address: what comes for ``external`` goes to ``internal``. Host prefixes of one family."""

    external: Prefix
    internal: Prefix
    """One of the endpoint's ``nets``; the calculation leaves pairs out where it is not."""


class Forward(Message, frozen=True, order=True):
    """One port outside that leads to a port of an endpoint."""

    external: Prefix
    protocol: int
    external_port: int
    internal: Prefix
    internal_port: int
    home: str = ""
    """The host that announces the address, and passes on what is for this port; empty: the endpoint's own."""
    own: bool = False
    """The address outside is one of the host's own: it needs no route to the endpoint, and no setting about floating addresses counts."""


class ForwardElsewhere(Message, frozen=True, order=True):
    """Ports of an address that this host announces, which lead to an endpoint on another host."""

    external: Prefix
    protocol: int
    first_port: int
    last_port: int
    host: str
    addresses: tuple[Prefix, ...] = ()
    """Of that host, one of each family; empty when it is not known."""


class Limits(Message, frozen=True):
    """Quality of service of one direction. 0 always means: no limit (``packet_burst``, ``burst_bits``: the default)."""

    bandwidth_bit_s: int = 0
    burst_bits: int = 0
    """How much may pass at once above the rate; 0 becomes 4 Gbit, as Calico has it."""
    peak_bit_s: int = 0
    """Rate within a burst; only together with ``bandwidth_bit_s``."""
    peak_burst_bytes: int = 0
    """How much may pass at once above the peak rate (``minburst``); 0: enough for a packet."""
    packets_per_s: int = 0
    packet_burst: int = 0
    """0 becomes 5."""
    connections: int = 0
    """Most connections at one time that begin in this direction."""


NO_LIMITS = Limits()


class Qos(Message, frozen=True):
    """Quality of service of an endpoint; as everywhere, ingress is what the workload receives."""

    ingress: Limits = NO_LIMITS
    egress: Limits = NO_LIMITS
    dscp: int | None = None
    """0 to 63, written into what the workload sends. Names (``EF``, ``AF11``) are numbers here."""


NO_QOS = Qos()


class AddressQos(Message, frozen=True, order=True):
    """Quality of service of a floating address: of what comes for it and what goes from it, and of nothing else that the endpoint does.

    Of its limits bandwidth and packets count. ``burst_bits`` 0: one second's worth.
    """

    external: Prefix
    qos: Qos


class Pair(Message, frozen=True, order=True):
    """One of Neutron's allowed address pairs: what a port may send from besides its own addresses."""

    net: Prefix
    mac: str
    """``aa:bb:cc:dd:ee:ff``; empty: the port's own."""


class Trunk(Message, frozen=True):
    """Where the packets of a trunk's subport come and go."""

    parent: str
    """The interface of the trunk's parent port."""
    tag: int
    """Of VLAN, 1 to 4094 (IEEE 802.1Q)."""


class Place(enum.Enum):
    """Where a machine is that moves, as one of its two endpoints sees it."""

    DEPARTING = "departing"
    """It runs here, and will go."""
    LEFT = "left"
    """It runs at the other end now, or will in a moment."""
    ARRIVING = "arriving"
    """It still runs at the other end, and will come."""
    ARRIVED = "arrived"
    """It has come, and runs here, or will in a moment."""


class Migration(Message, frozen=True):
    """The endpoint is one end of a live migration."""

    place: Place
    key: ResourceKey
    """The LiveMigration."""
    uid: str
    other: str
    """The host of the other end."""
    other_end: ResourceKey
    """The endpoint there."""
    addresses: tuple[Prefix, ...] = ()
    """Of that host, one of each family; empty when it is not known."""
    awaited: bool = False
    """It has stopped at the source (``LEFT``, ``ARRIVED``), and was not seen at the target yet."""

    @property
    def is_away(self) -> bool:
        """True: the machine runs at the other end."""
        return self.place in (Place.LEFT, Place.ARRIVING)

    @property
    def is_expected(self) -> bool:
        """True: the machine comes here, and was not seen yet."""
        return self.place is Place.ARRIVING or (self.place is Place.ARRIVED and self.awaited)


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
    nats: tuple[Nat, ...] = ()
    """``ipNATs``, sorted, each external address once. An address that several local endpoints claim belongs to the smallest key."""
    qos: Qos = NO_QOS
    """``qosControls``."""
    gateway4: Prefix | None = None
    """``ipv4Gateway``: the workload looks for it on its link, so that the host has to be it."""
    trunk: Trunk | None = None
    """A subport's interface is made by the host; None: it is there by other hands."""
    pairs: tuple[Pair, ...] = ()
    """Sorted. Single addresses among them are in ``nets`` as well. What is paired with other MACs only is sent with exactly these."""
    routed: tuple[Prefix, ...] = ()
    """Prefixes behind the endpoint, sorted; like ``nets`` routed to it, but not its own addresses."""
    any_mac: bool = False
    """It may send with whatever MAC."""
    forwards: tuple[Forward, ...] = ()
    """Sorted. A port that several local endpoints claim belongs to the smallest key; an address that is in ``nats`` wins."""
    elsewhere: tuple[ForwardElsewhere, ...] = ()
    """Sorted."""
    address_qos: tuple[AddressQos, ...] = ()
    """Of floating addresses in ``nats`` or ``forwards``, sorted, each once. What several local endpoints ask for one address is that of
    the smallest key."""
    stateless: bool = False
    """Policy is asked about every packet that the workload sends or receives, replies too, by the packet's own header."""
    migration: Migration | None = None
    shared: tuple[Prefix, ...] = ()
    """Of ``nets``, those that other endpoints may have as well, sorted."""
    yields: tuple[Prefix, ...] = ()
    """Of ``shared``, those that another machine's endpoint holds, sorted."""

    @property
    def is_away(self) -> bool:
        """True: the machine runs at the other end of its migration, so its addresses are not here."""
        return self.migration is not None and self.migration.is_away

    @property
    def nets_here(self) -> tuple[Prefix, ...]:
        """The addresses that are on this host: none while the machine is away, and not those that another endpoint holds."""
        if self.is_away:
            return ()
        return tuple(net for net in self.nets if net not in self.yields) if self.yields else self.nets


class HostEndpoint(Message, frozen=True):
    """A local host endpoint with its policy resolved: traffic of one of the host's interfaces, or of all.

    Policies that select it are split by what they say of themselves, and each tuple of tiers holds only tiers with a policy in it:

    - ``preDNAT``: only in ``pre_dnat``. ``doNotTrack``: only in ``untracked_*``. (A policy with both is invalid: in neither.)
    - all others in ``ingress`` and ``egress``, and those of them with ``applyOnForward`` in ``forward_*`` as well.

    Directions are the host's: ingress comes in from the interface, whether it is for the host or goes on to a workload.
    """

    host: str
    interface: str
    """``spec.interfaceName``: a name, ``*`` for every interface that has no endpoint of its own, or empty: ``addresses`` decide."""
    addresses: tuple[Prefix, ...]
    """``spec.expectedIPs`` as host prefixes, sorted. With an empty ``interface``: it is the one with any of these addresses."""
    ingress: tuple[TierPolicies, ...] = ()
    """For traffic that ends in the host. Empty: ``profiles`` decide, and without a profile that allows it, it is denied."""
    egress: tuple[TierPolicies, ...] = ()
    """For traffic that begins in the host; like ``ingress``."""
    forward_ingress: tuple[TierPolicies, ...] = ()
    """For traffic that comes in from the interface and goes on to elsewhere; empty, or all passed: allowed. Profiles are not asked."""
    forward_egress: tuple[TierPolicies, ...] = ()
    pre_dnat: tuple[TierPolicies, ...] = ()
    """Only ingress rules. What no rule decides goes on (also at the end of a tier whose default is Deny)."""
    untracked_ingress: tuple[TierPolicies, ...] = ()
    """Without connections: each packet, replies too, by its own header. What no rule decides goes on as tracked."""
    untracked_egress: tuple[TierPolicies, ...] = ()
    profiles: tuple[str, ...] = ()
    """As ``Endpoint.profiles``."""


class HostEndpointUpdate(Message, frozen=True):
    """Announced like an EndpointUpdate: after the sets, policies and profiles that it names."""

    key: ResourceKey
    revision: int
    endpoint: HostEndpoint


class HostEndpointRemove(Message, frozen=True):
    key: ResourceKey


class EndpointUpdate(Message, frozen=True):
    key: ResourceKey
    revision: int
    """Store revision of the endpoint's own resource."""
    endpoint: Endpoint


class EndpointRemove(Message, frozen=True):
    key: ResourceKey


# --- routing --------------------------------------------------------------------------------------------------------


class BgpUpdate(Message, frozen=True):
    """Replaces the host's BGP intent; ``None`` when the host has no Node resource with BGP: run no session."""

    host: str
    intent: BgpIntent | None


class TunnelUpdate(Message, frozen=True):
    """The host has, or shall have, its end of this tunnel."""

    host: str
    tunnel: Tunnel
    local: LocalTunnel


class TunnelRemove(Message, frozen=True):
    """No pool wants the tunnel, and nothing of it is left in the host's Node."""

    host: str
    tunnel: Tunnel


class TunnelPeerUpdate(Message, frozen=True):
    """Another host's end of a tunnel that this host has; only for VXLAN."""

    host: str
    tunnel: Tunnel
    peer: str
    """The other host's name."""
    end: TunnelPeer


class TunnelPeerRemove(Message, frozen=True):
    host: str
    tunnel: Tunnel
    peer: str


class RemoteRouteUpdate(Message, frozen=True):
    """The way from this host to a block, or to a single address, of another one; only in pools with a tunnel: BGP does the others."""

    host: str
    destination: Prefix
    route: RemoteRoute


class RemoteRouteRemove(Message, frozen=True):
    host: str
    destination: Prefix


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
    | HostEndpointUpdate
    | HostEndpointRemove
    | BgpUpdate
    | TunnelUpdate
    | TunnelRemove
    | TunnelPeerUpdate
    | TunnelPeerRemove
    | RemoteRouteUpdate
    | RemoteRouteRemove
    | ConfigUpdate
    | ReadyUpdate
)

"""Links, addresses, neighbours and routes as records; operations on them as data; what happens to them as events.

``Rtnetlink`` is the seam between the drivers and the kernel: ``rtsocket.RtSocket`` and ``rtfake.FakeRtnetlink`` implement it and pass
one contract suite. An operation is about one object; a list of them is sent at once and each has its own outcome: unlike with
nf_tables there is no transaction. Sources: rtnetlink(7), linux/rtnetlink.h, ip-route(8).
"""

from __future__ import annotations

import enum
import errno
from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from tabinet.errors import KernelError
from tabinet.lib.ip import IPV4, Prefix

TABINET_PROTOCOL = 84
"""The routing protocol number that marks routes as ours (rtm_protocol); BIRD's are 12, Calico's 80, the kernel's own 2."""
TABINET_REMOTE_PROTOCOL = 85
"""The same for routes to other hosts' workloads, through tunnels and beside them: a number of their own, so that no BGP daemon takes them
for routes to workloads here."""
TABINET_ARRIVAL_PROTOCOL = 86
"""The same for routes to machines that are about to move here: nobody announces them."""
MAIN_TABLE = 254

SCOPE_UNIVERSE, SCOPE_LINK, SCOPE_HOST = 0, 253, 254
"""How far away an IPv4 destination is (RT_SCOPE_*); IPv6 routes are all SCOPE_UNIVERSE."""


class RouteKind(enum.IntEnum):
    """What happens to packets (RTN_*)."""

    UNICAST = 1
    LOCAL = 2
    BROADCAST = 3
    ANYCAST = 4
    MULTICAST = 5
    BLACKHOLE = 6
    UNREACHABLE = 7
    PROHIBIT = 8
    THROW = 9


# --- records --------------------------------------------------------------------------------------------------------


class Vxlan(msgspec.Struct, frozen=True, gc=False):
    """What makes a VXLAN interface (RFC 7348): it learns nothing by itself, and sends only where it was told the other end is."""

    vni: int
    port: int
    """UDP port of both ends."""
    local: Prefix | None = None
    """Source address of its packets; None: the one that the route has."""


class Link(msgspec.Struct, frozen=True, gc=False):
    """A network interface."""

    index: int
    """Unique in its namespace; a name can come back with another index."""
    name: str
    mac: str = ""
    """``aa:bb:cc:dd:ee:ff``; empty where there is none."""
    mtu: int = 1500
    up: bool = False
    """Administratively up (IFF_UP): set by whoever runs the machine."""
    carrier: bool = False
    """Something is at the other end (IFF_LOWER_UP)."""
    running: bool = False
    """It takes packets (IFF_RUNNING, RFC 2863 oper status): a moment after carrier came, because a worker of the kernel sees to it."""
    kind: str = ""
    """``veth``, ``tun``, ``bridge``...; empty for hardware and loopback."""
    peer_index: int = 0
    """For veth: the index of the other end, in its own namespace; for VLAN interfaces their parent's; 0 when unknown."""
    alias: str = ""
    """Free text for people and owners (ifalias)."""
    vxlan: Vxlan | None = None
    vlan: int = 0
    """The tag of a VLAN interface (IEEE 802.1Q), whose parent is ``peer_index``; 0 for any other."""


class InterfaceAddress(msgspec.Struct, frozen=True, order=True, gc=False):
    """An address of an interface."""

    index: int
    address: Prefix
    """A host prefix."""
    length: int
    """Of the subnet: 0 to 32 or 128."""


class Neighbour(msgspec.Struct, frozen=True, order=True, gc=False):
    """A link-layer address that the kernel knows for an address behind an interface."""

    index: int
    address: Prefix
    mac: str
    permanent: bool = True
    """Set by someone, never asked for or forgotten (NUD_PERMANENT)."""


class Forwarding(msgspec.Struct, frozen=True, order=True, gc=False):
    """Behind which host the other end with this MAC address is: a permanent entry of a VXLAN interface's table (bridge(8) fdb)."""

    index: int
    mac: str
    remote: Prefix
    """The host's address."""


class Hop(msgspec.Struct, frozen=True, order=True, gc=False):
    """Where packets go next."""

    index: int
    """The interface; 0 lets the kernel find it from the gateway (writing only)."""
    gateway: Prefix | None = None
    """A host prefix; None: the destination is on the link."""
    weight: int = 1
    """Share among several hops, 1 to 256."""
    on_link: bool = False
    """The gateway is taken to be on the link, whatever routes say; only for a route with one hop."""


class Route(msgspec.Struct, frozen=True, gc=False):
    """A route. The kernel tells routes apart by table, destination and metric."""

    destination: Prefix
    hops: tuple[Hop, ...] = ()
    """In order; none for BLACKHOLE and the like."""
    kind: RouteKind = RouteKind.UNICAST
    protocol: int = TABINET_PROTOCOL
    table: int = MAIN_TABLE
    metric: int = 0
    """Least wins. IPv6 has no 0: the kernel makes it 1024."""
    scope: int = SCOPE_UNIVERSE
    source: Prefix | None = None
    """The source address that the host itself prefers on this route."""


def device_route(destination: Prefix, index: int, *, metric: int = 0, protocol: int = TABINET_PROTOCOL, table: int = MAIN_TABLE) -> Route:
    """The destination is on the link of this interface."""
    scope = SCOPE_LINK if destination.family == IPV4 else SCOPE_UNIVERSE
    return Route(destination, (Hop(index),), protocol=protocol, metric=metric, scope=scope, table=table)


def gateway_route(destination: Prefix, gateway: Prefix, index: int = 0, *, metric: int = 0, protocol: int = TABINET_PROTOCOL) -> Route:
    """The destination is behind the gateway."""
    return Route(destination, (Hop(index, gateway),), protocol=protocol, metric=metric)


def blackhole_route(destination: Prefix, *, metric: int = 0, protocol: int = TABINET_PROTOCOL) -> Route:
    """Packets for the destination are dropped, unless a longer prefix says otherwise."""
    return Route(destination, (), RouteKind.BLACKHOLE, protocol=protocol, metric=metric)


# --- operations -----------------------------------------------------------------------------------------------------


class RtOp(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Base of the operations."""


class AddVeth(RtOp, frozen=True):
    """A pair of interfaces exists, both down. EEXIST when a name or ``index`` is taken, EBUSY when ``peer_index`` is.

    Give ends in two namespaces different indices: where they are equal the kernel takes the pair for one interface (linkwatch compares
    index and peer's index) and announces a change of carrier up to a second late.
    """

    name: str
    peer_name: str
    peer_namespace: int | None = None
    """File descriptor of the namespace of the other end; None: this one."""
    mac: str = ""
    """Empty: a random one."""
    peer_mac: str = ""
    mtu: int = 0
    """Of both; 0: the kernel's default of 1500."""
    index: int = 0
    """0: the next free one. The kernel takes ``peer_index`` only together with this."""
    peer_index: int = 0


class AddVxlan(RtOp, frozen=True):
    """The interface exists, down. EEXIST when the name is taken, or another one of the family has the identifier and port."""

    name: str
    vxlan: Vxlan
    mac: str
    mtu: int


class AddIpip(RtOp, frozen=True):
    """An IP-in-IP interface to anywhere exists, down: the gateway of a route over it says to which host.

    EOPNOTSUPP when the kernel has no such interfaces. With its module, which this loads, the kernel makes one by itself in each namespace,
    ``tunl0``; as there is only one to anywhere, the answer is EEXIST then, whatever the name, unless the sysctl
    ``net.core.fb_tunnels_only_for_init_net`` is 2. That one is never gone: ``DeleteLink`` succeeds, and it stays as it is.
    """

    name: str
    mtu: int


class AddVlan(RtOp, frozen=True):
    """The interface exists, down: what its parent receives with this tag comes in by it, and what it sends goes out of the parent with it.

    It can be up while the parent is down (loose binding). It follows the carrier of a parent that is up, and goes with the parent.
    EEXIST when the name, or the parent's tag, is taken; ENODEV without the parent; EOPNOTSUPP on loopback, and when
    the kernel has no such interfaces.
    """

    name: str
    parent: int
    """Index of an interface."""
    tag: int
    """1 to 4094."""


class SetAlias(RtOp, frozen=True):
    """The interface of this name has this alias. ENODEV when absent. The kernel tells of it only while the interface is up."""

    name: str
    alias: str


class DeleteLink(RtOp, frozen=True):
    """The interface, a veth's other end and VLAN interfaces on it are gone with their addresses, routes and neighbours.

    ENODEV when absent.
    """

    name: str
    index: int = 0
    """Not 0: the interface with this index, whatever its name is now, and never another one that has got the name meanwhile."""


class SetLink(RtOp, frozen=True):
    """What is given is set. ENODEV when there is no such interface."""

    index: int
    up: bool | None = None
    name: str = ""
    """EEXIST when it is taken."""
    mac: str = ""
    mtu: int = 0
    namespace: int | None = None
    """File descriptor of the namespace that it moves to; it arrives down, without addresses."""
    alias: str | None = None
    """Empty: it has none any more."""


class AddAddress(RtOp, frozen=True):
    """The interface has the address, at once usable (no duplicate address detection). No error when it has it already."""

    address: InterfaceAddress


class DeleteAddress(RtOp, frozen=True):
    """EADDRNOTAVAIL when absent."""

    address: InterfaceAddress


class SetNeighbour(RtOp, frozen=True):
    """The permanent entry exists, instead of whatever the kernel had learned."""

    neighbour: Neighbour


class DeleteNeighbour(RtOp, frozen=True):
    """ENOENT when absent."""

    neighbour: Neighbour


class SetForwarding(RtOp, frozen=True):
    """The VXLAN interface sends what is for the MAC address to this host and to no other. EINVAL for loopback."""

    entry: Forwarding


class DeleteForwarding(RtOp, frozen=True):
    """ENOENT when absent."""

    entry: Forwarding


class AddRoute(RtOp, frozen=True):
    """EEXIST when there is a route with the same table, destination and metric, whoever made it. ENETDOWN while the interface is down."""

    route: Route


class ReplaceRoute(RtOp, frozen=True):
    """The route takes the place of the one with the same table, destination and metric, whoever made that; no packet meets a gap."""

    route: Route


class DeleteRoute(RtOp, frozen=True):
    """Table, destination, metric, protocol and kind say which. ESRCH when absent."""

    route: Route


class AddSourceRule(RtOp, frozen=True):
    """What the namespace itself sends from ``source`` is routed by ``table`` before all others. EEXIST when there is that rule."""

    source: Prefix
    table: int
    priority: int
    """Least first; the main table has 32766."""


class InterfaceRule(msgspec.Struct, frozen=True, order=True, gc=False):
    """Packets of a family that come in through the interface are routed by ``table`` before all others; what it does not know, as ever."""

    interface: str
    family: int
    table: int
    priority: int


class AddInterfaceRule(RtOp, frozen=True):
    """EEXIST when there is that rule."""

    rule: InterfaceRule


class DeleteInterfaceRule(RtOp, frozen=True):
    """ENOENT when absent."""

    rule: InterfaceRule


class PortRule(msgspec.Struct, frozen=True, order=True, gc=False):
    """Packets of a transport protocol for these ports of an address are routed by ``table`` before all others."""

    destination: Prefix
    protocol: int
    first_port: int
    last_port: int
    table: int
    priority: int


class AddPortRule(RtOp, frozen=True):
    """EEXIST when there is that rule."""

    rule: PortRule


class DeletePortRule(RtOp, frozen=True):
    """ENOENT when absent."""

    rule: PortRule


def describe(operation: RtOp) -> str:
    """What the operation does, in words for an error message."""
    match operation:
        case AddVeth(name, peer):
            return f"add veth {name} with peer {peer}"
        case AddVxlan(name) | AddIpip(name):
            return f"add {type(operation).__name__.removeprefix('Add').lower()} interface {name}"
        case AddVlan(name, parent, tag):
            return f"add VLAN interface {name} with tag {tag} on interface {parent}"
        case SetAlias(name):
            return f"set alias of interface {name}"
        case SetForwarding(f) | DeleteForwarding(f):
            verb = "set" if isinstance(operation, SetForwarding) else "delete"
            return f"{verb} forwarding of {f.mac} to {f.remote.address} over interface {f.index}"
        case DeleteLink(name):
            return f"delete interface {name}"
        case SetLink(index):
            return f"set interface {index}"
        case AddAddress(a) | DeleteAddress(a):
            verb = "add" if isinstance(operation, AddAddress) else "delete"
            return f"{verb} address {a.address.address}/{a.length} of interface {a.index}"
        case SetNeighbour(n) | DeleteNeighbour(n):
            verb = "set" if isinstance(operation, SetNeighbour) else "delete"
            return f"{verb} neighbour {n.address.address} of interface {n.index}"
        case AddRoute(route) | ReplaceRoute(route) | DeleteRoute(route):
            return f"{type(operation).__name__.removesuffix('Route').lower()} route {route.destination}"
        case AddInterfaceRule(rule) | DeleteInterfaceRule(rule):
            verb = "add" if isinstance(operation, AddInterfaceRule) else "delete"
            return f"{verb} rule of IPv{rule.family} from interface {rule.interface} to table {rule.table}"
        case AddPortRule(rule) | DeletePortRule(rule):
            verb = "add" if isinstance(operation, AddPortRule) else "delete"
            return f"{verb} rule of port {rule.protocol}/{rule.first_port} of {rule.destination.address} to table {rule.table}"
        case AddSourceRule(source, table):
            return f"add rule from {source.address} to table {table}"
        case _:
            raise TypeError(f"not an rtnetlink operation: {operation!r}")


# --- events ---------------------------------------------------------------------------------------------------------


class Event(msgspec.Struct, frozen=True, gc=False):
    """Base of what happened. Objects come as they were when it happened; later events may say otherwise."""


class LinkEvent(Event, frozen=True):
    """The interface is as given, or gone (deleted, or moved to another namespace)."""

    link: Link
    gone: bool


class AddressEvent(Event, frozen=True):
    address: InterfaceAddress
    gone: bool


class RouteEvent(Event, frozen=True):
    """The kernel does not announce IPv4 routes that go because their interface goes down or away: the LinkEvent implies it."""

    route: Route
    gone: bool
    sender: int
    """``Rtnetlink.port`` of who asked for it; 0 when the kernel did it by itself."""


class NeighbourEvent(Event, frozen=True):
    neighbour: Neighbour
    gone: bool


class ForwardingEvent(Event, frozen=True):
    entry: Forwarding
    gone: bool


class Overrun(Event, frozen=True):
    """Events were lost: read everything again."""


class Watch(enum.Flag):
    """What an event source tells about."""

    LINKS = enum.auto()
    ADDRESSES = enum.auto()
    ROUTES = enum.auto()
    NEIGHBOURS = enum.auto()


# --- protocols ------------------------------------------------------------------------------------------------------


class RtEvents(Protocol):
    """A stream of events that a loop can wait for."""

    def fileno(self) -> int:
        """Readable when ``read`` would give something."""
        ...

    def read(self) -> list[Event]:
        """What has happened since, oldest first; empty when nothing has. Never waits."""
        ...

    def close(self) -> None: ...


class Rtnetlink(Protocol):
    """The kernel's links, addresses, neighbours and routes in one network namespace."""

    @property
    def port(self) -> int:
        """What events caused through this object carry as their ``sender``."""
        ...

    def execute(self, operations: Sequence[RtOp]) -> list[KernelError | None]:
        """Each operation was tried, in order, whatever became of those before it; gives the outcome of each.

        Raises:
            KernelError: no outcome is known (timeout, overrun): read again.
        """
        ...

    def links(self) -> list[Link]: ...

    def link(self, name: str) -> Link | None:
        """The interface of this name, at a cost that does not grow with the others; None: there is none."""
        ...

    def addresses(self) -> list[InterfaceAddress]: ...

    def neighbours(self) -> list[Neighbour]: ...

    def forwarding(self, index: int) -> list[Forwarding]:
        """The permanent entries of a VXLAN interface; of any other none."""
        ...

    def routes(self, *, protocol: int = 0, table: int = MAIN_TABLE) -> list[Route]:
        """Routes of both families with this protocol number (0: any) in this table."""
        ...

    def interface_rules(self, table: int) -> list[InterfaceRule]:
        """The rules of both families that lead from an interface to this table."""
        ...

    def port_rules(self) -> list[PortRule]:
        """The rules of both families about ports."""
        ...

    def close(self) -> None: ...


def execute_all(rtnetlink: Rtnetlink, operations: Sequence[RtOp]) -> None:
    """Every operation was tried and succeeded.

    Raises:
        KernelError: the first failure.
    """
    for failure in failures(rtnetlink.execute(operations)):
        raise failure


def is_gone(rtnetlink: Rtnetlink, index: int) -> bool:
    """True when there is no such interface (any more): what was asked of it failed for no other reason, and its event is on its way.

    Waits until the kernel has finished what it does with interfaces, so one that it is about to delete is gone afterwards.

    Raises:
        KernelError: no outcome is known.
    """
    outcome = rtnetlink.execute([SetLink(index)])[0]
    return outcome is not None and outcome.errno == errno.ENODEV


def failures(outcomes: Iterable[KernelError | None]) -> list[KernelError]:
    """The errors among the outcomes."""
    return [outcome for outcome in outcomes if outcome is not None]

"""FakeRtnetlink: interfaces, addresses, neighbours and routes in memory that behave as the kernel's do.

It passes the same contract suite as ``RtSocket``: the same errno, the same consequences (an interface that goes down takes its routes and
neighbours along, and IPv6 addresses too) and the same events. For tests: ``executed`` keeps what was asked, ``refuse`` makes one kind
of operation fail, ``overrun`` loses events.

Cost: linear in what is tracked for each interface that goes down; O(1) otherwise. It knows one namespace: a peer elsewhere is always
there and always up. It has no kernel routes (of addresses), no multipath liveness, no other tables than those of the routes.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import deque
from collections.abc import Sequence

import msgspec

from tabinet.errors import KernelError
from tabinet.kernel.rtnetlink import (
    MAIN_TABLE,
    AddAddress,
    AddInterfaceRule,
    AddIpip,
    AddPortRule,
    AddressEvent,
    AddRoute,
    AddSourceRule,
    AddVeth,
    AddVlan,
    AddVxlan,
    DeleteAddress,
    DeleteForwarding,
    DeleteInterfaceRule,
    DeleteLink,
    DeleteNeighbour,
    DeletePortRule,
    DeleteRoute,
    Event,
    Forwarding,
    ForwardingEvent,
    Hop,
    InterfaceAddress,
    InterfaceRule,
    Link,
    LinkEvent,
    Neighbour,
    NeighbourEvent,
    Overrun,
    PortRule,
    ReplaceRoute,
    Route,
    RouteEvent,
    RouteKind,
    RtOp,
    SetAlias,
    SetForwarding,
    SetLink,
    SetNeighbour,
    describe,
)
from tabinet.lib.ip import IPV4, IPV6, Prefix

RouteKey = tuple[int, Prefix, int]
_IPV6_DEFAULT_METRIC = 1024
_ELSEWHERE = -1
"""The peer of a veth whose other end is in another namespace."""


class _Refused(Exception):
    def __init__(self, code: int) -> None:
        self.code = code


def _need(holds: bool, code: int) -> None:
    if not holds:
        raise _Refused(code)


def _route_key(route: Route) -> RouteKey:
    return route.table, route.destination, route.metric


def _as_kernel(route: Route) -> Route:
    """With what the kernel fills in."""
    if route.destination.family == IPV6 and not route.metric:
        return msgspec.structs.replace(route, metric=_IPV6_DEFAULT_METRIC)
    return route


class FakeEvents:
    """Implements ``RtEvents``. A file descriptor that is readable while events wait, as with the socket.

    One thread may put what another one reads, as with the socket: then the descriptor may be readable once too often.
    """

    def __init__(self) -> None:
        self._queue: deque[Event] = deque()
        self._signal = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def put(self, event: Event) -> None:
        self._queue.append(event)
        os.eventfd_write(self._signal, 1)

    def fileno(self) -> int:
        return self._signal

    def read(self) -> list[Event]:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._signal)
        return [self._queue.popleft() for _ in range(len(self._queue))]

    def close(self) -> None:
        os.close(self._signal)


class FakeRtnetlink:
    """Implements ``Rtnetlink`` in memory. A new one has the loopback interface, up.

    ``ipip``: the kernel has IP-in-IP, as a module that is not loaded yet. Whoever asks for such an interface has it loaded, and with it
    comes ``tunl0``, which nobody can delete. ``vlans``: the kernel has VLAN interfaces.
    """

    def __init__(self, *, ipip: bool = False, vlans: bool = True) -> None:
        self._ipip = ipip
        self._vlans = vlans
        self.port = 4711
        self.executed: list[RtOp] = []
        self._links: dict[int, Link] = {1: Link(1, "lo", mtu=65536, up=True, carrier=True, running=True)}
        self._peers: dict[int, int] = {}
        self._addresses: dict[InterfaceAddress, None] = {}
        self._neighbours: dict[tuple[int, Prefix], Neighbour] = {}
        self._forwarding: dict[tuple[int, str], Forwarding] = {}
        self._routes: dict[RouteKey, Route] = {}
        self.rules: set[AddSourceRule] = set()
        self._interface_rules: set[InterfaceRule] = set()
        self._port_rules: set[PortRule] = set()
        self._next_index = 2
        self._listeners: list[FakeEvents] = []
        self._refusals: dict[type[RtOp], list[int]] = {}

    # --- knobs of tests

    def events(self) -> FakeEvents:
        """Hears everything that happens from now on."""
        listener = FakeEvents()
        self._listeners.append(listener)
        return listener

    def overrun(self) -> None:
        """Events were lost."""
        self._announce(Overrun())

    def refuse(self, kind: type[RtOp], code: int, times: int = 1) -> None:
        """The next ``times`` operations of this kind fail with this errno."""
        self._refusals.setdefault(kind, []).extend([code] * times)

    def stranger(self, *operations: RtOp) -> None:
        """Somebody else did this: events carry another sender and ``executed`` does not show it.

        Raises:
            KernelError: it is not possible.
        """
        for operation in operations:
            outcome = self._try(operation, sender=1)
            if outcome is not None:
                raise outcome

    def index_of(self, name: str) -> int:
        """The index of the interface of this name (``StopIteration`` when absent: a mistake of the test)."""
        return next(index for index, link in self._links.items() if link.name == name)

    # --- Rtnetlink

    def close(self) -> None:
        """Nothing is held."""

    def execute(self, operations: Sequence[RtOp]) -> list[KernelError | None]:
        self.executed += operations
        return [self._try(operation, sender=self.port) for operation in operations]

    def links(self) -> list[Link]:
        return [self._links[index] for index in sorted(self._links)]

    def link(self, name: str) -> Link | None:
        return next((link for link in self._links.values() if link.name == name), None)

    def addresses(self) -> list[InterfaceAddress]:
        return list(self._addresses)

    def neighbours(self) -> list[Neighbour]:
        return list(self._neighbours.values())

    def forwarding(self, index: int) -> list[Forwarding]:
        return [entry for entry in self._forwarding.values() if entry.index == index]

    def routes(self, *, protocol: int = 0, table: int = MAIN_TABLE) -> list[Route]:
        return [route for route in self._routes.values() if route.table == table and protocol in (0, route.protocol)]

    def interface_rules(self, table: int) -> list[InterfaceRule]:
        return sorted(rule for rule in self._interface_rules if rule.table == table)

    def port_rules(self) -> list[PortRule]:
        """The rules about ports."""
        return sorted(self._port_rules)

    # --- execution

    def _announce(self, event: Event) -> None:
        for listener in self._listeners:
            listener.put(event)

    def _try(self, operation: RtOp, sender: int) -> KernelError | None:
        refusals = self._refusals.get(type(operation))
        try:
            if refusals:
                raise _Refused(refusals.pop(0))
            self._execute(operation, sender)
        except _Refused as refused:
            return KernelError(refused.code, describe(operation))
        return None

    def _execute(self, operation: RtOp, sender: int) -> None:
        match operation:
            case AddVeth():
                self._add_veth(operation)
            case AddVxlan() | AddIpip():
                self._add_tunnel(operation)
            case AddVlan():
                self._add_vlan(operation)
            case SetAlias(name, alias):
                _need(any(link.name == name for link in self._links.values()), errno.ENODEV)
                self._set_alias(self.index_of(name), alias)
            case DeleteLink(name, index):
                _need(index == 0 or index in self._links, errno.ENODEV)
                self._delete_link(self._links[index].name if index else name)
            case SetLink():
                self._set_link(operation)
            case AddAddress(address):
                _need(address.index in self._links, errno.ENODEV)
                self._addresses[address] = None
                self._announce(AddressEvent(address, False))
            case DeleteAddress(address):
                _need(address.index in self._links, errno.ENODEV)
                _need(address in self._addresses, errno.EADDRNOTAVAIL)
                self._drop_address(address)
            case SetNeighbour(neighbour):
                _need(neighbour.index in self._links, errno.ENODEV)
                self._neighbours[neighbour.index, neighbour.address] = neighbour
                self._announce(NeighbourEvent(neighbour, False))
            case DeleteNeighbour(neighbour):
                _need(neighbour.index in self._links, errno.ENODEV)
                _need((neighbour.index, neighbour.address) in self._neighbours, errno.ENOENT)
                self._announce(NeighbourEvent(self._neighbours.pop((neighbour.index, neighbour.address)), True))
            case SetForwarding(entry) | DeleteForwarding(entry):
                self._change_forwarding(entry, gone=isinstance(operation, DeleteForwarding))
            case AddRoute(route) | ReplaceRoute(route):
                self._check_hops(route)
                route = _as_kernel(route)
                _need(isinstance(operation, ReplaceRoute) or _route_key(route) not in self._routes, errno.EEXIST)
                self._routes[_route_key(route)] = route
                self._announce(RouteEvent(route, False, sender))
            case DeleteRoute(route):
                self._delete_route(_as_kernel(route), sender)
            case AddSourceRule():
                _need(operation not in self.rules, errno.EEXIST)
                self.rules.add(operation)
            case AddInterfaceRule(rule):
                _need(rule not in self._interface_rules, errno.EEXIST)
                self._interface_rules.add(rule)
            case DeleteInterfaceRule(rule):
                _need(rule in self._interface_rules, errno.ENOENT)
                self._interface_rules.remove(rule)
            case AddPortRule(port_rule):
                _need(port_rule not in self._port_rules, errno.EEXIST)
                self._port_rules.add(port_rule)
            case DeletePortRule(port_rule):
                _need(port_rule in self._port_rules, errno.ENOENT)
                self._port_rules.remove(port_rule)
            case _:
                raise TypeError(f"not an rtnetlink operation: {operation!r}")

    def _add_veth(self, operation: AddVeth) -> None:
        names = {link.name for link in self._links.values()}
        _need(operation.name not in names, errno.EEXIST)
        here = operation.peer_namespace is None
        _need(not here or operation.peer_name not in names | {operation.name}, errno.EEXIST)
        _need(operation.index not in self._links, errno.EEXIST)
        _need(not here or operation.peer_index not in self._links, errno.EBUSY)
        mtu = operation.mtu or 1500
        peer = _ELSEWHERE
        if here:
            peer = self._new_link(operation.peer_name, operation.peer_mac, mtu, operation.peer_index)
        index = self._new_link(operation.name, operation.mac, mtu, operation.index)
        self._peers[index] = peer
        if here:
            self._peers[peer] = index
            self._change(peer, peer_index=index)
        self._change(index, peer_index=peer if here else 2)

    def _add_tunnel(self, operation: AddVxlan | AddIpip) -> None:
        if isinstance(operation, AddIpip):
            self._load_ipip()
            raise _Refused(errno.EEXIST)
        _need(operation.name not in {link.name for link in self._links.values()}, errno.EEXIST)
        wanted = operation.vxlan
        others = [link.vxlan for link in self._links.values() if link.vxlan is not None]
        family = wanted.local.family if wanted.local is not None else IPV4
        taken = any(
            (other.vni, other.port) == (wanted.vni, wanted.port) and (other.local.family if other.local else IPV4) == family
            for other in others
        )
        _need(not taken, errno.EEXIST)
        index = self._new_link(operation.name, operation.mac, operation.mtu, 0)
        self._links[index] = msgspec.structs.replace(self._links[index], kind="vxlan", vxlan=wanted)
        self._peers[index] = _ELSEWHERE
        self._announce(LinkEvent(self._links[index], False))

    def _add_vlan(self, operation: AddVlan) -> None:
        _need(self._vlans, errno.EOPNOTSUPP)
        _need(operation.name not in {link.name for link in self._links.values()}, errno.EEXIST)
        _need(operation.parent in self._links, errno.ENODEV)
        _need(all(link.vlan != operation.tag for link in self._vlans_on(operation.parent)), errno.EEXIST)
        parent = self._links[operation.parent]
        _need(parent.name != "lo", errno.EOPNOTSUPP)
        index = self._new_link(operation.name, parent.mac, parent.mtu, 0)
        self._peers[index] = _ELSEWHERE
        self._change(index, kind="vlan", peer_index=parent.index, vlan=operation.tag)

    def _vlans_on(self, parent: int) -> list[Link]:
        return [link for link in self._links.values() if link.kind == "vlan" and link.peer_index == parent]

    def _load_ipip(self) -> None:
        """The kernel's own interface is there; it is to anywhere, and there is no second one to anywhere."""
        _need(self._ipip, errno.EOPNOTSUPP)
        if not any(link.kind == "ipip" for link in self._links.values()):
            index = self._new_link("tunl0", "", 1480, 0)
            self._links[index] = Link(index, "tunl0", mtu=1480, kind="ipip")
            self._peers[index] = _ELSEWHERE
            self._announce(LinkEvent(self._links[index], False))

    def _change_forwarding(self, entry: Forwarding, *, gone: bool) -> None:
        _need(entry.index in self._links, errno.ENODEV)
        _need(self._links[entry.index].kind == "vxlan", errno.EINVAL)
        key = (entry.index, entry.mac)
        if gone:
            _need(self._forwarding.get(key) == entry, errno.ENOENT)
            del self._forwarding[key]
        else:
            self._forwarding[key] = entry
        self._announce(ForwardingEvent(entry, gone))

    def _new_link(self, name: str, mac: str, mtu: int, wanted: int) -> int:
        index = wanted or self._next_index
        self._next_index = max(self._next_index, index) + 1
        self._links[index] = Link(index, name, mac or f"02:00:00:00:{index >> 8 & 255:02x}:{index & 255:02x}", mtu, kind="veth")
        return index

    def _delete_link(self, name: str) -> None:
        index = next((link.index for link in self._links.values() if link.name == name), 0)
        _need(index > 0, errno.ENODEV)
        _need(index in self._peers, errno.EOPNOTSUPP)
        if self._links[index].kind == "ipip":
            return  # the kernel says yes, and does nothing
        for gone in (index, self._peers[index]):
            if gone != _ELSEWHERE:
                for child in self._vlans_on(gone):
                    self._delete_link(child.name)
                self._flush(gone)
                for address in [address for address in self._addresses if address.index == gone]:
                    self._drop_address(address)
                del self._peers[gone]
                link = self._links.pop(gone)
                self._forwarding = {key: entry for key, entry in self._forwarding.items() if entry.index != gone}
                self._announce(LinkEvent(msgspec.structs.replace(link, up=False, carrier=False, running=False), True))

    def _set_link(self, operation: SetLink) -> None:
        _need(operation.index in self._links, errno.ENODEV)
        others = {link.name for link in self._links.values() if link.index != operation.index}
        _need(operation.name not in others, errno.EEXIST)
        if operation.name:
            self._change(operation.index, name=operation.name)
        if operation.mac:
            self._change(operation.index, mac=operation.mac)
        if operation.mtu:
            self._change(operation.index, mtu=operation.mtu)
        if operation.alias is not None:
            self._set_alias(operation.index, operation.alias)
        if operation.up is not None and operation.up != self._links[operation.index].up:
            self._change(operation.index, up=operation.up)
            if not operation.up:
                self._flush(operation.index)
            self._settle_carrier(operation.index)
        if operation.namespace is not None:
            self._flush(operation.index)
            self._announce(LinkEvent(self._links.pop(operation.index), True))

    def _change(self, index: int, **changes: object) -> None:
        self._links[index] = msgspec.structs.replace(self._links[index], **changes)
        self._announce(LinkEvent(self._links[index], False))

    def _set_alias(self, index: int, alias: str) -> None:
        if self._links[index].up:
            self._change(index, alias=alias)
        else:
            self._links[index] = msgspec.structs.replace(self._links[index], alias=alias)

    def _settle_carrier(self, index: int) -> None:
        """A veth has carrier when both of its ends are up, a VLAN interface follows a parent that is up."""
        peer = self._peers.get(index)
        if peer is None:
            return
        link = self._links[index]
        if link.kind == "vlan":
            carrier = link.up and self._links[link.peer_index].carrier
        else:
            carrier = link.up and (peer == _ELSEWHERE or self._links[peer].up)
        for end in (index, peer):
            if end != _ELSEWHERE and self._links[end].carrier != carrier:
                self._change(end, carrier=carrier, running=carrier)
                for child in self._vlans_on(end) if self._links[end].up else ():
                    self._settle_carrier(child.index)

    def _flush(self, index: int) -> None:
        """What goes when an interface goes down: neighbours, routes (IPv4 ones silently), IPv6 addresses."""
        for neighbour in [neighbour for neighbour in self._neighbours.values() if neighbour.index == index]:
            self._announce(NeighbourEvent(self._neighbours.pop((index, neighbour.address)), True))
        for route in [route for route in self._routes.values() if any(hop.index == index for hop in route.hops)]:
            del self._routes[_route_key(route)]
            if route.destination.family == IPV6:
                self._announce(RouteEvent(route, True, 0))
        for address in [address for address in self._addresses if address.index == index and address.address.family == IPV6]:
            self._drop_address(address)

    def _drop_address(self, address: InterfaceAddress) -> None:
        del self._addresses[address]
        self._announce(AddressEvent(address, True))

    def _check_hops(self, route: Route) -> None:
        _need(bool(route.hops) == (route.kind == RouteKind.UNICAST), errno.EINVAL)
        for hop in route.hops:
            if hop.gateway is not None and hop.on_link:
                _need(hop.index in self._links, errno.ENODEV)
                _need(self._links[hop.index].up, errno.ENETDOWN)
            elif hop.gateway is not None:
                unreachable = errno.ENETUNREACH if hop.gateway.family == IPV4 else errno.EHOSTUNREACH
                _need(self._reaches(hop), unreachable)
            else:
                _need(hop.index in self._links, errno.ENODEV)
                _need(self._links[hop.index].up, errno.ENETDOWN)

    def _reaches(self, hop: Hop) -> bool:
        """True when the gateway is on the link of an interface that is up: by an address's subnet or a route without gateway."""
        gateway = hop.gateway
        assert gateway is not None
        subnets = [(a.index, a.address.value >> a.address.bits - a.length, a) for a in self._addresses]
        near = {i for i, net, a in subnets if a.address.family == gateway.family and gateway.value >> gateway.bits - a.length == net}
        for route in self._routes.values():
            if route.destination.contains(gateway):
                near |= {other.index for other in route.hops if other.gateway is None}
        if gateway.family == IPV6 and gateway.value >> 118 == 0x3FA and hop.index in self._links:
            near.add(hop.index)
        up = {index for index in near if self._links[index].up}
        return hop.index in up if hop.index else bool(up)

    def _delete_route(self, route: Route, sender: int) -> None:
        held = self._routes.get(_route_key(route))
        if held is None or held.kind != route.kind or route.protocol not in (0, held.protocol):
            raise _Refused(errno.ESRCH)
        del self._routes[_route_key(route)]
        self._announce(RouteEvent(held, True, sender))

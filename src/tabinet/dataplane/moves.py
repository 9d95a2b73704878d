"""``MoveManager``: routes for machines that move: in on the target before they run there, onwards from the source after they have left.

In: ``EndpointUpdate`` and ``EndpointRemove``, events of the kernel. Out: ``apply`` makes the routes so; ``arriving``: interfaces on which a
machine is expected. A machine's own route, which BGP announces, is the workload manager's, as is the one that takes its place when the
machine has left; the routes of arrivals are announced to nobody (protocol 86).

- On the target, before the machine runs there, a table of its own leads to its interface, and rules send there what comes in from the
  fabric: that is what the source passes on from the moment at which the machine stops. What the target itself and its workloads send goes
  on to the source, where the machine still runs. Packets that are early wait in the TAP's queue.
- Between the two, once the source has told that the machine has stopped, the target has its addresses as if it ran there, for everybody:
  what the target's own workloads send would come back from the source, and be dropped. Packets wait as before.
- On the source, once the machine has left, its addresses are routed to the target's address, if that is on one of the host's links, so that
  no router between the two could loop them back. This detour is announced like the route that it replaces, and stays for a while after the
  endpoint is gone: routes that BGP has not carried yet cost nothing but a way around. It ends at once with the machine's other endpoint:
  that host would have nothing but our announcement, and send everything back.

Cost: O(1) for an endpoint that does not move; what is moving is looked at as a whole. It reads the kernel only while something moves, and
once at the start. Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from tabinet.calc.messages import Endpoint, EndpointRemove, EndpointUpdate, Place
from tabinet.dataplane.routes.driver import RouteDriver
from tabinet.dataplane.ways import destinations, next_hop
from tabinet.dataplane.workloads import WorkloadManager
from tabinet.errors import KernelError
from tabinet.kernel.rtnetlink import (
    TABINET_ARRIVAL_PROTOCOL,
    AddInterfaceRule,
    AddressEvent,
    DeleteInterfaceRule,
    Event,
    InterfaceAddress,
    InterfaceRule,
    Link,
    LinkEvent,
    Overrun,
    Rtnetlink,
    RtOp,
)
from tabinet.lib.ip import Prefix
from tabinet.model.keys import ResourceKey

ARRIVALS_TABLE = 8600
RULE_PRIORITY = 8600
Way = tuple[Prefix, int]
"""Gateway and interface."""


class Expected(msgspec.Struct, frozen=True, gc=False):
    """A machine is expected on this interface."""

    index: int
    mac: str
    """Empty when unknown."""
    hardware: str = ""
    """The interface's own."""
    running: bool = False
    """It takes packets, which wait there for the machine."""


class Detour(msgspec.Struct, frozen=True, gc=False):
    """How an address of an endpoint that is gone is reached."""

    way: Way
    to: ResourceKey
    """The machine's other endpoint."""
    until_s: float


@dataclass(slots=True)
class MoveManager:
    """All machines that move, on one host."""

    rtnetlink: Rtnetlink
    workloads: WorkloadManager
    prefixes: tuple[str, ...]
    """Of workloads' interfaces."""
    clock: Callable[[], float]
    linger_s: float = 30.0
    """How long a detour outlives its endpoint."""
    _table: RouteDriver = field(init=False)
    _moving: dict[ResourceKey, Endpoint] = field(default_factory=dict)
    _lingering: dict[Prefix, Detour] = field(default_factory=dict)
    _links: dict[int, Link] = field(default_factory=dict)
    _known: bool = False
    """Links and addresses are as the kernel has them."""
    _addresses: tuple[InterfaceAddress, ...] = ()
    _dirty: bool = True

    def __post_init__(self) -> None:
        self._table = RouteDriver(self.rtnetlink, TABINET_ARRIVAL_PROTOCOL, table=ARRIVALS_TABLE)

    # --- in

    def on_endpoint_update(self, update: EndpointUpdate) -> None:
        """The endpoint is local, and as the message says."""
        if update.endpoint.migration is not None:
            self._moving[update.key] = update.endpoint
            for net in (*update.endpoint.nets, *update.endpoint.routed):
                self._lingering.pop(net, None)
            self._dirty = True
        elif self._moving.pop(update.key, None) is not None:
            self._dirty = True
        for net in destinations(update.endpoint) if self._lingering else ():
            self._dirty = self._lingering.pop(net, None) is not None or self._dirty

    def on_endpoint_remove(self, remove: EndpointRemove) -> None:
        """The endpoint is not on this host."""
        endpoint = self._moving.pop(remove.key, None)
        if endpoint is None:
            return
        self._dirty = True
        migration = endpoint.migration
        if migration is not None and migration.place in (Place.LEFT, Place.DEPARTING):
            # Departing: its new binding became active before anybody saw it there.
            until_s = self.clock() + self.linger_s
            self._lingering |= {net: Detour(way, migration.other_end, until_s) for net, way in self._ways(endpoint).items()}

    def end_detour(self, to: ResourceKey) -> None:
        """This endpoint, to which machines from here may have gone, is no more: the other host would send back what is passed on."""
        ended = [net for net, detour in self._lingering.items() if detour.to == to]
        for net in ended:
            del self._lingering[net]
        self._dirty = self._dirty or bool(ended)

    def on_event(self, event: Event) -> None:
        """The kernel's state is as the event says."""
        match event:
            case Overrun():
                self._known, self._dirty = False, True
                self._mark_stale()
            case LinkEvent():
                self._known = False
                self._dirty = self._dirty or bool(self._moving or self._lingering)
                self._mark_stale()
            case AddressEvent():
                self._known = False
                self._dirty = self._dirty or bool(self._moving)
            case _:
                self._table.on_event(event)

    def _mark_stale(self) -> None:
        """Interfaces take their routes along without a word."""
        if self._moving or self._lingering:
            self._table.mark_stale()

    # --- out

    @property
    def in_sync(self) -> bool:
        """True when ``apply`` would do nothing."""
        return not self._dirty and not self._expired()

    def arriving(self) -> dict[ResourceKey, Expected]:
        """Where a machine is expected: endpoints whose interface exists."""
        if not self._known:
            return {}
        named = {link.name: link for link in self._links.values()}
        return {
            key: Expected(link.index, endpoint.mac, link.mac, link.running and link.carrier)
            for key, endpoint in self._moving.items()
            if _is_expected(endpoint) and (link := named.get(endpoint.interface)) is not None
        }

    def prepare(self) -> None:
        """The workload manager knows which addresses go on to other hosts. Before its ``apply``, so that one route takes the other's place.

        Raises:
            KernelError: the kernel did not answer.
        """
        for net in self._expired():
            del self._lingering[net]
            self._dirty = True
        if not self._dirty:
            return
        if not self._known:
            self._links = {link.index: link for link in self.rtnetlink.links()}
            self._addresses = tuple(self.rtnetlink.addresses())
            self._known = True
        self._want_detours()

    def apply(self) -> int:
        """Routes and rules are as wanted; gives how many operations that took. After ``prepare``, and after interfaces were set up.

        Raises:
            KernelError: the kernel refused something; the next call tries again.
        """
        if not self._dirty:
            return 0
        self._want_table()
        errors: list[KernelError] = []
        operations = self._apply_rules(errors)
        result = self._table.apply()
        operations += len(result.operations)
        errors += result.errors.values()
        if errors:
            raise errors[0]
        self._dirty = False
        return operations

    def _expired(self) -> list[Prefix]:
        if not self._lingering:
            return []
        now_s = self.clock()
        return [net for net, detour in self._lingering.items() if detour.until_s <= now_s]

    def _want_detours(self) -> None:
        ways = {net: detour.way for net, detour in self._lingering.items()}
        for endpoint in self._moving.values():
            if _is(endpoint, Place.LEFT):
                ways |= self._ways(endpoint)
        self.workloads.detour(ways)

    def _want_table(self) -> None:
        names = {link.name: link.index for link in self._links.values()}
        indices = {
            net: (names[endpoint.interface], next_hop(endpoint, net))
            for endpoint in self._moving.values()
            if _is(endpoint, Place.ARRIVING) and endpoint.interface in names and self._links[names[endpoint.interface]].up
            for net in _held(endpoint)
        }
        for route in self._table.wanted():
            if route.destination not in indices:
                self._table.unwant(route.destination)
        for net, (index, gateway) in indices.items():
            if gateway is None:
                self._table.want(net, index)
            else:
                self._table.want_gateway(net, gateway, index)

    def _apply_rules(self, errors: list[KernelError]) -> int:
        families = {net.family for endpoint in self._moving.values() if _is(endpoint, Place.ARRIVING) for net in endpoint.nets}
        fabric = [link.name for link in self._links.values() if link.index != 1 and not link.name.startswith(self.prefixes)]
        wanted = {InterfaceRule(name, family, ARRIVALS_TABLE, RULE_PRIORITY) for name in fabric for family in families}
        actual = set(self.rtnetlink.interface_rules(ARRIVALS_TABLE))
        steps: list[RtOp] = [AddInterfaceRule(rule) for rule in sorted(wanted - actual)]
        steps += [DeleteInterfaceRule(rule) for rule in sorted(actual - wanted)]
        errors += [outcome for outcome in self.rtnetlink.execute(steps) if outcome is not None]
        return len(steps)

    def _ways(self, endpoint: Endpoint) -> dict[Prefix, Way]:
        """How its addresses are reached at the other end, as far as that is on one of our links."""
        migration = endpoint.migration
        if migration is None:
            return {}
        ways: dict[int, Way] = {}
        for address in migration.addresses:
            for own in self._addresses:
                if own.address.family == address.family and own.length < own.address.bits and _same_subnet(own, address):
                    ways[address.family] = (address, own.index)
        return {net: ways[net.family] for net in _held(endpoint) if net.family in ways}


def _held(endpoint: Endpoint) -> list[Prefix]:
    """What goes along with the machine: not what another one holds."""
    return [net for net in (*endpoint.nets, *endpoint.routed) if net not in endpoint.yields]


def _is(endpoint: Endpoint, place: Place) -> bool:
    return endpoint.migration is not None and endpoint.migration.place is place


def _is_expected(endpoint: Endpoint) -> bool:
    """True: the machine comes here, and was not seen yet."""
    return endpoint.migration is not None and endpoint.migration.is_expected


def _same_subnet(own: InterfaceAddress, address: Prefix) -> bool:
    return own.address.value >> own.address.bits - own.length == address.value >> own.address.bits - own.length

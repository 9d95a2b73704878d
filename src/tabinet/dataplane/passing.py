"""``PassingManager``: ports of floating addresses that are announced here and lead to other hosts are passed on to those.

In: ``EndpointUpdate`` and ``EndpointRemove``, events of the kernel. Out: ``apply`` makes rules and routes so; ``problems``.

What is for such a port is routed, as it is, to the other host, which translates it and asks its policy, with the client's own address, and
answers the client itself: no answer comes back this way, so nothing has to be remembered here, and the client's address need not be
hidden. A rule for each range of ports leads to a table for each other host, with one route. What comes from this host's own workloads goes
the same way.

The other host has to be on one of our links, or at the other end of a VXLAN tunnel: a router between the two would send every packet back.
Ports that lead to others are not passed on (they end at the local endpoint as ports that nobody forwards), and ``problems`` says so. ICMP
errors about what the other host answers come here, too, where nobody knows the flow.

Cost: O(1) for an endpoint that passes nothing on; what is passed on is looked at as a whole. The kernel asks rules one after the other, for
every packet that it routes. Not thread-safe.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tabinet.calc.messages import EndpointRemove, EndpointUpdate, ForwardElsewhere
from tabinet.dataplane.drift import Drift, DriftKind
from tabinet.dataplane.routes.driver import METRICS, RouteDriver
from tabinet.errors import KernelError
from tabinet.kernel.rtnetlink import (
    TABINET_ARRIVAL_PROTOCOL,
    AddPortRule,
    AddressEvent,
    DeletePortRule,
    Event,
    InterfaceAddress,
    LinkEvent,
    Overrun,
    PortRule,
    Rtnetlink,
    RtOp,
)
from tabinet.lib.ip import IPV4, IPV6, Prefix, parse_prefix
from tabinet.model.keys import ResourceKey

FIRST_TABLE = 8700
RULE_PRIORITY = 8700
ANYWHERE = {IPV4: parse_prefix("0.0.0.0/0"), IPV6: parse_prefix("::/0")}
Way = tuple[Prefix, int]
"""Gateway and interface."""


@dataclass(slots=True)
class PassingManager:
    """All ports of one host's floating addresses that lead to other hosts."""

    rtnetlink: Rtnetlink
    far: Callable[[str, int], Way | None] = lambda host, family: None
    """The way to a host through a tunnel."""
    problems: tuple[str, ...] = ()
    """What is not passed on, in words. As of the last ``apply``."""
    _wanted: dict[ResourceKey, tuple[ForwardElsewhere, ...]] = field(default_factory=dict)
    _tables: dict[Prefix, RouteDriver] = field(default_factory=dict)
    """By gateway."""
    _numbers: dict[Prefix, int] = field(default_factory=dict)
    """Their tables, by gateway."""
    _indices: set[int] = field(default_factory=set)
    """Interfaces that something is passed on through."""
    _made: set[PortRule] | None = None
    """The rules as of the last ``apply``; None: nobody has looked."""
    _dirty: bool = True

    # --- in

    def on_endpoint_update(self, update: EndpointUpdate) -> None:
        """The endpoint is local, and as the message says."""
        self._want(update.key, () if update.endpoint.is_away else update.endpoint.elsewhere)

    def on_endpoint_remove(self, remove: EndpointRemove) -> None:
        """The endpoint is not on this host."""
        self._want(remove.key, ())

    def _want(self, key: ResourceKey, wanted: tuple[ForwardElsewhere, ...]) -> None:
        before = self._wanted.pop(key, ())
        if wanted:
            self._wanted[key] = wanted
        self._dirty = self._dirty or wanted != before

    def look_again(self) -> None:
        """Tunnels may have changed."""
        self._dirty = self._dirty or bool(self._wanted)

    def on_event(self, event: Event) -> None:
        """The kernel's state is as the event says."""
        match event:
            case Overrun():
                self.mark_stale()
            case LinkEvent(link):
                if link.index in self._indices:
                    self.mark_stale()
            case AddressEvent():
                self.look_again()
            case _:
                for table in self._tables.values():
                    table.on_event(event)

    def mark_stale(self) -> None:
        """The next ``apply`` reads everything again: for a verification in the background."""
        for table in self._tables.values():
            table.mark_stale()
        self.look_again()

    # --- out

    @property
    def in_sync(self) -> bool:
        """True when ``apply`` would do nothing."""
        return not self._dirty and all(table.in_sync for table in self._tables.values())

    def apply(self) -> tuple[int, tuple[Drift, ...]]:
        """Rules and routes are as wanted; gives how many operations that took, and what somebody else had changed.

        Raises:
            KernelError: the kernel refused something; the next call tries again.
        """
        if self.in_sync:
            return 0, ()
        self._dirty = True
        actual = {rule for rule in self.rtnetlink.port_rules() if rule.priority == RULE_PRIORITY}
        drifts = self._drifts(actual)
        if self._made is None:
            self._adopt(actual)
        wanted = self._wanted_rules()
        used = {rule.table for rule in wanted}
        for gateway in self._tables:
            if self._numbers[gateway] not in used:
                self._tables[gateway].unwant(ANYWHERE[gateway.family])
        # A rule comes after the route that it leads to, and goes before it.
        rules: list[RtOp] = [DeletePortRule(rule) for rule in sorted(actual - wanted)]
        operations, errors = self._execute(rules)
        for table in self._tables.values():
            result = table.apply()
            operations += len(result.operations)
            drifts += result.drifts
            errors += [error for error in result.errors.values() if error.errno != errno.ENETDOWN]  # the link's event is another chance
        added, refused = self._execute([AddPortRule(rule) for rule in sorted(wanted - actual)])
        errors += refused
        if errors:
            raise errors[0]
        self._made, self._dirty = wanted, False
        for gateway in [gateway for gateway, number in self._numbers.items() if number not in used]:
            del self._tables[gateway], self._numbers[gateway]
        return operations + added, drifts

    def _execute(self, steps: list[RtOp]) -> tuple[int, list[KernelError]]:
        outcomes = self.rtnetlink.execute(steps) if steps else []
        return len(steps), [outcome for outcome in outcomes if outcome is not None]

    def _drifts(self, actual: set[PortRule]) -> tuple[Drift, ...]:
        if self._made is None or actual == self._made:
            return ()
        gone = ((rule, "is gone") for rule in sorted(self._made - actual))
        others = ((rule, "is not wanted") for rule in sorted(actual - self._made))
        return tuple(
            Drift(DriftKind.ROUTE, str(rule.destination), f"rule of port {rule.protocol}/{rule.first_port} {what}")
            for rule, what in (*gone, *others)
        )

    def _adopt(self, actual: set[PortRule]) -> None:
        """Tables that an agent before this one made are known by the routes in them."""
        for number in sorted({rule.table for rule in actual}):
            for route in self.rtnetlink.routes(protocol=TABINET_ARRIVAL_PROTOCOL, table=number):
                if route.hops and route.hops[0].gateway is not None:
                    self._open(route.hops[0].gateway, number)

    def _open(self, gateway: Prefix, number: int) -> None:
        self._numbers[gateway] = number
        self._tables[gateway] = RouteDriver(self.rtnetlink, TABINET_ARRIVAL_PROTOCOL, METRICS, number)

    def _wanted_rules(self) -> set[PortRule]:
        """The rules, with the routes in their tables wanted and the problems told. Of endpoints that want the same the smallest key's."""
        addresses = tuple(self.rtnetlink.addresses()) if self._wanted else ()
        rules: dict[tuple[Prefix, int, int, int], PortRule] = {}
        problems = []
        self._indices = set()
        for each in self._elsewhere():
            way = _way(each, addresses) or self.far(each.host, each.external.family)
            if way is None:
                ports = f"{each.protocol}/{each.first_port}" + (f"-{each.last_port}" if each.last_port > each.first_port else "")
                problems.append(f"port {ports} of {each.external.address} leads to host {each.host}: no link or VXLAN tunnel goes there")
                continue
            self._indices.add(way[1])
            place = (each.external, each.protocol, each.first_port, each.last_port)
            if place not in rules:
                rules[place] = PortRule(*place, self._table_of(*way), RULE_PRIORITY)
        self.problems = tuple(problems)
        return set(rules.values())

    def _elsewhere(self) -> Iterator[ForwardElsewhere]:
        for key in sorted(self._wanted):
            yield from self._wanted[key]

    def _table_of(self, gateway: Prefix, index: int) -> int:
        """The number of the table in which everything goes to the gateway."""
        if gateway not in self._numbers:
            taken = set(self._numbers.values())
            self._open(gateway, next(number for number in range(FIRST_TABLE, FIRST_TABLE + len(taken) + 1) if number not in taken))
        self._tables[gateway].want_gateway(ANYWHERE[gateway.family], gateway, index)
        return self._numbers[gateway]


def _way(each: ForwardElsewhere, addresses: tuple[InterfaceAddress, ...]) -> Way | None:
    """The host's address of the same family that is in a subnet of one of our links."""
    for address in each.addresses:
        for own in addresses:
            beyond = own.address.bits - own.length
            near = beyond and own.address.value >> beyond == address.value >> beyond
            if near and address.family == each.external.family == own.address.family:
                return address, own.index
    return None

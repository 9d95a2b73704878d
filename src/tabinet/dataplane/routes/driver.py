"""RouteDriver: the kernel's main table holds exactly the wanted routes of one protocol number, and everybody else's untouched.

There are two: of routes to workloads here (84), and of routes to other hosts (85). In: wanted destinations (``want``, ``unwant``), news of
the kernel (``on_event``, ``on_interface_lost``). Out: ``apply`` makes it so and says what it did and what failed. A driver with an empty
memory reads what is there and adopts it: when nothing differs it does nothing.

Invariants
- Only routes with our protocol number are replaced or deleted. A route is added exclusively, so that another's route of equal
  destination and metric is reported, never overwritten. The exception is a host that Calico ran: a route of Felix's that leads where ours
  would is made ours in one step, which no packet notices.
- What failed stays pending and is tried again by the next ``apply``; when to call it is for the caller's loop. That an interface has
  vanished is no failure: its event is on its way.
- The metrics of routes to workloads are the lowest the kernel has, so that they win over what BGP learned for the same address; those of
  routes to other hosts come next.

Cost: ``apply`` is linear in what is pending, O(1) when nothing is; reading is linear in our own routes and happens at the start, after lost
events, and when the kernel contradicts what we believe. It does not know workloads (``dataplane.workloads`` does). Not thread-safe.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping

import msgspec

from tabinet.dataplane.drift import Drift, DriftKind, Ledger
from tabinet.errors import KernelError
from tabinet.kernel.rtnetlink import (
    MAIN_TABLE,
    TABINET_PROTOCOL,
    AddRoute,
    DeleteRoute,
    Event,
    Hop,
    Overrun,
    ReplaceRoute,
    Route,
    RouteEvent,
    RouteKind,
    Rtnetlink,
    RtOp,
    device_route,
    is_gone,
)
from tabinet.lib.delta import DeltaTracker
from tabinet.lib.ip import IPV4, IPV6, Prefix

METRICS = {IPV4: 0, IPV6: 1}
"""The lowest metrics: 0 means 1024 for IPv6, which would lose against BIRD's 32."""
REMOTE_METRICS = {IPV4: 31, IPV6: 31}
"""Of routes to other hosts: they win over BIRD's while one takes the other's place."""
FELIX_PROTOCOLS = (80, 3)
"""Of routes that Calico's Felix makes: its own number, or that of routes made by hand (RTPROT_BOOT), as deviceRouteProtocol says."""


class RouteKey(msgspec.Struct, frozen=True, order=True, gc=False):
    """What the kernel tells routes of one table apart by."""

    destination: Prefix
    metric: int


class RouteChange(msgspec.Struct, frozen=True, gc=False):
    """One step: the operation and the route that is there afterwards."""

    key: RouteKey
    operation: RtOp
    result: Route | None


class RouteResult(msgspec.Struct, frozen=True):
    """What an ``apply`` did."""

    operations: tuple[RtOp, ...]
    """Sent to the kernel, whether they succeeded or not."""
    errors: dict[Prefix, KernelError]
    """By destination: still pending."""
    drifts: tuple[Drift, ...] = ()
    """What somebody else had changed."""


def local_route(destination: Prefix, index: int) -> Route:
    """The route to a workload behind the interface, as the driver of those wants it."""
    return device_route(destination, index, metric=METRICS[destination.family])


def plan(tracker: DeltaTracker[RouteKey, Route]) -> list[RouteChange]:
    """The steps from actual to desired: deletions, then what is new or other."""
    steps = [RouteChange(key, DeleteRoute(route), None) for key, route in tracker.to_delete()]
    for key, route in tracker.to_set():
        operation = ReplaceRoute(route) if key in tracker.actual else AddRoute(route)
        steps.append(RouteChange(key, operation, route))
    return steps


class RouteDriver:
    """Owns the routes of one protocol number in one network namespace."""

    def __init__(
        self, rtnetlink: Rtnetlink, protocol: int = TABINET_PROTOCOL, metrics: Mapping[int, int] = METRICS, table: int = MAIN_TABLE
    ) -> None:
        self._rtnetlink = rtnetlink
        self._protocol = protocol
        self._metrics = metrics
        self._table = table
        self._tracker: DeltaTracker[RouteKey, Route] = DeltaTracker()
        self._ledger: Ledger[RouteKey, Route] = Ledger()
        self._by_index: dict[int, set[RouteKey]] = {}
        self._stale = True
        self._unannounced: set[RouteKey] = set()
        """Routes that came to life without a word of the kernel."""
        self._dark: set[int] = set()
        """Interfaces that lost their carrier: their routes are dead, but everybody was told that they are not."""
        self._vanished: set[RouteKey] = set()
        """Routes that the last ``apply`` could not make because their interfaces were not there any more."""
        self.errors: dict[Prefix, KernelError] = {}
        """Of the last attempt, by destination; a destination that is applied or not wanted any more has none."""

    # --- desired

    def want(self, destination: Prefix, index: int) -> None:
        """Packets for the destination go out of the interface."""
        metric = self._metrics[destination.family]
        route = device_route(destination, index, metric=metric, protocol=self._protocol, table=self._table)
        self._tracker.set_desired(RouteKey(destination, metric), route)

    def want_gateway(self, destination: Prefix, gateway: Prefix, index: int) -> None:
        """Packets for the destination go to the gateway, which is on the interface's link whatever addresses say."""
        metric = self._metrics[destination.family]
        route = Route(destination, (Hop(index, gateway, on_link=True),), protocol=self._protocol, metric=metric, table=self._table)
        self._tracker.set_desired(RouteKey(destination, metric), route)

    def unwant(self, destination: Prefix) -> None:
        """We have no route to the destination."""
        self._tracker.drop_desired(RouteKey(destination, self._metrics[destination.family]))
        self.errors.pop(destination, None)

    def wanted(self) -> list[Route]:
        """All wanted routes."""
        return list(self._tracker.desired.values())

    def holds(self, destination: Prefix) -> bool:
        """True when the kernel has the wanted route, as far as we know."""
        key = RouteKey(destination, self._metrics[destination.family])
        wanted = self._tracker.desired.get(key)
        return wanted is not None and not self._stale and self._tracker.actual.get(key) == wanted

    @property
    def in_sync(self) -> bool:
        """True when ``apply`` would do nothing."""
        return not self._stale and not self._unannounced and self._tracker.in_sync

    # --- actual

    def on_event(self, event: Event) -> None:
        """The kernel's state is as the event says. What we caused ourselves is known already: its news may be older than what we know."""
        match event:
            case Overrun():
                self._stale = True
            case RouteEvent(route, gone, sender) if sender != self._rtnetlink.port and self._is_ours(route):
                if gone:
                    self._drop_actual(_key(route))
                else:
                    self._set_actual(_key(route), route)
            case _:
                pass

    def on_interface_lost(self, index: int) -> None:
        """The interface went down or away, and the kernel took its routes along, most of them without a word."""
        self._dark.discard(index)
        for key in list(self._by_index.get(index, ())):
            self._drop_actual(key)
            self._ledger.forget(key)

    def on_carrier(self, index: int) -> None:
        """The interface got a carrier. Its routes are announced anew by the next ``apply``.

        A route that is made while the interface has none is announced as dead where dead links are not used
        (ignore_routes_with_linkdown), and comes to life without another word: BIRD would know it at its next scan only.
        """
        self._unannounced |= self._by_index.get(index, set())
        self._dark.discard(index)

    def on_carrier_lost(self, index: int) -> None:
        """The interface has no carrier any more."""
        self._dark.add(index)

    def mark_stale(self) -> None:
        """The next ``apply`` reads everything again: for a verification in the background."""
        self._stale = True

    def resync(self) -> None:
        """What is there was read.

        Raises:
            KernelError: it could not be.
        """
        routes = {
            _key(route): route for route in self._rtnetlink.routes(protocol=self._protocol, table=self._table) if self._is_ours(route)
        }
        self._tracker.replace_actual(routes)
        self._by_index = {}
        for key, route in routes.items():
            self._index(key, route)
        self._stale = False

    def _is_ours(self, route: Route) -> bool:
        return route.protocol == self._protocol and route.table == self._table

    def _set_actual(self, key: RouteKey, route: Route) -> None:
        self._drop_actual(key)
        self._tracker.set_actual(key, route)
        self._index(key, route)

    def _drop_actual(self, key: RouteKey) -> None:
        route = self._tracker.actual.get(key)
        if route is None:
            return
        self._tracker.drop_actual(key)
        for hop in route.hops:
            keys = self._by_index.get(hop.index, set())
            keys.discard(key)
            if not keys:
                self._by_index.pop(hop.index, None)

    def _index(self, key: RouteKey, route: Route) -> None:
        for hop in route.hops:
            self._by_index.setdefault(hop.index, set()).add(key)

    # --- reconciliation

    def apply(self) -> RouteResult:
        """The kernel has the wanted routes, but for those in ``errors``.

        Raises:
            KernelError: the kernel could not be asked; what it has now is read again by the next call.
        """
        reading = self._stale
        if reading:
            self.resync()
        drifted = self._ledger.drifted(self._tracker)
        self.errors, self._vanished = {}, set()
        operations, surprised = self._execute([*self._announcements(), *self._audibly(plan(self._tracker))])
        if surprised:  # what we believed is not so: believe the kernel, and try once more
            self.resync()
            inherited = self._inherited()
            self.errors = {}
            steps = plan(self._tracker)
            more, _ = self._execute([_taken_over(step) if step.key in inherited else step for step in steps])
            operations += more
        if reading:
            self._ledger.note(self._tracker)
        drifts = (Drift(DriftKind.ROUTE, str(key.destination), text) for key, text in drifted if key not in self._vanished)
        return RouteResult(tuple(operations), dict(self.errors), tuple(drifts))

    def _inherited(self) -> set[RouteKey]:
        """Of the routes that could not be added: those in whose place Felix has one to the same. O(Felix's routes)."""
        keys = {RouteKey(destination, self._metrics[destination.family]) for destination in self.errors}
        found: set[RouteKey] = set()
        for protocol in FELIX_PROTOCOLS:
            for route in self._rtnetlink.routes(protocol=protocol, table=self._table):
                key, wanted = _key(route), self._tracker.desired.get(_key(route))
                if key in keys and wanted is not None and (route.kind, route.hops) == (wanted.kind, wanted.hops):
                    found.add(key)
        return found

    def _announcements(self) -> list[RouteChange]:
        """Takes routes away and makes them again: replacing a route by itself is not announced (fib_table_insert).

        All are taken away before the first is made. IPv4 routes over one interface share what the kernel knows of their next hop
        (fib_find_info), also that it is dead, which a worker of the kernel puts right only some time after the carrier came.
        """
        keys, self._unannounced = self._unannounced, set()
        actual, desired = self._tracker.actual, self._tracker.desired
        again = [(key, actual[key]) for key in sorted(keys) if key in actual and desired.get(key) == actual[key]]
        gone = [RouteChange(key, DeleteRoute(route), None) for key, route in again]
        return gone + [RouteChange(key, AddRoute(route), route) for key, route in again]

    def _audibly(self, steps: list[RouteChange]) -> list[RouteChange]:
        """Removals are heard: of a dead route they are announced as being about a dead route, and BIRD takes no notice of those, so that it
        would go on announcing the route until its next scan. Such a route becomes a blackhole first, which is never dead."""
        if not self._dark:
            return steps
        found = []
        for step in steps:
            route = self._tracker.actual.get(step.key)
            if step.result is None and route is not None and any(hop.index in self._dark and hop.gateway is None for hop in route.hops):
                hole = Route(route.destination, (), RouteKind.BLACKHOLE, protocol=route.protocol, metric=route.metric, table=route.table)
                found += [RouteChange(step.key, ReplaceRoute(hole), hole), RouteChange(step.key, DeleteRoute(hole), None)]
            else:
                found.append(step)
        return found

    def _execute(self, steps: list[RouteChange]) -> tuple[list[RtOp], bool]:
        """Executes the steps; also says whether one of them met something that should not have been there."""
        operations = [step.operation for step in steps]
        if not steps:
            return operations, False
        try:
            outcomes = self._rtnetlink.execute(operations)
        except KernelError:
            self._stale = True
            raise
        surprised = False
        for step, outcome in zip(steps, outcomes, strict=True):
            if outcome is not None and self._has_vanished(step, outcome):
                self._ledger.forget(step.key)
                self._vanished.add(step.key)
                continue
            if outcome is not None and not _already_gone(step, outcome):
                self.errors[step.key.destination] = outcome
                surprised = surprised or outcome.errno == errno.EEXIST
                continue
            self.errors.pop(step.key.destination, None)
            if step.result is None:
                self._drop_actual(step.key)
                self._ledger.forget(step.key)
            else:
                self._set_actual(step.key, step.result)
                self._ledger.made(step.key, step.result)
        return operations, surprised

    def _has_vanished(self, step: RouteChange, outcome: KernelError) -> bool:
        """The route cannot be made because an interface of its hops is not there any more."""
        if step.result is None or outcome.errno not in (errno.ENODEV, errno.ENETDOWN):
            return False
        return any(is_gone(self._rtnetlink, hop.index) for hop in step.result.hops if hop.index)


def _taken_over(step: RouteChange) -> RouteChange:
    """The same step where another's route is in the place: it becomes ours, without a moment between."""
    match step.operation:
        case AddRoute(route):
            return RouteChange(step.key, ReplaceRoute(route), route)
        case _:
            return step


def _already_gone(step: RouteChange, outcome: KernelError) -> bool:
    return step.result is None and outcome.errno == errno.ESRCH


def _key(route: Route) -> RouteKey:
    return RouteKey(route.destination, route.metric)

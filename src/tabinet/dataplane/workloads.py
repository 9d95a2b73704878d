"""WorkloadManager: from endpoints and the interfaces that exist to routes and set-up interfaces, and to what each endpoint's state is.

In: ``EndpointUpdate`` and ``EndpointRemove`` of the calculation, events of the kernel. Out: the desired state of the two drivers, ``apply``
(which runs them), ``status`` of each endpoint, and ``take_changed``: whose status to look at again.

Invariants
- Everything here is a function of the endpoints and of the interfaces that exist, not of the order in which they came.
- An endpoint without interface has no route. When the interface appears it gets everything in one ``apply``: the interface is set
  up first, because the kernel takes no route over an interface that is down.
- Of several endpoints that claim an interface, the one with the smallest key has it; of those that have an interface and claim an
  address, the one with the smallest key has the route. The others are reported, not served; allowed address pairs may be several's.
- The interface of a trunk's subport is a VLAN interface on that of its parent, and counts only while it is.
- Nothing is changed before ``begin``: an agent that has just started knows too little to remove anything.

Cost: O(1) for each endpoint update and interface event (linear in the endpoint's addresses and rivals); reading everything happens
at the start and after lost events. It knows nothing of policy: an agent reports an endpoint up only when the policy driver agrees.
Not thread-safe: all calls, events included, come from the thread that owns the kernel sockets.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from tabinet.calc.messages import Endpoint, EndpointRemove, EndpointUpdate
from tabinet.dataplane.drift import Drift
from tabinet.dataplane.links.driver import HOST, LinkDriver, LinkResult
from tabinet.dataplane.links.items import Item
from tabinet.dataplane.links.vlans import Vlan, VlanDriver, VlanResult
from tabinet.dataplane.routes.driver import RouteDriver, RouteResult
from tabinet.dataplane.ways import destinations, hardware_of, next_hop, shared_destinations
from tabinet.errors import KernelError
from tabinet.kernel.rtnetlink import Event, Link, LinkEvent, Overrun, Route
from tabinet.lib.ip import Prefix
from tabinet.lib.refcount import RefCounter
from tabinet.model.keys import ResourceKey

C = TypeVar("C", str, Prefix)


class EndpointState(msgspec.Struct, frozen=True, gc=False):
    """Whether the kernel has the routes and the interface of an endpoint."""

    ready: bool
    reason: str = ""
    """Why it is not, for people; empty when it is."""
    failed: bool = False
    """The kernel refused something of it."""


class ApplyResult(msgspec.Struct, frozen=True):
    """What an ``apply`` did."""

    links: LinkResult
    routes: RouteResult
    vlans: VlanResult = VlanResult()

    @property
    def operations(self) -> int:
        """How many things were changed, or tried to."""
        return len(self.links.changed) + len(self.routes.operations) + len(self.vlans.changed)

    @property
    def drifts(self) -> tuple[Drift, ...]:
        """What somebody else had changed."""
        return (*self.vlans.drifts, *self.links.drifts, *self.routes.drifts)

    @property
    def failed(self) -> bool:
        """True when something is left to do: call again, later."""
        return bool(self.errors)

    @property
    def errors(self) -> list[KernelError]:
        """What the kernel refused."""
        return [*self.vlans.errors.values(), *self.links.errors.values(), *self.routes.errors.values()]


class WorkloadManager:
    """Desired state of routes and links for the local endpoints of one host."""

    def __init__(self, links: LinkDriver, routes: RouteDriver, vlans: VlanDriver) -> None:
        self._link_driver = links
        self._route_driver = routes
        self._vlan_driver = vlans
        self._endpoints: dict[ResourceKey, Endpoint] = {}
        self._interface_claims: dict[str, set[ResourceKey]] = {}
        self._address_claims: dict[Prefix, set[ResourceKey]] = {}
        self._links: dict[int, Link] = {}
        self._index: dict[str, int] = {}
        self._host_addresses: tuple[Prefix, ...] = ()
        self._detours: dict[Prefix, tuple[Prefix, int]] = {}
        self._gateways: RefCounter[Prefix] = RefCounter()
        """Addresses that endpoints use as their gateway."""
        self._host_stale = True
        """The host may want other addresses than the driver knows."""
        self._stale = True
        self._begun = False
        self._changed: set[ResourceKey] = set()
        self._waiting: set[ResourceKey] = set()
        """Endpoints that were not ready when they were last taken: any work of ``apply`` may have been for them."""
        self._to_check: list[int] = []
        """Interfaces that this round of ``recheck`` has yet to look at."""

    # --- in: what the store says

    def on_endpoint_update(self, update: EndpointUpdate) -> None:
        """The endpoint is local, and as the message says."""
        self._replace(update.key, update.endpoint)

    def on_endpoint_remove(self, remove: EndpointRemove) -> None:
        """The endpoint is not on this host."""
        self._replace(remove.key, None)

    def want_host_addresses(self, addresses: tuple[Prefix, ...]) -> None:
        """The host has these, beside the gateway's, towards its workloads: from the next ``begin`` on."""
        self._host_stale = self._host_stale or addresses != self._host_addresses
        self._host_addresses = addresses

    def detour(self, ways: dict[Prefix, tuple[Prefix, int]]) -> None:
        """Addresses of machines that have left, with the gateway and interface by which they are reached: routed there where nobody here
        has them, and announced as before."""
        concerned = {net for net in self._detours.keys() | ways.keys() if self._detours.get(net) != ways.get(net)}
        self._detours = ways
        for net in concerned:
            self._settle_address(net)

    def begin(self) -> None:
        """The endpoints are complete: from now on ``apply`` acts, and what belongs to no endpoint goes."""
        self._begun = True
        if self._host_stale:
            # A gateway that is a workload itself stays where it is.
            gateways = (address for address in self._gateways if address not in self._address_claims)
            self._link_driver.want_host(dict.fromkeys((*self._host_addresses, *gateways)))
            self._host_stale = False

    def _replace(self, key: ResourceKey, endpoint: Endpoint | None) -> None:
        before = self._endpoints.get(key)
        versions = [version for version in (before, endpoint) if version is not None]
        interfaces = {version.interface for version in versions}
        rivals = {key} | {rival for name in interfaces for rival in self._interface_claims.get(name, ())}
        if before is not None:
            _withdraw(self._interface_claims, before.interface, key)
            for net in destinations(before):
                _withdraw(self._address_claims, net, key)
            if before.gateway4 is not None and self._gateways.drop(before.gateway4):
                self._host_stale = True
            del self._endpoints[key]
        if endpoint is not None:
            self._endpoints[key] = endpoint
            self._interface_claims.setdefault(endpoint.interface, set()).add(key)
            for net in destinations(endpoint):
                self._address_claims.setdefault(net, set()).add(key)
            if endpoint.gateway4 is not None and self._gateways.add(endpoint.gateway4):
                self._host_stale = True
        nets = {net for version in versions for net in (*version.nets, *version.routed)}
        self._host_stale = self._host_stale or any(net in self._gateways for net in nets)
        for name in interfaces:
            self._settle_vlan(name)
        self._settle(rivals, nets)
        if before is not None:
            self._settle_interface(before.interface)
        if endpoint is None:
            self._changed.discard(key)

    # --- in: what the kernel says

    def on_event(self, event: Event) -> None:
        """The kernel's state is as the event says."""
        self._route_driver.on_event(event)
        self._link_driver.on_event(event)
        self._vlan_driver.on_event(event)
        match event:
            case Overrun():
                self._stale = True
            case LinkEvent(link, gone):
                self._on_link(link, gone)
            case _:
                pass

    def _on_link(self, link: Link, gone: bool) -> None:
        before = self._links.get(link.index)
        if before is not None and before.up and (gone or not link.up):
            self._route_driver.on_interface_lost(link.index)
        elif before is not None and link.carrier and not before.carrier:
            self._route_driver.on_carrier(link.index)
        elif before is not None and before.carrier and not link.carrier:
            self._route_driver.on_carrier_lost(link.index)
        names = {link.name} if before is None else {link.name, before.name}
        if before is not None and self._index.get(before.name) == link.index:
            del self._index[before.name]
        if gone:
            self._links.pop(link.index, None)
        else:
            self._links[link.index] = link
            self._index[link.name] = link.index
        if before is None or gone or before.name != link.name:
            if before is not None and before.name != link.name:
                self._link_driver.drop(link.index)  # the old name's sysctls are not wanted any more
            for name in names:
                self._settle_name(name)
        elif before.up != link.up:
            self._changed |= self._interface_claims.get(link.name, set())

    def resync(self) -> None:
        """Interfaces, addresses, neighbours and routes were read again.

        Raises:
            KernelError: they could not be.
        """
        links = {link.index: link for link in self._link_driver.resync()}
        self._route_driver.resync()
        self._vlan_driver.resync(links.values())
        for index, link in self._links.items():
            if index not in links or links[index].name != link.name:
                self._link_driver.drop(index)
            elif links[index].carrier and not link.carrier:
                self._route_driver.on_carrier(index)
        self._links = links
        self._index = {link.name: link.index for link in links.values()}
        for name in list(self._interface_claims):
            self._settle_name(name)
        self._stale = False

    def interface_of(self, index: int) -> str:
        """The name of the interface, as far as events have told; empty: there is none, or it is gone."""
        link = self._links.get(index)
        return "" if link is None else link.name

    def verify(self) -> None:
        """The next ``apply`` compares everything with the kernel, but for sysctls (``recheck``), in case an event said too little."""
        self._stale = True
        self._link_driver.mark_stale(keep_parameters=True)
        self._route_driver.mark_stale()

    def recheck(self, count: int) -> None:
        """The next ``apply`` looks at what no event tells (sysctls) of the host and of ``count`` interfaces, other ones each time.

        Enough calls see every interface. O(count), and once a round O(interfaces).
        """
        if not self._to_check:
            self._to_check = [self._index[name] for name in self._interface_claims if name in self._index]
        for index in (HOST, *self._to_check[:count]):
            self._link_driver.recheck(index)
        del self._to_check[:count]

    # --- who has what

    def _interface_owner(self, name: str) -> ResourceKey | None:
        return min(self._interface_claims.get(name, ()), default=None)

    def _address_owner(self, net: Prefix) -> ResourceKey | None:
        claims = self._address_claims.get(net, ())
        return min((key for key in claims if self._interface_owner(self._endpoints[key].interface) == key), default=None)

    def _settle_name(self, name: str) -> None:
        """The interface of this name came, went or became another one."""
        claims = self._interface_claims.get(name, set())
        self._settle(claims, ())
        self._settle_interface(name)

    def _settle(self, keys: Iterable[ResourceKey], nets: Iterable[Prefix]) -> None:
        """Routes and interfaces are wanted according to the claims, wherever these endpoints and addresses are concerned."""
        known = [key for key in keys if key in self._endpoints]
        concerned = set(nets).union(*((*self._endpoints[key].nets, *self._endpoints[key].routed) for key in known))
        rivals = set(known).union(*(self._address_claims.get(net, ()) for net in concerned))
        for net in concerned:
            self._settle_address(net)
        for name in {self._endpoints[key].interface for key in rivals}:
            self._settle_interface(name)
        self._changed |= rivals

    def _settle_vlan(self, name: str) -> None:
        """The interface is a VLAN interface if its owner is a subport."""
        owner = self._interface_owner(name)
        trunk = self._endpoints[owner].trunk if owner is not None else None
        if trunk is not None:
            self._vlan_driver.want(name, Vlan(trunk.parent, trunk.tag))
        elif self._vlan_driver.wanted(name):
            self._vlan_driver.unwant(name)

    def _usable(self, name: str) -> int | None:
        """The index of the interface, if it is what its owner wants it to be."""
        return None if self._vlan_driver.obstacle(name) else self._index.get(name)

    def _settle_address(self, net: Prefix) -> None:
        owner = self._address_owner(net)
        endpoint = self._endpoints[owner] if owner is not None else None
        index = self._usable(endpoint.interface) if endpoint is not None else None
        if index is None and net in self._detours:
            self._route_driver.want_gateway(net, *self._detours[net])
        elif index is None:
            self._route_driver.unwant(net)
        else:
            gateway = next_hop(endpoint, net) if endpoint is not None else None
            if gateway is None:
                self._route_driver.want(net, index)
            else:
                self._route_driver.want_gateway(net, gateway, index)

    def _settle_interface(self, name: str) -> None:
        index = self._index.get(name)
        if index is None:
            return
        owner = self._interface_owner(name)
        if owner is None or self._usable(name) is None:
            self._link_driver.drop(index)
            return
        endpoint = self._endpoints[owner]
        neighbours = {net: hardware_of(endpoint, net) for net in endpoint.nets if endpoint.is_away or self._address_owner(net) == owner}
        # The kernel would answer a guest that has just come and announces its own address, which is still routed to where it was.
        self._link_driver.want(index, name, neighbours, answers=not endpoint.is_away)

    # --- out

    def apply(self) -> ApplyResult:
        """The kernel is as wanted, but for the errors. Does nothing before ``begin``.

        Raises:
            KernelError: the kernel could not be asked; everything is read again by the next call.
        """
        if not self._begun:
            return ApplyResult(LinkResult((), {}), RouteResult((), {}))
        if self._stale:
            self.resync()
        before = self._failing()
        vlans = self._vlan_driver.apply()
        links = self._link_driver.apply()
        routes = self._route_driver.apply()
        result = ApplyResult(links, routes, vlans)
        self._changed |= before ^ self._failing()
        if result.operations:
            self._changed |= self._waiting
        return result

    def _failing(self) -> set[ResourceKey]:
        """Endpoints that an error is about."""
        keys: set[ResourceKey] = set()
        for index in self._link_driver.errors:
            if index in self._links:
                keys |= self._interface_claims.get(self._links[index].name, set())
        for net in self._route_driver.errors:
            keys |= self._address_claims.get(net, set())
        for name in self._vlan_driver.errors:
            keys |= self._interface_claims.get(name, set())
        return keys

    @property
    def in_sync(self) -> bool:
        """True when ``apply`` would do nothing."""
        return not self._stale and self._vlan_driver.in_sync and self._link_driver.in_sync and self._route_driver.in_sync

    def take_changed(self) -> set[ResourceKey]:
        """Endpoints whose status may be another than when they were last taken."""
        changed, self._changed = self._changed, set()
        self._waiting = {key for key in self._waiting | changed if key in self._endpoints and self._obstacle(key)}
        return changed

    def wanted(self) -> tuple[dict[int, str], list[Route], dict[Item, str]]:
        """Names of interfaces by index, wanted routes, and wanted facts about interfaces and the host."""
        names = {index: link.name for index, link in self._links.items()}
        return names, self._route_driver.wanted(), self._link_driver.wanted()

    def host_state(self) -> EndpointState:
        """Whether the host itself is set up as a router."""
        if self._link_driver.is_set_up(HOST):
            return EndpointState(True)
        error = self._link_driver.errors.get(HOST)
        return EndpointState(False, str(error) if error else "being set up")

    def status(self, key: ResourceKey) -> EndpointState:
        """Whether the kernel has everything of this endpoint that is this manager's. O(addresses)."""
        reason = self._obstacle(key)
        return EndpointState(not reason, reason, bool(reason) and self._has_failed(key))

    def _has_failed(self, key: ResourceKey) -> bool:
        """An error is about the endpoint. O(addresses)."""
        endpoint = self._endpoints.get(key)
        if endpoint is None:
            return False
        name = endpoint.interface
        failed = name in self._vlan_driver.errors or self._index.get(name) in self._link_driver.errors
        return failed or any(net in self._route_driver.errors for net in destinations(endpoint))

    def _obstacle(self, key: ResourceKey) -> str:
        endpoint = self._endpoints.get(key)
        if endpoint is None:
            return "not an endpoint of this host"
        name = endpoint.interface
        owner = self._interface_owner(name)
        if owner != key:
            return f"interface {name} is claimed by {owner}"
        vlan = self._vlan_driver.obstacle(name)
        if vlan:
            return vlan
        index = self._index.get(name)
        if index is None:
            return f"interface {name} does not exist"
        if index in self._link_driver.errors:
            return f"interface {name} could not be set up: {self._link_driver.errors[index]}"
        if not self._link_driver.is_set_up(index):
            return f"interface {name} is being set up"
        shared = shared_destinations(endpoint)
        for net in destinations(endpoint):
            rival = self._address_owner(net)
            if rival != key and net in shared:
                continue
            if rival != key:
                return f"address {net} is claimed by {rival}"
            if net in self._route_driver.errors:
                return f"no route to {net}: {self._route_driver.errors[net]}"
            if not self._route_driver.holds(net):
                return f"the route to {net} is being set up"
        return ""


def _withdraw(claims: dict[C, set[ResourceKey]], what: C, key: ResourceKey) -> None:
    """The endpoint claims it no more; what nobody claims is forgotten."""
    claims[what].discard(key)
    if not claims[what]:
        del claims[what]

"""Routes of routers in Neutron's tables: what is by way of which port or router, and who has to hear when they change.

In: ports, routers, addresses. Out: routes, identifiers. A next hop is found where its router is attached: addresses of other networks are
others' business. The changes are heard before they are committed, because Neutron tells the routes that went only then; what concerns
them is published afterwards, by the thread of repairs.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from neutron.db import models_v2
from neutron.db.models import l3
from neutron_lib import context as neutron_context
from neutron_lib.callbacks import events, registry, resources
from neutron_lib.db import api as db_api
from sqlalchemy import Select, bindparam, event, orm, select

from tabinet.attach.openstack import neutron
from tabinet.attach.openstack.chains import Route
from tabinet.attach.openstack.ml2 import finding
from tabinet.attach.openstack.ml2.notices import Outlet
from tabinet.attach.openstack.publisher import PORT, ROUTER


def routes_by_way_of(context: Any, ports: Sequence[neutron.Port]) -> dict[str, tuple[neutron.ExtraRoute, ...]]:
    """By port, where there are any."""
    where = {(port.network_id, fixed.ip_address): port.id for port in ports for fixed in port.fixed_ips}
    found: dict[str, set[neutron.ExtraRoute]] = defaultdict(set)
    for destination, nexthop, router, network in _by_way_of(context, [address for _, address in where]) if where else ():
        if (network, nexthop) in where:
            found[where[network, nexthop]].add(neutron.ExtraRoute(destination=destination, router=router))
    return {port: tuple(sorted(routes, key=lambda each: (each.destination, each.router))) for port, routes in found.items()}


@functools.cache
def _by_way_of_statement() -> Select[Any]:
    """Routes by way of addresses, with the networks that their routers are on."""
    route, attached = l3.RouterRoute.__table__, models_v2.Port.__table__
    return (
        select(route.c.destination, route.c.nexthop, route.c.router_id, attached.c.network_id)
        .where(route.c.nexthop.in_(bindparam("addresses", expanding=True)))
        .where(attached.c.device_id == route.c.router_id, attached.c.device_owner.in_(finding.ROUTER_OWNERS))
    )


def _by_way_of(context: Any, addresses: Iterable[str]) -> Iterable[Any]:
    rows: Iterable[Any] = context.session.execute(_by_way_of_statement(), {"addresses": sorted(set(addresses))})
    return rows


def subnet_prefixes(context: Any) -> tuple[str, ...]:
    """Of all subnets, each once."""
    return tuple(sorted({cidr for (cidr,) in context.session.query(models_v2.Subnet.cidr)}))


def in_a_row(routers: Iterable[str]) -> list[str]:
    """These routers, and all that routes connect them with, in whichever direction, by way of however many others."""
    known: set[str] = set()
    found = set(routers)
    while found > known:
        hops = _hops(sorted(found - known))
        known = set(found)
        found |= {router for first, second, _, _ in hops for router in (first, second)}
    return sorted(found)


def around(routers: Iterable[str]) -> tuple[dict[str, list[str]], list[Route]]:
    """The prefixes of the subnets that each router in a row with any of these is attached to, and all their routes."""
    row = in_a_row(routers)
    hops = set(_hops(row))
    route, port, allocation, subnet = l3.RouterRoute, models_v2.Port, models_v2.IPAllocation, models_v2.Subnet
    connected: dict[str, list[str]] = {router: [] for router in row}
    context = neutron_context.get_admin_context()
    with db_api.CONTEXT_READER.using(context):
        attached = (
            context.session.query(port.device_id, subnet.cidr)
            .filter(port.device_id.in_(row), port.device_owner.in_(finding.ROUTER_OWNERS))
            .filter(allocation.port_id == port.id, subnet.id == allocation.subnet_id)
        )
        for router, cidr in sorted(set(attached)):
            connected[router].append(cidr)
        every = set(context.session.query(route.router_id, route.destination, route.nexthop).filter(route.router_id.in_(row)))
    by_routers = {(router, destination, nexthop) for router, _, destination, nexthop in hops}
    routes = {(router, following, destination) for router, following, destination, _ in hops}
    routes |= {(router, "", destination) for router, destination, nexthop in every if (router, destination, nexthop) not in by_routers}
    return connected, sorted(routes)


def _hops(routers: Iterable[str]) -> list[tuple[str, str, str, str]]:
    """Routes from router to router that begin or end at one of these: (router, next router, destination, next hop)."""
    route, allocation = l3.RouterRoute, models_v2.IPAllocation
    own, other = orm.aliased(models_v2.Port), orm.aliased(models_v2.Port)
    ids = list(routers)
    context = neutron_context.get_admin_context()
    with db_api.CONTEXT_READER.using(context):
        query = (
            context.session.query(route.router_id, other.device_id, route.destination, route.nexthop)
            .filter(own.device_id == route.router_id, own.device_owner.in_(finding.ROUTER_OWNERS))
            .filter(allocation.ip_address == route.nexthop, allocation.network_id == own.network_id, allocation.port_id == other.id)
            .filter(other.device_owner.in_(finding.ROUTER_OWNERS), route.router_id.in_(ids) | other.device_id.in_(ids))
        )
        return sorted({tuple(row) for row in query if row[0] != row[1]})


def by_way_of(addresses: Iterable[str]) -> list[str]:
    """The routers with routes by way of these addresses."""
    return finding.find(l3.RouterRoute.router_id, l3.RouterRoute.nexthop.in_(list(addresses)))


def next_hops(network: str = "") -> list[str]:
    """The ports, of one network or of all, with addresses by way of which any router has routes."""
    allocation = models_v2.IPAllocation
    within = [allocation.network_id == network] if network else []
    return finding.find(allocation.port_id, allocation.ip_address == l3.RouterRoute.nexthop, *within)


class Routes:
    """Hears of routes for an outlet, for as long as it is kept."""

    def __init__(self, outlet: Outlet, isolated: bool) -> None:
        self._outlet = outlet
        self._isolated = isolated
        registry.subscribe(self.on_router, resources.ROUTER, events.PRECOMMIT_UPDATE)
        registry.subscribe(self.on_router_deleted, resources.ROUTER, events.PRECOMMIT_DELETE)
        for each in (events.AFTER_CREATE, events.AFTER_DELETE):
            registry.subscribe(self.on_subnet, resources.SUBNET, each)

    def on_router(self, resource: str, name: str, trigger: Any, payload: Any = None) -> None:
        """A router is changed, within a transaction."""
        body = payload.request_body or {}
        changed = [*body.get("routes_added", ()), *body.get("routes_removed", ())]
        if changed:
            self._publish_after(payload.context.session, payload.resource_id, {str(route["nexthop"]) for route in changed})

    def on_router_deleted(self, resource: str, name: str, trigger: Any, payload: Any = None) -> None:
        """A router goes with its routes, within a transaction."""
        hops = {str(route.nexthop) for route in payload.states[0].route_list}
        if hops:
            self._publish_after(payload.context.session, payload.resource_id, hops)

    def on_subnet(self, resource: str, name: str, trigger: Any, payload: Any = None) -> None:
        """A subnet came or went: what is behind ports is on no subnet."""
        self._outlet.publish_later(PORT, next_hops())

    def _publish_after(self, session: Any, router: str, addresses: set[str]) -> None:
        """Once the transaction is committed, everything is published that is by way of these addresses."""
        allocation, port = models_v2.IPAllocation, models_v2.Port
        query = session.query(port.id, port.device_owner, port.device_id)
        found = query.filter(allocation.port_id == port.id, allocation.ip_address.in_(sorted(addresses))).all()
        owners = finding.ROUTER_OWNERS
        ports = sorted(identifier for identifier, owner, _ in found if owner not in owners)
        routers = sorted({router} | {device for _, owner, device in found if owner in owners}) if self._isolated else []

        def publish(_: Any) -> None:
            self._outlet.publish_later(PORT, ports)
            self._outlet.publish_later(ROUTER, in_a_row(routers))

        event.listen(session, "after_commit", publish, once=True)

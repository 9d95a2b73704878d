"""Reads from Neutron's database what translation needs, in one transaction and in as many queries as there are kinds of objects.

In: identifiers. Out: views (``PortView``), groups, subnets, as documents of the store. Every reading has a session of its own, so that it
sees what was committed before it began. The number of queries does not grow with the number of ports.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from neutron.db.models import l3, port_forwarding
from neutron.objects import trunk as trunk_objects
from neutron.objects.qos import policy as qos_objects
from neutron.plugins.ml2 import models as ml2_models
from neutron_lib import constants
from neutron_lib import context as neutron_context
from neutron_lib.db import api as db_api
from neutron_lib.plugins import directory
from sqlalchemy import Select, select

from tabinet.attach.openstack import groups, isolation, neutron, translate
from tabinet.attach.openstack.chains import neighbours
from tabinet.attach.openstack.forwardings import share_out
from tabinet.attach.openstack.ml2 import finding, routing
from tabinet.attach.openstack.ml2.ports import IDS, PortRow, execute, read_ports
from tabinet.attach.openstack.ml2.rules import read_groups
from tabinet.attach.openstack.names import Region
from tabinet.attach.openstack.neutron import PortView, parse_fact
from tabinet.attach.openstack.projects import Projects
from tabinet.attach.openstack.publisher import ADDRESS_GROUP, GROUP, NETWORK, PORT, ROUTER, SUBNET, Subject, paths_of

Document = dict[str, Any]
Filters = dict[str, list[str]]


@dataclass(slots=True)
class Database:
    """Neutron's database as a ``Source``."""

    region: Region
    projects: Projects | None = None
    """Who knows the names of projects; None: nobody."""

    def read(self, subject: Subject) -> Mapping[str, Document | None]:
        """What the store should hold for the subject."""
        return self.read_many(subject.kind, [subject.id]).get(subject.id, {})

    def read_many(self, kind: str, ids: Sequence[str]) -> dict[str, dict[str, Document | None]]:
        """What the store should hold for these objects of one kind, by object; those that do not exist are not there."""
        if kind == PORT:
            return {view.port.id: translate.port_documents(view, self.region) for view in self.views(ids)}
        if kind == NETWORK:
            routers = finding.routers_of(ids)
            return {each: isolation.translate_network(each, routers.get(each, ()), self.region) for each in finding.existing(kind, ids)}
        if kind == ROUTER:
            others = neighbours(*routing.around(ids)) if self.region.isolated else {}
            found = finding.existing(kind, ids)
            return {each: isolation.translate_router(each, self.region, others.get(each, ())) for each in found}
        context = neutron_context.get_admin_context()
        with db_api.CONTEXT_READER.using(context):
            facts = _READERS[kind](context, {"id": list(ids)})
        return {each.id: self._translate(each) for each in facts}

    def ids(self, kind: str) -> list[str]:
        """The identifiers of all objects of a kind, in order."""
        return finding.all_of(kind)

    def places(self, kind: str, ids: Sequence[str]) -> dict[str, list[str]]:
        """Where the store holds these objects, but for what moves."""
        if kind != PORT:
            return {each: paths_of(self.region, Subject(kind, each)) for each in ids}
        found = finding.places(ids)
        return {each: translate.port_paths(self.region, each, places, moving=False) for each, places in found.items()}

    def _translate(self, each: neutron.SecurityGroup | neutron.AddressGroup | neutron.Subnet) -> dict[str, Document | None]:
        match each:
            case neutron.SecurityGroup():
                return _keyed(groups.translate_group(each, self.region))
            case neutron.AddressGroup():
                return _keyed(groups.translate_address_group(each, self.region))
            case neutron.Subnet():
                return translate.translate_subnet(each, self.region)

    def views(self, port_ids: Sequence[str]) -> list[PortView]:
        """These ports with everything that their endpoints depend on."""
        if not port_ids:
            return []
        context = neutron_context.get_admin_context()
        with db_api.CONTEXT_READER.using(context):
            rows = read_ports(context, list(port_ids))
            views = _assemble(context, rows) if rows else []
        if self.projects is not None:
            projects = self.projects.look_up(view.port.project_id or "" for view in views)
            views = [msgspec.structs.replace(view, project=projects.get(view.port.project_id or "")) for view in views]
        if not self.region.isolated:
            return views
        sets = {view.port.network_id for view in views if view.port.allowed_address_pairs or view.extra_routes}
        routers = finding.routers_of(sets)
        return [msgspec.structs.replace(view, routers=tuple(routers.get(view.port.network_id, ()))) for view in views]


def _keyed(document: Document) -> dict[str, Document | None]:
    return {groups.path_of_document(document): document}


def _assemble(context: Any, rows: Sequence[PortRow]) -> list[PortView]:
    ports = [row.port for row in rows]
    ids = [port.id for port in ports]
    floating = _floating_ips(context, ids)
    forwardings, elsewhere = _forwardings(context, ids)
    trunks = _trunks(context, ports)
    routes = routing.routes_by_way_of(context, ports)
    prefixes = routing.subnet_prefixes(context) if routes else ()
    addresses = {each.id: each.floating_ip_address for port in ports for each in floating[port.id]}
    addresses |= {each.floatingip_id: each.floating_ip_address for port in ports for each in forwardings[port.id]}
    of_addresses = finding.policies_of_floating(context, addresses)
    policies = _policies(context, ports, of_addresses.values())
    views = []
    for row in rows:
        port = row.port
        leading = {each.id for each in floating[port.id]} | {each.floatingip_id for each in forwardings[port.id]}
        policy = port.qos_policy_id or port.qos_network_policy_id
        views.append(
            PortView(
                port=port,
                network=row.network,
                subnets=tuple(row.subnets.values()),
                groups={group: found.name for group, found in row.groups.items()},
                stateless=frozenset(group for group, found in row.groups.items() if not found.stateful),
                floating_ips=tuple(floating[port.id]),
                forwardings=tuple(forwardings[port.id]),
                forwardings_elsewhere=tuple(elsewhere[port.id]),
                qos_rules=policies.get(policy, ()) if policy else (),
                address_rules={addresses[each]: policies.get(of_addresses[each], ()) for each in leading & of_addresses.keys()},
                trunk=trunks.get(port.id),
                targets=row.targets,
                extra_routes=routes.get(port.id, ()),
                subnet_prefixes=prefixes if port.id in routes else (),
            )
        )
    return views


@functools.cache
def _floating_statement() -> Select[Any]:
    floating = l3.FloatingIP.__table__
    columns = (floating.c.id, floating.c.floating_ip_address, floating.c.fixed_ip_address, floating.c.fixed_port_id)
    return select(*columns).where(floating.c.fixed_port_id.in_(IDS))


def _floating_ips(context: Any, ids: Sequence[str]) -> dict[str, list[neutron.FloatingIp]]:
    """By port."""
    found: dict[str, list[neutron.FloatingIp]] = defaultdict(list)
    for identifier, address, fixed, port in execute(context, _floating_statement(), ids):
        found[port].append(neutron.FloatingIp(id=identifier, floating_ip_address=address, fixed_ip_address=fixed, port_id=port))
    return found


@functools.cache
def _forwardings_statement() -> Select[Any]:
    """Those of the floating IPs that are forwarded to one of the ports."""
    forwarding, floating = port_forwarding.PortForwarding.__table__, l3.FloatingIP.__table__
    binding = ml2_models.PortBinding.__table__
    port = forwarding.c.internal_neutron_port_id
    concerned = select(forwarding.c.floatingip_id).where(port.in_(IDS))
    return (
        select(forwarding.c.id, forwarding.c.floatingip_id, floating.c.floating_ip_address, forwarding.c.protocol)
        .add_columns(forwarding.c.external_port_start, forwarding.c.external_port_end)
        .add_columns(forwarding.c.internal_ip_address, forwarding.c.internal_port_start, port.label("port_id"), binding.c.host)
        .where(forwarding.c.floatingip_id.in_(concerned), floating.c.id == forwarding.c.floatingip_id)
        .where(binding.c.port_id == port, binding.c.status == constants.ACTIVE)
        .order_by(port, forwarding.c.id)
    )


def _forwardings(context: Any, ids: Sequence[str]) -> tuple[dict[str, list[neutron.Forwarding]], ...]:
    """By port: what leads to it, and what its host has to pass on to others."""
    rows = execute(context, _forwardings_statement(), ids)
    return share_out((parse_fact(neutron.Forwarding, row._asdict()) for row in rows if row.host), set(ids))


def _trunks(context: Any, ports: Sequence[neutron.Port]) -> dict[str, neutron.Trunk]:
    """By subport."""
    ids = [port.id for port in ports if port.device_owner == translate.SUBPORT_OWNER]
    subports = trunk_objects.SubPort.get_objects(context, port_id=ids) if ids else []
    trunks = (
        {trunk.id: trunk for trunk in trunk_objects.Trunk.get_objects(context, id=sorted({s.trunk_id for s in subports}))} if ids else {}
    )
    return {
        subport.port_id: neutron.Trunk(
            parent_port_id=trunks[subport.trunk_id].port_id,
            segmentation_id=subport.segmentation_id,
            admin_state_up=trunks[subport.trunk_id].admin_state_up,
        )
        for subport in subports
    }


def _policies(context: Any, ports: Sequence[neutron.Port], others: Iterable[str]) -> dict[str, tuple[neutron.QosRule, ...]]:
    """The rules of the ports' policies and these others."""
    ids = {policy for port in ports if (policy := port.qos_policy_id or port.qos_network_policy_id)} | set(others)
    if not ids:
        return {}
    return {
        policy.id: tuple(parse_fact(neutron.QosRule, rule.to_dict()) for rule in policy.rules)
        for policy in qos_objects.QosPolicy.get_objects(context, id=sorted(ids))
    }


def _security_groups(context: Any, filters: Filters) -> list[Any]:
    return read_groups(context, filters["id"])


def _address_groups(context: Any, filters: Filters) -> list[Any]:
    found = directory.get_plugin().get_address_groups(context, filters=filters)
    return [parse_fact(neutron.AddressGroup, document) for document in found]


def _subnets(context: Any, filters: Filters) -> list[Any]:
    return [parse_fact(neutron.Subnet, document) for document in directory.get_plugin().get_subnets(context, filters=filters)]


_READERS = {GROUP: _security_groups, ADDRESS_GROUP: _address_groups, SUBNET: _subnets}

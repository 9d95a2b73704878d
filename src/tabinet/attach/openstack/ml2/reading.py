"""Reads from Neutron's database what translation needs, in one transaction and in as many queries as there are kinds of objects.

In: identifiers. Out: views (``PortView``), groups, subnets, as documents of the store. Every reading has a session of its own, so that it
sees what was committed before it began. The number of queries does not grow with the number of ports.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from neutron.db import models_v2
from neutron.db.models import l3, port_forwarding
from neutron.db.models import securitygroup as security_groups
from neutron.objects import trunk as trunk_objects
from neutron.objects.qos import policy as qos_objects
from neutron.plugins.ml2 import models as ml2_models
from neutron_lib import constants
from neutron_lib import context as neutron_context
from neutron_lib.db import api as db_api
from neutron_lib.plugins import directory

from tabinet.attach.openstack import groups, isolation, neutron, translate
from tabinet.attach.openstack.chains import neighbours
from tabinet.attach.openstack.ml2 import finding, routing
from tabinet.attach.openstack.names import Region
from tabinet.attach.openstack.neutron import PortView, parse_fact
from tabinet.attach.openstack.projects import Projects
from tabinet.attach.openstack.publisher import ADDRESS_GROUP, GROUP, NETWORK, PORT, ROUTER, SUBNET, Subject

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
            plugin = directory.get_plugin()
            ports = [parse_fact(neutron.Port, each) for each in plugin.get_ports(context, filters={"id": list(port_ids)})]
            views = _assemble(context, ports)
        if self.projects is not None:
            projects = self.projects.look_up(port.project_id or "" for port in ports)
            views = [msgspec.structs.replace(view, project=projects.get(view.port.project_id or "")) for view in views]
        if not self.region.isolated:
            return views
        sets = {view.port.network_id for view in views if view.port.allowed_address_pairs or view.extra_routes}
        routers = finding.routers_of(sets)
        return [msgspec.structs.replace(view, routers=tuple(routers.get(view.port.network_id, ()))) for view in views]


def _keyed(document: Document) -> dict[str, Document | None]:
    return {groups.path_of_document(document): document}


def _assemble(context: Any, ports: Sequence[neutron.Port]) -> list[PortView]:
    plugin = directory.get_plugin()
    networks = _by_id(neutron.Network, plugin.get_networks(context, filters=_ids(port.network_id for port in ports)))
    subnet_ids = {fixed.subnet_id for port in ports for fixed in port.fixed_ips}
    subnets = _port_subnets(context, subnet_ids)
    group_ids = {group for port in ports for group in port.security_groups}
    found = _groups(context, group_ids)
    floating = _floating_ips(context, ports)
    forwardings = _forwardings(context, ports)
    trunks = _trunks(context, ports)
    targets = _targets(context, ports)
    routes = routing.routes_by_way_of(context, ports)
    prefixes = routing.subnet_prefixes(context) if routes else ()
    addresses = {each.id: each.floating_ip_address for port in ports for each in floating[port.id]}
    addresses |= {each.floatingip_id: each.floating_ip_address for port in ports for each in forwardings[port.id]}
    of_addresses = finding.policies_of_floating(context, addresses)
    policies = _policies(context, ports, of_addresses.values())
    views = []
    for port in ports:
        leading = {each.id for each in floating[port.id]} | {each.floatingip_id for each in forwardings[port.id]}
        if port.network_id not in networks:
            continue
        policy = port.qos_policy_id or port.qos_network_policy_id
        views.append(
            PortView(
                port=port,
                network=networks[port.network_id],
                subnets=tuple(subnets[fixed.subnet_id] for fixed in port.fixed_ips if fixed.subnet_id in subnets),
                groups={group: found[group].name if group in found else "" for group in port.security_groups},
                stateless=frozenset(group for group in port.security_groups if group in found and not found[group].stateful),
                floating_ips=tuple(floating[port.id]),
                forwardings=tuple(forwardings[port.id]),
                qos_rules=policies.get(policy, ()) if policy else (),
                address_rules={addresses[each]: policies.get(of_addresses[each], ()) for each in leading & of_addresses.keys()},
                trunk=trunks.get(port.id),
                targets=tuple(targets[port.id]),
                extra_routes=routes.get(port.id, ()),
                subnet_prefixes=prefixes if port.id in routes else (),
            )
        )
    return views


def _ids(values: Iterable[str]) -> dict[str, list[str]]:
    return {"id": sorted(set(values))}


def _by_id(kind: Any, documents: Iterable[Document]) -> dict[str, Any]:
    return {document["id"]: parse_fact(kind, document) for document in documents}


def _groups(context: Any, ids: set[str]) -> dict[str, neutron.SecurityGroup]:
    """Without their rules."""
    model = security_groups.SecurityGroup
    rows = _rows(context, model, ids, model.id, model.name, model.stateful)
    return {row.id: parse_fact(neutron.SecurityGroup, row._asdict()) for row in rows}


def _port_subnets(context: Any, ids: set[str]) -> dict[str, neutron.Subnet]:
    """As far as ports need them."""
    model = models_v2.Subnet
    rows = _rows(context, model, ids, model.id, model.network_id, model.cidr, model.ip_version, model.gateway_ip)
    return {row.id: parse_fact(neutron.Subnet, row._asdict()) for row in rows}


def _floating_ips(context: Any, ports: Sequence[neutron.Port]) -> dict[str, list[neutron.FloatingIp]]:
    model = l3.FloatingIP
    columns = (model.id, model.floating_ip_address, model.fixed_ip_address, model.fixed_port_id.label("port_id"))
    found: dict[str, list[neutron.FloatingIp]] = defaultdict(list)
    for row in context.session.query(*columns).filter(model.fixed_port_id.in_([port.id for port in ports])):
        found[row.port_id].append(parse_fact(neutron.FloatingIp, row._asdict()))
    return found


def _targets(context: Any, ports: Sequence[neutron.Port]) -> dict[str, list[neutron.Target]]:
    """The hosts that machines are about to move to: Neutron unbinds a binding that was active before."""
    model = ml2_models.PortBinding
    columns = (model.port_id, model.host, model.profile)
    query = context.session.query(*columns).filter(
        model.status == constants.INACTIVE, model.vif_type == translate.VIF_TYPE, model.port_id.in_([port.id for port in ports])
    )
    found: dict[str, list[neutron.Target]] = defaultdict(list)
    for row in query:
        profile = json.loads(row.profile) if row.profile else {}
        found[row.port_id].append(neutron.Target(host=row.host, profile=profile))
    return found


def _forwardings(context: Any, ports: Sequence[neutron.Port]) -> dict[str, list[neutron.Forwarding]]:
    """By port. The home of a floating IP is read from all the ports that it is forwarded to."""
    forwarding, floating, binding = port_forwarding.PortForwarding, l3.FloatingIP, ml2_models.PortBinding
    ids = [port.id for port in ports]
    concerned = context.session.query(forwarding.floatingip_id).filter(forwarding.internal_neutron_port_id.in_(ids))
    query = (
        context.session.query(
            forwarding.id,
            forwarding.floatingip_id,
            floating.floating_ip_address,
            forwarding.protocol,
            forwarding.external_port_start,
            forwarding.external_port_end,
            forwarding.internal_ip_address,
            forwarding.internal_port_start,
            forwarding.internal_neutron_port_id.label("port_id"),
            binding.host,
        )
        .filter(forwarding.floatingip_id.in_(concerned), floating.id == forwarding.floatingip_id)
        .filter(binding.port_id == forwarding.internal_neutron_port_id, binding.status == constants.ACTIVE)
        .order_by(forwarding.internal_neutron_port_id, forwarding.id)
    )
    homes: dict[str, str] = {}
    found: dict[str, list[neutron.Forwarding]] = defaultdict(list)
    wanted = set(ids)
    for row in query:
        if row.host:
            homes.setdefault(row.floatingip_id, row.host)
        if row.port_id in wanted:
            found[row.port_id].append(parse_fact(neutron.Forwarding, row._asdict() | {"home": homes.get(row.floatingip_id, "")}))
    return found


def _rows(context: Any, model: Any, ids: set[str], *columns: Any) -> Iterable[Any]:
    """Straight from the table: Neutron's own readings of these make dictionaries with many joins, of which ports need a few columns."""
    return context.session.query(*columns).filter(model.id.in_(sorted(ids))) if ids else ()


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
    found = directory.get_plugin().get_security_groups(context, filters=filters, default_sg=True)
    return [parse_fact(neutron.SecurityGroup, document) for document in found]


def _address_groups(context: Any, filters: Filters) -> list[Any]:
    found = directory.get_plugin().get_address_groups(context, filters=filters)
    return [parse_fact(neutron.AddressGroup, document) for document in found]


def _subnets(context: Any, filters: Filters) -> list[Any]:
    return [parse_fact(neutron.Subnet, document) for document in directory.get_plugin().get_subnets(context, filters=filters)]


_READERS = {GROUP: _security_groups, ADDRESS_GROUP: _address_groups, SUBNET: _subnets}

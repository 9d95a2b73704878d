"""Reads from Neutron's database what translation needs, in one transaction and in as many queries as there are kinds of objects.

In: identifiers. Out: views (``PortView``), groups, subnets, as documents of the store. Every reading has a session of its own, so that it
sees what was committed before it began. The number of queries does not grow with the number of ports.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neutron.objects import trunk as trunk_objects
from neutron.objects.qos import policy as qos_objects
from neutron_lib import context as neutron_context
from neutron_lib.db import api as db_api
from neutron_lib.plugins import constants as plugin_names
from neutron_lib.plugins import directory

from tabinet.attach.openstack import groups, neutron, translate
from tabinet.attach.openstack.names import Region
from tabinet.attach.openstack.neutron import PortView, parse_fact
from tabinet.attach.openstack.publisher import ADDRESS_GROUP, GROUP, PORT, SUBNET, Subject

Document = dict[str, Any]
Filters = dict[str, list[str]]


@dataclass(slots=True)
class Database:
    """Neutron's database as a ``Source``."""

    region: Region

    def read(self, subject: Subject) -> Mapping[str, Document | None]:
        """What the store should hold for the subject."""
        return self.read_many(subject.kind, [subject.id]).get(subject.id, {})

    def read_many(self, kind: str, ids: Sequence[str]) -> dict[str, dict[str, Document | None]]:
        """What the store should hold for these objects of one kind, by object; those that do not exist are not there."""
        if kind == PORT:
            return {view.port.id: translate.port_documents(view, self.region) for view in self.views(ids)}
        context = neutron_context.get_admin_context()
        with db_api.CONTEXT_READER.using(context):
            found = _READERS[kind](context, {"id": list(ids)})
        return {each.id: self._translate(each) for each in found}

    def ids(self, kind: str) -> list[str]:
        """The identifiers of all objects of a kind, in order."""
        plugin, context = directory.get_plugin(), neutron_context.get_admin_context()
        match kind:
            case "port":
                found = plugin.get_ports(context, fields=["id"])
            case "security_group":
                found = plugin.get_security_groups(context, fields=["id"], default_sg=True)
            case "address_group":
                found = plugin.get_address_groups(context, fields=["id"])
            case _:
                found = plugin.get_subnets(context, fields=["id"])
        return sorted(each["id"] for each in found)

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
            return _assemble(context, ports)


def _keyed(document: Document) -> dict[str, Document | None]:
    return {groups.path_of_document(document): document}


def _assemble(context: Any, ports: Sequence[neutron.Port]) -> list[PortView]:
    plugin = directory.get_plugin()
    networks = _by_id(neutron.Network, plugin.get_networks(context, filters=_ids(port.network_id for port in ports)))
    subnet_ids = {fixed.subnet_id for port in ports for fixed in port.fixed_ips}
    subnets = _by_id(neutron.Subnet, plugin.get_subnets(context, filters=_ids(subnet_ids)) if subnet_ids else [])
    group_ids = {group for port in ports for group in port.security_groups}
    names = _group_names(context, group_ids)
    floating = _floating_ips(context, ports)
    trunks = _trunks(context, ports)
    policies = _policies(context, ports)
    views = []
    for port in ports:
        if port.network_id not in networks:
            continue
        policy = port.qos_policy_id or port.qos_network_policy_id
        views.append(
            PortView(
                port=port,
                network=networks[port.network_id],
                subnets=tuple(subnets[fixed.subnet_id] for fixed in port.fixed_ips if fixed.subnet_id in subnets),
                groups={group: names.get(group, "") for group in port.security_groups},
                floating_ips=tuple(floating[port.id]),
                qos_rules=policies.get(policy, ()) if policy else (),
                trunk=trunks.get(port.id),
            )
        )
    return views


def _ids(values: Iterable[str]) -> dict[str, list[str]]:
    return {"id": sorted(set(values))}


def _by_id(kind: Any, documents: Iterable[Document]) -> dict[str, Any]:
    return {document["id"]: parse_fact(kind, document) for document in documents}


def _group_names(context: Any, ids: set[str]) -> dict[str, str]:
    if not ids:
        return {}
    found = directory.get_plugin().get_security_groups(context, filters=_ids(ids), fields=["id", "name"], default_sg=True)
    return {group["id"]: group["name"] for group in found}


def _floating_ips(context: Any, ports: Sequence[neutron.Port]) -> dict[str, list[neutron.FloatingIp]]:
    found: dict[str, list[neutron.FloatingIp]] = defaultdict(list)
    routers = directory.get_plugin(plugin_names.L3)
    if routers is not None:
        for document in routers.get_floatingips(context, filters={"port_id": [port.id for port in ports]}):
            found[document["port_id"]].append(parse_fact(neutron.FloatingIp, document))
    return found


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


def _policies(context: Any, ports: Sequence[neutron.Port]) -> dict[str, tuple[neutron.QosRule, ...]]:
    ids = {policy for port in ports if (policy := port.qos_policy_id or port.qos_network_policy_id)}
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

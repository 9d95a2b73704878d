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


@dataclass(slots=True)
class Database:
    """Neutron's database as a ``Source``."""

    region: Region

    def read(self, subject: Subject) -> Mapping[str, Document]:
        """What the store should hold for the subject."""
        return self.read_many(subject.kind, [subject.id])

    def read_many(self, kind: str, ids: Sequence[str]) -> dict[str, Document]:
        """What the store should hold for these objects of one kind; those that do not exist have nothing."""
        documents: dict[str, Document] = {}
        if kind == PORT:
            for view in self.views(ids):
                documents |= translate.translate_port(view, self.region)
            return documents
        context = neutron_context.get_admin_context()
        with db_api.CONTEXT_READER.using(context):
            found = _READERS[kind](context, list(ids))
        for each in found:
            documents |= self._translate(each)
        return documents

    def _translate(self, each: neutron.SecurityGroup | neutron.AddressGroup | neutron.Subnet) -> dict[str, Document]:
        match each:
            case neutron.SecurityGroup():
                return keyed(groups.translate_group(each, self.region))
            case neutron.AddressGroup():
                return keyed(groups.translate_address_group(each, self.region))
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

    def port_ids(self, **filters: list[str]) -> list[str]:
        """The identifiers of the ports for which all filters hold, in order."""
        context = neutron_context.get_admin_context()
        return sorted(port["id"] for port in directory.get_plugin().get_ports(context, filters=filters, fields=["id"]))


def keyed(document: Document) -> dict[str, Document]:
    """A resource by its path."""
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
    parents = {trunk.port_id for trunk in trunks.values()}
    devices = (
        {
            port["id"]: port["device_id"]
            for port in directory.get_plugin().get_ports(context, filters=_ids(parents), fields=["id", "device_id"])
        }
        if parents
        else {}
    )
    return {
        subport.port_id: neutron.Trunk(
            parent_port_id=trunks[subport.trunk_id].port_id,
            segmentation_id=subport.segmentation_id,
            parent_device_id=devices.get(trunks[subport.trunk_id].port_id, ""),
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


def _security_groups(context: Any, ids: list[str]) -> list[Any]:
    found = directory.get_plugin().get_security_groups(context, filters={"id": ids}, default_sg=True)
    return [parse_fact(neutron.SecurityGroup, document) for document in found]


def _address_groups(context: Any, ids: list[str]) -> list[Any]:
    found = directory.get_plugin().get_address_groups(context, filters={"id": ids})
    return [parse_fact(neutron.AddressGroup, document) for document in found]


def _subnets(context: Any, ids: list[str]) -> list[Any]:
    return [parse_fact(neutron.Subnet, document) for document in directory.get_plugin().get_subnets(context, filters={"id": ids})]


_READERS = {GROUP: _security_groups, ADDRESS_GROUP: _address_groups, SUBNET: _subnets}

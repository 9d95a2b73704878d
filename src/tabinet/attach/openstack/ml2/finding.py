"""Which of Neutron's objects there are, and which ports depend on something: identifiers, straight from the tables.

In: what to look for. Out: identifiers in order. Neutron's own listings make a dictionary of every object with all its relations, which for
ten thousand ports takes seconds; these are asked for within API calls.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from neutron.db import models_v2
from neutron.db.models import address_group, allowed_address_pair, l3, port_forwarding, securitygroup
from neutron.db.qos import models as qos
from neutron.plugins.ml2 import models as ml2_models
from neutron_lib import constants
from neutron_lib import context as neutron_context
from neutron_lib.db import api as db_api

from tabinet.attach.openstack.publisher import ADDRESS_GROUP, GROUP, NETWORK, PORT, ROUTER, SUBNET

_MODELS = {
    PORT: models_v2.Port,
    GROUP: securitygroup.SecurityGroup,
    ADDRESS_GROUP: address_group.AddressGroup,
    SUBNET: models_v2.Subnet,
    NETWORK: models_v2.Network,
    ROUTER: l3.Router,
}
ROUTER_OWNERS = (*constants.ROUTER_INTERFACE_OWNERS, constants.DEVICE_OWNER_ROUTER_GW)
"""Owners of the ports by which routers are attached to networks."""


def all_of(kind: str) -> list[str]:
    """All objects of a kind."""
    return find(_MODELS[kind].id)


def existing(kind: str, ids: Iterable[str]) -> list[str]:
    """Those of the objects that exist."""
    column = _MODELS[kind].id
    return find(column, column.in_(list(ids)))


def routers_of(networks: Iterable[str]) -> dict[str, list[str]]:
    """The routers that each of these networks is attached to."""
    port, found = models_v2.Port, defaultdict(list)
    context = neutron_context.get_admin_context()
    with db_api.CONTEXT_READER.using(context):
        query = context.session.query(port.network_id, port.device_id)
        for network, router in query.filter(port.network_id.in_(list(networks)), port.device_owner.in_(ROUTER_OWNERS)):
            found[network].append(router)
    return {network: sorted(set(routers)) for network, routers in found.items()}


def places(ports: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
    """By port: host and device, where it is bound."""
    port, binding = models_v2.Port, ml2_models.PortBinding
    context = neutron_context.get_admin_context()
    with db_api.CONTEXT_READER.using(context):
        query = context.session.query(port.id, binding.host, port.device_id)
        bound = query.outerjoin(binding, (binding.port_id == port.id) & (binding.status == constants.ACTIVE))
        return {port: [(host, device)] if host else [] for port, host, device in bound.filter(port.id.in_(list(ports)))}


def ports_with_pairs(network: str) -> list[str]:
    """The ports of the network that have allowed address pairs."""
    pair = allowed_address_pair.AllowedAddressPair
    return find(pair.port_id, pair.port_id == models_v2.Port.id, models_v2.Port.network_id == network)


def ports_in_networks(networks: Iterable[str]) -> list[str]:
    """The ports of these networks."""
    return find(models_v2.Port.id, models_v2.Port.network_id.in_(list(networks)))


def ports_of_projects(projects: Iterable[str]) -> list[str]:
    """The ports of these projects."""
    return find(models_v2.Port.id, models_v2.Port.project_id.in_(list(projects)))


def ports_in_subnet(subnet: str) -> list[str]:
    """The ports with an address of the subnet."""
    return find(models_v2.IPAllocation.port_id, models_v2.IPAllocation.subnet_id == subnet)


def forwarded_beside(port: str) -> list[str]:
    """The other ports that floating IPs are forwarded to which are forwarded to this one."""
    forwarding = port_forwarding.PortForwarding
    floating = find(forwarding.floatingip_id, forwarding.internal_neutron_port_id == port)
    return forwarded_from(floating, port) if floating else []


def forwarded_from(floating: Iterable[str], but: str = "") -> list[str]:
    """The ports that these floating IPs are forwarded to."""
    forwarding = port_forwarding.PortForwarding
    port = forwarding.internal_neutron_port_id
    return sorted(set(find(port, forwarding.floatingip_id.in_(list(floating)), port != but)))


def policies_of_floating(context: Any, floating: Iterable[str]) -> dict[str, str]:
    """The QoS policies of these floating IPs, by floating IP: its own, or else that of its network; those without any are left out."""
    ids, own, outside, address = list(floating), qos.QosFIPPolicyBinding, qos.QosNetworkPolicyBinding, l3.FloatingIP
    if not ids:
        return {}
    query = context.session.query(address.id, outside.policy_id).filter(address.id.in_(ids))
    found = dict(query.filter(outside.network_id == address.floating_network_id).all())
    return found | dict(context.session.query(own.fip_id, own.policy_id).filter(own.fip_id.in_(ids)).all())


def floating_of(networks: Iterable[str]) -> list[str]:
    """The floating IPs of these external networks."""
    return find(l3.FloatingIP.id, l3.FloatingIP.floating_network_id.in_(list(networks)))


def ports_of_floating(floating: Iterable[str]) -> list[str]:
    """The ports that these floating IPs lead to, wholly or by forwarded ports."""
    ids = list(floating)
    whole = find(l3.FloatingIP.fixed_port_id, l3.FloatingIP.id.in_(ids)) if ids else []
    return sorted({*whole, *forwarded_from(ids)}) if ids else []


def ports_in_group(group: str) -> list[str]:
    """The ports in the security group."""
    binding = securitygroup.SecurityGroupPortBinding
    return find(binding.port_id, binding.security_group_id == group)


def hosts_of_group(group: str) -> list[str]:
    """The hosts that have ports in the security group."""
    member, binding = securitygroup.SecurityGroupPortBinding, ml2_models.PortBinding
    found = find(binding.host, member.security_group_id == group, binding.port_id == member.port_id, binding.status == constants.ACTIVE)
    return [host for host in found if host]


def groups_about(group: str) -> list[str]:
    """The other security groups that have rules about members of this one."""
    rule = securitygroup.SecurityGroupRule
    return find(rule.security_group_id, rule.remote_group_id == group, rule.security_group_id != group)


def find(column: Any, *conditions: Any) -> list[str]:
    """The values of a column of identifiers where the conditions hold."""
    context = neutron_context.get_admin_context()
    with db_api.CONTEXT_READER.using(context):
        return sorted({value for (value,) in context.session.query(column).filter(*conditions) if value})

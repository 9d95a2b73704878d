"""Which of Neutron's objects there are, and which ports depend on something: identifiers, straight from the tables.

In: what to look for. Out: identifiers in order. Neutron's own listings make a dictionary of every object with all its relations, which for
ten thousand ports takes seconds; these are asked for within API calls.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from neutron.db import models_v2
from neutron.db.models import address_group, securitygroup
from neutron_lib import context as neutron_context
from neutron_lib.db import api as db_api

from tabinet.attach.openstack.publisher import ADDRESS_GROUP, GROUP, PORT, SUBNET

_MODELS = {
    PORT: models_v2.Port,
    GROUP: securitygroup.SecurityGroup,
    ADDRESS_GROUP: address_group.AddressGroup,
    SUBNET: models_v2.Subnet,
}


def all_of(kind: str) -> list[str]:
    """All objects of a kind."""
    return _find(_MODELS[kind].id)


def ports_in_networks(networks: Iterable[str]) -> list[str]:
    """The ports of these networks."""
    return _find(models_v2.Port.id, models_v2.Port.network_id.in_(list(networks)))


def ports_in_subnet(subnet: str) -> list[str]:
    """The ports with an address of the subnet."""
    return _find(models_v2.IPAllocation.port_id, models_v2.IPAllocation.subnet_id == subnet)


def ports_in_group(group: str) -> list[str]:
    """The ports in the security group."""
    binding = securitygroup.SecurityGroupPortBinding
    return _find(binding.port_id, binding.security_group_id == group)


def groups_about(group: str) -> list[str]:
    """The other security groups that have rules about members of this one."""
    rule = securitygroup.SecurityGroupRule
    return _find(rule.security_group_id, rule.remote_group_id == group, rule.security_group_id != group)


def _find(column: Any, *conditions: Any) -> list[str]:
    context = neutron_context.get_admin_context()
    with db_api.CONTEXT_READER.using(context):
        return sorted({value for (value,) in context.session.query(column).filter(*conditions) if value})

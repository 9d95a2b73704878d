"""Reads security groups with their rules straight from Neutron's tables: two statements, however many groups and rules.

In: identifiers. Out: groups as Neutron's API shows them, as far as they are translated. A test holds them against Neutron's own reading
(``tests/openstack/neutron_reads.py``), which makes an object of each rule, with the group and all its rules behind it.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from neutron.db.models import securitygroup
from neutron_lib.db import standard_attr
from sqlalchemy import Select, select

from tabinet.attach.openstack import neutron
from tabinet.attach.openstack.ml2.ports import IDS, execute


def read_groups(context: Any, ids: Sequence[str]) -> list[neutron.SecurityGroup]:
    """Those of the groups that exist, by identifier. Within a transaction."""
    groups = sorted(map(tuple, execute(context, _groups_statement(), ids)))
    rules: dict[str, list[neutron.SecurityGroupRule]] = defaultdict(list)
    for row in execute(context, _rules_statement(), ids) if groups else ():
        rules[row.security_group_id].append(
            neutron.SecurityGroupRule(
                id=row.id,
                direction=row.direction,
                ethertype=row.ethertype,
                protocol=row.protocol,
                port_range_min=row.port_range_min,
                port_range_max=row.port_range_max,
                remote_ip_prefix=row.remote_ip_prefix,
                remote_group_id=row.remote_group_id,
                remote_address_group_id=row.remote_address_group_id,
            )
        )
    return [
        neutron.SecurityGroup(
            id=identifier,
            name=name or "",
            stateful=stateful,
            revision_number=revision,
            security_group_rules=tuple(sorted(rules[identifier], key=lambda rule: rule.id)),
        )
        for identifier, name, stateful, revision in groups
    ]


@functools.cache
def _groups_statement() -> Select[Any]:
    group, attribute = securitygroup.SecurityGroup.__table__, standard_attr.StandardAttribute.__table__
    ways = group.join(attribute, attribute.c.id == group.c.standard_attr_id)
    return select(group.c.id, group.c.name, group.c.stateful, attribute.c.revision_number).select_from(ways).where(group.c.id.in_(IDS))


@functools.cache
def _rules_statement() -> Select[Any]:
    rule = securitygroup.SecurityGroupRule.__table__
    return (
        select(rule.c.id, rule.c.security_group_id, rule.c.direction, rule.c.ethertype, rule.c.protocol)
        .add_columns(rule.c.port_range_min, rule.c.port_range_max)
        .add_columns(rule.c.remote_ip_prefix, rule.c.remote_group_id, rule.c.remote_address_group_id)
        .where(rule.c.security_group_id.in_(IDS))
    )

"""Runs in Neutron's Python: every port and security group of a database, as Neutron's own plugin reads it and as the driver does.

``neutron_reads.py CONFIG_FILE...`` prints JSON: how many ports there are, and what was not read alike, each with both readings.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import msgspec
from neutron_lib import context as neutron_context
from neutron_lib.db import api as db_api
from neutron_lib.plugins import directory

from tabinet.attach.openstack import neutron
from tabinet.attach.openstack.ml2.ports import read_ports
from tabinet.attach.openstack.ml2.resync import load_neutron
from tabinet.attach.openstack.ml2.rules import read_groups
from tabinet.attach.openstack.neutron import parse_fact
from tabinet.attach.openstack.publisher import PORT

UNORDERED = ("security_groups", "security_group_rules", "allowed_address_pairs", "extra_dhcp_opts")
"""Neutron says these as its database has them."""

SAID = {
    neutron.Network: ("id", "name", "admin_state_up", "mtu"),
    neutron.Subnet: ("id", "network_id", "cidr", "ip_version", "gateway_ip"),
    neutron.SecurityGroup: ("id", "name", "stateful"),
}


def main() -> None:
    load_neutron(sys.argv[1:])
    plugin, context = directory.get_plugin(), neutron_context.get_admin_context()
    with db_api.CONTEXT_READER.using(context):
        networks = {document["id"]: document for document in plugin.get_networks(context)}
        # After a first reading: before, models do not know of each other.
        theirs = {document["id"]: document for document in plugin.get_ports(context)}
        subnets = {document["id"]: document for document in plugin.get_subnets(context)}
        groups = {document["id"]: document for document in plugin.get_security_groups(context, default_sg=True)}
        rows = read_ports(context, [*theirs, "none"])
        ours = {group.id: group for group in read_groups(context, [*groups, "none"])}
    unlike = [
        [as_text(wanted), as_text(ours[each])]
        for each, document in groups.items()
        if as_text(wanted := parse_fact(neutron.SecurityGroup, document)) != as_text(ours[each])
    ]
    for row in rows:
        wanted = {
            PORT: as_text(parse_fact(neutron.Port, theirs[row.port.id])),
            "network": as_text(_narrow(neutron.Network, networks[row.port.network_id])),
            "subnets": {each: as_text(_narrow(neutron.Subnet, subnets[each])) for each in row.subnets},
            "groups": {each: as_text(_narrow(neutron.SecurityGroup, groups[each])) for each in row.groups},
        }
        found = {
            PORT: as_text(row.port),
            "network": as_text(row.network),
            "subnets": {each: as_text(subnet) for each, subnet in row.subnets.items()},
            "groups": {each: as_text(group) for each, group in row.groups.items()},
        }
        if wanted != found:
            unlike.append([wanted, found])
    missing = sorted(theirs.keys() - {row.port.id for row in rows})
    print(json.dumps({"ports": len(theirs), "unlike": unlike, "missing": missing}))


def as_text(fact: neutron.Fact) -> dict[str, Any]:
    """The record's members; lists without an order sorted."""
    found: dict[str, Any] = msgspec.to_builtins(fact)
    return {name: sorted(value, key=str) if name in UNORDERED else value for name, value in found.items()}


def _narrow(kind: Any, document: dict[str, Any]) -> neutron.Fact:
    """As far as the driver's reading says anything."""
    return parse_fact(kind, {name: document.get(name) for name in SAID[kind]})


if __name__ == "__main__":
    main()

"""Reads ports straight from Neutron's tables: each kind of relation with one statement, for all of them.

In: identifiers. Out: ``PortRow``: the port as Neutron's API shows it, with its network, the subnets of its addresses and the names of its
groups. Neutron's own reading makes an object of each port with all its relations, whatever is wanted of it, and then a dictionary by way of
every extension. A test holds both against each other (``tests/openstack/neutron_reads.py``).

What extensions decide is asked of them: names depend on the configuration of the DNS extension. Left out is what hosts are not told.
Statements are made once: to make one costs as much processor time as to have it answered.
"""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from neutron.db import models_v2
from neutron.db.extra_dhcp_opt.models import ExtraDhcpOpt
from neutron.db.models import securitygroup
from neutron.db.models.allowed_address_pair import AllowedAddressPair
from neutron.db.models.dns import PortDNS
from neutron.db.port_security.models import PortSecurityBinding
from neutron.db.qos.models import QosNetworkPolicyBinding, QosPortPolicyBinding
from neutron.plugins.ml2 import models as ml2_models
from neutron.plugins.ml2.extensions.dns_integration import DNSExtensionDriver
from neutron_lib import constants
from neutron_lib.db import standard_attr
from neutron_lib.plugins import directory
from sqlalchemy import BindParameter, Select, bindparam, select

from tabinet.attach.openstack import neutron, translate

Document = dict[str, Any]
IDS: BindParameter[Any] = bindparam("ids", expanding=True)
"""What statements are about."""


@dataclass(slots=True)
class PortRow:
    """One port with what it refers to."""

    port: neutron.Port
    network: neutron.Network
    subnets: dict[str, neutron.Subnet]
    """Of its addresses, as far as ports need them."""
    groups: dict[str, neutron.SecurityGroup]
    """Without their rules."""
    targets: tuple[neutron.Target, ...]
    """The hosts that its machine is about to move to: Neutron unbinds a binding that was active before."""


@dataclass(slots=True)
class _Bindings:
    active: Any = None
    targets: list[neutron.Target] = field(default_factory=list)


class _NamesOf:
    """What extensions for names look at: a port's row in their table, and its addresses."""

    def __init__(self, dns: PortDNS | None, fixed_ips: list[Document]) -> None:
        self.dns = dns
        self._fixed_ips = fixed_ips

    def __getitem__(self, name: str) -> list[Document]:
        return {"fixed_ips": self._fixed_ips}[name]


def read_ports(context: Any, ids: Sequence[str]) -> list[PortRow]:
    """Those of the ports that exist, by identifier. Within a transaction."""
    rows, bindings = _rows(context, ids)
    if not rows:
        return []
    found = sorted(rows)
    addresses, subnets = _addresses(context, found)
    groups, by_id = _groups(context, found)
    pairs, options = _pairs(context, found), _options(context, found)
    naming = [each.obj for each in directory.get_plugin().extension_manager.ordered_ext_drivers if isinstance(each.obj, DNSExtensionDriver)]
    result = []
    for identifier in found:
        row, fixed = rows[identifier], addresses[identifier]
        active = bindings[identifier].active
        port = neutron.Port(
            id=identifier,
            network_id=row.network_id,
            name=row.name or "",
            project_id=row.project_id,
            mac_address=row.mac_address,
            admin_state_up=row.admin_state_up,
            status=row.status,
            device_owner=row.device_owner,
            device_id=row.device_id,
            fixed_ips=tuple(fixed),
            security_groups=tuple(groups[identifier]),
            port_security_enabled=row.port_security_enabled is not False,
            allowed_address_pairs=tuple(pairs[identifier]),
            extra_dhcp_opts=tuple(options[identifier]),
            **_names(naming, row, fixed),
            qos_policy_id=row.qos_policy_id,
            qos_network_policy_id=row.qos_network_policy_id,
            revision_number=row.revision_number,
            host=active.host if active is not None else "",
            vif_type=active.vif_type if active is not None else "",
            profile=_profile(active.profile) if active is not None else {},
        )
        network = neutron.Network(id=row.network_id, name=row.network_name or "", admin_state_up=row.network_up, mtu=row.mtu)
        own = {each.subnet_id: subnets[each.subnet_id] for each in fixed}
        targets = tuple(bindings[identifier].targets)
        result.append(PortRow(port, network, own, {group: by_id[group] for group in port.security_groups}, targets))
    return result


def execute(context: Any, statement: Select[Any], ids: Sequence[str]) -> Iterable[Any]:
    """The rows of a statement about these identifiers (``IDS``), of which there is at least one."""
    rows: Iterable[Any] = context.session.execute(statement, {"ids": ids})
    return rows


@functools.cache
def _ports_statement() -> Select[Any]:
    """With their bindings, of which a port nearly always has one."""
    port, network, attribute = models_v2.Port.__table__, models_v2.Network.__table__, standard_attr.StandardAttribute.__table__
    security, dns = PortSecurityBinding.__table__, PortDNS.__table__
    own, networks = QosPortPolicyBinding.__table__, QosNetworkPolicyBinding.__table__
    binding = ml2_models.PortBinding.__table__
    ways = port.join(network, network.c.id == port.c.network_id).join(attribute, attribute.c.id == port.c.standard_attr_id)
    for optional in (security, dns, own, binding):
        ways = ways.outerjoin(optional, optional.c.port_id == port.c.id)
    ways = ways.outerjoin(networks, networks.c.network_id == port.c.network_id)
    return (
        select(
            *(port.c.id, port.c.network_id, port.c.name, port.c.project_id, port.c.mac_address, port.c.admin_state_up, port.c.status),
            *(port.c.device_owner, port.c.device_id, attribute.c.revision_number, security.c.port_security_enabled),
            *(network.c.name.label("network_name"), network.c.admin_state_up.label("network_up"), network.c.mtu),
            *(dns.c.dns_name, dns.c.dns_domain, dns.c.current_dns_domain),
            *(own.c.policy_id.label("qos_policy_id"), networks.c.policy_id.label("qos_network_policy_id")),
            *(binding.c.host, binding.c.vif_type, binding.c.profile, binding.c.status.label("binding_status")),
        )
        .select_from(ways)
        .where(port.c.id.in_(IDS))
    )


def _rows(context: Any, ids: Sequence[str]) -> tuple[dict[str, Any], dict[str, _Bindings]]:
    rows: dict[str, Any] = {}
    bindings: dict[str, _Bindings] = defaultdict(_Bindings)
    for row in execute(context, _ports_statement(), ids):
        rows[row.id] = row
        if row.binding_status == constants.ACTIVE:
            bindings[row.id].active = row
        elif row.binding_status == constants.INACTIVE and row.vif_type == translate.VIF_TYPE:
            bindings[row.id].targets.append(neutron.Target(host=row.host, profile=_profile(row.profile)))
    return rows, bindings


@functools.cache
def _addresses_statement() -> Select[Any]:
    allocation, subnet = models_v2.IPAllocation.__table__, models_v2.Subnet.__table__
    return (
        select(allocation.c.port_id, allocation.c.ip_address)
        .add_columns(subnet.c.id, subnet.c.network_id, subnet.c.cidr, subnet.c.ip_version, subnet.c.gateway_ip)
        .select_from(allocation.join(subnet, subnet.c.id == allocation.c.subnet_id))
        .where(allocation.c.port_id.in_(IDS))
        .order_by(allocation.c.ip_address, allocation.c.subnet_id)
    )


def _addresses(context: Any, ids: Sequence[str]) -> tuple[dict[str, list[neutron.FixedIp]], dict[str, neutron.Subnet]]:
    """By port, in Neutron's order; and the subnets."""
    found: dict[str, list[neutron.FixedIp]] = defaultdict(list)
    subnets: dict[str, neutron.Subnet] = {}
    for port, address, identifier, network, cidr, version, gateway in execute(context, _addresses_statement(), ids):
        found[port].append(neutron.FixedIp(ip_address=address, subnet_id=identifier))
        if identifier not in subnets:
            subnets[identifier] = neutron.Subnet(id=identifier, network_id=network, cidr=cidr, ip_version=version, gateway_ip=gateway)
    return found, subnets


@functools.cache
def _groups_statement() -> Select[Any]:
    binding, group = securitygroup.SecurityGroupPortBinding.__table__, securitygroup.SecurityGroup.__table__
    ways = binding.join(group, group.c.id == binding.c.security_group_id)
    return select(binding.c.port_id, group.c.id, group.c.name, group.c.stateful).select_from(ways).where(binding.c.port_id.in_(IDS))


def _groups(context: Any, ids: Sequence[str]) -> tuple[dict[str, list[str]], dict[str, neutron.SecurityGroup]]:
    """By port, in order; and the groups."""
    found: dict[str, list[str]] = defaultdict(list)
    groups: dict[str, neutron.SecurityGroup] = {}
    for port, identifier, name, stateful in execute(context, _groups_statement(), ids):
        found[port].append(identifier)
        if identifier not in groups:
            groups[identifier] = neutron.SecurityGroup(id=identifier, name=name or "", stateful=stateful)
    return defaultdict(list, {port: sorted(each) for port, each in found.items()}), groups


@functools.cache
def _pairs_statement() -> Select[Any]:
    pair = AllowedAddressPair.__table__
    return select(pair.c.port_id, pair.c.mac_address, pair.c.ip_address).where(pair.c.port_id.in_(IDS))


def _pairs(context: Any, ids: Sequence[str]) -> dict[str, list[neutron.AllowedPair]]:
    """By port, in order."""
    found: dict[str, list[neutron.AllowedPair]] = defaultdict(list)
    for port, mac, address in sorted(map(tuple, execute(context, _pairs_statement(), ids))):
        found[port].append(neutron.AllowedPair(ip_address=address, mac_address=mac))
    return found


@functools.cache
def _options_statement() -> Select[Any]:
    option = ExtraDhcpOpt.__table__
    return select(option.c.port_id, option.c.opt_name, option.c.ip_version, option.c.opt_value).where(option.c.port_id.in_(IDS))


def _options(context: Any, ids: Sequence[str]) -> dict[str, list[neutron.ExtraDhcpOption]]:
    """By port, in order."""
    found: dict[str, list[neutron.ExtraDhcpOption]] = defaultdict(list)
    for port, name, version, value in sorted(map(tuple, execute(context, _options_statement(), ids))):
        found[port].append(neutron.ExtraDhcpOption(opt_name=name, opt_value=value, ip_version=version))
    return found


def _names(naming: Sequence[Any], row: Any, fixed: Sequence[neutron.FixedIp]) -> Document:
    """The port's name, and the names of its addresses, as the extension for names says them; nothing without one."""
    document: Document = {}
    names = (row.dns_name, row.dns_domain, row.current_dns_domain)
    dns = PortDNS(dns_name=names[0], dns_domain=names[1], current_dns_domain=names[2]) if naming and row.dns_name is not None else None
    asked = _NamesOf(dns, [{"ip_address": each.ip_address, "subnet_id": each.subnet_id} for each in fixed])
    for each in naming:
        each.extend_port_dict(None, asked, document)
    assignments = document.get("dns_assignment", ())
    return {"dns_name": document.get("dns_name"), "dns_assignment": tuple(neutron.DnsAssignment(**each) for each in assignments)}


def _profile(text: str) -> Document:
    """What Neutron cannot read is empty for it, too."""
    try:
        profile = json.loads(text) if text else {}
    except ValueError:
        return {}
    return profile if isinstance(profile, dict) else {}

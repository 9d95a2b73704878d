"""Ports to endpoints: what the store holds for one of Neutron's ports.

In: a ``PortView``. Out: documents by path; none when the port is no workload that runs on a host. Layout and names are
networking-calico's; what that cannot say is in the annotation ``openstack.tabinet/port``. Equal views give equal documents. Pure; linear
in the port's addresses.

- A port is a workload when it is bound to a host by us and is not one of Neutron's own (router, DHCP, floating IP).
- Single addresses among the allowed address pairs are addresses of the endpoint: hosts route them to it, as networking-calico has it.
  Prefixes may be sent from (``allowSpoofedSourcePrefixes``), and belong to the port's security groups through a network set.
- Destinations of routers' routes by way of the port are routed to it and may be sent from, like such prefixes, but are in no security
  group. Where networks are isolated a network set says that they belong to the port's.
- While a machine moves (``binding:profile``'s ``migrating_to``, or an inactive binding) its port has an endpoint on the target too, and a
  LiveMigration that names both; the annotation ``openstack.tabinet/moving`` goes with the move, so that the target reports anew.
- Port security off: a label that the open policy selects, no groups, every source address.
- A port whose groups are all stateless is judged packet by packet (annotation ``tabinet.io/stateless``).
- A port or network that is administratively down has no endpoint: its interface passes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from tabinet.attach.openstack.extraroutes import prefixes_behind
from tabinet.attach.openstack.forwardings import translate_forwardings
from tabinet.attach.openstack.groups import refusals
from tabinet.attach.openstack.isolation import network_labels
from tabinet.attach.openstack.limits import translate_limits
from tabinet.attach.openstack.names import (
    GROUP_NAME_LABEL,
    KEYSTONE_LABELS,
    OPEN_LABEL,
    OPEN_VALUE,
    ORCHESTRATOR,
    PROJECT_LABEL,
    Region,
    endpoint_key,
    group_label,
    interface_of,
    is_host,
    migration_key,
    pairs_key,
    profile_key,
    routes_key,
    sanitize_label,
    subnet_path,
    workload_of,
)
from tabinet.attach.openstack.neutron import Port, PortView, Subnet, Target
from tabinet.lib.ip import IPV4, IPV6, Prefix, parse_prefix
from tabinet.model.addresslimits import AddressLimits, render_address_limits
from tabinet.model.annotations import ADDRESS_LIMITS, PORT_FORWARDS, STATELESS
from tabinet.model.forwards import render_forwards
from tabinet.model.keys import ResourceKey, path_of
from tabinet.model.openstack import (
    FQDN_ANNOTATION,
    MOVING_ANNOTATION,
    NETWORK_ANNOTATION,
    PORT_ANNOTATION,
    REVISION_ANNOTATION,
    AddressPair,
    DhcpOption,
    FixedAddress,
    PortFacts,
    render_port_facts,
)
from tabinet.model.records.base import API_VERSION
from tabinet.model.records.endpoints import QosControls

Document = dict[str, Any]
Documents = dict[str, Document]
"""By path."""

VIF_TYPE = "tap"
SUBPORT_OWNER = "trunk:subport"
_NEUTRONS_OWN = ("network:", "neutron:")
_NETWORK_LABEL = "projectcalico.org/openstack-network-name"
_MIGRATING_TO = "migrating_to"
"""In ``binding:profile``: Nova names the host here that it moves the machine to."""
_ANYWHERE = ("0.0.0.0/0", "::/0")


def is_workload_owner(device_owner: str) -> bool:
    """True: ports with this owner belong to workloads."""
    return not device_owner.startswith(_NEUTRONS_OWN)


def is_stateless(view: PortView) -> bool:
    """True: nothing passes the port because of a flow. Neutron refuses ports with groups of both kinds; should there be one, a group that
    promises answers keeps its promise."""
    port = view.port
    return port.port_security_enabled and bool(port.security_groups) and view.stateless.issuperset(port.security_groups)


def host_of(view: PortView) -> str:
    """The host that the port's workload runs on; empty when there is none, or the port shall not pass anything."""
    port = view.port
    up = port.admin_state_up and view.network.admin_state_up and (view.trunk is None or view.trunk.admin_state_up)
    bound = port.vif_type == VIF_TYPE and is_workload_owner(port.device_owner)
    return port.host if up and bound and is_host(port.host) else ""


def translate_port(view: PortView, region: Region) -> Documents:
    """Everything that the store holds for the port."""
    host = host_of(view)
    if not host:
        return {}
    port = view.port
    addresses = _Addresses(view)
    labels = _labels(view, region)
    own = endpoint_key(region, host, port.device_id, port.id)
    documents = {path_of(own): _endpoint(view, region, own, host, _annotations(view, addresses, port.profile))}
    for target in targets_of(view):
        key = endpoint_key(region, target.host, port.device_id, port.id)
        annotations = _annotations(view, addresses, target.profile) | {MOVING_ANNOTATION: host}
        documents[path_of(key)] = _endpoint(view, region, key, target.host, annotations)
        documents[path_of(migration_key(key))] = _migration(view, own, host, key, target.host)
    members = {name: value for name, value in labels.items() if name.startswith(group_label(""))}
    network = network_labels(port.network_id, view.routers) if region.isolated else {}
    documents |= _network_set(pairs_key(region, port.id), addresses.nets, members | network)
    documents |= _network_set(routes_key(region, port.id), addresses.behind, network)
    return documents


def _network_set(key: ResourceKey, nets: Iterable[Prefix], labels: dict[str, str]) -> Documents:
    """The prefixes with the labels; nothing without either."""
    spec = {"nets": [str(net) for net in nets]}
    metadata = {"name": key.name, "namespace": key.namespace, "labels": labels}
    document = {"apiVersion": API_VERSION, "kind": "NetworkSet", "metadata": metadata, "spec": spec}
    return {path_of(key): document} if spec["nets"] and labels else {}


def targets_of(view: PortView) -> list[Target]:
    """The hosts that the port's machine is about to move to, each once, by name."""
    port = view.port
    wanted = port.profile.get(_MIGRATING_TO)
    found = {wanted: Target(host=wanted)} if isinstance(wanted, str) else {}
    found |= {target.host: target for target in view.targets}
    return [found[host] for host in sorted(found) if is_host(host) and host != port.host]


def _endpoint(view: PortView, region: Region, key: ResourceKey, host: str, annotations: dict[str, str]) -> Document:
    spec = _spec(view, host, _Addresses(view))
    if region.isolated:
        spec["profiles"] = [profile_key(view.port.network_id).name]
    metadata = {"name": key.name, "namespace": key.namespace, "annotations": annotations, "labels": _labels(view, region)}
    return {"apiVersion": API_VERSION, "kind": "WorkloadEndpoint", "metadata": metadata, "spec": spec}


def _migration(view: PortView, source: ResourceKey, source_host: str, target: ResourceKey, target_host: str) -> Document:
    """As networking-calico has it."""
    workload = f"{source.namespace}/{workload_of(view.port.device_id, view.port.id)}"
    common = {"orchestratorID": ORCHESTRATOR, "workloadID": workload, "endpointID": view.port.id}
    ends = {"source": source_host, "target": target_host}
    return {
        "apiVersion": API_VERSION,
        "kind": "LiveMigration",
        "metadata": {"name": target.name, "namespace": target.namespace},
        "spec": {end: {"workloadEndpoint": {"hostname": host, **common}} for end, host in ends.items()},
    }


def port_documents(view: PortView, region: Region) -> dict[str, Document | None]:
    """The same, with None for what the store must not hold for the port where it is now."""
    port = view.port
    places = [path_of(pairs_key(region, port.id)), path_of(routes_key(region, port.id))]
    if is_host(port.host):
        places.append(path_of(endpoint_key(region, port.host, port.device_id, port.id)))
    return {**dict.fromkeys(places), **translate_port(view, region)}


def port_paths(region: Region, port_id: str, places: list[tuple[str, str]], *, moving: bool = True) -> list[str]:
    """Where a port that was in these places (host, device) may have left something; ``moving``: or was about to go to them."""
    found = [path_of(pairs_key(region, port_id)), path_of(routes_key(region, port_id))]
    keys = [endpoint_key(region, host, device, port_id) for host, device in places if is_host(host)]
    found += [path_of(each) for key in keys for each in ((key, migration_key(key)) if moving else (key,))]
    return list(dict.fromkeys(found))


def translate_subnet(subnet: Subnet, region: Region) -> dict[str, Document | None]:
    """What hosts need to answer DHCP in the subnet; None where Neutron has it switched off."""
    path = subnet_path(region, subnet.id)
    if not subnet.enable_dhcp:
        return {path: None}
    value: Document = {
        "network_id": subnet.network_id,
        "cidr": subnet.cidr,
        "gateway_ip": subnet.gateway_ip,
        "host_routes": [{"destination": route.destination, "nexthop": route.nexthop} for route in subnet.host_routes],
    }
    if subnet.dns_nameservers:
        value["dns_servers"] = list(subnet.dns_nameservers)
    for name in ("ipv6_ra_mode", "ipv6_address_mode"):
        mode = getattr(subnet, name)
        if mode:
            value[name] = mode
    return {path: value}


class _Addresses:
    """The addresses of a port, sorted out."""

    def __init__(self, view: PortView) -> None:
        port = view.port
        self.own = [parse_prefix(fixed.ip_address) for fixed in port.fixed_ips]
        self.pairs: list[Prefix] = []
        """Single addresses among the allowed address pairs."""
        self.nets: list[Prefix] = []
        """Prefixes among them."""
        self.behind, self.refused = prefixes_behind(view.extra_routes, view.subnet_prefixes)
        """What routers' routes say is behind the port, and what of everything could not be expressed."""
        for pair in port.allowed_address_pairs:
            try:
                net = parse_prefix(pair.ip_address)
            except ValueError as error:
                self.refused.append(f"allowed address pair {pair.ip_address}: {error}")
                continue
            known = self.pairs if net.is_host else self.nets
            if net not in known and net not in self.own:
                known.append(net)


def _labels(view: PortView, region: Region) -> dict[str, str]:
    port = view.port
    labels = {
        "projectcalico.org/namespace": region.namespace,
        "projectcalico.org/orchestrator": ORCHESTRATOR,
        PROJECT_LABEL: sanitize_label(port.project_id or ""),
        _NETWORK_LABEL: sanitize_label(view.network.name),
    }
    if view.project is not None:
        values = (view.project.name, view.project.parent_id or "")
        labels |= {name: sanitize_label(value) for name, value in zip(KEYSTONE_LABELS, values, strict=True)}
    if not port.port_security_enabled:
        return labels | {OPEN_LABEL: OPEN_VALUE}
    for group in port.security_groups:
        name = view.groups.get(group, "")
        labels[group_label(group)] = sanitize_label(name)
        part = sanitize_label(name, 63 - len("openstack-"))
        if part:
            labels[f"{GROUP_NAME_LABEL}openstack-{part}"] = group
    return labels


def _annotations(view: PortView, addresses: _Addresses, profile: dict[str, object]) -> dict[str, str]:
    port, trunk = view.port, view.trunk
    fqdn = next((assignment.fqdn.rstrip(".") for assignment in port.dns_assignment if assignment.fqdn), "")
    facts = PortFacts(
        mtu=view.network.mtu or 0,
        fixed=tuple(FixedAddress(address=fixed.ip_address, subnet=fixed.subnet_id) for fixed in port.fixed_ips),
        hostname=port.dns_name or next((assignment.hostname for assignment in port.dns_assignment), ""),
        fqdn=fqdn,
        dhcp_options=tuple(
            DhcpOption(name=option.opt_name, value=option.opt_value, ip_version=option.ip_version) for option in port.extra_dhcp_opts
        ),
        pairs=(
            *(AddressPair(net=pair.ip_address, mac=_other_mac(pair.mac_address, port)) for pair in port.allowed_address_pairs),
            *(AddressPair(net=str(net)) for net in addresses.behind),
        ),
        port_security=port.port_security_enabled,
        trunk_parent=interface_of(trunk.parent_port_id) if trunk is not None else "",
        vlan=trunk.segmentation_id if trunk is not None else 0,
        profile=profile,
    )
    annotations = {
        NETWORK_ANNOTATION: port.network_id,
        PORT_ANNOTATION: render_port_facts(facts),
        REVISION_ANNOTATION: str(port.revision_number),
    }
    if fqdn:
        annotations[FQDN_ANNOTATION] = fqdn
    if is_stateless(view):
        annotations[STATELESS] = "true"
    forwards, untranslated = translate_forwardings(view.forwardings, view.forwardings_elsewhere)
    if forwards:
        annotations[PORT_FORWARDS] = render_forwards(forwards)
    limits = _address_limits(view)
    if limits:
        annotations[ADDRESS_LIMITS] = render_address_limits(limits)
    return annotations | refusals(addresses.refused + untranslated)


def _address_limits(view: PortView) -> list[AddressLimits]:
    """Those of the floating addresses that have any."""
    found = ((address, translate_limits(rules)) for address, rules in view.address_rules.items())
    return [AddressLimits(external_ip=address, qos_controls=msgspec.convert(limits, QosControls)) for address, limits in found if limits]


def _other_mac(mac: str, port: Port) -> str:
    return "" if mac.lower() == port.mac_address.lower() else mac.lower()


def _spec(view: PortView, host: str, addresses: _Addresses) -> Document:
    port = view.port
    spec: Document = {
        "orchestrator": ORCHESTRATOR,
        "workload": workload_of(port.device_id, port.id),
        "node": host,
        "endpoint": port.id,
        "interfaceName": interface_of(port.id),
        "mac": port.mac_address,
        "ipNetworks": [str(net) for net in (*addresses.own, *addresses.pairs)],
        "allowedIps": [str(net) for net in addresses.pairs],
    }
    for version, name in ((IPV4, "ipv4Gateway"), (IPV6, "ipv6Gateway")):
        gateway = _gateway(view, version)
        if gateway:
            spec[name] = gateway
    spoofed = (
        list(_ANYWHERE) if not port.port_security_enabled else [str(net) for net in dict.fromkeys((*addresses.nets, *addresses.behind))]
    )
    if spoofed:
        spec["allowSpoofedSourcePrefixes"] = spoofed
    nats = [
        {"internalIP": floating.fixed_ip_address, "externalIP": floating.floating_ip_address}
        for floating in sorted(view.floating_ips, key=lambda floating: floating.id)
        if floating.fixed_ip_address
    ]
    if nats:
        spec["ipNATs"] = nats
    controls = translate_limits(view.qos_rules)
    if controls:
        spec["qosControls"] = controls
    return spec


def _gateway(view: PortView, version: int) -> str:
    """Of the first subnet of this version, in the order of the port's addresses, that has one."""
    subnets = {subnet.id: subnet for subnet in view.subnets}
    for fixed in view.port.fixed_ips:
        subnet = subnets.get(fixed.subnet_id)
        if subnet is not None and subnet.ip_version == version and subnet.gateway_ip:
            return subnet.gateway_ip
    return ""

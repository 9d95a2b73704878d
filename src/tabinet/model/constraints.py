"""Rules that involve several fields of one record, as a table: which record, which fields are read, what is wrong.

A constraint runs only when the fields that it reads are themselves fine, so that one mistake is reported once. Those marked ``stored`` also
hold for values that come from the store: without them the meaning of a policy or pool would be guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from tabinet.lib.ip import Prefix, parse_prefix
from tabinet.model import protocols
from tabinet.model import resources as r
from tabinet.model.endpoint_names import endpoint_name_of
from tabinet.model.formats import parse_community, parse_peer


class Finding(NamedTuple):
    """One thing wrong: where below the record (``egress[0].source``), what is there, what is allowed."""

    path: str
    value: Any
    allowed: str


class Constraint(NamedTuple):
    """A rule about a record of one type."""

    reads: tuple[str, ...]
    """What it looks at: dotted names on the wire, without indices."""
    check: Callable[[Any], Iterator[Finding]]
    stored: bool = False


# --- rules of policies ----------------------------------------------------------------------------------------------


def _protocol(value: int | str | None) -> int:
    return 0 if value is None else protocols.parse_protocol(value)


def _ports_need_protocol(rule: r.Rule) -> Iterator[Finding]:
    if _protocol(rule.protocol) in protocols.WITH_PORTS:
        return
    for side in ("source", "destination"):
        entity = getattr(rule, side)
        for name, wire in (("ports", "ports"), ("not_ports", "notPorts")):
            if getattr(entity, name):
                yield Finding(f"{side}.{wire}", getattr(entity, name), "allowed only with protocol TCP, UDP or SCTP")


def _icmp_needs_protocol(rule: r.Rule) -> Iterator[Finding]:
    if _protocol(rule.protocol) in (protocols.ICMP, protocols.ICMPV6):
        return
    for value, wire in ((rule.icmp, "icmp"), (rule.not_icmp, "notICMP")):
        if value is not None:
            yield Finding(wire, msgspec.to_builtins(value), "allowed only with protocol ICMP or ICMPv6")


def _icmp_code_needs_type(match: r.IcmpMatch) -> Iterator[Finding]:
    if match.code is not None and match.type is None:
        yield Finding("code", match.code, "allowed only together with a type")


def _protocol_fits_version(rule: r.Rule) -> Iterator[Finding]:
    needed = {protocols.ICMP: 4, protocols.ICMPV6: 6}
    for value, wire in ((rule.protocol, "protocol"), (rule.not_protocol, "notProtocol")):
        version = needed.get(_protocol(value))
        if version and rule.ip_version not in (None, version):
            yield Finding("ipVersion", rule.ip_version, f"allowed: {version}, because {wire} is {value}")


def _not_protocol_differs(rule: r.Rule) -> Iterator[Finding]:
    if rule.protocol is not None and rule.not_protocol is not None and _protocol(rule.protocol) == _protocol(rule.not_protocol):
        yield Finding("notProtocol", rule.not_protocol, "must differ from protocol, or the rule never matches")


def _nets_of_one_family(rule: r.Rule) -> Iterator[Finding]:
    expected = rule.ip_version
    because = "ipVersion"
    for side in ("source", "destination"):
        entity = getattr(rule, side)
        for name, wire in (("nets", "nets"), ("not_nets", "notNets")):
            for index, text in enumerate(getattr(entity, name)):
                family = parse_prefix(text).family
                if expected is None:
                    expected, because = family, f"{side}.{wire}[{index}]"
                elif family != expected:
                    yield Finding(f"{side}.{wire}[{index}]", text, f"must be IPv{expected}, as {because} says")


def _http_only_for_allowed_tcp(rule: r.Rule) -> Iterator[Finding]:
    if rule.http is None:
        return
    if rule.action != "Allow":
        yield Finding("http", msgspec.to_builtins(rule.http), "allowed only in rules with action Allow")
    if rule.protocol is not None and _protocol(rule.protocol) != protocols.TCP:
        yield Finding("http", msgspec.to_builtins(rule.http), "allowed only with protocol TCP")


def _http_paths(match: r.HttpMatch) -> Iterator[Finding]:
    if len(set(match.methods)) != len(match.methods):
        yield Finding("methods", list(match.methods), "must not repeat a method")
    for index, path in enumerate(match.paths):
        text = path.exact or path.prefix
        if bool(path.exact) == bool(path.prefix):
            yield Finding(f"paths[{index}]", msgspec.to_builtins(path), "must have either exact or prefix")
        elif not text.startswith("/") or any(mark in text for mark in "? #"):
            yield Finding(f"paths[{index}]", text, "must begin with / and have no '?', '#' or space")


def _service_ports(rule: r.Rule) -> Iterator[Finding]:
    if rule.destination.services is not None:
        for name, wire in (("ports", "ports"), ("not_ports", "notPorts")):
            if getattr(rule.destination, name):
                yield Finding(f"destination.{wire}", getattr(rule.destination, name), "not allowed with services, which bring their ports")


def _services_stand_alone(entity: r.EntityRule) -> Iterator[Finding]:
    if entity.services is None:
        return
    if not entity.services.name:
        yield Finding("services", msgspec.to_builtins(entity.services), "must name a service")
    others = {
        "nets": entity.nets,
        "notNets": entity.not_nets,
        "selector": entity.selector,
        "notSelector": entity.not_selector,
        "namespaceSelector": entity.namespace_selector,
        "serviceAccounts": entity.service_accounts,
    }
    for wire, value in others.items():
        if value:
            yield Finding(wire, msgspec.to_builtins(value), "not allowed with services")


def _entity_sizes(entity: r.EntityRule) -> Iterator[Finding]:
    for wire, values, limit in (
        ("nets", entity.nets, 256),
        ("notNets", entity.not_nets, 256),
        ("ports", entity.ports, 50),
        ("notPorts", entity.not_ports, 50),
    ):
        if len(values) > limit:
            yield Finding(wire, f"{len(values)} items", f"allowed: at most {limit}")


# --- policies -------------------------------------------------------------------------------------------------------


def _types_once(spec: r.NetworkPolicySpec) -> Iterator[Finding]:
    if len(set(spec.types)) != len(spec.types):
        yield Finding("types", list(spec.types), "must not name a type twice")


def _services_by_direction(spec: r.NetworkPolicySpec) -> Iterator[Finding]:
    for index, rule in enumerate(spec.ingress):
        if rule.destination.services is not None:
            yield Finding(f"ingress[{index}].destination.services", rule.destination.services.name, "not allowed in ingress rules")
    for index, rule in enumerate(spec.egress):
        if rule.source.services is not None:
            yield Finding(f"egress[{index}].source.services", rule.source.services.name, "not allowed in egress rules")
        if rule.http is not None:
            yield Finding(f"egress[{index}].http", msgspec.to_builtins(rule.http), "not allowed in egress rules")


def _services_need_namespace(spec: r.GlobalNetworkPolicySpec) -> Iterator[Finding]:
    for direction, rules, side in (("ingress", spec.ingress, "source"), ("egress", spec.egress, "destination")):
        for index, rule in enumerate(rules):
            services = getattr(rule, side).services
            if services is not None and not services.namespace:
                yield Finding(f"{direction}[{index}].{side}.services.namespace", "", "must be given in a global policy")


def _untracked(spec: r.GlobalNetworkPolicySpec) -> Iterator[Finding]:
    if spec.do_not_track and spec.pre_dnat:
        yield Finding("preDNAT", True, "not allowed together with doNotTrack")
    if (spec.do_not_track or spec.pre_dnat) and not spec.apply_on_forward:
        yield Finding("applyOnForward", False, "must be true with doNotTrack or preDNAT")
    if spec.pre_dnat and spec.egress:
        yield Finding("egress", f"{len(spec.egress)} rules", "not allowed with preDNAT")
    if spec.pre_dnat and "Egress" in spec.types:
        yield Finding("types", list(spec.types), "must not have Egress with preDNAT")


TIER_ORDERS = {"kube-admin": 1_000.0, "default": 1_000_000.0, "kube-baseline": 10_000_000.0}
"""Order of the tiers that always exist."""


def _fixed_tier_order(tier: r.Tier) -> Iterator[Finding]:
    order = TIER_ORDERS.get(tier.metadata.name)
    if order is not None and tier.spec.order not in (None, order):
        yield Finding("spec.order", tier.spec.order, f"must be {order:.0f} for this tier")


# --- endpoints and pools --------------------------------------------------------------------------------------------


def _port_names(port: r.EndpointPort) -> Iterator[Finding]:
    if _protocol(port.protocol) not in protocols.WITH_PORTS:
        yield Finding("protocol", port.protocol, "allowed: TCP, UDP or SCTP")
    if not port.name and not port.host_port:
        yield Finding("name", "", "must be given unless there is a hostPort")


def _nat_families(nat: r.IpNat) -> Iterator[Finding]:
    if parse_prefix(nat.internal_ip).family != parse_prefix(nat.external_ip).family:
        yield Finding("externalIP", nat.external_ip, f"must be of the family of internalIP, {nat.internal_ip}")


def _nats_within(spec: r.WorkloadEndpointSpec) -> Iterator[Finding]:
    if not spec.ip_nats:
        return
    networks = {parse_prefix(text) for text in spec.ip_networks}
    for index, nat in enumerate(spec.ip_nats):
        if parse_prefix(nat.internal_ip) not in networks:
            yield Finding(f"ipNATs[{index}].internalIP", nat.internal_ip, "must be one of ipNetworks")


_NAME_PARTS = ("node", "orchestrator", "workload", "pod", "containerID", "endpoint")


def _name_fits_spec(endpoint: r.WorkloadEndpoint) -> Iterator[Finding]:
    try:
        expected = str(endpoint_name_of(endpoint.spec))
    except ValueError:
        missing = "spec must have node, orchestrator, endpoint and, as the orchestrator wants it, workload, pod or containerID"
        yield Finding("spec", msgspec.to_builtins(endpoint.spec), missing)
        return
    if endpoint.metadata.name and endpoint.metadata.name != expected:
        yield Finding(
            "metadata.name", endpoint.metadata.name, f"must be {expected}, from node, orchestrator, workload and endpoint of spec"
        )


_LINK_LOCAL = (parse_prefix("169.254.0.0/16"), parse_prefix("fe80::/10"))
_DEFAULT_BLOCK = {4: 26, 6: 122}
_BLOCK_LIMITS = {4: (20, 32), 6: (116, 128)}


def _pool_block(spec: r.IPPoolSpec) -> Iterator[Finding]:
    cidr = parse_prefix(spec.cidr)
    size = spec.block_size or _DEFAULT_BLOCK[cidr.family]
    low, high = _BLOCK_LIMITS[cidr.family]
    if not low <= size <= high:
        yield Finding("blockSize", size, f"allowed: {low} to {high} for IPv{cidr.family}")
    elif cidr.length > size and not spec.disabled:
        yield Finding("cidr", spec.cidr, f"must be at least as large as a block, /{size}")


def _pool_place(spec: r.IPPoolSpec) -> Iterator[Finding]:
    cidr: Prefix = parse_prefix(spec.cidr)
    for reserved in _LINK_LOCAL:
        if cidr.overlaps(reserved):
            yield Finding("cidr", spec.cidr, f"must not overlap the link-local range {reserved}")


def _pool_tunnels(spec: r.IPPoolSpec) -> Iterator[Finding]:
    ipip = spec.ipip_mode not in ("", "Never")
    vxlan = spec.vxlan_mode not in ("", "Never")
    if ipip and parse_prefix(spec.cidr).family != 4:
        yield Finding("ipipMode", spec.ipip_mode, "allowed: Never, for an IPv6 pool")
    if ipip and vxlan:
        yield Finding("vxlanMode", spec.vxlan_mode, "allowed: Never, because ipipMode is in use")


def _pool_load_balancer(spec: r.IPPoolSpec) -> Iterator[Finding]:
    if "LoadBalancer" not in spec.allowed_uses:
        return
    if len(set(spec.allowed_uses)) > 1:
        yield Finding("allowedUses", list(spec.allowed_uses), "LoadBalancer must stand alone")
    for wire, mode in (("ipipMode", spec.ipip_mode), ("vxlanMode", spec.vxlan_mode)):
        if mode not in ("", "Never"):
            yield Finding(wire, mode, "allowed: Never, for LoadBalancer pools")
    if spec.node_selector not in ("", "all()"):
        yield Finding("nodeSelector", spec.node_selector, "allowed: all(), for LoadBalancer pools")


# --- hosts and BGP --------------------------------------------------------------------------------------------------


def _node_bgp_not_empty(spec: r.NodeSpec) -> Iterator[Finding]:
    if spec.bgp == r.NodeBgp():
        yield Finding("bgp", {}, "must not be empty; leave it out")


def _peer_excludes(spec: r.BGPPeerSpec) -> Iterator[Finding]:
    values = {
        "node": spec.node,
        "nodeSelector": spec.node_selector,
        "peerIP": spec.peer_ip,
        "asNumber": spec.as_number,
        "peerSelector": spec.peer_selector,
        "localWorkloadSelector": spec.local_workload_selector,
        "keepOriginalNextHop": spec.keep_original_next_hop,
        "nextHopMode": spec.next_hop_mode,
    }
    for one, other in (
        ("node", "nodeSelector"),
        ("peerIP", "peerSelector"),
        ("asNumber", "peerSelector"),
        ("peerIP", "localWorkloadSelector"),
        ("peerSelector", "localWorkloadSelector"),
        ("keepOriginalNextHop", "nextHopMode"),
    ):
        if values[one] and values[other]:
            yield Finding(one, values[one], f"not allowed together with {other}")
    if not (spec.peer_ip or spec.peer_selector or spec.local_workload_selector):
        yield Finding("peerIP", "", "must be given, or peerSelector or localWorkloadSelector")
    if (spec.peer_ip or spec.local_workload_selector) and not spec.as_number:
        yield Finding("asNumber", "", "must be given with peerIP or localWorkloadSelector")


def _peer_reachable(spec: r.BGPPeerSpec) -> Iterator[Finding]:
    if not spec.reachable_by:
        return
    if not spec.peer_ip:
        yield Finding("reachableBy", spec.reachable_by, "allowed only with peerIP")
    elif (":" in parse_peer(spec.peer_ip)[0]) != (":" in spec.reachable_by):
        yield Finding("reachableBy", spec.reachable_by, f"must be of the family of peerIP, {spec.peer_ip}")


def _communities(spec: r.BGPConfigurationSpec) -> Iterator[Finding]:
    names = {community.name for community in spec.communities}
    for index, community in enumerate(spec.communities):
        if not community.name or not community.value:
            yield Finding(f"communities[{index}]", msgspec.to_builtins(community), "must have a name and a value")
    if spec.communities and not spec.prefix_advertisements:
        yield Finding("communities", sorted(names), "must be used in prefixAdvertisements")
    for index, advertisement in enumerate(spec.prefix_advertisements):
        for position, text in enumerate(advertisement.communities):
            if text not in names and not _is_community(text):
                where = f"prefixAdvertisements[{index}].communities[{position}]"
                yield Finding(where, text, "must be the name of a community or a value such as 64512:100")


def _is_community(text: str) -> bool:
    try:
        parse_community(text)
    except ValueError:
        return False
    return True


def _mesh_settings(spec: r.BGPConfigurationSpec) -> Iterator[Finding]:
    if spec.node_to_node_mesh_enabled is False:
        if spec.node_mesh_password is not None:
            yield Finding("nodeMeshPassword", "a reference", "not allowed while nodeToNodeMeshEnabled is false")
        if spec.node_mesh_max_restart_time:
            yield Finding("nodeMeshMaxRestartTime", spec.node_mesh_max_restart_time, "not allowed while nodeToNodeMeshEnabled is false")


_POLICY = (
    Constraint(("types",), _types_once),
    Constraint(("ingress.destination.services", "egress.source.services", "egress.http"), _services_by_direction),
)

CONSTRAINTS: dict[type[msgspec.Struct], tuple[Constraint, ...]] = {
    r.Rule: (
        Constraint(
            ("protocol", "source.ports", "source.notPorts", "destination.ports", "destination.notPorts"), _ports_need_protocol, stored=True
        ),
        Constraint(("protocol", "icmp", "notICMP"), _icmp_needs_protocol, stored=True),
        Constraint(("protocol", "notProtocol", "ipVersion"), _protocol_fits_version, stored=True),
        Constraint(("protocol", "notProtocol"), _not_protocol_differs),
        Constraint(("ipVersion", "source.nets", "source.notNets", "destination.nets", "destination.notNets"), _nets_of_one_family),
        Constraint(("action", "protocol", "http"), _http_only_for_allowed_tcp, stored=True),
        Constraint(("destination.services", "destination.ports", "destination.notPorts"), _service_ports),
    ),
    r.IcmpMatch: (Constraint(("type", "code"), _icmp_code_needs_type, stored=True),),
    r.HttpMatch: (Constraint(("methods", "paths"), _http_paths),),
    r.EntityRule: (
        Constraint(
            ("services", "nets", "notNets", "selector", "notSelector", "namespaceSelector", "serviceAccounts"),
            _services_stand_alone,
            stored=True,
        ),
        Constraint(("nets", "notNets", "ports", "notPorts"), _entity_sizes),
    ),
    r.NetworkPolicySpec: _POLICY,
    r.GlobalNetworkPolicySpec: (
        *_POLICY,
        Constraint(("ingress.source.services", "egress.destination.services"), _services_need_namespace),
        Constraint(("doNotTrack", "preDNAT", "applyOnForward", "types", "egress"), _untracked, stored=True),
    ),
    r.Tier: (Constraint(("metadata.name", "spec.order"), _fixed_tier_order),),
    r.EndpointPort: (Constraint(("name", "protocol", "hostPort"), _port_names),),
    r.IpNat: (Constraint(("internalIP", "externalIP"), _nat_families, stored=True),),
    r.WorkloadEndpoint: (Constraint(("metadata.name", *(f"spec.{part}" for part in _NAME_PARTS)), _name_fits_spec),),
    r.WorkloadEndpointSpec: (Constraint(("ipNetworks", "ipNATs"), _nats_within),),
    r.IPPoolSpec: (
        Constraint(("cidr", "blockSize", "disabled"), _pool_block, stored=True),
        Constraint(("cidr",), _pool_place),
        Constraint(("cidr", "ipipMode", "vxlanMode"), _pool_tunnels),
        Constraint(("allowedUses", "ipipMode", "vxlanMode", "nodeSelector"), _pool_load_balancer),
    ),
    r.NodeSpec: (Constraint(("bgp",), _node_bgp_not_empty),),
    r.BGPPeerSpec: (
        Constraint(
            (
                "node",
                "nodeSelector",
                "peerIP",
                "asNumber",
                "peerSelector",
                "localWorkloadSelector",
                "keepOriginalNextHop",
                "nextHopMode",
            ),
            _peer_excludes,
        ),
        Constraint(("peerIP", "reachableBy"), _peer_reachable),
    ),
    r.BGPConfigurationSpec: (
        Constraint(("communities", "prefixAdvertisements"), _communities),
        Constraint(("nodeToNodeMeshEnabled", "nodeMeshPassword", "nodeMeshMaxRestartTime"), _mesh_settings),
    ),
}
"""What holds within each record."""

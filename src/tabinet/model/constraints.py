"""Rules that involve several fields of one record, as a table: which record, which fields are read, what is wrong.

A constraint runs only when the fields that it reads are themselves fine, so that one mistake is reported once. Those marked ``stored``
also hold for values that come from the store: without them the meaning of a policy or pool would be guessed. Those of policies are in
``policy_constraints``; the table here has all.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tabinet.lib.ip import Prefix, parse_prefix
from tabinet.model import protocols
from tabinet.model import resources as r
from tabinet.model.endpoint_names import endpoint_name_of
from tabinet.model.findings import Constraint, Finding
from tabinet.model.formats import parse_community, parse_peer
from tabinet.model.policy_constraints import POLICY_CONSTRAINTS

# --- endpoints and pools --------------------------------------------------------------------------------------------


def _port_names(port: r.EndpointPort) -> Iterator[Finding]:
    if protocols.parse_protocol(port.protocol) not in protocols.WITH_PORTS:
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


CONSTRAINTS: dict[type[msgspec.Struct], tuple[Constraint, ...]] = {
    **POLICY_CONSTRAINTS,
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

"""Rules that involve several fields of one record, as a table: which record, which fields are read, what is wrong.

A constraint runs only when the fields that it reads are themselves fine, so that one mistake is reported once. Those marked ``stored``
also hold for values that come from the store: without them the meaning of a policy or pool would be guessed. Those of policies are in
``policy_constraints``, those of BGP in ``bgp_constraints``; the table here has all.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tabinet.lib.ip import Prefix
from tabinet.model import protocols
from tabinet.model import resources as r
from tabinet.model.bgp_constraints import BGP_CONSTRAINTS
from tabinet.model.endpoint_names import WorkloadEndpointName, endpoint_name_of
from tabinet.model.findings import Constraint, Finding
from tabinet.model.formats import prefix_of
from tabinet.model.kubernetes_constraints import KUBERNETES_CONSTRAINTS
from tabinet.model.names import label_findings
from tabinet.model.policy_constraints import POLICY_CONSTRAINTS

# --- endpoints and pools --------------------------------------------------------------------------------------------


def _port_names(port: r.EndpointPort | r.HostEndpointPort) -> Iterator[Finding]:
    if protocols.parse_protocol(port.protocol) not in protocols.WITH_PORTS:
        yield Finding("protocol", port.protocol, "allowed: TCP, UDP or SCTP")
    if isinstance(port, r.EndpointPort) and not port.name and not port.host_port:
        yield Finding("name", "", "must be given unless there is a hostPort")


def _nat_families(nat: r.IpNat) -> Iterator[Finding]:
    if prefix_of(nat.internal_ip).family != prefix_of(nat.external_ip).family:
        yield Finding("externalIP", nat.external_ip, f"must be of the family of internalIP, {nat.internal_ip}")


def _nats_within(spec: r.WorkloadEndpointSpec) -> Iterator[Finding]:
    if not spec.ip_nats:
        return
    networks = {prefix_of(text) for text in spec.ip_networks}
    for index, nat in enumerate(spec.ip_nats):
        if prefix_of(nat.internal_ip) not in networks:
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


def _host_endpoint_place(spec: r.HostEndpointSpec) -> Iterator[Finding]:
    if not spec.node:
        yield Finding("node", "", "must be given")
    if not spec.interface_name and not spec.expected_ips:
        yield Finding("interfaceName", "", "must be given, or expectedIPs")


def _one_source(source: r.LiveMigrationSource) -> Iterator[Finding]:
    if (source.workload is None) == (source.workload_endpoint is None):
        yield Finding("", msgspec.to_builtins(source), "must have either workload or workloadEndpoint")


def _one_target(target: r.LiveMigrationTarget) -> Iterator[Finding]:
    if (not target.selector) == (target.workload_endpoint is None):
        yield Finding("", msgspec.to_builtins(target), "must have either selector or workloadEndpoint")


def _migration_is_whole(spec: r.LiveMigrationSpec) -> Iterator[Finding]:
    for wire, end in (("source", spec.source), ("target", spec.target)):
        if end is None:
            yield Finding(wire, "", "must be given")


def _endpoint_is_whole(endpoint: r.WorkloadEndpointIdentifier) -> Iterator[Finding]:
    for wire, value in (
        ("orchestratorID", endpoint.orchestrator_id),
        ("workloadID", endpoint.workload_id),
        ("endpointID", endpoint.endpoint_id),
        ("hostname", endpoint.hostname or endpoint.orchestrator_id == "k8s"),
    ):
        if not value:
            yield Finding(wire, "", "must be given")


def _migration_name_fits(migration: r.LiveMigration) -> Iterator[Finding]:
    target = migration.spec.target.workload_endpoint if migration.spec.target else None
    if target is None or not target.hostname:
        return
    namespace, _, workload = target.workload_id.rpartition("/")
    try:
        expected = str(WorkloadEndpointName(target.hostname, target.orchestrator_id, workload, target.endpoint_id))
    except ValueError as error:
        yield Finding("spec.target.workloadEndpoint", msgspec.to_builtins(target), str(error))
        return
    if migration.metadata.name and migration.metadata.name != expected:
        yield Finding("metadata.name", migration.metadata.name, f"must be {expected}, the name of the target endpoint")
    if namespace and migration.metadata.namespace not in ("", namespace):
        yield Finding("metadata.namespace", migration.metadata.namespace, f"must be {namespace}, as the target's workloadID says")


_LINK_LOCAL = (prefix_of("169.254.0.0/16"), prefix_of("fe80::/10"))
_DEFAULT_BLOCK = {4: 26, 6: 122}
_BLOCK_LIMITS = {4: (20, 32), 6: (116, 128)}


def _pool_block(spec: r.IPPoolSpec) -> Iterator[Finding]:
    cidr = prefix_of(spec.cidr)
    size = spec.block_size or _DEFAULT_BLOCK[cidr.family]
    low, high = _BLOCK_LIMITS[cidr.family]
    if not low <= size <= high:
        yield Finding("blockSize", size, f"allowed: {low} to {high} for IPv{cidr.family}")
    elif cidr.length > size and not spec.disabled:
        yield Finding("cidr", spec.cidr, f"must be at least as large as a block, /{size}")


def _pool_place(spec: r.IPPoolSpec) -> Iterator[Finding]:
    cidr: Prefix = prefix_of(spec.cidr)
    for reserved in _LINK_LOCAL:
        if cidr.overlaps(reserved):
            yield Finding("cidr", spec.cidr, f"must not overlap the link-local range {reserved}")


def _pool_tunnels(spec: r.IPPoolSpec) -> Iterator[Finding]:
    ipip = spec.ipip_mode not in ("", "Never")
    vxlan = spec.vxlan_mode not in ("", "Never")
    if ipip and prefix_of(spec.cidr).family != 4:
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
    if spec.disable_bgp_export:
        yield Finding("disableBGPExport", True, "not allowed for LoadBalancer pools")
    if spec.node_selector not in ("", "all()"):
        yield Finding("nodeSelector", spec.node_selector, "allowed: all(), for LoadBalancer pools")


# --- hosts ------------------------------------------------------------------------------------------------------


def _node_bgp_not_empty(spec: r.NodeSpec) -> Iterator[Finding]:
    if spec.bgp is not None and not msgspec.to_builtins(spec.bgp):
        yield Finding("bgp", {}, "must not be empty; leave it out")


def _status_request(spec: r.CalicoNodeStatusSpec) -> Iterator[Finding]:
    if not spec.node:
        yield Finding("node", "", "must be given")
    if not spec.classes:
        yield Finding("classes", "", "must be given")
    if len(set(spec.classes)) != len(spec.classes):
        yield Finding("classes", list(spec.classes), "must not name a class twice")


def _template_interfaces(template: r.HostEndpointTemplate) -> Iterator[Finding]:
    if not template.interface_cidrs and not template.interface_pattern:
        yield Finding("interfaceCIDRs", "", "must be given, or interfacePattern")


def _template_labels(template: r.HostEndpointTemplate) -> Iterator[Finding]:
    for key, value, allowed in label_findings(template.labels):
        yield Finding(f"labels.{key}", value, allowed)


# --- agents ---------------------------------------------------------------------------------------------------------


def _table_range(tables: r.RouteTableRange | r.RouteTableIDRange) -> Iterator[Finding]:
    if tables.max < tables.min:
        yield Finding("max", tables.max, f"must not be less than min, {tables.min}")


_MAX_TABLES = 65_535
_MAX_NODE_PORTS = 7


def _felix_tables(configuration: r.FelixConfiguration) -> Iterator[Finding]:
    ranges = configuration.spec.get("routeTableRanges")
    if not isinstance(ranges, list):
        return
    if configuration.spec.get("routeTableRange") is not None:
        yield Finding("spec.routeTableRange", configuration.spec["routeTableRange"], "not allowed together with routeTableRanges")
    tables = sum(tables["max"] - tables["min"] + 1 for tables in ranges)
    if tables > _MAX_TABLES:
        yield Finding("spec.routeTableRanges", f"{tables} tables", f"allowed: {_MAX_TABLES} in all")


def _felix_node_ports(configuration: r.FelixConfiguration) -> Iterator[Finding]:
    ranges = configuration.spec.get("kubeNodePortRanges")
    if isinstance(ranges, list) and len(ranges) > _MAX_NODE_PORTS:
        yield Finding("spec.kubeNodePortRanges", f"{len(ranges)} items", f"allowed: at most {_MAX_NODE_PORTS}")


CONSTRAINTS: dict[type[msgspec.Struct], tuple[Constraint, ...]] = {
    **POLICY_CONSTRAINTS,
    **KUBERNETES_CONSTRAINTS,
    **BGP_CONSTRAINTS,
    r.EndpointPort: (Constraint(("name", "protocol", "hostPort"), _port_names),),
    r.HostEndpointPort: (Constraint(("protocol",), _port_names),),
    r.HostEndpointSpec: (Constraint(("node", "interfaceName", "expectedIPs"), _host_endpoint_place),),
    r.LiveMigrationSource: (Constraint(("workload", "workloadEndpoint"), _one_source),),
    r.LiveMigrationTarget: (Constraint(("selector", "workloadEndpoint"), _one_target),),
    r.LiveMigrationSpec: (Constraint(("source", "target"), _migration_is_whole),),
    r.WorkloadEndpointIdentifier: (
        Constraint(("hostname", "orchestratorID", "workloadID", "endpointID"), _endpoint_is_whole, stored=True),
    ),
    r.LiveMigration: (Constraint(("metadata.name", "metadata.namespace", "spec.target"), _migration_name_fits),),
    r.IpNat: (Constraint(("internalIP", "externalIP"), _nat_families, stored=True),),
    r.WorkloadEndpoint: (Constraint(("metadata.name", *(f"spec.{part}" for part in _NAME_PARTS)), _name_fits_spec),),
    r.WorkloadEndpointSpec: (Constraint(("ipNetworks", "ipNATs"), _nats_within),),
    r.IPPoolSpec: (
        Constraint(("cidr", "blockSize", "disabled"), _pool_block, stored=True),
        Constraint(("cidr",), _pool_place),
        Constraint(("cidr", "ipipMode", "vxlanMode"), _pool_tunnels),
        Constraint(("allowedUses", "ipipMode", "vxlanMode", "disableBGPExport", "nodeSelector"), _pool_load_balancer),
    ),
    r.NodeSpec: (Constraint(("bgp",), _node_bgp_not_empty),),
    r.CalicoNodeStatusSpec: (Constraint(("node", "classes"), _status_request),),
    r.HostEndpointTemplate: (
        Constraint(("interfaceCIDRs", "interfacePattern"), _template_interfaces),
        Constraint(("labels",), _template_labels),
    ),
    r.RouteTableRange: (Constraint(("min", "max"), _table_range),),
    r.RouteTableIDRange: (Constraint(("min", "max"), _table_range),),
    r.FelixConfiguration: (
        Constraint(("spec.routeTableRange", "spec.routeTableRanges"), _felix_tables),
        Constraint(("spec.kubeNodePortRanges",), _felix_node_ports),
    ),
}
"""What holds within each record."""

"""Constraints of Kubernetes' documents: what its API server refuses, and what cannot be converted. See ``model.constraints``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import msgspec

from tabinet.lib.ip import parse_prefix
from tabinet.model.constraints import CONSTRAINTS
from tabinet.model.findings import Constraint, Finding
from tabinet.model.kubernetes import records as k
from tabinet.model.kubernetes.selectors import pods_text
from tabinet.model.records.kubernetes import LabelSelector
from tabinet.selector import MAX_LENGTH

MAX_EXCEPTIONS = 256
"""Exceptions of a block: they become ``notNets`` of one rule."""
_PORT_NAME = re.compile(k.PORT_NAME)
_MAX_ITEMS = {k.ClusterIngressRule: 25, k.ClusterEgressRule: 25, k.AdminIngressRule: 100, k.AdminEgressRule: 100}
_MAX_NETWORKS = 25


def _given(record: msgspec.Struct) -> dict[str, object]:
    """The fields that are there, by name on the wire."""
    values = ((info.encode_name, getattr(record, info.name)) for info in msgspec.structs.fields(record))
    return {name: value for name, value in values if value is not None and value != () and value != ""}


def _exactly_one(record: msgspec.Struct) -> Iterator[Finding]:
    given = _given(record)
    if len(given) != 1:
        known = ", ".join(info.encode_name for info in msgspec.structs.fields(record))
        yield Finding("", " and ".join(sorted(given)) or None, f"must have exactly one of {known}")


# --- selectors ------------------------------------------------------------------------------------------------------


def _selectors_fit(record: msgspec.Struct) -> Iterator[Finding]:
    for name, value in _given(record).items():
        if not isinstance(value, LabelSelector):
            continue
        try:
            length = len(pods_text(value))
        except ValueError:
            continue  # holds what is no label's value, and is reported for that
        if length > MAX_LENGTH:
            yield Finding(name, f"{length} characters", f"allowed: at most {MAX_LENGTH}, counted as a selector of ours that means the same")


# --- NetworkPolicy --------------------------------------------------------------------------------------------------


def _block(block: k.IPBlock) -> Iterator[Finding]:
    for path, text in (("cidr", block.cidr), *((f"except[{index}]", text) for index, text in enumerate(block.except_))):
        if "/" not in text:
            yield Finding(path, text, "allowed: a prefix with its length, as in 10.0.0.0/8")
    cidr = parse_prefix(block.cidr)
    for index, text in enumerate(block.except_):
        hole = parse_prefix(text)
        if hole.length <= cidr.length or not cidr.contains(hole):
            yield Finding(f"except[{index}]", text, f"must be within {cidr}, and smaller")
    if len(block.except_) > MAX_EXCEPTIONS:
        yield Finding("except", f"{len(block.except_)} items", f"allowed: at most {MAX_EXCEPTIONS}")


def _peer(peer: k.NetworkPolicyPeer) -> Iterator[Finding]:
    given = _given(peer)
    if not given:
        yield Finding("", {}, "must have podSelector, namespaceSelector or ipBlock")
    elif "ipBlock" in given and len(given) > 1:
        yield Finding("ipBlock", msgspec.to_builtins(peer.ip_block), "must stand alone, without podSelector and namespaceSelector")


def _port(port: k.NetworkPolicyPort) -> Iterator[Finding]:
    if isinstance(port.port, str) and not _PORT_NAME.fullmatch(port.port):
        yield Finding("port", port.port, f"allowed: a number without quotes, or {k.PORT_NAME_WORDS}")
    if port.end_port is None:
        return
    if not isinstance(port.port, int):
        yield Finding("endPort", port.end_port, "allowed only together with the number of a port")
    elif port.end_port < port.port:
        yield Finding("endPort", port.end_port, f"must not be below port, {port.port}")


# --- policies of the cluster ----------------------------------------------------------------------------------------


def _span(span: k.PortSpan | k.AdminPortSpan) -> Iterator[Finding]:
    if span.start >= span.end:
        yield Finding("end", span.end, f"must be above start, {span.start}")


def _networks(peer: k.ClusterEgressPeer) -> Iterator[Finding]:
    for index, text in enumerate(peer.networks):
        if "/" not in text:
            yield Finding(f"networks[{index}]", text, "allowed: a prefix with its length, as in 10.0.0.0/8")
    if len(peer.networks) > _MAX_NETWORKS:
        yield Finding("networks", f"{len(peer.networks)} items", f"allowed: at most {_MAX_NETWORKS}")


def _not_convertible(peer: k.ClusterEgressPeer) -> Iterator[Finding]:
    if peer.nodes is not None:
        reason = "not supported: selectors of rules know the labels of endpoints, not those of hosts; name the hosts' addresses in networks"
        yield Finding("nodes", msgspec.to_builtins(peer.nodes), reason)
    if peer.domain_names:
        reason = "not supported: rules match addresses, and which addresses a name has is not known here; use networks"
        yield Finding("domainNames", list(peer.domain_names), reason)


def _rule_sizes(rule: k.ClusterIngressRule | k.ClusterEgressRule | k.AdminIngressRule | k.AdminEgressRule) -> Iterator[Finding]:
    most = _MAX_ITEMS[type(rule)]
    peers = ("from", rule.from_) if isinstance(rule, k.ClusterIngressRule | k.AdminIngressRule) else ("to", rule.to)
    ports = ("ports", rule.ports) if isinstance(rule, k.AdminIngressRule | k.AdminEgressRule) else ("protocols", rule.protocols)
    for name, values in (peers, ports):
        if values is not None and not 1 <= len(values) <= most:
            yield Finding(name, f"{len(values)} items", f"allowed: 1 to {most}; an empty list would mean nothing")


def _named_ports_of_pods(rule: k.ClusterEgressRule | k.AdminEgressRule) -> Iterator[Finding]:
    if not any(peer.networks or peer.nodes is not None or peer.domain_names for peer in rule.to):
        return
    if isinstance(rule, k.ClusterEgressRule):
        named = [(f"protocols[{at}].destinationNamedPort", each.destination_named_port) for at, each in enumerate(rule.protocols or ())]
    else:
        named = [(f"ports[{at}].namedPort", port.named_port) for at, port in enumerate(rule.ports or ())]
    for path, name in named:
        if name:
            yield Finding(path, name, "not allowed beside networks, nodes and domainNames, which have no named ports")


def _rule_count(most: int) -> Callable[[msgspec.Struct], Iterator[Finding]]:
    def check(spec: msgspec.Struct) -> Iterator[Finding]:
        for name in ("ingress", "egress"):
            count = len(getattr(spec, name))
            if count > most:
                yield Finding(name, f"{count} rules", f"allowed: at most {most}")

    return check


def _nothing_passes_the_baseline(spec: k.BaselineAdminNetworkPolicySpec) -> Iterator[Finding]:
    for name in ("ingress", "egress"):
        for index, rule in enumerate(getattr(spec, name)):
            if rule.action == "Pass":
                yield Finding(f"{name}[{index}].action", rule.action, "allowed: Allow, Deny; nothing comes after this policy")


def _the_only_one(policy: k.BaselineAdminNetworkPolicy) -> Iterator[Finding]:
    if policy.metadata.name != "default":
        yield Finding("metadata.name", policy.metadata.name, "allowed: default; there is only one")


# --- whom policies are about ----------------------------------------------------------------------------------------

NAME_LABEL = "kubernetes.io/metadata.name"
"""The label that Kubernetes gives every namespace: its name."""


def _own_name(namespace: k.Namespace) -> Iterator[Finding]:
    written = namespace.metadata.labels.get(NAME_LABEL, namespace.metadata.name)
    if written != namespace.metadata.name:
        yield Finding(f"metadata.labels.{NAME_LABEL}", written, "must be the namespace's name; leave it out")


def _no_inherited_labels(pod: k.Pod) -> Iterator[Finding]:
    for key in pod.metadata.labels:
        if key.startswith(("pcns.", "pcsa.")):
            yield Finding(f"metadata.labels.{key}", key, "not allowed: labels of namespaces and service accounts come from their profiles")


def _has_an_endpoint(pod: k.Pod) -> Iterator[Finding]:
    if pod.spec.host_network:
        yield Finding("spec.hostNetwork", True, "not supported: such a pod has no endpoint of its own, and no NetworkPolicy applies to it")
    elif not pod.spec.node_name:
        yield Finding("spec.nodeName", None, "must be given: without a host there is no endpoint")
    elif pod.status.phase in ("Succeeded", "Failed"):
        yield Finding("status.phase", pod.status.phase, "not supported: a pod that has ended has given its addresses back")
    elif not (pod.status.pod_ips or pod.status.pod_ip):
        yield Finding("status.podIPs", None, "must be given: without addresses there is no endpoint")


_PEERS = Constraint(("podSelector", "namespaceSelector"), _selectors_fit)
_NAMESPACES = Constraint(("namespaces",), _selectors_fit)

FOREIGN_CONSTRAINTS: dict[type[msgspec.Struct], tuple[Constraint, ...]] = {
    **CONSTRAINTS,
    k.NetworkPolicySpec: (Constraint(("podSelector",), _selectors_fit),),
    k.NamespacedPod: (_PEERS,),
    k.IPBlock: (Constraint(("cidr", "except"), _block),),
    k.NetworkPolicyPeer: (Constraint(("podSelector", "namespaceSelector", "ipBlock"), _peer), _PEERS),
    k.NetworkPolicyPort: (Constraint(("port", "endPort"), _port),),
    k.Subject: (Constraint(("namespaces", "pods"), _exactly_one), _NAMESPACES),
    k.ClusterIngressPeer: (Constraint(("namespaces", "pods"), _exactly_one), _NAMESPACES),
    k.ClusterEgressPeer: (
        Constraint(("namespaces", "pods", "networks", "nodes", "domainNames"), _exactly_one),
        _NAMESPACES,
        Constraint(("networks",), _networks),
        Constraint(("nodes", "domainNames"), _not_convertible),
    ),
    k.PortMatch: (Constraint(("number", "range"), _exactly_one),),
    k.PortSpan: (Constraint(("start", "end"), _span),),
    k.AdminPortSpan: (Constraint(("start", "end"), _span),),
    k.ClusterProtocol: (Constraint(("tcp", "udp", "sctp", "destinationNamedPort"), _exactly_one),),
    k.AdminPort: (Constraint(("portNumber", "portRange", "namedPort"), _exactly_one),),
    k.ClusterIngressRule: (Constraint(("from", "protocols"), _rule_sizes),),
    k.ClusterEgressRule: (Constraint(("to", "protocols"), _rule_sizes), Constraint(("to", "protocols"), _named_ports_of_pods)),
    k.AdminIngressRule: (Constraint(("from", "ports"), _rule_sizes),),
    k.AdminEgressRule: (Constraint(("to", "ports"), _rule_sizes), Constraint(("to", "ports"), _named_ports_of_pods)),
    k.ClusterNetworkPolicySpec: (Constraint(("ingress", "egress"), _rule_count(25)),),
    k.AdminNetworkPolicySpec: (Constraint(("ingress", "egress"), _rule_count(100)),),
    k.BaselineAdminNetworkPolicySpec: (
        Constraint(("ingress", "egress"), _rule_count(100)),
        Constraint(("ingress.action", "egress.action"), _nothing_passes_the_baseline),
    ),
    k.BaselineAdminNetworkPolicy: (Constraint(("metadata.name",), _the_only_one),),
    k.Namespace: (Constraint(("metadata",), _own_name),),
    k.Pod: (Constraint(("metadata.labels",), _no_inherited_labels), Constraint(("spec", "status"), _has_an_endpoint)),
}
"""What holds within documents of Kubernetes, and within the records that they share with our own model."""

"""Constraints of the parts of Kubernetes' NetworkPolicy. See ``constraints``."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tabinet.model import resources as r
from tabinet.model.findings import Constraint, Finding
from tabinet.model.formats import prefix_of
from tabinet.model.names import label_findings
from tabinet.model.ports import Ports, parse_port


def _requirement_values(requirement: r.LabelRequirement) -> Iterator[Finding]:
    if requirement.operator in ("In", "NotIn"):
        if not requirement.values:
            yield Finding("values", "", f"must be given with {requirement.operator}")
    elif requirement.values:
        yield Finding("values", list(requirement.values), f"not allowed with {requirement.operator}")


def _requirement_labels(requirement: r.LabelRequirement) -> Iterator[Finding]:
    for _, value, allowed in label_findings({requirement.key: ""}):
        yield Finding("key", value, allowed)
    for index, text in enumerate(requirement.values):
        for _, value, allowed in label_findings({"a": text}):
            yield Finding(f"values[{index}]", value, allowed)


def _selector_labels(selector: r.LabelSelector) -> Iterator[Finding]:
    for key, value, allowed in label_findings(selector.match_labels):
        yield Finding(f"matchLabels.{key}", value, allowed)


def _holes_within(block: r.IPBlock) -> Iterator[Finding]:
    cidr = prefix_of(block.cidr)
    for index, text in enumerate(block.except_):
        hole = prefix_of(text)
        if not cidr.contains(hole) or hole == cidr:
            yield Finding(f"except[{index}]", text, f"must be within {block.cidr}, and smaller")


def _peer_says_one_thing(peer: r.NetworkPolicyPeer) -> Iterator[Finding]:
    if peer.ip_block is not None:
        for wire, value in (("podSelector", peer.pod_selector), ("namespaceSelector", peer.namespace_selector)):
            if value is not None:
                yield Finding(wire, msgspec.to_builtins(value), "not allowed with ipBlock")
    elif peer.pod_selector is None and peer.namespace_selector is None:
        yield Finding("podSelector", "", "must be given, or namespaceSelector or ipBlock")


def _port_range(port: r.NetworkPolicyPort) -> Iterator[Finding]:
    if port.end_port is None:
        return
    first = None if port.port is None else parse_port(port.port)
    if not isinstance(first, Ports):
        yield Finding("endPort", port.end_port, "allowed only where port is a number")
    elif port.end_port < first.first:
        yield Finding("endPort", port.end_port, f"must not be less than port, {first.first}")


KUBERNETES_CONSTRAINTS: dict[type[msgspec.Struct], tuple[Constraint, ...]] = {
    r.LabelRequirement: (
        Constraint(("operator", "values"), _requirement_values, stored=True),
        Constraint(("key", "values"), _requirement_labels),
    ),
    r.LabelSelector: (Constraint(("matchLabels",), _selector_labels),),
    r.IPBlock: (Constraint(("cidr", "except"), _holes_within),),
    r.NetworkPolicyPeer: (Constraint(("podSelector", "namespaceSelector", "ipBlock"), _peer_says_one_thing, stored=True),),
    r.NetworkPolicyPort: (Constraint(("port", "endPort"), _port_range, stored=True),),
}
"""What holds within the parts of Kubernetes' NetworkPolicy."""

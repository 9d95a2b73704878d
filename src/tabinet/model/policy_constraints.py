"""Constraints of policies, their rules and profiles. See ``constraints``."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tabinet.model import protocols
from tabinet.model import resources as r
from tabinet.model.findings import Constraint, Finding
from tabinet.model.formats import prefix_of
from tabinet.model.names import annotation_findings, label_findings

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
                family = prefix_of(text).family
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


def _policy_types_once(spec: r.StagedKubernetesNetworkPolicySpec) -> Iterator[Finding]:
    if len(set(spec.policy_types)) != len(spec.policy_types):
        yield Finding("policyTypes", list(spec.policy_types), "must not name a type twice")


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


def _nothing_left_to_delete(spec: msgspec.Struct) -> Iterator[Finding]:
    given = msgspec.to_builtins(spec)
    if given.get("stagedAction") != "Delete":
        return
    for wire, value in given.items():
        if wire not in ("stagedAction", "tier"):
            yield Finding(wire, value, "not allowed with stagedAction Delete")


def _rule_annotations(metadata: r.RuleMetadata) -> Iterator[Finding]:
    for key, value, allowed in annotation_findings(metadata.annotations):
        yield Finding(f"annotations.{key}".rstrip("."), value, allowed)


def _profile_labels(spec: r.ProfileSpec) -> Iterator[Finding]:
    for key, text in spec.labels_to_apply.items():
        # Labels of namespaces and service accounts keep their length below the prefix that we give them.
        own = key[5:] if key.startswith(("pcns.", "pcsa.")) else key
        for _, value, allowed in label_findings({own: text}):
            yield Finding(f"labelsToApply.{key}", value, allowed)


_POLICY = (
    Constraint(("types",), _types_once),
    Constraint(("ingress.destination.services", "egress.source.services", "egress.http"), _services_by_direction),
)

_GLOBAL_POLICY = (
    *_POLICY,
    Constraint(("ingress.source.services", "egress.destination.services"), _services_need_namespace),
    Constraint(("doNotTrack", "preDNAT", "applyOnForward", "types", "egress"), _untracked, stored=True),
)
_WHOLE = ("stagedAction",)

POLICY_CONSTRAINTS: dict[type[msgspec.Struct], tuple[Constraint, ...]] = {
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
    r.RuleMetadata: (Constraint(("annotations",), _rule_annotations),),
    r.NetworkPolicySpec: _POLICY,
    r.StagedNetworkPolicySpec: (*_POLICY, Constraint(_WHOLE, _nothing_left_to_delete)),
    r.GlobalNetworkPolicySpec: _GLOBAL_POLICY,
    r.StagedGlobalNetworkPolicySpec: (*_GLOBAL_POLICY, Constraint(_WHOLE, _nothing_left_to_delete)),
    r.StagedKubernetesNetworkPolicySpec: (Constraint(("policyTypes",), _policy_types_once), Constraint(_WHOLE, _nothing_left_to_delete)),
    r.ProfileSpec: (Constraint(("labelsToApply",), _profile_labels),),
}
"""What holds within policies, rules and profiles."""

"""Constraints of BGP's settings, peers and filters. See ``constraints``."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tabinet.model import resources as r
from tabinet.model.annotations import EXTERNAL, INTERFACES, REMOTE_AS
from tabinet.model.findings import Constraint, Finding
from tabinet.model.formats import parse_community, parse_peer


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


def _peer_is_somebody(peer: r.BGPPeer) -> Iterator[Finding]:
    """Annotations of Tabinet can stand for what Calico wants as fields."""
    spec, annotations = peer.spec, peer.metadata.annotations
    unnumbered, external = INTERFACES in annotations, annotations.get(REMOTE_AS) == EXTERNAL
    if not (spec.peer_ip or spec.peer_selector or spec.local_workload_selector or unnumbered):
        yield Finding("spec.peerIP", "", "must be given, or peerSelector or localWorkloadSelector")
    if spec.as_number:
        return
    if spec.local_workload_selector or (spec.peer_ip and not external and not unnumbered):
        yield Finding("spec.asNumber", "", "must be given with peerIP or localWorkloadSelector")
    elif unnumbered and not external:
        yield Finding("spec.asNumber", "", f"must be given, or the annotation {REMOTE_AS}: {EXTERNAL}")


def _peer_reachable(spec: r.BGPPeerSpec) -> Iterator[Finding]:
    if not spec.reachable_by:
        return
    if not spec.peer_ip:
        yield Finding("reachableBy", spec.reachable_by, "allowed only with peerIP")
    elif (":" in parse_peer(spec.peer_ip)[0]) != (":" in spec.reachable_by):
        yield Finding("reachableBy", spec.reachable_by, f"must be of the family of peerIP, {spec.peer_ip}")


def _communities_are_used(spec: r.BGPConfigurationSpec) -> Iterator[Finding]:
    if spec.communities and not spec.prefix_advertisements:
        yield Finding("communities", sorted(community.name for community in spec.communities), "must be used in prefixAdvertisements")


def _community_is_whole(community: r.Community) -> Iterator[Finding]:
    for wire, value in (("name", community.name), ("value", community.value)):
        if not value:
            yield Finding(wire, "", "must be given")


def _advertisement_is_whole(advertisement: r.PrefixAdvertisement) -> Iterator[Finding]:
    if not advertisement.cidr:
        yield Finding("cidr", "", "must be given")
    if not advertisement.communities:
        yield Finding("communities", "", "must be given")


def _communities_are_known(spec: r.BGPConfigurationSpec) -> Iterator[Finding]:
    names = {community.name for community in spec.communities}
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


_MESH = ("nodeMeshPassword", "nodeMeshMaxRestartTime")


def _mesh_settings(spec: r.BGPConfigurationSpec) -> Iterator[Finding]:
    if spec.node_to_node_mesh_enabled is False:
        for wire, value in zip(_MESH, (spec.node_mesh_password, spec.node_mesh_max_restart_time), strict=True):
            if value:
                yield Finding(wire, msgspec.to_builtins(value), "not allowed while nodeToNodeMeshEnabled is false")


def _mesh_settings_are_global(configuration: r.BGPConfiguration) -> Iterator[Finding]:
    spec = configuration.spec
    if configuration.metadata.name not in ("", "default"):
        for wire, value in zip(_MESH, (spec.node_mesh_password, spec.node_mesh_max_restart_time), strict=True):
            if value:
                yield Finding(f"spec.{wire}", msgspec.to_builtins(value), "allowed only in the BGPConfiguration named default")


def _secret_key(secret: r.SecretKeySelector) -> Iterator[Finding]:
    if not secret.key:
        yield Finding("key", "", "must be given")


# --- filters --------------------------------------------------------------------------------------------------------


def _filter_prefix(rule: r.FilterRuleV4 | r.FilterRuleV6) -> Iterator[Finding]:
    if rule.cidr and not rule.match_operator:
        yield Finding("matchOperator", "", "must be given with cidr")
    if rule.match_operator and not rule.cidr:
        yield Finding("cidr", "", "must be given with matchOperator")
    if rule.prefix_length is not None and not rule.cidr:
        yield Finding("cidr", "", "must be given with prefixLength")


def _prefix_lengths(length: r.PrefixLengthV4 | r.PrefixLengthV6) -> Iterator[Finding]:
    if length.min is not None and length.max is not None and length.min > length.max:
        yield Finding("max", length.max, f"must not be less than min, {length.min}")


def _filter_operations(rule: r.FilterRule) -> Iterator[Finding]:
    if rule.operations and rule.action != "Accept":
        yield Finding("operations", f"{len(rule.operations)} operations", "allowed only with action Accept")
    if len(rule.operations) > 10:
        yield Finding("operations", f"{len(rule.operations)} operations", "allowed: at most 10")


def _one_operation(operation: r.FilterOperation) -> Iterator[Finding]:
    given = list(msgspec.to_builtins(operation))
    if len(given) != 1:
        yield Finding("", given, "must have exactly one of addCommunity, prependASPath and setPriority")


def _one_community(match: r.CommunityMatch) -> Iterator[Finding]:
    if len(match.values) != 1:
        yield Finding("values", list(match.values), "must have exactly one community")


def _some_prepended(prepend: r.PrependASPath) -> Iterator[Finding]:
    if not 1 <= len(prepend.prefix) <= 10:
        yield Finding("prefix", f"{len(prepend.prefix)} AS numbers", "allowed: 1 to 10")


_FILTER_RULE = (
    Constraint(("cidr", "matchOperator", "prefixLength"), _filter_prefix, stored=True),
    Constraint(("action", "operations"), _filter_operations, stored=True),
)

BGP_CONSTRAINTS: dict[type[msgspec.Struct], tuple[Constraint, ...]] = {
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
    r.BGPPeer: (
        Constraint(
            ("spec.peerIP", "spec.asNumber", "spec.peerSelector", "spec.localWorkloadSelector", "metadata.annotations"), _peer_is_somebody
        ),
    ),
    r.SecretKeySelector: (Constraint(("key",), _secret_key),),
    r.BGPConfigurationSpec: (
        Constraint(("communities", "prefixAdvertisements"), _communities_are_used),
        Constraint(("communities", "prefixAdvertisements.communities"), _communities_are_known),
        Constraint(("nodeToNodeMeshEnabled", *_MESH), _mesh_settings),
    ),
    r.BGPConfiguration: (Constraint(("metadata.name", *(f"spec.{wire}" for wire in _MESH)), _mesh_settings_are_global),),
    r.Community: (Constraint(("name", "value"), _community_is_whole),),
    r.PrefixAdvertisement: (Constraint(("cidr", "communities"), _advertisement_is_whole),),
    r.FilterRuleV4: _FILTER_RULE,
    r.FilterRuleV6: _FILTER_RULE,
    r.PrefixLengthV4: (Constraint(("min", "max"), _prefix_lengths, stored=True),),
    r.PrefixLengthV6: (Constraint(("min", "max"), _prefix_lengths, stored=True),),
    r.FilterOperation: (Constraint(("addCommunity", "prependASPath", "setPriority"), _one_operation, stored=True),),
    r.CommunityMatch: (Constraint(("values",), _one_community, stored=True),),
    r.PrependASPath: (Constraint(("prefix",), _some_prepended, stored=True),),
}
"""What holds within BGP's settings, peers and filters."""

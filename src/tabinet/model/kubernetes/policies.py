"""Kubernetes' policies to specifications of ours.

A NetworkPolicy allows, and what it selects is otherwise closed: that is our tier ``default``, where all of them have the same order, so
that they add up. A ClusterNetworkPolicy comes before (tier ``kube-admin``) or after it (``kube-baseline``); these tiers pass on what
their policies do not decide. What comes out at the end is allowed by the profile of the namespace.

A rule becomes one rule for each peer, protocol and family of addresses, with the same action: so their order does not matter and they
mean what the one rule meant. Whoever is selected by labels must be a pod, see ``selectors``.

In: records without problems (``validate``), or stored ones. Out: plain data. Pure; linear in the product of peers and protocols.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from tabinet.lib.ip import IPV4, parse_prefix
from tabinet.model.kubernetes import records as k
from tabinet.model.kubernetes.selectors import namespaces_text, pods_text
from tabinet.model.kubernetes.validate import CLUSTER_TIERS
from tabinet.model.ports import Ports
from tabinet.model.records import kubernetes as staged
from tabinet.model.resources import NetworkPolicySpec

ORDER = 1000
"""Order of converted NetworkPolicies in the tier ``default``."""
MAX_PORTS = 50
"""Ports in one rule of ours."""

_Rule = k.IngressRule | k.EgressRule | staged.IngressRule | staged.EgressRule
_ACTIONS = {"Accept": "Allow"}
_PROTOCOLS = ("TCP", "UDP", "SCTP")

Entity = dict[str, Any]
"""One side of a rule of ours, without ports; empty: everybody."""
PortList = list[tuple[str, Ports | str | None]]
"""Protocol, and its ports by number or name; ``None``: all of them. An empty list: all protocols."""


def policy_spec(spec: staged.StagedKubernetesNetworkPolicySpec) -> NetworkPolicySpec:
    """What a StagedKubernetesNetworkPolicy would enforce if it were a NetworkPolicy.

    Raises:
        ValueError: it holds something that a NetworkPolicy cannot hold.
    """
    return msgspec.convert(network_policy(spec), NetworkPolicySpec)


def network_policy(spec: k.NetworkPolicySpec | staged.StagedKubernetesNetworkPolicySpec) -> dict[str, Any]:
    """The spec of the NetworkPolicy of ours.

    Raises:
        ValueError: as ``policy_spec``; never for a record without problems.
    """
    types = list(dict.fromkeys(spec.policy_types)) or (["Ingress", "Egress"] if spec.egress else ["Ingress"])
    result: dict[str, Any] = {"tier": "default", "order": ORDER, "selector": pods_text(spec.pod_selector), "types": types}
    if spec.ingress:
        result["ingress"] = [rule for each in spec.ingress for rule in _network_policy_rules(each)]
    if spec.egress:
        result["egress"] = [rule for each in spec.egress for rule in _network_policy_rules(each)]
    return result


def cluster_network_policy(spec: k.ClusterNetworkPolicySpec) -> dict[str, Any]:
    """The spec of the GlobalNetworkPolicy of ours."""
    ingress = [
        rule
        for each in spec.ingress
        for rule in _rules("source", each.action, each.name, _cluster_peers(each.from_), _cluster_ports(each.protocols))
    ]
    egress = [
        rule
        for each in spec.egress
        for rule in _rules("destination", each.action, each.name, _cluster_peers(each.to), _cluster_ports(each.protocols))
    ]
    return _cluster_spec(CLUSTER_TIERS[spec.tier], spec.priority, spec.subject, ingress, egress)


def admin_network_policy(spec: k.AdminNetworkPolicySpec | k.BaselineAdminNetworkPolicySpec) -> dict[str, Any]:
    """The spec of the GlobalNetworkPolicy of ours."""
    ingress = [
        rule
        for each in spec.ingress
        for rule in _rules("source", each.action, each.name, _cluster_peers(each.from_), _admin_ports(each.ports))
    ]
    egress = [
        rule
        for each in spec.egress
        for rule in _rules("destination", each.action, each.name, _cluster_peers(each.to), _admin_ports(each.ports))
    ]
    if isinstance(spec, k.AdminNetworkPolicySpec):
        return _cluster_spec("kube-admin", spec.priority, spec.subject, ingress, egress)
    # After the policies of the tier that have a priority, which is 1000 at most: they are newer, and more exact.
    return _cluster_spec("kube-baseline", ORDER + 1, spec.subject, ingress, egress)


def _cluster_spec(tier: str, order: int, subject: k.Subject, ingress: list[Any], egress: list[Any]) -> dict[str, Any]:
    result: dict[str, Any] = {"tier": tier, "order": order, **_pods(subject)}
    # A policy without rules for a direction does not touch it; one without any rules must still name a type, and its tier passes on.
    result["types"] = [name for name, rules in (("Ingress", ingress), ("Egress", egress)) if rules] or ["Ingress"]
    if ingress:
        result["ingress"] = ingress
    if egress:
        result["egress"] = egress
    return result


# --- rules ----------------------------------------------------------------------------------------------------------


def _network_policy_rules(rule: _Rule) -> list[dict[str, Any]]:
    side, peers = ("source", rule.from_) if isinstance(rule, k.IngressRule | staged.IngressRule) else ("destination", rule.to)
    # No peers: everybody; no ports: all. Both are so whether the list is empty or absent.
    return list(_rules(side, "Allow", "", [_peer(peer) for peer in peers] or [{}], [_port(port) for port in rule.ports]))


def _rules(side: str, action: str, name: str, peers: Sequence[Entity], ports: PortList) -> Iterator[dict[str, Any]]:
    """One rule for each peer and group of ports. ``side`` says where the peers stand; ports are always those of the destination."""
    for protocol, group in _grouped(ports):
        for peer, shown in _with_named_ports(side, peers, group):
            rule: dict[str, Any] = {"action": _ACTIONS.get(action, action)}
            if name:
                rule["metadata"] = {"annotations": {"name": name}}
            if protocol:
                rule["protocol"] = protocol
            if peer:
                rule[side] = copy.deepcopy(peer)
            if shown:
                rule["destination"] = {**rule.get("destination", {}), "ports": shown}
            yield rule


def _with_named_ports(side: str, peers: Sequence[Entity], group: list[int | str]) -> Iterator[tuple[Entity, list[int | str]]]:
    """Peers with the ports of their rules: a name is that of a pod's port, where a peer could be something else than a pod."""
    names: list[int | str] = [port for port in group if isinstance(port, str) and ":" not in port]
    numbers = [port for port in group if port not in names]
    for peer in peers:
        if side == "source" or not names or "selector" in peer:
            yield peer, list(group)
            continue
        yield {**peer, "namespaceSelector": "all()", "selector": pods_text(None)}, names
        if numbers:
            yield peer, numbers


def _grouped(ports: PortList) -> Iterator[tuple[str, list[int | str]]]:
    """Protocol and ports of each rule that the list needs; no ports: all of the protocol; no protocol: all."""
    if not ports:
        yield "", []
    for protocol in _PROTOCOLS:
        wanted = [port for name, port in ports if name == protocol]
        if None in wanted:
            yield protocol, []
            continue
        entries = _written(port for port in wanted if port is not None)
        for start in range(0, len(entries), MAX_PORTS):
            yield protocol, entries[start : start + MAX_PORTS]


def _written(ports: Iterable[Ports | str]) -> list[int | str]:
    """The ports as our rules write them: names, then numbers in order with neighbours joined."""
    names: set[str] = set()
    spans: list[Ports] = []
    for port in ports:
        if isinstance(port, str):
            names.add(port)
        else:
            spans.append(port)
    joined: list[Ports] = []
    for span in sorted(spans):
        if joined and span.first <= joined[-1].last + 1:
            joined[-1] = Ports(joined[-1].first, max(joined[-1].last, span.last))
        else:
            joined.append(span)
    numbers: list[int | str] = [span.first if span.first == span.last else f"{span.first}:{span.last}" for span in joined]
    return [*sorted(names), *numbers]


# --- peers ----------------------------------------------------------------------------------------------------------


def _peer(peer: k.NetworkPolicyPeer | staged.NetworkPolicyPeer) -> Entity:
    if peer.ip_block is not None:
        entity: Entity = {"nets": [str(parse_prefix(peer.ip_block.cidr))]}
        if peer.ip_block.except_:
            entity["notNets"] = [str(parse_prefix(text)) for text in peer.ip_block.except_]
        return entity
    if peer.pod_selector is None and peer.namespace_selector is None:
        raise ValueError("a peer without podSelector, namespaceSelector and ipBlock")
    # Without a namespaceSelector, a rule of a NetworkPolicy of ours means its own namespace, as in Kubernetes.
    entity = {"selector": pods_text(peer.pod_selector)}
    if peer.namespace_selector is not None:
        entity["namespaceSelector"] = namespaces_text(peer.namespace_selector)
    return entity


def _pods(peer: k.Subject | k.ClusterIngressPeer | k.ClusterEgressPeer) -> Entity:
    if peer.pods is not None:
        return {"namespaceSelector": namespaces_text(peer.pods.namespace_selector), "selector": pods_text(peer.pods.pod_selector)}
    if peer.namespaces is None:
        raise ValueError("neither namespaces nor pods")
    return {"namespaceSelector": namespaces_text(peer.namespaces), "selector": pods_text(None)}


def _cluster_peers(peers: Iterable[k.ClusterIngressPeer | k.ClusterEgressPeer]) -> list[Entity]:
    found: list[Entity] = []
    for peer in peers:
        if isinstance(peer, k.ClusterEgressPeer) and peer.networks:
            # A rule of ours holds prefixes of one family.
            prefixes = list(dict.fromkeys(parse_prefix(text) for text in peer.networks))
            families = ([each for each in prefixes if (each.family == IPV4) is wanted] for wanted in (True, False))
            found += [{"nets": [str(each) for each in family]} for family in families if family]
        else:
            found.append(_pods(peer))
    return found


# --- ports ----------------------------------------------------------------------------------------------------------


def _port(port: k.NetworkPolicyPort | staged.NetworkPolicyPort) -> tuple[str, Ports | str | None]:
    protocol = port.protocol or "TCP"
    if protocol not in _PROTOCOLS:
        raise ValueError(f"{protocol!r} is not TCP, UDP or SCTP")
    if isinstance(port.port, int):
        return protocol, Ports(port.port, port.port if port.end_port is None else port.end_port)
    if port.end_port is not None:
        raise ValueError("endPort without the number of a port")
    return protocol, port.port


def _cluster_ports(protocols: Iterable[k.ClusterProtocol] | None) -> PortList:
    ports: PortList = []
    for each in protocols or ():
        if each.destination_named_port:
            ports += [(protocol, each.destination_named_port) for protocol in _PROTOCOLS]
        for protocol, match in (("TCP", each.tcp), ("UDP", each.udp), ("SCTP", each.sctp)):
            if match is not None:
                ports.append((protocol, _numbers(match.destination_port)))
    return ports


def _numbers(match: k.PortMatch) -> Ports:
    if match.range is not None:
        return Ports(match.range.start, match.range.end)
    if match.number is None:
        raise ValueError("neither number nor range")
    return Ports(match.number, match.number)


def _admin_ports(ports: Iterable[k.AdminPort] | None) -> PortList:
    found: PortList = []
    for each in ports or ():
        if each.named_port:
            found += [(protocol, each.named_port) for protocol in _PROTOCOLS]
        if each.port_number is not None:
            found.append((each.port_number.protocol, Ports(each.port_number.port, each.port_number.port)))
        if each.port_range is not None:
            found.append((each.port_range.protocol, Ports(each.port_range.start, each.port_range.end)))
    return found

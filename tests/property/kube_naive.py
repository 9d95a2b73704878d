"""What Kubernetes says about a packet, written from its documentation and for nothing but being plain.

kubernetes.io/docs/concepts/services-networking/network-policies: a pod is isolated in a direction once a policy that applies in that
direction selects it; then only what the rules of such policies allow, all of them together, is allowed. A connection needs the egress of
its source and the ingress of its destination. network-policy-api.sigs.k8s.io: policies of the cluster come before (Admin) and
after (Baseline) that, by priority, first match wins; where nobody decides, traffic is allowed.

Works on documents as they are written (they are valid here). Nothing of the product is imported.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Flow:
    """The first packet of a connection."""

    source: str
    destination: str
    protocol: str
    """``TCP``, ``UDP``, ``SCTP``, or another."""
    port: int = 0


@dataclass
class Cluster:
    """Documents by kind."""

    namespaces: dict[str, dict[str, Any]] = field(default_factory=dict)
    pods: list[dict[str, Any]] = field(default_factory=list)
    network_policies: list[dict[str, Any]] = field(default_factory=list)
    cluster_policies: list[dict[str, Any]] = field(default_factory=list)

    def pod_at(self, address: str) -> dict[str, Any] | None:
        for pod in self.pods:
            if address in [each["ip"] for each in pod["status"]["podIPs"]]:
                return pod
        return None

    def allows_out(self, flow: Flow) -> bool:
        """The source, if it is a pod, may send it."""
        pod = self.pod_at(flow.source)
        return pod is None or self._allows(pod, flow, "Egress", flow.destination)

    def allows_in(self, flow: Flow) -> bool:
        """The destination, if it is a pod, accepts it."""
        pod = self.pod_at(flow.destination)
        return pod is None or self._allows(pod, flow, "Ingress", flow.source)

    def _allows(self, pod: dict[str, Any], flow: Flow, direction: str, peer: str) -> bool:
        admin = self._cluster_decision("Admin", pod, flow, direction, peer)
        if admin is not None:
            return admin
        isolated, allowed = False, False
        for policy in self.network_policies:
            if not self._selected(policy, pod) or direction not in policy_types(policy["spec"]):
                continue
            isolated = True
            rules = policy["spec"].get(direction.lower()) or []
            allowed = allowed or any(self._rule_allows(rule, policy["metadata"]["namespace"], flow, direction, peer) for rule in rules)
        if isolated:
            return allowed
        baseline = self._cluster_decision("Baseline", pod, flow, direction, peer)
        return baseline is None or baseline

    # --- NetworkPolicy ----------------------------------------------------------------------------------------------

    def _selected(self, policy: dict[str, Any], pod: dict[str, Any]) -> bool:
        same = policy["metadata"]["namespace"] == pod["metadata"]["namespace"]
        return same and selects(policy["spec"].get("podSelector") or {}, labels_of(pod))

    def _rule_allows(self, rule: dict[str, Any], namespace: str, flow: Flow, direction: str, address: str) -> bool:
        peers = rule.get("from" if direction == "Ingress" else "to")
        ports = rule.get("ports")
        return (not peers or any(self._is_peer(peer, namespace, address) for peer in peers)) and (
            not ports or any(self._is_port(port, flow) for port in ports)
        )

    def _is_peer(self, peer: dict[str, Any], namespace: str, address: str) -> bool:
        if "ipBlock" in peer:
            block = peer["ipBlock"]
            return within(address, block["cidr"]) and not any(within(address, hole) for hole in block.get("except") or [])
        pod = self.pod_at(address)
        if pod is None:
            return False
        if peer.get("namespaceSelector") is None:
            if pod["metadata"]["namespace"] != namespace:
                return False
        elif not selects(peer["namespaceSelector"], self._labels_of_namespace(pod)):
            return False
        return peer.get("podSelector") is None or selects(peer["podSelector"], labels_of(pod))

    def _is_port(self, port: dict[str, Any], flow: Flow) -> bool:
        if (port.get("protocol") or "TCP") != flow.protocol:
            return False
        wanted = port.get("port")
        if wanted is None:
            return True
        if isinstance(wanted, str):
            return self._is_called(wanted, flow)
        return wanted <= flow.port <= (port.get("endPort") or wanted)

    def _is_called(self, name: str, flow: Flow) -> bool:
        """The destination is a pod that calls this port of this protocol so."""
        pod = self.pod_at(flow.destination)
        ports = [] if pod is None else [port for container in pod["spec"]["containers"] for port in container.get("ports", [])]
        return any(
            port.get("name") == name and port["containerPort"] == flow.port and port.get("protocol", "TCP") == flow.protocol
            for port in ports
        )

    # --- ClusterNetworkPolicy ---------------------------------------------------------------------------------------

    def _cluster_decision(self, tier: str, pod: dict[str, Any], flow: Flow, direction: str, peer: str) -> bool | None:
        """True: accepted; False: denied; None: the tier leaves it to the next."""
        policies = [policy for policy in self.cluster_policies if policy["spec"]["tier"] == tier]
        for policy in sorted(policies, key=lambda policy: policy["spec"]["priority"]):
            if not self._are_pods(policy["spec"]["subject"], pod):
                continue
            for rule in policy["spec"].get(direction.lower()) or []:
                if self._cluster_rule_matches(rule, flow, direction, peer):
                    return {"Accept": True, "Deny": False, "Pass": None}[rule["action"]]
        return None

    def _are_pods(self, subject: dict[str, Any], pod: dict[str, Any] | None) -> bool:
        if pod is None:
            return False
        if "namespaces" in subject:
            return selects(subject["namespaces"], self._labels_of_namespace(pod))
        chosen = subject["pods"]
        return selects(chosen["namespaceSelector"], self._labels_of_namespace(pod)) and selects(chosen["podSelector"], labels_of(pod))

    def _cluster_rule_matches(self, rule: dict[str, Any], flow: Flow, direction: str, address: str) -> bool:
        peers = rule["from"] if direction == "Ingress" else rule["to"]
        if not any(self._is_cluster_peer(peer, address) for peer in peers):
            return False
        return "protocols" not in rule or any(self._is_protocol(protocol, flow) for protocol in rule["protocols"])

    def _is_cluster_peer(self, peer: dict[str, Any], address: str) -> bool:
        if "networks" in peer:
            return any(within(address, network) for network in peer["networks"])
        return self._are_pods(peer, self.pod_at(address))

    def _is_protocol(self, protocol: dict[str, Any], flow: Flow) -> bool:
        if "destinationNamedPort" in protocol:
            return self._is_called(protocol["destinationNamedPort"], flow)
        ((name, match),) = protocol.items()
        if name.upper() != flow.protocol:
            return False
        port = match["destinationPort"]
        return port["number"] == flow.port if "number" in port else port["range"]["start"] <= flow.port <= port["range"]["end"]

    def _labels_of_namespace(self, pod: dict[str, Any]) -> dict[str, str]:
        name = pod["metadata"]["namespace"]
        return {**labels_of(self.namespaces[name]), "kubernetes.io/metadata.name": name}


def policy_types(spec: dict[str, Any]) -> list[str]:
    """The directions that a NetworkPolicy is about."""
    return spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])


def labels_of(document: dict[str, Any]) -> dict[str, str]:
    """The labels of a document."""
    return document["metadata"].get("labels") or {}


def within(address: str, cidr: str) -> bool:
    """True when the prefix holds the address; prefixes of the other family never do."""
    network = ipaddress.ip_network(cidr, strict=False)
    parsed = ipaddress.ip_address(address)
    return network.version == parsed.version and parsed in network


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Kubernetes' label selectors: everything must hold; an empty one selects everything."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for expression in selector.get("matchExpressions") or []:
        key, values = expression["key"], expression.get("values") or []
        holds = {
            "In": key in labels and labels[key] in values,
            "NotIn": key not in labels or labels[key] not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }[expression["operator"]]
        if not holds:
            return False
    return True

"""What Calico's resources say about a packet, written from the words of its documentation and for nothing but being plain.

docs.tigera.io/calico, reference/resources: tiers by order, then name; in a tier the policies that select the endpoint in the packet's
direction, by order, then name; Allow and Deny end it, Pass goes to the next tier, Log goes on; without a match the tier's default action;
where no policy of any tier applies, or the last tier was passed, the endpoint's profiles, in order; no match there is Deny. A packet needs
the egress of its source and the ingress of its destination, as far as these are endpoints of this host.

Works on documents as they are written (they are valid here). Selectors are data, so that no parser has a part in it: see ``text_of``.
Nothing of the product is imported.
"""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass, field
from typing import Any

Document = dict[str, Any]
Select = tuple[Any, ...]
"""An operator, then what it takes: a key, a key and a value or values, nothing (``all``, ``global``), or one or two of these."""
NUMBERS = {"TCP": 6, "UDP": 17, "ICMP": 1, "ICMPv6": 58, "SCTP": 132, "UDPLite": 136}
NAMESPACE, ACCOUNT = "projectcalico.org/namespace", "projectcalico.org/serviceaccount"


def text_of(select: Select) -> str:
    """The selector as it is written."""
    match select:
        case ("==" | "!=" as operator, key, value):
            return f"{key} {operator} '{value}'"
        case ("in" | "not in" as operator, key, values):
            return f"{key} {operator} {{{', '.join(repr(value) for value in values)}}}"
        case ("has", key):
            return f"has({key})"
        case ("all" | "global" as word,):
            return f"{word}()"
        case ("!", inner):
            return f"!({text_of(inner)})"
        case (operator, one, other):
            return f"({text_of(one)}) {operator} ({text_of(other)})"
        case _:
            raise AssertionError(select)


def holds(select: Select, labels: dict[str, str], *, all_needs: str = "") -> bool:
    """The labels fulfil the selector. ``all_needs``: the label that ``all()`` asks for and ``global()`` forbids."""
    match select:
        case ("==", key, value):
            return labels.get(key) == value
        case ("!=", key, value):
            return labels.get(key) != value
        case ("in", key, values):
            return labels.get(key) in values
        case ("not in", key, values):
            return labels.get(key) not in values
        case ("has", key):
            return key in labels
        case ("all",):
            return not all_needs or all_needs in labels
        case ("global",):
            return not all_needs or all_needs not in labels
        case ("!", inner):
            return not holds(inner, labels, all_needs=all_needs)
        case ("&&", one, other):
            return holds(one, labels, all_needs=all_needs) and holds(other, labels, all_needs=all_needs)
        case ("||", one, other):
            return holds(one, labels, all_needs=all_needs) or holds(other, labels, all_needs=all_needs)
        case _:
            raise AssertionError(select)


@dataclass(frozen=True)
class Flow:
    """The first packet of a flow."""

    source: str
    destination: str
    protocol: int
    source_port: int = 0
    port: int = 0
    icmp_type: int = 0
    icmp_code: int = 0


@dataclass
class World:
    """Documents, and their selectors as data by the text that they were written as."""

    host: str
    documents: list[Document] = field(default_factory=list)
    selects: dict[str, Select] = field(default_factory=dict)

    def of_kind(self, *kinds: str) -> list[Document]:
        return [document for document in self.documents if document["kind"] in kinds]

    def allows(self, flow: Flow) -> bool:
        """This host forwards the packet."""
        for direction, address, other in (("Egress", flow.source, flow.destination), ("Ingress", flow.destination, flow.source)):
            endpoint = self._local(address)
            if endpoint is not None and not self._decides(endpoint, direction, flow, other):
                return False
        return True

    def _local(self, address: str) -> Document | None:
        for endpoint in self.of_kind("WorkloadEndpoint"):
            if endpoint["spec"]["node"] == self.host and f"{address}" in [net.split("/")[0] for net in endpoint["spec"]["ipNetworks"]]:
                return endpoint
        return None

    def _decides(self, endpoint: Document, direction: str, flow: Flow, other: str) -> bool:
        tiers = {"default": (1_000_000, "Deny")}
        for tier in self.of_kind("Tier"):
            tiers[tier["metadata"]["name"]] = (tier["spec"].get("order", math.inf), tier["spec"].get("defaultAction", "Deny"))
        for name in sorted(tiers, key=lambda name: (tiers[name][0], name)):
            policies = [
                policy
                for policy in self.of_kind("GlobalNetworkPolicy", "NetworkPolicy")
                if policy["spec"].get("tier", "default") == name and direction in self._types(policy) and self._applies(policy, endpoint)
            ]
            if not policies:
                continue
            action = tiers[name][1]
            for policy in sorted(policies, key=lambda each: (each["spec"].get("order", math.inf), each["metadata"]["name"])):
                found = self._rules(policy["spec"].get(direction.lower(), []), flow, policy["metadata"].get("namespace", ""))
                if found:
                    action = found
                    break
            if action != "Pass":
                return action == "Allow"
        for name in endpoint["spec"]["profiles"]:
            for profile in self.of_kind("Profile"):
                if profile["metadata"]["name"] == name:
                    found = self._rules(profile["spec"].get(direction.lower(), []), flow, "")
                    if found:
                        return found == "Allow"
        return False

    @staticmethod
    def _types(policy: Document) -> list[str]:
        if "types" in policy["spec"]:
            return policy["spec"]["types"]
        if policy["spec"].get("egress"):
            return ["Ingress", "Egress"] if policy["spec"].get("ingress") else ["Egress"]
        return ["Ingress"]

    def labels(self, endpoint: Document) -> dict[str, str]:
        """Its own, those that come with what it is, and those that its profiles give it; a network set has that of its namespace."""
        found: dict[str, str] = {}
        profiles = endpoint["spec"].get("profiles", [])
        if endpoint["kind"] == "NetworkSet":
            profiles = [f"kns.{endpoint['metadata']['namespace']}"]
        for name in reversed(profiles):
            for profile in self.of_kind("Profile"):
                if profile["metadata"]["name"] == name:
                    found |= profile["spec"].get("labelsToApply", {})
        found |= endpoint["metadata"].get("labels", {})
        if endpoint["metadata"].get("namespace"):
            found[NAMESPACE] = endpoint["metadata"]["namespace"]
        if endpoint["spec"].get("serviceAccountName"):
            found[ACCOUNT] = endpoint["spec"]["serviceAccountName"]
        return found

    def _applies(self, policy: Document, endpoint: Document) -> bool:
        labels, spec, namespace = self.labels(endpoint), policy["spec"], policy["metadata"].get("namespace", "")
        if namespace and labels.get(NAMESPACE) != namespace:
            return False
        if spec.get("namespaceSelector") and not self._in_namespaces(spec["namespaceSelector"], labels):
            return False
        return not spec.get("selector") or holds(self.selects[spec["selector"]], labels)

    def _in_namespaces(self, text: str, labels: dict[str, str]) -> bool:
        inherited = {key.removeprefix("pcns."): value for key, value in labels.items() if key.startswith("pcns.")}
        if NAMESPACE in labels:
            inherited[NAMESPACE] = labels[NAMESPACE]
        return holds(self.selects[text], inherited, all_needs=NAMESPACE)

    def _rules(self, rules: list[Document], flow: Flow, namespace: str) -> str:
        """The action that ends the policy; empty when it says nothing."""
        for rule in rules:
            if rule["action"] != "Log" and self._matches(rule, flow, namespace):
                return rule["action"]
        return ""

    def _matches(self, rule: Document, flow: Flow, namespace: str) -> bool:
        version = ipaddress.ip_address(flow.source).version
        if rule.get("ipVersion", version) != version:
            return False
        protocol = number(rule.get("protocol"))
        if protocol is not None and (protocol != flow.protocol or (protocol, version) in ((1, 6), (58, 4))):
            return False
        if number(rule.get("notProtocol")) == flow.protocol:
            return False
        if "icmp" in rule and not is_icmp(rule["icmp"], flow):
            return False
        if "notICMP" in rule and is_icmp(rule["notICMP"], flow):
            return False
        ends = (("source", flow.source, flow.source_port), ("destination", flow.destination, flow.port))
        return all(self._end(rule.get(name, {}), address, port, flow.protocol, namespace) for name, address, port in ends)

    def _end(self, side: Document, address: str, port: int, protocol: int, namespace: str) -> bool:
        if side.get("nets") and not within(address, side["nets"]):
            return False
        if within(address, side.get("notNets", [])):
            return False
        holders = [holder for holder in self._holders() if self._meant(side, self.labels(holder), namespace)]
        needs_holder = any(side.get(name) for name in ("selector", "serviceAccounts", "namespaceSelector"))
        needs_holder = needs_holder or bool(namespace and side.get("notSelector"))
        if needs_holder and not any(within(address, nets_of(holder)) for holder in holders):
            return False
        if side.get("notSelector"):
            unwanted = [holder for holder in self._holders() if holds(self.selects[side["notSelector"]], self.labels(holder))]
            if any(within(address, nets_of(holder)) for holder in unwanted):
                return False
        if side.get("ports") and not any(self._is_port(each, address, port, protocol, holders) for each in side["ports"]):
            return False
        return not any(self._is_port(each, address, port, protocol, holders) for each in side.get("notPorts", []))

    def _holders(self) -> list[Document]:
        """Whatever has addresses and labels."""
        return self.of_kind("WorkloadEndpoint", "GlobalNetworkSet", "NetworkSet")

    def _meant(self, side: Document, labels: dict[str, str], namespace: str) -> bool:
        by_labels = any(side.get(name) for name in ("selector", "notSelector", "serviceAccounts"))
        if side.get("namespaceSelector"):
            if not self._in_namespaces(side["namespaceSelector"], labels):
                return False
        elif namespace and by_labels and labels.get(NAMESPACE) != namespace:
            return False
        accounts = side.get("serviceAccounts", {})
        if accounts.get("names") and labels.get(ACCOUNT) not in accounts["names"]:
            return False
        if accounts.get("selector"):
            inherited = {key.removeprefix("pcsa."): value for key, value in labels.items() if key.startswith("pcsa.")}
            if not holds(self.selects[accounts["selector"]], inherited):
                return False
        return not side.get("selector") or holds(self.selects[side["selector"]], labels)

    def _is_port(self, entry: int | str, address: str, port: int, protocol: int, holders: list[Document]) -> bool:
        if isinstance(entry, int):
            return port == entry
        first, colon, last = entry.partition(":")
        if colon:
            return int(first) <= port <= int(last)
        return any(
            within(address, nets_of(holder)) and (named["name"], number(named["protocol"]), named["port"]) == (entry, protocol, port)
            for holder in holders
            for named in holder["spec"].get("ports", [])
        )


def number(protocol: str | int | None) -> int | None:
    return NUMBERS[protocol] if isinstance(protocol, str) else protocol


def is_icmp(wanted: Document, flow: Flow) -> bool:
    return wanted["type"] == flow.icmp_type and wanted.get("code", flow.icmp_code) == flow.icmp_code


def nets_of(holder: Document) -> list[str]:
    return holder["spec"].get("ipNetworks") or holder["spec"].get("nets", [])


def within(address: str, nets: list[str]) -> bool:
    own = ipaddress.ip_address(address)
    return any(own.version == net.version and own in net for net in map(ipaddress.ip_network, nets))

"""Whole fabrics made up from a random number, as documents that people could have written, and flows in them.

In: a ``Random`` and a ``Size``. Out: resources as they come out of the store (validated, with defaults, encoded and decoded again), and
questions about flows. The same random numbers give the same fabric. Rules name things that exist more often than not, and flows go
where rules look, so that they decide something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import msgspec

from tabinet.analysis.fabric import Fabric, Place, Resources
from tabinet.analysis.way import Question
from tabinet.lib.ip import IPV4, parse_prefix
from tabinet.model.codec import decode_stored, encode_document
from tabinet.model.defaults import with_defaults
from tabinet.model.documents import Document
from tabinet.model.keys import Key, ResourceKey, path_of
from tabinet.model.validate import validate_all
from tabinet.rules.evaluate import begins_flow

LABELS = {"app": ("web", "db", "cache", "batch"), "env": ("prod", "test"), "team": ("a", "b", "c"), "zone": ("z1", "z2", "z3")}
NAMESPACES = ("n1", "n2", "n3")
NAMED = (("http", "TCP"), ("dns", "UDP"), ("admin", "TCP"), ("http", "SCTP"))
PORTS = (22, 53, 68, 80, 179, 443, 2379, 4789, 5432, 8080)
PROTOCOLS = ("TCP", "TCP", "TCP", "UDP", "UDP", "SCTP", "UDPLite", "ICMP", "ICMPv6", 47, 6, 4, 33)
OUTSIDE = ("192.0.2.1", "192.0.2.130", "198.51.100.7", "10.65.255.254", "203.0.113.9", "2001:db8::1", "2001:db8:1::7", "fd00:65::ffff")
NETS = {
    4: ("10.65.0.0/16", "10.65.0.0/24", "10.65.1.0/25", "10.65.0.8/29", "10.65.0.5/32", "192.0.2.0/24", "192.0.2.128/25", "0.0.0.0/0"),
    6: ("fd00:65::/64", "fd00:65::/120", "fd00:65::8/125", "fd00:65::5/128", "2001:db8::/32", "2001:db8::/64", "::/0"),
}
ICMP_TYPES = {1: (8, 13, 17), 58: (128, 139)}


class Size(msgspec.Struct, frozen=True):
    """How much there is of everything."""

    hosts: int
    endpoints: int
    policies: int
    network_sets: int
    host_endpoints: float = 0
    """How probably a host has one."""


SMALL = Size(hosts=3, endpoints=14, policies=7, network_sets=3)
LARGE = Size(hosts=6, endpoints=300, policies=40, network_sets=12)
GUARDED = Size(hosts=3, endpoints=12, policies=10, network_sets=3, host_endpoints=0.7)
GUARDED_LARGE = Size(hosts=8, endpoints=200, policies=40, network_sets=10, host_endpoints=0.7)


class FabricMaker:
    """Makes up one fabric."""

    def __init__(self, choose: Random, size: Size) -> None:
        self.choose = choose
        self.size = size
        self.documents: list[dict[str, Any]] = []

    def make(self) -> Resources:
        """All resources, by key."""
        self._pools()
        for number in range(self.size.hosts):
            self._host(number)
        self._profiles()
        for number in range(self.size.endpoints):
            self._endpoint(number)
        for number in range(self.size.network_sets):
            namespace = self.choose.choice(("", *NAMESPACES))
            nets = self._some((*NETS[4][:-1], *NETS[6][:-1], *OUTSIDE, self._address_of_somebody()), 4)
            self.add("NetworkSet" if namespace else "GlobalNetworkSet", f"s{number}", {"nets": nets}, namespace, self._labels())
        for tier in ("t1", "t2")[: self.choose.randint(0, 2)]:
            spec = {"order": self.choose.choice((10, 10, 20)), "defaultAction": self.choose.choice(("Deny", "Pass", "Pass"))}
            self.add("Tier", tier, spec)
        for number in range(self.choose.randint(1, self.size.policies)):
            self._policy(number)
        return dict(self.stored())

    def stored(self) -> Iterator[tuple[Key, tuple[object, int]]]:
        """The documents as they come out of the store, in any order."""
        self.choose.shuffle(self.documents)
        for index, data in enumerate(self.documents, 1):
            assert validate_all([Document(data=data, source="test", index=index, line=index)]) == [], data
            stored = with_defaults(data)
            key = ResourceKey(stored["kind"], stored["metadata"]["name"], stored["metadata"].get("namespace", ""))
            decoded = decode_stored(path_of(key), encode_document(stored))
            assert decoded is not None
            yield decoded[0], (decoded[1], index)

    def add(self, kind: str, name: str, spec: dict[str, Any], namespace: str = "", labels: dict[str, str] | None = None) -> None:
        """There is such a document."""
        metadata: dict[str, Any] = {"name": name}
        metadata |= {"labels": labels} if labels else {}
        metadata |= {"namespace": namespace} if namespace else {}
        self.documents.append({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec})

    def _chance(self, probability: float) -> bool:
        return self.choose.random() < probability

    def _some(self, options: tuple[Any, ...], most: int) -> list[Any]:
        options = tuple(dict.fromkeys(options))
        return self.choose.sample(options, self.choose.randint(1, min(most, len(options))))

    def _labels(self, prefix: str = "") -> dict[str, str]:
        return {prefix + key: self.choose.choice(values) for key, values in LABELS.items() if self._chance(0.6)}

    def _selector(self, depth: int = 0) -> str:
        if depth < 2 and self._chance(0.3):
            operator = self.choose.choice((" && ", " || "))
            return f"({self._selector(depth + 1)}){operator}({self._selector(depth + 1)})"
        key = self.choose.choice(tuple(LABELS))
        value = self.choose.choice(LABELS[key])
        forms = (f"{key} == '{value}'",) * 3 + (f"{key} != '{value}'", f"has({key})", f"!has({key})", "all()")
        forms += (f"{key} in {{'{value}', 'other'}}", f"{key} not in {{'{value}'}}", f"{key} starts with '{value[0]}'")
        return self.choose.choice(forms)

    def _address_of_somebody(self) -> str:
        number = self.choose.randrange(self.size.endpoints)
        return ipv4(number) if self._chance(0.6) else ipv6(number)

    # --- who there is ---

    def _pools(self) -> None:
        mode = {"vxlanMode": self.choose.choice(("Never", "CrossSubnet", "Always"))} if self.size.host_endpoints else {}
        self.add("IPPool", "pool", {"cidr": "10.65.0.0/16", "natOutgoing": self._chance(0.7), **mode})
        if self._chance(0.5):
            self.add("IPPool", "pool6", {"cidr": "fd00:65::/64", "natOutgoing": self._chance(0.5)})

    def _host(self, number: int) -> None:
        subnet = self.choose.choice((0, 0, 1)) if self.size.host_endpoints else 0
        addresses = f"172.16.{subnet}.{number + 1}", f"fd00:16::{number + 1}"
        spec: dict[str, Any] = {"bgp": {"ipv4Address": f"{addresses[0]}/24", "ipv6Address": f"{addresses[1]}/64"}}
        if self.size.host_endpoints and self._chance(0.5):
            spec["ipv4VXLANTunnelAddr"] = f"10.65.200.{number + 1}"
        self.add("Node", f"h{number}", spec)
        if self._chance(self.size.host_endpoints):
            ends = {"interfaceName": self.choose.choice(("eth0", "eth0", "*"))} if self._chance(0.8) else {}
            if not ends or self._chance(0.6):
                ends["expectedIPs"] = list(addresses)
            profiles = self._some(tuple(f"kns.{name}" for name in NAMESPACES), 1) if self._chance(0.6) else []
            spec = {"node": f"h{number}", "profiles": profiles, **ends}
            self.add("HostEndpoint", f"he{number}", spec, labels={"role": "host", **self._labels()})

    def _profiles(self) -> None:
        for namespace in NAMESPACES:
            anything = [{"action": "Allow"}]
            rules = {way: anything if self._chance(0.5) else self._rules(2) for way in ("ingress", "egress") if self._chance(0.9)}
            self.add("Profile", f"kns.{namespace}", {"labelsToApply": self._labels("pcns."), **rules})
            self.add("Profile", f"ksa.{namespace}.robot", {"labelsToApply": self._labels("pcsa.")})

    def _endpoint(self, number: int) -> None:
        namespace = self.choose.choice(NAMESPACES)
        host = f"h{self.choose.randrange(self.size.hosts)}"
        robot = self._chance(0.3)
        families = self.choose.choice(((4,), (4, 6), (4, 6), (6,)))
        ports = [{"name": name, "protocol": protocol, "port": self.choose.choice(PORTS)} for name, protocol in NAMED if self._chance(0.3)]
        spec: dict[str, Any] = {
            "orchestrator": "lab",
            "node": host,
            "workload": f"w{number}",
            "endpoint": "eth0",
            "ipNetworks": [*([f"{ipv4(number)}/32"] if 4 in families else []), *([f"{ipv6(number)}/128"] if 6 in families else [])],
            "interfaceName": f"cali{number}",
            "profiles": [f"kns.{namespace}", *([f"ksa.{namespace}.robot"] if robot else []), *(["gone"] if self._chance(0.05) else [])],
            "ports": ports,
        }
        spec |= {"serviceAccountName": "robot"} if robot else {}
        labels = {key: value for key, value in self._labels().items() if key != "zone" or self._chance(0.3)}
        self.add("WorkloadEndpoint", f"{host}-lab-w{number}-eth0", spec, namespace, labels)

    # --- what they may ---

    def _policy(self, number: int) -> None:
        tier = self.choose.choice(("default", *(each["metadata"]["name"] for each in self.documents if each["kind"] == "Tier")))
        spec: dict[str, Any] = {"tier": tier, "selector": self._selector()}
        if self._chance(0.7):
            spec["order"] = self.choose.randint(1, 5)
        types = self.choose.choice((["Ingress"], ["Egress"], ["Ingress", "Egress"]))
        spec["types"] = types
        for direction in types:
            spec[direction.lower()] = self._rules(4)
        name = f"{tier}.p{number}" if tier != "default" else f"p{number}"
        if self.size.host_endpoints and self._chance(0.4):
            self._host_policy(name, spec)
        elif self._chance(0.5):
            spec |= {"namespaceSelector": self._selector()} if self._chance(0.2) else {}
            self.add("GlobalNetworkPolicy", name, spec)
        else:
            self.add("NetworkPolicy", name, spec, self.choose.choice(NAMESPACES))

    def _host_policy(self, name: str, spec: dict[str, Any]) -> None:
        spec["selector"] = self.choose.choice(("role == 'host'", "role == 'host'", self._selector()))
        kind = self.choose.choice(("applyOnForward", "applyOnForward", "preDNAT", "doNotTrack", ""))
        if kind:
            spec |= {kind: True, "applyOnForward": True}
        if kind == "preDNAT":
            spec["types"], spec["ingress"] = ["Ingress"], spec.pop("egress", None) or spec["ingress"]
        if kind in ("preDNAT", "doNotTrack"):
            for way in ("ingress", "egress"):
                for rule in spec.get(way, ()):
                    rule["action"] = self.choose.choice(("Allow", "Deny", "Pass"))
        self.add("GlobalNetworkPolicy", name, spec)

    def _rules(self, most: int) -> list[dict[str, Any]]:
        return [self._rule() for _ in range(self.choose.randint(1, most))]

    def _rule(self) -> dict[str, Any]:
        rule: dict[str, Any] = {"action": self.choose.choice(("Allow",) * 5 + ("Deny", "Deny", "Pass", "Log"))}
        if self._chance(0.1):
            return rule
        version = self.choose.choice((4, 4, 6))
        if self._chance(0.2):
            rule["ipVersion"] = version
        if self._chance(0.6):
            rule["protocol"] = self.choose.choice(PROTOCOLS)
        elif self._chance(0.3):
            rule["notProtocol"] = self.choose.choice(("TCP", "UDP", "SCTP", 47))
        request = {"ICMP": 8, "ICMPv6": 128}.get(rule.get("protocol", ""))
        if request is not None:
            rule.pop("ipVersion", None)
            version = 4 if request == 8 else 6
            if self._chance(0.6):
                match = {"type": self.choose.choice((request, request, 13)), **({"code": 0} if self._chance(0.4) else {})}
                rule[self.choose.choice(("icmp", "icmp", "notICMP"))] = match
        with_ports = rule.get("protocol") in ("TCP", "UDP", "SCTP")
        for end in ("source", "destination"):
            if self._chance(0.6):
                rule[end] = self._side(version, with_ports, is_destination=end == "destination")
        return rule

    def _side(self, version: int, with_ports: bool, *, is_destination: bool) -> dict[str, Any]:
        side: dict[str, Any] = {}
        makers: tuple[tuple[str, float, Callable[[], Any]], ...] = (
            ("nets", 0.3, lambda: self._some(NETS[version], 2)),
            ("notNets", 0.1, lambda: self._some(NETS[version][1:-1], 2)),
            ("selector", 0.4, self._selector),
            ("notSelector", 0.1, self._selector),
            ("namespaceSelector", 0.15, self._selector),
            ("serviceAccounts", 0.1, lambda: {"names": ["robot"]} if self._chance(0.5) else {"selector": self._selector()}),
        )
        for name, chance, make in makers:
            if self._chance(chance):
                side[name] = make()
        if with_ports:
            for name, chance in (("ports", 0.6 if is_destination else 0.15), ("notPorts", 0.1)):
                if self._chance(chance):
                    side[name] = self._some((*PORTS, "80:443", "1:79", "http", "dns", "admin"), 3)
        return side


def ipv4(number: int) -> str:
    """The address of an endpoint."""
    return f"10.65.{number // 250}.{number % 250 + 1}"


def ipv6(number: int) -> str:
    """Likewise."""
    return f"fd00:65::{number + 1:x}"


def flows(choose: Random, fabric: Fabric, count: int) -> Iterator[Question]:
    """First packets between endpoints and with addresses outside, and of hosts, where there are host endpoints."""
    inside = [place for places in fabric.places.values() for place in places if place.kind == "workload"]
    hosts = [place for places in fabric.places.values() for place in places if place.kind == "host"] if fabric.host_endpoints else []
    outside = [Place(address, "outside") for address in map(parse_prefix, OUTSIDE) if address not in fabric.places]
    while count:
        source, destination = [
            choose.choice(hosts if hosts and choose.random() < 0.35 else inside if choose.random() < 0.85 else outside) for _ in range(2)
        ]
        if source.address.family != destination.address.family or source.address == destination.address:
            continue
        if not source.host and not destination.host:
            continue
        count -= 1
        yield question(choose, source, destination)


def question(choose: Random, source: Place, destination: Place) -> Question:
    """A packet between them, with what rules can tell apart; it begins a flow."""
    protocol = choose.choice((6, 6, 6, 17, 17, 132, 136, 33, 47, 4, 255, 1, 58, 1 if source.address.family == IPV4 else 58))
    if protocol in ICMP_TYPES:
        kind = choose.choice(ICMP_TYPES[protocol])
        assert begins_flow(protocol, kind)
        return Question(source=source, destination=destination, protocol=protocol, icmp_type=kind, icmp_code=choose.choice((0, 0, 1)))
    if protocol == 4 and "host" in (source.kind, destination.kind):
        protocol = 47
    if protocol in (47, 4, 255):
        return Question(source=source, destination=destination, protocol=protocol, source_port=0)
    to = choose.choice(PORTS) + choose.choice((0, 0, 0, 0, 1))
    if to == 4789 and "host" in (source.kind, destination.kind):
        to = 80  # packets of tunnels between hosts, which have their own rules
    ports = {"source_port": choose.choice((40_000, *PORTS)), "destination_port": to}
    return Question(source=source, destination=destination, protocol=protocol, **ports)

"""Resources as people write them, through validation, store format, calculation and rules, against what they say.

TABINET_RESOURCE_EXAMPLES says how many worlds; each meets 60 packets.
"""

from __future__ import annotations

import itertools
import os
from random import Random
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from resource_naive import Flow, Select, World, text_of

from tabinet.calc.graph import Graph
from tabinet.calc.inputs import InSync, Put
from tabinet.lib.ip import parse_address
from tabinet.model.codec import decode_stored, encode_document
from tabinet.model.defaults import with_defaults
from tabinet.model.documents import Document
from tabinet.model.keys import ResourceKey, path_of
from tabinet.model.validate import validate_all
from tabinet.rules.builder import TableBuilder
from tabinet.rules.evaluate import Packet, evaluate

EXAMPLES = int(os.environ.get("TABINET_RESOURCE_EXAMPLES", "30"))
HOST = "h1"
NAMESPACES = ("n1", "n2")
KEYS, VALUES = ("app", "env"), ("x", "y")
WORKLOADS = {"w1": ("h1", "n1"), "w2": ("h1", "n2"), "w3": ("h1", "n1"), "r1": ("h2", "n1"), "r2": ("h2", "n2")}
ADDRESSES = {name: (f"10.0.0.{index}", f"fd00::{index}") for index, name in enumerate(WORKLOADS, 1)}
OUTSIDE = ("192.0.2.1", "2001:db8::1")
NETS = ("10.0.0.0/30", "10.0.0.2/32", "192.0.2.0/24", "0.0.0.0/0", "fd00::/126", "fd00::2/128", "2001:db8::/32", "::/0")
PORTS = (22, 80, 443)
NAMED = ("http", "ssh")
PACKETS = 60


class Maker:
    """Makes up a world; the same random numbers give the same one."""

    def __init__(self, choose: Random) -> None:
        self.choose = choose
        self.world = World(HOST)

    def chance(self, probability: float) -> bool:
        return self.choose.random() < probability

    def some(self, options: tuple[Any, ...], most: int = 2) -> list[Any]:
        return self.choose.sample(options, self.choose.randint(1, most))

    def labels(self) -> dict[str, str]:
        return {key: self.choose.choice(VALUES) for key in KEYS if self.chance(0.7)}

    def add(self, kind: str, name: str, spec: dict[str, Any], *, namespace: str = "", labels: dict[str, str] | None = None) -> None:
        metadata: dict[str, Any] = {"name": name}
        metadata |= {"labels": labels} if labels else {}
        metadata |= {"namespace": namespace} if namespace else {}
        self.world.documents.append({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec})

    def selector(self, keys: tuple[str, ...] = KEYS, depth: int = 0) -> str:
        made = self._select(keys, depth)
        self.world.selects[text_of(made)] = made
        return text_of(made)

    def _select(self, keys: tuple[str, ...], depth: int) -> Select:
        if depth < 2 and self.chance(0.25):
            if self.chance(0.3):
                return ("!", self._select(keys, depth + 1))
            return (self.choose.choice(("&&", "||")), self._select(keys, depth + 1), self._select(keys, depth + 1))
        key, value = self.choose.choice(keys), self.choose.choice(VALUES)
        simple = [("==", key, value), ("==", key, value), ("!=", key, value), ("has", key), ("!", ("has", key)), ("all",)]
        simple += [("in", key, (value, "z")), ("not in", key, (value, "z"))]
        return self.choose.choice(simple)

    def make(self) -> World:
        for namespace in NAMESPACES:
            labels = {f"pcns.{key}": value for key, value in self.labels().items()}
            rules = {"ingress": self.rules(1), "egress": self.rules(1)} if self.chance(0.7) else {}
            self.add("Profile", f"kns.{namespace}", {"labelsToApply": labels, **rules})
            self.add("Profile", f"ksa.{namespace}.robot", {"labelsToApply": {f"pcsa.{k}": v for k, v in self.labels().items()}})
        for name in WORKLOADS:
            self._workload(name)
        for name in self.some(("s1", "s2")):
            self.add("GlobalNetworkSet", name, {"nets": self.some(NETS)}, labels=self.labels())
        self.add("NetworkSet", "s3", {"nets": self.some(NETS)}, labels=self.labels(), namespace=self.choose.choice(NAMESPACES))
        for name in self.choose.sample(("t1", "t2"), self.choose.randint(0, 2)):
            spec = {"order": self.choose.choice((10, 10, 20)), "defaultAction": self.choose.choice(("Deny", "Pass"))}
            self.add("Tier", name, spec)
        for number in range(self.choose.randint(1, 6)):
            self._policy(number)
        self.choose.shuffle(self.world.documents)
        return self.world

    def _workload(self, name: str) -> None:
        host, namespace = WORKLOADS[name]
        robot = self.chance(0.5)
        ports = [
            {"name": port, "protocol": self.choose.choice(("TCP", "UDP")), "port": self.choose.choice(PORTS)}
            for port in NAMED
            if self.chance(0.6)
        ]
        spec = {
            "orchestrator": "lab",
            "node": host,
            "workload": name,
            "endpoint": "eth0",
            "ipNetworks": [f"{address}/{length}" for address, length in zip(ADDRESSES[name], (32, 128), strict=True)],
            "interfaceName": f"cali{name}",
            "profiles": [f"kns.{namespace}", *([f"ksa.{namespace}.robot"] if robot else [])],
            "ports": ports,
        }
        spec |= {"serviceAccountName": "robot"} if robot else {}
        self.add("WorkloadEndpoint", f"{host}-lab-{name}-eth0", spec, namespace=namespace, labels=self.labels())

    def _policy(self, number: int) -> None:
        is_global = self.chance(0.5)
        tiers = ["default", *(each["metadata"]["name"] for each in self.world.of_kind("Tier"))]
        tier = self.choose.choice(tiers)
        spec: dict[str, Any] = {"tier": tier, "selector": self.selector()} if self.chance(0.8) else {"tier": tier}
        if self.chance(0.7):
            spec["order"] = self.choose.choice((1, 1, 2))
        if self.chance(0.6):
            spec["types"] = self.some(("Ingress", "Egress"))
        for direction in ("ingress", "egress"):
            if self.chance(0.7) and direction.capitalize() in spec.get("types", ("Ingress", "Egress")):
                spec[direction] = self.rules(3)
        name = f"{tier}.p{number}" if tier != "default" else f"p{number}"
        staged = "Staged" if self.chance(0.15) else ""
        if is_global:
            if self.chance(0.3):
                spec["namespaceSelector"] = self.selector()
            self.add(f"{staged}GlobalNetworkPolicy", name, spec)
        else:
            self.add(f"{staged}NetworkPolicy", name, spec, namespace=self.choose.choice(NAMESPACES))

    def rules(self, most: int) -> list[dict[str, Any]]:
        return [self._rule() for _ in range(self.choose.randint(1, most))]

    def _rule(self) -> dict[str, Any]:
        rule: dict[str, Any] = {"action": self.choose.choice(("Allow", "Allow", "Allow", "Deny", "Pass", "Log"))}
        if self.chance(0.2):
            rule["ipVersion"] = self.choose.choice((4, 6))
        if self.chance(0.6):
            rule["protocol"] = self.choose.choice(("TCP", "TCP", "UDP", "SCTP", "UDPLite", "ICMP", "ICMPv6", 47, 6))
        elif self.chance(0.3):
            rule["notProtocol"] = self.choose.choice(("TCP", "UDP", "SCTP", 47))
        kind = {"ICMP": 8, "ICMPv6": 128}.get(rule.get("protocol", ""))
        if kind is not None:
            rule.pop("ipVersion", None)
            if self.chance(0.6):
                match = {"type": self.choose.choice((kind, kind, 13)), **({"code": self.choose.choice((0, 1))} if self.chance(0.4) else {})}
                rule[self.choose.choice(("icmp", "notICMP"))] = match
        with_ports = rule.get("protocol") in ("TCP", "UDP", "SCTP")
        version = rule.get("ipVersion") or {"ICMP": 4, "ICMPv6": 6}.get(rule.get("protocol", ""), self.choose.choice((4, 6)))
        for end in ("source", "destination"):
            if self.chance(0.6):
                rule[end] = self._side(version, with_ports)
        return rule

    def _side(self, version: int, with_ports: bool) -> dict[str, Any]:
        side: dict[str, Any] = {}
        nets = tuple(net for net in NETS if (":" in net) == (version == 6))
        for name, chance, make in (
            ("nets", 0.25, lambda: self.some(nets)),
            ("notNets", 0.15, lambda: self.some(tuple(net for net in nets if not net.endswith("/0")))),
            ("selector", 0.35, self.selector),
            ("notSelector", 0.15, self.selector),
            ("namespaceSelector", 0.15, self.selector),
            ("serviceAccounts", 0.1, self._accounts),
        ):
            if self.chance(chance):
                side[name] = make()
        if with_ports:
            for name, chance in (("ports", 0.5), ("notPorts", 0.15)):
                if self.chance(chance):
                    side[name] = self.some((*PORTS, "80:443", "1:79", *NAMED))
        return side

    def _accounts(self) -> dict[str, Any]:
        return {"names": ["robot"]} if self.chance(0.5) else {"selector": self.selector()}


def table_of(world: World) -> TableBuilder:
    """The host's table after all documents were validated, stored, read and calculated."""
    graph, builder = Graph(frozenset({HOST})), TableBuilder()
    for index, data in enumerate(world.documents, 1):
        assert validate_all([Document(data=data, source="test", index=index, line=index)]) == []
        stored = with_defaults(data)
        key = ResourceKey(stored["kind"], stored["metadata"]["name"], stored["metadata"].get("namespace", ""))
        decoded = decode_stored(path_of(key), encode_document(stored))
        assert decoded is not None
        graph.on_input(Put(decoded[0], decoded[1], index))
    graph.on_input(InSync())
    for update in graph.flush():
        builder.on_update(update)
    builder.flush()
    return builder


def flows() -> list[Flow]:
    """Everything that passes this host, of every kind that the rules can tell apart."""
    found = []
    places = {**ADDRESSES, "outside": OUTSIDE}
    for (source, one), (target, other) in itertools.permutations(places.items(), 2):
        if not any(WORKLOADS.get(name, ("", ""))[0] == HOST for name in (source, target)):
            continue
        for family in (0, 1):
            ends = one[family], other[family]
            ports = itertools.product((6, 17, 132, 136), ((22, 80), (80, 443), (99, 22)))
            found += [Flow(*ends, protocol, source_port, port) for protocol, (source_port, port) in ports]
            found += [Flow(*ends, (1, 58)[family], icmp_type=(8, 128)[family], icmp_code=code) for code in (0, 1)]
            found.append(Flow(*ends, 47))
    return found


FLOWS = flows()


def accepts(builder: TableBuilder, flow: Flow) -> bool:
    interfaces = {address: f"cali{name}" for name, (host, _) in WORKLOADS.items() if host == HOST for address in ADDRESSES[name]}
    packet = Packet(
        interfaces.get(flow.source, "eth0"),
        interfaces.get(flow.destination, "eth0"),
        parse_address(flow.source),
        parse_address(flow.destination),
        flow.protocol,
        flow.source_port,
        flow.port,
        flow.icmp_type,
        flow.icmp_code,
    )
    return evaluate(builder.table, packet).accepted


# What is made up from a number does not get smaller with the number, so that there is nothing to shrink.
@settings(max_examples=EXAMPLES, deadline=None, phases=(Phase.generate,))
@given(st.integers(0, 2**48))
def test_the_host_does_what_the_resources_say(seed: int) -> None:
    choose = Random(seed)
    world = Maker(choose).make()
    builder = table_of(world)
    for flow in choose.sample(FLOWS, PACKETS):
        assert accepts(builder, flow) == world.allows(flow), (flow, world.documents)

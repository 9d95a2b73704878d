"""The oracle's half of the check, with the example policies: who may reach whom, which probes are made, and what counts as a mismatch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tabinet.lab.check import matches, summarize
from tabinet.lab.expectation import Fabric, PlannedProbe, Target, build_fabric, plan_probes
from tabinet.lab.load import load_topology
from tabinet.lab.plan import make_plan
from tabinet.lab.probe.client import ProbeResult, ProbeSpec
from tabinet.lab.topology import Topology
from tabinet.lab.workloads import host_target
from tabinet.lib.ip import parse_address
from tabinet.model.documents import load_documents
from tabinet.model.keys import ResourceKey, path_of
from tabinet.store.api import KeyValue

EXAMPLES = Path(__file__).parents[3] / "examples"

Document = dict[str, Any]


def stored(document: dict[str, object]) -> KeyValue:
    metadata = document["metadata"]
    assert isinstance(metadata, dict)
    key = ResourceKey(str(document["kind"]), metadata["name"], metadata.get("namespace", ""))
    return KeyValue(path_of(key), json.dumps(document).encode(), 7, 7)


def endpoint(topology: Topology, index: int) -> tuple[dict[str, object], Target]:
    """The endpoint of a workload, and what the check knows of it."""
    workload = topology.workloads[index]
    addresses = (f"10.65.0.{index + 1}", f"fd00:65::{index + 1:x}")
    document: dict[str, object] = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "WorkloadEndpoint",
        "metadata": {
            "name": f"{workload.host}-lab-{workload.name}-eth0",
            "namespace": workload.namespace,
            "labels": {**workload.labels, "projectcalico.org/namespace": workload.namespace},
        },
        "spec": {
            "orchestrator": "lab",
            "node": workload.host,
            "workload": workload.name,
            "endpoint": "eth0",
            "ipNetworks": [f"{addresses[0]}/32", f"{addresses[1]}/128"],
            "interfaceName": f"cali{index}",
            "profiles": list(workload.profiles),
            "ports": [{"name": port.name, "protocol": port.protocol, "port": port.port} for port in workload.ports],
        },
    }
    return document, Target(workload.name, f"tl-clos-{workload.name}", tuple(parse_address(text) for text in addresses), workload.host)


def clos(
    *policies: str, more: Sequence[Document] = (), uplinks: dict[str, list[str]] | None = None
) -> tuple[Topology, Fabric, list[Target]]:
    """The fabric of the default example with its profiles, some of the example policies, and ``more`` documents."""
    loaded = load_topology(EXAMPLES / "labs" / "clos.yaml")
    endpoints = [endpoint(loaded.topology, index) for index in range(len(loaded.topology.workloads))]
    documents = [*loaded.documents, *make_plan(loaded.topology).resources, *(document for document, _ in endpoints), *more]
    for name in policies:
        path = EXAMPLES / "policies" / f"{name}.yaml"
        documents += [document.data for document in load_documents(path.read_text(), str(path))]
    hosts = [host.name for host in loaded.topology.hosts]
    return loaded.topology, build_fabric([stored(document) for document in documents], hosts, uplinks), [target for _, target in endpoints]


def allowed(fabric: Fabric, targets: list[Target], question: str) -> bool:
    """The answer to ``source destination protocol port``; the same in both families."""
    source, destination, protocol, port = question.split()
    by_name = {target.name: target for target in targets}
    answers = set()
    for a, b in zip(by_name[source].addresses, by_name[destination].addresses, strict=True):
        verdict = fabric.verdict(ProbeSpec(b.family, protocol, b.address, int(port)), a, b)
        assert verdict is not None
        answers.add(verdict.accepted)
    assert len(answers) == 1
    return answers.pop()


PROFILES_ONLY = {
    "web1 db2 tcp 9999": True,
    "web1 web2 udp 8125": True,
    "web1 rival1 tcp 80": False,
    "web1 rival1 udp 53": True,
    "rival1 web1 icmp 0": True,
    "rival1 rival2 tcp 80": True,
}
WITH_POLICIES = {
    "web1 app3 tcp 8080": True,
    "web1 app1 tcp 8080": True,
    "web1 app1 tcp 80": False,
    "web1 db1 tcp 5432": False,
    "app1 db2 tcp 5432": True,
    "app1 db1 tcp 9999": False,
    "db1 app1 tcp 8080": False,
    "web2 web3 tcp 80": True,
    "web1 app4 udp 8125": True,
    "app1 app2 udp 8125": True,
    "db1 app2 udp 8125": False,
    "web1 db1 icmp 0": True,
    "rival1 web1 tcp 80": False,
    "rival1 web1 icmp 0": False,
    "web1 rival1 udp 53": False,
    "rival1 rival2 tcp 80": True,
}


@pytest.mark.parametrize(
    ("policies", "expected"), [((), PROFILES_ONLY), (("three-tier", "isolated-tenant"), WITH_POLICIES)], ids=["profiles", "policies"]
)
def test_the_example_policies_say_what_their_comments_say(policies: tuple[str, ...], expected: dict[str, bool]) -> None:
    _, fabric, targets = clos(*policies)
    assert {question: allowed(fabric, targets, question) for question in expected} == expected


@pytest.mark.parametrize("policies", [(), ("three-tier", "isolated-tenant")], ids=["profiles", "policies"])
def test_every_pair_is_probed_in_both_families_with_allowed_and_denied_ports(policies: tuple[str, ...]) -> None:
    topology, fabric, targets = clos(*policies)
    probes = plan_probes(fabric, targets, topology.check)
    assert len(probes) == len(targets) * (len(targets) - 1) * 5 * 2
    assert len({(probe.source, probe.spec) for probe in probes}) == len(probes)
    for family in (4, 6):
        for protocol in ("icmp", "tcp", "udp"):
            kinds = {probe.allowed for probe in probes if (probe.spec.family, probe.spec.protocol) == (family, protocol)}
            assert kinds == {True, False} or (protocol == "icmp" and not policies)
    tried = {(probe.spec.protocol, probe.spec.port) for probe in probes if probe.spec.port}
    assert tried == {("tcp", port) for port in topology.check.tcp} | {("udp", port) for port in topology.check.udp}


def test_where_both_kinds_exist_one_of_each_is_chosen() -> None:
    topology, fabric, targets = clos("three-tier")
    probes = plan_probes(fabric, targets, topology.check)
    kinds = [p.allowed for p in probes if (p.source, p.destination, p.spec.family, p.spec.protocol) == ("web1", "app1", 4, "tcp")]
    assert sorted(kinds) == [False, True]
    assert all(probe.reason for probe in probes if not probe.allowed)


def with_hosts(*more: Document, uplinks: dict[str, list[str]] | None = None) -> list[PlannedProbe]:
    """The probes between workloads and hosts, where workloads may do everything."""
    topology, fabric, targets = clos(more=(ALLOW_ALL, *more), uplinks=uplinks)
    plan = make_plan(topology)
    hosts = [host_target(plan, host.name, tuple(item.address for item in host.addresses)) for host in plan.hosts]
    names = {host.name for host in hosts}
    probes = plan_probes(fabric, [*targets, *hosts], topology.check)
    return [probe for probe in probes if {probe.source, probe.destination} & names]


def v3(kind: str, name: str, **spec: object) -> Document:
    return {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name}, "spec": spec}


ALLOW_ALL = v3(
    "GlobalNetworkPolicy",
    "all",
    selector="projectcalico.org/orchestrator == 'lab'",
    types=["Ingress", "Egress"],
    ingress=[{"action": "Allow"}],
    egress=[{"action": "Allow"}],
)
HOME = {workload.name: workload.host for workload in load_topology(EXAMPLES / "labs" / "clos.yaml").topology.workloads}
CLOSED = v3("HostEndpoint", "h11", node="host11", interfaceName="*")


def test_workloads_and_hosts_try_each_other_and_their_own_host_does_not_listen_to_them() -> None:
    probes = with_hosts()
    tried = {(probe.source, probe.destination) for probe in probes}
    assert {(a, b) for b, a in tried} == tried
    assert set(HOME.items()) < tried
    assert {destination for _, destination in tried} >= {"host11", "host12", "host21", "host22"}
    assert all(bool(probe.spec.source) is probe.source.startswith("host") for probe in probes)
    for workload, home in HOME.items():
        told = {(p.source, p.destination): p.allowed for p in probes if workload in (p.source, p.destination)}
        assert told.pop((workload, home)) is False
        assert told and all(told.values())


def test_what_workloads_may_say_to_their_host_is_configured() -> None:
    probes = with_hosts(v3("FelixConfiguration", "default", defaultEndpointToHostAction="Accept"))
    assert all(probe.allowed for probe in probes)


def across(probes: list[PlannedProbe]) -> list[PlannedProbe]:
    """Those between host11 and workloads of other hosts."""
    return [p for p in probes if "host11" in (p.source, p.destination) and "host11" not in (HOME.get(p.source), HOME.get(p.destination))]


def test_a_closed_host_keeps_its_failsafe_ports_and_its_own_workloads() -> None:
    probes = with_hosts(CLOSED)
    tried = across(probes)
    assert {p.allowed for p in tried} == {True, False}
    for p in tried:
        open_port = ("udp", 53) if p.source == "host11" else ("tcp", 22)
        assert p.allowed is ((p.spec.protocol, p.spec.port) == open_port), p
    assert all(p.allowed for p in probes if p.source == "host11" and HOME[p.destination] == "host11")
    assert all(p.allowed for p in probes if "host11" not in (p.source, p.destination) and HOME.get(p.source) != p.destination)


def test_what_depends_on_the_uplink_is_not_tried() -> None:
    named = v3("HostEndpoint", "h11", node="host11", interfaceName="tor11")
    one = across(with_hosts(named, uplinks={"host11": ["tor11"]}))
    both = across(with_hosts(named, uplinks={"host11": ["tor11", "tor12"]}))
    assert {p.allowed for p in one} == {True, False}
    assert both and all(p.allowed for p in both), "only what neither uplink denies is certain"


def test_a_floating_address_is_tried_by_all_others_and_leads_to_its_workload() -> None:
    topology, fabric, targets = clos(more=(ALLOW_ALL,))
    document, target = endpoint(topology, 0)
    document["spec"]["ipNATs"] = [{"internalIP": "10.65.0.1", "externalIP": "192.0.2.7"}]
    _, fabric, _ = clos(more=(ALLOW_ALL, document))
    floating = msgspec.structs.replace(target, floating=(parse_address("192.0.2.7"),))
    probes = [p for p in plan_probes(fabric, [floating, *targets[1:]], topology.check) if p.spec.address == "192.0.2.7"]
    assert {p.source for p in probes} == {other.name for other in targets[1:]}
    assert all(p.destination == target.name and p.allowed for p in probes)


TCP = ProbeSpec(4, "tcp", "10.65.0.2", 80)
PING = ProbeSpec(6, "icmp", "fd00:65::2", 0)


@pytest.mark.parametrize(
    ("spec", "is_allowed", "outcome", "who", "good"),
    [
        (TCP, True, "answered", "b", True),
        (TCP, True, "answered", "c", False),  # somebody else has the address
        (TCP, True, "timeout", "", False),
        (TCP, True, "refused", "", False),
        (TCP, True, "unreachable", "", False),
        (TCP, False, "timeout", "", True),
        (TCP, False, "forbidden", "", True),  # its own host says so at once
        (TCP, True, "forbidden", "", False),
        (TCP, False, "answered", "b", False),
        (TCP, False, "refused", "", False),  # a packet went through
        (TCP, False, "unreachable", "", False),  # it was routing, not policy
        (PING, True, "answered", "fd00:65::2", True),
        (PING, True, "answered", "fd00:65::3", False),
    ],
)
def test_what_counts_as_a_match(spec: ProbeSpec, is_allowed: bool, outcome: str, who: str, good: bool) -> None:
    assert matches(PlannedProbe("a", "b", spec, is_allowed, "why"), ProbeResult(outcome, who, 1.0)) is good


def test_the_report_counts_and_names_what_did_not_match() -> None:
    probes = [
        PlannedProbe("a", "b", TCP, False, "policy db denies"),
        PlannedProbe("a", "b", PING, True, ""),
        PlannedProbe("b", "a", TCP, True, ""),
    ]
    results = [ProbeResult("answered", "b", 0.4), ProbeResult("answered", "fd00:65::2", 0.3), ProbeResult("answered", "a", 0.3)]
    report = summarize(probes, results, retried=2, duration_s=1.234)
    assert (report.probes, report.mismatches, report.retried, report.families) == (3, 1, 2, ("ipv4", "ipv6"))
    (detail,) = report.details
    assert (detail.source, detail.destination, detail.family, detail.protocol, detail.port) == ("a", "b", "ipv4", "tcp", 80)
    assert (detail.expected, detail.reason, detail.seen, detail.who) == ("denied", "policy db denies", "answered", "b")
    assert [(p.source, p.destination, p.probes, p.allowed, p.mismatches) for p in report.pairs] == [
        ("a", "b", 2, 1, 1),
        ("b", "a", 1, 1, 0),
    ]

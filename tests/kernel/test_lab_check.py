"""The check against packets: it agrees where the policy is enforced, and names what is not."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import AsyncIterator

import pytest

from tabinet.lab.build import in_namespace, remove_namespaces, run
from tabinet.lab.check import check
from tabinet.lab.expectation import Target
from tabinet.lab.topology import CheckPorts
from tabinet.lib.ip import parse_address
from tabinet.model.keys import ResourceKey, path_of
from tabinet.store.api import PutOp
from tabinet.store.memory import MemoryStore

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

ADDRESSES = {"a": ("10.65.0.1", "fd00:65::1"), "b": ("10.65.1.1", "fd00:65:0:1::1")}
GATEWAYS = {"a": ("10.65.0.254", "fd00:65::fe"), "b": ("10.65.1.254", "fd00:65:0:1::fe")}
PORTS = CheckPorts(tcp=(80, 81), udp=(53, 54))


@pytest.fixture
async def namespaces() -> AsyncIterator[dict[str, str]]:
    """Two workloads and what routes between them; nothing enforces anything."""
    tag = uuid.uuid4().hex[:8]
    names = {node: f"tt-{tag}-{node}" for node in ("r", "a", "b")}
    batch = "".join(f"netns add {name}\n" for name in names.values())
    batch += "".join(f"link add name {node} netns {names['r']} type veth peer name eth0 netns {names[node]}\n" for node in ("a", "b"))
    try:
        await run(["ip", "-batch", "-"], batch)
        await run(in_namespace(names["r"], ["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"]))
        for node in ("a", "b"):
            (four, six), (gateway4, gateway6) = ADDRESSES[node], GATEWAYS[node]
            inside = f"link set dev lo up\naddr add {four}/24 dev eth0\naddr add {six}/64 dev eth0 nodad\nlink set dev eth0 up\n"
            inside += f"route add default via {gateway4}\n-6 route add default via {gateway6}\n"
            outside = f"addr add {gateway4}/24 dev {node}\naddr add {gateway6}/64 dev {node} nodad\nlink set dev {node} up\n"
            await run(["ip", "-n", names["r"], "-batch", "-"], outside)
            await run(["ip", "-n", names[node], "-batch", "-"], inside.replace("-6 route", "route"))
        yield names
    finally:
        await remove_namespaces(names.values())


async def filled(*ingress: dict[str, object]) -> MemoryStore:
    """A store with the two workloads on one host, whose profile allows what ``ingress`` says."""
    store = MemoryStore()
    profile = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "Profile",
        "metadata": {"name": "p"},
        "spec": {"ingress": list(ingress), "egress": [{"action": "Allow"}]},
    }
    documents = {ResourceKey("Profile", "p"): profile}
    for node, addresses in ADDRESSES.items():
        name = f"h-lab-{node}-eth0"
        documents[ResourceKey("WorkloadEndpoint", name, "n")] = {
            "apiVersion": "projectcalico.org/v3",
            "kind": "WorkloadEndpoint",
            "metadata": {"name": name, "namespace": "n"},
            "spec": {
                "orchestrator": "lab",
                "node": "h",
                "workload": node,
                "endpoint": "eth0",
                "ipNetworks": list(addresses),
                "interfaceName": f"cali{node}",
                "profiles": ["p"],
            },
        }
    await store.txn([], [PutOp(path_of(key), json.dumps(document).encode()) for key, document in documents.items()])
    return store


def targets(names: dict[str, str]) -> list[Target]:
    return [Target(node, names[node], tuple(parse_address(text) for text in addresses)) for node, addresses in ADDRESSES.items()]


ALLOW_80_AND_53: tuple[dict[str, object], ...] = (
    {"action": "Allow", "protocol": "ICMP"},
    {"action": "Allow", "protocol": "ICMPv6"},
    {"action": "Allow", "protocol": "TCP", "destination": {"ports": [80]}},
    {"action": "Allow", "protocol": "UDP", "destination": {"ports": [53]}},
)
ENFORCED = "table inet t {\nchain c {\ntype filter hook forward priority 0\ntcp dport 81 drop\nudp dport 54 drop\n}\n}\n"


async def test_where_policy_is_enforced_nothing_differs(namespaces: dict[str, str]) -> None:
    await run(in_namespace(namespaces["r"], ["nft", "-f", "-"]), ENFORCED)
    report = await check(await filled(*ALLOW_80_AND_53), ["h"], targets(namespaces), PORTS)
    assert (report.probes, report.mismatches, report.details, report.families) == (20, 0, (), ("ipv4", "ipv6"))
    assert [(pair.source, pair.destination, pair.probes, pair.allowed) for pair in report.pairs] == [("a", "b", 10, 6), ("b", "a", 10, 6)]


async def test_what_passes_against_the_policy_is_named(namespaces: dict[str, str]) -> None:
    report = await check(await filled(*ALLOW_80_AND_53), ["h"], targets(namespaces), PORTS)
    found = {(d.source, d.destination, d.family, d.protocol, d.port, d.expected, d.seen) for d in report.details}
    expected = {
        (source, destination, family, protocol, port, "denied", "answered")
        for source, destination in (("a", "b"), ("b", "a"))
        for family in ("ipv4", "ipv6")
        for protocol, port in (("tcp", 81), ("udp", 54))
    }
    assert found == expected
    assert report.mismatches == len(expected)
    assert report.retried >= len(expected)
    assert all(detail.who == detail.destination for detail in report.details)


async def test_what_is_dropped_against_the_policy_is_named(namespaces: dict[str, str]) -> None:
    await run(in_namespace(namespaces["r"], ["nft", "-f", "-"]), ENFORCED)
    report = await check(await filled({"action": "Allow"}), ["h"], targets(namespaces), PORTS)
    assert {(detail.protocol, detail.port, detail.expected, detail.seen) for detail in report.details} == {
        ("tcp", 81, "answered", "timeout"),
        ("udp", 54, "answered", "timeout"),
    }
    assert report.mismatches == 8

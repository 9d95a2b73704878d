"""The default lab, whole: real routers, BIRD, etcd, agents and packets; policies, failures and restarts."""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from churn import churning
from etcd_process import EtcdProcess
from lab_world import TABINET, assert_well, example_policies, running_lab

from tabinet.cli.demo_proof import prove
from tabinet.lab.check import check
from tabinet.lab.lab import ROUTER, Lab
from tabinet.lab.launches import components
from tabinet.lab.measure import cost_of, flows_between
from tabinet.lab.workloads import read_targets
from tabinet.model.keys import ResourceKey
from tabinet.store.client import ResourceClient
from tabinet.store.open import StoreConfig, open_store

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

BETWEEN_RACKS = (("web1", "app3"), ("web3", "app1"), ("web2", "app4"), ("web4", "app2"))
UPLINK = "tor11:host11"
KILLED_TOGETHER = 8
RECOVERED_S = 8.0
"""After its start BIRD compares what it has learned with what the kernel has 6 s later: only then it shows whether that costs anything."""
FLOATING = "10.65.250.7"
Document = dict[str, Any]
Change = Callable[[], Awaitable[None]]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with running_lab("clos") as made:
        yield made


async def test_every_packet_does_what_the_profiles_say(lab: Lab) -> None:
    await assert_well(lab, 500)


async def test_every_packet_does_what_the_policies_say(lab: Lab) -> None:
    async with lab.store() as store:
        await ResourceClient(store).apply_many(example_policies())
    report = await assert_well(lab, 500)
    assert 0 < sum(pair.allowed for pair in report.pairs) < report.probes


async def test_what_is_known_beforehand_is_true_of_packets(lab: Lab) -> None:
    """Explained, planned, refused: as the demo shows it, with the packets that it names."""
    said: list[str] = []
    async with lab.store() as store:
        proof = await prove(lab, ResourceClient(store), said.append)
    assert proof.denied.startswith("DENIED")
    assert proof.opens[0].endswith("udp 8125")
    assert "web-never-reaches-db" in proof.refused


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("web1 db1 --port 5432", 1),
        ("web1 web2 -6", 0),
        ("app1 db1 --port 5432", 0),
    ],
)
async def test_a_traced_packet_does_what_was_explained(lab: Lab, words: str, code: int) -> None:
    argv = [TABINET, "explain", *words.split(), "--trace", "--json", "--lab", lab.name]
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, check=False, text=True)
    assert done.returncode == code, done.stderr
    traces = json.loads(done.stdout)["trace"]
    assert any(trace["dropped"] for trace in traces) is bool(code)
    assert all(trace["lines"] for trace in traces)


async def test_planned_restarts_lose_no_packet(lab: Lab) -> None:
    flows = await flows_between(lab, BETWEEN_RACKS)
    for component, after_s in (("agent", 1.5), ("bird", RECOVERED_S)):

        async def restart(component: str = component) -> None:
            for host in ("host11", "host22"):
                await lab.restart(host, component)

        cost = await cost_of(flows, restart, after_s=after_s)
        assert cost.lost == 0, f"{component}: {cost}"
        await lab.wait_converged()


async def test_a_killed_agent_loses_no_packet(lab: Lab) -> None:
    cost = await cost_of(await flows_between(lab, BETWEEN_RACKS), lambda: lab.restart("host11", "agent", kill_it=True))
    assert cost.lost == 0, cost


async def test_traffic_goes_on_around_a_cut_link_and_a_killed_router(lab: Lab) -> None:
    flows = await flows_between(lab, BETWEEN_RACKS[:2])
    # What is measured on a quiet machine is far below these limits: see docs/performance.md.
    events: dict[str, tuple[Change, Change, float]] = {
        "carrier": (lambda: lab.cut(UPLINK), lambda: lab.heal(UPLINK), 500),
        "silent": (lambda: lab.cut(UPLINK, silent=True), lambda: lab.heal(UPLINK), 2500),
        "router": (lambda: lab.stop("tor11", ROUTER, kill_it=True), lambda: lab.start("tor11", ROUTER), 500),
    }
    for what, (event, repair, limit_ms) in events.items():
        cost = await cost_of(flows, event, after_s=2.5)
        assert cost.worst_ms < limit_ms, f"{what}: {cost}"
        if what == "router":
            assert (await lab.check()).details == ()
        cost = await cost_of(flows, repair)
        assert cost.worst_ms < 500, f"{what} repaired: {cost}"
        await lab.wait_converged()
    await assert_well(lab)


async def test_whatever_is_killed_at_any_moment_comes_back(lab: Lab) -> None:
    seed = int(os.environ.get("TABINET_TEST_SEED") or secrets.randbelow(1_000_000))
    print(f"TABINET_TEST_SEED={seed}")
    chance = random.Random(seed)
    victims = [(component.node, component.name) for component in components(lab.plan, lab.directory)]
    chance.shuffle(victims)
    changes = 0
    for start in range(0, len(victims), KILLED_TOGETHER):
        together = victims[start : start + KILLED_TOGETHER]
        async with churning(lab, chance) as churn:
            for node, name in together:
                await asyncio.sleep(chance.random() * 0.5)
                await lab.stop(node, name, kill_it=True)
            chance.shuffle(together)
            for node, name in together:
                await asyncio.sleep(chance.random() * 0.3)
                await lab.start(node, name)
            await asyncio.sleep(chance.random())
        changes += churn.changes
        print(f"killed {together}; {churn.changes} changes, {len(churn.failures)} that failed")
        await assert_well(lab)
    assert changes > 20


def everything_on_hosts(hosts: list[str]) -> list[Document]:
    """Host endpoints of all hosts, and every kind of policy for them: a host that is closed but for what it needs."""
    found: list[Document] = []
    for host in hosts:
        metadata = {"name": f"{host}-all", "labels": {"role": "host"}}
        found.append({"kind": "HostEndpoint", "metadata": metadata, "spec": {"node": host, "interfaceName": "*"}})
    icmp = [{"action": "Allow", "protocol": "ICMP"}, {"action": "Allow", "protocol": "ICMPv6"}]
    policies: dict[str, Document] = {
        "host-in": {"types": ["Ingress"], "ingress": [{"action": "Allow", "protocol": "TCP", "destination": {"ports": [22]}}, *icmp]},
        "host-forward": {
            "types": ["Ingress", "Egress"],
            "applyOnForward": True,
            "ingress": [{"action": "Deny", "protocol": "TCP", "destination": {"ports": [5432]}}, {"action": "Allow"}],
            "egress": [{"action": "Allow"}],
        },
        "host-early": {
            "types": ["Ingress"],
            "preDNAT": True,
            "applyOnForward": True,
            "ingress": [{"action": "Deny", "protocol": "UDP", "destination": {"ports": [9998]}}],
        },
        "host-untracked": {
            "types": ["Ingress", "Egress"],
            "doNotTrack": True,
            "applyOnForward": True,
            "ingress": [{"action": "Allow", "protocol": "UDP", "destination": {"ports": [123]}}],
            "egress": [{"action": "Allow", "protocol": "UDP", "source": {"ports": [123]}}],
        },
    }
    # Whoever is sent to under a floating address is no member of any selector where it is sent from.
    policies["ping-anybody"] = {
        "order": 1,
        "selector": "app in {'web', 'app'}",
        "types": ["Ingress", "Egress"],
        "ingress": icmp,
        "egress": icmp,
    }
    for name, spec in policies.items():
        found.append(
            {"kind": "GlobalNetworkPolicy", "metadata": {"name": name}, "spec": {"order": 50, "selector": "role == 'host'"} | spec}
        )
    return [{"apiVersion": "projectcalico.org/v3", **document} for document in found]


async def test_host_endpoints_floating_addresses_and_limits_do_what_they_say(lab: Lab) -> None:
    resources = everything_on_hosts([host.name for host in lab.plan.hosts])
    key = ResourceKey("WorkloadEndpoint", "host11-lab-app1-eth0", "shop")
    async with lab.store() as store:
        client = ResourceClient(store)
        before = await client.get(key)
        (address, *_) = before["spec"]["ipNetworks"]
        changed = before["spec"] | {
            "ipNATs": [{"internalIP": address.partition("/")[0], "externalIP": FLOATING}],
            "qosControls": {"ingressBandwidth": 50_000_000, "egressBandwidth": 50_000_000, "ingressPacketRate": 5000},
        }
        await client.apply_many([*resources, before | {"spec": changed}])
        try:
            report = await assert_well(lab, 500)
            closed = [pair for pair in report.pairs if pair.destination.startswith("host")]
            assert any(pair.allowed for pair in closed) and all(pair.allowed < pair.probes for pair in closed)
            argv = lab.exec_argv("web3", ["ping", "-c", "3", "-i", "0.2", "-W", "2", FLOATING])
            pings = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.DEVNULL)
            assert await pings.wait() == 0, "the floating address does not answer from the other rack"
        finally:
            for document in resources:
                await client.delete(ResourceKey(document["kind"], document["metadata"]["name"]))
            await client.apply(before)
    await assert_well(lab)


def tabinet(*words: str, stdin: str = "") -> str:
    """What the command says."""
    command = [sys.executable, "-m", "tabinet.cli.main", *words]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=True, timeout=60).stdout


async def test_a_store_that_was_moved_means_the_same(lab: Lab, tmp_path: Path) -> None:
    tabinet("--lab", lab.name, "datastore", "migrate", "lock")
    try:
        exported = tabinet("--lab", lab.name, "datastore", "migrate", "export")
    finally:
        tabinet("--lab", lab.name, "datastore", "migrate", "unlock")
    etcd = EtcdProcess(tmp_path / "etcd")
    etcd.start()
    try:
        config = tmp_path / "moved.toml"
        config.write_text(f'[store]\nendpoints = ["{etcd.endpoint}"]\n')
        tabinet("--config", str(config), "datastore", "migrate", "import", "-f", "-", stdin=exported)
        moved = await open_store(StoreConfig(endpoints=(etcd.endpoint,)))
        try:
            hosts = [host.name for host in lab.plan.hosts]
            report = await check(moved, hosts, await read_targets(moved, lab.plan, lab.directory), lab.plan.topology.check)
        finally:
            await moved.close()
    finally:
        etcd.kill()
    assert report.probes >= 500
    assert report.details == ()

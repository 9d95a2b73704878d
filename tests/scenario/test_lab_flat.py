"""A lab without routers: broken resources, a store that is away or held, strangers in the kernel, signals."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import secrets
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from churn import churning, policy
from cni_host import datagram_arrives
from lab_world import TABINET, assert_well, differences, eventually, example_policies, local_endpoints, read_report, running_lab

from tabinet.attach.cni.install import install_programs
from tabinet.kernel import netns
from tabinet.kernel.netns import run_in
from tabinet.kernel.sysctl import ProcSysctl
from tabinet.lab.check import snapshot
from tabinet.lab.kinds.namespace import identity_of
from tabinet.lab.lab import Lab
from tabinet.lab.launches import AGENT, BIRD, ETCD
from tabinet.lab.measure import cost_of
from tabinet.lab.plan import MANAGEMENT, namespace_of
from tabinet.lab.processes import alive, send
from tabinet.lab.state import ProcessRecord
from tabinet.model.keys import ResourceKey, kind_prefix, path_of
from tabinet.store.api import Datastore, DeleteOp, PutOp
from tabinet.store.client import ResourceClient

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

HOSTS = ("node1", "node2", "node3")
WRECKING_TRIES = 10
CLUSTER = ResourceKey("ClusterInformation", "default")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with running_lab("flat") as made:
        yield made


def record_of(lab: Lab, node: str, component: str) -> ProcessRecord:
    (record,) = [each for each in lab.state().processes if (each.node, each.component) == (node, component)]
    return record


def on(lab: Lab, node: str, *argv: str) -> str:
    return subprocess.run(lab.exec_argv(node, argv), check=True, capture_output=True, text=True, timeout=20).stdout


def cpu_seconds(record: ProcessRecord) -> float:
    """User and system time that a process has used (proc(5))."""
    fields = Path(f"/proc/{record.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def problems(lab: Lab) -> list[str]:
    """What each agent says is wrong with resources."""
    async with lab.store() as store:
        reports = [await read_report(store, host) for host in HOSTS]
    return ["no report" if report is None else "; ".join(report.problems) for report in reports]


@contextlib.asynccontextmanager
async def restored(store: Datastore, *paths: str) -> AsyncIterator[dict[str, bytes]]:
    """Inside, what was stored below these paths, to be changed; afterwards it is as it was."""
    before = {path: item.value for path in paths if (item := await store.get(path)) is not None}
    try:
        yield before
    finally:
        await store.txn((), [PutOp(path, before[path]) if path in before else DeleteOp(path) for path in paths])


def cni(lab: Lab, plugins: Path, command: str, host: str, container: str) -> dict[str, Any]:
    """What ``tabinet-cni`` answers on a host of the lab."""
    environ = {"CNI_COMMAND": command, "CNI_CONTAINERID": container, "CNI_NETNS": f"/run/netns/{container}", "CNI_IFNAME": "eth0"}
    config = json.dumps({"cniVersion": "1.0.0", "name": "containers", "type": "tabinet-cni"})
    argv = ["nsenter", f"--net=/run/netns/{namespace_of(lab.name, host)}", str(plugins / "tabinet-cni")]
    done = subprocess.run(argv, input=config, check=False, capture_output=True, text=True, timeout=60, env=environ)
    answer: dict[str, Any] = json.loads(done.stdout or "{}")
    assert done.returncode == 0, answer
    return answer


async def test_containers_on_two_hosts_by_cni(lab: Lab, tmp_path: Path) -> None:
    """With the lab's etcd and BIRDs: a container on one host reaches another on the next, and leaves nothing behind."""
    install_programs(tmp_path, str(tmp_path / "deletions"))
    containers = {host: f"{lab.name}-{host}-cni" for host in HOSTS[:2]}
    try:
        for container in containers.values():
            netns.create(container)
        near, far = (cni(lab, tmp_path, "ADD", host, container) for host, container in containers.items())
        first, second = containers.values()
        address = far["ips"][0]["address"].partition("/")[0]
        assert near["ips"][0]["address"] != far["ips"][0]["address"]
        await eventually(lambda: lost(first, second, address))
        for host, container in containers.items():
            cni(lab, tmp_path, "DEL", host, container)
    finally:
        for container in containers.values():
            if netns.exists(container):
                netns.delete(container)
    async with lab.store() as store:
        assert [item.key async for page in store.list(kind_prefix("WorkloadEndpoint")) for item in page.items if "-cni-" in item.key] == []
        await store.txn((), [DeleteOp(path_of(ResourceKey("Profile", "containers")))])


async def lost(sender: str, receiver: str, address: str) -> list[str]:
    return [] if await asyncio.to_thread(datagram_arrives, sender, receiver, address) else [f"nothing arrives at {address}"]


async def test_every_packet_does_what_the_policies_say(lab: Lab) -> None:
    await assert_well(lab, 400)
    async with lab.store() as store:
        await ResourceClient(store).apply_many(example_policies())
    await assert_well(lab, 400)


async def test_what_is_broken_in_the_store_is_denied_and_told_and_the_rest_goes_on(lab: Lab) -> None:
    web = path_of(ResourceKey("NetworkPolicy", "web", "shop"))
    ghost = {"metadata": {"name": "node1-lab-ghost-eth0", "namespace": "shop"}, "spec": {"node": "node1", "ipNetworks": ["10.65.0.300"]}}
    broken = {
        web: b"",
        path_of(ResourceKey("GlobalNetworkPolicy", "noise")): secrets.token_bytes(100),
        path_of(ResourceKey("IPPool", "noise")): b'{"spec": {"cidr": "nonsense"}}',
        path_of(ResourceKey("WorkloadEndpoint", "node1-lab-ghost-eth0", "shop")): msgspec.json.encode(ghost),
        path_of(ResourceKey("WorkloadEndpoint", "nonsense", "shop")): b"[]",
    }

    async def untold() -> list[str]:
        told = await problems(lab)
        return [f"{host}: {path}" for host, text in zip(HOSTS, told, strict=True) for path in broken if path not in text]

    async with lab.store() as store, restored(store, *broken) as before:
        document = msgspec.json.decode(before[web])
        document["spec"]["ingress"][0]["protocol"] = "carrier pigeons"
        broken[web] = msgspec.json.encode(document)
        await store.txn((), [PutOp(path, value) for path, value in broken.items()])
        await eventually(untold)
        # The oracle reads the same broken policy, so what matters is said here: nobody opens a web page any more.
        report = await lab.check()
        assert report.details == ()
        hosts = {host.name for host in lab.plan.hosts}  # which may always ask their own workloads
        to_web = [pair for pair in report.pairs if pair.destination.startswith("web") and pair.source not in hosts]
        assert to_web
        assert all(pair.allowed == 0 for pair in to_web)
        # What is right still gets through: a new policy is enforced meanwhile.
        async with restored(store, path_of(ResourceKey("GlobalNetworkPolicy", "meanwhile"))):
            await ResourceClient(store).apply(policy("meanwhile", 8080))
            await eventually(lambda: differences(lab))
    await assert_well(lab)
    assert await problems(lab) == ["", "", ""]


async def test_nothing_is_taken_over_while_the_store_is_held(lab: Lab) -> None:
    flows = [await lab.flow("web1", "app2", 4), await lab.flow("web3", "app1", 6)]
    cluster = {"apiVersion": "projectcalico.org/v3", "kind": "ClusterInformation", "metadata": {"name": "default"}}
    deny = {"order": 1, "selector": "all()", "types": ["Ingress"], "ingress": [{"action": "Deny"}]}
    stop = {"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy", "metadata": {"name": "stop"}, "spec": deny}

    def routes() -> dict[str, str]:
        return {host: on(lab, host, "ip", "route", "show", "proto", "84") for host in HOSTS}

    async def not_held() -> list[str]:
        return [text for text in await problems(lab) if "datastoreReady" not in text]

    async with lab.store() as store:
        (endpoint, _) = local_endpoints(await snapshot(store), "node1")[0]
        async with restored(store, path_of(CLUSTER)):
            await ResourceClient(store).apply({**cluster, "spec": {"datastoreReady": False}})
            await eventually(not_held)
            before = routes()
            async with restored(store, endpoint.key, path_of(ResourceKey("GlobalNetworkPolicy", "stop"))):
                await store.txn((), (DeleteOp(endpoint.key),))
                await ResourceClient(store).apply(stop)
                cost = await cost_of(flows, lambda: lab.restart("node2", AGENT, kill_it=True))
                assert cost.lost == 0
                await eventually(not_held)
                assert routes() == before
    await assert_well(lab)


def wreck(lab: Lab, host: str, command: tuple[str, ...]) -> None:
    """The command has done its work. ip(8) gives up a flush when what it saw is changed by others meanwhile, as by a repairing agent."""
    for _ in range(WRECKING_TRIES):
        if subprocess.run(lab.exec_argv(host, command), check=False, capture_output=True, timeout=20).returncode == 0:
            return
    pytest.fail(f"{' '.join(command)} does not work")


async def test_what_strangers_break_in_the_kernel_is_repaired(lab: Lab) -> None:
    workload = lab.plan.topology.workloads[0]
    host = workload.host
    async with lab.store() as store:
        endpoint = await ResourceClient(store).get(identity_of(workload).key)
    interface = endpoint["spec"]["interfaceName"]
    for wrecking in (
        ("nft", "flush", "ruleset"),
        ("nft", "flush", "chain", "inet", "tabinet", "forward"),
        ("nft", "delete", "table", "inet", "tabinet"),
        ("ip", "route", "flush", "proto", "84"),
        ("ip", "-6", "route", "flush", "proto", "84"),
        ("ip", "link", "set", interface, "down"),
        ("ip", "neigh", "flush", "dev", interface, "nud", "permanent"),
    ):
        wreck(lab, host, wrecking)  # which may be repaired before we look
        await eventually(lambda: differences(lab))
    sysctl = ProcSysctl()
    for key in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", f"net/ipv4/conf/{interface}/proxy_arp"):
        namespace = namespace_of(lab.name, host)
        before = run_in(namespace, lambda key=key: sysctl.read(key))
        run_in(namespace, lambda key=key, value=str(1 - int(before)): sysctl.write(key, value))

        async def wrong(key: str = key, before: str = before, namespace: str = namespace) -> list[str]:
            return [key] if run_in(namespace, lambda: sysctl.read(key)) != before else []

        await eventually(wrong)
    await assert_well(lab)


async def test_a_parameter_that_needs_it_starts_agents_anew_under_traffic(lab: Lab) -> None:
    flows = [await lab.flow("web1", "app2", 4), await lab.flow("web3", "app1", 6)]
    felix = ResourceKey("FelixConfiguration", "default")
    document = {"apiVersion": "projectcalico.org/v3", "kind": "FelixConfiguration", "metadata": {"name": "default"}}
    document["spec"] = {"defaultEndpointToHostAction": "Accept"}
    processes = {host: record_of(lab, host, AGENT) for host in HOSTS}
    async with lab.store() as store:
        before = {host: await read_report(store, host) for host in HOSTS}

        async def not_restarted() -> list[str]:
            found = {host: await read_report(store, host) for host in HOSTS}
            return [host for host, old in before.items() if (new := found[host]) is None or old is None or new.started == old.started]

        async def change() -> None:
            await ResourceClient(store).apply(document)
            await eventually(not_restarted)

        async with restored(store, path_of(felix)):
            assert (await cost_of(flows, change)).lost == 0
            before = {host: await read_report(store, host) for host in HOSTS}
        await eventually(not_restarted)
    assert {host: record_of(lab, host, AGENT) for host in HOSTS} == processes
    assert all(map(alive, processes.values()))
    await assert_well(lab)


async def test_agents_and_etcd_start_in_any_order(lab: Lab) -> None:
    flows = [await lab.flow("web1", "app2", 4), await lab.flow("web3", "app1", 6)]

    async def without_store() -> None:
        await lab.stop(MANAGEMENT, ETCD, kill_it=True)
        for host in HOSTS:
            await lab.restart(host, AGENT, kill_it=True)
        health = on(lab, "node1", "curl", "-s", "--unix-socket", "http.sock", "http://agent/health")
        assert msgspec.json.decode(health)["ready"] is False
        await lab.start(MANAGEMENT, ETCD)

    assert (await cost_of(flows, without_store)).lost == 0
    await assert_well(lab)


async def test_an_agent_ends_quickly_whatever_is_away(lab: Lab) -> None:
    took = {}
    for what in ("all well", "bird hangs", "etcd away", "waiting for etcd"):
        if what == "etcd away":
            await lab.stop(MANAGEMENT, ETCD, kill_it=True)
        bird = record_of(lab, "node1", BIRD)
        if what == "bird hangs":
            send(bird, signal.SIGSTOP)
            await asyncio.sleep(1.1)  # so that the agent is in the middle of a question
        record = record_of(lab, "node1", AGENT)
        assert alive(record)
        begin = time.monotonic()
        send(record, signal.SIGTERM)
        while alive(record):
            await asyncio.sleep(0.005)
            assert time.monotonic() < begin + 1.5, what  # a question to a BIRD that hangs takes 3 s
        took[what] = round(time.monotonic() - begin, 3)
        send(bird, signal.SIGCONT)
        await lab.start("node1", AGENT)
    await lab.start(MANAGEMENT, ETCD)
    await eventually(lambda: differences(lab))
    started = record_of(lab, "node1", AGENT)
    await lab.restart("node1", AGENT)
    await eventually(lambda: differences(lab))
    print(f"SIGTERM to exit: {took} s; CPU of an agent from start to ready: {cpu_seconds(record_of(lab, 'node1', AGENT)):.2f} s")
    assert started != record_of(lab, "node1", AGENT)


async def test_a_host_is_protected_until_that_is_taken_back(lab: Lab) -> None:
    def ping() -> int:
        return subprocess.run(lab.exec_argv("node2", ("ping", "-c1", "-W1", "172.20.0.11")), capture_output=True, check=False).returncode

    async def unless(*, answered: bool) -> list[str]:
        return [] if (ping() == 0) is answered else ["ping"]

    def over_ssh(port: int, *argv: str) -> int:
        session = f"SSH_CONNECTION=172.20.0.12 50000 172.20.0.11 {port}"
        command = ("env", session, str(TABINET), "--lab", lab.name, *argv)
        return subprocess.run(lab.exec_argv("node1", command), capture_output=True, check=False).returncode

    protect = ("host", "protect", "node1", "--confirm", "1h")
    assert over_ssh(2222, *protect) == 1
    await eventually(lambda: unless(answered=True))
    assert over_ssh(22, *protect) == 0
    await eventually(lambda: unless(answered=False))
    assert over_ssh(22, "confirm", "--roll-back") == 0
    await eventually(lambda: unless(answered=True))
    await assert_well(lab)


async def test_whatever_is_killed_at_any_moment_comes_back(lab: Lab) -> None:
    seed = int(os.environ.get("TABINET_TEST_SEED") or secrets.randbelow(1_000_000))
    print(f"TABINET_TEST_SEED={seed}")
    chance = random.Random(seed)
    places = [(MANAGEMENT, ETCD), *((host, component) for host in HOSTS for component in (AGENT, BIRD))]
    for _ in range(3):
        victims = chance.sample(places, 4)
        async with churning(lab, chance) as churn:
            for node, name in victims:
                await asyncio.sleep(chance.random() * 0.4)
                await lab.restart(node, name, kill_it=True)
            await asyncio.sleep(chance.random() * 0.5)
        print(f"killed {victims}; {churn.changes} changes, {len(churn.failures)} that failed")
        await assert_well(lab)

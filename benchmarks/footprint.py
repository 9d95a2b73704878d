"""What an agent needs when the fabric is large and its own host is not: memory, time to be ready, CPU when idle and while others change,
and how long its event loop is away at most (see ``stalls``): while it loads, at remote changes, and when much changes at once.

etcd holds 100,000 endpoints and 10,000 policies in 500 namespaces; 100 of the endpoints are on the agent's host. The agent is the real
program with the real etcd, in a network namespace of its own, without BIRD. The baseline is the same agent with an empty store.
CPU is in percent of one core. Needs root and etcd.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import msgspec

from tabinet.errors import StoreUnavailable
from tabinet.kernel import netns
from tabinet.model.keys import ResourceKey, path_of
from tabinet.model.report import HostReport, report_path
from tabinet.store.api import Datastore, PutOp
from tabinet.store.open import StoreConfig, open_store

HOST = "bench-0"
LOCAL = 100
BATCH = 100
CONFIG = """
[agent]
host = "{host}"
http_address = ""
log_level = "error"
[store]
endpoints = ["unix://{socket}"]
[bird]
enabled = false
"""
TICKS = os.sysconf("SC_CLK_TCK")
Figures = dict[str, float]


def namespaces_of(endpoints: int) -> int:
    return max(1, endpoints // 200)


def documents(endpoints: int, policies: int) -> list[tuple[str, bytes]]:
    """Paths and values of everything in the store."""
    chance = random.Random(1)
    namespaces = namespaces_of(endpoints)
    every = max(1, endpoints // LOCAL)
    found = []
    for number in range(namespaces):
        profile: dict[str, object] = {"labelsToApply": {"pcns.team": f"team-{number % 40}"}}
        found.append(resource("Profile", f"kns.ns-{number}", "", {}, profile))
    for number in range(endpoints):
        host = HOST if number % every == 0 else f"bench-{1 + number % 1000}"
        labels = {"app": f"app-{chance.randrange(12)}", "tier": chance.choice(("web", "api", "db")), "pod": f"pod-{number}"}
        spec: dict[str, object] = {
            "node": host,
            "orchestrator": "k8s",
            "pod": f"p{number}",
            "endpoint": "eth0",
            "ipNetworks": [f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}/32"],
            "interfaceName": f"cali{number}",
            "profiles": [f"kns.ns-{number % namespaces}"],
        }
        name = f"{host.replace('-', '--')}-k8s-p{number}-eth0"
        found.append(resource("WorkloadEndpoint", name, f"ns-{number % namespaces}", labels, spec))
    for number in range(policies):
        source: dict[str, object] = {"selector": f"app == 'app-{chance.randrange(12)}' || tier == 'api'"}
        rule: dict[str, object] = {"action": "Allow", "protocol": "TCP", "source": source, "destination": {"ports": [8000 + number % 100]}}
        what: dict[str, object] = {"order": 10, "selector": f"app == 'app-{chance.randrange(12)}'", "types": ["Ingress"], "ingress": [rule]}
        found.append(resource("NetworkPolicy", f"p{number}", f"ns-{number % namespaces}", {}, what))
    return found


def resource(kind: str, name: str, namespace: str, labels: dict[str, str], spec: Mapping[str, object]) -> tuple[str, bytes]:
    metadata: dict[str, object] = {"name": name, "labels": labels}
    if namespace:
        metadata["namespace"] = namespace
    value = {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec}
    return path_of(ResourceKey(kind, name, namespace)), msgspec.json.encode(value)


def memory_mb(process: int) -> float:
    """Resident memory."""
    status = Path(f"/proc/{process}/status").read_text()
    return round(int(status.split("VmRSS:")[1].split()[0]) / 1024, 1)


def cpu_s(process: int) -> float:
    """User and system time so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def wait_store(store: Datastore) -> None:
    """etcd answers; at most 10 s."""
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(StoreUnavailable):
                await store.txn((), (PutOp("/tabinet/bench", b"begin"),))
                return


async def wait_ready(store: Datastore, revision: int, timeout_s: float) -> None:
    """The agent reports that its kernel holds everything up to ``revision``."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        item = await store.get(report_path(HOST))
        if item is not None:
            report = msgspec.json.decode(item.value, type=HostReport)
            if report.in_sync and report.revision >= revision and not report.kernel:
                return
        await asyncio.sleep(0.02)
    raise TimeoutError(f"the agent is not ready after {timeout_s:g} s")


async def stalls_of(agent: subprocess.Popen[bytes], file: Path, when: str) -> Figures:
    """The agent's longest stall since the last time, and the longest time that its loop worked itself."""
    agent.send_signal(signal.SIGUSR1)
    found = await asyncio.to_thread(wait_file, file)
    return {f"longest stall {when}, ms": found["longest_ms"], f"of work {when}, ms": found["worked_ms"]}


def wait_file(file: Path) -> Figures:
    """What is in the file, which is then gone; waits for it up to 10 s."""
    deadline = time.monotonic() + 10
    while not file.exists():
        if time.monotonic() > deadline:
            raise TimeoutError("the agent does not write its stalls")
        time.sleep(0.02)
    found: Figures = json.loads(file.read_text())
    file.unlink()
    return found


def policy_for_all() -> list[tuple[str, bytes]]:
    """A policy that lets everybody in, as one of all endpoints and as one of all teams."""
    sources: list[dict[str, object]] = [{"selector": "all()"}, {"namespaceSelector": "has(team) && team != 'nobody'"}]
    rules = [{"action": "Allow", "source": source} for source in sources]
    return [resource("GlobalNetworkPolicy", "everybody", "", {}, {"order": 5, "selector": "all()", "types": ["Ingress"], "ingress": rules})]


def relabelled_namespaces(count: int) -> list[tuple[str, bytes]]:
    """Every namespace has another team."""
    return [resource("Profile", f"kns.ns-{n}", "", {}, {"labelsToApply": {"pcns.team": f"team-{n % 40 + 1}"}}) for n in range(count)]


async def measure_agent(
    store: Datastore, directory: Path, socket: Path, names: list[tuple[str, bytes]], namespaces: int, idle_s: float
) -> Figures:
    """Figures of one agent on what the store holds."""
    namespace = f"tbf-{uuid.uuid4().hex[:6]}"
    netns.create(namespace)
    config = directory / f"{namespace}.toml"
    config.write_text(CONFIG.format(host=HOST, socket=socket))
    revision = (await store.txn((), ())).revision
    begin = time.monotonic()
    stalls = directory / f"{namespace}.json"
    argv = ["nsenter", f"--net=/run/netns/{namespace}", sys.executable, "-m", "benchmarks.stalls", str(config), str(stalls)]
    agent = subprocess.Popen(argv)  # noqa: ASYNC220  # a millisecond
    try:
        await wait_ready(store, revision - 1 if names else 0, 120)
        figures: Figures = {"ready s": round(time.monotonic() - begin, 2), "cpu until ready s": round(cpu_s(agent.pid), 2)}
        figures["memory MB"] = memory_mb(agent.pid)
        figures |= await stalls_of(agent, stalls, "at load")
        await asyncio.sleep(2)
        before, since = cpu_s(agent.pid), time.monotonic()
        await asyncio.sleep(idle_s)
        figures["idle cpu %"] = round((cpu_s(agent.pid) - before) / (time.monotonic() - since) * 100, 2)
        if names:
            before, since = cpu_s(agent.pid), time.monotonic()
            for number in range(1000):
                path, value = names[number * len(names) // 1000]
                await store.txn((), (PutOp(path, value.replace(b'"tier":"web"', b'"tier":"api"')),))
                await asyncio.sleep(0.005)
            figures["cpu at remote changes, us each"] = round((cpu_s(agent.pid) - before) / 1000 * 1e6, 0)
            figures |= await stalls_of(agent, stalls, "at remote changes")
            for what, change in (
                ("at a policy for all", policy_for_all()),
                ("at new labels of all namespaces", relabelled_namespaces(namespaces)),
            ):
                for start in range(0, len(change), BATCH):
                    revision = (await store.txn((), [PutOp(*item) for item in change[start : start + BATCH]])).revision
                await wait_ready(store, revision, 60)
                figures |= await stalls_of(agent, stalls, what)
        figures["memory at the end MB"] = memory_mb(agent.pid)
        return figures
    finally:
        agent.terminate()
        agent.wait()
        netns.delete(namespace)


async def measure(endpoints: int, policies: int, idle_s: float) -> dict[str, Figures]:
    """An agent with an empty store, and with a full one."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        argv = ["etcd", "--data-dir", "data", "--listen-client-urls", "unix://etcd.sock:0", "--advertise-client-urls", "unix://etcd.sock:0"]
        argv += ["--listen-peer-urls", "unix://peer.sock:0", "--logger", "zap", "--log-outputs", "/dev/null"]
        etcd = subprocess.Popen(argv, cwd=directory, stderr=subprocess.DEVNULL)  # noqa: ASYNC220  # a millisecond
        stack.callback(etcd.wait)
        stack.callback(etcd.kill)
        socket = directory / "etcd.sock:0"
        store = await open_store(StoreConfig(endpoints=(f"unix://{socket}",)))
        try:
            await wait_store(store)
            empty = await measure_agent(store, directory, socket, [], 0, idle_s)
            everything = documents(endpoints, policies)
            for start in range(0, len(everything), BATCH):
                await store.txn((), [PutOp(path, value) for path, value in everything[start : start + BATCH]])
            remote = [item for item in everything if "/workloadendpoints/" in item[0] and b'"tier":"web"' in item[1]]
            full = await measure_agent(store, directory, socket, remote, namespaces_of(endpoints), idle_s)
        finally:
            await store.close()
    return {"empty store (baseline)": empty, f"{endpoints} endpoints, {policies} policies": full}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoints", type=int, default=100_000, help="in the store (default: %(default)s)")
    parser.add_argument("--policies", type=int, default=10_000, help="in the store (default: %(default)s)")
    parser.add_argument("--idle", type=float, default=20.0, help="seconds of idling that are measured (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    results = asyncio.run(measure(arguments.endpoints, arguments.policies, arguments.idle))
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    for what, figures in results.items():
        print(what)
        for name, value in figures.items():
            print(f"  {name:32} {value}")


if __name__ == "__main__":
    main()

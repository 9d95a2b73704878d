"""Explain, plan and verify on large fabrics: whole processes on an etcd of the benchmark's own, and the calculation by number of classes.

``mix`` of ``calc_workloads``, 100 endpoints on each host. Figures of processes are medians; memory is the largest that any of
the runs had resident. Baselines in the same run: Python that starts and does nothing, one that reads the store, and one that also decodes
what it reads. The curve is of one process for each size, without store: what a relation, a plan and 20 invariants cost beside the number
of classes that policy can tell apart, and of pairs of endpoints. Needs etcd.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from benchmarks.calc_workloads import mix, scaled
from benchmarks.etcd import own_etcd
from tabinet.model.keys import Key, ResourceKey, path_of
from tabinet.model.resources import WorkloadEndpoint
from tabinet.store.api import PutOp
from tabinet.store.open import StoreConfig, open_store

PER_HOST = 100
BATCH = 100
SIZES = ((10_000, 1_000), (100_000, 10_000))
CURVE = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Of 100,000 endpoints and 10,000 policies."""
EXIT_CODES = {"explain": (0, 1), "plan": (0, 10, 11), "verify": (0, 1), "baseline": (0,)}
READING = """
import asyncio, os
from tabinet.store.open import StoreConfig, open_store
async def read():
    store = await open_store(StoreConfig(endpoints=(os.environ["TABINET_STORE_ENDPOINTS"],)))
    async for page in store.list("/calico/"):
        for item in page.items:
            {work}
    await store.close()
asyncio.run(read())
"""
DECODING = "from tabinet.model.codec import decode_stored\n" + READING.format(work="decode_stored(item.key, item.value)")
Figures = dict[str, float]


def fabric(scale: float) -> Iterator[tuple[Key, object]]:
    """The resources of the workload, its endpoints spread over hosts."""
    endpoints = scaled(100_000, scale)
    hosts = max(1, endpoints // PER_HOST)
    for number, (key, value) in enumerate(mix(endpoints, scaled(10_000, scale), scaled(1_000, scale), scaled(500, scale))):
        if isinstance(value, WorkloadEndpoint):
            spec = msgspec.structs.replace(value.spec, node=f"host-{number % hosts}", pod=key.name if isinstance(key, ResourceKey) else "")
            value = msgspec.structs.replace(value, spec=spec)
        yield key, value


def policy() -> dict[str, object]:
    """One policy that opens something and closes something."""
    rule = {"action": "Allow", "protocol": "TCP", "source": {"selector": "tier == 'web'"}, "destination": {"ports": [8443]}}
    spec = {"selector": "app == 'app-3'", "order": 50, "types": ["Ingress"], "ingress": [rule]}
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "NetworkPolicy",
        "metadata": {"name": "planned", "namespace": "ns-1"},
        "spec": spec,
    }


def invariants() -> list[dict[str, object]]:
    """20 of all three forms."""
    found: list[dict[str, object]] = []
    for number in range(12):
        start, end = {"selector": f"app == 'app-{number}'"}, {"selector": f"tier == 'db' && app == 'app-{(number + 5) % 12}'"}
        found.append({"never": {"from": start, "to": end, "except": [{"protocol": "TCP", "ports": [80, 443, 8080]}]}})
    found += [{"never": {"from": {"outside": True}, "to": {"selector": f"pcns.team == 'team-{number}'"}}} for number in range(5)]
    for port in (53, 123):
        resolvers = {"nets": [f"192.0.{port}.0/24"]}
        packets = [{"protocol": "UDP", "ports": [port]}]
        found.append({"always": {"from": {"selector": "tier == 'cache'"}, "to": resolvers, "packets": packets}})
    found.append({"isolated": {"label": "version"}})
    return [
        {"apiVersion": "tabinet/v1", "kind": "Invariant", "metadata": {"name": f"i{number}"}, "spec": spec}
        for number, spec in enumerate(found)
    ]


async def fill(endpoint: str, scale: float) -> None:
    """The store holds the fabric."""
    store = await open_store(StoreConfig(endpoints=(endpoint,)))
    try:
        puts = []
        for key, value in fabric(scale):
            document = msgspec.to_builtins(value)
            if isinstance(key, ResourceKey):
                named = {"name": key.name, "namespace": key.namespace} if key.namespace else {"name": key.name}
                document["metadata"] = document.get("metadata", {}) | named
            puts.append(PutOp(path_of(key), msgspec.json.encode(document)))
        for start in range(0, len(puts), BATCH):
            await store.txn((), puts[start : start + BATCH])
    finally:
        await store.close()


def run(words: list[str], environment: dict[str, str], codes: tuple[int, ...]) -> tuple[float, float, float]:
    """Seconds, seconds of processor time, and megabytes of a process."""
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in codes:
        raise SystemExit(f"{' '.join(words)[:80]}: exit code {process.returncode}: {said.decode()[-500:]}")
    return time.perf_counter() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def measure_commands(scale: float, runs: int) -> Figures:
    """Whole processes on a store with the fabric."""
    figures: Figures = {}
    with own_etcd() as endpoint, tempfile.TemporaryDirectory() as name:
        asyncio.run(fill(endpoint, scale))
        change, file = Path(name) / "policy.json", Path(name) / "invariants.yaml"
        change.write_bytes(msgspec.json.encode(policy()))
        file.write_text("\n---\n".join(json.dumps(each) for each in invariants()))
        command = ["-m", "tabinet.cli.main"]
        commands = {
            "baseline: python -c pass": ["-c", "pass"],
            "baseline: read the store": ["-c", READING.format(work="pass")],
            "baseline: read and decode": ["-c", DECODING],
            "explain": [*command, "explain", "w5", "w77", "--port", "8080"],
            "plan of one policy": [*command, "plan", "-f", str(change)],
            "verify 20 invariants": [*command, "verify", "-f", str(file), "--json"],
        }
        environment = os.environ | {"TABINET_STORE_ENDPOINTS": endpoint}
        for what, words in commands.items():
            codes = EXIT_CODES[what.replace(":", "").split()[0]]
            taken = [run(words, environment, codes) for _ in range(runs)]
            figures[f"{what}, s"] = round(statistics.median(seconds for seconds, _, _ in taken), 3)
            figures[f"{what}, cpu s"] = round(statistics.median(seconds for _, seconds, _ in taken), 3)
            figures[f"{what}, MB"] = round(max(memory for _, _, memory in taken))
    return figures


def measure_calculation(scale: float) -> Figures:
    """The calculation alone, in this process."""
    from tabinet.analysis.plan import make_plan
    from tabinet.analysis.situation import calculate, relate
    from tabinet.analysis.verify import verify
    from tabinet.model.codec import decode_stored
    from tabinet.model.invariants import read_invariant
    from tabinet.rules.options import TableOptions

    gc.disable()  # as the commands do
    resources = {key: (value, 0) for key, value in fabric(scale)}
    marks = [time.perf_counter()]
    calculation = calculate(resources)
    marks.append(time.perf_counter())
    universe, (relation,) = relate([calculation.situation])
    boxes = len(relation.ingress) + len(relation.egress)
    marks.append(time.perf_counter())
    verify(calculation.situation, [read_invariant(each) for each in invariants()])
    marks.append(time.perf_counter())
    decoded = decode_stored(path_of(ResourceKey("NetworkPolicy", "planned", "ns-1")), msgspec.json.encode(policy()))
    assert decoded is not None
    make_plan(calculation, dict([decoded]), lambda _: TableOptions())
    marks.append(time.perf_counter())
    took = [round(after - before, 3) for before, after in itertools.pairwise(marks)]
    endpoints = scaled(100_000, scale)
    return {
        "endpoints": endpoints,
        "pairs": endpoints * (endpoints - 1),
        "classes": universe.size,
        "boxes": boxes,
        "calculation, s": took[0],
        "relation, s": took[1],
        "verify, s": took[2],
        "plan, s": took[3],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="of each command (default: %(default)s)")
    parser.add_argument("--scale", type=float, help="only this part of 100,000 endpoints and 10,000 policies")
    parser.add_argument("--curve-point", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--no-curve", action="store_true", help="only the commands")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    if arguments.curve_point:
        print(json.dumps(measure_calculation(arguments.curve_point)))
        return
    scales = [arguments.scale] if arguments.scale else [endpoints / 100_000 for endpoints, _ in SIZES]
    results = {f"{scaled(100_000, scale)} endpoints": measure_commands(scale, arguments.runs) for scale in scales}
    for scale in () if arguments.no_curve or arguments.scale else CURVE:
        point = subprocess.run([sys.executable, "-m", "benchmarks.analysis", "--curve-point", str(scale)], capture_output=True, check=True)
        results[f"calculation alone, {scaled(100_000, scale)} endpoints"] = json.loads(point.stdout)
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    for what, figures in results.items():
        print(what)
        for name, value in figures.items():
            print(f"  {name:32} {value}")


if __name__ == "__main__":
    main()

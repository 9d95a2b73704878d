"""How long the calculation takes: a snapshot of a large fabric on one of its hosts, and single changes after it.

Workloads (see ``calc_workloads``):

- ``tag250k``: 250,000 remote and 200 local endpoints, 10,000 policies ``has(marker)`` with five rules each, 100 namespaces.
- ``netset1k``, ``netset10k``: 10,200 endpoints; so many network sets (10,000 hold 1,118,000 nets), and a policy for everybody for each.
- ``isolated1k``, ``isolated10k``, ``isolated100k``: so many namespaces, policies and pods of 15 labels and 3 of the namespace; 100 local.
- ``mix``: 100,000 endpoints of which 100 local, 10,000 varied policies, 1,000 network sets, 500 namespaces.

``snapshot_s`` is everything from the first resource to the last message, ``table_s`` what the conversion of these messages to rules takes
on top. Single changes are told and flushed one by one: 50th and 99th percentile, in microseconds. ``memory_mb`` is by how much the process
grew, in a process of its own that keeps nothing but the graph. ``slice_*_ms`` is how long ``work`` took with ``--budget`` units.
What the calculation keeps is kept out of the garbage collector as the agent does it (``agent.keeper``). Times are CPU time: the calculation
never waits, and neighbours on the machine count less that way.

The baseline is the naive recomputation of the same workload at a small fraction of its size, in the same run; it also checks the result.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from random import Random

import msgspec

from benchmarks.calc_workloads import BASELINE_SCALE, ELSEWHERE, HOST, WORKLOADS, address
from tabinet.agent.calculation import SLICE_UNITS
from tabinet.agent.keeper import Keeper
from tabinet.calc.graph import Graph
from tabinet.calc.inputs import Input, InSync, Put
from tabinet.calc.messages import Update
from tabinet.calc.naive import recompute
from tabinet.calc.replica import Replica
from tabinet.model.keys import Key, ResourceKey
from tabinet.model.resources import (
    EntityRule,
    GlobalNetworkPolicy,
    NetworkPolicy,
    Profile,
    ProfileSpec,
    Rule,
    WorkloadEndpoint,
    WorkloadEndpointSpec,
)
from tabinet.rules.builder import TableBuilder

Figures = dict[str, float | int]


def measure(name: str, scale: float, budget: int) -> Figures:
    """Figures of one workload, without the baseline."""
    inputs = [Put(key, value, number) for number, (key, value) in enumerate(WORKLOADS[name](scale), 1)]
    gc.collect()
    gc.freeze()
    builder, keeper, graph = TableBuilder(), Keeper(), Graph(frozenset({HOST}))
    began = time.process_time()
    for item in inputs:
        graph.on_input(item)
        keeper.on_work(1)
    loaded = time.process_time()
    graph.on_input(InSync())
    slices = slices_of(graph, budget, keeper)
    told = graph.flush()
    done = time.process_time()
    for update in told:
        builder.on_update(update)
    builder.flush()
    converted = time.process_time()
    replica = replay(told)
    figures: Figures = {
        "inputs": len(inputs),
        "load_s": loaded - began,
        "settle_s": done - loaded,
        "snapshot_s": done - began,
        "table_s": converted - done,
        "slice_p99_ms": slices[len(slices) * 99 // 100] * 1e3,
        "slice_max_ms": slices[-1] * 1e3,
        "messages": len(told),
        "sets": len(replica.state.sets),
        "members": sum(len(members) for _, members in replica.state.sets.values()),
        "local_endpoints": len(replica.state.endpoints),
        "policies": len(replica.state.policies),
    }
    figures |= changes(graph, inputs, set(replica.state.policies))
    gc.unfreeze()
    return figures


def slices_of(graph: Graph, budget: int, keeper: Keeper) -> list[float]:
    """Seconds of each of the slices in which the graph settles, sorted."""
    slices: list[float] = []
    settled = False
    while not settled:
        began = time.process_time()
        settled = graph.work(budget)
        keeper.on_work(budget)
        slices.append(time.process_time() - began)
    return sorted(slices)


def replay(told: Iterable[Update]) -> Replica:
    replica = Replica()
    for update in told:
        replica.apply(update)
    return replica


# --- single changes -------------------------------------------------------------------------------------------------


def changes(graph: Graph, inputs: list[Put], active: set[ResourceKey]) -> Figures:
    """Percentiles of single changes."""
    random = Random(2)
    endpoints = [item for item in inputs if isinstance(item.value, WorkloadEndpoint)]
    remote = [item for item in endpoints if spec_of(item).node != HOST]
    policies = [item for item in inputs if isinstance(item.key, ResourceKey) and item.key in active]
    profiles = [item for item in inputs if isinstance(item.value, Profile)]

    def some(items: list[Put], count: int) -> list[Put]:
        return [random.choice(items) for _ in range(count)] if items else []

    figures: Figures = {}
    for name, items in (
        ("remote_label", [relabelled(item, random.choice(remote)) for item in some(remote, 2_000)]),
        ("remote_new", [copied(item, number, ELSEWHERE) for number, item in enumerate(some(remote, 1_000))]),
        ("local_new", [copied(item, number, HOST) for number, item in enumerate(some(remote, 200), 1_000)]),
        ("policy", [with_other_rules(item, number) for number, item in enumerate(some(policies, 300))]),
        ("namespace_label", [with_other_labels(item, number) for number, item in enumerate(some(profiles, 300))]),
    ):
        times = sorted(took_us(graph, item) for item in items)
        figures[f"{name}_p50_us"] = times[len(times) // 2]
        figures[f"{name}_p99_us"] = times[len(times) * 99 // 100]
    return figures


def took_us(graph: Graph, item: Input) -> float:
    began = time.process_time()
    graph.on_input(item)
    graph.flush()
    return (time.process_time() - began) * 1e6


def spec_of(item: Put) -> WorkloadEndpointSpec:
    value = item.value
    assert isinstance(value, WorkloadEndpoint)
    return value.spec


def relabelled(item: Put, other: Put) -> Put:
    """The endpoint with the labels of another one."""
    assert isinstance(other.value, WorkloadEndpoint)
    return Put(item.key, WorkloadEndpoint(metadata=other.value.metadata, spec=spec_of(item)), item.revision + 1)


def copied(item: Put, number: int, host: str) -> Put:
    """A new endpoint like this one, on that host."""
    assert isinstance(item.value, WorkloadEndpoint)
    assert isinstance(item.key, ResourceKey)
    nets = (f"{address(0x0C000001 + number)}/32",)
    spec = msgspec.structs.replace(spec_of(item), node=host, ip_networks=nets, interface_name=f"calin{number}")
    return Put(
        ResourceKey("WorkloadEndpoint", f"new-{number}", item.key.namespace), WorkloadEndpoint(metadata=item.value.metadata, spec=spec), 1
    )


def with_other_rules(item: Put, number: int) -> Put:
    """The policy with one rule more at the end, and the order of the others turned round."""
    value = item.value
    assert isinstance(value, NetworkPolicy | GlobalNetworkPolicy)
    more = Rule(action="Allow", protocol="TCP", source=EntityRule(nets=(f"{address(0xC0000200 + number)}/32",)))
    spec = msgspec.structs.replace(value.spec, ingress=(*reversed(value.spec.ingress), more))
    return Put(item.key, msgspec.structs.replace(value, spec=spec), item.revision + 1)


def with_other_labels(item: Put, number: int) -> Put:
    """The namespace with every label but its name changed, and one more."""
    value = item.value
    assert isinstance(value, Profile)
    labels = {key: text if key.endswith("/name") else f"{text}-{number % 2}" for key, text in value.spec.labels_to_apply.items()}
    spec = ProfileSpec(labels_to_apply=labels | {"pcns.changed": str(number)})
    return Put(item.key, Profile(metadata=value.metadata, spec=spec), item.revision + 1)


# --- memory and baseline --------------------------------------------------------------------------------------------


def resident_mb() -> float:
    """Resident memory of this process (proc(5))."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def grown_mb(name: str, scale: float) -> float:
    """By how much the process grows with a graph that has settled, when nothing else keeps the resources."""
    list(WORKLOADS[name](0.0))
    before = resident_mb()
    graph = Graph(frozenset({HOST}))
    for number, (key, value) in enumerate(WORKLOADS[name](scale), 1):
        graph.on_input(Put(key, value, number))
    graph.on_input(InSync())
    graph.flush()
    gc.collect()
    return resident_mb() - before


def memory(name: str, scale: float) -> Figures:
    """``grown_mb`` of a fresh process."""
    program = f"from benchmarks.calc import grown_mb; print(grown_mb({name!r}, {scale!r}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=600)
    return {"memory_mb": float(done.stdout)}


def baseline(name: str) -> Figures:
    """The naive recomputation of a small fabric, and the graph of the same.

    Raises:
        SystemExit: they disagree.
    """
    resources: dict[Key, tuple[object, int]] = {key: (value, n) for n, (key, value) in enumerate(WORKLOADS[name](BASELINE_SCALE[name]), 1)}
    began = time.process_time()
    expected = recompute(resources, frozenset({HOST}))
    naive = time.process_time()
    graph = Graph(frozenset({HOST}))
    for key, (value, revision) in resources.items():
        graph.on_input(Put(key, value, revision))
    graph.on_input(InSync())
    told = graph.flush()
    incremental = time.process_time()
    if replay(told).state != expected:
        raise SystemExit("the graph and the naive recomputation disagree")
    return {"baseline_inputs": len(resources), "baseline_naive_s": naive - began, "baseline_graph_s": incremental - naive}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"{', '.join(WORKLOADS)}; all when none is given")
    parser.add_argument("--scale", type=float, default=1.0, help="a fraction of the full size (default: %(default)s)")
    parser.add_argument("--budget", type=int, default=SLICE_UNITS, help="units of one slice of work (default: %(default)s, as the agent)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    chosen = arguments.workloads or list(WORKLOADS)
    unknown = [name for name in chosen if name not in WORKLOADS]
    if unknown:
        parser.error(f"no workload {unknown[0]!r}; there are {', '.join(WORKLOADS)}")
    results: dict[str, Figures] = {}
    for name in chosen:
        results[name] = measure(name, arguments.scale, arguments.budget) | memory(name, arguments.scale) | baseline(name)
        if not arguments.json:
            print(name)
            for figure, value in results[name].items():
                print(f"  {figure:22} {value:12.3f}" if isinstance(value, float) else f"  {figure:22} {value:12}")
    if arguments.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()

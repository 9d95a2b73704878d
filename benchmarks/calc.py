"""How long the calculation takes: a snapshot of a large fabric on one of its hosts, and single changes after it.

Workloads:

- ``mix``: 100,000 endpoints in 500 namespaces, 10,000 network policies, 1,000 network sets; the host has 50 endpoints.
- ``isolated10k``: 100,000 endpoints of 10,000 customers, each with a security group of its own (``has(sg/...)``) that lets in only itself.

The baseline is the naive recomputation of the same workload at a fiftieth of the size, in the same run; it also checks the result.
Times are seconds of CPU (the calculation never waits, and neighbours on the machine count less that way), or microseconds where
a name ends in ``_us``; single changes are medians, each with its flush.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator
from random import Random

from tabinet.calc.graph import Graph
from tabinet.calc.inputs import Delete, InSync, Put
from tabinet.calc.naive import recompute
from tabinet.calc.replica import Replica
from tabinet.model.keys import Key, ResourceKey
from tabinet.model.resources import (
    EntityRule,
    GlobalNetworkSet,
    Metadata,
    NetworkPolicy,
    NetworkPolicySpec,
    NetworkSetSpec,
    Profile,
    ProfileSpec,
    Rule,
    WorkloadEndpoint,
    WorkloadEndpointSpec,
)

Item = tuple[Key, object]
HOST = "host-0"


def address(number: int) -> str:
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}/32"


def endpoint(number: int, host: str, namespace: str, labels: dict[str, str], profiles: tuple[str, ...] = ()) -> Item:
    spec = WorkloadEndpointSpec(
        node=host,
        orchestrator="k8s",
        ip_networks=(address(number),),
        interface_name=f"cali{number}",
        profiles=profiles,
    )
    return ResourceKey("WorkloadEndpoint", f"w{number}", namespace), WorkloadEndpoint(metadata=Metadata(labels=labels), spec=spec)


def policy(name: str, namespace: str, selector: str, source: str) -> Item:
    rule = Rule(action="Allow", protocol="TCP", source=EntityRule(selector=source))
    spec = NetworkPolicySpec(selector=selector, ingress=(rule,))
    return ResourceKey("NetworkPolicy", name, namespace), NetworkPolicy(spec=spec)


def mix(scale: float) -> Iterator[Item]:
    random = Random(1)
    count, namespaces = int(100_000 * scale), max(1, int(500 * scale))
    hosts = max(1, count // 50)
    for number in range(namespaces):
        labels = {"pcns.team": f"team-{number % 40}", "pcns.env": ("prod", "dev", "stage")[number % 3]}
        yield ResourceKey("Profile", f"kns.ns-{number}"), Profile(spec=ProfileSpec(labels_to_apply=labels))
    for number in range(count):
        space = number % namespaces
        labels = {
            "app": f"app-{random.randrange(12)}",
            "tier": random.choice(("web", "api", "db", "cache")),
            "version": f"v{random.randrange(3)}",
            "release": f"rel-{space % 50}",
            "pod": f"pod-{number}",
        }
        yield endpoint(number, f"host-{number % hosts}", f"ns-{space}", labels, (f"kns.ns-{space}",))
    for number in range(int(10_000 * scale)):
        app, other = random.randrange(12), random.randrange(12)
        yield policy(f"p{number}", f"ns-{number % namespaces}", f"app == 'app-{app}'", f"app == 'app-{other}' || tier == 'api'")
    for number in range(int(1_000 * scale)):
        nets = tuple(f"192.{number >> 8}.{number & 255}.{net}/32" for net in range(20))
        yield (
            ResourceKey("GlobalNetworkSet", f"s{number}"),
            GlobalNetworkSet(metadata=Metadata(labels={"feed": f"f{number % 50}"}), spec=NetworkSetSpec(nets=nets)),
        )


def isolated(scale: float) -> Iterator[Item]:
    count, customers = int(100_000 * scale), int(10_000 * scale)
    hosts = max(1, count // 50)
    for number in range(count):
        customer = number % customers
        labels = {f"sg/{customer}": "", "project": f"project-{customer}", "network": f"net-{customer}"}
        yield endpoint(number, f"host-{number * 7 % hosts}", "openstack", labels)
    for customer in range(customers):
        yield policy(f"sg-{customer}", "openstack", f"has(sg/{customer})", f"has(sg/{customer})")


WORKLOADS: dict[str, Callable[[float], Iterator[Item]]] = {"mix": mix, "isolated10k": isolated}


def measure(name: str, scale: float) -> dict[str, float]:
    """Figures of one workload."""
    make = WORKLOADS[name]
    inputs = [Put(key, value, number) for number, (key, value) in enumerate(make(scale), 1)]
    gc.collect()
    gc.freeze()
    graph = Graph(frozenset({HOST}))
    began = time.process_time()
    for item in inputs:
        graph.on_input(item)
    loaded = time.process_time()
    graph.on_input(InSync())
    told = graph.flush()
    done = time.process_time()
    replica = Replica()
    for update in told:
        replica.apply(update)
    figures = {
        "inputs": len(inputs),
        "load_s": loaded - began,
        "settle_s": done - loaded,
        "snapshot_s": done - began,
        "messages": len(told),
        "sets": len(replica.state.sets),
        "members": sum(len(members) for _, members in replica.state.sets.values()),
        "local_endpoints": len(replica.state.endpoints),
    }
    figures |= changes(graph, [item for item in inputs if isinstance(item.value, WorkloadEndpoint)], inputs)
    gc.unfreeze()
    return figures | baseline(make)


def changes(graph: Graph, endpoints: list[Put], inputs: list[Put]) -> dict[str, float]:
    """Medians of single changes, each told to the graph and flushed."""
    random = Random(2)
    remote = [item for item in endpoints if item.value.spec.node != HOST]  # type: ignore[attr-defined]  # an endpoint
    local = [item for item in endpoints if item.value.spec.node == HOST]  # type: ignore[attr-defined]  # an endpoint
    policies = [item for item in inputs if isinstance(item.value, NetworkPolicy)]
    return {
        "remote_label_us": median_us(graph, [relabelled(item, random) for item in random.sample(remote, min(2_000, len(remote)))]),
        "local_label_us": median_us(graph, [relabelled(item, random) for item in local * 4]),
        "local_delete_us": median_us(graph, [Delete(item.key) for item in local]),
        "local_add_us": median_us(graph, local),
        "local_move_in_us": median_us(graph, [moved(item) for item in random.sample(remote, min(200, len(remote)))]),
        "policy_delete_us": median_us(graph, [Delete(item.key) for item in random.sample(policies, min(500, len(policies)))]),
    }


def relabelled(item: Put, random: Random) -> Put:
    value = item.value
    assert isinstance(value, WorkloadEndpoint)
    labels = value.metadata.labels | {"app": f"app-{random.randrange(12)}", "tier": random.choice(("web", "api", "db"))}
    return Put(item.key, WorkloadEndpoint(metadata=Metadata(labels=labels), spec=value.spec), item.revision + 1)


def moved(item: Put) -> Put:
    """The endpoint on our host: what a new workload costs, with all the sets that it brings into use."""
    value = item.value
    assert isinstance(value, WorkloadEndpoint)
    fields = {name: getattr(value.spec, name) for name in value.spec.__struct_fields__} | {"node": HOST}
    return Put(item.key, WorkloadEndpoint(metadata=value.metadata, spec=WorkloadEndpointSpec(**fields)), item.revision + 1)


def median_us(graph: Graph, items: list[Put] | list[Delete]) -> float:
    times = []
    for item in items:
        began = time.process_time()
        graph.on_input(item)
        graph.flush()
        times.append((time.process_time() - began) * 1e6)
    return statistics.median(times) if times else 0.0


def baseline(make: Callable[[float], Iterator[Item]]) -> dict[str, float]:
    """The naive recomputation at a fiftieth of the size, and the graph at the same size."""
    resources: dict[Key, tuple[object, int]] = {key: (value, number) for number, (key, value) in enumerate(make(0.02), 1)}
    began = time.process_time()
    expected = recompute(resources, frozenset({HOST}))
    naive = time.process_time()
    graph, replica = Graph(frozenset({HOST})), Replica()
    for key, (value, revision) in resources.items():
        graph.on_input(Put(key, value, revision))
    graph.on_input(InSync())
    told = graph.flush()
    incremental = time.process_time()
    for update in told:
        replica.apply(update)
    if replica.state != expected:
        raise SystemExit("the graph and the naive recomputation disagree")
    return {"baseline_naive_s": naive - began, "baseline_graph_s": incremental - naive}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"{', '.join(WORKLOADS)}; all when none is given")
    parser.add_argument("--scale", type=float, default=1.0, help="a fraction of the full size (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    chosen = arguments.workloads or list(WORKLOADS)
    unknown = [name for name in chosen if name not in WORKLOADS]
    if unknown:
        parser.error(f"no workload {unknown[0]!r}; there are {', '.join(WORKLOADS)}")
    results = {name: measure(name, arguments.scale) for name in chosen}
    if arguments.json:
        print(json.dumps(results))
        return
    for name, figures in results.items():
        print(name)
        for figure, value in figures.items():
            print(f"  {figure:20} {value:12.3f}" if isinstance(value, float) else f"  {figure:20} {value:12}")


if __name__ == "__main__":
    main()

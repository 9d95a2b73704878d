"""What users of a fabric wait for, measured with packets in a lab of its own (the example ``clos``, under another name).

- ``attach``: from the beginning of an attachment on one rack until a workload on the other rack reaches it.
- ``deny``, ``allow``: from the beginning of the write of a policy until running flows between all hosts are ended, or pass.
- ``carrier``, ``silent``, ``agent``, ``bird``: what a cut link and planned restarts cost running flows, in ms of traffic of the worst flow.

The baselines in the same run: ``ping``, the round trip between the two workloads, and ``store``, one write to etcd and back by a watch.
All in milliseconds; medians of ``--runs``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import msgspec

from tabinet.attach.names import Workload
from tabinet.attach.netns import AttachRequest, attach, detach
from tabinet.attach.network import LinuxNetwork
from tabinet.kernel import netns
from tabinet.lab.expectation import Target
from tabinet.lab.lab import FLOW_PORT, Lab, lab_down
from tabinet.lab.load import load_topology
from tabinet.lab.measure import allowed_after_ms, cost_of, denied_after_ms, flows_between
from tabinet.lab.plan import namespace_of
from tabinet.lab.probe.client import ProbeSpec, run_probes, start_prober
from tabinet.lab.traffic import FlowSpec
from tabinet.lab.up import lab_up
from tabinet.lib.ip import Prefix
from tabinet.model.keys import ResourceKey
from tabinet.store.api import Datastore, PutOp
from tabinet.store.client import ResourceClient

CLOS = Path(__file__).parents[1] / "examples" / "labs" / "clos.yaml"
NAME = "bench"
HOST, NEIGHBOUR, FAR = "host11", "web1", "web3"
"""A workload is attached to HOST, where NEIGHBOUR lives; FAR is on the other rack."""
PAIRS = (("web1", "app3"), ("web3", "app1"), ("web2", "app4"), ("web4", "app2"))
UPLINK_PAIRS = (("web1", "app3"), ("web1", "app4"), ("web3", "app1"), ("web4", "app1"))
"""Flows from and to HOST, so that some of them take the link that is cut."""
UPLINK = "tor11:host11"
DENY = {
    "apiVersion": "projectcalico.org/v3",
    "kind": "GlobalNetworkPolicy",
    "metadata": {"name": "bench"},
    "spec": {"order": 1, "selector": "app == 'app'", "types": ["Ingress"], "ingress": [{"action": "Deny"}]},
}

Figures = dict[str, float]


def summarize(samples: list[float]) -> Figures:
    """Median, worst and number of samples."""
    return {"median": round(statistics.median(samples), 2), "worst": round(max(samples), 2), "runs": len(samples)}


async def measure_attach(lab: Lab, store: Datastore, runs: int) -> dict[str, Figures]:
    """A namespace is attached with addresses that are known beforehand, while FAR sends to them."""
    targets = {target.name: target for target in await lab.targets()}
    addresses = tuple(Prefix(a.family, (a.value | 63) - 5, a.bits) for a in targets[NEIGHBOUR].addresses)
    reached: list[float] = []
    took: list[float] = []
    for run in range(runs):
        namespace = namespace_of(lab.name, f"bench{run}")
        request = AttachRequest(
            workload=Workload(node=HOST, workload=f"bench{run}", orchestrator="lab", namespace="shop"),
            netns=namespace,
            count4=1,
            count6=1,
            addresses=addresses,
            labels={"app": "app"},
            profiles=("shop",),
        )
        network = LinuxNetwork(namespace_of(lab.name, HOST))
        netns.create(namespace)
        try:

            async def change(request: AttachRequest = request, network: LinuxNetwork = network) -> None:
                begin = time.monotonic()
                await attach(request, store, network=network)
                took.append((time.monotonic() - begin) * 1000)

            flows = [flow_to(targets[FAR], namespace, address) for address in addresses]
            reached.append(await allowed_after_ms(flows, change))
            await detach(request.workload, store, network=network)
        finally:
            netns.delete(namespace)
    return {"attach: reached from the other rack": summarize(reached), "attach: call": summarize(took)}


def flow_to(source: Target, namespace: str, address: Prefix) -> FlowSpec:
    """A flow from a workload to an address that will be in the namespace."""
    return FlowSpec(
        source=source.name,
        source_namespace=source.namespace,
        destination="bench",
        destination_namespace=namespace,
        family=address.family,
        address=address.address,
        port=FLOW_PORT,
    )


async def measure_policy(lab: Lab, store: Datastore, runs: int) -> dict[str, Figures]:
    """One policy that denies flows between all hosts comes and goes."""
    client = ResourceClient(store)
    flows = await flows_between(lab, PAIRS)

    async def deny() -> None:
        await client.apply(DENY)

    async def allow() -> None:
        await client.delete(ResourceKey("GlobalNetworkPolicy", "bench"))

    denied, allowed = [], []
    for _ in range(runs):
        denied.append(await denied_after_ms(flows, deny))
        allowed.append(await allowed_after_ms(flows, allow))
    return {"policy: deny enforced on all hosts": summarize(denied), "policy: allow enforced on all hosts": summarize(allowed)}


async def measure_failures(lab: Lab, runs: int) -> dict[str, Figures]:
    """What events cost the worst of the flows."""
    flows = await flows_between(lab, UPLINK_PAIRS)
    events: dict[str, Callable[[], Awaitable[object]]] = {
        "lost: link cut, carrier": lambda: lab.cut(UPLINK),
        "lost: link cut, silent": lambda: lab.cut(UPLINK, silent=True),
        "lost: agent restarted": lambda: lab.restart(HOST, "agent"),
        "lost: BIRD restarted": lambda: lab.restart(HOST, "bird"),
    }
    lost: dict[str, list[float]] = {what: [] for what in events}
    for _ in range(runs):
        for what, event in events.items():
            lost[what].append((await cost_of(flows, event)).worst_ms)
            if lab.state().faults:
                await lab.heal(UPLINK)
            await lab.wait_converged()
    return {what: summarize(samples) for what, samples in lost.items()}


async def measure_baselines(lab: Lab, store: Datastore, runs: int) -> dict[str, Figures]:
    """The round trip between the workloads, and a write to etcd seen by a watch."""
    targets = {target.name: target for target in await lab.targets()}
    prober = await start_prober(targets[NEIGHBOUR].namespace, NEIGHBOUR, (), ())
    try:
        probe = ProbeSpec(4, "icmp", targets[FAR].addresses[0].address, 0)
        trips = [(await run_probes(prober, [probe], 1000))[0].took_ms for _ in range(runs)]
    finally:
        await prober.close()
    waits = []
    async with aclosing(store.watch("/tabinet/bench/", (await store.txn((), ())).revision)) as changes:
        await anext(changes)
        for run in range(runs):
            begin = time.monotonic()
            await store.txn((), (PutOp("/tabinet/bench/key", str(run).encode()),))
            await anext(changes)
            waits.append((time.monotonic() - begin) * 1000)
    return {"baseline: ping to the other rack": summarize(trips), "baseline: store write seen by a watch": summarize(waits)}


async def measure(runs: int, failures: int) -> dict[str, Figures]:
    """All figures, in a lab of its own, which is removed afterwards."""
    loaded = load_topology(CLOS)
    topology = msgspec.structs.replace(loaded.topology, name=NAME)
    begin = time.monotonic()
    await lab_down(NAME)
    lab = await lab_up(msgspec.structs.replace(loaded, topology=topology), progress=lambda step: print(step, file=sys.stderr))
    results: dict[str, Figures] = {"lab up": summarize([(time.monotonic() - begin) * 1000])}
    try:
        async with lab.store() as store:
            results |= await measure_baselines(lab, store, runs)
            results |= await measure_attach(lab, store, runs)
            results |= await measure_policy(lab, store, runs)
            results |= await measure_failures(lab, failures)
        begin = time.monotonic()
    finally:
        await lab_down(NAME)
    results["lab down"] = summarize([(time.monotonic() - begin) * 1000])
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, help="of attachments and policies (default: %(default)s)")
    parser.add_argument("--failures", type=int, default=3, help="of each failure (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    results = asyncio.run(measure(arguments.runs, arguments.failures))
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    for what, figures in results.items():
        print(f"{what:40} median {figures['median']:9.1f} ms   worst {figures['worst']:9.1f} ms   of {figures['runs']}")


if __name__ == "__main__":
    main()

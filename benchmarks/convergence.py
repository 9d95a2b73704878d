"""What failures and planned restarts cost, measured with packets: traffic of the worst flow lost, in ms at 1,000 packets/s.

Each row of events is measured in a lab of its own: the example ``clos`` with BFD at 100 ms x 3, once with FRR and once with BIRD as
top-of-rack routers. After each event everything is repaired, and the next one begins when every host and router has the routes again that
it had at first, and every session its BFD.

- ``carrier``, ``silent``: one of a host's two uplinks is cut, with or without a loss of carrier.
- ``host dies``: everything of a host falls silent and is killed; how long until an address that another host has too answers from there.
- ``agent``, ``BIRD``, ``both``: planned restarts on a host; ``killed``: its BIRD is killed and started again.

The baseline in the same run is ``nothing``: the same traffic, and no event. Medians of 10 failures and 5 restarts; 7 minutes for each kind
of router.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from benchmarks.fabric import CLOS, Figures, flow_to, summarize
from tabinet.bgp.control import BirdControl
from tabinet.errors import BirdError, LabError
from tabinet.lab.build import run
from tabinet.lab.kinds.namespace import identity_of
from tabinet.lab.lab import Lab, lab_down
from tabinet.lab.launches import BIRD, components_of
from tabinet.lab.load import LoadedTopology, load_topology
from tabinet.lab.measure import allowed_after_ms, cost_of, flows_between
from tabinet.lab.plan import NodeKind, namespace_of
from tabinet.lab.topology import Bfd
from tabinet.lab.traffic import FlowSpec
from tabinet.lab.up import lab_up
from tabinet.lib.ip import parse_address
from tabinet.store.client import ResourceClient

NAME = "converge"
BFD = Bfd(interval_ms=100, multiplier=3)
HOST = "host11"
UPLINKS = ("tor11:host11", "tor12:host11")
PAIRS = (("web1", "app3"), ("web3", "app1")) * 3
"""Flows from and to HOST, so many that in both directions some take the link that is cut."""
ANYCAST = "10.65.200.1"
MEMBER, ELSEWHERE, ASKING = "web1", "web3", "app2"
"""MEMBER and ELSEWHERE have the anycast address; ASKING is in the rack of MEMBER, so it asks there as long as it can."""
ASKED = 4
"""Flows to the anycast address."""
REPAIRED_WITHIN_S = 60.0
ANSWERED_WITHIN_S = 3.0
RECOVERED_S = 8.0
"""After a start BIRD compares what it has learned with the kernel's routes 6 s later: what goes wrong then counts."""
CUT_S = 1.5

Routes = dict[str, frozenset[tuple[str, tuple[str, ...]]]]


def topology_with(software: str) -> LoadedTopology:
    """The example with these top-of-rack routers."""
    loaded = load_topology(CLOS)
    routers = tuple(
        msgspec.structs.replace(router, software=software) if router.role == "tor" else router for router in loaded.topology.routers
    )
    topology = msgspec.structs.replace(loaded.topology, name=NAME, bfd=BFD, routers=routers)
    return msgspec.structs.replace(loaded, topology=topology)


@dataclass(slots=True)
class Bench:
    """A lab that is broken and repaired."""

    lab: Lab
    at_first: Routes

    async def lost(self, event: Callable[[], Awaitable[object]], after_s: float, runs: int) -> Figures:
        """What the event costs the worst flow; repaired after each run."""
        flows = await flows_between(self.lab, PAIRS)
        samples = []
        for _ in range(runs):
            samples.append((await cost_of(flows, event, after_s=after_s)).worst_ms)
            await self.repair()
        return summarize(samples)

    async def answered(self, runs: int) -> Figures:
        """How long after the host's death ELSEWHERE gets what is sent to the anycast address."""
        targets = {target.name: target for target in await self.lab.targets()}
        flow = flow_to(targets[ASKING], namespace_of(self.lab.name, ELSEWHERE), parse_address(ANYCAST))
        flows: list[FlowSpec] = [flow] * ASKED
        samples = []
        for _ in range(runs):
            samples.append(await allowed_after_ms(flows, self.die, within_s=ANSWERED_WITHIN_S))
            await self.repair()
        return summarize(samples)

    async def die(self) -> None:
        """The host is gone without a word: first its links, so that nobody hears its programs' connections being closed."""
        for uplink in UPLINKS:
            await self.lab.cut(uplink, silent=True)
        for component in (BIRD, "agent"):
            await self.lab.stop(HOST, component, kill_it=True)

    async def restart_both(self) -> None:
        """Agent and BIRD are away at the same time."""
        await self.lab.stop(HOST, "agent")
        await self.lab.restart(HOST, BIRD)
        await self.lab.start(HOST, "agent")

    async def repair(self) -> None:
        """Everything is as it was at first.

        Raises:
            LabError: not in time.
        """
        for fault in self.lab.state().faults:
            await self.lab.heal(fault.cable)
        for component in (BIRD, "agent"):
            await self.lab.start(HOST, component)
        deadline = time.monotonic() + REPAIRED_WITHIN_S
        while objection := await asyncio.to_thread(self.objection):
            if time.monotonic() > deadline:
                raise LabError(f"not repaired after {REPAIRED_WITHIN_S:g} s: {objection}")
            await asyncio.sleep(0.1)

    def objection(self) -> str:
        """What is not as it was at first; empty when everything is."""
        for node, routes in routes_of(self.lab).items():
            if different := routes ^ self.at_first[node]:
                return f"{node}: {sorted(different)[:3]}"
        for host in self.lab.plan.hosts:
            (socket,) = [each.socket for each in components_of(self.lab.plan, self.lab.directory, host.name) if each.name == BIRD]
            try:
                sessions = BirdControl(self.lab.directory.path / socket).sessions()
            except BirdError as error:
                return str(error)
            if down := [session.peer for session in sessions if session.bfd != "Up"]:
                return f"{host.name}: no BFD with {', '.join(down)}"
        return ""


def routes_of(lab: Lab) -> Routes:
    """Learned routes and their next hops in the kernels of all hosts and routers."""
    found = {}
    for node in lab.plan.nodes:
        if node.kind not in (NodeKind.HOST, NodeKind.ROUTER):
            continue
        routes = []
        for family in ("-4", "-6"):
            for protocol in ("bird", "bgp"):
                argv = ["ip", "-n", node.namespace, "-j", family, "route", "show", "proto", protocol]
                text = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
                for route in json.loads(text or "[]"):
                    hops = (hop.get("dev", "") for hop in route.get("nexthops", [route]) if "linkdown" not in hop.get("flags", ()))
                    routes.append((str(route["dst"]), tuple(sorted(hops))))
        found[node.name] = frozenset(routes)
    return found


async def share_address(lab: Lab) -> None:
    """MEMBER and ELSEWHERE have the anycast address, and the fabric knows it."""
    by_name = {workload.name: workload for workload in lab.plan.topology.workloads}
    async with lab.store() as store:
        client = ResourceClient(store)
        for name in (MEMBER, ELSEWHERE):
            document = await client.get(identity_of(by_name[name]).key)
            document["spec"]["ipNetworks"].append(f"{ANYCAST}/32")
            await client.apply(document)
            await run(["ip", "-n", namespace_of(lab.name, name), "addr", "add", f"{ANYCAST}/32", "dev", "lo"])
    far = namespace_of(lab.name, "host22")
    deadline = time.monotonic() + REPAIRED_WITHIN_S
    while not await run(["ip", "-n", far, "route", "show", ANYCAST]):
        if time.monotonic() > deadline:
            raise LabError(f"host22 has no route to {ANYCAST}")
        await asyncio.sleep(0.05)


async def settled_routes(lab: Lab) -> Routes:
    """The routes, once they have been the same for a second."""
    before, since = await asyncio.to_thread(routes_of, lab), time.monotonic()
    while time.monotonic() - since < 1.0:
        await asyncio.sleep(0.2)
        now = await asyncio.to_thread(routes_of, lab)
        if now != before:
            before, since = now, time.monotonic()
    return before


async def nothing() -> None:
    """No event."""


async def measure_with(software: str, runs: int, restarts: int, chosen: list[str]) -> dict[str, Figures]:
    """All events with these top-of-rack routers."""
    await lab_down(NAME)
    lab = await lab_up(topology_with(software), progress=lambda step: print(f"{software}: {step}", file=sys.stderr))
    results: dict[str, Figures] = {}
    try:
        await share_address(lab)
        bench = Bench(lab, await settled_routes(lab))
        await bench.repair()
        losses: dict[str, tuple[Callable[[], Awaitable[object]], float, int]] = {
            "nothing": (nothing, CUT_S, restarts),
            "carrier": (lambda: lab.cut(UPLINKS[0]), CUT_S, runs),
            "silent": (lambda: lab.cut(UPLINKS[0], silent=True), CUT_S, runs),
            "agent restarted": (lambda: lab.restart(HOST, "agent"), CUT_S, restarts),
            "BIRD restarted": (lambda: lab.restart(HOST, BIRD), RECOVERED_S, restarts),
            "both restarted": (bench.restart_both, RECOVERED_S, restarts),
            "BIRD killed": (lambda: lab.restart(HOST, BIRD, kill_it=True), RECOVERED_S, restarts),
        }
        for what, (event, after_s, times) in losses.items():
            if not chosen or what in chosen:
                print(f"{software}: {what}", file=sys.stderr)
                results[what] = await bench.lost(event, after_s, times)
        if not chosen or "host dies" in chosen:
            print(f"{software}: host dies", file=sys.stderr)
            results["host dies"] = await bench.answered(runs)
    finally:
        await lab_down(NAME)
    return {f"{software}: {what}": figures for what, figures in results.items()}


async def measure(runs: int, restarts: int, kinds: list[str], chosen: list[str]) -> dict[str, Figures]:
    """The events in each kind of fabric."""
    results: dict[str, Figures] = {}
    for software in kinds:
        results |= await measure_with(software, runs, restarts, chosen)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10, help="of each failure (default: %(default)s)")
    parser.add_argument("--restarts", type=int, default=5, help="of each restart (default: %(default)s)")
    parser.add_argument("--routers", choices=("frr", "bird"), action="append", help="of the top of the racks (default: both)")
    parser.add_argument("--event", action="append", default=[], help="only this one, by its name in the output; can be given several times")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    results = asyncio.run(measure(arguments.runs, arguments.restarts, arguments.routers or ["frr", "bird"], arguments.event))
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    for what, figures in results.items():
        print(f"{what:28} median {figures['median']:9.1f} ms   worst {figures['worst']:9.1f} ms   of {figures['runs']}")


if __name__ == "__main__":
    main()

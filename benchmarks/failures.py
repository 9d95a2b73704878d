"""Every failure and every repair, in every example topology, against the lab's check: packets do what policy says, in both families.

For each ``examples/labs/*.yaml`` a lab of its own. One after the other: a link between a host and the fabric is cut, with a loss of carrier
and silently, a link between routers as well, a router of each kind is killed, a host's agent is killed, a host's BIRD is killed. After each
failure and after each repair the check is made until it finds nothing; the figures are how long that took, in ms, and how many mismatches
were left when time was over: none is the aim. Pairs of workloads whose hosts the failure parts from each other are left out meanwhile.

The baseline is how long one check takes on the lab as it is. About 4 minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec

from tabinet.lab.lab import ROUTER, Lab, lab_down
from tabinet.lab.launches import AGENT, BIRD, components_of
from tabinet.lab.load import load_topology
from tabinet.lab.plan import MANAGEMENT, NodeKind
from tabinet.lab.up import lab_up

EXAMPLES = Path(__file__).parents[1] / "examples" / "labs"
NAME = "failures"
WELL_WITHIN_S = 30.0


class Outcome(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What the check said after a failure or a repair."""

    took_ms: float
    """From the event until the end of the check that found nothing, or until time was over."""
    checks: int
    probes: int
    parted: int
    """Mismatches of pairs that nothing connects any more: these are as they should be."""
    mismatches: int
    details: tuple[str, ...] = ()


class Failure(msgspec.Struct, frozen=True):
    """Something that breaks and is repaired."""

    what: str
    break_it: Callable[[Lab], Awaitable[object]]
    repair: Callable[[Lab], Awaitable[object]]
    without: frozenset[str] = frozenset()
    """Nodes and cables that carry nothing meanwhile."""


def cut(cable: str, *, silent: bool) -> Failure:
    """A cable carries nothing."""
    return Failure(
        f"{cable} cut{', silently' if silent else ''}",
        lambda lab: lab.cut(cable, silent=silent),
        lambda lab: lab.heal(cable),
        frozenset({cable}),
    )


def kill(node: str, component: str) -> Failure:
    """A program is killed, and started later. Of hosts the kernel goes on; a router is avoided by its neighbours."""
    return Failure(
        f"{component} of {node} killed",
        lambda lab: lab.stop(node, component, kill_it=True),
        lambda lab: lab.start(node, component),
        frozenset({node}) if component == ROUTER else frozenset(),
    )


def failures(lab: Lab) -> Iterator[Failure]:
    """One of each kind that the topology has."""
    kinds = {node.name: node.kind for node in lab.plan.nodes}
    cables = [cable for cable in lab.plan.cables if MANAGEMENT not in (cable.a.node, cable.b.node)]
    for wanted in ({NodeKind.ROUTER, NodeKind.HOST}, {NodeKind.ROUTER}, {NodeKind.SEGMENT, NodeKind.HOST}):
        found = [cable.name for cable in cables if {kinds[cable.a.node], kinds[cable.b.node]} == wanted]
        for name in found[:1]:
            yield cut(name, silent=False)
            yield cut(name, silent=True)
    speaking = [router for router in lab.plan.topology.routers if components_of(lab.plan, lab.directory, router.name)]
    roles = {(router.role, router.software): router.name for router in reversed(speaking)}
    yield from (kill(name, ROUTER) for name in roles.values())
    reflectors = [host.name for host in lab.plan.topology.hosts if host.reflector]
    host = lab.plan.topology.workloads[0].host
    for name in (*reflectors[:1], host):
        yield kill(name, BIRD)
    yield kill(host, AGENT)


def parted(lab: Lab, without: frozenset[str]) -> Callable[[str, str], bool]:
    """Tells whether two workloads, or a workload and a host, have no way to each other: hosts are no transit."""
    hosts = {host.name for host in lab.plan.hosts}
    ways: dict[str, set[str]] = {}
    for cable in lab.plan.cables:
        if MANAGEMENT not in (cable.a.node, cable.b.node) and not {cable.name, cable.a.node, cable.b.node} & without:
            ways.setdefault(cable.a.node, set()).add(cable.b.node)
            ways.setdefault(cable.b.node, set()).add(cable.a.node)
    reached = {}
    for host in hosts:
        known, open_nodes = {host}, [host]
        while open_nodes:
            node = open_nodes.pop()
            if node == host or node not in hosts:
                new = ways.get(node, set()) - known
                known |= new
                open_nodes += new
        reached[host] = known
    where = {host: host for host in hosts} | {workload.name: workload.host for workload in lab.plan.topology.workloads}
    return lambda source, destination: where[destination] not in reached[where[source]]


async def until_well(lab: Lab, without: frozenset[str]) -> Outcome:
    """The check is made until it finds nothing that should not be."""
    begin = time.monotonic()
    no_way = parted(lab, without)
    checks = 0
    while True:
        checks += 1
        report = await lab.check()
        wrong = [detail for detail in report.details if not no_way(detail.source, detail.destination)]
        if not wrong or time.monotonic() > begin + WELL_WITHIN_S:
            return Outcome(
                took_ms=round((time.monotonic() - begin) * 1000),
                checks=checks,
                probes=report.probes,
                parted=len(report.details) - len(wrong),
                mismatches=len(wrong),
                details=tuple(f"{each.source} to {each.destination} {each.family}: {each.seen}" for each in wrong[:3]),
            )


async def measure_lab(example: Path, chosen: str) -> dict[str, Outcome]:
    """All failures of one topology."""
    loaded = load_topology(example)
    topology = msgspec.structs.replace(loaded.topology, name=NAME)
    await lab_down(NAME)
    lab = await lab_up(msgspec.structs.replace(loaded, topology=topology))
    results = {}
    try:
        results[f"{example.stem}: baseline: as it is"] = await until_well(lab, frozenset())
        for failure in failures(lab):
            if chosen not in failure.what:
                continue
            print(f"{example.stem}: {failure.what}", file=sys.stderr)
            await failure.break_it(lab)
            results[f"{example.stem}: {failure.what}"] = await until_well(lab, failure.without)
            await failure.repair(lab)
            results[f"{example.stem}: {failure.what}, repaired"] = await until_well(lab, frozenset())
            await lab.wait_converged()
    finally:
        await lab_down(NAME)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lab", action="append", help="only this example (default: all)")
    parser.add_argument("--failure", default="", help="only those with this in their name")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    results: dict[str, Outcome] = {}
    for example in sorted(EXAMPLES.glob("*.yaml")):
        if not arguments.lab or example.stem in arguments.lab:
            results |= asyncio.run(measure_lab(example, arguments.failure))
    if arguments.json:
        print(json.dumps(msgspec.to_builtins(results), indent=2))
        return
    for what, outcome in results.items():
        details = f"   {'; '.join(outcome.details)}" if outcome.details else ""
        left = f"{outcome.mismatches} of {outcome.probes} left, {outcome.parted} parted"
        print(f"{what:52} {outcome.took_ms:8.0f} ms, {outcome.checks} checks, {left}{details}")


if __name__ == "__main__":
    main()

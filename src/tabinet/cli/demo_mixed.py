"""``tabinet demo --mixed``: containers, machines and bare metal under one policy, which changes; then programs are killed.

Every line that it prints was measured: the checks send packets. The fabric is left running at the end.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import monotonic

import click

from tabinet.cli.labs import show_check
from tabinet.cli.output import note, show_json, show_table
from tabinet.errors import LabError
from tabinet.lab.check import CheckReport
from tabinet.lab.kinds.docker import DOCKERD
from tabinet.lab.kinds.libvirt import LIBVIRTD
from tabinet.lab.lab import Lab, lab_down
from tabinet.lab.launches import AGENT, BIRD
from tabinet.lab.load import load_topology
from tabinet.lab.state import running_labs
from tabinet.lab.up import lab_up
from tabinet.model.keys import ResourceKey
from tabinet.store.client import ResourceClient

POLICY = ResourceKey("GlobalNetworkPolicy", "mixed")
KILLED = (("host11", AGENT), ("host12", AGENT), ("host12", DOCKERD), ("host12", LIBVIRTD))
"""Without them the kernel goes on forwarding."""
NEXT = """
The fabric is running. Look around:
  tabinet lab status                               every node and program, dockerd and libvirtd among them
  tabinet get wep -A                               the endpoints, as each runtime names them
  tabinet get gnp mixed -o yaml                    the one policy; edit, tabinet apply -f FILE, tabinet lab check
  tabinet lab exec box -- ip route                 in the container of Docker; pod: of podman, port: behind OpenStack's TAP
Remove it:
  tabinet lab down
(tabinet is .venv/bin/tabinet, as root.)"""


def run_mixed_demo(examples: Path, *, as_json: bool) -> int:
    """Runs the demo; 0 when everything matched."""
    return asyncio.run(_MixedDemo(examples / "labs" / "mixed.yaml", as_json).run())


class _MixedDemo:
    def __init__(self, topology: Path, as_json: bool) -> None:
        self.topology = topology
        self.as_json = as_json
        self.begin = monotonic()
        self.checks: list[tuple[str, CheckReport]] = []

    def say(self, text: str) -> None:
        note(f"{monotonic() - self.begin:6.1f} s  {text}")

    async def run(self) -> int:
        loaded = load_topology(self.topology)
        name = loaded.topology.name
        if name in running_labs():
            self.say(f"removing the lab {name} that runs")
            await lab_down(name)
        lab = await lab_up(loaded, progress=self.say)
        up_s = monotonic() - self.begin
        kinds = ", ".join(workload.kind for workload in loaded.topology.workloads)
        await self.check(lab, f"one policy for {kinds}")
        async with lab.store() as store:
            client = ResourceClient(store)
            before = await client.get(POLICY)
            await client.apply(before | {"spec": before["spec"] | {"ingress": before["spec"]["ingress"][:1]}})
            await self.check(lab, "clients' HTTP alone is allowed")
            await client.apply(before)
        await self.check(lab, "as before", show=False)
        for node, component in KILLED:
            await lab.stop(node, component, kill_it=True)
        self.say(f"killed {', '.join(f'{component} of {node}' for node, component in KILLED)}")
        await self.check(lab, "while they are dead", show=False)
        for node, component in KILLED:
            await lab.start(node, component)
        await lab.restart("host21", BIRD, kill_it=True)
        self.say("all of them are back, and BIRD of host21 was killed and started")
        await lab.wait_converged()
        await self.check(lab, "after all of that", show=False)
        return self.finish(up_s)

    async def check(self, lab: Lab, what: str, *, show: bool = True) -> None:
        report = await lab.check()
        self.checks.append((what, report))
        self.say(f"check: {what}: {report.probes} probes, {report.mismatches} mismatches")
        if (show and not self.as_json) or report.mismatches:
            show_check(report)

    def finish(self, up_s: float) -> int:
        mismatches = sum(report.mismatches for _, report in self.checks)
        if self.as_json:
            checks = [{"what": what, "probes": r.probes, "mismatches": r.mismatches} for what, r in self.checks]
            show_json({"lab_up_seconds": round(up_s, 1), "checks": checks})
        else:
            show_table(["CHECK", "PROBES", "MISMATCHES"], [[what, r.probes, r.mismatches] for what, r in self.checks])
            click.echo(NEXT)
        if mismatches:
            raise LabError(f"{mismatches} probes did not do what the policies say")
        return 0

"""Brings a lab up: from a topology to a fabric in which every workload answers whom it should.

In: a topology and the resources that come with it. Out: a ``Lab`` that runs, or an error and nothing left behind. What does not depend on
each other is done at the same time; the time is mostly that of starting Pythons and of BGP finding its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tabinet.errors import LabError
from tabinet.lab.build import build, lab_namespaces
from tabinet.lab.component import Component
from tabinet.lab.kinds.known import needs_image
from tabinet.lab.kinds.machine import make_image
from tabinet.lab.lab import Lab, Progress
from tabinet.lab.launches import AGENT, components, render_client_file
from tabinet.lab.load import LoadedTopology
from tabinet.lab.plan import make_plan
from tabinet.lab.preflight import preflight
from tabinet.lab.processes import start
from tabinet.lab.readiness import wait_started, wait_store, wait_tunnels
from tabinet.lab.state import ROOT, LabDirectory, LabState, ProcessRecord, exclusive, write_atomically
from tabinet.lab.teardown import take_down
from tabinet.lab.together import together
from tabinet.lab.workloads import attach_workloads, wait_workloads
from tabinet.store.client import ResourceClient

CLIENT_FILE = "tabinet.toml"
"""In the lab's directory: how the other commands find its store."""


async def lab_up(loaded: LoadedTopology, *, progress: Progress = lambda step: None, keep: bool = False, root: Path = ROOT) -> Lab:
    """The lab runs: all programs are ready, all workloads attached, all routes there.

    Raises:
        SetupError: the machine lacks something; nothing was made.
        LabError: it exists already, or something failed; what was made is removed again, unless ``keep`` is set for a look at it.
    """
    plan = make_plan(loaded.topology)
    directory = LabDirectory(plan.name, root)
    async with exclusive(directory):
        if directory.path.exists() or lab_namespaces(plan.name):
            raise LabError(f"lab {plan.name} exists already: remove it first with 'tabinet lab down {plan.name}'")
        progress("looking at the machine")
        await preflight(plan)
        raising = _Raising(Lab(directory, plan), loaded.source, progress)
        try:
            await raising.run(loaded.documents)
        except BaseException:
            if not keep:
                await take_down(directory, raising.processes)
            raise
        return raising.lab


@dataclass(slots=True)
class _Raising:
    """A lab that is being made."""

    lab: Lab
    source: str
    progress: Progress
    processes: list[ProcessRecord] = field(default_factory=list)

    async def run(self, documents: Sequence[dict[str, object]]) -> None:
        plan, directory = self.lab.plan, self.lab.directory
        everything = components(plan, directory)
        self._remember("building")
        self._write_files(everything)
        self.progress(f"{len(plan.nodes)} namespaces and {len(plan.cables)} links")
        await build(plan)
        self.progress("etcd and routing daemons")
        early = _sequences(component for component in everything if component.name != AGENT and not component.late)
        await together([*map(self._start, early), self._apply([*plan.resources, *documents])])
        self.progress(f"agents of {len(plan.hosts)} hosts")
        await together(self._start([component]) for component in everything if component.name == AGENT)
        if needs_image(plan.topology):
            self.progress("what virtual machines boot")
            await make_image(directory)
        await together(self._start(sequence) for sequence in _sequences(component for component in everything if component.late))
        self._remember("building")
        self.progress(f"{len(plan.topology.workloads)} workloads")
        async with self.lab.store() as store:
            if plan.topology.tunnelled:
                await wait_tunnels(store, [host.name for host in plan.hosts])
            await attach_workloads(store, plan, directory)
        self.progress("BGP convergence")
        await self.lab.wait_converged()
        await wait_workloads(plan, directory)
        self._remember("up")

    def _remember(self, stage: str) -> None:
        state = LabState(topology=self.lab.plan.topology, source=self.source, stage=stage, processes=tuple(self.processes))
        self.lab.directory.write(state)

    def _write_files(self, everything: Sequence[Component]) -> None:
        for component in everything:
            for file in component.files:
                path = component.launch.directory / file.name
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, file.text.encode())
        client = self.lab.directory.path / CLIENT_FILE
        write_atomically(client, render_client_file(self.lab.directory).encode())

    async def _start(self, sequence: Sequence[Component]) -> None:
        """Each runs when the one before it is ready."""
        for component in sequence:
            record = start(component.launch)
            self.processes.append(record)
            await wait_started(component, record)

    async def _apply(self, documents: Sequence[dict[str, object]]) -> None:
        async with self.lab.store() as store:
            await wait_store(store)
            await ResourceClient(store).apply_many(documents)


def _sequences(components: Iterable[Component]) -> list[list[Component]]:
    """Those that are started one after the other, together."""
    found: dict[tuple[str, str], list[Component]] = {}
    for component in components:
        found.setdefault((component.node, component.group), []).append(component)
    return list(found.values())

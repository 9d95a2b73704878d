"""A lab: a whole fabric on one machine, in network namespaces, with the real BIRD, FRR, etcd and agents.

``lab_up`` makes one, ``open_lab`` finds one that runs, ``lab_down`` removes it; what can be done with it in between are methods of ``Lab``.
Everything that changes a lab holds its lock, and everything a lab knows is in its directory, so each command can be another process.
Nobody supervises the programs: what is killed stays dead until ``start`` or ``restart``.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tabinet.bgp.control import BirdControl
from tabinet.errors import BirdError, LabError
from tabinet.lab import faults
from tabinet.lab.build import in_namespace
from tabinet.lab.check import CheckReport, check
from tabinet.lab.component import Component
from tabinet.lab.expectation import Target
from tabinet.lab.launches import BIRD, components, components_of
from tabinet.lab.plan import Cable, NodeKind, Plan, make_plan, namespace_of
from tabinet.lab.processes import Launch, alive, ended, kill, start, stop
from tabinet.lab.readiness import wait_routes, wait_sessions, wait_started
from tabinet.lab.state import ROOT, Fault, LabDirectory, LabState, ProcessRecord, exclusive, running_labs
from tabinet.lab.status import LabStatus, lab_status
from tabinet.lab.teardown import Removed, take_down
from tabinet.lab.traffic import FlowSpec
from tabinet.lab.workloads import read_hosts, read_targets
from tabinet.store.api import Datastore
from tabinet.store.open import StoreConfig, open_store

ROUTER = "router"
"""Component name that stands for all daemons of a router."""
CONVERGENCE_TIMEOUT_S = 60.0
GRACEFUL_STOP_S = 5.0
FLOW_PORT = 8125

Progress = Callable[[str], None]
"""Told what is being done, as each step begins."""


@dataclass(slots=True)
class Lab:
    """A lab that runs, or that did until something was killed."""

    directory: LabDirectory
    plan: Plan

    @property
    def name(self) -> str:
        """The lab's name."""
        return self.directory.name

    @contextlib.asynccontextmanager
    async def store(self) -> AsyncIterator[Datastore]:
        """The lab's etcd, through its unix socket."""
        store = await open_store(StoreConfig(kind="etcd", endpoints=(f"unix://{self.directory.etcd_socket}",)))
        try:
            yield store
        finally:
            await store.close()

    def state(self) -> LabState:
        """What the lab remembers.

        Raises:
            LabError: it has been removed meanwhile.
        """
        state = self.directory.read()
        if state is None:
            raise LabError(f"lab {self.name} is gone: make it with 'tabinet lab up'")
        return state

    async def targets(self) -> list[Target]:
        """All workloads with their addresses, in the order of the topology.

        Raises:
            LabError: a workload has no endpoint in the store.
        """
        async with self.store() as store:
            return await read_targets(store, self.plan, self.directory)

    async def check(self) -> CheckReport:
        """What packets between workloads, and between them and hosts, do, against what the policies say."""
        async with self.store() as store:
            hosts = [host.name for host in self.plan.hosts]
            targets = [*await read_targets(store, self.plan, self.directory), *await read_hosts(store, self.plan)]
            return await check(store, hosts, targets, self.plan.topology.check, self.plan.towards_others())

    async def status(self) -> LabStatus:
        """What runs and what does not."""
        async with self.store() as store:
            return await lab_status(self.plan, self.directory, self.state(), store)

    def exec_argv(self, node: str, argv: Sequence[str]) -> list[str]:
        """The command line that runs ``argv`` in a node's network namespace and directory.

        Raises:
            LabError: there is no such node.
        """
        known = self.plan.node(node)
        if known is None:
            raise LabError(f"lab {self.name} has no node {node} (nodes: {', '.join(item.name for item in self.plan.nodes)})")
        where = self.directory.node(node)
        place = [f"--wd={where}"] if where.exists() else []
        return in_namespace(known.namespace, [*place, "--", *argv])

    def exec_environment(self, node: str) -> dict[str, str]:
        """What is to be added to the environment there: on a host, ``tabinet`` finds this host's configuration, as on a real one."""
        config = self.directory.node(node) / "agent.toml"
        return {"TABINET_CONFIG": str(config)} if config.exists() else {"TABINET_LAB": self.name}

    async def cut(self, cable: str, *, silent: bool = False) -> None:
        """No packet passes the cable named ``a:b``; with ``silent`` nobody sees that from the carrier."""
        found = self._cable(cable)
        async with self._changing() as state:
            if any(fault.cable == found.name for fault in state.faults):
                raise LabError(f"{found.name} is cut already: heal it first")
            await faults.cut(self.name, found, silent=silent)
            self._write(msgspec.structs.replace(state, faults=(*state.faults, Fault(cable=found.name, silent=silent))))

    async def heal(self, cable: str) -> None:
        """The cable carries packets again."""
        found = self._cable(cable)
        async with self._changing() as state:
            await faults.heal(self.name, found)
            self._write(msgspec.structs.replace(state, faults=tuple(fault for fault in state.faults if fault.cable != found.name)))

    def _cable(self, name: str) -> Cable:
        found = self.plan.cable(name)
        if found is None:
            raise LabError(f"lab {self.name} has no link {name} (links: {', '.join(cable.name for cable in self.plan.cables)})")
        return found

    async def stop(self, node: str, component: str, *, kill_it: bool = False) -> None:
        """The component does not run: ended in a planned manner, or by SIGKILL."""
        async with self._changing() as state:
            await self._stop(state, self._components(node, component), kill_it=kill_it)

    async def start(self, node: str, component: str) -> None:
        """The component runs and is ready; nothing happens where it runs already.

        When FRR's zebra starts, the router's other daemons start anew with it, as under watchfrr: what they told the zebra before is lost.
        """
        async with self._changing() as state:
            wanted = self._components(node, component)
            if component == "zebra" and not any(_running(state, each) for each in wanted):
                wanted = self._components(node, ROUTER)
                await self._stop(state, wanted, kill_it=True)
            await self._start(self.state(), wanted)

    async def restart(self, node: str, component: str, *, kill_it: bool = False) -> None:
        """The component was ended, in a planned manner or by SIGKILL, and runs and is ready again.

        Raises:
            LabError: no such node or component, or it does not come back.
        """
        async with self._changing() as state:
            wanted = self._components(node, component)
            await self._stop(state, wanted, kill_it=kill_it)
            await self._start(state, wanted)

    def _components(self, node: str, component: str) -> list[Component]:
        known = components_of(self.plan, self.directory, node)
        if not known:
            places = sorted({item.node for item in components(self.plan, self.directory)})
            raise LabError(f"{node} runs nothing (nodes with programs: {', '.join(places)})")
        kind = next(item.kind for item in self.plan.nodes if item.name == node)
        if component == ROUTER and kind is NodeKind.ROUTER:
            return list(known)
        found = [item for item in known if item.name == component]
        if not found:
            raise LabError(f"{node} has no component {component} (components: {', '.join(item.name for item in known)})")
        return found

    async def _stop(self, state: LabState, wanted: Sequence[Component], *, kill_it: bool) -> None:
        for component in reversed(wanted):
            for record in _running(state, component):
                if kill_it:
                    await kill([record])
                    continue
                if component.name == BIRD and await _leave_gracefully(component.socket, record):
                    continue
                await stop(record)

    async def _start(self, state: LabState, wanted: Sequence[Component]) -> None:
        records = list(state.processes)
        for component in wanted:
            if _running(state, component):
                continue
            again = any((record.node, record.component) == (component.node, component.name) for record in records)
            records = [record for record in records if (record.node, record.component) != (component.node, component.name)]
            records.append(start(_prepared(component, again=again)))
            self._write(msgspec.structs.replace(state, processes=tuple(records)))
            await wait_started(component, records[-1])

    @contextlib.asynccontextmanager
    async def _changing(self) -> AsyncIterator[LabState]:
        async with exclusive(self.directory):
            yield self.state()

    def _write(self, state: LabState) -> None:
        self.directory.write(state)

    async def flow(self, source: str, destination: str, family: int, port: int = FLOW_PORT) -> FlowSpec:
        """A flow between two workloads, for ``start_traffic``."""
        targets = {target.name: target for target in await self.targets()}
        for name in (source, destination):
            if name not in targets:
                raise LabError(f"lab {self.name} has no workload {name} (workloads: {', '.join(targets)})")
            if self.plan.node(name) is None:
                raise LabError(f"{name} has no namespace of its own: traffic is measured between namespaces")
        address = next(address for address in targets[destination].addresses if address.family == family)
        return FlowSpec(
            source=source,
            source_namespace=targets[source].namespace,
            destination=destination,
            destination_namespace=targets[destination].namespace,
            family=family,
            address=address.address,
            port=port,
        )

    async def wait_converged(self, timeout_s: float = CONVERGENCE_TIMEOUT_S) -> None:
        """All BGP sessions of all hosts are up, and every host has a route to every workload of the others.

        Raises:
            LabError: not within ``timeout_s``.
        """
        deadline = time.monotonic() + timeout_s
        sockets = {
            item.node: item.socket
            for item in components(self.plan, self.directory)
            if item.name == BIRD and self._kind(item.node) is NodeKind.HOST
        }
        await wait_sessions(sockets, self._sessions_wanted(), timeout_s)
        by_name = {target.name: target for target in await self.targets()}
        wanted = {
            host.name: [
                address
                for workload in self.plan.topology.workloads
                if workload.host != host.name
                for address in by_name[workload.name].addresses
            ]
            for host in self.plan.hosts
        }
        hosts = {host.name: namespace_of(self.name, host.name) for host in self.plan.hosts}
        await wait_routes(hosts, wanted, max(1.0, deadline - time.monotonic()))

    def _kind(self, node: str) -> NodeKind | None:
        found = self.plan.node(node)
        return found.kind if found is not None else None

    def _sessions_wanted(self) -> dict[str, int]:
        """How many sessions each host should have."""
        return {host.name: host.sessions for host in self.plan.hosts}


async def _leave_gracefully(control: str, record: ProcessRecord) -> bool:
    """True when BIRD has ended by graceful restart: its neighbours and the kernel keep its routes until it is back (RFC 4724).

    SIGTERM would withdraw them.
    """
    try:
        await asyncio.to_thread(BirdControl(Path(control)).graceful_restart)
    except BirdError:
        return False
    return await ended([record], GRACEFUL_STOP_S)


def _running(state: LabState, component: Component) -> list[ProcessRecord]:
    return [record for record in state.processes if (record.node, record.component) == (component.node, component.name) and alive(record)]


def _prepared(component: Component, *, again: bool) -> Launch:
    """How to start it now; the socket that a killed one left is gone, because etcd does not start where there is one."""
    if component.socket:
        Path(component.socket).unlink(missing_ok=True)
    return msgspec.structs.replace(component.launch, argv=component.restart_argv) if again else component.launch


def open_lab(name: str | None = None, root: Path = ROOT) -> Lab:
    """The running lab of that name; without a name, the only one.

    Raises:
        LabError: there is none, or there are several to choose from.
    """
    running = running_labs(root)
    if name is None:
        if len(running) != 1:
            what = f"several labs run ({', '.join(running)}): say which" if running else "no lab runs: make one with 'tabinet lab up'"
            raise LabError(what)
        name = running[0]
    directory = LabDirectory(name, root)
    state = directory.read()
    if state is None:
        hint = f"running: {', '.join(running)}" if running else "none runs; make one with 'tabinet lab up'"
        raise LabError(f"no lab {name} ({hint})")
    return Lab(directory, make_plan(state.topology))


async def lab_down(name: str, root: Path = ROOT) -> Removed:
    """Nothing of the lab of that name is left, whatever state it was in; nothing happens when there is none."""
    directory = LabDirectory(name, root)
    async with exclusive(directory):
        return await take_down(directory)

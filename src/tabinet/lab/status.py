"""What of a lab runs and what does not.

In: plan, state, and the store where it answers. Out: a ``LabStatus``, records only. A dead etcd is a fact to be reported, not an error:
what the store would tell is then absent. O(nodes + workloads).
"""

from __future__ import annotations

import asyncio

import msgspec

from tabinet.errors import StoreError
from tabinet.lab.build import lab_namespaces
from tabinet.lab.component import Component
from tabinet.lab.expectation import Target
from tabinet.lab.launches import components
from tabinet.lab.plan import Plan
from tabinet.lab.processes import alive
from tabinet.lab.state import LabDirectory, LabState
from tabinet.lab.workloads import read_targets_found
from tabinet.model.report import HostReport, report_path
from tabinet.store.api import Datastore

_STORE_TIMEOUT_S = 3.0


class ComponentStatus(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One program."""

    node: str
    component: str
    alive: bool
    pid: int
    """0 when it never ran."""


class NodeStatus(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One namespace."""

    name: str
    kind: str
    namespace: str
    exists: bool
    components: tuple[ComponentStatus, ...]
    report: HostReport | None = None
    """What a host's agent last said of itself; None for all other nodes, and when it is not known."""


class CableStatus(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One cable."""

    name: str
    state: str
    """``up``, ``cut`` or ``silent``."""


class WorkloadStatus(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One workload."""

    name: str
    kind: str
    """A name of ``tabinet.lab.kinds.facts.FACTS``."""
    host: str
    namespace: str
    """Of policies."""
    addresses: tuple[str, ...]
    """Empty when it is not attached, or when the store does not answer."""


class LabStatus(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A whole lab."""

    name: str
    source: str
    stage: str
    healthy: bool
    """Everything that should run runs, no cable is cut, and the store answers."""
    store: str
    """Empty: it answers. Else why not."""
    nodes: tuple[NodeStatus, ...]
    cables: tuple[CableStatus, ...]
    workloads: tuple[WorkloadStatus, ...]


async def lab_status(plan: Plan, directory: LabDirectory, state: LabState, store: Datastore) -> LabStatus:
    """The lab as it is now."""
    targets: list[Target] = []
    reports: dict[str, HostReport] = {}
    trouble = ""
    try:
        async with asyncio.timeout(_STORE_TIMEOUT_S):
            targets = await read_targets_found(store, plan, directory)
            reports = await _reports(store, plan)
    except (StoreError, TimeoutError) as error:
        trouble = str(error) or f"no answer within {_STORE_TIMEOUT_S:g} s"
    return summarize_status(plan, directory, state, targets, reports, trouble, set(lab_namespaces(plan.name)))


async def _reports(store: Datastore, plan: Plan) -> dict[str, HostReport]:
    found = {}
    for host in plan.hosts:
        item = await store.get(report_path(host.name))
        if item is not None:
            found[host.name] = msgspec.json.decode(item.value, type=HostReport)
    return found


def summarize_status(
    plan: Plan,
    directory: LabDirectory,
    state: LabState,
    targets: list[Target],
    reports: dict[str, HostReport],
    trouble: str,
    namespaces: set[str],
) -> LabStatus:
    """The status from what was found. Looks at processes, at nothing else."""
    programs = [_component(state, item) for item in components(plan, directory)]
    nodes = tuple(
        NodeStatus(
            name=node.name,
            kind=node.kind.value,
            namespace=node.namespace,
            exists=node.namespace in namespaces,
            components=tuple(item for item in programs if item.node == node.name),
            report=reports.get(node.name),
        )
        for node in plan.nodes
    )
    faults = {fault.cable: "silent" if fault.silent else "cut" for fault in state.faults}
    addresses = {target.name: tuple(address.address for address in target.addresses) for target in targets}
    return LabStatus(
        name=plan.name,
        source=state.source,
        stage=state.stage,
        healthy=not trouble and not faults and all(item.alive for item in programs) and all(node.exists for node in nodes),
        store=trouble,
        nodes=nodes,
        cables=tuple(CableStatus(name=cable.name, state=faults.get(cable.name, "up")) for cable in plan.cables),
        workloads=tuple(
            WorkloadStatus(name=item.name, kind=item.kind, host=item.host, namespace=item.namespace, addresses=addresses.get(item.name, ()))
            for item in plan.topology.workloads
        ),
    )


def _component(state: LabState, component: Component) -> ComponentStatus:
    records = [record for record in state.processes if (record.node, record.component) == (component.node, component.name)]
    running = [record for record in records if alive(record)]
    return ComponentStatus(
        node=component.node,
        component=component.name,
        alive=bool(running),
        pid=(running or records)[-1].pid if records else 0,
    )

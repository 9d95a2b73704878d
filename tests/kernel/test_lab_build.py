"""A lab's namespaces, cables, faults, real daemons, and their complete removal. No agents: those are in the scenario tests."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tabinet.lab import faults
from tabinet.lab.build import build, in_namespace, lab_namespaces, processes_in, run
from tabinet.lab.component import Component
from tabinet.lab.launches import AGENT, components
from tabinet.lab.parse import parse_topology
from tabinet.lab.plan import Plan, make_plan
from tabinet.lab.probe.client import ProbeSpec, run_probes, start_prober
from tabinet.lab.processes import alive, start
from tabinet.lab.readiness import wait_started, wait_store
from tabinet.lab.state import LabDirectory, LabState, ProcessRecord, write_atomically
from tabinet.lab.teardown import take_down
from tabinet.store.open import StoreConfig, open_store

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

TEXT = """
name: NAME
routers: {r: {as: 65000}}
hosts: {a: {as: 65001}, b: {as: 65002}}
links: [[r, a]]
segments: {lan: {subnet4: 172.20.0.0/24, subnet6: "fd00:20::/64", members: [r, b]}}
"""


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[tuple[Plan, LabDirectory]]:
    """A small lab's namespaces; whatever the test leaves is removed."""
    name = f"t{uuid.uuid4().hex[:8]}"
    plan = make_plan(parse_topology(TEXT.replace("NAME", name)))
    directory = LabDirectory(name, tmp_path)
    directory.write(LabState(topology=plan.topology, source="", stage="building"))
    try:
        await build(plan)
        yield plan, directory
    finally:
        await take_down(directory)
        assert lab_namespaces(name) == []


async def launch(component: Component) -> ProcessRecord:
    for file in component.files:
        component.launch.directory.mkdir(parents=True, exist_ok=True)
        write_atomically(component.launch.directory / file.name, file.text.encode())
    record = start(component.launch)
    await wait_started(component, record)
    return record


async def reachable(plan: Plan, source: str, addresses: list[str], wanted: bool) -> None:
    """From ``source`` all of the addresses answer pings, or none does; waits for that."""
    node = plan.node(source)
    assert node is not None
    prober = await start_prober(node.namespace, source, [], [])
    probes = [ProbeSpec(6 if ":" in address else 4, "icmp", address, 0) for address in addresses]
    try:
        async with asyncio.timeout(10):
            while {result.outcome == "answered" for result in await run_probes(prober, probes, 300)} != {wanted}:
                pass
    finally:
        await prober.close()


async def test_neighbours_reach_each_other_over_links_segments_and_management(lab: tuple[Plan, LabDirectory]) -> None:
    plan, _ = lab
    await reachable(plan, "a", ["10.255.0.0", "fd00:255::", "172.31.0.1", "172.31.0.12"], True)
    await reachable(plan, "r", ["10.255.0.1", "fd00:255::1", "172.20.0.12", "fd00:20::c"], True)
    names = ["net.ipv4.ip_forward", "net.ipv6.conf.r.keep_addr_on_down", "net.ipv6.conf.r.ignore_routes_with_linkdown"]
    text = await run(in_namespace(f"tl-{plan.name}-a", ["sysctl", "-n", *names]))
    assert text.split() == ["1", "1", "1"]


@pytest.mark.parametrize("silent", [False, True], ids=["carrier", "silent"])
async def test_a_cut_cable_carries_nothing_and_a_healed_one_everything(lab: tuple[Plan, LabDirectory], silent: bool) -> None:
    plan, _ = lab
    for name, source, addresses in (("r:a", "a", ["10.255.0.0", "fd00:255::"]), ("lan:b", "b", ["172.20.0.11", "fd00:20::b"])):
        cable = plan.cable(name)
        assert cable is not None
        await reachable(plan, source, addresses, True)
        await faults.cut(plan.name, cable, silent=silent)
        await reachable(plan, source, addresses, False)
        states = [
            await run(["ip", "-n", f"tl-{plan.name}-{end.node}", "-br", "link", "show", "dev", end.interface]) for end in (cable.a, cable.b)
        ]
        assert all(("LOWER_UP" in state) is silent for state in states)
        await faults.heal(plan.name, cable)
        await faults.heal(plan.name, cable)  # is no error
        await reachable(plan, source, addresses, True)
        assert "tabinet-lab" not in await run(in_namespace(f"tl-{plan.name}-{source}", ["nft", "list", "tables"]))


async def test_daemons_run_in_their_namespaces_and_the_store_answers_outside(lab: tuple[Plan, LabDirectory]) -> None:
    plan, directory = lab
    wanted = [item for item in components(plan, directory) if item.name != AGENT]
    records = await asyncio.gather(*(launch(item) for item in wanted))
    assert [item.name for item in wanted] == ["etcd", "bird", "bird", "bird"]
    assert all(alive(record) for record in records)
    assert {record.pid for record in records} <= set(processes_in(lab_namespaces(plan.name)))
    store = await open_store(StoreConfig(endpoints=(f"unix://{directory.etcd_socket}",)))
    try:
        await wait_store(store)
        assert await store.get("/calico/nothing") is None
    finally:
        await store.close()


@pytest.mark.parametrize("crashed", [False, True], ids=["with-state", "without-state"])
async def test_down_removes_everything_and_can_be_repeated(lab: tuple[Plan, LabDirectory], crashed: bool) -> None:
    plan, directory = lab
    records = [await launch(item) for item in components(plan, directory) if item.name in ("etcd", "bird")]
    state = directory.read()
    assert state is not None
    if crashed:
        directory.state_file.write_bytes(b"{")
    else:
        directory.write(LabState(topology=plan.topology, source="", stage="up", processes=tuple(records)))
    removed = await take_down(directory)
    assert (removed.namespaces, removed.processes, removed.directory) == (len(plan.nodes), len(records), True)
    assert lab_namespaces(plan.name) == []
    assert not any(alive(record) for record in records)
    assert not directory.path.exists()
    again = await take_down(directory)
    assert (again.namespaces, again.processes, again.directory) == (0, 0, False)


async def test_another_labs_namespaces_are_left_alone(lab: tuple[Plan, LabDirectory], tmp_path: Path) -> None:
    plan, _ = lab
    await take_down(LabDirectory(plan.name[:-1], tmp_path))
    assert len(lab_namespaces(plan.name)) == len(plan.nodes)

"""A whole lab: the flat example with real agents, BIRD and etcd. What policy says is what packets do, whatever is killed."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tabinet.lab.build import lab_namespaces, processes_in, run
from tabinet.lab.lab import Lab, lab_down, open_lab
from tabinet.lab.load import load_topology
from tabinet.lab.processes import start_ticks
from tabinet.lab.traffic import start_traffic
from tabinet.lab.up import lab_up
from tabinet.model.defaults import with_defaults
from tabinet.model.documents import load_documents
from tabinet.store.client import ResourceClient, key_of

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

EXAMPLES = Path(__file__).parents[2] / "examples"
KILLED = [("node1", "agent"), ("node2", "bird"), ("mgmt", "etcd"), ("node3", "agent"), ("node3", "bird")]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The flat example under a name of its own; removed afterwards, and nothing of it is left."""
    loaded = load_topology(EXAMPLES / "labs" / "flat.yaml")
    name = f"f{uuid.uuid4().hex[:6]}"
    loaded = msgspec.structs.replace(loaded, topology=msgspec.structs.replace(loaded.topology, name=name))
    root = tmp_path_factory.mktemp("labs")
    try:
        yield asyncio.run(lab_up(loaded, root=root))
    finally:
        inside = processes_in(lab_namespaces(name))
        removed = asyncio.run(lab_down(name, root))
        assert lab_namespaces(name) == []
        assert [pid for pid in inside if start_ticks(pid) is not None] == []  # one that init has not collected yet has ended
        assert os.listdir(root) == []
        assert removed.namespaces == 13


async def agrees(lab: Lab) -> None:
    """The check finds no mismatch, at the latest after a while: what was restarted may still be catching up."""
    async with asyncio.timeout(40):
        while (report := await lab.check()).mismatches:
            print(report.mismatches, report.details[0])
    assert report.probes >= 500
    assert report.families == ("ipv4", "ipv6")


async def objects(lab: Lab) -> dict[str, list[str]]:
    """Interfaces of workloads and our routes on every host, by host."""
    found = {}
    for host in lab.plan.hosts:
        namespace = f"tl-{lab.name}-{host.name}"
        links = await run(["ip", "-n", namespace, "-br", "link"])
        routes = await run(["ip", "-n", namespace, "route", "show", "proto", "84"]) + await run(
            ["ip", "-n", namespace, "-6", "route", "show", "proto", "84"]
        )
        found[host.name] = sorted(line.split()[0] for line in links.splitlines()) + sorted(line.strip() for line in routes.splitlines())
    return found


async def test_a_new_lab_does_what_its_profiles_say(lab: Lab) -> None:
    report = await lab.check()
    assert (report.mismatches, report.details) == (0, ())
    assert report.probes >= 500
    assert 0 < sum(pair.allowed for pair in report.pairs) < report.probes
    status = await lab.status()
    assert status.healthy, status
    assert all(len(workload.addresses) == 2 for workload in status.workloads)
    assert open_lab(lab.name, lab.directory.root) == lab


async def test_policies_are_enforced_and_taken_back(lab: Lab) -> None:
    before = {(pair.source, pair.destination): pair.allowed for pair in (await lab.check()).pairs}
    documents = []
    for name in ("three-tier", "isolated-tenant"):
        path = EXAMPLES / "policies" / f"{name}.yaml"
        documents += [with_defaults(document.data) for document in load_documents(path.read_text(), str(path))]
    async with lab.store() as store:
        client = ResourceClient(store)
        await client.apply_many(documents)
        await agrees(lab)
        report = await lab.check()
        by_pair = {(pair.source, pair.destination): pair.allowed for pair in report.pairs}
        assert by_pair["rival1", "web1"] == 0
        assert by_pair["app1", "db1"] > 0
        for document in reversed(documents):
            await client.delete(key_of(document))
        await agrees(lab)
    assert {(pair.source, pair.destination): pair.allowed for pair in (await lab.check()).pairs} == before


@pytest.mark.parametrize(("node", "component"), KILLED, ids=[f"{component}-{node}" for node, component in KILLED])
async def test_what_is_killed_and_started_again_ends_where_it_was(lab: Lab, node: str, component: str) -> None:
    before = await objects(lab)
    await lab.stop(node, component, kill_it=True)
    status = await lab.status()
    assert not status.healthy
    assert {(item.node, item.component) for n in status.nodes for item in n.components if not item.alive} == {(node, component)}
    await lab.start(node, component)
    await lab.wait_converged()
    await agrees(lab)
    assert await objects(lab) == before


async def test_restarting_an_agent_loses_no_packet(lab: Lab) -> None:
    flows = [
        await lab.flow(source, destination, family) for source, destination in (("web1", "web2"), ("web2", "web1")) for family in (4, 6)
    ]
    traffic = await start_traffic(flows)
    await lab.restart("node1", "agent")
    reports = await traffic.stop()
    assert [report.lost for report in reports] == [0, 0, 0, 0]
    assert all(report.sent > 100 for report in reports)


async def test_a_host_that_is_cut_off_comes_back(lab: Lab) -> None:
    await lab.cut("lan:node3")
    report = await lab.check()
    assert {detail.seen for detail in report.details if detail.expected == "answered"} <= {"timeout", "unreachable"}
    assert all("web3" in (d.source, d.destination) or "db1" in (d.source, d.destination) for d in report.details)
    assert report.mismatches > 0
    assert {cable.name for cable in (await lab.status()).cables if cable.state == "cut"} == {"lan:node3"}
    await lab.heal("lan:node3")
    await lab.wait_converged()
    await agrees(lab)

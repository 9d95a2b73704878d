"""One of every kind of workload under one policy, on four hosts, with the real runtimes. Skipped where one of them is lacking."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_world import EXAMPLES, assert_well, running_lab

from tabinet.lab.build import processes_in
from tabinet.lab.check import CheckReport
from tabinet.lab.kinds.docker import DOCKERD
from tabinet.lab.kinds.known import kinds_in
from tabinet.lab.kinds.libvirt import LIBVIRTD
from tabinet.lab.lab import Lab, lab_down
from tabinet.lab.launches import AGENT, BIRD, GUEST
from tabinet.lab.load import load_topology
from tabinet.lab.plan import namespace_of
from tabinet.lab.processes import start_ticks
from tabinet.model.keys import ResourceKey
from tabinet.store.client import ResourceClient

TOPOLOGY = load_topology(EXAMPLES / "labs" / "mixed.yaml").topology
LACKING = [line for kind in kinds_in(TOPOLOGY).values() for line in kind.missing()]

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(bool(LACKING), reason="; ".join(LACKING)),
]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with running_lab("mixed") as made:
        yield made


def answers(report: CheckReport) -> dict[tuple[str, str], int]:
    """How many probes of each pair of workloads were answered, as they should be."""
    names = {workload.name for workload in TOPOLOGY.workloads}
    return {(pair.source, pair.destination): pair.allowed for pair in report.pairs if {pair.source, pair.destination} <= names}


async def test_every_kind_does_what_the_one_policy_says_also_when_it_changes(lab: Lab) -> None:
    report = await assert_well(lab)
    names = [workload.name for workload in TOPOLOGY.workloads]
    before = answers(report)
    assert set(before) == {(source, destination) for source in names for destination in names if source != destination}
    assert all(before.values())  # pings, at the least
    assert sum(before.values()) < sum(pair.probes for pair in report.pairs)
    async with lab.store() as store:
        client = ResourceClient(store)
        policy = await client.get(ResourceKey("GlobalNetworkPolicy", "mixed"))
        policy["spec"]["ingress"] = policy["spec"]["ingress"][:1]  # nothing but HTTP of clients any more
        await client.apply(policy)
    after = answers(await assert_well(lab))
    assert all(after[pair] < before[pair] for pair in before)
    # SSH to the bare host is a failsafe port, which no policy closes.
    assert {source for (source, destination), allowed in after.items() if allowed and destination != "metal"} == {"ns", "box"}


async def test_programs_that_are_killed_at_random_change_nothing(lab: Lab) -> None:
    chance = random.Random(8)
    victims = [("host12", DOCKERD), ("host12", LIBVIRTD), ("host12", GUEST), ("host21", "wire-port")]
    victims += [(host, name) for host in ("host11", "host12", "host21") for name in (AGENT, BIRD)]
    before = answers(await lab.check())
    for node, name in chance.sample(victims, len(victims)):
        await lab.stop(node, name, kill_it=True)
        if chance.random() < 0.5:
            await lab.start(node, name)
    for node, name in victims:
        await lab.start(node, name)
    assert answers(await assert_well(lab)) == before


def test_nothing_is_left_of_containers_whose_runtimes_are_dead_and_forgotten(lab: Lab) -> None:
    first = {name: processes_in([namespace_of(lab.name, name)]) for name in ("pod", "box")}
    assert all(len(found) == 1 for found in first.values())
    runtimes = [process for process in processes_in([namespace_of(lab.name, host) for host in ("host11", "host12")]) if is_runtime(process)]
    assert len(runtimes) >= 2
    for process in runtimes:
        os.kill(process, signal.SIGKILL)
    lab.directory.state_file.unlink()
    asyncio.run(lab_down(lab.name))
    assert [process for found in first.values() for process in found if start_ticks(process) is not None] == []


def is_runtime(process: int) -> bool:
    """Whether it is what a container's runtime leaves beside the container."""
    try:
        return Path(f"/proc/{process}/comm").read_text().strip() in ("conmon", "containerd-shim")
    except OSError:  # it has ended meanwhile
        return False

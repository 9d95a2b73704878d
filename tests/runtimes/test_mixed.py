"""One of every kind of workload under one policy, on four hosts, with the real runtimes. Skipped where one of them is lacking."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest
from lab_world import EXAMPLES, assert_well, running_lab

from tabinet.lab.check import CheckReport
from tabinet.lab.kinds.docker import DOCKERD
from tabinet.lab.kinds.known import kinds_in
from tabinet.lab.kinds.libvirt import LIBVIRTD
from tabinet.lab.lab import Lab
from tabinet.lab.launches import AGENT, BIRD
from tabinet.lab.load import load_topology
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
    victims = [(host, name) for host in ("host11", "host12", "host21") for name in (AGENT, BIRD)]
    victims += [("host12", DOCKERD), ("host12", LIBVIRTD)]
    before = answers(await lab.check())
    for node, name in chance.sample(victims, len(victims)):
        await lab.stop(node, name, kill_it=True)
        if chance.random() < 0.5:
            await lab.start(node, name)
    for node, name in victims:
        await lab.start(node, name)
    assert answers(await assert_well(lab)) == before

"""An address that workloads on two hosts have, and a host that leaves for maintenance and comes back: who answers, and nothing is lost.

With route reflectors (one AS, several paths through reflectors) and below top-of-rack routers (eBGP, FRR, links without addresses); agents,
BIRD, kernel, policy and packets are real. The command line is the one that operators use.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from lab_world import TABINET, eventually, running_lab

from tabinet.ipam.client import IpamClient
from tabinet.lab.kinds.namespace import identity_of
from tabinet.lab.lab import Lab
from tabinet.lib.ip import IPV4
from tabinet.model.keys import ResourceKey
from tabinet.store.api import Datastore
from tabinet.store.client import ResourceClient

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

PORT = 53
PROBE = Path(__file__).parent / "echo_probe.py"
ANSWER_S = 20.0
TOLERATED = 3
"""Questions that a machine with too much to do may lose; a loop between two routers costs ten and more."""


@dataclass(slots=True)
class Asker:
    """Somebody who asks all the time."""

    process: asyncio.subprocess.Process

    async def so_far(self, *, begins: bool = False) -> dict[str, int]:
        """Who answered since the last time, and how often; unless ``begins``, nothing was lost."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        async with asyncio.timeout(ANSWER_S):
            said = json.loads(await self.process.stdout.readline())
        assert begins or said["lost"] <= TOLERATED, said
        answers: dict[str, int] = said["answers"]
        return answers


async def start(lab: Lab, node: str, *arguments: str) -> asyncio.subprocess.Process:
    argv = lab.exec_argv(node, [sys.executable, "-S", str(PROBE), *arguments])
    return await asyncio.create_subprocess_exec(*argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)


@asynccontextmanager
async def asking(lab: Lab, asker: str, address: str, *servers: str) -> AsyncIterator[Asker]:
    """``servers`` serve the address, ``asker`` asks."""
    running = []
    try:
        for name in servers:
            process = await start(lab, name, "serve", address, str(PORT), name)
            running.append(process)
            assert process.stdout is not None
            async with asyncio.timeout(ANSWER_S):
                assert await process.stdout.readline() == b"ready\n"
        running.append(await start(lab, asker, "ask", address, str(PORT)))
        yield Asker(running[-1])
    finally:
        for process in running:
            process.kill()
            await process.communicate()


async def tabinet(lab: Lab, *arguments: str) -> str:
    """What the command says; it was successful."""
    argv = [str(TABINET), "--lab", lab.name, *arguments]
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    return said


async def nobodys(lab: Lab, store: Datastore) -> str:
    """An address of the lab's IPv4 pool that is in no host's block."""
    (pool,) = [pool for pool in lab.plan.topology.pools if pool.family == IPV4]
    ipam = IpamClient(store)
    taken = [usage.block for host in lab.plan.hosts for usage in await ipam.blocks(host.name)]
    return next(found.address for n in range(1, pool.size, 64) if not any(net.contains(found := pool.host(n)) for net in taken))


async def share(lab: Lab, client: ResourceClient, name: str, address: str, *, only: bool) -> None:
    """The workload has the address too, or nothing else."""
    (workload,) = [each for each in lab.plan.topology.workloads if each.name == name]
    endpoint = await client.get(identity_of(workload).key)
    endpoint["spec"]["ipNetworks"] = [f"{address}/32"] if only else [*endpoint["spec"]["ipNetworks"], f"{address}/32"]
    await client.apply(endpoint)
    argv = lab.exec_argv(name, ["ip", "addr", "add", f"{address}/32", "dev", "lo"])
    process = await asyncio.create_subprocess_exec(*argv)
    assert await process.wait() == 0


@dataclass(frozen=True)
class Case:
    """A lab, and who does what there. ``both``: the asker's packets go to both members of the group."""

    lab: str
    asker: str
    stays: str
    leaves: str
    host: str
    both: bool


CASES = (
    Case("reflectors", "db1", "web1", "web2", "node2", both=True),
    # From the first rack the second is farther than a neighbour: its member answers only when the neighbour's is drained.
    Case("unnumbered", "db1", "web2", "app1", "host12", both=False),
)


@pytest.fixture(params=CASES, ids=lambda case: case.lab)
def place(request: pytest.FixtureRequest) -> Iterator[tuple[Lab, Case]]:
    with running_lab(request.param.lab) as lab:
        yield lab, request.param


async def test_a_host_is_drained_and_comes_back_without_loss(place: tuple[Lab, Case]) -> None:
    lab, case = place
    async with lab.store() as store:
        client = ResourceClient(store)
        address = await nobodys(lab, store)
        # Of the host that leaves, only this one is to stay reachable.
        for workload in [each for each in lab.plan.topology.workloads if each.host == case.host and each.name != case.leaves]:
            await client.delete(identity_of(workload).key)
        await share(lab, client, case.stays, address, only=False)
        await share(lab, client, case.leaves, address, only=True)
        async with asking(lab, case.asker, address, case.stays, case.leaves) as asker:
            await asker_hears(asker, {case.stays, case.leaves} if case.both else {case.leaves}, begins=True)
            said = await tabinet(lab, "node", "drain", case.host, "--wait", "--settle", "1s", "--timeout", "30s")
            assert said.endswith(f"Node/{case.host} withdrawn\n")
            await asker.so_far()
            await asker_hears(asker, {case.stays})
            assert "withdrawn" in await tabinet(lab, "node", "list")
            await tabinet(lab, "node", "undrain", case.host, "--wait")
            await asker_hears(asker, {case.stays, case.leaves} if case.both else {case.leaves})
        assert "withdrawn" not in await tabinet(lab, "node", "status", "--all")
        assert (await client.get(ResourceKey("Node", case.host)))["metadata"].get("annotations", {}) == {}


async def asker_hears(asker: Asker, names: set[str], *, begins: bool = False) -> None:
    """From some moment on it is these who answer; unless ``begins``, nothing is lost until then."""

    async def others() -> list[str]:
        heard = set(await asker.so_far(begins=begins))
        return [] if heard == names else [f"{sorted(heard)} answer"]

    await eventually(others)

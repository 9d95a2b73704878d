"""A real agent, killed with SIGKILL at random moments while everything changes and packets flow.

TABINET_KILLS says how often (for a proof: 200, some minutes); TABINET_TEST_SEED repeats a run's choices.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from killed_world import SPARES, AgentProcess, Changing, Churn, Kernel, Traffic, steady_resources
from one_host import Connection, ready
from two_hosts import ADDRESSES, TwoHosts, two_hosts

from tabinet.store.api import Datastore
from tabinet.store.client import ResourceClient
from tabinet.store.open import StoreConfig, open_store

pytestmark = pytest.mark.kernel

KILLS = int(os.environ.get("TABINET_KILLS", "4"))
HEARD_S, NOT_HEARD_S = 10.0, 0.7
"""TCP sends again after 0.2 s, 0.4 s, ..."""
STARTING_S = 1.5
"""Within this time after its start an agent on a quiet machine has the kernel as it should be."""


@pytest.fixture
def fabric() -> Iterator[TwoHosts]:
    with two_hosts() as made:
        for name in SPARES:
            made.ip("h1", f"link add cali{name} type veth peer name peer{name}", f"link set dev cali{name} up")
        for name in ("a", "b"):  # routes to workloads are the agent's
            made.ip("h1", *(f"route del {address} dev cali{name}" for address in ADDRESSES[name]))
        yield made


@contextlib.asynccontextmanager
async def world(fabric: TwoHosts, directory: Path) -> AsyncIterator[tuple[Datastore, AgentProcess, Kernel]]:
    """A store with the steady resources, an agent that is not started yet, and what will be in the kernel."""
    path = directory / "store.db"
    store = await open_store(StoreConfig(kind="sqlite", path=str(path)))
    agent = AgentProcess(fabric, directory, path)
    try:
        await ResourceClient(store).apply_many(steady_resources())
        yield store, agent, Kernel(fabric)
    finally:
        agent.close()
        await store.close()


async def test_killed_at_any_moment_it_comes_back_to_the_truth_and_no_packet_notices(fabric: TwoHosts, tmp_path: Path) -> None:
    seed = int(os.environ.get("TABINET_TEST_SEED") or secrets.randbelow(1_000_000))
    print(f"TABINET_TEST_SEED={seed}")
    choose = random.Random(seed)
    async with world(fabric, tmp_path) as (store, agent, kernel):
        agent.start()
        await kernel.await_equal(store, agent)
        churn, changing = Churn(ResourceClient(store), choose), Changing(fabric)
        passed = killed = 0
        with Traffic(fabric) as traffic:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(churn.run())
                while killed < KILLS:
                    churn.go_on()
                    await asyncio.sleep(choose.random() * 0.5)
                    agent.kill()
                    killed += 1
                    while choose.random() < 0.4:  # and again before it has found its feet
                        agent.start()
                        await asyncio.sleep(choose.random() * STARTING_S)
                        agent.kill()
                        killed += 1
                    await asyncio.sleep(choose.random() * 0.2)
                    agent.start()
                    await asyncio.sleep(choose.random() * STARTING_S)
                    await churn.stop()
                    passed += changing.check(await kernel.await_equal(store, agent))
                task.cancel()
        assert traffic.problems() == []
        sent = sum(flow.sent for flow in traffic.flows + traffic.fresh)
        print(f"{killed} kills, {churn.changes} changes, {sent} packets of steady flows, {passed} of changing ones passed")
        changing.close()


@pytest.mark.parametrize("family", [0, 1])
async def test_where_no_agent_was_connections_go_on_whichever_end_speaks_next(fabric: TwoHosts, tmp_path: Path, family: int) -> None:
    address = ADDRESSES["a"][family]
    before = [f"{ADDRESSES[name][family]} dev cali{name}" for name in ("a", "b")]
    fabric.ip("h1", *(f"route add {route}" for route in before))
    async with world(fabric, tmp_path) as (store, agent, kernel), contextlib.AsyncExitStack() as stack:

        def connection(source: str, port: int) -> Connection:
            made = fabric.tcp(source, "a", address, port)
            stack.callback(made.close)
            assert made.carries()
            return made

        waiting = {source: connection(source, 80) for source in ("b", "c")}
        speaking = {source: connection(source, 80) for source in ("b", "c")}
        denied = connection("b", 81)
        fabric.ip("h1", *(f"route del {route}" for route in before))  # others' routes stay, and ours need their place
        agent.start()
        await kernel.await_equal(store, agent)
        for source in ("b", "c"):
            assert speaking[source].carries() and speaking[source].carries(forward=False)
            waiting[source].server.send(b"?")
            assert ready(waiting[source].client, HEARD_S), source
        denied.server.send(b"?")
        assert not ready(denied.client, NOT_HEARD_S) and not denied.carries()

"""A real agent, killed with SIGKILL at random moments while everything changes and packets flow.

TABINET_KILLS says how often (for a proof: 200, some minutes); TABINET_TEST_SEED repeats a run's choices.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from killed_world import SPARES, AgentProcess, Changing, Churn, Kernel, Traffic, steady_resources
from two_hosts import ADDRESSES, TwoHosts, two_hosts

from tabinet.store.client import ResourceClient
from tabinet.store.open import StoreConfig, open_store

pytestmark = pytest.mark.kernel

KILLS = int(os.environ.get("TABINET_KILLS", "4"))
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


async def test_killed_at_any_moment_it_comes_back_to_the_truth_and_no_packet_notices(fabric: TwoHosts, tmp_path: Path) -> None:
    seed = int(os.environ.get("TABINET_TEST_SEED") or secrets.randbelow(1_000_000))
    print(f"TABINET_TEST_SEED={seed}")
    choose = random.Random(seed)
    store = await open_store(StoreConfig(kind="sqlite", path=str(tmp_path / "store.db")))
    agent, kernel, changing = AgentProcess(fabric, tmp_path, tmp_path / "store.db"), Kernel(fabric), Changing(fabric)
    client = ResourceClient(store)
    try:
        await client.apply_many(steady_resources())
        agent.start()
        await kernel.await_equal(store, agent)
        churn = Churn(client, choose)
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
    finally:
        changing.close()
        agent.close()
        await store.close()

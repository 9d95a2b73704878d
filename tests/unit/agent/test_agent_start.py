"""Before an agent is one: it waits for the store and says so, and is alone in its namespace; and what it shows meanwhile."""

from __future__ import annotations

import asyncio
import os
import threading

import msgspec
import pytest
from agent_world import HOST, World, until

from tabinet.agent import felixspec, wiring
from tabinet.agent.felixspec import read_felix
from tabinet.agent.log import open_log
from tabinet.agent.metrics import Metrics
from tabinet.agent.wiring import Face, claim_namespace
from tabinet.errors import SetupError
from tabinet.kernel.netns import run_in_new
from tabinet.lib.backoff import Backoff
from tabinet.model.keys import ResourceKey, path_of

LOG = open_log("error", "text", HOST)


async def test_a_store_that_is_away_is_waited_for_and_health_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(felixspec, "STORE_BACKOFF", Backoff(first_s=0.01, limit_s=0.02))
    world, face = World(), Face(Metrics())
    await world.put(ResourceKey("FelixConfiguration", "default"), {"spec": {"interfacePrefix": "cali", "reportingInterval": "5s"}})
    await world.put(ResourceKey("FelixConfiguration", f"node.{HOST}"), {"spec": {"interfacePrefix": "tap"}})
    world.store.set_available(False, "gone fishing")
    waiting = asyncio.create_task(read_felix(world.store, HOST, LOG, face.wait))
    await until(lambda: face.waiting == "gone fishing")
    answer = await face.show_health()
    assert answer.status == 503
    assert msgspec.json.decode(answer.body) == {"ready": False, "waiting": "gone fishing"}
    assert (await face.show_life()).status == 200
    assert (await face.show_metrics()).status == 200
    world.store.set_available(True)
    assert await waiting == {"interfacePrefix": "tap", "reportingInterval": "5s"}


async def test_a_configuration_that_cannot_be_read_is_none() -> None:
    world = World()
    await world.put_raw(path_of(ResourceKey("FelixConfiguration", "default")), b"\xff")
    assert await read_felix(world.store, HOST, LOG, Face(Metrics()).wait) == {}


def test_there_is_one_agent_in_a_namespace() -> None:
    def claim_twice() -> str:
        with claim_namespace(), pytest.raises(SetupError, match="another tabinet agent runs") as refused, claim_namespace():
            pass
        with claim_namespace():
            return str(refused.value)

    # In a namespace of its own where that is possible, so that a real agent on this machine is no obstacle.
    assert "stop it first" in (run_in_new(claim_twice) if os.geteuid() == 0 else claim_twice())


async def test_metrics_come_even_while_the_kernel_thread_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "METRICS_WAIT_S", 0.05)
    gate = threading.Event()
    async with World().agent() as agent:
        await until(lambda: agent.health()[0])
        blocked = asyncio.create_task(agent.kernel.call(gate.wait))
        try:
            await asyncio.sleep(0)
            answer = await Face(agent.metrics, agent).show_metrics()
        finally:
            gate.set()
            await blocked
    assert answer.status == 200
    assert b"tabinet_applied_revision" in answer.body

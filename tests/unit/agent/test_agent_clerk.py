"""The clerk beside an agent: it begins with the agent and ends with it."""

from __future__ import annotations

import asyncio

import pytest

from tabinet.agent.companions import Surroundings
from tabinet.agent.log import open_log
from tabinet.agent.parameters import parse_parameters
from tabinet.agent.readiness import Readiness
from tabinet.cli.clerk import KEY, beside_agent
from tabinet.store.memory import MemoryStore

UNREADY = Readiness({}, lambda: None, lambda: "")


async def test_it_ends_with_the_agent() -> None:
    store = MemoryStore()
    surroundings = Surroundings("h1", parse_parameters("", {}), store, open_log("error", "text", "h1"), UNREADY, lambda: "")
    async with asyncio.timeout(60), beside_agent(surroundings):
        while True:
            item = await store.get(KEY)
            if item is not None:
                break
            await asyncio.sleep(0)
        assert item.value == b"h1"
    assert await store.get(KEY) is None


async def test_the_agents_end_comes_through() -> None:
    surroundings = Surroundings("h1", parse_parameters("", {}), MemoryStore(), open_log("error", "text", "h1"), UNREADY, lambda: "")
    with pytest.raises(ExceptionGroup, match="unhandled") as caught:
        async with beside_agent(surroundings):
            raise KeyError("restart")
    assert caught.group_contains(KeyError)

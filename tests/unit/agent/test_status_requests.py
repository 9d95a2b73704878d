"""CalicoNodeStatus resources: those about this host get their status, again and again; all others are left alone."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Collection
from typing import Any

import pytest
from agent_world import World, until

from tabinet.agent import statusrequests
from tabinet.agent.statusrequests import KIND, StatusRequests, look_at
from tabinet.bgp.nodestatus import BirdView
from tabinet.bgp.records import Origin, SessionState, SessionStatus
from tabinet.bgp.replies import BirdStatus
from tabinet.model.keys import ResourceKey, path_of

SESSION = SessionStatus(name="tb_peer_x", peer="x", address="10.0.0.2", state=SessionState.ESTABLISHED, origin=Origin.MESH, since="now")


class Asked:
    """Requests about host h1, and a BIRD with one session."""

    def __init__(self) -> None:
        self.world = World()
        self.seen: list[tuple[str, ...]] = []
        self.held = False
        numbers = itertools.count(1)
        self.requests = StatusRequests("h1", self.world.store, self.look, lambda: f"time {next(numbers)}", lambda: self.held)

    async def look(self, classes: Collection[str]) -> BirdView:
        self.seen.append(tuple(classes))
        return BirdView(status=BirdStatus(version="2.0.12"), sessions=(SESSION,), families=(4,))

    async def ask(self, name: str, node: str = "h1", *classes: str, period_s: int = 10) -> None:
        spec = {"node": node, "classes": list(classes or ("BGP",)), "updatePeriodSeconds": period_s}
        await self.world.put(ResourceKey(KIND, name), {"spec": spec})

    def status(self, name: str) -> dict[str, Any] | None:
        document = self.world._read(path_of(ResourceKey(KIND, name)), dict[str, Any])
        return document.get("status") if document else None


@pytest.fixture
async def asked(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Asked]:
    monkeypatch.setattr(statusrequests, "SHORTEST_S", 0.01)
    asked = Asked()
    task = asyncio.create_task(asked.requests.run())
    yield asked
    assert not task.done(), task
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_request_about_this_host_is_answered_and_another_hosts_is_not(asked: Asked) -> None:
    await asked.ask("other", "h2")
    await asked.ask("never", period_s=0)
    await asked.world.put_raw(path_of(ResourceKey(KIND, "broken")), b"{}}")
    await asked.ask("mine", "h1", "Agent", "BGP")
    await until(lambda: asked.status("mine"))
    assert asked.status("mine") == {
        "lastUpdated": "time 1",
        "agent": {"birdV4": {"state": "Ready", "version": "2.0.12"}},
        "bgp": {
            "numberEstablishedV4": 1,
            "peersV4": [{"peerIP": "10.0.0.2", "type": "NodeMesh", "state": "Established", "since": "now"}],
        },
    }
    assert asked.status("other") is None
    assert asked.status("never") is None
    assert asked.seen == [("Agent", "BGP")]


async def test_it_is_answered_again_with_each_period_and_at_once_when_it_asks_for_something_else(asked: Asked) -> None:
    await asked.ask("mine", period_s=3600)
    await until(lambda: asked.status("mine"))
    await asked.ask("mine", "h1", "Agent", period_s=3600)
    await until(lambda: "agent" in (asked.status("mine") or {}))
    assert "bgp" not in (asked.status("mine") or {})
    assert asked.seen == [("BGP",), ("Agent",)]
    # The default period is ten seconds; one that is due is a matter of the clock, which is turned here.
    for turn in range(3, 6):
        asked.requests._due_s[ResourceKey(KIND, "mine")] = 0.0
        asked.requests._changed.set()
        await until(lambda turn=turn: (asked.status("mine") or {}).get("lastUpdated") == f"time {turn}")  # type: ignore[misc]


async def test_one_that_goes_away_or_moves_on_is_forgotten(asked: Asked) -> None:
    await asked.ask("mine")
    await asked.ask("moves")
    await until(lambda: asked.status("mine") and asked.status("moves"))
    await asked.world.delete(ResourceKey(KIND, "mine"))
    await asked.ask("moves", "h2")
    await until(lambda: not asked.requests.requests)
    assert asked.status("mine") is None
    assert asked.status("moves") is None


async def test_nothing_is_written_while_the_store_is_changed_as_a_whole(asked: Asked) -> None:
    asked.held = True
    await asked.ask("mine")
    key = ResourceKey(KIND, "mine")
    await until(lambda: key in asked.requests.requests and asked.requests._due_s[key] > asyncio.get_running_loop().time())
    assert asked.status("mine") is None


async def test_without_bird_the_answer_is_that_it_is_not_ready() -> None:
    assert await look_at(None)(("BGP", "Routes")) == BirdView()

"""The BGP side of the agent against the fake BIRD: configured when it can be, watched, and away without harm."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from agent_world import HOST, until

from tabinet.agent import bgp as bgp_module
from tabinet.agent.bgp import BgpWatcher
from tabinet.agent.kernelthread import KernelThread
from tabinet.agent.log import open_log
from tabinet.bgp.control import BirdControl
from tabinet.bgp.driver import BgpDriver
from tabinet.bgp.fake import FakeBird, FakeSession, check
from tabinet.bgp.records import BgpOptions, HostFacts, InterfaceAddress
from tabinet.bgp.surroundings import NoSurroundings
from tabinet.calc.intents import Drain, SecretRef
from tabinet.calc.messages import BgpIntent, PeerIntent
from tabinet.lib.ip import parse_address

PEER = PeerIntent("spine1-v4", parse_address("192.0.2.1"), 179, 65000, False, False, True, 120, 0)
INTENT = BgpIntent(HOST, 65001, "192.0.2.9", parse_address("192.0.2.9"), None, 179, "Info", (PEER,), (), (), ())
FACTS = HostFacts((InterfaceAddress("eth0", parse_address("192.0.2.9"), 24),))


class World:
    def __init__(self, directory: Path) -> None:
        self.kernel = KernelThread()
        self.bird = FakeBird(directory / "bird.conf", directory / "bird.ctl")
        self.around = NoSurroundings()
        driver = BgpDriver(self.bird.config, BirdControl(self.bird.path), BgpOptions(), check, self.around)
        self.facts = FACTS
        self.asked = 0
        self.watcher = BgpWatcher(driver, self.read_facts, self.kernel, open_log("error", "text", HOST))
        self.published = 0

    def read_facts(self) -> HostFacts:
        self.asked += 1
        return self.facts

    def publish(self) -> None:
        self.published += 1


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(bgp_module, "WATCH_EVERY_S", 0.02)
    world = World(tmp_path)
    task = asyncio.create_task(world.watcher.run(world.publish))
    yield world
    assert not task.done(), task
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    world.bird.stop()
    world.kernel.close()


def start(world: World) -> None:
    if not world.bird.config.exists():
        world.bird.config.write_text("")
    world.bird.start()


async def test_sessions_are_reported_as_they_are(world: World) -> None:
    start(world)
    world.watcher.set_intent(INTENT)
    await until(lambda: world.watcher.sessions)
    (session,) = world.watcher.sessions
    assert (session.peer, session.state) == ("spine1-v4", "down")
    world.bird.sessions[session.name] = FakeSession(state="Established", imported=3, exported=2)
    await until(lambda: world.watcher.sessions[0].state == "up")
    assert (world.watcher.sessions[0].imported, world.watcher.sessions[0].exported) == (3, 2)
    assert world.published >= 2
    assert world.watcher.error == ""
    assert (session.address, session.peer_as, session.origin, session.bgp_state) == ("192.0.2.1", 65000, "global", "Active")
    assert (world.watcher.status.version, world.watcher.status.router_id) == ("2.0.12", "192.0.2.9")


async def test_nothing_is_asked_of_bird_before_there_is_an_intent(world: World) -> None:
    start(world)
    await asyncio.sleep(0.1)
    assert world.bird.commands == []


async def test_a_bird_that_is_away_is_told_and_finds_its_file_when_it_comes(world: World) -> None:
    world.watcher.set_intent(INTENT)
    await until(lambda: "does not answer" in world.watcher.error and world.bird.config.exists())
    start(world)
    await until(lambda: world.watcher.error == "" and world.watcher.sessions)
    world.bird.stop()
    await until(lambda: world.watcher.error and not world.watcher.sessions)
    start(world)
    await until(lambda: world.watcher.error == "" and world.watcher.sessions)


async def test_addresses_that_change_are_looked_at_again(world: World) -> None:
    start(world)
    world.watcher.set_intent(INTENT)
    await until(lambda: world.watcher.error == "")
    before = world.asked
    world.watcher.on_addresses_changed()
    await until(lambda: world.asked > before)


async def test_a_password_that_comes_later_is_found(world: World) -> None:
    start(world)
    peer = msgspec.structs.replace(PEER, password=SecretRef("bgp", "spine1"))
    world.watcher.set_intent(msgspec.structs.replace(INTENT, peers=(peer,)))
    await until(lambda: world.watcher.sessions and "cannot be read" in world.watcher.sessions[0].reason)
    assert world.watcher.error == ""
    world.around.kept["bgp", "spine1"] = "s3cret"
    await until(lambda: "cannot be read" not in world.watcher.sessions[0].reason)
    assert "s3cret" in world.bird.config.read_text()


async def test_a_drain_is_in_force_when_bird_has_its_last_step(world: World) -> None:
    start(world)
    world.watcher.walk.step_s = 0.01
    world.watcher.set_intent(INTENT)
    await until(lambda: world.watcher.in_force == INTENT)
    drained = msgspec.structs.replace(INTENT, drain=Drain.GRACEFUL)
    world.watcher.set_intent(drained)
    await until(lambda: world.watcher.in_force == drained)
    assert "(65535, 0)" in world.bird.config.read_text().partition("function tb_leave4")[2].partition("\n}")[0]
    world.bird.stop()
    world.watcher.set_intent(INTENT)
    await until(lambda: "does not answer" in world.watcher.error)
    assert world.watcher.in_force == drained
    start(world)
    await until(lambda: world.watcher.in_force == INTENT)


async def test_sessions_that_bird_gave_up_for_want_of_a_socket_are_begun_again(world: World) -> None:
    start(world)
    world.watcher.set_intent(INTENT)
    await until(lambda: world.watcher.sessions)
    session = FakeSession(state="Down", last_error="No listening socket")
    world.bird.sessions[world.watcher.sessions[0].name] = session
    await until(lambda: session.state == "Active")

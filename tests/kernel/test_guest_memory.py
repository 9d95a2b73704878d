"""A guest service whose store is away answers as the one before it did, and shows how it is."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from guest_world import ADDRESSES, ALLOW_ALL, DEADLINE_S, GUESTS, SUBNETS, GuestWorld, endpoint, guest_world

from tabinet.agent.http import Response, fetch

pytestmark = pytest.mark.kernel


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[GuestWorld]:
    with guest_world(tmp_path, f'[guest]\nhttp_address = "unix:{tmp_path}/http"') as made:
        await made.fill(ALLOW_ALL, *map(endpoint, GUESTS), subnets=SUBNETS)
        made.start("agent")
        made.start("guest")
        yield made


async def ready(world: GuestWorld, path: str = "/readiness", store: str = "in-sync") -> Response:
    """The answer, once the service is ready with its store in this state."""
    address = f"unix:{world.directory}/http"
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                found = await fetch(address, "/readiness")
                if found.status == 200 and json.loads(found.body)["store"] == store:
                    return found if path == "/readiness" else await fetch(address, path)
            except OSError:
                pass
            await asyncio.sleep(0.02)


async def test_guests_are_answered_while_the_store_is_away(world: GuestWorld):
    await ready(world)
    await asyncio.to_thread(world.udhcpc, "g1")
    text = (await ready(world, "/metrics")).body.decode()
    assert 'tabinet_guest_messages_total{outcome="ACK",protocol="dhcp4"} 1.0' in text
    assert "tabinet_guest_ports 2.0" in text and "tabinet_guest_store_in_sync 1.0" in text
    world.stop("guest")

    memory = world.directory / "guest.memory"
    assert memory.stat().st_mode & 0o077 == 0
    text = world.config.read_text()
    with socket.socket() as nobody:  # bound and not listening: connections are refused
        nobody.bind(("127.0.0.1", 0))
        away = f'kind = "etcd"\nendpoints = ["http://127.0.0.1:{nobody.getsockname()[1]}"]'
        world.config.write_text(text.replace('kind = "sqlite"', away))
        world.start("guest")
        found = await ready(world, store="not-ready")
        assert json.loads(found.body)["error"]
        assert (await asyncio.to_thread(world.udhcpc, "g2"))["ip"] == ADDRESSES["g2"][0]
        world.stop("guest")
    world.config.write_text(text)

"""A wire between two TAPs in two namespaces: frames pass while both are up, and it ends with either of them."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Iterator

import pytest

from tabinet.kernel import netns
from tabinet.lab.build import in_namespace, run
from tabinet.lab.probe.client import ProbeSpec, run_probes, start_prober

pytestmark = pytest.mark.kernel


@pytest.fixture
def ends() -> Iterator[tuple[str, str]]:
    names = tuple(f"tbw-{uuid.uuid4().hex[:6]}-{side}" for side in ("host", "guest"))
    try:
        for name in names:
            netns.create(name)
        yield names[0], names[1]
    finally:
        for name in names:
            netns.delete(name)


async def answers(namespace: str, address: str) -> bool:
    prober = await start_prober(namespace, "host", [], [])
    try:
        (result,) = await run_probes(prober, [ProbeSpec(4, "icmp", address, 0)], 1000)
    finally:
        await prober.close()
    return result.outcome == "answered"


async def test_frames_pass_between_taps_that_are_up_and_the_wire_ends_with_one(ends: tuple[str, str]) -> None:
    host, guest = ends
    await run(["ip", "-n", host, "-batch", "-"], "tuntap add dev tap1 mode tap\naddr add 192.0.2.1/24 dev tap1\n")
    await run(["ip", "-n", guest, "-batch", "-"], "tuntap add dev eth0 mode tap\naddr add 192.0.2.2/24 dev eth0\nlink set dev eth0 up\n")
    wire = await asyncio.create_subprocess_exec(
        *in_namespace(host, [sys.executable, "-m", "tabinet.lab.kinds.wire", "tap1", guest, "eth0"]), stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(30):
            while "NO-CARRIER" in await run(["ip", "-n", guest, "link", "show", "dev", "eth0"]):
                pass
            await answers(guest, "192.0.2.1")  # is lost, as the host's is not up
            assert wire.returncode is None
            await run(["ip", "-n", host, "link", "set", "dev", "tap1", "up"])
            while not await answers(host, "192.0.2.2"):
                pass
            await run(["ip", "-n", host, "link", "delete", "tap1"])
            assert await wire.wait() != 0
    finally:
        if wire.returncode is None:
            wire.kill()
        await wire.communicate()

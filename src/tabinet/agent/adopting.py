"""Runs an ``Adopter`` for a while after the agent made its table: see ``dataplane.adoption``."""

from __future__ import annotations

import asyncio

from tabinet.agent.kernelthread import KernelThread
from tabinet.agent.log import Logger
from tabinet.dataplane.adoption import Adopter
from tabinet.errors import KernelError

ADOPTION_S = 300.0
"""How long after that a connection whose server speaks next may still do so. Not for ever: a flow that was revoked and forgotten should not
come back as if its other end had begun it."""


async def adopt(adopter: Adopter, kernel: KernelThread, log: Logger, *, for_s: float = ADOPTION_S) -> None:
    """Returns when the time is over, with the adopter closed; also when its log cannot be read, which is logged."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    try:
        async with asyncio.timeout(for_s):
            while True:
                loop.add_reader(adopter.log.fileno(), readable.set)
                await readable.wait()
                loop.remove_reader(adopter.log.fileno())  # it stays readable until the kernel thread has read it
                readable.clear()
                await kernel.call(adopter.turn)
    except TimeoutError:
        log.info("adoption over", connections=adopter.adopted)
    except KernelError as error:
        log.warning("adoption ended", error=str(error), connections=adopter.adopted)
    finally:
        loop.remove_reader(adopter.log.fileno())
        await kernel.call(adopter.close)

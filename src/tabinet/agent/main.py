"""Starts the agent of this host and ends it: signals, restart for parameters that need it, exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence

from tabinet.agent.agent import RestartNeeded
from tabinet.agent.companions import Companion
from tabinet.agent.parameters import Parameters
from tabinet.agent.wiring import build_agent
from tabinet.errors import SetupError


def run(parameters: Parameters, companions: Sequence[Companion] = ()) -> int:
    """Runs the agent, and what belongs beside it, until a signal ends it; 0 then. Nothing in the kernel changes by its end.

    Raises:
        SetupError: not root, or the kernel lacks a feature.
    """
    if os.geteuid() != 0:
        raise SetupError("the agent programs routes and rules of the kernel: run it as root")
    with contextlib.suppress(asyncio.CancelledError):
        try:
            asyncio.run(_run(parameters, companions))
        except* RestartNeeded:
            # The kernel keeps everything meanwhile, and the new process adopts it.
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # our own command line
    return 0


async def _run(parameters: Parameters, companions: Sequence[Companion]) -> None:
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    if task is not None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
    async with build_agent(parameters, companions) as agent:
        try:
            await agent.run()
        except* RestartNeeded as group:
            agent.log.info("restart for parameters", changed=str(group.exceptions[0]))
            raise

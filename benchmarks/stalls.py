"""The agent, with a watch on its event loop: ``python -m benchmarks.stalls CONFIG FILE``.

A stall is the time from when the loop knows what is ready until it looks again for what else is: whatever becomes ready meanwhile waits so
long. That includes waiting for the interpreter while the kernel thread has it, and for a processor while other programs have it; how long
the loop itself worked at most is a figure of its own. On SIGUSR1 the figures since the last one are written to FILE, as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tabinet.agent.parameters import Parameters, parse_parameters
from tabinet.agent.wiring import build_agent

LIMIT_S = 0.02
"""What is counted as long."""


class Watch(selectors.BaseSelector):
    """A selector that knows how long nobody asked it."""

    def __init__(self) -> None:
        self._inner = selectors.DefaultSelector()
        self._since: tuple[float, float] | None = None
        """Time and CPU time of this thread when the loop got the last answer."""
        self.stalls: list[tuple[float, float]] = []
        """Seconds, and how many of them the loop worked; the short ones are left out."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        asked = (time.perf_counter(), time.thread_time())
        ready = self._inner.select(timeout)
        now = (time.perf_counter(), time.thread_time())
        if self._since is not None:
            # A question without waiting takes time only if another thread has the interpreter.
            until = now if timeout is not None and timeout <= 0 else asked
            away_s = until[0] - self._since[0]
            if away_s > LIMIT_S / 4:
                self.stalls.append((away_s, until[1] - self._since[1]))
        self._since = now
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._inner.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._inner.get_map()

    def close(self) -> None:
        self._inner.close()

    def take(self) -> dict[str, float]:
        """Figures since the last time."""
        stalls, self.stalls = self.stalls, []
        longest, worked = (max((each[side] for each in stalls), default=0.0) for side in (0, 1))
        return {
            "longest_ms": round(longest * 1e3, 1),
            "worked_ms": round(worked * 1e3, 1),
            "over_20_ms": sum(away_s > LIMIT_S for away_s, _ in stalls),
        }


async def follow(parameters: Parameters, watch: Watch) -> None:
    """Runs the agent until SIGTERM. What its start takes is not counted."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with build_agent(parameters) as agent:
        await asyncio.sleep(0)
        watch.take()
        await agent.run()


def main() -> None:
    config, file = map(Path, sys.argv[1:])
    parameters, watch = parse_parameters(config.read_text(), os.environ, source=str(config)), Watch()

    def write(number: int, frame: object) -> None:
        part = file.with_suffix(".part")
        part.write_text(json.dumps(watch.take()))
        part.rename(file)

    signal.signal(signal.SIGUSR1, write)
    with contextlib.suppress(asyncio.CancelledError), asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(watch)) as runner:
        runner.run(follow(parameters, watch))


if __name__ == "__main__":
    main()

"""The agent's threads: results and errors come back, and one that hangs keeps nobody."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from tabinet.agent.kernelthread import KernelThread, call_aside


async def test_results_and_errors_come_back() -> None:
    assert await call_aside(divmod, 7, 3) == (2, 1)
    with pytest.raises(ZeroDivisionError):
        await call_aside(divmod, 7, 0)


def test_a_call_that_hangs_does_not_keep_the_loop_from_ending() -> None:
    gate, ended = threading.Event(), threading.Event()

    def hang() -> None:
        gate.wait()
        ended.set()

    async def run() -> None:
        task = asyncio.create_task(call_aside(hang))
        await asyncio.sleep(0.01)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(run())  # returns though the thread hangs
    gate.set()
    assert ended.wait(5)


async def test_calls_on_the_kernel_thread_run_one_after_another() -> None:
    kernel, running = KernelThread(), []

    def enter(name: int) -> int:
        running.append(name)
        assert running.count(name) == 1
        assert len(set(running)) == 1
        running.remove(name)
        return threading.get_ident()

    try:
        threads = await asyncio.gather(*(kernel.call(enter, n) for n in range(20)))
    finally:
        kernel.close()
    assert len(set(threads)) == 1

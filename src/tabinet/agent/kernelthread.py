"""The one thread that owns the kernel sockets: calls run there one after another, so at most one apply is in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class KernelThread:
    """Runs functions on a thread of its own."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "kernel")

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The function's result. No limit of time here: netlink calls have their own."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: function(*args, **kwargs))

    def close(self) -> None:
        """Lets the running call end and stops the thread."""
        self._executor.shutdown()

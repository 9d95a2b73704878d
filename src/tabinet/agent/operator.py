"""What the agent tells the operator of its own host: what it wants of the kernel, and what policies have counted.

It listens on an abstract unix socket, which belongs to the network namespace (unix(7)): no workload can reach it, nothing has to be
configured for it, and in a lab each host's commands find their own agent. Only root is answered. ``ask`` is the other end.

A large table is rendered a few milliseconds at a time on the kernel thread, among its other work; so what is told need not have been wanted
at one and the same moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from time import perf_counter

import msgspec

from tabinet.agent.http import Response, Routes, fetch
from tabinet.agent.kernelthread import KernelThread
from tabinet.errors import SetupError

ADDRESS = "unix:@tabinet-operator"
VIEW = "/dataplane"
STATISTICS = "/policy-statistics"
STOPPED, RUNNING = "/machine/stopped", "/machine/running"
"""Before an interface's name: a hypervisor's hook tells that the machine behind it has stopped, to go on elsewhere, or runs."""
ANSWER_TIMEOUT_S = 60.0
SLICE_S = 0.003


async def told_in_slices(kernel: KernelThread, views: Iterator[msgspec.Struct]) -> bytes:
    """The views as JSON, one a line; each slice of work is one call of the kernel thread."""
    lines: list[bytes] = []
    encode = msgspec.json.Encoder().encode

    def work() -> bool:
        deadline = perf_counter() + SLICE_S
        for view in views:
            lines.append(encode(view))
            if perf_counter() > deadline:
                return True
        return False

    while await kernel.call(work):
        pass
    return b"\n".join([*lines, b""])


def operator_routes(show_view: Callable[[], Awaitable[bytes]], show_statistics: Callable[[], Awaitable[bytes]]) -> Routes:
    """What is answered, by path."""

    async def view() -> Response:
        return Response(200, "application/x-ndjson", await show_view())

    async def statistics() -> Response:
        return Response(200, "application/json", await show_statistics())

    return {VIEW: view, STATISTICS: statistics}


def ask(path: str, address: str = ADDRESS) -> bytes | None:
    """What the agent of this network namespace answers; None when there is no agent.

    Raises:
        SetupError: it does not answer, or not us.
    """
    try:
        response = asyncio.run(fetch(address, path, ANSWER_TIMEOUT_S))
    except ConnectionRefusedError:
        return None
    except OSError as error:  # TimeoutError is one
        raise SetupError(f"the agent of this host does not answer: {error or 'not in time'}") from error
    if response.status != 200:
        raise SetupError(f"the agent of this host does not tell: {response.body.decode(errors='replace').strip()}")
    return response.body


def tell_machine(interface: str, *, running: bool, address: str = ADDRESS) -> bool | None:
    """The agent of this network namespace knows that the machine behind the interface has stopped here for good, or runs; False: no machine
    moves there. None: there is no agent.

    Raises:
        SetupError: it does not answer, or not us.
    """
    try:
        response = asyncio.run(fetch(address, f"{RUNNING if running else STOPPED}/{interface}", ANSWER_TIMEOUT_S, method="POST"))
    except ConnectionRefusedError:
        return None
    except OSError as error:  # TimeoutError is one
        raise SetupError(f"the agent of this host does not answer: {error or 'not in time'}") from error
    if response.status not in (200, 404):
        raise SetupError(f"the agent of this host does not take it: {response.body.decode(errors='replace').strip()}")
    return response.status == 200

"""Several things at the same time, whose failures become one error.

A task group ends with an exception group; whoever runs a lab wants one line that names everything that went wrong. Errors of ours are
joined into one ``LabError``; a bug keeps its traceback. The first failure cancels what is still under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable

from tabinet.errors import LabError, TabinetError


async def together(tasks: Iterable[Coroutine[None, None, object]], at_once: int = 1000) -> None:
    """All of them are done; at most ``at_once`` ran at a time.

    Raises:
        LabError: some failed; with all the reasons.
    """
    gate = asyncio.Semaphore(at_once)

    async def one(task: Coroutine[None, None, object]) -> None:
        async with gate:
            await task

    try:
        async with asyncio.TaskGroup() as group:
            for task in tasks:
                group.create_task(one(task))
    except BaseExceptionGroup as failed:
        ours, others = failed.split(TabinetError)
        if others is not None or ours is None:
            raise
        reasons = [str(error) for error in ours.exceptions]
        raise LabError("; ".join(dict.fromkeys(reasons))) from failed

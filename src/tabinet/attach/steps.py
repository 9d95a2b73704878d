"""Steps that can be taken back, and that no cancellation tears apart.

An attachment changes the store and the kernel in several steps, some at the same time. Each runs to its end even when the caller is
cancelled meanwhile, and puts down how to undo it; whatever goes wrong then, the undoing runs, latest first, also to its end. So after a
failure or a cancellation things are as before. Every step has a time limit of its own (that of the store, that of a netlink socket).
Nothing here knows what the steps do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tabinet.errors import TabinetError

T = TypeVar("T")
U = TypeVar("U")


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` returns or raises; a cancellation takes effect when it is done, and never inside it."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        task.exception()
        raise asyncio.CancelledError
    return task.result()


async def together(first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, U], *others: Coroutine[Any, Any, object]) -> tuple[T, U]:
    """What the first two return; all have been done at the same time, each to its end, and the first failure is raised."""
    one, two = asyncio.ensure_future(first), asyncio.ensure_future(second)
    rest = [asyncio.ensure_future(other) for other in others]
    await uninterrupted(_settled([one, two, *rest]))
    for task in rest:
        task.result()
    return one.result(), two.result()


async def _settled(tasks: Sequence[asyncio.Future[Any]]) -> None:
    await asyncio.wait(tasks)
    for task in tasks:
        task.exception()  # is heard, whoever raises it


async def in_thread(work: Callable[[], T]) -> T:
    """What ``work`` returns or raises, called in a thread; returns only when the thread is done with it."""
    return await uninterrupted(asyncio.to_thread(work))


@dataclass(slots=True)
class Undo:
    """What has to be done to take the steps so far back."""

    _entries: list[tuple[str, Callable[[], Awaitable[object]]]] = field(default_factory=list)

    def add(self, what: str, how: Callable[[], Awaitable[object]], *, last: bool = False) -> None:
        """``how`` takes back what was done; ``what`` says in words what is left if it fails. ``last``: after all the others."""
        self._entries.insert(0 if last else len(self._entries), (what, how))

    async def run(self) -> list[str]:
        """Everything is taken back, latest first; gives what could not be.

        A failure stops it: what was done earlier may still be in use by what is left (addresses by an interface).
        """
        while self._entries:
            what, how = self._entries[-1]
            try:
                await how()
            except TabinetError as error:
                return [f"left behind: {what} ({error})", *(f"left behind: {earlier}" for earlier, _ in self._entries[-2::-1])]
            self._entries.pop()
        return []

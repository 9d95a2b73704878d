"""Things done at the same time: their failures become one error, bugs stay bugs."""

from __future__ import annotations

import asyncio

import pytest

from tabinet.errors import KernelError, LabError
from tabinet.lab.together import together


async def test_all_are_done_and_never_more_at_once_than_allowed() -> None:
    running, most, done = 0, 0, []

    async def task(number: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        done.append(number)

    await together((task(number) for number in range(20)), at_once=3)
    assert (sorted(done), most) == (list(range(20)), 3)


async def test_all_reasons_are_told_in_one_line_each_once() -> None:
    async def fail(error: Exception) -> None:
        raise error

    with pytest.raises(LabError) as raised:
        await together([fail(LabError("one")), fail(KernelError(1, "two")), fail(LabError("one"))])
    assert str(raised.value) == "one; two: Operation not permitted (errno 1)"


async def test_a_bug_keeps_its_traceback() -> None:
    async def bug() -> None:
        raise ZeroDivisionError

    with pytest.raises(BaseExceptionGroup) as raised:
        await together([bug()])
    assert isinstance(raised.value.exceptions[0], ZeroDivisionError)


async def test_a_failure_ends_what_is_still_under_way() -> None:
    ended = asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def fail() -> None:
        await asyncio.sleep(0)
        raise LabError("no")

    with pytest.raises(LabError, match="no"):
        await together([wait(), fail()])
    assert ended.is_set()

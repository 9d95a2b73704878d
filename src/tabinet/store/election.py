"""One of many does a work: under a key with a lease, so that another one takes it over when the process dies.

In: a store, a key, and the work. Out: the work runs in one process at a time, except for the seconds in which a process that lost its
lease has not noticed; work must bear that. Who waits, waits in a watch: it costs the store nothing until the key goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from tabinet.errors import StoreError
from tabinet.store.api import Compare, Datastore, DeleteEvent, PutOp

TTL_S = 30
RETRY_S = 5.0
JITTER_S = 3.0
"""Those who waited for a key do not all ask for it at the same moment."""


async def lead(
    store: Datastore,
    key: str,
    identity: str,
    work: Callable[[], Awaitable[None]],
    *,
    ttl_s: int = TTL_S,
    retry_s: float = RETRY_S,
    jitter_s: float = JITTER_S,
    on_error: Callable[[Exception], None] = lambda _: None,
) -> None:
    """Does the work whenever this process leads, and again when it failed because of the store; returns only when cancelled.

    ``identity`` is stored while it leads, for people. When a leader dies another one begins after ``ttl_s`` seconds.
    """
    while True:
        try:
            if await _is_vacant(store, key):
                await _lead_once(store, key, identity, work, ttl_s)
            await asyncio.sleep(random.uniform(0, jitter_s))
        except* StoreError as group:
            on_error(_first(group))
            await asyncio.sleep(retry_s)


def _first(error: BaseException) -> Exception:
    """What went wrong first, out of the groups that it came in."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Exception)
    return error


async def _is_vacant(store: Datastore, key: str) -> bool:
    """True at once when nobody has the key; else when it went, or may have."""
    item = await store.get(key)
    if item is None:
        return True
    async with aclosing(store.watch(key, item.revision)) as batches:
        async for batch in batches:
            if any(isinstance(event, DeleteEvent) and event.key == key for event in batch.events):
                break
    return False


async def _lead_once(store: Datastore, key: str, identity: str, work: Callable[[], Awaitable[None]], ttl_s: int) -> None:
    lease = await store.grant(ttl_s)
    try:
        if (await store.txn([Compare(key, 0)], [PutOp(key, identity.encode(), lease)])).succeeded:
            async with asyncio.TaskGroup() as group:
                group.create_task(_stay(store, lease, ttl_s))
                group.create_task(_run(work))
    finally:
        with contextlib.suppress(StoreError):
            await asyncio.shield(store.revoke(lease))


async def _run(work: Callable[[], Awaitable[None]]) -> None:
    await work()


async def _stay(store: Datastore, lease: int, ttl_s: int) -> None:
    while True:
        await asyncio.sleep(ttl_s / 3)
        await store.keep_alive(lease)

"""One of the processes that write for a region leads: it does what must be done once. Decided in the store, by a lease.

In: a name for this process and a duty. Out: the duty runs in at most one process at a time, as long as its lease lives; when the process
dies or loses the store, the duty ends and another takes over after the lease's time. The key holds the leader's name, as
networking-calico has it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from tabinet.errors import Compacted, NotFound, StoreError
from tabinet.store.api import Compare, Datastore, DeleteEvent, GetOp, PutOp

RETRY_S = 1.0
Duty = Callable[[], Awaitable[None]]


async def lead(store: Datastore, path: str, name: str, ttl_s: int, duty: Duty, *, retry_s: float = RETRY_S) -> None:
    """Never returns: waits to be leader, leads, waits again. The duty is cancelled when leadership ends, and begun anew when it returns."""
    while True:
        try:
            lease = await store.grant(ttl_s)
            try:
                await _run_once(store, path, name, ttl_s, lease, duty)
            finally:
                with contextlib.suppress(StoreError):
                    await store.revoke(lease)
        except StoreError:
            pass
        await asyncio.sleep(retry_s)


async def _run_once(store: Datastore, path: str, name: str, ttl_s: int, lease: int, duty: Duty) -> None:
    result = await store.txn([Compare(path, 0)], [PutOp(path, name.encode(), lease)], [GetOp(path)])
    if not result.succeeded:
        await store.revoke(lease)  # nothing hangs on it, and there may be long to wait
        await _wait_gone(store, path, result.revision)
        return
    async with asyncio.TaskGroup() as group:
        task = group.create_task(_do(duty))
        try:
            await _keep(store, path, lease, ttl_s, task)
        finally:
            task.cancel()


async def _do(duty: Duty) -> None:
    await duty()


async def _keep(store: Datastore, path: str, lease: int, ttl_s: int, task: asyncio.Task[None]) -> None:
    """Returns when the duty is done or the lease can no longer be taken for granted."""
    loop = asyncio.get_running_loop()
    valid_until = loop.time() + ttl_s
    while not task.done():
        await asyncio.wait([task], timeout=ttl_s / 3)
        begun = loop.time()
        try:
            async with asyncio.timeout(max(0.0, valid_until - begun)):
                await store.keep_alive(lease)
                item = await store.get(path)
        except NotFound:
            return
        except (StoreError, TimeoutError):
            if loop.time() >= valid_until:
                return
            continue
        if item is None or item.lease != lease:
            return
        valid_until = begun + ttl_s


async def _wait_gone(store: Datastore, path: str, revision: int) -> None:
    """The key has been deleted, or it is worth to try anyway. Waits without limit: the leader may live for years."""
    try:
        async with aclosing(store.watch(path, revision)) as batches:
            async for batch in batches:
                if any(isinstance(event, DeleteEvent) and event.key == path for event in batch.events):
                    return
    except Compacted:
        return

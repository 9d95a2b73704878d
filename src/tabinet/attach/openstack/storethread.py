"""The store for threads: one thread with an event loop that owns the connection, and synchronous calls with time limits.

Neutron's API runs in threads, several at a time; the store's client is asynchronous and belongs to one loop. In: functions from a store
to a coroutine. Out: their results, or ``StoreError`` when the time is up. The thread is a daemon: it holds nothing that a process has to
save.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tabinet.errors import StoreUnavailable
from tabinet.store.api import Datastore

_T = TypeVar("_T")
OPEN_WITHIN_S = 30.0
CLOSE_WITHIN_S = 5.0


@dataclass(slots=True)
class StoreThread:
    """``start`` it before the first call, ``close`` it after the last."""

    open: Callable[[], Awaitable[Datastore]]
    timeout_s: float = 5.0
    """Of a call that names no other."""
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _thread: threading.Thread | None = None
    _store: Datastore | None = None

    def start(self) -> None:
        """The thread runs, and the store is open.

        Raises:
            TabinetError: the store's configuration makes no sense.
        """
        self._thread = threading.Thread(target=self._loop.run_forever, name="tabinet-store", daemon=True)
        self._thread.start()
        self._store = self._wait(self._open(), OPEN_WITHIN_S)

    def close(self) -> None:
        """The connection is closed and the thread has ended; what still ran is cancelled."""
        if self._thread is None:
            return
        self._wait(self._end(), CLOSE_WITHIN_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_WITHIN_S)
        self._thread = None
        self._loop.close()

    def call(self, work: Callable[[Datastore], Coroutine[Any, Any, _T]], timeout_s: float | None = None) -> _T:
        """What the work returns. To be called from other threads.

        Raises:
            StoreError: the store's own, or ``StoreUnavailable`` when it took too long.
        """
        return self._wait(work(self._opened()), self.timeout_s if timeout_s is None else timeout_s)

    def spawn(self, work: Callable[[Datastore], Coroutine[Any, Any, _T]]) -> Future[_T]:
        """The work runs in the thread until it ends or its future is cancelled."""
        return asyncio.run_coroutine_threadsafe(work(self._opened()), self._loop)

    def _opened(self) -> Datastore:
        if self._store is None:
            raise StoreUnavailable("the store is not open yet")
        return self._store

    async def _open(self) -> Datastore:
        return await self.open()

    async def _end(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._opened().close()

    def _wait(self, work: Coroutine[Any, Any, _T], timeout_s: float) -> _T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout_s)
        except FutureTimeout:
            future.cancel()
            raise StoreUnavailable(f"the store did not answer within {timeout_s:g} s") from None
        except CancelledError:
            raise StoreUnavailable("the connection to the store was closed") from None

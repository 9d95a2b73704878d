"""What FelixConfiguration says for one host, read once: the cluster's, and over it the host's own."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable

from tabinet.agent.log import Logger
from tabinet.agent.notify import notify
from tabinet.errors import DataError, StoreError
from tabinet.lib.backoff import Backoff
from tabinet.model.codec import decode_stored
from tabinet.model.keys import ResourceKey, path_of
from tabinet.model.resources import FelixConfiguration
from tabinet.store.api import Datastore

STORE_BACKOFF = Backoff(first_s=0.2, limit_s=5.0)
STARTING_USEC = 30_000_000
"""Microseconds that systemd shall go on to wait for us while we wait for the store (sd_notify(3))."""


async def felix_spec(store: Datastore, host: str) -> dict[str, object]:
    """The spec for this host; what cannot be understood says nothing here, and is reported by the agent.

    Raises:
        StoreError: the store does not answer.
    """
    spec: dict[str, object] = {}
    for name in ("default", f"node.{host}"):
        item = await store.get(path_of(ResourceKey("FelixConfiguration", name)))
        with contextlib.suppress(DataError):
            decoded = decode_stored(item.key, item.value) if item is not None else None
            if decoded is not None and isinstance(decoded[1], FelixConfiguration):
                spec |= decoded[1].spec
    return spec


async def read_felix(store: Datastore, host: str, log: Logger, waiting: Callable[[str], None]) -> dict[str, object]:
    """The FelixConfiguration spec of this host. Waits for the store as long as it takes: without it there is nothing to do."""
    failures = 0
    while True:
        try:
            return await felix_spec(store, host)
        except StoreError as error:
            failures += 1
            delay_s = STORE_BACKOFF.delay_s(failures, random.random)
            waiting(str(error))
            log.warning("waiting for the store", error=str(error), retry_s=round(delay_s, 2))
            notify(f"EXTEND_TIMEOUT_USEC={STARTING_USEC}\nSTATUS=waiting for the store: {error}")
            await asyncio.sleep(delay_s)

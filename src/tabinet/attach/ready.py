"""Waiting until the agent of a host has an endpoint in the kernel.

In: the store, the status key, the revision of the WorkloadEndpoint that is to be in the kernel. Ready means: the agent says ``up`` for
this revision or a later one. The status is watched, not polled; a store that goes away meanwhile is asked again. When time is up
the error says what was missing: no agent, an agent that is behind, or the agent's own reason.

In the agent's own process ``LocalAgent`` takes the store's place: what it knows, it need not hear.

The watch stands before the endpoint is written. etcd serves a watch that begins in the past only every 100 ms, one that begins now at
once, and the agent needs less time than that.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from tabinet.errors import AttachError, Compacted, DataError, StoreError, StoreUnavailable
from tabinet.lib.backoff import Backoff
from tabinet.model.keys import ResourceKey
from tabinet.model.status import (
    UP,
    EndpointStatusKey,
    HostStatusKey,
    parse_endpoint_status,
    parse_host_status,
    status_path_of,
)
from tabinet.store.api import Datastore, GetOp, KeyValue, PutEvent, WatchBatch

_RETRY = Backoff(first_s=0.05, limit_s=1.0)


def judge_status(item: KeyValue | None, revision: int) -> str:
    """Why an endpoint with this stored status is not ready at ``revision``; empty when it is."""
    if item is None:
        return "no status has been reported for the endpoint"
    try:
        status = parse_endpoint_status(item.key, item.value)
    except DataError as error:
        return f"its status cannot be understood ({error})"
    # Calico's agent gives no revision. Its word counts when it is later than the endpoint.
    holds = status.revision or item.revision
    if holds < revision:
        return f"the agent holds revision {holds} of the endpoint, and {revision} is wanted"
    if status.status != UP:
        return f"the agent reports it {status.status}" + (f": {status.reason}" if status.reason else "")
    return ""


class LocalAgent(Protocol):
    """The agent of the host that something is attached to, in the same process."""

    def workload_mtu(self) -> int | None:
        """The largest packet that workloads can send wherever it goes, in bytes; 0: no tunnel limits it; None: not known yet."""
        ...

    def missing(self, key: ResourceKey, revision: int) -> str:
        """Why the kernel does not have the endpoint of this revision, or a later one; empty when it has."""
        ...

    async def wait_until_ready(self, key: ResourceKey, revision: int, wait_s: float) -> None:
        """The kernel has the endpoint of this revision, or a later one.

        Raises:
            AttachError: not within ``wait_s`` seconds; says what was missing.
        """
        ...


@dataclass(slots=True)
class StatusWatch:
    """The status of one endpoint, from the moment of ``open`` until ``aclose``."""

    store: Datastore
    key: EndpointStatusKey
    latest: KeyValue | None
    """The stored status as last seen; to begin with, at ``seen_revision``."""
    seen_revision: int
    """Everything up to this revision of the store is in ``latest``."""
    _batches: AsyncGenerator[WatchBatch, None] | None = None
    _trouble: str = ""

    async def open(self) -> None:
        """The watch stands.

        Raises:
            StoreUnavailable, StoreDenied: it could not be set up.
        """
        self._batches = self.store.watch(status_path_of(self.key), self.seen_revision)
        self._take(await anext(self._batches))

    async def aclose(self) -> None:
        """The watch has ended."""
        if self._batches is not None:
            await self._batches.aclose()
            self._batches = None

    async def wait_until_ready(self, revision: int, wait_s: float) -> None:
        """The agent has the endpoint of this revision, or a later one, in the kernel.

        Raises:
            AttachError: not within ``wait_s`` seconds; says what was missing.
            StoreDenied: the store refuses to tell.
        """
        try:
            async with asyncio.timeout(wait_s):
                failures = 0
                while judge_status(self.latest, revision):
                    try:
                        await self._next()
                        failures, self._trouble = 0, ""
                    except StoreUnavailable as error:
                        await self.aclose()
                        failures, self._trouble = failures + 1, f"; the store went away ({error})"
                        await asyncio.sleep(_RETRY.delay_s(failures, random.random))
        except TimeoutError:
            agent = await _describe_agent(self.store, self.key)
            missing = judge_status(self.latest, revision) + self._trouble
            raise AttachError(f"not ready after {wait_s:g} s: {missing}; {agent}") from None

    async def _next(self) -> None:
        """One more batch has been taken in."""
        try:
            if self._batches is None:
                await self.open()
            elif (batch := await anext(self._batches, None)) is not None:
                self._take(batch)
            else:
                raise StoreUnavailable("the watch ended")
        except Compacted:
            await self.aclose()
            result = await self.store.txn([], [GetOp(status_path_of(self.key))])
            self.latest, self.seen_revision = result.values[0], result.revision

    def _take(self, batch: WatchBatch) -> None:
        path = status_path_of(self.key)
        for event in batch.events:
            if isinstance(event, PutEvent):
                if event.item.key == path:
                    self.latest = event.item
            elif event.key == path:
                self.latest = None
        self.seen_revision = max(self.seen_revision, batch.revision)


async def _describe_agent(store: Datastore, key: EndpointStatusKey) -> str:
    path = status_path_of(HostStatusKey(key.node, key.region))
    try:
        item = await store.get(path)
    except StoreError as error:
        return f"whether an agent runs on {key.node} is not known ({error})"
    if item is None:
        return f"no agent is alive on {key.node} (its sign of life, {path}, is missing)"
    try:
        return f"an agent is alive on {key.node}, last heard of at {parse_host_status(path, item.value).time}"
    except DataError:
        return f"an agent is alive on {key.node}"

"""Waiting until the agent of a host has an endpoint in the kernel.

In: the store, the status key, the revision of the WorkloadEndpoint that is to be in the kernel. Ready means: the agent says ``up`` for
this revision or a later one. The status is watched, not polled; a store that goes away meanwhile is asked again. When time is up
the error says what was missing: no agent, an agent that is behind, or the agent's own reason.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import aclosing

import msgspec

from tabinet.errors import AttachError, Compacted, DataError, StoreError, StoreUnavailable
from tabinet.lib.backoff import Backoff
from tabinet.model.status import (
    UP,
    EndpointStatusKey,
    HostStatusKey,
    parse_endpoint_status,
    parse_host_status,
    status_path_of,
)
from tabinet.store.api import Datastore, GetOp, KeyValue, PutEvent

_RETRY = Backoff(first_s=0.05, limit_s=1.0)


class Awaited(msgspec.Struct, frozen=True, gc=False):
    """What is waited for, and what was known when the endpoint was written."""

    key: EndpointStatusKey
    revision: int
    """Of the WorkloadEndpoint."""
    status: KeyValue | None
    """The stored status at that moment."""
    store_revision: int
    """The store's revision at that moment: everything that comes later is watched."""


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


async def wait_until_ready(store: Datastore, awaited: Awaited, wait_s: float) -> None:
    """The agent has the endpoint in the kernel.

    Raises:
        AttachError: not within ``wait_s`` seconds; says what was missing.
        StoreDenied: the store refuses to tell.
    """
    progress = _Progress(judge_status(awaited.status, awaited.revision))
    if not progress.missing:
        return
    try:
        async with asyncio.timeout(wait_s):
            await _watch(store, awaited, progress)
    except TimeoutError:
        agent = await _describe_agent(store, awaited.key)
        raise AttachError(f"not ready after {wait_s:g} s: {progress.missing}; {agent}") from None


class _Progress(msgspec.Struct):
    missing: str


async def _watch(store: Datastore, awaited: Awaited, progress: _Progress, chance: Callable[[], float] = random.random) -> None:
    path = status_path_of(awaited.key)
    after = awaited.store_revision
    failures = 0
    while True:
        try:
            async with aclosing(store.watch(path, after)) as batches:
                async for batch in batches:
                    failures = 0
                    after = max(after, batch.revision)
                    for event in batch.events:
                        if isinstance(event, PutEvent) and event.item.key == path:
                            progress.missing = judge_status(event.item, awaited.revision)
                            if not progress.missing:
                                return
        except Compacted:
            result = await store.txn([], [GetOp(path)])
            after = result.revision
            progress.missing = judge_status(result.values[0], awaited.revision)
            if not progress.missing:
                return
        except StoreUnavailable as error:
            progress.missing = f"the store went away ({error})"
            failures += 1
            await asyncio.sleep(_RETRY.delay_s(failures, chance))


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

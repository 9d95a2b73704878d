"""``tabinet clerk``: what one process of a cluster does for all: the history of what others change, and changes that nobody confirmed.

In: a store. Out: entries of the history; at its deadline, a change of ``apply --confirm`` taken back, also when the machine that made it is
gone. Every agent is ready to do it (``beside_agent``); a lease in the store lets one.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import click

from tabinet.cli.place import STORE_OPTIONS, Place, open_place

if TYPE_CHECKING:
    from tabinet.agent.companions import Surroundings
    from tabinet.store.api import Datastore

KEY = "/tabinet/v1/clerk"
LOOK_S = 2.0
"""So often the clerk asks whether a change waits to be confirmed."""


@click.command()
@STORE_OPTIONS
@click.pass_obj
def clerk(place: Place) -> int:
    """Keep the history of what others change, and take back what nobody confirmed.

    In the foreground, until interrupted. Every agent does it unless its [clerk] enabled is false, one at a time: this is for clusters
    whose hosts run other agents. Any number may run; one of them works, under a lease.
    """
    from tabinet.cli.labs import run_to_the_end
    from tabinet.cli.output import note

    async def run() -> int:
        store = await open_place(place)
        try:
            await serve(store, f"{socket.gethostname()}:{os.getpid()}", lambda error: note(f"the store: {error}"))
        finally:
            await store.close()
        return 0

    return run_to_the_end(run())


@asynccontextmanager
async def beside_agent(surroundings: Surroundings) -> AsyncIterator[None]:
    """The agent's process is ready to be the clerk as long as the agent runs."""
    last = ""

    def tell(error: Exception) -> None:
        nonlocal last
        if str(error) != last:  # it is tried again every few seconds
            last = str(error)
            surroundings.log.info("clerk", error=last)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(serve(surroundings.store, surroundings.host, tell))
        try:
            yield
        finally:
            task.cancel()


async def serve(store: Datastore, identity: str, on_error: Callable[[Exception], None] = lambda _: None, *, ttl_s: int = 30) -> None:
    """Is the clerk whenever no other process is; returns only when cancelled."""
    from tabinet.store.election import lead

    await lead(store, KEY, identity, lambda: work(store, identity), ttl_s=ttl_s, on_error=on_error)


async def work(store: Datastore, identity: str, *, look_s: float = LOOK_S) -> None:
    """What the clerk does; never returns.

    Raises:
        StoreError: the store went away (in an ExceptionGroup).
    """
    from tabinet.store.recorder import Recorder

    async with asyncio.TaskGroup() as group:
        group.create_task(Recorder(store).run())
        group.create_task(_take_back(store, identity, look_s))


async def _take_back(store: Datastore, identity: str, look_s: float) -> None:
    """A change that waits longer than it should is taken back."""
    from tabinet.cli import pending
    from tabinet.store.recording import RecordingStore

    recording = RecordingStore(store, f"clerk@{identity}", f"tabinet {pending.UNCONFIRMED}")
    while True:
        found = await pending.read(store)
        if found is not None and found[0].deadline <= time.time():
            await pending.roll_back(recording, found[0].id)
        await asyncio.sleep(look_s)

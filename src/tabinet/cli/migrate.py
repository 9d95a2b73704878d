"""``tabinet datastore migrate export | import | lock | unlock``: everything from one store to another.

The order: ``lock`` (agents hold still), ``export > file``, ``import -f file --config NEW``, point the hosts to the new store, ``unlock``
there. The lock goes along: the new store is locked until it is unlocked.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from tabinet.cli.change import JSON
from tabinet.cli.completion import complete_files
from tabinet.cli.place import STORE_OPTIONS, Place

if TYPE_CHECKING:
    from tabinet.cli.dump import Entry
    from tabinet.store.api import Datastore
    from tabinet.store.client import ResourceClient

CHUNK = 100
"""Entries in one transaction: etcd takes 128."""
CHUNK_BYTES = 500_000


@click.group()
def datastore() -> None:
    """Move everything from one store to another."""


@datastore.group()
def migrate() -> None:
    """Lock a store, export it, import it elsewhere, unlock it there."""


@migrate.command()
@JSON
@STORE_OPTIONS
@click.pass_obj
def lock(place: Place, as_json: bool) -> int:
    """Lock the store: agents leave everything as it is until it is unlocked.

    Resources can still be written; they take effect after the unlock.
    """
    return _set_ready(place, False, as_json)


@migrate.command()
@JSON
@STORE_OPTIONS
@click.pass_obj
def unlock(place: Place, as_json: bool) -> int:
    """Unlock the store: agents follow it again."""
    return _set_ready(place, True, as_json)


@migrate.command()
@click.option("--force", is_flag=True, help="Also when the store is not locked: what is written meanwhile may be missing.")
@STORE_OPTIONS
@click.pass_obj
def export(place: Place, force: bool) -> int:
    """Write everything in the store to standard output: resources of all kinds, addresses (IPAM), DHCP subnets.

    One line of JSON for each value, with its key, exactly as it is stored. What hosts report (status, liveness, elections) is left out:
    they report it again.
    """
    asyncio.run(_export(place, force))
    return 0


@migrate.command("import")
@click.option(
    "-f", "--filename", required=True, metavar="FILE|-", shell_complete=complete_files, help="What export wrote; '-' is standard input."
)
@click.option("--force", is_flag=True, help="Also into a store that is not empty: values that exist are overwritten.")
@JSON
@STORE_OPTIONS
@click.pass_obj
def import_(place: Place, filename: str, force: bool, as_json: bool) -> int:
    """Write what export wrote into an empty store.

    The whole file is checked first. The store is locked before anything else is written, if the file comes from a locked one.
    """
    from tabinet.cli.dump import parse_dump
    from tabinet.cli.output import fail, show_json

    with click.open_file(filename, "rb") as file:
        entries = parse_dump(file.read(), "standard input" if filename == "-" else filename)
    written, failure = asyncio.run(_import(place, entries, force))
    if as_json:
        show_json({"entries": len(entries), "written": written})
    else:
        click.echo(f"{written} of {len(entries)} values imported")
    if failure is not None:
        if not written:
            raise failure
        fail(str(failure))
        return 1
    return 0


# --- lock -----------------------------------------------------------------------------------------------------------


def _set_ready(place: Place, ready: bool, as_json: bool) -> int:
    from tabinet.cli.output import show_outcomes
    from tabinet.cli.place import open_place
    from tabinet.store.client import ResourceClient

    async def run() -> None:
        store = await open_place(place)
        try:
            await set_ready(ResourceClient(store), ready)
        finally:
            await store.close()

    asyncio.run(run())
    show_outcomes([("datastore", "unlocked" if ready else "locked")], as_json=as_json)
    return 0


async def set_ready(client: ResourceClient, ready: bool) -> None:
    """``ClusterInformation/default`` says ``datastoreReady: ready``; it is made, with a new GUID, if there is none."""
    import uuid

    from tabinet.errors import AlreadyExists, NotFound
    from tabinet.model.keys import ResourceKey

    def edit(document: dict[str, Any]) -> dict[str, Any]:
        return {**document, "spec": {**(document.get("spec") or {}), "datastoreReady": ready}}

    try:
        await client.change(ResourceKey("ClusterInformation", "default"), edit)
        return
    except NotFound:
        fresh = {
            "apiVersion": "projectcalico.org/v3",
            "kind": "ClusterInformation",
            "metadata": {"name": "default"},
            "spec": {"clusterGUID": uuid.uuid4().hex, "datastoreReady": ready},
        }
    try:
        await client.create(fresh)
    except AlreadyExists:
        await client.change(ResourceKey("ClusterInformation", "default"), edit)


async def _is_locked(client: ResourceClient) -> bool:
    from tabinet.cli.columns import value_at
    from tabinet.errors import NotFound
    from tabinet.model.keys import ResourceKey

    try:
        document = await client.get(ResourceKey("ClusterInformation", "default"))
    except NotFound:
        return False
    return value_at(document, "spec.datastoreReady") is False


# --- export and import ----------------------------------------------------------------------------------------------


async def _export(place: Place, force: bool) -> None:
    from tabinet.cli.dump import render_entry, render_header
    from tabinet.cli.output import note
    from tabinet.cli.place import open_place
    from tabinet.errors import Conflict
    from tabinet.store.client import ResourceClient

    store = await open_place(place)
    try:
        if not force and not await _is_locked(ResourceClient(store)):
            raise Conflict("the store is not locked: tabinet datastore migrate lock first, or --force")
        out = sys.stdout.buffer
        out.write(render_header())
        count = 0
        async for entry in read_entries(store):
            out.write(render_entry(entry))
            count += 1
        out.flush()
    finally:
        await store.close()
    note(f"{count} values exported")


async def read_entries(store: Datastore) -> AsyncIterator[Entry]:
    """Everything that an export holds, in the order of the keys; all of Calico's at one revision."""
    from tabinet.cli.dump import Entry, is_exported
    from tabinet.model.kept_invariants import INVARIANTS
    from tabinet.model.keys import ROOT

    for prefix in (ROOT, INVARIANTS):
        async for page in store.list(prefix):
            for item in page.items:
                if is_exported(item.key) and not item.lease:
                    yield Entry(item.key, item.value)


async def _import(place: Place, entries: Sequence[Entry], force: bool) -> tuple[int, Exception | None]:
    """How many values were written, and what stopped it."""
    from tabinet.cli.place import open_place
    from tabinet.errors import Conflict, StoreError

    store = await open_place(place)
    written = 0
    try:
        if not force:
            async for entry in read_entries(store):
                raise Conflict(f"the store is not empty (it has {entry.key}): import into an empty one, or --force")
        for chunk in chunks_of(entries):
            try:
                await _write(store, chunk, force)
            except StoreError as error:
                return written, error
            written += len(chunk)
        return written, None
    finally:
        await store.close()


async def _write(store: Datastore, chunk: Sequence[Entry], force: bool) -> None:
    from tabinet.errors import Conflict
    from tabinet.store.api import Compare, PutOp

    compares = [] if force else [Compare(entry.key, 0) for entry in chunk]
    result = await store.txn(compares, [PutOp(entry.key, entry.value) for entry in chunk])
    if not result.succeeded:
        raise Conflict(f"somebody else writes to the store: between {chunk[0].key} and {chunk[-1].key} something exists already")


def chunks_of(entries: Sequence[Entry]) -> list[list[Entry]]:
    """The entries in the order in which they are written, for one transaction each: first what says whether the store is locked."""
    first = [entry for entry in entries if "/clusterinformations/" in entry.key]
    chunks = [[entry] for entry in first]
    room = 0
    for entry in entries:
        if entry in first:
            continue
        size = len(entry.key) + len(entry.value)
        if len(chunks) == len(first) or len(chunks[-1]) == CHUNK or size > room:
            chunks.append([])
            room = CHUNK_BYTES
        chunks[-1].append(entry)
        room -= size
    return chunks

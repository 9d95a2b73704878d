"""Deleting a pool without taking addresses away from those who use them.

In: the name of a pool. Out: it is deleted, or an error says who uses it. The order makes it safe: the pool is disabled first, and because
every assignment compares its pool's revision, nobody gets an address of it from then on; then is looked who has one; then it is deleted.
"""

from __future__ import annotations

from collections.abc import Mapping

from tabinet.errors import Conflict, NotFound
from tabinet.ipam.blocks import Document, owner_of
from tabinet.ipam.client import IpamClient
from tabinet.ipam.pools import in_use, parse_pool
from tabinet.ipam.reading import list_blocks
from tabinet.ipam.view import Stored
from tabinet.lib.ip import Prefix
from tabinet.model.codec import decode_document, encode_document
from tabinet.model.keys import ResourceKey, path_of
from tabinet.store.api import Compare, Datastore, DeleteOp, KeyValue, PutOp


async def delete_pool(store: Datastore, name: str, *, force: bool = False) -> tuple[Prefix, ...]:
    """The pool is deleted, and its empty blocks with it; returns those.

    A pool in use stays as it is; with ``force`` it is drained: disabled, its empty blocks given up, and deleted by a later call, when the
    last address is released.

    Raises:
        NotFound: there is no such pool.
        Conflict: it is in use, and the error says by how many and whom; or somebody changed it meanwhile.
        DataError, StoreUnavailable, StoreDenied: as reading and writing.
    """
    path = path_of(ResourceKey("IPPool", name))
    item = await store.get(path)
    if item is None:
        raise NotFound(f"IPPool/{name} does not exist")
    pool = parse_pool(path, item.revision, item.value)
    use = in_use(pool, _documents(await list_blocks(store)))
    if use.is_used and not force:
        raise Conflict(f"IPPool/{name} is in use: {use}; delete its workloads first, or disable and drain it with --force")
    disabled = item if pool.disabled else await _set_disabled(store, item)
    blocks = await list_blocks(store)
    use = in_use(pool, _documents(blocks))
    if use.is_used and not force:
        # Somebody was assigned an address just before: it is as if we had come later.
        if disabled is not item:
            await _replace(store, disabled, item.value)
        raise Conflict(f"IPPool/{name} is in use: {use}; delete its workloads first, or disable and drain it with --force")
    given_up = await _give_up(store, blocks, use.empty)
    if use.is_used:
        raise Conflict(
            f"IPPool/{name} is disabled now, and {len(given_up)} empty blocks were given up; {use}: delete it again when all is released"
        )
    result = await store.txn([Compare(path, disabled.revision)], [DeleteOp(path)])
    if not result.succeeded:
        raise Conflict(f"IPPool/{name} changed meanwhile: it was not deleted")
    return given_up


def _documents(blocks: Mapping[Prefix, Stored]) -> dict[Prefix, Document | None]:
    return {block: stored.document for block, stored in blocks.items()}


async def _give_up(store: Datastore, blocks: Mapping[Prefix, Stored], empty: tuple[Prefix, ...]) -> tuple[Prefix, ...]:
    client = IpamClient(store)
    for block in empty:
        document = blocks[block].document
        await client.release_block(block, owner_of(document) if document else "", rest=False)
    return empty


async def _set_disabled(store: Datastore, item: KeyValue) -> KeyValue:
    document = decode_document(item.value, item.key)
    document["spec"]["disabled"] = True
    return await _replace(store, item, encode_document(document))


async def _replace(store: Datastore, item: KeyValue, value: bytes) -> KeyValue:
    result = await store.txn([Compare(item.key, item.revision)], [PutOp(item.key, value)])
    if not result.succeeded:
        raise Conflict(f"IPPool/{item.key.rpartition('/')[2]} changed meanwhile: nothing was done")
    return KeyValue(item.key, value, result.revision, item.create_revision)

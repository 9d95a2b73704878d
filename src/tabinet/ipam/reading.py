"""Reading what address management has stored: blocks, claims and handles, each with the revision that it was read at.

In: a store, and what is wanted. Out: ``Stored`` values; one that cannot be understood has a revision and no document. Each function is one
listing, or one request for each ``MAX_COMPARES`` keys.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence

from tabinet.errors import DataError
from tabinet.ipam import blocks as algebra
from tabinet.ipam import handles
from tabinet.ipam.owners import affinity_key, affinity_listing, affinity_of_key
from tabinet.ipam.pools import containing_block, containing_pool
from tabinet.ipam.settings import load_settings
from tabinet.ipam.view import ABSENT, MAX_COMPARES, Stored, View
from tabinet.lib.ip import Prefix
from tabinet.model.keys import BLOCKS, AffinityKey, BlockKey, HandleKey, Key, VirtualAffinityKey, parse_path, path_of
from tabinet.store.api import Datastore, GetOp, KeyValue


def parse_stored(item: KeyValue | None) -> Stored:
    """The value in ``item``; without a document when it cannot be understood."""
    if item is None:
        return ABSENT
    try:
        match parse_path(item.key):
            case BlockKey(block):
                return Stored(algebra.parse_block(item.key, item.value, block), item.revision)
            case AffinityKey() | VirtualAffinityKey():
                return Stored(handles.parse_affinity(item.key, item.value), item.revision)
            case HandleKey():
                return Stored(handles.parse_handle(item.key, item.value), item.revision)
            case _:
                return Stored(None, item.revision)
    except DataError:
        return Stored(None, item.revision)


async def listed(store: Datastore, prefix: str) -> AsyncIterator[tuple[Key, Stored]]:
    """Everything of ours below ``prefix``, at one revision."""
    async for page in store.list(prefix):
        for item in page.items:
            key = parse_path(item.key)
            if key is not None:
                yield key, parse_stored(item)


async def read_keys(store: Datastore, keys: Sequence[Key]) -> list[Stored]:
    """What is stored under the keys, in their order."""
    found: list[Stored] = []
    for start in range(0, len(keys), MAX_COMPARES):
        result = await store.txn([], [GetOp(path_of(key)) for key in keys[start : start + MAX_COMPARES]])
        found += map(parse_stored, result.values)
    return found


async def read_blocks(store: Datastore, blocks: Iterable[Prefix]) -> dict[Prefix, Stored]:
    """The blocks, those that do not exist included."""
    wanted = sorted(blocks)
    return dict(zip(wanted, await read_keys(store, [BlockKey(block) for block in wanted]), strict=True))


async def read_handles(store: Datastore, names: Sequence[str]) -> dict[str, Stored]:
    """The handles, those that do not exist included."""
    return dict(zip(names, await read_keys(store, [HandleKey(name) for name in names]), strict=True))


async def read_affinities(store: Datastore, owner: str) -> dict[Prefix, Stored]:
    """All claims of the owner."""
    found = [(affinity_of_key(key), stored) async for key, stored in listed(store, affinity_listing(owner))]
    return {claim[1]: stored for claim, stored in found if claim is not None}


async def list_blocks(store: Datastore) -> dict[Prefix, Stored]:
    """All blocks."""
    return {key.block: stored async for key, stored in listed(store, BLOCKS) if isinstance(key, BlockKey)}


async def read_claims(store: Datastore, owner: str, blocks: Sequence[Prefix]) -> dict[Prefix, Stored]:
    """The owner's claims on these blocks, those that do not exist included."""
    return dict(zip(blocks, await read_keys(store, [affinity_key(owner, block) for block in blocks]), strict=True))


async def read_blocks_of(store: Datastore, addresses: Sequence[Prefix]) -> tuple[View, list[Prefix]]:
    """The blocks that the addresses are in: where the pools say, or wherever else; with the settings, as nobody's view."""
    settings = await load_settings(store, "")
    pools = settings.pools
    likely = {containing_block(pool, address) for address in addresses if (pool := containing_pool(pools, address))}
    blocks = await read_blocks(store, likely)
    if not all(any(blocks[block].exists and block.contains(address) for block in likely) for address in addresses):
        blocks |= await list_blocks(store)
    touched = [block for block in sorted(blocks) if blocks[block].exists and any(block.contains(one) for one in addresses)]
    return View(owner="", settings=settings, blocks=blocks), touched

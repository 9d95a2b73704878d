"""Splitting a pool into equal parts, with its addresses in use.

In: the name of a pool. Out: the new pools. One transaction deletes the pool and creates the parts: at no time is there no pool, or two for
an address. Blocks, claims and addresses are not touched; each block lies in one part, because a part is not smaller than a block.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from tabinet.errors import Conflict, InputError, NotFound, Problem
from tabinet.ipam.pools import Pool, parse_pool
from tabinet.ipam.reading import list_blocks
from tabinet.lib.ip import Prefix
from tabinet.model.codec import decode_document, encode_document
from tabinet.model.keys import ResourceKey, path_of
from tabinet.store.api import Compare, Datastore, DeleteOp, KeyValue, PutOp

MAX_PARTS = 64
"""All of them are made in one transaction."""
MAX_NAME = 253


async def split_pool(
    store: Datastore, name: str, parts: int, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> list[tuple[str, Prefix]]:
    """The pool is split; returns names and prefixes of the parts, in ascending order.

    Raises:
        NotFound: there is no such pool.
        InputError: it cannot be split so.
        Conflict: somebody changed the pool meanwhile, or a name is taken; nothing was changed.
        DataError: the pool cannot be understood.
    """
    path = path_of(ResourceKey("IPPool", name))
    item = await store.get(path)
    if item is None:
        raise NotFound(f"IPPool/{name} does not exist")
    pool = parse_pool(path, item.revision, item.value)
    cidrs = part_prefixes(pool, parts, await list_blocks(store))
    documents = [part_of(decode_document(item.value, path), number, cidr, now()) for number, cidr in enumerate(cidrs)]
    await _replace(store, item, documents)
    return [(str(document["metadata"]["name"]), cidr) for document, cidr in zip(documents, cidrs, strict=True)]


def part_prefixes(pool: Pool, parts: int, blocks: Iterable[Prefix]) -> list[Prefix]:
    """The prefixes of the parts, in ascending order.

    Raises:
        InputError: not a power of two from 2 to 64, or a part would be smaller than a block.
    """
    if parts not in [1 << bits for bits in range(1, MAX_PARTS.bit_length())]:
        raise InputError([Problem(path="parts", value=str(parts), allowed=f"a power of two from 2 to {MAX_PARTS}")])
    length = pool.cidr.length + parts.bit_length() - 1
    longest = min([pool.block_length, *(block.length for block in blocks if pool.cidr.contains(block))])
    if length > longest:
        allowed = f"{pool.cidr} has blocks of /{longest}: at most {1 << max(0, longest - pool.cidr.length)} parts"
        raise InputError([Problem(path="parts", value=str(parts), allowed=allowed)])
    size = 1 << (pool.cidr.bits - length)
    return [Prefix(pool.cidr.family, pool.cidr.value + number * size, length) for number in range(parts)]


def part_of(document: dict[str, Any], number: int, cidr: Prefix, now: datetime) -> dict[str, Any]:
    """The pool's document as that of one of its parts, with the name that Calico gives it."""
    part = copy.deepcopy(document)
    ending = f"-{number}"
    part["metadata"] = {
        **{key: value for key, value in part["metadata"].items() if key in ("labels", "annotations")},
        "name": f"split-{document['metadata']['name']}"[: MAX_NAME - len(ending)] + ending,
        "uid": str(uuid.uuid4()),
        "creationTimestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    part["spec"]["cidr"] = str(cidr)
    return part


async def _replace(store: Datastore, old: KeyValue, documents: list[dict[str, Any]]) -> None:
    paths = [path_of(ResourceKey("IPPool", document["metadata"]["name"])) for document in documents]
    compares = [Compare(old.key, old.revision), *(Compare(path, 0) for path in paths)]
    puts = [PutOp(path, encode_document(document)) for path, document in zip(paths, documents, strict=True)]
    result = await store.txn(compares, [DeleteOp(old.key), *puts])
    if not result.succeeded:
        raise Conflict(f"the pool was changed meanwhile, or one of {', '.join(path.rpartition('/')[2] for path in paths)} exists already")

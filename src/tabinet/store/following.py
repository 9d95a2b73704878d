"""``follow``: resources as they are, then as they change, for people who watch.

In: a store, and which kinds and namespaces. Out: ``Change``s without end, each with the whole document; first one ``ADDED`` for each
resource that exists. When the store was away or forgot its history, the difference to what was told before is told: nothing is missed but
what came and went in the meantime. Keeps every document that it told. What cannot be read goes to ``on_broken``.

For programs that compute with typed records there is ``syncer``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Literal

import msgspec

from tabinet.errors import Compacted, DataError, StoreUnavailable
from tabinet.model.keys import ResourceKey, parse_path
from tabinet.store.api import Datastore, DeleteEvent, KeyValue, PutEvent
from tabinet.store.client import Document, prefixes_of, read_item

RETRY_S = 1.0
"""Pause before a store that went away is asked again."""


class Change(msgspec.Struct, frozen=True, gc=False):
    """What happened to a resource."""

    event: Literal["ADDED", "MODIFIED", "DELETED"]
    key: ResourceKey
    document: Document
    """As it is now; of a deleted one, as it was last told."""


async def follow(
    store: Datastore,
    wanted: Sequence[tuple[str, str | None]],
    *,
    on_broken: Callable[[DataError], None],
    on_lost: Callable[[StoreUnavailable], None],
) -> AsyncGenerator[Change, None]:
    """Every change of the resources of these (kind, namespace or None for all), for ever.

    Raises:
        StoreUnavailable: the store did not answer the first time; later ``on_lost`` is told, and it is asked again.
        StoreDenied: the store does not let us read.
    """
    prefixes = tuple(prefix for kind, namespace in wanted for prefix in prefixes_of(kind, namespace))
    known: dict[str, Document] = {}
    listed_once = False
    while True:
        try:
            current, revisions = await _list_all(store, prefixes, on_broken)
            for change in _differences(known, current):
                yield change
            listed_once = True
            async with aclosing(store.watch(_common(prefixes), min(revisions.values()))) as batches:
                async for batch in batches:
                    for event in batch.events:
                        change_or_none = _on_event(event, revisions, known, on_broken)
                        if change_or_none is not None:
                            yield change_or_none
        except Compacted:
            continue
        except StoreUnavailable as error:
            if not listed_once:
                raise
            on_lost(error)
            await asyncio.sleep(RETRY_S)


def _common(prefixes: Sequence[str]) -> str:
    """The longest prefix of all of them, by characters as the store has it."""
    low, high = min(prefixes), max(prefixes)
    length = next((index for index, (one, other) in enumerate(zip(low, high, strict=False)) if one != other), min(len(low), len(high)))
    return low[:length]


async def _list_all(
    store: Datastore, prefixes: Sequence[str], on_broken: Callable[[DataError], None]
) -> tuple[dict[str, Document], dict[str, int]]:
    """Everything below the prefixes by path, and the revision at which each prefix was read."""
    found: dict[str, Document] = {}
    revisions: dict[str, int] = {}
    for prefix in prefixes:
        async for page in store.list(prefix):
            revisions[prefix] = page.revision
            for item in page.items:
                document = _readable(item, on_broken)
                if document is not None:
                    found[item.key] = document
    return found, revisions


def _differences(known: dict[str, Document], current: dict[str, Document]) -> list[Change]:
    """What leads from ``known`` to ``current``; ``known`` is ``current`` afterwards."""
    changes = []
    for path in sorted(current, key=lambda path: path.split("/")):
        before, document = known.get(path), current[path]
        if before is None or before["metadata"]["resourceVersion"] != document["metadata"]["resourceVersion"]:
            changes.append(Change("ADDED" if before is None else "MODIFIED", _key(path, document), document))
    changes += [Change("DELETED", _key(path, document), document) for path, document in known.items() if path not in current]
    known.clear()
    known.update(current)
    return changes


def _on_event(
    event: PutEvent | DeleteEvent, revisions: dict[str, int], known: dict[str, Document], on_broken: Callable[[DataError], None]
) -> Change | None:
    path, revision = (event.item.key, event.item.revision) if isinstance(event, PutEvent) else (event.key, event.revision)
    # One watch covers all prefixes, from the oldest listing on: it also brings what we did not ask for or know already.
    if not any(path.startswith(prefix) and revision > listed for prefix, listed in revisions.items()):
        return None
    document = _readable(event.item, on_broken) if isinstance(event, PutEvent) else None
    before = known.pop(path, None)
    if document is None:
        return None if before is None else Change("DELETED", _key(path, before), before)
    known[path] = document
    return Change("ADDED" if before is None else "MODIFIED", _key(path, document), document)


def _readable(item: KeyValue, on_broken: Callable[[DataError], None]) -> Document | None:
    try:
        if parse_path(item.key) is not None:
            return read_item(item)
    except DataError as error:
        on_broken(error)
    return None


def _key(path: str, document: Document) -> ResourceKey:
    """The resource that is stored at ``path``; for a view (of an address block, say) by the name that the document has."""
    key = parse_path(path)
    return key if isinstance(key, ResourceKey) else ResourceKey(document["kind"], document["metadata"]["name"])

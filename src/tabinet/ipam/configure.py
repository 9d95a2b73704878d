"""Changing the configuration of address management (``/calico/ipam/v2/config``, the IPAMConfiguration).

In: the values to change. Out: the configuration before and after. What is not named stays, fields that we do not know too.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tabinet.errors import Conflict, DataError, InputError, Problem
from tabinet.ipam.settings import CONFIG_KEY, parse_config
from tabinet.ipam.view import Config
from tabinet.store.api import Compare, Datastore, KeyValue, PutOp

ATTEMPTS = 20
MAX_COOLDOWN_S = 1200
MAX_BLOCKS = 2**31 - 1


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What shall be different; None leaves it as it is."""

    strict_affinity: bool | None = None
    auto_allocate_blocks: bool | None = None
    max_blocks_per_host: int | None = None
    """0: the default."""
    cooldown_s: int | None = None


async def read_config(store: Datastore) -> Config:
    """The configuration as it counts: with defaults where nothing is stored.

    Raises:
        DataError: what is stored cannot be understood.
    """
    return parse_config(await store.get(CONFIG_KEY))


async def configure(store: Datastore, changes: Changes) -> tuple[Config, Config]:
    """The configuration has the changes; returns what it was before and is now.

    Raises:
        InputError: a value out of its range, or hosts that could get addresses in no way; nothing was changed.
        Conflict: others changed it all the time.
        DataError, StoreUnavailable, StoreDenied: nothing was changed.
    """
    for _ in range(ATTEMPTS):
        item = await store.get(CONFIG_KEY)
        before = parse_config(item)
        document = apply_changes(item, changes)
        value = msgspec.json.encode(document)
        if item is not None and _decode(item) == document:
            return before, before
        result = await store.txn([Compare(CONFIG_KEY, item.revision if item else 0)], [PutOp(CONFIG_KEY, value)])
        if result.succeeded:
            written = KeyValue(CONFIG_KEY, value, result.revision, result.revision)
            return before, parse_config(written)
    raise Conflict(f"the configuration of address management changed {ATTEMPTS} times meanwhile")


def apply_changes(item: KeyValue | None, changes: Changes) -> dict[str, Any]:
    """The document to store.

    Raises:
        InputError: it would make no sense.
        DataError: what is stored is no document.
    """
    stored = _decode(item) if item is not None else {}
    # Calico reads what is absent as false.
    document: dict[str, Any] = {"strict_affinity": False, "auto_allocate_blocks": True} | stored
    named = {
        "strict_affinity": changes.strict_affinity,
        "auto_allocate_blocks": changes.auto_allocate_blocks,
        "maxBlocksPerHost": changes.max_blocks_per_host,
        "ipCooldownSeconds": changes.cooldown_s,
    }
    document |= {name: value for name, value in named.items() if value is not None}
    problems = []
    ranges = (("maxBlocksPerHost", changes.max_blocks_per_host, MAX_BLOCKS), ("ipCooldownSeconds", changes.cooldown_s, MAX_COOLDOWN_S))
    for name, number, largest in ranges:
        if number is not None and not 0 <= number <= largest:
            problems.append(Problem(path=name, value=str(number), allowed=f"0 to {largest}"))
    if not document["strict_affinity"] and not document["auto_allocate_blocks"]:
        allowed = "without strictAffinity hosts must be able to get blocks by themselves: set strictAffinity too, or leave it true"
        problems.append(Problem(path="autoAllocateBlocks", value="false", allowed=allowed))
    if problems:
        raise InputError(problems)
    return document


def _decode(item: KeyValue) -> dict[str, Any]:
    """What is stored, as it is stored: the resource that people see has other names."""
    try:
        return msgspec.json.decode(item.value, type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise DataError(item.key, [Problem(path="", value=str(error), allowed="a JSON object")]) from error

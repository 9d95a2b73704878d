"""Handles and affinities: the two small documents that go with blocks, as pure functions over their stored JSON.

A *handle* names the owner of addresses and counts them by block, so that all of them can be found and released without a
search: ``{"block": {"10.0.0.0/26": 2}, "deleted": false}``. An *affinity* is a host's claim on a block: ``{"state":
"confirmed", "deleted": false}``. We write only confirmed ones, in the transaction that claims the block; ``pending`` and
``pendingDeletion`` come from writers that need several steps, and mean that the claim may never become, or stay, true.

Documents are never changed in place, and fields that we do not know are carried along. O(blocks of the handle).
"""

from __future__ import annotations

import msgspec

from tabinet.errors import DataError, Problem
from tabinet.ipam.blocks import Document
from tabinet.lib.ip import Prefix, parse_prefix

CONFIRMED = "confirmed"
PENDING = "pending"
PENDING_DELETION = "pendingDeletion"


def parse_handle(key: str, value: bytes) -> Document:
    """The handle document in ``value``.

    Raises:
        DataError: it is not one.
    """
    document = _decode(key, value)
    blocks = document.get("block")
    if blocks is None:
        return document | {"block": {}}
    if not isinstance(blocks, dict) or not all(type(count) is int and count >= 0 for count in blocks.values()):
        raise DataError(key, [Problem(path="block", value=repr(blocks)[:60], allowed="a count for each block")])
    for text in blocks:
        try:
            parse_prefix(text)
        except ValueError as error:
            raise DataError(key, [Problem(path="block", value=repr(text), allowed="the prefix of a block")]) from error
    return document


def parse_affinity(key: str, value: bytes) -> Document:
    """The affinity document in ``value``.

    Raises:
        DataError: it is not one.
    """
    document = _decode(key, value)
    if document.get("state") not in (CONFIRMED, PENDING, PENDING_DELETION):
        allowed = f"{CONFIRMED}, {PENDING} or {PENDING_DELETION}"
        raise DataError(key, [Problem(path="state", value=repr(document.get("state")), allowed=allowed)])
    return document


def new_handle() -> Document:
    """A handle without addresses."""
    return {"block": {}, "deleted": False}


def confirmed(document: Document | None) -> Document:
    """The affinity, or a new one, in state confirmed."""
    return (document or {"deleted": False}) | {"state": CONFIRMED}


def counted_blocks(document: Document) -> dict[Prefix, int]:
    """How many addresses of each block the handle owns."""
    return {parse_prefix(text): count for text, count in document["block"].items()}


def add_to_handle(document: Document, block: Prefix, count: int) -> Document:
    """The handle with ``count`` more addresses in ``block``."""
    blocks = dict(document["block"])
    blocks[str(block)] = blocks.get(str(block), 0) + count
    return document | {"block": blocks}


def remove_from_handle(document: Document, block: Prefix, count: int) -> Document:
    """The handle with ``count`` addresses less in ``block``; a block without addresses is not listed."""
    blocks = {text: old for text, old in document["block"].items() if parse_prefix(text) != block}
    left = counted_blocks(document).get(block, 0) - count
    if left > 0:
        blocks[str(block)] = left
    return document | {"block": blocks}


def _decode(key: str, value: bytes) -> Document:
    try:
        return msgspec.json.decode(value, type=Document)
    except msgspec.DecodeError as error:
        raise DataError(key, [Problem(path="", value=str(error), allowed="a JSON object")]) from error

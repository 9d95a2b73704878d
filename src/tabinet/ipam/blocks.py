"""Block algebra: assigning and releasing addresses inside one block, as pure functions over its stored JSON document.

A *block* is an aligned part of a pool (by default 64 addresses) that one host has claimed; an *ordinal* is the place of an
address in its block. The document is Calico's:

- ``allocations[ordinal]`` is ``null`` (free) or an index into ``attributes``;
- ``unallocated`` lists the free ordinals, first in first out, so that a released address rests as long as possible;
- ``attributes[i]`` holds ``handle_id`` (the owner) and ``secondary`` (free text about it); equal ones are shared;
- ``sequenceNumber`` grows by one with each write, and ``sequenceNumberForAllocation`` remembers it for each assignment, so
  that a late release cannot hit an address that was assigned anew.

Where released addresses have a cooldown they *rest* first: their attribute has ``releasedAt`` and no handle, they are neither owned
nor free, and the first write after the cooldown frees them (``wake``).

In: a document that ``parse_block`` accepted. Out: a new document; the old one is never changed, and fields that we do not
know are carried along. Invariants: ``unallocated`` holds exactly the ordinals whose allocation is ``null``, each once; every
attribute is in use; an ordinal that rests is in no handle's count. Complexity: O(size of the block) in each call. Not done here:
choosing blocks (``pools``), handles and affinities (``handles``), storage (``client``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from tabinet.errors import AddressError, DataError, Problem
from tabinet.lib.ip import Prefix, parse_prefix

Document = dict[str, Any]
"""A stored JSON document; whoever edits it keeps what it does not know."""

MAX_BLOCK_BITS = 16
"""A block of more than 65,536 addresses is refused: its document would not fit into one stored value."""


class Counts(msgspec.Struct, frozen=True, gc=False):
    """How many addresses of a block are in which state; together, all of them."""

    assigned: int
    resting: int
    """Released, and not yet to be assigned again."""
    free: int


def new_block(block: Prefix, owner: str, sequence: int, claimed_at: str) -> Document:
    """The document of ``block``, all free and claimed by ``owner`` (as in ``host:web1``).

    ``sequence`` has to differ from that of any earlier life of the block (nanoseconds since the epoch do); ``claimed_at`` is
    RFC 3339 text in UTC.
    """
    return {
        "cidr": str(block),
        "affinity": owner,
        "affinity_claim_time": claimed_at,
        "allocations": [None] * block.size,
        "unallocated": list(range(block.size)),
        "attributes": [],
        "sequenceNumber": sequence,
        "sequenceNumberForAllocation": {},
        "deleted": False,
    }


def parse_block(key: str, value: bytes, block: Prefix) -> Document:
    """The document in ``value``, which is sound and that of ``block``.

    Raises:
        DataError: it is not; assigning from such a block could give one address to two owners.
    """
    try:
        document = msgspec.json.decode(value, type=Document)
    except msgspec.DecodeError as error:
        raise DataError(key, [Problem(path="", value=str(error), allowed="a JSON object")]) from error
    # Go writes an empty list that was never filled as null.
    document |= {name: [] for name in ("attributes", "unallocated") if document.get(name) is None}
    problems = list(_problems(document, block))
    if problems:
        raise DataError(key, problems)
    return document


def _problems(document: Document, block: Prefix) -> Iterable[Problem]:
    if block.bits - block.length > MAX_BLOCK_BITS:
        yield Problem(path="cidr", value=str(block), allowed=f"a block of at most 2^{MAX_BLOCK_BITS} addresses")
        return
    try:
        named = parse_prefix(document.get("cidr", ""))
    except (ValueError, AttributeError, TypeError):
        named = None
    if named != block:
        yield Problem(path="cidr", value=repr(document.get("cidr")), allowed=f"{block}, as the key says")
    affinity = document.get("affinity")
    if affinity is not None and not isinstance(affinity, str):
        yield Problem(path="affinity", value=repr(affinity), allowed='"host:<name>" or null')
    if type(document.get("sequenceNumber", 0)) is not int:
        yield Problem(path="sequenceNumber", value=repr(document["sequenceNumber"]), allowed="a whole number")
    attributes = document.get("attributes")
    if not isinstance(attributes, list) or not all(isinstance(item, dict) for item in attributes):
        yield Problem(path="attributes", value=repr(attributes)[:60], allowed="a list of objects")
        return
    allocations = document.get("allocations")
    if not isinstance(allocations, list) or len(allocations) != block.size:
        yield Problem(path="allocations", value=repr(allocations)[:60], allowed=f"a list of {block.size} indices or nulls")
        return
    for ordinal, index in enumerate(allocations):
        if index is not None and not (type(index) is int and 0 <= index < len(attributes)):
            yield Problem(path=f"allocations[{ordinal}]", value=repr(index), allowed="null or the index of an attribute")
    free = [ordinal for ordinal, index in enumerate(allocations) if index is None]
    unallocated = document.get("unallocated")
    if not isinstance(unallocated, list) or not all(type(item) is int for item in unallocated) or sorted(unallocated) != free:
        yield Problem(path="unallocated", value=repr(unallocated)[:60], allowed="each free ordinal once")


def owner_of(document: Document) -> str:
    """Who has claimed the block, as in ``host:web1``; empty when it is nobody's."""
    affinity = document.get("affinity")
    if isinstance(affinity, str) and affinity:
        return affinity
    # Old documents say it in another field, and only of hosts.
    old = document.get("hostAffinity")
    return f"host:{old}" if isinstance(old, str) and old else ""


def claim(document: Document, owner: str, claimed_at: str) -> Document:
    """The block, its addresses unchanged, claimed by ``owner``."""
    edited = _edited(document) | {"affinity": owner, "affinity_claim_time": claimed_at}
    edited.pop("hostAffinity", None)
    return edited


def unclaim(document: Document) -> Document:
    """The block, its addresses unchanged, claimed by nobody."""
    edited = _edited(document) | {"affinity": None}
    edited.pop("hostAffinity", None)
    edited.pop("affinity_claim_time", None)
    return edited


def claim_age_s(document: Document, now_s: float) -> float:
    """Seconds since the block was claimed; very many when it does not say."""
    return now_s - _seconds(document.get("affinity_claim_time"))


def is_empty(document: Document) -> bool:
    """True when every address of the block is free."""
    return all(index is None for index in document["allocations"])


def count(document: Document) -> Counts:
    """How many addresses are assigned, rest, and are free."""
    resting = _resting_attributes(document)
    free = rests = 0
    for index in document["allocations"]:
        free += index is None
        rests += index in resting
    return Counts(assigned=len(document["allocations"]) - free - rests, resting=rests, free=free)


def wake(document: Document, now_s: float, cooldown_s: int) -> Document:
    """The block in which what has rested for ``cooldown_s`` is free, longest rested first; the same document when nothing has."""
    rested = {
        index: _seconds(document["attributes"][index].get("releasedAt"))
        for index in _resting_attributes(document)
        if now_s - _seconds(document["attributes"][index].get("releasedAt")) >= cooldown_s
    }
    if not rested:
        return document
    ordinals = [ordinal for ordinal, index in enumerate(document["allocations"]) if index in rested]
    edited = _edited(document)
    _free(edited, sorted(ordinals, key=lambda ordinal: rested[document["allocations"][ordinal]]))
    return edited


def free_addresses(document: Document, block: Prefix, reserved: Sequence[Prefix] = ()) -> int:
    """How many addresses can be assigned: free ones outside the ``reserved`` prefixes."""
    return sum(1 for _ in _free_ordinals(document, block, reserved))


def assigned_addresses(document: Document, block: Prefix, handle: str) -> tuple[Prefix, ...]:
    """The addresses that ``handle`` owns in the block, in ascending order."""
    mine = {index for index, attribute in enumerate(document["attributes"]) if owner(attribute) == handle}
    return tuple(block.host(ordinal) for ordinal, index in enumerate(document["allocations"]) if index in mine)


def attributes_of(document: Document, block: Prefix) -> dict[Prefix, Document]:
    """The attribute of each assigned address."""
    attributes = document["attributes"]
    out = _resting_attributes(document) | {None}
    return {block.host(ordinal): attributes[index] for ordinal, index in enumerate(document["allocations"]) if index not in out}


def resting(document: Document, block: Prefix) -> dict[Prefix, str]:
    """Since when each address that was released rests: RFC 3339, UTC."""
    attributes, rest = document["attributes"], _resting_attributes(document)
    return {
        block.host(ordinal): str(attributes[index]["releasedAt"]) for ordinal, index in enumerate(document["allocations"]) if index in rest
    }


def owners(document: Document, block: Prefix) -> dict[Prefix, str]:
    """The handle of each assigned address; empty text when it has none."""
    return {address: owner(attribute) for address, attribute in attributes_of(document, block).items()}


def owner(attribute: Mapping[str, Any]) -> str:
    """The handle in an attribute, without what an old migration left behind a carriage return; empty when there is none."""
    handle = attribute.get("handle_id")
    return handle.split("\r")[0] if isinstance(handle, str) else ""


def assign(
    document: Document,
    block: Prefix,
    count: int,
    handle: str,
    attributes: Mapping[str, str],
    claimed_by: str,
    *,
    strict: bool,
    reserved: Sequence[Prefix] = (),
) -> tuple[Document, tuple[Prefix, ...]]:
    """The block with up to ``count`` more addresses owned by ``handle``, and those addresses, in the order of ``unallocated``.

    The longest free come first. Fewer than ``count``, or none, when the block has no more.

    Raises:
        AddressError: ``strict`` and the block is not ``claimed_by`` whom it should be.
    """
    _check_affinity(document, block, claimed_by, strict=strict)
    taken: list[int] = []
    for ordinal in _free_ordinals(document, block, reserved):
        if len(taken) == count:
            break
        taken.append(ordinal)
    if not taken:
        return document, ()
    return _take(document, taken, handle, attributes), tuple(block.host(ordinal) for ordinal in taken)


def assign_address(
    document: Document, block: Prefix, address: Prefix, handle: str, attributes: Mapping[str, str], claimed_by: str, *, strict: bool
) -> Document:
    """The block in which ``handle`` owns ``address``; the same document when it already did.

    Raises:
        AddressError: another owner has it, it rests, or ``strict`` and the block is not ``claimed_by`` whom it should be.
        ValueError: the address is not in the block.
    """
    if not block.contains(address) or not address.is_host:
        raise ValueError(f"{address} is no address of block {block}")
    ordinal = address.value - block.value
    index = document["allocations"][ordinal]
    if index is not None:
        attribute = document["attributes"][index]
        holder = owner(attribute)
        if attribute.get("releasedAt"):
            raise AddressError(f"{address.address} was released at {attribute['releasedAt']} and rests until its cooldown is over")
        if holder == handle:
            return document
        raise AddressError(f"{address.address} is in use by {holder or 'an owner without a handle'}")
    _check_affinity(document, block, claimed_by, strict=strict)
    return _take(document, [ordinal], handle, attributes)


def release(document: Document, block: Prefix, addresses: Iterable[Prefix], *, rest_since: str = "") -> tuple[Document, dict[str, int]]:
    """The block without these assignments, and how many each handle lost; what is not assigned is passed over.

    Released ordinals go to the end of ``unallocated`` in the order of ``addresses``; or they rest, with ``rest_since`` (RFC 3339).
    """
    ordinals: dict[int, None] = {}
    lost: dict[str, int] = {}
    resting = _resting_attributes(document)
    for address in addresses:
        ordinal = address.value - block.value
        if not block.contains(address) or ordinal in ordinals:
            continue
        index = document["allocations"][ordinal]
        if index is None or index in resting:
            continue
        ordinals[ordinal] = None
        handle = owner(document["attributes"][index])
        lost[handle] = lost.get(handle, 0) + 1
    if not ordinals:
        return document, {}
    edited = _edited(document)
    if rest_since:
        _assign_attribute(edited, ordinals, {"handle_id": None, "secondary": None, "releasedAt": rest_since}, document)
        _drop_unused_attributes(edited)
    else:
        _free(edited, ordinals)
    return edited, lost


def _check_affinity(document: Document, block: Prefix, claimed_by: str, *, strict: bool) -> None:
    if strict and owner_of(document) != claimed_by:
        whose = owner_of(document).removeprefix("host:") or "no host"
        raise AddressError(f"block {block} belongs to {whose}, and strict affinity forbids borrowing from it")


def _resting_attributes(document: Document) -> frozenset[int]:
    return frozenset(index for index, attribute in enumerate(document["attributes"]) if attribute.get("releasedAt"))


def _seconds(text: object) -> float:
    """RFC 3339 text as seconds since the epoch; 0 when it is none, as if it had been long ago."""
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else datetime.fromtimestamp(0, UTC)
    except ValueError:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _free_ordinals(document: Document, block: Prefix, reserved: Sequence[Prefix]) -> Iterable[int]:
    near = [prefix for prefix in reserved if prefix.overlaps(block)]
    for ordinal in document["unallocated"]:
        if not near or not any(prefix.contains(block.host(ordinal)) for prefix in near):
            yield ordinal


def _take(document: Document, ordinals: list[int], handle: str, attributes: Mapping[str, str]) -> Document:
    edited = _edited(document)
    taken = set(ordinals)
    edited["unallocated"] = [ordinal for ordinal in edited["unallocated"] if ordinal not in taken]
    _assign_attribute(edited, ordinals, {"handle_id": handle, "secondary": dict(attributes)}, document)
    return edited


def _assign_attribute(edited: Document, ordinals: Iterable[int], attribute: Document, before: Document) -> None:
    """The ordinals point at the attribute, which is added unless there is an equal one."""
    known: list[Document] = edited["attributes"]
    if attribute in known:
        index = known.index(attribute)
    else:
        index = len(known)
        known.append(attribute)
    for ordinal in ordinals:
        edited["allocations"][ordinal] = index
        edited["sequenceNumberForAllocation"][str(ordinal)] = before.get("sequenceNumber", 0)


def _free(edited: Document, ordinals: Iterable[int]) -> None:
    for ordinal in ordinals:
        edited["allocations"][ordinal] = None
        edited["unallocated"].append(ordinal)
        edited["sequenceNumberForAllocation"].pop(str(ordinal), None)
    _drop_unused_attributes(edited)


def _edited(document: Document) -> Document:
    """A copy whose lists may be changed, one sequence number later."""
    return document | {
        "allocations": list(document["allocations"]),
        "unallocated": list(document["unallocated"]),
        "attributes": list(document["attributes"]),
        "sequenceNumber": document.get("sequenceNumber", 0) + 1,
        "sequenceNumberForAllocation": dict(document.get("sequenceNumberForAllocation") or {}),
    }


def _drop_unused_attributes(edited: Document) -> None:
    used = sorted({index for index in edited["allocations"] if index is not None})
    moved = {old: new for new, old in enumerate(used)}
    edited["attributes"] = [edited["attributes"][old] for old in used]
    edited["allocations"] = [None if index is None else moved[index] for index in edited["allocations"]]

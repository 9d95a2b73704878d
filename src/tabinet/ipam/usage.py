"""How much of pools and blocks is in use: reports over stored blocks. Pure; O(addresses in blocks)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from tabinet.ipam.blocks import attributes_of, count, free_addresses, owner, owner_of
from tabinet.ipam.owners import host_of
from tabinet.ipam.pools import Pool
from tabinet.ipam.view import Stored
from tabinet.lib.ip import Prefix


class BlockUsage(msgspec.Struct, frozen=True, gc=False):
    """A claim on a block."""

    block: Prefix
    state: str
    """State of the affinity; empty when it cannot be understood."""
    claimed: bool
    """True when the block itself names the owner: then, and only when confirmed, is the claim good."""
    assigned: int
    resting: int
    free: int


class PoolUsage(msgspec.Struct, frozen=True, gc=False):
    """How much of a pool is in use."""

    pool: str
    cidr: Prefix
    disabled: bool
    size: int
    """Addresses in the pool."""
    blocks: int
    """Blocks that exist."""
    assigned: int
    resting: int = 0
    """Released, and not yet to be assigned again."""
    reserved: int = 0
    """In reservations, assigned or not."""
    free: int = 0
    """What can still be assigned, in blocks or in blocks to come."""


class Borrowed(msgspec.Struct, frozen=True, order=True, gc=False):
    """An address that is used on another host than the one its block belongs to."""

    address: Prefix
    borrower: str
    """The host that has the address."""
    block: Prefix
    block_owner: str
    """The host that the block belongs to; empty when nobody."""
    handle: str


def block_usage(block: Prefix, stored: Stored, affinity: Stored, claimed_by: str) -> BlockUsage:
    """What the owner ``claimed_by`` has of the block."""
    document = stored.document
    counts = count(document) if document else None
    return BlockUsage(
        block=block,
        state=(affinity.document or {}).get("state", ""),
        claimed=document is not None and owner_of(document) == claimed_by,
        assigned=counts.assigned if counts else 0,
        resting=counts.resting if counts else 0,
        free=counts.free if counts else 0,
    )


def pool_usage(pool: Pool, blocks: Mapping[Prefix, Stored], reserved: Sequence[Prefix] = ()) -> PoolUsage:
    """What is in use of the pool."""
    inside = {block: stored.document for block, stored in blocks.items() if pool.cidr.contains(block)}
    counts = [count(document) for document in inside.values() if document]
    kept = list(_widest(reserved))
    kept_outside = _overlap(kept, pool.cidr) - sum(_overlap(kept, block) for block in inside)
    outside = pool.cidr.size - sum(block.size for block in inside) - kept_outside
    return PoolUsage(
        pool=pool.name,
        cidr=pool.cidr,
        disabled=pool.disabled,
        size=pool.cidr.size,
        blocks=len(inside),
        assigned=sum(each.assigned for each in counts),
        resting=sum(each.resting for each in counts),
        reserved=_overlap(kept, pool.cidr),
        free=outside + sum(free_addresses(document, block, kept) for block, document in inside.items() if document),
    )


def borrowed(blocks: Mapping[Prefix, Stored]) -> list[Borrowed]:
    """All borrowed addresses, in ascending order. Addresses without a note of their host are taken for the block owner's."""
    return sorted(
        Borrowed(
            address=address, borrower=borrower, block=block, block_owner=owner_of(document).removeprefix("host:"), handle=owner(attribute)
        )
        for block, stored in blocks.items()
        if (document := stored.document) is not None
        for address, attribute in attributes_of(document, block).items()
        if (borrower := str((attribute.get("secondary") or {}).get("node") or "")) and borrower != host_of(owner_of(document))
    )


def _widest(prefixes: Iterable[Prefix]) -> Iterator[Prefix]:
    """Those that are in no other; each once."""
    last: Prefix | None = None
    for prefix in sorted(prefixes, key=lambda prefix: (prefix.family, prefix.value, prefix.length)):
        if last is None or not last.contains(prefix):
            last = prefix
            yield prefix


def _overlap(prefixes: Sequence[Prefix], area: Prefix) -> int:
    """How many addresses of the area are in the prefixes, none of which contains another."""
    return sum(min(prefix.size, area.size) for prefix in prefixes if prefix.overlaps(area))

"""What is used, and what does not fit together: reports over stored blocks, affinities and handles. Pure.

In: everything stored, read at one revision. Out: usage by pool and block, and findings. O(addresses in blocks). A finding is a
fact, not a repair: what to do about it depends on who else writes to the store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from tabinet.ipam import handles
from tabinet.ipam.blocks import claimant, free_addresses, owners
from tabinet.ipam.handles import CONFIRMED
from tabinet.ipam.pools import Pool
from tabinet.ipam.view import ABSENT, Stored
from tabinet.lib.ip import Prefix


class BlockUsage(msgspec.Struct, frozen=True, gc=False):
    """A host's claim on a block."""

    block: Prefix
    state: str
    """State of the affinity; empty when it cannot be understood."""
    claimed: bool
    """True when the block itself names the host: then, and only when confirmed, is the claim good."""
    assigned: int
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


class Finding(msgspec.Struct, frozen=True, gc=False, order=True):
    """Something that should not be."""

    subject: str
    """The block, affinity or handle."""
    problem: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.problem}"


def block_usage(block: Prefix, stored: Stored, affinity: Stored, host: str) -> BlockUsage:
    """What ``host`` has of the block."""
    document = stored.document
    free = free_addresses(document, block) if document else 0
    return BlockUsage(
        block=block,
        state=(affinity.document or {}).get("state", ""),
        claimed=document is not None and claimant(document) == host,
        assigned=block.size - free if document else 0,
        free=free,
    )


def pool_usage(pool: Pool, blocks: Mapping[Prefix, Stored]) -> PoolUsage:
    """What is in use of the pool."""
    inside = {block: stored.document for block, stored in blocks.items() if pool.cidr.contains(block)}
    assigned = sum(block.size - free_addresses(document, block) for block, document in inside.items() if document)
    return PoolUsage(pool=pool.name, cidr=pool.cidr, disabled=pool.disabled, size=pool.cidr.size, blocks=len(inside), assigned=assigned)


def find_problems(
    blocks: Mapping[Prefix, Stored], affinities: Mapping[tuple[str, Prefix], Stored], owners_by_name: Mapping[str, Stored]
) -> list[Finding]:
    """All findings, in order of subject; none when everything fits together.

    Addresses without a handle (Calico permits them) are not a finding.
    """
    held: dict[str, dict[Prefix, int]] = {}
    found: list[Finding] = []
    for block, stored in blocks.items():
        if stored.document is None:
            found.append(Finding(f"block {block}", "cannot be understood"))
            continue
        for handle in owners(stored.document, block).values():
            if handle:
                counts = held.setdefault(handle, {})
                counts[block] = counts.get(block, 0) + 1
        host = claimant(stored.document)
        if host and not affinities.get((host, block), ABSENT).exists:
            found.append(Finding(f"block {block}", f"names host {host}, which has no affinity for it"))
    found += _overlaps(sorted(blocks))
    found += _bad_affinities(blocks, affinities)
    found += _bad_handles(held, owners_by_name)
    return sorted(found)


def _overlaps(blocks: list[Prefix]) -> Iterator[Finding]:
    # Ordered by first address, then length: whatever overlaps a block follows it at once, within its range.
    ordered = sorted(blocks, key=lambda block: (block.family, block.value, block.length))
    widest: Prefix | None = None
    for block in ordered:
        if widest is not None and widest.contains(block):
            yield Finding(f"block {block}", f"lies within block {widest}")
        else:
            widest = block


def _bad_affinities(blocks: Mapping[Prefix, Stored], affinities: Mapping[tuple[str, Prefix], Stored]) -> Iterator[Finding]:
    for (host, block), affinity in affinities.items():
        subject = f"affinity of {host} for {block}"
        state = (affinity.document or {}).get("state", "")
        stored = blocks.get(block, ABSENT)
        if affinity.document is None:
            yield Finding(subject, "cannot be understood")
        elif state != CONFIRMED:
            yield Finding(subject, f"is {state}")
        elif not stored.exists:
            yield Finding(subject, "has no block")
        elif stored.document is not None and claimant(stored.document) != host:
            yield Finding(subject, f"is not what the block says: {claimant(stored.document) or 'no host'}")


def _bad_handles(held: Mapping[str, Mapping[Prefix, int]], stored: Mapping[str, Stored]) -> Iterator[Finding]:
    for name in held.keys() | stored.keys():
        handle = stored.get(name, ABSENT)
        if handle.exists and handle.document is None:
            yield Finding(f"handle {name}", "cannot be understood")
            continue
        counted = handles.counted_blocks(handle.document) if handle.document else {}
        real = held.get(name, {})
        for block in sorted(counted.keys() | real.keys()):
            if counted.get(block, 0) != real.get(block, 0):
                problem = f"counts {counted.get(block, 0)} addresses in {block}, and owns {real.get(block, 0)}"
                yield Finding(f"handle {name}", problem)
        if handle.document and not counted:
            yield Finding(f"handle {name}", "owns nothing")

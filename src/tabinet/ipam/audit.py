"""What does not fit together, what leaks, and what is only kept for nothing: findings over everything stored. Pure.

In: an ``Inventory`` and, for all but the structure, the ``Fabric``. Out: findings, each of a kind that ``KINDS`` explains. O(addresses).
A finding is a fact; ``garbage`` says how those that may be put right by a program are.

An address is in use until the contrary is certain: when nothing says what it was for, it is left alone. Leaks are told by handle, because
a handle's addresses come and go together: as long as one of them is in use, none is a leak.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from tabinet.ipam import handles
from tabinet.ipam.blocks import Document, attributes_of, claim_age_s, is_empty, owner, owner_of, owners, resting, wake
from tabinet.ipam.findings import Finding
from tabinet.ipam.handles import CONFIRMED
from tabinet.ipam.inventory import Fabric, Inventory
from tabinet.ipam.owners import has_affinities, host_of
from tabinet.ipam.pools import Pool, containing_pool
from tabinet.ipam.view import Stored
from tabinet.lib.ip import Prefix

WINDOWS_HANDLE = "windows-reserved-ipam-handle"
"""Calico's: addresses that Windows hosts cannot use; nobody's, and not to be collected."""
TUNNEL_SUFFIX = "TunnelAddress"
"""The attribute ``type`` of a host's own addresses ends with it, as in ``vxlanTunnelAddress``."""
PURPOSES = ("pod", "workload", "vmi")
"""Attributes that name a workload: then an endpoint must have the address."""


class Allocation(msgspec.Struct, frozen=True, gc=False):
    """An assigned address, and what is noted of it."""

    address: Prefix
    block: Prefix
    handle: str
    attribute: Document

    def note(self, name: str) -> str:
        """What is noted under a name; empty when nothing is."""
        secondary = self.attribute.get("secondary")
        return str(secondary.get(name) or "") if isinstance(secondary, dict) else ""


def find_problems(inventory: Inventory) -> list[Finding]:
    """What contradicts itself in what is stored, in order of subject; none when everything fits together.

    Addresses without a handle (Calico permits them) are not a finding.
    """
    found = [Finding("block-unreadable", f"block {block}", "cannot be understood", block=block) for block in _unreadable(inventory.blocks)]
    found += _overlaps(inventory)
    for block, document in _documents(inventory):
        claimed_by = owner_of(document)
        if has_affinities(claimed_by) and not inventory.affinity(claimed_by, block).exists:
            problem = f"names {_name(claimed_by)}, which has no affinity for it"
            found.append(Finding("block-without-affinity", f"block {block}", problem, block=block, owner=claimed_by, identity=claimed_by))
    found += _bad_affinities(inventory)
    found += _bad_handles(inventory)
    return sorted(found)


def find_leaks(inventory: Inventory, fabric: Fabric) -> list[Finding]:
    """Addresses and blocks that belong to nobody any more, and addresses that are used without belonging, in order of subject."""
    found = [*_leaked_addresses(inventory, fabric), *_blocks_of_nobody(inventory, fabric), *_not_assigned(inventory, fabric)]
    return sorted(found)


def find_spares(inventory: Inventory, fabric: Fabric, now_s: float, min_age_s: float) -> list[Finding]:
    """Blocks that could go, and addresses that have rested, in order of subject.

    A host keeps one block of a pool, so that its next workload finds one; blocks younger than ``min_age_s`` are not looked at.
    """
    cooldown_s = inventory.settings.config.cooldown_s
    found: list[Finding] = []
    kept: set[tuple[str, str]] = set()
    woken = {block: wake(document, now_s, cooldown_s) for block, document in _documents(inventory)}
    # Blocks in use come first: who has one of those needs no empty one.
    for block, document in sorted(_documents(inventory), key=lambda item: (is_empty(woken[item[0]]), item[0])):
        claimed_by = owner_of(document)
        pool = containing_pool(inventory.settings.pools, block)
        place = claimed_by, pool.name if pool else ""
        reason = _reason_to_go(claimed_by, pool, fabric, kept=place in kept) if is_empty(woken[block]) else ""
        kept.add(place)
        if reason and claim_age_s(document, now_s) >= min_age_s:
            found.append(Finding("block-spare", f"block {block}", f"is empty, and {reason}", block=block, owner=claimed_by))
        elif woken[block] is not document:
            rested = len(resting(document, block)) - len(resting(woken[block], block))
            problem = f"has {rested} addresses that have rested long enough"
            found.append(Finding("block-rested", f"block {block}", problem, block=block, owner=claimed_by))
    return sorted(found)


def allocations(inventory: Inventory) -> Iterator[Allocation]:
    """Every assigned address."""
    for block, document in _documents(inventory):
        for address, attribute in attributes_of(document, block).items():
            yield Allocation(address=address, block=block, handle=owner(attribute), attribute=attribute)


# --- structure ------------------------------------------------------------------------------------------------------------


def _documents(inventory: Inventory) -> list[tuple[Prefix, Document]]:
    return [(block, stored.document) for block, stored in sorted(inventory.blocks.items()) if stored.document is not None]


def _unreadable(blocks: Mapping[Prefix, Stored]) -> list[Prefix]:
    return [block for block, stored in blocks.items() if stored.document is None]


def _overlaps(inventory: Inventory) -> Iterator[Finding]:
    # Ordered by first address, then length: whatever overlaps a block follows it at once, within its range.
    widest: Prefix | None = None
    for block in sorted(inventory.blocks, key=lambda block: (block.family, block.value, block.length)):
        if widest is not None and widest.contains(block):
            yield Finding("block-overlap", f"block {block}", f"lies within block {widest}", block=block)
        else:
            widest = block


def _bad_affinities(inventory: Inventory) -> Iterator[Finding]:
    for (claimed_by, block), affinity in inventory.affinities.items():
        subject = f"affinity of {_name(claimed_by)} for {block}"
        stored = inventory.block(block)
        identity = f"{affinity.revision}"
        if affinity.document is None:
            yield Finding("affinity-unreadable", subject, "cannot be understood", block=block, owner=claimed_by)
        elif affinity.document["state"] != CONFIRMED:
            problem = f"is {affinity.document['state']}"
            yield Finding("affinity-unfinished", subject, problem, block=block, owner=claimed_by, identity=identity)
        elif not stored.exists:
            yield Finding("affinity-without-block", subject, "has no block", block=block, owner=claimed_by, identity=identity)
        elif stored.document is not None and owner_of(stored.document) != claimed_by:
            problem = f"is not what the block says: {_name(owner_of(stored.document)) or 'no host'}"
            yield Finding("affinity-contradicted", subject, problem, block=block, owner=claimed_by, identity=identity)


def _bad_handles(inventory: Inventory) -> Iterator[Finding]:
    held: dict[str, dict[Prefix, int]] = {}
    for block, document in _documents(inventory):
        for name in owners(document, block).values():
            if name:
                counts = held.setdefault(name, {})
                counts[block] = counts.get(block, 0) + 1
    for name in held.keys() | inventory.handles.keys():
        stored = inventory.handle(name)
        subject, identity = f"handle {name}", f"{stored.revision}"
        if stored.exists and stored.document is None:
            yield Finding("handle-unreadable", subject, "cannot be understood", handle=name)
            continue
        counted = handles.counted_blocks(stored.document) if stored.document else {}
        real = held.get(name, {})
        wrong = [block for block in sorted(counted.keys() | real.keys()) if counted.get(block, 0) != real.get(block, 0)]
        if wrong:
            problem = "; ".join(f"counts {counted.get(block, 0)} addresses in {block}, and owns {real.get(block, 0)}" for block in wrong)
            yield Finding("handle-miscounted", subject, problem, handle=name, identity=identity)
        elif not counted:
            yield Finding("handle-empty", subject, "owns nothing", handle=name, identity=identity)


# --- leaks ----------------------------------------------------------------------------------------------------------------


def _leaked_addresses(inventory: Inventory, fabric: Fabric) -> Iterator[Finding]:
    by_handle: dict[str, list[Allocation]] = {}
    for allocation in allocations(inventory):
        # Without a handle each address is by itself.
        by_handle.setdefault(allocation.handle or f" {allocation.address.address}", []).append(allocation)
    for key, group in by_handle.items():
        reasons = {allocation.address: _why_leaked(allocation, fabric) for allocation in group}
        loose = [allocation.address for allocation in group if reasons[allocation.address]]
        if not loose:
            continue
        handle = group[0].handle
        subject = f"handle {handle}" if handle else f"address{key}"
        code, why = next(reason for reason in reasons.values() if reason)
        names = ", ".join(address.address for address in loose)
        why = why.format(them="it" if len(loose) == 1 else "them")
        if len(loose) < len(group):
            yield Finding("address-partly-unused", subject, f"owns {names}, beside others in use, but {why}", handle=handle)
            continue
        problem = f"owns {names}, but {why}" if handle else f"is assigned, but {why}"
        identity = f"{inventory.handle(handle).revision}" if handle else f"{group[0].attribute}"
        yield Finding(code, subject, problem + _described(group[0]), handle=handle, addresses=tuple(loose), identity=identity)


def _why_leaked(allocation: Allocation, fabric: Fabric) -> tuple[str, str] | None:
    """Code and words; None when the address is in use, or when nothing says that it is not."""
    if allocation.address in fabric.uses or allocation.handle.lower() == WINDOWS_HANDLE:
        return None
    host = allocation.note("node")
    if host and not fabric.knows(host):
        return "address-of-lost-host", f"host {host} is gone"
    if allocation.note("type").endswith(TUNNEL_SUFFIX):
        return None
    if any(allocation.note(name) for name in PURPOSES):
        return "address-unused", "no endpoint has {them}"
    return None


def _described(allocation: Allocation) -> str:
    """What the address was for, in words."""
    purpose = next((allocation.note(name) for name in PURPOSES if allocation.note(name)), "")
    namespace, host, since = allocation.note("namespace"), allocation.note("node"), allocation.note("timestamp")
    parts = [
        f"for {namespace}/{purpose}" if namespace and purpose else purpose and f"for {purpose}",
        host and f"on {host}",
        since and f"at {since}",
    ]
    text = " ".join(part for part in parts if part)
    return f" (assigned {text})" if text else ""


def _blocks_of_nobody(inventory: Inventory, fabric: Fabric) -> Iterator[Finding]:
    for block, document in _documents(inventory):
        host = host_of(owner_of(document))
        if host and not fabric.knows(host):
            problem = f"belongs to host {host}, which is gone"
            yield Finding("block-of-lost-host", f"block {block}", problem, block=block, owner=owner_of(document), identity=host)
        if not is_empty(document) and containing_pool(inventory.settings.pools, block) is None:
            yield Finding("block-without-pool", f"block {block}", "has assigned addresses, and is in no pool", block=block)


def _not_assigned(inventory: Inventory, fabric: Fabric) -> Iterator[Finding]:
    """Addresses that something uses without owning them. Pools without any block are not managed here, and left out."""
    settings = inventory.settings
    assigned = {allocation.address for allocation in allocations(inventory)}
    managed = [pool for pool in settings.pools if any(pool.cidr.contains(block) for block in inventory.blocks)]
    for address, uses in fabric.uses.items():
        users = ", ".join(use.by for use in sorted(uses))
        endpoints = [use for use in uses if use.by.startswith("WorkloadEndpoint/")]
        if len(endpoints) > 1:
            yield Finding("address-shared", f"address {address.address}", f"is used by {users}")
        reserved = any(prefix.contains(address) for prefix in settings.reserved)
        if address not in assigned and not reserved and containing_pool(managed, address) is not None:
            yield Finding("address-unassigned", f"address {address.address}", f"is used by {users}, and not assigned")


# --- spares ---------------------------------------------------------------------------------------------------------------


def _reason_to_go(claimed_by: str, pool: Pool | None, fabric: Fabric, *, kept: bool) -> str:
    """Why an empty block need not stay; empty when it should."""
    host = host_of(claimed_by)
    if not claimed_by:
        return "nobody's"
    if pool is None:
        return "in no pool"
    if pool.disabled:
        return f"pool {pool.name} is disabled"
    if host in fabric.hosts and not pool.node_selector.evaluate(fabric.hosts[host]):
        return f"pool {pool.name} no longer serves {host}"
    return f"{_name(claimed_by)} has another in pool {pool.name}" if kept else ""


def _name(owner_text: str) -> str:
    """An owner as people say it: a host by its name."""
    host = host_of(owner_text)
    return f"host {host}" if host else owner_text

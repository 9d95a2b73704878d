"""What to write for an assignment or a release, decided from what is known: pure.

In: a ``View``, a request, the handle as stored, the time. Out: a ``Plan`` (one transaction and its result), or a word about
what has to be read first (``NeedBlocks``, ``NeedListing``). Whoever runs the plan repeats it with fresh values when the
store says that something had changed.

The order in which addresses are looked for: blocks of the host; then a new block; then an empty block that another host
claimed and does not use; then, unless affinity is strict, any address of any block. Complexity: O(blocks of the host) in the
good case, O(all blocks) when the host needs a new one. Nothing here knows the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain, islice

import msgspec

from tabinet.errors import AddressError
from tabinet.ipam import blocks as algebra
from tabinet.ipam import handles
from tabinet.ipam.blocks import Document
from tabinet.ipam.owners import WORKLOAD, affinity_key, has_affinities, host_of, owner_for
from tabinet.ipam.pools import Pool, Refusal, candidate_blocks, containing_block, containing_pool, refusal, select_pools
from tabinet.ipam.view import ABSENT, Draft, Stored, View
from tabinet.lib.ip import Prefix
from tabinet.model.keys import HandleKey, path_of

RECLAIM_AGE_S = 60
"""An empty block is left to the host that claimed it for this long, so that two hosts do not take it from each other in turn."""
MAX_OVERLAPPING_CANDIDATES = 65536
"""How many places in a pool are looked at beyond the number of blocks that exist. Finite also for a /48."""


class AssignRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses wanted. The handle owns at least ``count4`` and ``count6`` of them afterwards, earlier ones included."""

    host: str
    """Whose blocks the addresses come from; for load balancers, which are no host, a name such as ``load-balancer``."""
    handle: str
    """Who owns the addresses: a stable name, without ``/``."""
    count4: int = 0
    count6: int = 0
    pools4: tuple[Prefix, ...] = ()
    """Only from these pools, in this order; empty: from any that fits."""
    pools6: tuple[Prefix, ...] = ()
    attributes: dict[str, str] = {}
    """Stored beside each address, for people and other programs; ``node`` and ``timestamp`` are added."""
    namespace_labels: dict[str, str] = {}
    """For pools with a namespaceSelector."""
    use: str = WORKLOAD
    """What the addresses are for: the pools' ``allowedUses`` must have it."""

    @property
    def owner(self) -> str:
        """The owner of the blocks that the addresses come from."""
        return owner_for(self.use, self.host)


class Plan(msgspec.Struct, frozen=True):
    """A transaction, and what the handle owns when it has succeeded."""

    draft: Draft
    addresses: tuple[Prefix, ...]
    """All addresses of the handle, IPv4 first."""
    changed: tuple[Prefix, ...]
    """Those of them that this transaction assigns; for a release, those that it frees."""


class NeedBlocks(msgspec.Struct, frozen=True):
    """These blocks have to be read."""

    blocks: tuple[Prefix, ...]


class NeedListing(msgspec.Struct, frozen=True):
    """All blocks, and the affinities of the host, have to be listed."""


Decision = Plan | NeedBlocks | NeedListing


@dataclass(slots=True)
class _Assignment:
    """The work on one assignment: the draft so far, and the handle with its new counts."""

    view: View
    request: AssignRequest
    now_ns: int
    handle: Document
    draft: Draft
    held: tuple[Prefix, ...] = ()
    """What the handle owned before, IPv4 first."""
    assigned: list[Prefix] = field(default_factory=list)

    @property
    def attributes(self) -> dict[str, str]:
        host = host_of(self.view.owner)
        return ({"node": host} if host else {}) | self.request.attributes | {"timestamp": timestamp(self.now_ns)}

    @property
    def strict(self) -> bool:
        return self.view.settings.config.strict_affinity

    def current(self, block: Prefix) -> Document | None:
        """The block with what was done to it so far, and what has rested long enough free."""
        if block in self.draft.blocks:
            return self.draft.blocks[block]
        document = self.view.blocks[block].document if block in self.view.blocks else None
        return None if document is None else self.woken(document)

    def is_full(self, block: Prefix) -> bool:
        """True when no address is free, not counting what may have rested long enough."""
        document = self.draft.blocks.get(block) or self.view.blocks[block].document
        return document is None or not document["unallocated"]

    def woken(self, document: Document) -> Document:
        """The block in which what has rested long enough is free."""
        return algebra.wake(document, self.now_ns / 1e9, self.view.settings.config.cooldown_s)

    def own_blocks(self) -> list[Prefix]:
        """The owner's blocks, those that it has only in the draft included, in ascending order."""
        new = (block for block, document in self.draft.blocks.items() if algebra.owner_of(document) == self.view.owner)
        return sorted({*self.view.own_blocks(), *new})

    def take(self, pool: Pool, block: Prefix, document: Document, count: int) -> int:
        """How many of ``count`` addresses the block could give; the draft has them."""
        edited, addresses = algebra.assign(
            document,
            block,
            count,
            self.request.handle,
            self.attributes,
            self.view.owner,
            strict=self.strict,
            reserved=self.view.settings.reserved,
        )
        if addresses:
            self.record(pool, block, edited, addresses)
        return len(addresses)

    def record(self, pool: Pool, block: Prefix, edited: Document, addresses: Sequence[Prefix]) -> None:
        """Puts the edited block, its affinity, the pool and the handle's count into the draft."""
        self.draft.write_block(block, self.view.block(block) or ABSENT, edited)
        self.draft.expect(pool.key, pool.revision)
        if algebra.owner_of(edited) == self.view.owner:
            affinity = self.view.affinity(block)
            self.draft.confirm_affinity(self.view.owner, block, affinity, handles.confirmed(affinity.document))
        self.handle = handles.add_to_handle(self.handle, block, len(addresses))
        self.assigned.extend(addresses)


def plan_assignment(view: View, request: AssignRequest, handle: Stored, now_ns: int, draft: Draft) -> Decision:
    """How to give ``request.handle`` its addresses, in the transaction of ``draft``, which is added to.

    When it has them, only the handle is written anew: to its revision garbage collection sees that somebody counts on them. ``now_ns`` is
    nanoseconds since the epoch.

    Raises:
        AddressError: no address can be had; says for each pool why. The draft is of no use then.
    """
    work = _begin(view, request, handle, now_ns, draft)
    if isinstance(work, NeedBlocks):
        return work
    for family, count, named in ((4, request.count4, request.pools4), (6, request.count6, request.pools6)):
        rest = count - sum(1 for address in work.held if address.family == family)
        if rest > 0 and not _assign_family(work, family, rest, named):
            return NeedListing()
    return _finish(work, handle, asked=request.count4 + request.count6 > 0)


def plan_address(view: View, request: AssignRequest, address: Prefix, handle: Stored, now_ns: int, draft: Draft) -> Decision:
    """How to give ``request.handle`` just this address (counts and named pools of the request are not used); as ``plan_assignment``.

    Reservations do not count: the address was asked for by name.

    Raises:
        AddressError: it belongs to no usable pool, or somebody else has it, or it rests, or the host may not take it.
    """
    work = _begin(view, request, handle, now_ns, draft)
    if isinstance(work, NeedBlocks):
        return work
    if address in work.held:
        return _finish(work, handle, asked=True)
    pool = containing_pool(view.settings.pools, address)
    if pool is None:
        raise AddressError(f"{address.address} belongs to no pool")
    if refusal(pool, request.use):
        raise AddressError(f"{address.address} belongs to pool {pool.name}, which is unusable: {refusal(pool, request.use)}")
    block = containing_block(pool, address)
    stored = view.block(block)
    if stored is None:
        return NeedBlocks((block,))
    current = work.current(block)
    if current is None and not stored.exists:
        if not view.listed:
            return NeedListing()
        if any(other.overlaps(block) for other, known in view.blocks.items() if known.exists):
            raise AddressError(f"{address.address}: a block of another size lies across {block}")
        current = algebra.new_block(block, view.owner, now_ns, timestamp(now_ns))
    elif current is None:
        raise AddressError(f"{address.address}: block {block} cannot be understood")
    edited = algebra.assign_address(current, block, address, request.handle, work.attributes, view.owner, strict=work.strict)
    work.record(pool, block, edited, [address])
    return _finish(work, handle, asked=True)


def _begin(view: View, request: AssignRequest, handle: Stored, now_ns: int, draft: Draft) -> _Assignment | NeedBlocks:
    """The work with what the handle owns already; the draft holds only while that is so."""
    if handle.exists and handle.document is None:
        raise AddressError(f"handle {request.handle} cannot be understood")
    document = handle.document or handles.new_handle()
    counted = sorted(handles.counted_blocks(document))
    unknown = tuple(block for block in counted if view.block(block) is None)
    if unknown:
        return NeedBlocks(unknown)
    work = _Assignment(view=view, request=request, now_ns=now_ns, handle=document, draft=draft)
    work.draft.expect(path_of(HandleKey(request.handle)), handle.revision)
    held: list[Prefix] = []
    for block in counted:
        stored = view.block(block) or ABSENT
        work.draft.expect_unchanged(block, stored)
        if stored.document is not None:
            held += algebra.assigned_addresses(stored.document, block, request.handle)
    work.held = tuple(held)
    return work


def _assign_family(work: _Assignment, family: int, rest: int, named: Sequence[Prefix]) -> bool:
    """True when the draft has ``rest`` addresses more; False when a listing is needed to go on."""
    view = work.view
    settings = view.settings
    pools, refusals = select_pools(settings.pools, family, named, settings.node_labels, work.request.namespace_labels, work.request.use)
    if not all(pool.all_nodes for pool in pools):
        work.draft.expect(settings.node_key, settings.node_revision)
    rest -= _from_own_blocks(work, pools, rest)
    if rest == 0:
        return True
    if not view.listed:
        return False
    for pool in pools:
        limit = _blocks_left(work, family)
        if settings.config.auto_allocate_blocks:
            rest -= _from_new_blocks(work, pool, rest, limit)
    for pool in pools:
        if rest and settings.config.auto_allocate_blocks:
            rest -= _from_idle_blocks(work, pool, rest, _blocks_left(work, family))
    limited = settings.config.auto_allocate_blocks and _blocks_left(work, family) == 0
    for pool in pools:
        if rest and not work.strict and not limited:
            rest -= _from_foreign_blocks(work, pool, rest)
    if rest:
        refusals += [Refusal(pool=pool.name, reason=_exhausted(work, pool, limited)) for pool in pools]
        raise _no_address(work.request, family, refusals, settings.broken)
    return True


def _from_own_blocks(work: _Assignment, pools: Sequence[Pool], count: int) -> int:
    taken = 0
    own = work.own_blocks()
    # Blocks that are full as they stand are looked at last: there it takes a look at every address to see whether one has rested.
    for full in (False, True):
        for pool in pools:
            for block in own:
                if taken == count:
                    return taken
                if pool.cidr.contains(block) and work.is_full(block) == full and (document := work.current(block)) is not None:
                    taken += work.take(pool, block, document, count - taken)
    return taken


def _blocks_left(work: _Assignment, family: int) -> int:
    """How many more blocks of the family may be claimed. The limit is one of hosts."""
    maximum = work.view.settings.config.max_blocks_per_host
    if maximum == 0 or not host_of(work.view.owner):
        return 1 << 30
    return max(0, maximum - sum(1 for block in work.own_blocks() if block.family == family))


def _from_new_blocks(work: _Assignment, pool: Pool, count: int, limit: int) -> int:
    """Claims up to ``limit`` blocks that do not exist yet: first those that an unfinished claim of ours names."""
    view = work.view
    existing = {block for block, stored in view.blocks.items() if stored.exists}
    existing |= work.draft.blocks.keys()
    taboo = [prefix for prefix in view.settings.reserved if prefix.overlaps(pool.cidr)]
    odd = [block for block in existing if block.length != pool.block_length and block.overlaps(pool.cidr)]
    unfinished = [block for block in sorted(view.affinities) if block.length == pool.block_length and pool.cidr.contains(block)]
    candidates = islice(candidate_blocks(pool, work.request.host), len(existing) + MAX_OVERLAPPING_CANDIDATES)
    taken = 0
    for block in chain(unfinished, candidates):
        if taken == count or limit == 0:
            break
        if block in existing or any(other.overlaps(block) for other in odd) or any(prefix.contains(block) for prefix in taboo):
            continue
        fresh = algebra.new_block(block, view.owner, work.now_ns, timestamp(work.now_ns))
        got = work.take(pool, block, fresh, count - taken)
        taken += got
        limit -= 1 if got else 0
    return taken


def _from_idle_blocks(work: _Assignment, pool: Pool, count: int, limit: int) -> int:
    """Takes over blocks that other hosts claimed long enough ago and have no address in."""
    taken = 0
    for block in _blocks_of(work, pool):
        document = work.current(block)
        if taken == count or limit == 0:
            break
        if document is None or not algebra.is_empty(document) or not _is_idle(document, work):
            continue
        before = algebra.owner_of(document)
        got = work.take(pool, block, algebra.claim(document, work.view.owner, timestamp(work.now_ns)), count - taken)
        if got and has_affinities(before):
            # Whatever state the claim is in: the block is what decides.
            work.draft.writes[path_of(affinity_key(before, block))] = None
        taken += got
        limit -= 1 if got else 0
    return taken


def _from_foreign_blocks(work: _Assignment, pool: Pool, count: int) -> int:
    taken = 0
    for block in _blocks_of(work, pool):
        document = work.current(block)
        if taken == count:
            break
        if document is not None:
            taken += work.take(pool, block, document, count - taken)
    return taken


def _blocks_of(work: _Assignment, pool: Pool) -> list[Prefix]:
    """All blocks in the pool that are not the host's own, in the circle that the host's name determines."""
    start = next(candidate_blocks(pool, work.request.host))
    own = set(work.own_blocks())
    found = (block for block in work.view.blocks if pool.cidr.contains(block) and block not in own)
    return sorted(found, key=lambda block: (block < start, block))


def _is_idle(document: Document, work: _Assignment) -> bool:
    """True for blocks of hosts, or of nobody, that were claimed long enough ago."""
    owner = algebra.owner_of(document)
    return (not owner or bool(host_of(owner))) and algebra.claim_age_s(document, work.now_ns / 1e9) >= RECLAIM_AGE_S


def timestamp(now_ns: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 text, to the second, UTC."""
    return datetime.fromtimestamp(now_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _exhausted(work: _Assignment, pool: Pool, limited: bool) -> str:
    config = work.view.settings.config
    if limited:
        return f"no address is free in the host's blocks, and it has the {config.max_blocks_per_host} that maxBlocksPerHost allows"
    reason = "no address is free in the host's blocks"
    reason += ", and no block is left to claim" if config.auto_allocate_blocks else ", and autoAllocateBlocks is off"
    reason += ", and strictAffinity forbids borrowing" if work.strict else ", and none in the blocks of other hosts"
    blocks = (stored.document for block, stored in work.view.blocks.items() if pool.cidr.contains(block))
    resting = sum(algebra.count(work.woken(document)).resting for document in blocks if document is not None)
    return reason + (f"; {resting} released addresses rest for up to {config.cooldown_s} s" if resting else "")


def _no_address(request: AssignRequest, family: int, refusals: Sequence[Refusal], broken: Sequence[str]) -> AddressError:
    reasons = [*(str(one) for one in refusals), *broken]
    tried = "; ".join(reasons) if reasons else f"there is no IPv{family} pool"
    return AddressError(f"no IPv{family} address for {request.handle} on host {request.host}: {tried}")


def _finish(work: _Assignment, handle: Stored, *, asked: bool) -> Plan:
    if work.assigned:
        settings = work.view.settings
        work.draft.expect(settings.config_key, settings.config.revision)
    if work.assigned or (asked and work.held):
        work.draft.write_handle(work.request.handle, handle, work.handle)
    addresses = tuple(sorted((*work.held, *work.assigned), key=lambda address: address.family))
    return Plan(draft=work.draft, addresses=addresses, changed=tuple(work.assigned))

"""``IpamClient``: addresses from pools in the store, each assignment or release in one transaction.

In: requests. Out: addresses that nobody else has. Invariants: block, affinity and handle change together or not at all, so
that a crash at any moment leaks nothing; a transaction compares everything that the decision rested on (blocks, pool, node
labels, configuration), so that no assignment follows stale settings. ``assign`` is idempotent: repeating it with the same
handle, after an answer that got lost too, gives the same addresses.

Complexity: see ``assigning`` for assignments; a release reads the handle and its blocks, and writes once. Not done here: watching pools,
and deciding when a handle is dead (``collector``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from tabinet.errors import Conflict
from tabinet.ipam import blocks as algebra
from tabinet.ipam import handles
from tabinet.ipam.assigning import MAX_ATTEMPTS, Assigner, Assignment, pause
from tabinet.ipam.audit import find_problems
from tabinet.ipam.findings import Finding
from tabinet.ipam.inventory import read_inventory
from tabinet.ipam.owners import WORKLOAD, has_affinities, owner_for
from tabinet.ipam.plan import AssignRequest, plan_address, plan_assignment
from tabinet.ipam.reading import list_blocks, read_affinities, read_blocks, read_blocks_of, read_claims, read_handles
from tabinet.ipam.release import plan_disclaim, plan_release
from tabinet.ipam.releasing import Releaser
from tabinet.ipam.settings import CONFIG_KEY, load_settings, parse_config
from tabinet.ipam.usage import BlockUsage, PoolUsage, block_usage, pool_usage
from tabinet.ipam.view import ABSENT, Draft, View
from tabinet.lib.ip import Prefix
from tabinet.store.api import Datastore

RELEASE_AT_ONCE = 50
"""Each address concerns a block and a handle: this many fit into a transaction."""


class IpamClient:
    """Assigns and releases addresses. One event loop; any number of clients and hosts may work on one store."""

    def __init__(
        self, store: Datastore, *, now_ns: Callable[[], int] = time.time_ns, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._now_ns = now_ns
        self._assigner = Assigner(store, monotonic=monotonic)
        self._releaser = Releaser(store, self._commit, self._assigner, now_ns)

    async def assign(self, request: AssignRequest) -> Assignment:
        """The handle owns at least the addresses asked for; those that it had before count.

        Raises:
            AddressError: not all of them can be had, and nothing was assigned; says for each pool why.
            Conflict: other writers were faster a hundred times.
            StoreUnavailable, StoreDenied: the outcome may be unknown; repeating the call is safe.
        """
        return await self._assigner.run(request, lambda view, handle, draft: plan_assignment(view, request, handle, self._now_ns(), draft))

    async def assign_address(self, address: Prefix, request: AssignRequest) -> Assignment:
        """The handle owns ``address``, too. Counts and pools in the request are not used.

        Raises:
            AddressError: it is in no usable pool, somebody else has it, it rests, or strict affinity forbids it.
            Conflict, StoreUnavailable, StoreDenied: as ``assign``.
        """
        return await self._assigner.run(
            request, lambda view, handle, draft: plan_address(view, request, address, handle, self._now_ns(), draft)
        )

    async def owned(self, handle: str) -> tuple[Prefix, ...]:
        """The addresses of the handle, IPv4 first."""
        stored = (await read_handles(self._store, [handle]))[handle]
        if stored.document is None:
            return ()
        blocks = await read_blocks(self._store, handles.counted_blocks(stored.document))
        return tuple(
            address
            for block, found in sorted(blocks.items())
            if found.document is not None
            for address in algebra.assigned_addresses(found.document, block, handle)
        )

    async def owner_of(self, address: Prefix) -> str:
        """The handle that owns the address; empty: nobody's, or assigned without one.

        Raises:
            StoreUnavailable, StoreDenied: the store could not be read.
        """
        view, touched = await read_blocks_of(self._store, [address])
        return _owner(view, touched, address)

    async def release_handle(self, handle: str) -> tuple[Prefix, ...]:
        """The handle owns nothing; returns what it owned. Nothing happens when it is unknown.

        Raises:
            Conflict, StoreUnavailable, StoreDenied: as ``assign``.
        """
        return await self._releaser.run(handle)

    async def release_addresses(self, addresses: Iterable[Prefix], *, handle: str = "") -> tuple[Prefix, ...]:
        """The addresses are free, or rest; returns those that were assigned before. With ``handle`` only those that it owns are released.

        Raises:
            Conflict, StoreUnavailable, StoreDenied: as ``assign``.
        """
        wanted = list(dict.fromkeys(addresses))
        freed: tuple[Prefix, ...] = ()
        for start in range(0, len(wanted), RELEASE_AT_ONCE):
            freed += await self._release_some(wanted[start : start + RELEASE_AT_ONCE], handle)
        return freed

    async def _release_some(self, wanted: Sequence[Prefix], handle: str) -> tuple[Prefix, ...]:
        for conflicts in range(MAX_ATTEMPTS):
            await pause(conflicts)
            view, touched = await read_blocks_of(self._store, wanted)
            mine = [address for address in wanted if not handle or _owner(view, touched, address) == handle]
            plan = plan_release(view, mine, touched, {}, self._now_ns())
            if isinstance(plan, tuple):
                plan = plan_release(view, mine, touched, await read_handles(self._store, plan), self._now_ns())
            if isinstance(plan, tuple):
                raise AssertionError("all handles were read just now")
            if await self._commit(plan.draft):
                return plan.changed
        raise Conflict(f"blocks changed {MAX_ATTEMPTS} times while {len(wanted)} addresses were released")

    async def release_host(self, host: str) -> tuple[tuple[Prefix, ...], tuple[Prefix, ...]]:
        """The host has no addresses and no blocks; returns the addresses freed and the blocks given up.

        Addresses that others have borrowed from its blocks stay theirs: such a block then belongs to nobody, and goes with its last one.

        Raises:
            Conflict, StoreUnavailable, StoreDenied: as ``assign``; some may have been released.
        """
        blocks = await list_blocks(self._store)
        mine = [
            address
            for block, stored in sorted(blocks.items())
            if stored.document is not None
            for address, attribute in algebra.attributes_of(stored.document, block).items()
            if (attribute.get("secondary") or {}).get("node") == host
        ]
        freed = await self.release_addresses(mine)
        owner = owner_for(WORKLOAD, host)
        given_up = set(await read_affinities(self._store, owner))
        given_up |= {
            block for block, stored in blocks.items() if stored.document is not None and algebra.owner_of(stored.document) == owner
        }
        for block in sorted(given_up):
            await self.release_block(block, owner)
        return freed, tuple(sorted(given_up))

    async def release_block(self, block: Prefix, owner: str, *, rest: bool = True) -> None:
        """``owner`` (as in ``host:web1``) has no claim on the block, which is gone when it is empty.

        Addresses that rest keep it from being empty, unless ``rest`` is off.

        Raises:
            Conflict, StoreUnavailable, StoreDenied: as ``assign``.
        """
        for conflicts in range(MAX_ATTEMPTS):
            await pause(conflicts)
            stored = (await read_blocks(self._store, [block]))[block]
            affinity = (await read_claims(self._store, owner, [block]))[block] if has_affinities(owner) else ABSENT
            config = parse_config(await self._store.get(CONFIG_KEY))
            if await self._commit(plan_disclaim(block, stored, owner, affinity, self._now_ns(), config.cooldown_s if rest else 0)):
                return
        raise Conflict(f"block {block} changed {MAX_ATTEMPTS} times while it was given up")

    async def blocks(self, host: str) -> tuple[BlockUsage, ...]:
        """The blocks that the host has an affinity for, in ascending order, with what is used of each."""
        owner = owner_for(WORKLOAD, host)
        affinities = await read_affinities(self._store, owner)
        blocks = await read_blocks(self._store, affinities)
        return tuple(block_usage(block, blocks[block], affinities[block], owner) for block in sorted(affinities))

    async def usage(self) -> tuple[PoolUsage, ...]:
        """For each pool, in order of name, how much of it is in blocks and how much is assigned."""
        settings = await load_settings(self._store, "")
        blocks = await list_blocks(self._store)
        return tuple(pool_usage(pool, blocks) for pool in sorted(settings.pools, key=lambda pool: pool.name))

    async def check(self) -> tuple[Finding, ...]:
        """Everything that does not fit together in blocks, affinities and handles, read at one revision; empty when sound.

        Who uses the addresses is not looked at: see ``audit.find_leaks`` for that.
        """
        return tuple(find_problems(await read_inventory(self._store)))

    async def _commit(self, draft: Draft) -> bool:
        """True when the draft was accepted, or has nothing to say."""
        compares, then, _ = draft.operations()
        if not then:
            return True
        result = await self._store.txn(compares, then)
        if result.succeeded:
            self._assigner.remember(draft, result.revision)
        return result.succeeded


def _owner(view: View, blocks: Iterable[Prefix], address: Prefix) -> str:
    for block in blocks:
        document = view.blocks[block].document
        if document is not None and block.contains(address):
            return algebra.owners(document, block).get(address, "")
    return ""

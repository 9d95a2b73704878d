"""``IpamClient``: addresses from pools in the store, each assignment or release in one transaction.

In: requests. Out: addresses that nobody else has. Invariants: block, affinity and handle change together or not at all, so
that a crash at any moment leaks nothing; a transaction compares everything that the decision rested on (blocks, pool, node
labels, configuration), so that no assignment follows stale settings. ``assign`` is idempotent: repeating it with the same
handle, after an answer that got lost too, gives the same addresses.

Complexity: the host's own blocks and the settings are kept, so that an assignment costs one round trip; when somebody else
wrote in between, the answer brings the fresh values and it costs one more. Claiming a block lists all blocks. Requests
through one client are run one after the other for each host. Not done here: watching pools, and deciding when a handle is dead.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from tabinet.errors import AddressError, Conflict, DataError
from tabinet.ipam import blocks as algebra
from tabinet.ipam import handles
from tabinet.ipam.audit import BlockUsage, Finding, PoolUsage, block_usage, find_problems, pool_usage
from tabinet.ipam.plan import AssignRequest, Decision, NeedBlocks, NeedListing, Plan, plan_address, plan_assignment, plan_release
from tabinet.ipam.pools import containing_block, containing_pool
from tabinet.ipam.settings import first_error, load_settings
from tabinet.ipam.view import ABSENT, MAX_COMPARES, Draft, Settings, Stored, View
from tabinet.lib.ip import Prefix
from tabinet.model.keys import BLOCKS, AffinityKey, BlockKey, HandleKey, Key, affinity_prefix, parse_path, path_of
from tabinet.store.api import Datastore, GetOp, KeyValue

MAX_ATTEMPTS = 100
SETTINGS_AGE_S = 5.0
"""How long pools may go unread. Known ones are compared in each transaction, so this only delays the use of *new* ones."""
MAX_HOSTS_KEPT = 1000
RELEASE_AT_ONCE = 50
"""Each address concerns a block and a handle: this many fit into a transaction."""
IPAM_ROOT = "/calico/ipam/v2/"


class Assignment(msgspec.Struct, frozen=True, gc=False):
    """What a handle owns after an assignment."""

    addresses: tuple[Prefix, ...]
    """All addresses of the handle, IPv4 first."""
    assigned: tuple[Prefix, ...]
    """Those that this call assigned; empty when the handle had them already."""


@dataclass(slots=True)
class _HostState:
    """What is kept for one host between requests."""

    view: View | None = None
    read_at: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class IpamClient:
    """Assigns and releases addresses. One event loop; any number of clients and hosts may work on one store."""

    def __init__(
        self, store: Datastore, *, now_ns: Callable[[], int] = time.time_ns, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._now_ns = now_ns
        self._monotonic = monotonic
        self._hosts: dict[str, _HostState] = {}

    async def assign(self, request: AssignRequest) -> Assignment:
        """The handle owns at least the addresses asked for; those that it had before count.

        Raises:
            AddressError: not all of them can be had, and nothing was assigned; says for each pool why.
            Conflict: other writers were faster a hundred times.
            StoreUnavailable, StoreDenied: the outcome may be unknown; repeating the call is safe.
        """
        return await self._run(request, lambda view, handle: plan_assignment(view, request, handle, self._now_ns()))

    async def assign_address(self, address: Prefix, request: AssignRequest) -> Assignment:
        """The handle owns ``address``, too. Counts and pools in the request are not used.

        Raises:
            AddressError: it is in no usable pool, somebody else has it, or strict affinity forbids it.
            Conflict, StoreUnavailable, StoreDenied: as ``assign``.
        """
        return await self._run(request, lambda view, handle: plan_address(view, request, address, handle, self._now_ns()))

    async def release_handle(self, handle: str) -> tuple[Prefix, ...]:
        """The handle owns nothing; returns what it owned. Nothing happens when it is unknown.

        Raises:
            Conflict, StoreUnavailable, StoreDenied: as ``assign``.
        """
        for conflicts in range(MAX_ATTEMPTS):
            await _pause(conflicts)
            stored = (await self._read_handles([handle]))[handle]
            if stored.document is None:
                return ()
            counted = sorted(handles.counted_blocks(stored.document))
            view = await self._read_view(counted)
            owned = [
                address
                for block in counted
                if (document := view.blocks[block].document) is not None
                for address in algebra.assigned_addresses(document, block, handle)
            ]
            plan = plan_release(view, owned, counted, {handle: stored})
            if isinstance(plan, tuple):
                raise AssertionError("addresses of one handle cannot need another one")
            # What the handle counts beyond what the blocks say is a leftover of somebody's crash: it goes, too.
            plan.draft.write_handle(handle, stored, handles.new_handle())
            if await self._commit(plan.draft):
                return plan.changed
        raise Conflict(f"handle {handle} changed {MAX_ATTEMPTS} times while its addresses were released")

    async def release_addresses(self, addresses: Iterable[Prefix], *, handle: str = "") -> tuple[Prefix, ...]:
        """The addresses are free; returns those that were not before. With ``handle`` only those that it owns are released.

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
            await _pause(conflicts)
            view, touched = await self._read_blocks_of(wanted)
            mine = [address for address in wanted if not handle or _owner(view, touched, address) == handle]
            plan = plan_release(view, mine, touched, {})
            if isinstance(plan, tuple):
                plan = plan_release(view, mine, touched, await self._read_handles(plan))
            if isinstance(plan, tuple):
                raise AssertionError("all handles were read just now")
            if await self._commit(plan.draft):
                return plan.changed
        raise Conflict(f"blocks changed {MAX_ATTEMPTS} times while {len(wanted)} addresses were released")

    async def blocks(self, host: str) -> tuple[BlockUsage, ...]:
        """The blocks that the host has an affinity for, in ascending order, with what is used of each."""
        affinities = await self._read_affinities(host)
        view = await self._read_view(sorted(affinities))
        return tuple(block_usage(block, view.blocks[block], affinities[block], host) for block in sorted(affinities))

    async def usage(self) -> tuple[PoolUsage, ...]:
        """For each pool, in order of name, how much of it is in blocks and how much is assigned."""
        settings = await load_settings(self._store, "")
        blocks = {key.block: stored async for key, stored in self._listed(BLOCKS) if isinstance(key, BlockKey)}
        return tuple(pool_usage(pool, blocks) for pool in sorted(settings.pools, key=lambda pool: pool.name))

    async def check(self) -> tuple[Finding, ...]:
        """Everything that does not fit together in blocks, affinities and handles, read at one revision; empty when sound."""
        blocks: dict[Prefix, Stored] = {}
        affinities: dict[tuple[str, Prefix], Stored] = {}
        owners: dict[str, Stored] = {}
        async for key, stored in self._listed(IPAM_ROOT):
            match key:
                case BlockKey(block):
                    blocks[block] = stored
                case AffinityKey(host, block):
                    affinities[host, block] = stored
                case HandleKey(handle):
                    owners[handle] = stored
        return tuple(find_problems(blocks, affinities, owners))

    # --- running a decision -----------------------------------------------------------------------------------------

    async def _run(self, request: AssignRequest, decide: Callable[[View, Stored], Decision]) -> Assignment:
        state = self._state(request.host)
        async with state.lock:
            try:
                return await self._run_alone(state, request, decide)
            finally:
                if state.view is not None:
                    state.view.forget_foreign()

    async def _run_alone(self, state: _HostState, request: AssignRequest, decide: Callable[[View, Stored], Decision]) -> Assignment:
        # Almost always the handle is new; the transaction finds out when it is not.
        handle = ABSENT
        reread = False
        conflicts = 0
        while conflicts < MAX_ATTEMPTS:
            view = await self._current_view(state, request.host)
            try:
                decision = decide(view, handle)
            except AddressError:
                # A refusal rests on no transaction: give it only on what was read for this request.
                if reread:
                    raise
                reread, state.view = True, None
                handle = (await self._read_handles([request.handle]))[request.handle]
                continue
            match decision:
                case NeedBlocks(missing):
                    await self._fetch_blocks(view, missing)
                case NeedListing():
                    await self._fetch_listing(view)
                case Plan(draft, addresses, changed):
                    result = await self._store.txn(*draft.operations())
                    if result.succeeded:
                        self._remember(draft, result.revision)
                        return Assignment(addresses=addresses, assigned=changed)
                    conflicts += 1
                    handle = self._refresh(state, view, draft, result.values) or handle
                    await _pause(conflicts)
        raise Conflict(f"other writers were faster {MAX_ATTEMPTS} times: no address for {request.handle}")

    def _remember(self, draft: Draft, revision: int) -> None:
        """What was written is known to every view that knows the block, without reading it again."""
        for path, document in draft.writes.items():
            stored = ABSENT if document is None else Stored(document, revision)
            match parse_path(path):
                case BlockKey(block):
                    for state in self._hosts.values():
                        if state.view is not None and block in state.view.blocks:
                            state.view.blocks[block] = stored
                case AffinityKey(host, block):
                    known = self._hosts.get(host)
                    if known is None or known.view is None:
                        continue
                    if document is None:
                        known.view.affinities.pop(block, None)
                    else:
                        known.view.affinities[block] = stored
                        known.view.blocks[block] = Stored(draft.blocks[block], revision)
                case _:
                    pass

    def _refresh(self, state: _HostState, view: View, draft: Draft, values: Sequence[KeyValue | None]) -> Stored | None:
        """Puts what is stored now into the view; returns the handle, if it was among it."""
        handle: Stored | None = None
        for (path, expected), item in zip(draft.compares.items(), values, strict=True):
            match parse_path(path):
                case BlockKey(block):
                    view.blocks[block] = parse_stored(item)
                case AffinityKey(_, block):
                    view.affinities[block] = parse_stored(item)
                case HandleKey(_):
                    handle = parse_stored(item)
                case _:
                    if (item.revision if item else 0) != expected:
                        state.view = None
        return handle

    def _state(self, host: str) -> _HostState:
        state = self._hosts.get(host)
        if state is None:
            if len(self._hosts) >= MAX_HOSTS_KEPT:
                idle = next((name for name, other in self._hosts.items() if not other.lock.locked()), None)
                if idle is not None:
                    del self._hosts[idle]
            state = self._hosts[host] = _HostState()
        return state

    async def _current_view(self, state: _HostState, host: str) -> View:
        now = self._monotonic()
        if state.view is None:
            with first_error():
                async with asyncio.TaskGroup() as group:
                    settings = group.create_task(load_settings(self._store, host))
                    affinities = group.create_task(self._read_affinities(host))
            view = View(host=host, settings=settings.result(), affinities=affinities.result())
            await self._fetch_blocks(view, sorted(view.affinities))
            state.view, state.read_at = view, now
        elif now - state.read_at > SETTINGS_AGE_S:
            state.view.settings = await load_settings(self._store, host)
            state.read_at = now
        return state.view

    async def _commit(self, draft: Draft) -> bool:
        """True when the draft was accepted, or has nothing to say."""
        compares, then, _ = draft.operations()
        if not then:
            return True
        result = await self._store.txn(compares, then)
        if result.succeeded:
            self._remember(draft, result.revision)
        return result.succeeded

    # --- reading ----------------------------------------------------------------------------------------------------

    async def _fetch_blocks(self, view: View, blocks: Sequence[Prefix]) -> None:
        for start in range(0, len(blocks), MAX_COMPARES):
            part = blocks[start : start + MAX_COMPARES]
            result = await self._store.txn([], [GetOp(path_of(BlockKey(block))) for block in part])
            for block, item in zip(part, result.values, strict=True):
                view.blocks[block] = parse_stored(item)

    async def _fetch_listing(self, view: View) -> None:
        affinities = await self._read_affinities(view.host)
        blocks = {key.block: stored async for key, stored in self._listed(BLOCKS) if isinstance(key, BlockKey)}
        view.blocks, view.affinities, view.listed = blocks, affinities, True

    async def _read_view(self, blocks: Sequence[Prefix]) -> View:
        view = View(host="", settings=Settings(pools=()))
        await self._fetch_blocks(view, blocks)
        return view

    async def _read_blocks_of(self, addresses: Sequence[Prefix]) -> tuple[View, list[Prefix]]:
        """The blocks that the addresses are in: where the pools say, or wherever else."""
        pools = (await load_settings(self._store, "")).pools
        likely = {containing_block(pool, address) for address in addresses if (pool := containing_pool(pools, address))}
        view = await self._read_view(sorted(likely))
        if not all(any(view.blocks[block].exists and block.contains(address) for block in likely) for address in addresses):
            view.blocks |= {key.block: stored async for key, stored in self._listed(BLOCKS) if isinstance(key, BlockKey)}
        touched = {block for block in view.blocks if view.blocks[block].exists and any(block.contains(one) for one in addresses)}
        return view, sorted(touched)

    async def _listed(self, prefix: str) -> AsyncIterator[tuple[Key, Stored]]:
        async for page in self._store.list(prefix):
            for item in page.items:
                key = parse_path(item.key)
                if key is not None:
                    yield key, parse_stored(item)

    async def _read_affinities(self, host: str) -> dict[Prefix, Stored]:
        return {key.block: stored async for key, stored in self._listed(affinity_prefix(host)) if isinstance(key, AffinityKey)}

    async def _read_handles(self, names: Sequence[str]) -> dict[str, Stored]:
        found: dict[str, Stored] = {}
        for start in range(0, len(names), MAX_COMPARES):
            part = names[start : start + MAX_COMPARES]
            result = await self._store.txn([], [GetOp(path_of(HandleKey(name))) for name in part])
            found |= {name: parse_stored(item) for name, item in zip(part, result.values, strict=True)}
        return found


def parse_stored(item: KeyValue | None) -> Stored:
    """The IPAM value in ``item``; without a document when it cannot be understood."""
    if item is None:
        return ABSENT
    try:
        match parse_path(item.key):
            case BlockKey(block):
                return Stored(algebra.parse_block(item.key, item.value, block), item.revision)
            case AffinityKey():
                return Stored(handles.parse_affinity(item.key, item.value), item.revision)
            case HandleKey():
                return Stored(handles.parse_handle(item.key, item.value), item.revision)
            case _:
                return Stored(None, item.revision)
    except DataError:
        return Stored(None, item.revision)


def _owner(view: View, blocks: Iterable[Prefix], address: Prefix) -> str:
    for block in blocks:
        document = view.blocks[block].document
        if document is not None and block.contains(address):
            return algebra.owners(document, block).get(address, "")
    return ""


async def _pause(conflicts: int) -> None:
    """Lets others finish: nothing at first, then a random time of up to 40 ms."""
    if conflicts > 1:
        await asyncio.sleep(random.uniform(0.0, 0.002 * min(conflicts, 20)))

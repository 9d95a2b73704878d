"""``Assigner``: runs assignments against a store, several of one host in one transaction.

In: requests, each with the decision that it needs (``plan``). Out: addresses that nobody else has. What an owner's blocks look like is kept
between requests, so that in the good case an assignment is one round trip; when somebody else wrote in between, the answer brings the fresh
values and it costs one more. While one transaction of an owner is under way, requests for the same owner wait and then go together in the
next, so that the throughput of a host grows with the number of its callers; each still gets its own result or its own error.

Invariants: at most one transaction of an owner is under way in one assigner; a request whose caller goes away in the middle is done or not
done, and does not hold up those that went with it. Complexity: O(blocks of the owner) for a request, all blocks are listed when a block is
claimed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from tabinet.errors import AddressError, Conflict
from tabinet.ipam.owners import affinity_of_key, host_of
from tabinet.ipam.plan import AssignRequest, Decision, NeedBlocks, NeedListing, Plan
from tabinet.ipam.reading import list_blocks, parse_stored, read_affinities, read_blocks, read_handles
from tabinet.ipam.settings import first_error, load_settings
from tabinet.ipam.view import ABSENT, Config, Draft, Stored, View
from tabinet.lib.ip import Prefix
from tabinet.model.keys import BlockKey, HandleKey, parse_path
from tabinet.store.api import Datastore, KeyValue

MAX_ATTEMPTS = 100
SETTINGS_AGE_S = 5.0
"""How long pools may go unread. Known ones are compared in each transaction, so this only delays the use of *new* ones."""
MAX_OWNERS_KEPT = 1000
MAX_HANDLES_KEPT = 10_000
"""About 1 KB each."""
MAX_TOGETHER = 24
"""Requests in one transaction. Each takes an operation or two, of the 120 that there are."""
ROOM = 100
"""No request is added to a transaction of this many operations."""


class Assignment(msgspec.Struct, frozen=True, gc=False):
    """What a handle owns after an assignment."""

    addresses: tuple[Prefix, ...]
    """All addresses of the handle, IPv4 first."""
    assigned: tuple[Prefix, ...]
    """Those that this call assigned; empty when the handle had them already."""


Decide = Callable[[View, Stored, Draft], Decision]
"""A request's decision, from what is known, its handle, and what goes with it in the same transaction."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """A request that has no result yet."""

    request: AssignRequest
    decide: Decide
    handle: Stored = ABSENT
    """As far as is known: almost always it is new; a transaction finds out when it is not."""
    result: Assignment | None = None


@dataclass(slots=True)
class _OwnerState:
    """What is kept for one owner of blocks between requests."""

    view: View | None = None
    read_at: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: list[_Waiting] = field(default_factory=list)


class Assigner:
    """Runs assignments. One event loop; any number of assigners and hosts may work on one store."""

    def __init__(self, store: Datastore, *, monotonic: Callable[[], float]) -> None:
        self._store = store
        self._monotonic = monotonic
        self._owners: dict[str, _OwnerState] = {}
        self._handles: dict[str, Stored] = {}
        """Those that were written here and exist, the one written last at the end."""

    async def run(self, request: AssignRequest, decide: Decide) -> Assignment:
        """The decision has been carried out.

        Raises:
            AddressError: the decision is that it cannot be done; it rests on values that were read for this request.
            Conflict: other writers were faster a hundred times.
            StoreUnavailable, StoreDenied: the outcome may be unknown.
        """
        state = self._state(request.owner)
        mine = _Waiting(request, decide)
        state.waiting.append(mine)
        try:
            async with state.lock:
                if mine.result is None:
                    await self._run_together(state, mine)
                if mine.result is None:
                    mine.result = await self._run_alone(state, mine)
                return mine.result
        finally:
            if mine in state.waiting:
                state.waiting.remove(mine)

    async def _run_together(self, state: _OwnerState, first: _Waiting) -> None:
        """Those of the waiting requests that need no more reading have their results, if nobody else wrote in between.

        A request that is not done afterwards takes its turn by itself.
        """
        if state.view is None or len(state.waiting) < 2:
            return
        view = await self._current_view(state, first.request)
        draft = Draft()
        planned: dict[str, tuple[_Waiting, Plan]] = {}
        for waiting in (first, *(other for other in state.waiting if other is not first)):
            if len(planned) == MAX_TOGETHER or draft.size >= ROOM:
                break
            if waiting.request.handle in planned:
                continue
            try:
                decision = waiting.decide(view, waiting.handle, attempt := draft.copy())
            except (AddressError, ValueError):
                continue
            if isinstance(decision, Plan) and attempt.size <= ROOM:
                draft = attempt
                planned[waiting.request.handle] = waiting, decision
        if not planned or not draft.writes:
            return
        result = await self._store.txn(*draft.operations())
        if not result.succeeded:
            for name, handle in self._refresh(state, view, draft, result.values).items():
                planned[name][0].handle = handle
            return
        self.remember(draft, result.revision)
        for waiting, plan in planned.values():
            waiting.result = Assignment(addresses=plan.addresses, assigned=plan.changed)
            if waiting in state.waiting:
                state.waiting.remove(waiting)

    async def _run_alone(self, state: _OwnerState, waiting: _Waiting) -> Assignment:
        reread = False
        conflicts = 0
        request = waiting.request
        try:
            while conflicts < MAX_ATTEMPTS:
                view = await self._current_view(state, request)
                try:
                    decision = waiting.decide(view, waiting.handle, Draft())
                except AddressError:
                    # A refusal rests on no transaction: give it only on what was read for this request.
                    if reread:
                        raise
                    reread, state.view = True, None
                    waiting.handle = (await read_handles(self._store, [request.handle]))[request.handle]
                    continue
                match decision:
                    case NeedBlocks(missing):
                        view.blocks |= await read_blocks(self._store, missing)
                    case NeedListing():
                        view.affinities = await read_affinities(self._store, view.owner)
                        view.blocks, view.listed = await list_blocks(self._store), True
                    case Plan(draft, addresses, changed):
                        result = await self._store.txn(*draft.operations())
                        if result.succeeded:
                            self.remember(draft, result.revision)
                            return Assignment(addresses=addresses, assigned=changed)
                        conflicts += 1
                        handles = self._refresh(state, view, draft, result.values)
                        waiting.handle = handles.get(request.handle, waiting.handle)
                        await pause(conflicts)
        finally:
            if state.view is not None:
                state.view.forget_foreign()
        raise Conflict(f"other writers were faster {MAX_ATTEMPTS} times: no address for {request.handle}")

    # --- what was last seen, and may have changed: who decides on it compares it

    def known_block(self, block: Prefix) -> Stored | None:
        """The block; None: it was not seen. O(owners)."""
        views = (state.view for state in self._owners.values() if state.view is not None)
        return next((view.blocks[block] for view in views if block in view.blocks), None)

    def known_handle(self, handle: str) -> Stored | None:
        """The handle; None: it is none that was written here and still exists."""
        return self._handles.get(handle)

    def known_config(self) -> Config | None:
        """The configuration; None: it was not seen."""
        return next((state.view.settings.config for state in self._owners.values() if state.view is not None), None)

    # --- what becomes known

    def remember(self, draft: Draft, revision: int) -> None:
        """What was written is known to every view that knows the block, without reading it again."""
        for path, document in draft.writes.items():
            stored = ABSENT if document is None else Stored(document, revision)
            key = parse_path(path)
            if isinstance(key, BlockKey):
                for state in self._owners.values():
                    if state.view is not None and key.block in state.view.blocks:
                        state.view.blocks[key.block] = stored
            elif isinstance(key, HandleKey):
                self._handles.pop(key.handle, None)
                if document is not None:
                    self._handles[key.handle] = stored
                    if len(self._handles) > MAX_HANDLES_KEPT:
                        del self._handles[next(iter(self._handles))]
            elif key is not None and (claim := affinity_of_key(key)) is not None:
                owner, block = claim
                known = self._owners.get(owner)
                if known is None or known.view is None:
                    continue
                if document is None:
                    known.view.affinities.pop(block, None)
                else:
                    known.view.affinities[block] = stored
                    if block in draft.blocks:
                        known.view.blocks[block] = Stored(draft.blocks[block], revision)

    def _refresh(self, state: _OwnerState, view: View, draft: Draft, values: Sequence[KeyValue | None]) -> dict[str, Stored]:
        """Puts what is stored now into the view; returns the handles among it."""
        handles: dict[str, Stored] = {}
        for (path, expected), item in zip(draft.compares.items(), values, strict=True):
            key = parse_path(path)
            if isinstance(key, BlockKey):
                view.blocks[key.block] = parse_stored(item)
            elif isinstance(key, HandleKey):
                handles[key.handle] = parse_stored(item)
            elif key is not None and (claim := affinity_of_key(key)) is not None:
                view.affinities[claim[1]] = parse_stored(item)
            elif (item.revision if item else 0) != expected:
                state.view = None
        return handles

    def _state(self, owner: str) -> _OwnerState:
        state = self._owners.get(owner)
        if state is None:
            if len(self._owners) >= MAX_OWNERS_KEPT:
                idle = next((name for name, other in self._owners.items() if not other.lock.locked() and not other.waiting), None)
                if idle is not None:
                    del self._owners[idle]
            state = self._owners[owner] = _OwnerState()
        return state

    async def _current_view(self, state: _OwnerState, request: AssignRequest) -> View:
        now = self._monotonic()
        host = host_of(request.owner)
        if state.view is None:
            with first_error():
                async with asyncio.TaskGroup() as group:
                    settings = group.create_task(load_settings(self._store, host))
                    affinities = group.create_task(read_affinities(self._store, request.owner))
            view = View(owner=request.owner, settings=settings.result(), affinities=affinities.result())
            view.blocks |= await read_blocks(self._store, view.affinities)
            state.view, state.read_at = view, now
        elif now - state.read_at > SETTINGS_AGE_S:
            state.view.settings = await load_settings(self._store, host)
            state.read_at = now
        return state.view


async def pause(conflicts: int) -> None:
    """Lets others finish: nothing at first, then a random time of up to 40 ms."""
    if conflicts > 1:
        await asyncio.sleep(random.uniform(0.0, 0.002 * min(conflicts, 20)))

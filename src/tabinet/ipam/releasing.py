"""``Releaser``: what handles own is freed, several handles in one transaction.

In: handles. Out: nobody owns their addresses. Releases of one host are nearly all about the same few blocks: at the same time they would
refuse each other, and one after the other each would wait for the store several times. So while one transaction is under way, others wait
and then go together. Each handle gets its own result; an error of the store is everybody's who went along. A caller that goes away takes
nobody with it. O(blocks of the handles).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tabinet.errors import Conflict, StoreError
from tabinet.ipam import blocks as algebra
from tabinet.ipam import handles
from tabinet.ipam.assigning import MAX_ATTEMPTS, pause
from tabinet.ipam.reading import parse_stored, read_blocks
from tabinet.ipam.release import plan_release
from tabinet.ipam.settings import CONFIG_KEY, parse_config
from tabinet.ipam.view import Config, Draft, Settings, Stored, View
from tabinet.lib.ip import Prefix
from tabinet.model.keys import HandleKey, path_of
from tabinet.store.api import Datastore, GetOp

TOGETHER = 16
"""Handles in one transaction: each takes an operation of its own and one for each of its blocks, of the 120 that there are."""
MAX_BLOCKS = 50
"""Handles with more blocks than this between them do not go together."""

Freed = dict[str, tuple[Prefix, ...]]


class Known(Protocol):
    """What was last seen of values in the store, which saves reading them: a transaction that compares them finds out what has changed."""

    def known_block(self, block: Prefix) -> Stored | None: ...

    def known_handle(self, handle: str) -> Stored | None: ...

    def known_config(self) -> Config | None: ...


@dataclass(slots=True, eq=False)
class _Waiting:
    handle: str
    freed: asyncio.Future[tuple[Prefix, ...]]


@dataclass(slots=True)
class Releaser:
    """Frees what handles own. One event loop."""

    store: Datastore
    commit: Callable[[Draft], Awaitable[bool]]
    """True when the draft was accepted."""
    known: Known
    now_ns: Callable[[], int]
    _waiting: list[_Waiting] = field(default_factory=list)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self, handle: str) -> tuple[Prefix, ...]:
        """The handle owns nothing; returns what it owned.

        Raises:
            Conflict: others were faster a hundred times.
            StoreUnavailable, StoreDenied: the outcome may be unknown; repeating the call is safe.
        """
        mine = _Waiting(handle, asyncio.get_running_loop().create_future())
        self._waiting.append(mine)
        try:
            async with self._turn:
                while not mine.freed.done():
                    await self._release_next()
        finally:
            if mine in self._waiting:
                self._waiting.remove(mine)
        return mine.freed.result()

    async def _release_next(self) -> None:
        """Those who have waited longest have their result; all still wait when this is cancelled."""
        batch = self._waiting[:TOGETHER]
        try:
            freed = await self._release(list(dict.fromkeys(each.handle for each in batch)))
        except StoreError as error:
            for each in batch:
                each.freed.set_exception(error)
                each.freed.exception()  # who went away meanwhile does not ask for it
        else:
            for each in batch:
                each.freed.set_result(freed[each.handle])
        self._waiting = [each for each in self._waiting if each not in batch]

    async def _release(self, names: Sequence[str]) -> Freed:
        for conflicts in range(MAX_ATTEMPTS):
            await pause(conflicts)
            remembered = self._remembered(names) if not conflicts else None
            config, found = remembered or await self._read(names)
            counted = {name: handles.counted_blocks(stored.document) for name, stored in found.items() if stored.document is not None}
            touched = sorted({block for blocks in counted.values() for block in blocks})
            if len(touched) > MAX_BLOCKS and len(names) > 1:
                half = len(names) // 2
                return await self._release(names[:half]) | await self._release(names[half:])
            seen = {block: stored for block in touched if (stored := self.known.known_block(block)) is not None} if not conflicts else {}
            blocks = seen | await read_blocks(self.store, [block for block in touched if block not in seen])
            view = View(owner="", settings=Settings(pools=(), config=config), blocks=blocks)
            owned = {name: _owned(view, counted.get(name, {}), name) for name in names}
            plan = plan_release(view, [address for each in owned.values() for address in each], touched, found, self.now_ns())
            if isinstance(plan, tuple):
                raise AssertionError("addresses of these handles cannot need another one")
            if remembered:
                plan.draft.expect(CONFIG_KEY, config.revision)
            for block, stored in seen.items():
                plan.draft.expect_unchanged(block, stored)
            for name in counted:
                # What the handle counts beyond what the blocks say is a leftover of somebody's crash: it goes, too.
                plan.draft.write_handle(name, found[name], handles.new_handle())
            if await self.commit(plan.draft):
                return {name: tuple(address for address in owned[name] if address in plan.changed) for name in names}
        raise Conflict(f"blocks changed {MAX_ATTEMPTS} times while what {', '.join(names)} owned was released")

    def _remembered(self, names: Sequence[str]) -> tuple[Config, dict[str, Stored]] | None:
        """Configuration and handles as they were last seen; None: not all of them were."""
        config = self.known.known_config()
        found = {name: stored for name in names if (stored := self.known.known_handle(name)) is not None}
        return None if config is None or len(found) < len(names) else (config, found)

    async def _read(self, names: Sequence[str]) -> tuple[Config, dict[str, Stored]]:
        """Configuration and handles as they are stored."""
        reads = [GetOp(CONFIG_KEY), *(GetOp(path_of(HandleKey(name))) for name in names)]
        config_item, *items = (await self.store.txn([], reads)).values
        return parse_config(config_item), {name: parse_stored(item) for name, item in zip(names, items, strict=True)}


def _owned(view: View, blocks: dict[Prefix, int], handle: str) -> tuple[Prefix, ...]:
    return tuple(
        address
        for block in sorted(blocks)
        if (document := view.blocks[block].document) is not None
        for address in algebra.assigned_addresses(document, block, handle)
    )

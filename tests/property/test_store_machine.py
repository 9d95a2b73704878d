"""Memory and sqlite against a naive model: any sequence of transactions, leases, compactions and watches gives what the model says."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tabinet.errors import Compacted, NotFound
from tabinet.store.api import Compare, Datastore, DeleteEvent, DeleteOp, GetOp, KeyValue, Op, PutEvent, PutOp
from tabinet.store.memory import MemoryStore
from tabinet.store.sqlite import open_sqlite

T = TypeVar("T")
KEYS = st.sampled_from(["/a", "/a/", "/a/b", "/b", "/b/é", "/c"])
PREFIXES = st.sampled_from(["", "/", "/a", "/a/", "/b/é", "/x"])


@dataclass
class Model:
    """The whole history as a list of states: nothing is clever, so nothing can be wrong in the same way."""

    states: list[dict[str, KeyValue]] = field(default_factory=lambda: [{}, {}])
    compacted: int = 0
    leases: set[int] = field(default_factory=set)

    @property
    def revision(self) -> int:
        return len(self.states) - 1

    @property
    def now(self) -> dict[str, KeyValue]:
        return self.states[-1]

    def commit(self, state: dict[str, KeyValue], wrote: bool) -> None:
        if wrote:
            self.states.append(state)

    def txn(self, compares: list[Compare], then: list[Op], otherwise: list[Op]) -> tuple[bool, list[KeyValue | None]]:
        succeeded = all((self.now[c.key].revision if c.key in self.now else 0) == c.revision for c in compares)
        ops = then if succeeded else otherwise
        for op in ops:
            if isinstance(op, PutOp) and op.lease and op.lease not in self.leases:
                raise NotFound
        state, wrote, values = dict(self.now), False, []
        for op in ops:
            match op:
                case GetOp(key):
                    values.append(state.get(key))
                case DeleteOp(key):
                    wrote |= state.pop(key, None) is not None
                case PutOp(key, value, lease):
                    created = state[key].create_revision if key in state else self.revision + 1
                    state[key] = KeyValue(key, value, self.revision + 1, created, lease)
                    wrote = True
        self.commit(state, wrote)
        return succeeded, values

    def end_lease(self, lease: int) -> None:
        self.leases.discard(lease)
        kept = {key: item for key, item in self.now.items() if item.lease != lease}
        self.commit(kept, len(kept) != len(self.now))

    def changes(self, prefix: str, after: int) -> dict[int, dict[str, KeyValue | None]]:
        """For each later revision what it changed below the prefix."""
        found = {}
        for revision in range(after + 1, len(self.states)):
            old, new = self.states[revision - 1], self.states[revision]
            changed = {key: new.get(key) for key in old.keys() | new.keys() if old.get(key) != new.get(key) and key.startswith(prefix)}
            if changed:
                found[revision] = changed
        return found


class StoreMachine(RuleBasedStateMachine):
    """Both backends do the same steps; after each one, both look like the model."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.directory = Path(tempfile.mkdtemp(prefix="store-machine-"))
        self.model = Model()
        self.lease_numbers: list[int] = []

    @initialize()
    def open(self) -> None:
        self.sqlite = self.run(open_sqlite(self.directory / "s.db"))
        self.stores: list[Datastore] = [MemoryStore(), self.sqlite]

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    def teardown(self) -> None:
        for store in getattr(self, "stores", []):
            self.run(store.close())
        self.run(self.loop.shutdown_asyncgens())
        self.loop.close()
        shutil.rmtree(self.directory)

    @rule(data=st.data())
    def txn(self, data: st.DataObject) -> None:
        ops = st.lists(
            st.one_of(
                st.builds(PutOp, KEYS, st.binary(max_size=3), st.sampled_from([0, 0, *self.lease_numbers])),
                st.builds(DeleteOp, KEYS),
                st.builds(GetOp, KEYS),
            ),
            max_size=4,
            unique_by=lambda op: (op.key, isinstance(op, GetOp)),
        )
        revisions = st.sampled_from([0, *sorted({item.revision for item in self.model.now.values()})])
        compares, then, otherwise = data.draw(st.lists(st.builds(Compare, KEYS, revisions), max_size=2)), data.draw(ops), data.draw(ops)
        expected: object
        try:
            expected = (*self.model.txn(compares, then, otherwise), self.model.revision)
        except NotFound:
            expected = NotFound
        for store in self.stores:
            got: object
            try:
                result = self.run(store.txn(compares, then, otherwise))
                got = (result.succeeded, list(result.values), result.revision)
            except NotFound:
                got = NotFound
            assert got == expected

    @rule()
    def grant(self) -> None:
        numbers = {self.run(store.grant(3600)) for store in self.stores}
        assert len(numbers) == 1
        self.lease_numbers += numbers
        self.model.leases |= numbers

    @precondition(lambda self: self.lease_numbers)
    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.lease_numbers))
        self.model.end_lease(lease)
        for store in self.stores:
            self.run(store.revoke(lease))

    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        revision = data.draw(st.integers(0, self.model.revision))
        self.model.compacted = max(self.model.compacted, revision)
        for store in self.stores:
            self.run(store.compact(revision))

    @rule()
    def reopen_sqlite(self) -> None:
        self.run(self.sqlite.close())
        self.sqlite = self.run(open_sqlite(self.directory / "s.db"))
        self.stores[1] = self.sqlite

    @rule(prefix=PREFIXES, data=st.data())
    def watch(self, prefix: str, data: st.DataObject) -> None:
        after = data.draw(st.integers(0, self.model.revision + 1))
        gone = not self.model.compacted <= after <= self.model.revision
        expected = {} if gone else self.model.changes(prefix, after)
        for store in self.stores:
            try:
                got = self.run(read_changes(store, prefix, after, max(expected, default=after)))
                assert not gone
            except Compacted:
                assert gone
                continue
            assert got == expected

    @rule(prefix=PREFIXES, page_size=st.integers(1, 4))
    def list_pages(self, prefix: str, page_size: int) -> None:
        expected = [self.model.now[key] for key in sorted(self.model.now) if key.startswith(prefix)]
        for store in self.stores:
            assert self.run(read_list(store, prefix, page_size)) == (expected, {self.model.revision})

    @invariant()
    def same_as_the_model(self) -> None:
        for store in getattr(self, "stores", []):
            items, revisions = self.run(read_list(store, "", 100))
            assert {item.key: item for item in items} == self.model.now
            assert revisions == {self.model.revision}


async def read_list(store: Datastore, prefix: str, page_size: int) -> tuple[list[KeyValue], set[int]]:
    pages = [page async for page in store.list(prefix, page_size=page_size)]
    return [item for page in pages for item in page.items], {page.revision for page in pages}


async def read_changes(store: Datastore, prefix: str, after: int, until: int) -> dict[int, dict[str, KeyValue | None]]:
    found: dict[int, dict[str, KeyValue | None]] = {}
    watch = store.watch(prefix, after)
    last = -1
    async with asyncio.timeout(10):
        async for batch in watch:
            assert batch.revision >= last
            for event in batch.events:
                match event:
                    case PutEvent(item):
                        revision, key, value = item.revision, item.key, item
                    case DeleteEvent(key, revision):
                        value = None
                assert last < revision <= batch.revision
                assert key not in found.setdefault(revision, {})
                found[revision][key] = value
            last = batch.revision
            if last >= until:
                break
    await watch.aclose()
    return found


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])

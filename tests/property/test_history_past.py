"""The history against memory: whatever was written, by commands or by others, each earlier state is as it was, or said to be unsure."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from tabinet.model.history import Limits
from tabinet.model.keys import ResourceKey, path_of
from tabinet.store.api import DeleteOp, PutOp
from tabinet.store.history import find_gaps, read_log, set_limits, state_at, trim, unrecorded
from tabinet.store.memory import MemoryStore
from tabinet.store.recording import RecordingStore

PATHS = [path_of(ResourceKey("GlobalNetworkPolicy", name)) for name in "abc"]
step = st.tuples(
    st.dictionaries(st.sampled_from(PATHS), st.one_of(st.none(), st.binary(max_size=3)), min_size=1, max_size=3),
    st.sampled_from(["ours", "ours", "ours", "others"]),
)
"""What is written (None: deleted) in one transaction, and through whom."""


async def play(steps) -> tuple[MemoryStore, dict[int, dict[str, bytes]]]:
    """The store, and what stood in it after each transaction, by revision."""
    store = MemoryStore()
    ours = RecordingStore(store, "me", "test")
    states: dict[int, dict[str, bytes]] = {store.revision: {}}
    now: dict[str, bytes] = {}
    for writes, through in steps:
        if through == "others":  # what they make and delete again nobody can know without a clerk
            writes = {path: value or b"" for path, value in writes.items()}
        operations = [DeleteOp(path) if value is None else PutOp(path, value) for path, value in writes.items()]
        result = await (ours if through == "ours" else store).txn([], operations)
        now = {path: value for path, value in {**now, **writes}.items() if value is not None}
        states[result.revision] = now
    return store, states


@given(st.lists(step, max_size=12))
def test_what_is_not_unsure_is_as_it_was(steps):
    async def check() -> None:
        store, states = await play(steps)
        log = await read_log(store)
        for revision, state in states.items():
            past = state_at(log, revision)
            known = set(PATHS) - set(past.unsure)
            assert {path: item.value for path, item in past.items.items() if path in known} == {
                path: value for path, value in state.items() if path in known
            }

    asyncio.run(check())


@given(st.lists(step.map(lambda each: (each[0], "ours")), max_size=12), st.integers(1, 12))
def test_what_only_commands_wrote_is_known_as_far_back_as_is_kept(steps, kept):
    async def check() -> None:
        store, states = await play(steps)
        log = await read_log(store)
        assert (find_gaps(log.records), unrecorded(log)) == ([], [])
        await set_limits(store, Limits(entries=kept))
        await trim(store, 0.0)
        log = await read_log(store)
        assert len(log.records) <= kept
        for revision, state in states.items():
            if revision >= log.position.dropped:
                past = state_at(log, revision)
                assert ({path: item.value for path, item in past.items.items()}, past.unsure) == (state, ())

    asyncio.run(check())

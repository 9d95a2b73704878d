"""What every backend does: one suite for memory, sqlite and etcd (see ``Datastore``)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import pytest

from tabinet.errors import Compacted, NotFound, StoreUnavailable
from tabinet.store.api import Compare, Datastore, DeleteEvent, DeleteOp, GetOp, KeyValue, PutEvent, PutOp

WAIT_S = 10.0


async def put(store: Datastore, key: str, value: bytes = b"v", lease: int = 0) -> int:
    return (await store.txn([], [PutOp(key, value, lease)])).revision


async def delete(store: Datastore, key: str) -> int:
    return (await store.txn([], [DeleteOp(key)])).revision


async def list_all(store: Datastore, prefix: str, page_size: int = 5000) -> tuple[list[KeyValue], int]:
    pages = [page async for page in store.list(prefix, page_size=page_size)]
    assert len({page.revision for page in pages}) == 1
    return [item for page in pages for item in page.items], pages[0].revision


def flat(event: PutEvent | DeleteEvent) -> tuple[str, bytes | None, int]:
    if isinstance(event, PutEvent):
        return event.item.key, event.item.value, event.item.revision
    return event.key, None, event.revision


async def read_events(store: Datastore, prefix: str, after: int, count: int) -> list[tuple[str, bytes | None, int]]:
    """The first ``count`` changes after a revision, from a new watch."""
    seen: list[tuple[str, bytes | None, int]] = []
    async with asyncio.timeout(WAIT_S):
        async with aclosing(store.watch(prefix, after)) as watch:
            async for batch in watch:
                seen += [flat(event) for event in batch.events]
                if len(seen) >= count:
                    return seen
    raise AssertionError("the watch ended by itself")


# --- values and transactions ----------------------------------------------------------------------------------------


async def test_put_get_delete(store: Datastore, base: str) -> None:
    assert await store.get(base + "a") is None
    first = await put(store, base + "a", b"1")
    assert await store.get(base + "a") == KeyValue(base + "a", b"1", first, first)
    second = await put(store, base + "a", b"2")
    assert second == first + 1
    assert await store.get(base + "a") == KeyValue(base + "a", b"2", second, first)
    third = await delete(store, base + "a")
    assert third == second + 1
    assert await store.get(base + "a") is None
    fourth = await put(store, base + "a", b"")
    assert await store.get(base + "a") == KeyValue(base + "a", b"", fourth, fourth)


async def test_what_changes_nothing_makes_no_revision(store: Datastore, base: str) -> None:
    revision = await put(store, base + "a")
    assert await delete(store, base + "none") == revision
    assert (await store.txn([], [GetOp(base + "a")])).revision == revision
    assert (await store.txn([], [])).revision == revision
    assert await put(store, base + "a") == revision + 1


async def test_compare_decides_the_branch(store: Datastore, base: str) -> None:
    key = base + "a"
    create = await store.txn([Compare(key, 0)], [PutOp(key, b"1")], [GetOp(key)])
    assert (create.succeeded, create.values) == (True, ())
    again = await store.txn([Compare(key, 0)], [PutOp(key, b"2")], [GetOp(key), GetOp(base + "none")])
    assert not again.succeeded
    assert again.values == (KeyValue(key, b"1", create.revision, create.revision), None)
    update = await store.txn([Compare(key, create.revision), Compare(base + "none", 0)], [PutOp(key, b"3")])
    assert update.succeeded
    stale = await store.txn([Compare(key, create.revision)], [DeleteOp(key)], [PutOp(base + "b", b"lost")])
    assert not stale.succeeded
    assert [item.value for item in (await list_all(store, base))[0]] == [b"3", b"lost"]


async def test_one_revision_for_a_transaction_and_gets_see_its_writes(store: Datastore, base: str) -> None:
    await put(store, base + "old", b"o")
    result = await store.txn(
        [],
        [GetOp(base + "new"), PutOp(base + "new", b"n"), GetOp(base + "new"), DeleteOp(base + "old"), GetOp(base + "old")],
    )
    assert result.values == (None, KeyValue(base + "new", b"n", result.revision, result.revision), None)
    assert await read_events(store, base, result.revision - 1, 2) == [
        (base + "new", b"n", result.revision),
        (base + "old", None, result.revision),
    ]


async def test_wrong_transactions_are_refused_before_they_run(store: Datastore, base: str) -> None:
    with pytest.raises(ValueError, match="once"):
        await store.txn([], [PutOp(base + "a", b"1"), PutOp(base + "a", b"2")])
    with pytest.raises(ValueError, match="once"):
        await store.txn([], [], [PutOp(base + "a", b"1"), DeleteOp(base + "a")])
    with pytest.raises(ValueError, match="at most 128"):
        await store.txn([], [PutOp(f"{base}{n}", b"") for n in range(129)])
    assert await list_all(store, base) == ([], (await store.txn([], [])).revision)


async def test_128_operations_fit(store: Datastore, base: str) -> None:
    keys = [f"{base}{n:03}" for n in range(128)]
    result = await store.txn([Compare(key, 0) for key in keys], [PutOp(key, b"x") for key in keys])
    assert result.succeeded
    assert {item.revision for item in (await list_all(store, base))[0]} == {result.revision}


async def test_of_many_writers_exactly_one_wins_each_round(open_client: Callable[[], Awaitable[Datastore]], base: str) -> None:
    clients = [await open_client() for _ in range(3)]
    key = base + "counter"

    async def add(client: Datastore) -> None:
        done = 0
        while done < 20:
            item = await client.get(key)
            number = int(item.value) if item else 0
            result = await client.txn([Compare(key, item.revision if item else 0)], [PutOp(key, b"%d" % (number + 1))])
            done += result.succeeded

    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(add(client))
    final = await clients[0].get(key)
    assert final is not None
    assert final.value == b"60"


@pytest.mark.parametrize("value", [b"", b"\x00\xff", b"x" * 500_000])
async def test_values_are_any_bytes(store: Datastore, base: str, value: bytes) -> None:
    await put(store, base + "ключ/é", value)
    item = await store.get(base + "ключ/é")
    assert item is not None
    assert item.value == value


# --- lists ----------------------------------------------------------------------------------------------------------


async def test_list_is_in_key_order_below_the_prefix_only(store: Datastore, base: str) -> None:
    inside = [base + "p/" + name for name in ("", "a", "a/b", "b", "é", "\u07ff", "\uffff")]
    for key in [*reversed(inside), base + "p", base + "p0", base + "o/z"]:
        await put(store, key)
    assert [item.key for item in (await list_all(store, base + "p/"))[0]] == inside
    assert [item.key for item in (await list_all(store, base + "p/a"))[0]] == [base + "p/a", base + "p/a/b"]
    everything = [item.key for item in (await list_all(store, ""))[0]]
    assert set(inside) <= set(everything)
    assert everything == sorted(everything)


async def test_an_empty_list_is_one_page_with_the_revision(store: Datastore, base: str) -> None:
    revision = await put(store, base + "a")
    pages = [page async for page in store.list(base + "none/")]
    assert [(page.items, page.revision) for page in pages] == [([], revision)]


@pytest.mark.parametrize("count", [9, 10, 11])
async def test_pages_hold_everything_once(store: Datastore, base: str, count: int) -> None:
    for number in range(count):
        await put(store, f"{base}{number:02}")
    pages = [page async for page in store.list(base, page_size=5)]
    assert [item.key for page in pages for item in page.items] == [f"{base}{number:02}" for number in range(count)]
    assert all(len(page.items) <= 5 for page in pages)


async def test_a_list_is_of_one_revision_whatever_is_written_meanwhile(store: Datastore, base: str) -> None:
    for number in range(10):
        await put(store, f"{base}{number}", b"old")
    listed: list[KeyValue] = []
    revisions = set()
    async for page in store.list(base, page_size=2):
        listed += page.items
        revisions.add(page.revision)
        await store.txn([], [PutOp(base + "9", b"new"), DeleteOp(base + "8"), PutOp(f"{base}{len(listed)}x", b"new")])
    assert len(revisions) == 1
    assert [(item.key, item.value) for item in listed] == [(f"{base}{number}", b"old") for number in range(10)]


async def test_a_list_may_be_left_early(store: Datastore, base: str) -> None:
    for number in range(10):
        await put(store, f"{base}{number}")
    async with aclosing(store.list(base, page_size=2)) as pages:  # type: ignore[type-var]  # the protocol promises an iterator only
        async for page in pages:
            assert len(page.items) == 2
            break
    await put(store, base + "a")


# --- watches --------------------------------------------------------------------------------------------------------


async def test_the_first_batch_says_that_the_watch_stands(store: Datastore, base: str) -> None:
    revision = await put(store, base + "a")
    async with asyncio.timeout(WAIT_S), aclosing(store.watch(base, revision)) as watch:
        first = await anext(watch)
    assert (first.events, first.revision) == ([], revision)


async def test_a_watch_delivers_the_past_then_the_present(open_client: Callable[[], Awaitable[Datastore]], base: str) -> None:
    writer, reader = await open_client(), await open_client()
    start = await put(writer, base + "before")
    await put(writer, base + "a", b"1")
    await delete(writer, base + "before")
    seen: list[tuple[str, bytes | None, int]] = []
    async with asyncio.timeout(WAIT_S), aclosing(reader.watch(base, start)) as watch:
        async for batch in watch:
            seen += [flat(event) for event in batch.events]
            if len(seen) == 2:
                await put(writer, base + "a", b"2")
                await put(writer, base[:-1] + "-elsewhere", b"not for us")
                await delete(writer, base + "a")
            if len(seen) == 4:
                break
    assert seen == [
        (base + "a", b"1", start + 1),
        (base + "before", None, start + 2),
        (base + "a", b"2", start + 3),
        (base + "a", None, start + 5),
    ]


async def test_no_loss_no_duplicates_over_reconnects(open_client: Callable[[], Awaitable[Datastore]], base: str) -> None:
    writer, reader = await open_client(), await open_client()
    start = (await writer.txn([], [])).revision
    expected: list[tuple[str, bytes | None, int]] = []

    async def write() -> None:
        for number in range(100):
            key = f"{base}{number % 7}"
            existed = await writer.get(key) is not None
            if number % 5:
                result = await writer.txn([], [PutOp(key, b"%d" % number), PutOp(key + "x", b"%d" % number)])
                expected.extend((name, b"%d" % number, result.revision) for name in (key, key + "x"))
            else:
                result = await writer.txn([], [DeleteOp(key)])
                if existed:
                    expected.append((key, None, result.revision))

    seen: list[tuple[str, bytes | None, int]] = []

    async def read() -> None:
        last = start
        while not (seen and seen[-1][:2] == (base + "1x", b"99")):
            async with aclosing(reader.watch(base, last)) as watch:
                batches = 0
                async for batch in watch:
                    assert batch.revision >= last
                    revisions = {flat(event)[2] for event in batch.events}
                    assert all(last < revision <= batch.revision for revision in revisions)
                    seen.extend(flat(event) for event in batch.events)
                    last = batch.revision
                    batches += 1
                    if batches == 4 or (seen and seen[-1][:2] == (base + "1x", b"99")):
                        break

    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
        group.create_task(read())
        group.create_task(write())
    assert seen == expected


async def test_a_transaction_is_never_split_over_batches(store: Datastore, base: str) -> None:
    start = (await store.txn([], [])).revision
    for _ in range(60):
        await store.txn([], [PutOp(f"{base}{number:03}", b"v" * 100) for number in range(100)])
    count = 0
    async with asyncio.timeout(WAIT_S), aclosing(store.watch(base, start)) as watch:
        async for batch in watch:
            assert len(batch.events) % 100 == 0
            assert not batch.events or flat(batch.events[-1])[2] == batch.revision
            count += len(batch.events)
            if count == 6000:
                break


async def test_two_watches_do_not_disturb_each_other(store: Datastore, base: str) -> None:
    start = (await store.txn([], [])).revision
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
        one = group.create_task(read_events(store, base + "1/", start, 2))
        two = group.create_task(read_events(store, base + "2/", start, 1))
        for number, key in enumerate(("1/a", "2/a", "1/b")):
            await put(store, base + key, b"%d" % number)
    assert [event[:2] for event in one.result()] == [(base + "1/a", b"0"), (base + "1/b", b"2")]
    assert [event[:2] for event in two.result()] == [(base + "2/a", b"1")]


# --- compaction -----------------------------------------------------------------------------------------------------


async def test_compaction_forgets_changes_and_keeps_values(store: Datastore, base: str) -> None:
    first = await put(store, base + "a", b"1")
    second = await put(store, base + "a", b"2")
    third = await delete(store, base + "a")
    fourth = await put(store, base + "b", b"3")
    await store.compact(third)
    with pytest.raises(Compacted):
        await read_events(store, base, first, 1)
    with pytest.raises(Compacted):
        await read_events(store, base, second, 1)
    assert await read_events(store, base, third, 1) == [(base + "b", b"3", fourth)]
    assert [item.value for item in (await list_all(store, base))[0]] == [b"3"]
    await store.compact(first)


async def test_a_watch_that_is_up_to_date_survives_compaction(store: Datastore, base: str) -> None:
    start = await put(store, base + "a")
    async with asyncio.timeout(WAIT_S), aclosing(store.watch(base, start)) as watch:
        await anext(watch)
        following = asyncio.ensure_future(anext(watch))
        last = await put(store, base + "a", b"2")
        assert [flat(event) for event in (await following).events] == [(base + "a", b"2", last)]
        await store.compact(last)
        following = asyncio.ensure_future(anext(watch))
        last = await put(store, base + "a", b"3")
        assert [flat(event) for event in (await following).events] == [(base + "a", b"3", last)]


async def test_a_revision_that_the_store_never_reached_means_list_again(store: Datastore, base: str) -> None:
    revision = await put(store, base + "a")
    with pytest.raises(Compacted):
        await read_events(store, base, revision + 1000, 1)


# --- leases ---------------------------------------------------------------------------------------------------------


async def test_keys_end_with_their_lease(store: Datastore, base: str) -> None:
    lease = await store.grant(60)
    revision = await put(store, base + "a", b"1", lease)
    await put(store, base + "b", b"2", lease)
    await put(store, base + "kept", b"3", lease)
    before = await put(store, base + "kept", b"4")
    item = await store.get(base + "a")
    assert item == KeyValue(base + "a", b"1", revision, revision, lease)
    await store.keep_alive(lease)
    await store.revoke(lease)
    assert [item.value for item in (await list_all(store, base))[0]] == [b"4"]
    assert await read_events(store, base, before, 2) == [(base + "a", None, before + 1), (base + "b", None, before + 1)]
    await store.revoke(lease)
    with pytest.raises(NotFound):
        await store.keep_alive(lease)
    with pytest.raises(NotFound):
        await put(store, base + "c", b"5", lease)
    assert await store.get(base + "c") is None


async def test_a_lease_ends_by_itself_and_a_watch_tells(store: Datastore, base: str) -> None:
    lease = await store.grant(1)
    revision = await put(store, base + "a", b"1", lease)
    assert await read_events(store, base, revision, 1) == [(base + "a", None, revision + 1)]


# --- closing --------------------------------------------------------------------------------------------------------


async def test_closing_ends_watches_and_calls(store: Datastore, base: str) -> None:
    revision = await put(store, base + "a")
    stands = asyncio.Event()

    async def watch() -> None:
        async for _ in store.watch(base, revision):
            stands.set()

    async with asyncio.timeout(WAIT_S):
        watching = asyncio.ensure_future(watch())
        await stands.wait()
        await store.close()
        with pytest.raises(StoreUnavailable):
            await watching
        for call in (store.get(base), store.txn([], []), store.grant(5), store.keep_alive(1), anext(store.list(base))):
            with pytest.raises(StoreUnavailable):
                await call
        with pytest.raises(StoreUnavailable):
            await anext(store.watch(base, revision))
        await store.close()

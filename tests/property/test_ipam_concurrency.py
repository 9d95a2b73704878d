"""Hosts that assign at the same time, and callers that die anywhere: no address twice, nothing leaks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest
from ipam_stores import Killed, YieldingStore, put_endpoint, put_node, put_pool

from tabinet.errors import AddressError, Conflict
from tabinet.ipam.client import IpamClient
from tabinet.ipam.collector import collect
from tabinet.ipam.plan import AssignRequest
from tabinet.ipam.removal import delete_pool
from tabinet.ipam.split import split_pool
from tabinet.lib.ip import Prefix, parse_prefix
from tabinet.store.memory import MemoryStore


async def test_ten_hosts_at_once_never_share_an_address() -> None:
    inner = MemoryStore()
    await put_pool(inner, "four", "10.0.0.0/24", blockSize=28)
    await put_pool(inner, "six", "fd00::/120", blockSize=124)
    clients = {f"h{number}": IpamClient(YieldingStore(inner)) for number in range(10)}
    got: dict[str, tuple[Prefix, ...]] = {}

    async def one(host: str, number: int) -> None:
        handle = f"{host}.{number}"
        request = AssignRequest(host=host, handle=handle, count4=1, count6=1)
        got[handle] = (await clients[host].assign(request)).addresses

    async with asyncio.TaskGroup() as group:
        for host in clients:
            for number in range(20):
                group.create_task(one(host, number))

    addresses = [address for handle in got for address in got[handle]]
    assert len(addresses) == len(set(addresses)) == 400
    assert await IpamClient(inner).check() == ()


async def test_two_processes_of_one_host_never_share_an_address() -> None:
    inner = MemoryStore()
    await put_pool(inner, "four", "10.0.0.0/26", blockSize=28)
    clients = [IpamClient(YieldingStore(inner)) for _ in range(4)]
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(client.assign(AssignRequest(host="h", handle=f"{number}.{turn}", count4=1)))
            for turn in range(16)
            for number, client in enumerate(clients)
        ]
    addresses = [address for task in tasks for address in task.result().addresses]
    assert len(set(addresses)) == 64
    assert await IpamClient(inner).check() == ()


async def test_the_last_addresses_of_a_full_pool_go_to_whoever_is_first() -> None:
    inner = MemoryStore()
    await put_pool(inner, "four", "10.0.0.0/29", blockSize=30)
    outcomes = await asyncio.gather(
        *(IpamClient(YieldingStore(inner)).assign(AssignRequest(host=f"h{n}", handle=f"w{n}", count4=1)) for n in range(12)),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, AddressError) for outcome in outcomes) == 4
    assert len({outcome.addresses for outcome in outcomes if not isinstance(outcome, BaseException)}) == 8
    assert await IpamClient(inner).check() == ()


async def _prepared() -> MemoryStore:
    inner = MemoryStore()
    await put_pool(inner, "four", "10.0.0.0/27", blockSize=29)
    await put_pool(inner, "six", "fd00::/123", blockSize=125)
    await IpamClient(inner).assign(AssignRequest(host="other", handle="before", count4=3, count6=1))
    return inner


async def test_a_caller_that_dies_at_any_point_of_an_assignment_leaves_all_or_nothing() -> None:
    request = AssignRequest(host="h", handle="w", count4=2, count6=1)
    kill_at = 0
    seen: set[int] = set()
    while True:
        kill_at += 1
        inner = await _prepared()
        store = YieldingStore(inner, kill_at=kill_at)
        with contextlib.suppress(Killed):
            await IpamClient(store).assign(request)
            break
        client = IpamClient(inner)
        assert await client.check() == ()
        # A new process repeats the request, and gets what the dead one had, if that was recorded.
        again = await client.assign(request)
        assert len(again.addresses) == 3
        seen.add(len(again.assigned))
        assert await client.check() == ()
        assert set(await client.release_handle("w")) == set(again.addresses)
        assert await client.check() == ()
        assert sum(usage.assigned for usage in await client.usage()) == 4
    assert seen == {0, 3}
    assert kill_at > 10


async def test_a_caller_that_dies_at_any_point_of_a_release_leaves_all_or_nothing() -> None:
    kill_at = 0
    seen: set[int] = set()
    while True:
        kill_at += 1
        inner = await _prepared()
        client = IpamClient(inner)
        addresses = (await client.assign(AssignRequest(host="h", handle="w", count4=2, count6=1))).addresses
        store = YieldingStore(inner, kill_at=kill_at)
        with contextlib.suppress(Killed):
            assert set(await IpamClient(store).release_handle("w")) == set(addresses)
            break
        assert await client.check() == ()
        left = await client.release_handle("w")
        assert set(left) in (set(), set(addresses))
        seen.add(len(left))
    assert seen == {0, 3}


async def test_cancelled_tasks_leave_all_or_nothing() -> None:
    inner = await _prepared()
    store = YieldingStore(inner)
    client = IpamClient(store)
    for turns in range(40):
        task = asyncio.create_task(client.assign(AssignRequest(host="h", handle="w", count4=2)))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert await IpamClient(inner).check() == ()
        await client.release_handle("w")
        assert await IpamClient(inner).check() == ()
    assert [usage.assigned for usage in await client.usage()] == [3, 1]


async def test_releases_and_assignments_at_once_stay_consistent() -> None:
    inner = MemoryStore()
    await put_pool(inner, "four", "10.0.0.0/26", blockSize=28)
    clients = [IpamClient(YieldingStore(inner)) for _ in range(4)]

    async def churn(number: int) -> None:
        client = clients[number]
        for turn in range(12):
            handle = f"{number}.{turn % 3}"
            addresses = (await client.assign(AssignRequest(host=f"h{number % 2}", handle=handle, count4=2))).addresses
            assert len(addresses) == 2
            if turn % 2:
                assert set(await client.release_handle(handle)) == set(addresses)
            else:
                assert await client.release_addresses(addresses[:1]) == addresses[:1]
                await client.release_addresses(addresses)

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(churn(number))
    assert await IpamClient(inner).check() == ()
    assert sum(usage.assigned for usage in await clients[0].usage()) == 0


async def test_an_assignment_at_any_point_of_a_release_of_the_same_handle() -> None:
    for offset in range(12):
        inner = MemoryStore()
        await put_pool(inner, "four", "10.0.0.0/24", blockSize=30)
        await IpamClient(inner).assign(AssignRequest(host="h1", handle="shared", count4=1))
        # This client has read everything: from now on it does not let other tasks run in the middle.
        other = IpamClient(inner)
        await other.assign(AssignRequest(host="h2", handle="warm", count4=1))
        release = asyncio.create_task(IpamClient(YieldingStore(inner)).release_handle("shared"))
        for _ in range(offset):
            await asyncio.sleep(0)
        await other.assign(AssignRequest(host="h2", handle="shared", count4=2))
        await release
        assert await IpamClient(inner).check() == (), f"after {offset} turns"


OPERATIONS: dict[str, Callable[[YieldingStore], Awaitable[object]]] = {
    "release of a host": lambda store: IpamClient(store).release_host("other"),
    "deletion of a pool": lambda store: delete_pool(store, "empty"),
    "draining of a pool": lambda store: delete_pool(store, "four", force=True),
    "split of a pool": lambda store: split_pool(store, "four", 2),
    "garbage collection": lambda store: collect(store, grace_s=0),
}


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_death_at_any_point_leaves_everything_fitting_together(operation: str) -> None:
    kill_at = 0
    ended = False
    while not ended:
        kill_at += 1
        inner = await _prepared()
        await put_pool(inner, "empty", "10.1.0.0/27", blockSize=29)
        await put_node(inner, "h")
        client = IpamClient(inner)
        for host in ("h", "other"):
            pool = (parse_prefix("10.1.0.0/27"),)
            await client.assign(AssignRequest(host=host, handle=f"gone.{host}", count4=3, pools4=pool))
            await client.release_handle(f"gone.{host}")
        store = YieldingStore(inner, kill_at=kill_at)
        with contextlib.suppress(Killed):
            with contextlib.suppress(Conflict):
                await OPERATIONS[operation](store)
            ended = True
        assert await IpamClient(inner).check() == (), f"killed at {kill_at}"
    assert kill_at > 4


async def test_garbage_collection_at_any_time_takes_nothing_from_those_who_attach() -> None:
    inner = MemoryStore()
    await put_pool(inner, "four", "10.0.0.0/25", blockSize=29)
    for host in ("h0", "h1", "h2"):
        await put_node(inner, host)
    busy = True

    async def attach(number: int) -> None:
        """Assigned, in use, not in use, released; every second one dies before it releases."""
        client = IpamClient(YieldingStore(inner))
        for turn in range(10):
            handle = f"{number}.{turn}"
            request = AssignRequest(host=f"h{number}", handle=handle, count4=2, attributes={"workload": handle})
            addresses = (await client.assign(request)).addresses
            name = f"h{number}-cni-{handle}-eth0"
            await put_endpoint(inner, name, addresses)
            await asyncio.sleep(0)
            assert await client.owned(handle) == addresses
            await put_endpoint(inner, name, None)
            if turn % 2:
                await client.release_handle(handle)

    async def collector() -> None:
        """With a grace period as long as it takes to attach: a round or two."""
        now_s = 1_000_000_000
        while busy:
            now_s += 10
            await collect(YieldingStore(inner), grace_s=20, now_ns=lambda now_s=now_s: now_s * 10**9)

    async with asyncio.TaskGroup() as group:
        collecting = [group.create_task(collector()) for _ in range(2)]
        await asyncio.gather(*(attach(number) for number in range(3)))
        busy = False
        await asyncio.gather(*collecting)
    await collect(inner, grace_s=0)
    client = IpamClient(inner)
    assert await client.check() == ()
    assert sum(usage.assigned for usage in await client.usage()) == 0


async def test_processes_that_die_with_several_requests_under_way_leave_all_or_nothing_of_each() -> None:
    for kill_at in range(1, 60):
        inner = await _prepared()
        client = IpamClient(YieldingStore(inner, kill_at=kill_at))
        requests = [AssignRequest(host="h", handle=f"w{number}", count4=1, count6=1) for number in range(6)]
        tasks = [asyncio.create_task(client.assign(request)) for request in requests]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        # The process is dead: what is still under way in it never goes on.
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        told = {request.handle for request, outcome in zip(requests, outcomes, strict=True) if not isinstance(outcome, BaseException)}
        survivor = IpamClient(inner)
        assert await survivor.check() == ()
        for request in requests:
            owned = await survivor.owned(request.handle)
            assert len(owned) in ((2,) if request.handle in told else (0, 2))
            assert len((await survivor.assign(request)).addresses) == 2
        assert await survivor.check() == ()
        assert done

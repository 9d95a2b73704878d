"""Garbage collection: what goes, what waits, what stays, and who does it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest
from ipam_cluster import Cluster, want

from tabinet.errors import StoreUnavailable
from tabinet.ipam import blocks as algebra
from tabinet.ipam.audit import find_leaks, find_problems
from tabinet.ipam.collector import LEADER_KEY, SUSPECTS_KEY, Collection, collect, run_collector
from tabinet.ipam.findings import Finding
from tabinet.ipam.garbage import Suspect, plan_repair, sort_findings
from tabinet.ipam.inventory import Inventory, read_fabric, read_inventory
from tabinet.ipam.view import Settings
from tabinet.lib.ip import parse_prefix
from tabinet.model.keys import AffinityKey, BlockKey, HandleKey, ResourceKey
from tabinet.store.memory import MemoryStore

BLOCK = parse_prefix("10.0.0.0/30")
GRACE_S = 900.0


@pytest.fixture
async def cluster() -> Cluster:
    cluster = Cluster()
    await cluster.pool("a", "10.0.0.0/24", blockSize=30)
    await cluster.node("h")
    return cluster


async def run(cluster: Cluster, grace_s: float = GRACE_S, *, dry_run: bool = False) -> Collection:
    return await collect(cluster.store, grace_s=grace_s, dry_run=dry_run, now_ns=lambda: cluster.now_ns)


async def codes(cluster: Cluster) -> list[str]:
    inventory, fabric = await read_inventory(cluster.store), await read_fabric(cluster.store)
    return [finding.code for finding in find_problems(inventory) + find_leaks(inventory, fabric)]


def pass_s(cluster: Cluster, seconds: float) -> None:
    cluster.now_ns += int(seconds * 1e9)


async def leak(cluster: Cluster, handle: str = "w", count: int = 1) -> None:
    await cluster.client().assign(want(handle=handle, count4=count, attributes={"workload": handle}))


# --- grace ----------------------------------------------------------------------------------------------------------------


async def test_a_leak_goes_after_the_grace_period(cluster: Cluster) -> None:
    await leak(cluster, count=2)
    first = await run(cluster)
    assert (first.done, [left for _, left in first.waiting]) == ((), [GRACE_S])
    pass_s(cluster, GRACE_S - 1)
    assert [left for _, left in (await run(cluster)).waiting] == [1.0]
    pass_s(cluster, 1)
    assert [finding.code for finding in (await run(cluster)).done] == ["address-unused"]
    assert await cluster.client().owned("w") == ()
    assert await cluster.store.get(SUSPECTS_KEY) is None
    assert await run(cluster) == Collection()


async def test_whoever_asks_for_its_addresses_again_keeps_them(cluster: Cluster) -> None:
    await leak(cluster)
    await run(cluster)
    pass_s(cluster, GRACE_S)
    # A workload that is being attached again: its address is assigned already, its endpoint comes in a moment.
    await leak(cluster)
    assert [left for _, left in (await run(cluster)).waiting] == [GRACE_S]
    assert len(await cluster.client().owned("w")) == 1


async def test_an_endpoint_that_comes_back_clears_the_suspicion(cluster: Cluster) -> None:
    await leak(cluster)
    (address,) = await cluster.client().owned("w")
    await run(cluster)
    await cluster.endpoint("h-cni-c-eth0", str(address))
    pass_s(cluster, GRACE_S)
    assert await run(cluster) == Collection()
    await cluster.put(ResourceKey("WorkloadEndpoint", "h-cni-c-eth0", "shop"), None)
    assert [left for _, left in (await run(cluster)).waiting] == [GRACE_S]


async def test_a_dry_run_writes_nothing(cluster: Cluster) -> None:
    await leak(cluster)
    before = cluster.store.revision
    assert len((await run(cluster, dry_run=True)).waiting) == 1
    result = await run(cluster, 0, dry_run=True)
    assert ([finding.code for finding in result.done], result.dry_run) == (["address-unused"], True)
    assert cluster.store.revision == before


async def test_without_grace_all_goes_at_once(cluster: Cluster) -> None:
    await leak(cluster, "w1", 2)
    await leak(cluster, "w2", 4)
    assert len((await run(cluster, 0)).done) == 2
    assert await codes(cluster) == []
    assert sum(usage.assigned for usage in await cluster.client().usage()) == 0


def test_suspects_that_are_found_no_more_are_forgotten_and_notes_never_due() -> None:
    gone = {"address-unused handle x": Suspect("1", 0.0)}
    note = Finding("address-shared", "address 10.0.0.1", "is used by a, b")
    assert sort_findings([note], gone, 1e9, 0.0) == sort_findings([], {}, 0.0, 0.0)
    with pytest.raises(ValueError, match="address-shared is not put right by a program"):
        plan_repair(note, Inventory(Settings(pools=())), 0)


async def test_what_is_remembered_and_damaged_is_begun_anew(cluster: Cluster) -> None:
    await leak(cluster)
    await cluster.put(SUSPECTS_KEY, ["damaged"])
    assert [left for _, left in (await run(cluster)).waiting] == [GRACE_S]
    pass_s(cluster, GRACE_S)
    assert len((await run(cluster)).done) == 1


# --- what goes ------------------------------------------------------------------------------------------------------------


async def test_a_host_that_is_gone_loses_blocks_and_addresses_but_not_those_that_others_borrowed(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/29", blockSize=30)
    await cluster.client().assign(want(host="x", handle="x", count4=3))
    await cluster.client().assign(want(host="y", handle="y"))
    await cluster.node("y")
    (borrowed,) = (
        await cluster.client().assign_address(parse_prefix("10.0.0.0/29").host(3), want(handle="b", attributes={"workload": "b"}))
    ).addresses
    await cluster.endpoint("h-cni-b-eth0", str(borrowed))
    await cluster.node("x")
    assert await run(cluster, 0) == Collection()
    await cluster.put(ResourceKey("Node", "x"), None)
    assert {finding.code for finding in (await run(cluster, 0)).done} == {"block-of-lost-host", "address-of-lost-host"}
    await run(cluster, 0)
    assert await codes(cluster) == []
    assert await cluster.client().blocks("x") == ()
    assert await cluster.client().owned("b") == (borrowed,)


@pytest.mark.parametrize("state", ["pending", "pendingDeletion", "confirmed"])
@pytest.mark.parametrize("block_of", ["h", "x", "nobody", "none"])
@pytest.mark.parametrize("assigned", [0, 1])
async def test_claims_that_a_writer_left_unfinished(cluster: Cluster, state: str, block_of: str, assigned: int) -> None:
    await cluster.node("x")
    await cluster.put(AffinityKey("h", BLOCK), {"state": state, "deleted": False})
    if block_of != "none":
        owner = {"h": "host:h", "x": "host:x", "nobody": ""}[block_of]
        document = algebra.new_block(BLOCK, owner, 1, "2026-01-02T02:59:59Z") | ({} if owner else {"affinity": None})
        await cluster.put(BlockKey(BLOCK), algebra.assign(document, BLOCK, assigned, "w", {}, "", strict=False)[0])
    if assigned and block_of != "none":
        await cluster.put(HandleKey("w"), {"block": {str(BLOCK): 1}, "deleted": False})
    await run(cluster, 0)
    await run(cluster, 0)
    assert await codes(cluster) == []
    assert len(await cluster.client().owned("w")) == (assigned if block_of != "none" else 0)


@pytest.mark.parametrize("counted", [0, 1, 5])
@pytest.mark.parametrize("owned", [0, 1])
async def test_handles_count_what_the_blocks_say(cluster: Cluster, counted: int, owned: int) -> None:
    document = algebra.new_block(BLOCK, "host:h", 1, "2026-01-02T02:59:59Z")
    await cluster.put(BlockKey(BLOCK), algebra.assign(document, BLOCK, owned, "w", {}, "", strict=False)[0])
    await cluster.put(AffinityKey("h", BLOCK), {"state": "confirmed", "deleted": False})
    if counted:
        await cluster.put(HandleKey("w"), {"block": {str(BLOCK): counted, "10.0.0.8/30": 1}, "deleted": False, "later": 1})
    await run(cluster, 0)
    expected = {"block": {str(BLOCK): 1}, "deleted": False} | ({"later": 1} if counted else {})
    assert await cluster.read(HandleKey("w")) == (expected if owned else None)
    assert await codes(cluster) == []


async def test_spare_blocks_go_when_they_are_old_enough_without_being_suspected_first(cluster: Cluster) -> None:
    client = cluster.client()
    await client.assign(want(count4=12))
    await client.release_handle("w")
    assert await run(cluster) == Collection()
    pass_s(cluster, GRACE_S)
    assert [finding.code for finding in (await run(cluster)).done] == ["block-spare", "block-spare"]
    assert len(await client.blocks("h")) == 1
    assert len((await client.assign(want(count4=5))).addresses) == 5
    assert await client.check() == ()


async def test_addresses_that_have_rested_are_freed_in_blocks_that_nobody_writes_to(cluster: Cluster) -> None:
    await cluster.put("/calico/ipam/v2/config", {"ipCooldownSeconds": 60})
    client = cluster.client()
    kept = (await client.assign(want(handle="kept"))).addresses
    await client.assign(want())
    await client.release_handle("w")
    pass_s(cluster, 59)
    assert await run(cluster) == Collection()
    pass_s(cluster, 1)
    assert [finding.code for finding in (await run(cluster)).done] == ["block-rested"]
    assert [(usage.assigned, usage.resting) for usage in await client.usage()] == [(1, 0)]
    assert await client.owned("kept") == kept


# --- what stays -----------------------------------------------------------------------------------------------------------


async def test_no_address_goes_because_of_an_endpoint_that_cannot_be_read(cluster: Cluster) -> None:
    await leak(cluster)
    await cluster.put(HandleKey("empty"), {"block": {}, "deleted": False})
    await cluster.put(ResourceKey("WorkloadEndpoint", "damaged", "shop"), {"spec": {"ipNetworks": 7}})
    result = await run(cluster, 0)
    assert [finding.code for finding in result.done] == ["handle-empty"]
    assert "shop/damaged" in result.blocked[0]
    assert len(await cluster.client().owned("w")) == 1


async def test_nothing_goes_while_the_datastore_is_locked(cluster: Cluster) -> None:
    await leak(cluster)
    locked = {"kind": "ClusterInformation", "metadata": {"name": "default"}, "spec": {"datastoreReady": False}}
    await cluster.put(ResourceKey("ClusterInformation", "default"), locked)
    assert (await run(cluster, 0)).blocked == ("the datastore is locked (ClusterInformation default: datastoreReady is false)",)
    await cluster.put(ResourceKey("ClusterInformation", "default"), locked | {"spec": {"datastoreReady": True}})
    assert len((await run(cluster, 0)).done) == 1


async def test_what_somebody_touches_meanwhile_stays(cluster: Cluster) -> None:
    await leak(cluster)
    inventory, fabric = await read_inventory(cluster.store), await read_fabric(cluster.store)
    (finding,) = find_leaks(inventory, fabric)
    await leak(cluster)  # asked for again, after everything was read
    compares, then, _ = plan_repair(finding, inventory, cluster.now_ns).operations()
    assert then
    assert not (await cluster.store.txn(compares, then)).succeeded


# --- again and again, by one of several -----------------------------------------------------------------------------------


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for is not told by an event
            await asyncio.sleep(0)


@pytest.fixture
def clocked() -> tuple[MemoryStore, list[float]]:
    now = [0.0]
    return MemoryStore(clock=lambda: now[0]), now


async def test_one_of_several_collects_and_another_takes_over(clocked: tuple[MemoryStore, list[float]]) -> None:
    store, _ = clocked
    rounds: list[str] = []

    def begin(name: str) -> asyncio.Task[None]:
        return asyncio.create_task(
            run_collector(store, name, interval_s=10, on_round=lambda _: rounds.append(name), sleep=lambda _: asyncio.sleep(0))
        )

    first = begin("first")
    await until(lambda: len(rounds) > 3)
    leader = await store.get(LEADER_KEY)
    assert leader is not None
    assert (leader.value, leader.lease != 0) == (b"first", True)
    second = begin("second")
    seen = len(rounds)
    await until(lambda: len(rounds) > seen + 20)
    assert set(rounds) == {"first"}
    first.cancel()
    await until(lambda: rounds[-1] == "second")
    second.cancel()
    for task in (first, second):
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert await store.get(LEADER_KEY) is None


async def test_a_leader_whose_lease_has_ended_lets_another_lead(clocked: tuple[MemoryStore, list[float]]) -> None:
    store, now = clocked
    rounds: list[int] = []
    gate = asyncio.Event()

    async def sleep(_: float) -> None:
        await gate.wait()
        await asyncio.sleep(0)

    task = asyncio.create_task(run_collector(store, "slow", interval_s=10, on_round=lambda _: rounds.append(1), sleep=sleep))
    await until(lambda: len(rounds) == 1)
    now[0] += 1000.0  # stopped for so long that its lease has ended
    other = asyncio.create_task(run_collector(store, "other", interval_s=10, sleep=lambda _: asyncio.sleep(0)))
    async with asyncio.timeout(5):
        while (leader := await store.get(LEADER_KEY)) is None or leader.value != b"other":  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
    gate.set()
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(rounds) == 1
    for each in (task, other):
        each.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await each


async def test_a_collector_goes_on_when_the_store_was_away(cluster: Cluster) -> None:
    errors: list[Exception] = []
    rounds: list[Collection] = []
    task = asyncio.create_task(
        run_collector(cluster.store, "c", on_round=rounds.append, on_error=errors.append, sleep=lambda _: asyncio.sleep(0))
    )
    await until(lambda: bool(rounds))
    cluster.store.set_available(False)
    await until(lambda: bool(errors))
    assert isinstance(errors[0], StoreUnavailable)
    cluster.store.set_available(True)
    seen = len(rounds)
    await until(lambda: len(rounds) > seen)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task

"""What operators do: configure, split a pool, delete a pool, take everything from a host; and a death at any point of it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest
from ipam_cluster import Cluster, want

from tabinet.errors import AddressError, Conflict, InputError, NotFound
from tabinet.ipam.client import IpamClient
from tabinet.ipam.configure import Changes, configure, read_config
from tabinet.ipam.owners import LOAD_BALANCER
from tabinet.ipam.removal import delete_pool
from tabinet.ipam.split import split_pool
from tabinet.lib.ip import parse_prefix
from tabinet.model.keys import AffinityKey, BlockKey, ResourceKey

CONFIG = "/calico/ipam/v2/config"


@pytest.fixture
async def cluster() -> Cluster:
    cluster = Cluster()
    await cluster.pool("a", "10.0.0.0/24", blockSize=30)
    return cluster


async def spec_of(cluster: Cluster, name: str) -> dict[str, object] | None:
    document = await cluster.read(ResourceKey("IPPool", name))
    return None if document is None else document["spec"]


# --- configure ------------------------------------------------------------------------------------------------------------


async def test_what_is_not_named_stays_and_what_calico_needs_is_written(cluster: Cluster) -> None:
    before, after = await configure(cluster.store, Changes(max_blocks_per_host=5))
    assert (before.max_blocks_per_host, after.max_blocks_per_host) == (20, 5)
    item = await cluster.store.get(CONFIG)
    assert item is not None
    assert json.loads(item.value) == {"strict_affinity": False, "auto_allocate_blocks": True, "maxBlocksPerHost": 5}
    await cluster.put(CONFIG, {"strict_affinity": False, "auto_allocate_blocks": True, "maxBlocksPerHost": 5, "later": 1})
    _, after = await configure(cluster.store, Changes(strict_affinity=True, cooldown_s=30))
    assert (after.strict_affinity, after.max_blocks_per_host, after.cooldown_s) == (True, 5, 30)
    item = await cluster.store.get(CONFIG)
    assert item is not None
    assert json.loads(item.value)["later"] == 1
    assert await read_config(cluster.store) == after


async def test_what_is_so_already_is_not_written(cluster: Cluster) -> None:
    await configure(cluster.store, Changes(strict_affinity=True))
    before = cluster.store.revision
    await configure(cluster.store, Changes(strict_affinity=True))
    assert cluster.store.revision == before


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        (Changes(max_blocks_per_host=-1), "maxBlocksPerHost"),
        (Changes(max_blocks_per_host=2**31), "maxBlocksPerHost"),
        (Changes(cooldown_s=1201), "ipCooldownSeconds"),
        (Changes(auto_allocate_blocks=False), "autoAllocateBlocks"),
    ],
)
async def test_what_makes_no_sense_is_refused(cluster: Cluster, changes: Changes, path: str) -> None:
    with pytest.raises(InputError) as caught:
        await configure(cluster.store, changes)
    assert [problem.path for problem in caught.value.problems] == [path]
    assert await cluster.store.get(CONFIG) is None


async def test_both_together_make_sense(cluster: Cluster) -> None:
    _, after = await configure(cluster.store, Changes(auto_allocate_blocks=False, strict_affinity=True))
    assert (after.auto_allocate_blocks, after.strict_affinity) == (False, True)


# --- split ----------------------------------------------------------------------------------------------------------------


async def test_a_pool_is_split_with_its_addresses_in_use(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/24", blockSize=30, natOutgoing=True, later="x")
    client = cluster.client()
    owned = (await client.assign(want(count4=6))).addresses
    before = cluster.store.revision
    made = await split_pool(cluster.store, "a", 4, now=lambda: datetime(2026, 1, 2, tzinfo=UTC))
    assert cluster.store.revision == before + 1
    assert [(name, str(cidr)) for name, cidr in made] == [
        ("split-a-0", "10.0.0.0/26"),
        ("split-a-1", "10.0.0.64/26"),
        ("split-a-2", "10.0.0.128/26"),
        ("split-a-3", "10.0.0.192/26"),
    ]
    assert await spec_of(cluster, "a") is None
    assert await spec_of(cluster, "split-a-2") == {"cidr": "10.0.0.128/26", "blockSize": 30, "natOutgoing": True, "later": "x"}
    documents = [await cluster.read(ResourceKey("IPPool", name)) for name, _ in made]
    assert len({document["metadata"]["uid"] for document in documents if document}) == 4
    assert all(document and document["metadata"]["creationTimestamp"] == "2026-01-02T00:00:00Z" for document in documents)
    more = (await client.assign(want(count4=12))).addresses
    assert set(owned) < set(more)
    assert await client.check() == ()
    assert sum(usage.assigned for usage in await client.usage()) == 12


@pytest.mark.parametrize("parts", [-2, 0, 1, 3, 128])
async def test_parts_are_a_power_of_two(cluster: Cluster, parts: int) -> None:
    with pytest.raises(InputError, match="a power of two from 2 to 64"):
        await split_pool(cluster.store, "a", parts)


async def test_a_part_is_not_smaller_than_a_block(cluster: Cluster) -> None:
    await cluster.pool("b", "10.1.0.0/28", blockSize=30)
    with pytest.raises(InputError, match=r"10\.1\.0\.0/28 has blocks of /30: at most 4 parts"):
        await split_pool(cluster.store, "b", 8)
    assert len(await split_pool(cluster.store, "b", 4)) == 4


async def test_a_name_that_is_taken_stops_the_split(cluster: Cluster) -> None:
    await cluster.pool("split-a-1", "10.5.0.0/24")
    before = cluster.store.revision
    with pytest.raises(Conflict, match="split-a-1"):
        await split_pool(cluster.store, "a", 2)
    assert cluster.store.revision == before
    with pytest.raises(NotFound):
        await split_pool(cluster.store, "nowhere", 2)


# --- deleting a pool ------------------------------------------------------------------------------------------------------


async def test_a_pool_in_use_is_not_deleted(cluster: Cluster) -> None:
    (address,) = (await cluster.client().assign(want())).addresses
    before = cluster.store.revision
    expected = f"IPPool/a is in use: 1 address is assigned ({address.address}) from blocks of h; delete its workloads first"
    with pytest.raises(Conflict) as caught:
        await delete_pool(cluster.store, "a")
    assert str(caught.value).startswith(expected)
    assert cluster.store.revision == before


async def test_a_pool_in_use_is_drained_when_forced_and_goes_with_its_last_address(cluster: Cluster) -> None:
    client = cluster.client()
    (kept,) = (await client.assign(want())).addresses
    await client.assign(want(host="y", handle="y"))
    await client.release_handle("y")
    with pytest.raises(Conflict, match=rf"disabled now, and 1 empty blocks were given up; 1 address is assigned \({kept.address}\)"):
        await delete_pool(cluster.store, "a", force=True)
    assert (await spec_of(cluster, "a") or {})["disabled"] is True
    assert await client.owned("w") == (kept,)
    assert await client.blocks("y") == ()
    with pytest.raises(AddressError, match="a: disabled"):
        await client.assign(want(handle="v"))
    await client.release_handle("w")
    assert len(await delete_pool(cluster.store, "a")) == 1
    assert await spec_of(cluster, "a") is None
    assert await client.check() == ()
    assert [page.items async for page in cluster.store.list("/calico/ipam/")] == [[]]


async def test_a_pool_without_assigned_addresses_goes_with_all_its_blocks(cluster: Cluster) -> None:
    await cluster.put(CONFIG, {"ipCooldownSeconds": 600})
    await cluster.pool("a", "10.0.0.0/24", blockSize=30, allowedUses=["Workload", "LoadBalancer"])
    client = cluster.client()
    await client.assign(want(count4=2))
    await client.assign(want(host="load-balancer", handle="lb", use=LOAD_BALANCER))
    for handle in ("w", "lb"):
        await client.release_handle(handle)
    assert len(await delete_pool(cluster.store, "a")) == 2
    await cluster.put(CONFIG, None)
    assert [page.items async for page in cluster.store.list("/calico/ipam/")] == [[]]
    with pytest.raises(NotFound):
        await delete_pool(cluster.store, "a")


async def test_a_block_that_cannot_be_read_keeps_its_pool(cluster: Cluster) -> None:
    await cluster.put(BlockKey(parse_prefix("10.0.0.0/30")), "damaged")
    with pytest.raises(Conflict, match=r"block 10\.0\.0\.0/30 cannot be understood"):
        await delete_pool(cluster.store, "a")


# --- a host, a block ------------------------------------------------------------------------------------------------------


async def test_everything_of_a_host_is_released(cluster: Cluster) -> None:
    client = cluster.client()
    await client.assign(want(host="y", handle="y"))
    mine = (await client.assign(want(count4=5))).addresses
    freed, blocks = await client.release_host("h")
    assert (set(freed), len(blocks)) == (set(mine), 2)
    assert await client.blocks("h") == ()
    assert len(await client.owned("y")) == 1
    assert await client.release_host("h") == ((), ())
    assert await client.check() == ()


async def test_what_others_borrowed_from_the_host_stays_theirs(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/30", blockSize=30)
    client = cluster.client()
    await client.assign(want(count4=3))
    (borrowed,) = (await client.assign(want(host="y", handle="y"))).addresses
    freed, blocks = await client.release_host("h")
    assert (len(freed), blocks) == (3, (parse_prefix("10.0.0.0/30"),))
    assert (await cluster.read(BlockKey(blocks[0])) or {})["affinity"] is None
    assert await cluster.read(AffinityKey("h", blocks[0])) is None
    assert await client.check() == ()
    assert await client.release_handle("y") == (borrowed,)
    assert await cluster.read(BlockKey(blocks[0])) is None


async def test_a_block_of_somebody_else_is_not_given_up(cluster: Cluster) -> None:
    client = cluster.client()
    await client.assign(want())
    (usage,) = await client.blocks("h")
    await cluster.put(AffinityKey("x", usage.block), {"state": "confirmed", "deleted": False})
    await client.release_block(usage.block, "host:x")
    assert await cluster.read(AffinityKey("x", usage.block)) is None
    assert await client.blocks("h") == (usage,)
    assert await client.check() == ()


# --- others in between ----------------------------------------------------------------------------------------------------


async def test_an_assignment_at_any_point_of_a_deletion_is_never_left_without_its_pool() -> None:
    for point in range(12):
        cluster = Cluster()
        await cluster.pool("a", "10.0.0.0/24", blockSize=30)
        late = IpamClient(cluster.store)
        await late.assign(want(handle="early"))
        await late.release_handle("early")
        reads = 0

        async def assign_between(proceed: Callable[[], Awaitable[object]], point: int = point, late: IpamClient = late) -> object:
            nonlocal reads
            reads += 1
            if reads == point:
                try:
                    await late.assign(want(handle="late"))
                except AddressError:
                    assert point > 1
            return await proceed()

        store = Interposed(cluster, assign_between)
        try:
            await delete_pool(store, "a")  # type: ignore[arg-type]
        except Conflict:
            assert (await spec_of(cluster, "a") or {}).get("disabled", False) is False
        assert (await spec_of(cluster, "a") is None) == (await late.owned("late") == ())
        assert await late.check() == ()


class Interposed:
    """A store that lets somebody else act before each request."""

    def __init__(self, cluster: Cluster, between: Callable[[Callable[[], Awaitable[object]]], Awaitable[object]]) -> None:
        self.inner = cluster.store
        self.between = between

    async def get(self, key: str) -> object:
        return await self.between(lambda: self.inner.get(key))

    async def txn(self, *arguments: object) -> object:
        return await self.between(lambda: self.inner.txn(*arguments))  # type: ignore[arg-type]

    def list(self, prefix: str, *, page_size: int = 5000) -> object:
        async def pages() -> object:
            found = await self.between(lambda: collected(self.inner.list(prefix, page_size=page_size)))
            for page in found:  # type: ignore[attr-defined]
                yield page

        return pages()


async def collected(pages: object) -> object:
    return [page async for page in pages]  # type: ignore[attr-defined]

"""What addresses are for, cooldown, and requests that go together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

import pytest
from ipam_cluster import Cluster, block_of, texts, want

from tabinet.errors import AddressError
from tabinet.ipam.client import IpamClient
from tabinet.ipam.owners import LOAD_BALANCER, TUNNEL
from tabinet.lib.ip import parse_address, parse_prefix
from tabinet.model.keys import AffinityKey, BlockKey, HandleKey, VirtualAffinityKey
from tabinet.store.api import Compare, KeyValue, Op, Page, TxnResult, WatchBatch
from tabinet.store.memory import MemoryStore

CONFIG = "/calico/ipam/v2/config"


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


# --- uses -----------------------------------------------------------------------------------------------------------------


async def test_an_address_for_a_tunnel_comes_from_a_pool_for_tunnels(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/24", allowedUses=["Workload"])
    await cluster.pool("b", "10.1.0.0/24", allowedUses=["Tunnel"])
    client = cluster.client()
    tunnel = await client.assign(want(handle="vxlan-tunnel-addr-h", use=TUNNEL, attributes={"type": "vxlanTunnelAddress"}))
    assert texts(tunnel.addresses)[0].startswith("10.1.")
    assert texts((await client.assign(want())).addresses)[0].startswith("10.0.")
    with pytest.raises(
        AddressError, match=r"10\.0\.0\.9 belongs to pool a, which is unusable: allowedUses is Workload, and the address is for"
    ):
        await client.assign_address(parse_address("10.0.0.9"), want(handle="t", use=TUNNEL))
    assert await client.check() == ()


async def test_load_balancers_have_blocks_of_a_virtual_owner(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/24", blockSize=29, allowedUses=["LoadBalancer"])
    client = cluster.client()
    (address,) = (await client.assign(want(host="load-balancer", handle="lb-1", use=LOAD_BALANCER))).addresses
    block = block_of(address, 29)
    assert (await cluster.read(BlockKey(block)) or {})["affinity"] == "virtual:load-balancer"
    assert await cluster.read(VirtualAffinityKey("load-balancer", block)) == {"state": "confirmed", "deleted": False}
    assert await cluster.read(AffinityKey("load-balancer", block)) is None
    assert (await cluster.read(BlockKey(block)) or {})["attributes"][0]["secondary"] == {"timestamp": "2026-01-02T03:00:00Z"}
    (other,) = (await client.assign(want(host="load-balancer", handle="lb-2", use=LOAD_BALANCER))).addresses
    assert block.contains(other)
    assert await client.check() == ()


async def test_no_host_takes_over_an_idle_block_of_load_balancers(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/29", blockSize=29, allowedUses=["LoadBalancer", "Workload"])
    await cluster.put(CONFIG, {"strict_affinity": True, "auto_allocate_blocks": True})
    client = cluster.client()
    await client.assign(want(host="load-balancer", handle="lb", use=LOAD_BALANCER))
    await client.release_handle("lb")
    cluster.now_ns += 10**12
    with pytest.raises(AddressError, match="no block is left to claim"):
        await cluster.client().assign(want())


async def test_namespaces_select_pools(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/24", namespaceSelector="zone == 'red'")
    await cluster.pool("b", "10.1.0.0/24")
    client = cluster.client()
    assert texts((await client.assign(want(handle="r", namespace_labels={"zone": "red"}))).addresses)[0].startswith("10.0.")
    assert texts((await client.assign(want(handle="g", namespace_labels={"zone": "green"}))).addresses)[0].startswith("10.1.")


# --- cooldown -------------------------------------------------------------------------------------------------------------


async def test_a_released_address_rests_for_the_cooldown(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/31", blockSize=31)
    await cluster.put(CONFIG, {"ipCooldownSeconds": 60})
    client = cluster.client()
    both = (await client.assign(want(count4=2))).addresses
    assert await client.release_handle("w") == both
    assert await cluster.read(HandleKey("w")) is None
    assert [(usage.assigned, usage.resting, usage.free) for usage in await client.usage()] == [(0, 2, 0)]
    assert await client.check() == ()
    cluster.now_ns += 59 * 10**9
    for asking in (client, cluster.client()):
        with pytest.raises(AddressError, match="2 released addresses rest for up to 60 s"):
            await asking.assign(want(handle="v"))
    with pytest.raises(AddressError, match="was released at 2026-01-02T03:00:00Z and rests"):
        await client.assign_address(both[0], want(handle="v"))
    cluster.now_ns += 10**9
    assert (await client.assign(want(handle="v"))).addresses == both[:1]
    assert (await client.assign_address(both[1], want(handle="u"))).addresses == both[1:]
    assert await client.check() == ()


async def test_releasing_one_address_after_another_wakes_those_that_have_rested(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/30", blockSize=30)
    await cluster.put(CONFIG, {"ipCooldownSeconds": 10})
    client = cluster.client()
    addresses = (await client.assign(want(count4=4))).addresses
    for address in addresses:
        cluster.now_ns += 6 * 10**9
        assert await client.release_addresses([address]) == (address,)
        assert await client.release_addresses([address]) == ()
    assert [(usage.assigned, usage.resting, usage.free) for usage in await client.usage()] == [(0, 2, 2)]


async def test_a_block_with_resting_addresses_is_not_taken_over(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/30", blockSize=30)
    await cluster.put(CONFIG, {"ipCooldownSeconds": 600, "strict_affinity": True, "auto_allocate_blocks": True})
    client = cluster.client()
    await client.assign(want(host="x", handle="x"))
    await client.release_handle("x")
    cluster.now_ns += 300 * 10**9
    with pytest.raises(AddressError):
        await client.assign(want())
    cluster.now_ns += 300 * 10**9
    assert len((await client.assign(want())).addresses) == 1


async def test_a_cooldown_that_is_switched_off_frees_what_rests(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/32", blockSize=32)
    await cluster.put(CONFIG, {"ipCooldownSeconds": 600})
    client = cluster.client()
    await client.assign(want())
    await client.release_handle("w")
    await cluster.put(CONFIG, {"ipCooldownSeconds": 0})
    assert texts((await client.assign(want(handle="v"))).addresses) == ["10.0.0.0"]


# --- requests that go together --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class CountingStore:
    """Counts the operations of writing transactions, and lets other tasks run before each."""

    inner: MemoryStore
    transactions: list[int] = field(default_factory=list)

    async def txn(self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()) -> TxnResult:
        for _ in range(5):
            await asyncio.sleep(0)
        if compares:
            self.transactions.append(len(then))
        return await self.inner.txn(compares, then, otherwise)

    async def get(self, key: str) -> KeyValue | None:
        return await self.inner.get(key)

    def list(self, prefix: str, *, page_size: int = 5000) -> AsyncGenerator[Page, None]:
        return self.inner.list(prefix, page_size=page_size)

    def watch(self, prefix: str, after_revision: int) -> AsyncGenerator[WatchBatch, None]:
        return self.inner.watch(prefix, after_revision)

    async def grant(self, ttl_s: int) -> int:
        return await self.inner.grant(ttl_s)

    async def keep_alive(self, lease: int) -> None:
        await self.inner.keep_alive(lease)

    async def revoke(self, lease: int) -> None:
        await self.inner.revoke(lease)

    async def compact(self, revision: int) -> None:
        await self.inner.compact(revision)

    async def close(self) -> None:
        await self.inner.close()


@pytest.fixture
def store(cluster: Cluster) -> CountingStore:
    return CountingStore(cluster.store)


@pytest.fixture
async def warm(cluster: Cluster, store: CountingStore) -> IpamClient:
    """A client that knows its first block."""
    await cluster.pool("a", "10.0.0.0/16", blockSize=27)
    client = IpamClient(store)
    await client.assign(want(handle="first"))
    store.transactions.clear()
    return client


async def test_requests_of_one_host_go_together(store: CountingStore, warm: IpamClient) -> None:
    results = await asyncio.gather(*(warm.assign(want(handle=f"w{number}")) for number in range(20)))
    assert len({address for result in results for address in result.addresses}) == 20
    assert all(len(result.assigned) == 1 for result in results)
    assert len(store.transactions) <= 3
    assert await warm.check() == ()


async def test_together_they_claim_only_the_blocks_that_they_need(warm: IpamClient) -> None:
    await asyncio.gather(*(warm.assign(want(handle=f"w{number}")) for number in range(127)))
    assert [usage.free for usage in await warm.blocks("h")] == [0, 0, 0, 0]
    assert await warm.check() == ()


async def test_each_of_those_that_go_together_gets_its_own_error(warm: IpamClient) -> None:
    nowhere = want(handle="nowhere", pools4=(parse_prefix("10.9.0.0/24"),))
    requests = (want(handle="w1"), nowhere, want(handle="w2"), want(handle="b/ad"), want(handle="w3"))
    outcomes = await asyncio.gather(*(warm.assign(request) for request in requests), return_exceptions=True)
    assert [type(outcome).__name__ for outcome in outcomes] == ["Assignment", "AddressError", "Assignment", "ValueError", "Assignment"]
    assert await warm.check() == ()


async def test_handles_that_exist_already_do_not_hold_up_the_others(cluster: Cluster, store: CountingStore, warm: IpamClient) -> None:
    other = IpamClient(cluster.store)
    known = [(await other.assign(want(handle=f"w{number}"))).addresses for number in range(5)]
    results = await asyncio.gather(*(warm.assign(want(handle=f"w{number}")) for number in range(10)))
    assert [result.addresses for result in results[:5]] == known
    assert all(result.assigned == () for result in results[:5])
    assert len({address for result in results for address in result.addresses}) == 10
    assert len(store.transactions) <= 6
    assert await warm.check() == ()


async def test_the_same_handle_twice_at_once_gets_one_address(warm: IpamClient) -> None:
    results = await asyncio.gather(*(warm.assign(want(handle="w")) for _ in range(4)))
    assert len({result.addresses for result in results}) == 1
    assert sum(len(result.assigned) for result in results) == 1


async def test_a_caller_that_goes_away_does_not_take_the_others_along(warm: IpamClient) -> None:
    for turns in range(12):
        tasks = [asyncio.create_task(warm.assign(want(handle=f"{turns}.{number}"))) for number in range(4)]
        for _ in range(turns):
            await asyncio.sleep(0)
        tasks[turns % 4].cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) >= 3
    assert await warm.check() == ()


async def test_a_store_that_goes_away_fails_all_that_went_together(cluster: Cluster, warm: IpamClient) -> None:
    tasks = [asyncio.create_task(warm.assign(want(handle=f"w{number}"))) for number in range(4)]
    await asyncio.sleep(0)
    cluster.store.set_available(False)
    assert {type(outcome).__name__ for outcome in await asyncio.gather(*tasks, return_exceptions=True)} == {"StoreUnavailable"}
    cluster.store.set_available(True)
    assert len((await warm.assign(want(handle="w1"))).addresses) == 1
    assert await warm.check() == ()

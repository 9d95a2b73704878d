"""Findings: each kind is found where it is so, explains itself, and what is in use is never one."""

from __future__ import annotations

import pytest
from ipam_cluster import Cluster, want

from tabinet.ipam import blocks as algebra
from tabinet.ipam.audit import find_leaks, find_problems, find_spares
from tabinet.ipam.findings import KINDS, Finding, Level
from tabinet.ipam.inventory import read_fabric, read_inventory
from tabinet.ipam.lookup import AddressFacts, address_facts
from tabinet.ipam.owners import LOAD_BALANCER, TUNNEL
from tabinet.ipam.usage import borrowed, pool_usage
from tabinet.lib.ip import Prefix, parse_address, parse_prefix
from tabinet.model.keys import AffinityKey, BlockKey, HandleKey, ResourceKey

BLOCK = parse_prefix("10.0.0.0/30")
CONFIRMED = {"state": "confirmed", "deleted": False}


@pytest.fixture
async def cluster() -> Cluster:
    cluster = Cluster()
    await cluster.pool("a", "10.0.0.0/24", blockSize=30)
    await cluster.node("h")
    return cluster


async def put_block(cluster: Cluster, block: Prefix = BLOCK, owner: str = "host:h", **secondary: str) -> None:
    """A block with one address, of handle ``w`` if anything is noted of it."""
    document = algebra.new_block(block, owner, 1, "2026-01-02T02:00:00Z")
    if secondary:
        document, _ = algebra.assign(document, block, 1, "w", secondary, "", strict=False)
    await cluster.put(BlockKey(block), document)


async def found(cluster: Cluster) -> list[Finding]:
    inventory, fabric = await read_inventory(cluster.store), await read_fabric(cluster.store)
    return find_problems(inventory) + find_leaks(inventory, fabric)


async def told(cluster: Cluster) -> list[tuple[str, str]]:
    return [(finding.code, str(finding)) for finding in await found(cluster)]


def test_every_kind_is_explained_and_says_who_acts() -> None:
    for code, kind in KINDS.items():
        assert kind.meaning.endswith(".")
        assert kind.advice.endswith(".")
        assert kind.collected == ("tabinet ipam gc" in kind.advice), code
    assert {kind.level for kind in KINDS.values()} == set(Level)


# --- structure ------------------------------------------------------------------------------------------------------------


async def test_nothing_is_found_where_everything_fits(cluster: Cluster) -> None:
    addresses = (await cluster.client().assign(want(count4=5, attributes={"workload": "w"}))).addresses
    await cluster.endpoint("h-cni-c-eth0", *(str(address) for address in addresses))
    assert await told(cluster) == []


async def test_a_block_without_a_claim(cluster: Cluster) -> None:
    await put_block(cluster)
    assert await told(cluster) == [("block-without-affinity", "block 10.0.0.0/30: names host h, which has no affinity for it")]


async def test_claims_that_do_not_fit(cluster: Cluster) -> None:
    await put_block(cluster)
    await cluster.put(AffinityKey("h", BLOCK), CONFIRMED)
    await cluster.put(AffinityKey("x", BLOCK), CONFIRMED)
    await cluster.put(AffinityKey("y", BLOCK), {"state": "pending", "deleted": False})
    await cluster.put(AffinityKey("h", parse_prefix("10.0.0.4/30")), CONFIRMED)
    await cluster.put(AffinityKey("h", parse_prefix("10.0.0.8/30")), "damaged")
    assert await told(cluster) == [
        ("affinity-without-block", "affinity of host h for 10.0.0.4/30: has no block"),
        ("affinity-unreadable", "affinity of host h for 10.0.0.8/30: cannot be understood"),
        ("affinity-contradicted", "affinity of host x for 10.0.0.0/30: is not what the block says: host h"),
        ("affinity-unfinished", "affinity of host y for 10.0.0.0/30: is pending"),
    ]


async def test_handles_that_miscount(cluster: Cluster) -> None:
    await put_block(cluster, node="h")
    await cluster.put(AffinityKey("h", BLOCK), CONFIRMED)
    await cluster.put(HandleKey("empty"), {"block": {}, "deleted": False})
    await cluster.put(HandleKey("more"), {"block": {str(BLOCK): 2}, "deleted": False})
    await cluster.put(HandleKey("damaged"), "damaged")
    assert await told(cluster) == [
        ("handle-unreadable", "handle damaged: cannot be understood"),
        ("handle-empty", "handle empty: owns nothing"),
        ("handle-miscounted", "handle more: counts 2 addresses in 10.0.0.0/30, and owns 0"),
        ("handle-miscounted", "handle w: counts 0 addresses in 10.0.0.0/30, and owns 1"),
    ]


async def test_blocks_that_overlap_or_are_damaged(cluster: Cluster) -> None:
    await put_block(cluster, parse_prefix("10.0.0.0/29"), owner="")
    await cluster.put(BlockKey(BLOCK), "damaged")
    assert await told(cluster) == [
        ("block-overlap", "block 10.0.0.0/30: lies within block 10.0.0.0/29"),
        ("block-unreadable", "block 10.0.0.0/30: cannot be understood"),
    ]


# --- leaks ----------------------------------------------------------------------------------------------------------------


async def test_addresses_of_a_workload_without_endpoint(cluster: Cluster) -> None:
    await cluster.client().assign(want(count4=2, attributes={"workload": "c1", "namespace": "shop"}))
    (finding,) = await found(cluster)
    assert finding.code == "address-unused"
    assert len(finding.addresses) == 2
    assert finding.problem.endswith("but no endpoint has them (assigned for shop/c1 on h at 2026-01-02T03:00:00Z)")


async def test_an_endpoint_that_has_one_of_them_keeps_all(cluster: Cluster) -> None:
    addresses = (await cluster.client().assign(want(count4=2, attributes={"workload": "c1"}))).addresses
    await cluster.endpoint("h-cni-c1-eth0", str(addresses[0]))
    (finding,) = await found(cluster)
    assert (finding.code, finding.kind.level) == ("address-partly-unused", Level.NOTE)
    assert addresses[1].address in finding.problem


@pytest.mark.parametrize("how", ["ipNetworks", "ipNATs"])
async def test_an_endpoint_uses_its_own_and_its_floating_addresses(cluster: Cluster, how: str) -> None:
    (address,) = (await cluster.client().assign(want(attributes={"workload": "c1"}))).addresses
    if how == "ipNetworks":
        await cluster.endpoint("h-cni-c1-eth0", str(address))
    else:
        nat = {"internalIP": "192.0.2.7", "externalIP": address.address}
        await cluster.endpoint("h-cni-c1-eth0", "192.0.2.7/32", ipNATs=[nat])
    assert await told(cluster) == []


async def test_what_says_nothing_of_a_workload_is_left_alone(cluster: Cluster) -> None:
    client = cluster.client()
    await client.assign(want(handle="by-hand"))
    await client.assign(want(handle="lb", host="load-balancer"))
    await client.assign(want(handle="windows-reserved-ipam-handle", attributes={"workload": "x"}))
    assert [code for code, _ in await told(cluster)] == ["block-of-lost-host", "address-of-lost-host"]  # of the host named load-balancer
    await cluster.node("load-balancer")
    assert await told(cluster) == []


async def test_a_host_that_is_gone(cluster: Cluster) -> None:
    (address,) = (await cluster.client().assign(want(host="x", handle="by-hand"))).addresses
    assert await told(cluster) == [
        ("block-of-lost-host", f"block {Prefix(4, address.value & ~3, 30)}: belongs to host x, which is gone"),
        ("address-of-lost-host", f"handle by-hand: owns {address.address}, but host x is gone (assigned on x at 2026-01-02T03:00:00Z)"),
    ]


async def test_a_host_without_node_on_which_something_runs_is_there(cluster: Cluster) -> None:
    (address,) = (await cluster.client().assign(want(host="x", attributes={"workload": "c"}))).addresses
    await cluster.endpoint("x-cni-c-eth0", str(address), host="x")
    assert await told(cluster) == []


async def test_no_host_is_gone_where_no_host_is_known(cluster: Cluster) -> None:
    await cluster.put(ResourceKey("Node", "h"), None)
    await cluster.client().assign(want(handle="by-hand"))
    assert await told(cluster) == []


async def test_tunnel_addresses_belong_to_their_host(cluster: Cluster) -> None:
    tunnel = want(handle="vxlan-tunnel-addr-h", use=TUNNEL, attributes={"type": "vxlanTunnelAddress"})
    await cluster.client().assign(tunnel)
    assert await told(cluster) == []
    await cluster.put(ResourceKey("Node", "h"), None)
    await cluster.node("other")
    assert [code for code, _ in await told(cluster)] == ["block-of-lost-host", "address-of-lost-host"]


async def test_addresses_without_a_handle_are_by_themselves(cluster: Cluster) -> None:
    document = algebra.new_block(BLOCK, "host:h", 1, "2026-01-02T02:00:00Z")
    document |= {"allocations": [0, 1, None, None], "unallocated": [2, 3]}
    document["attributes"] = [{"handle_id": None, "secondary": {"pod": "p", "node": "h"}}, {"handle_id": None, "secondary": None}]
    await cluster.put(BlockKey(BLOCK), document)
    await cluster.put(AffinityKey("h", BLOCK), CONFIRMED)
    assert await told(cluster) == [("address-unused", "address 10.0.0.0: is assigned, but no endpoint has it (assigned for p on h)")]


async def test_addresses_that_are_used_and_not_assigned(cluster: Cluster) -> None:
    await cluster.pool("neutron", "10.7.0.0/24")
    await cluster.client().assign(want(handle="by-hand"))
    await cluster.endpoint("h-cni-c1-eth0", "10.0.0.77/32", "10.7.0.1/32", "192.0.2.1/32")
    await cluster.endpoint("h-cni-c2-eth0", "10.0.0.77/32")
    # Nothing is said of 10.7.0.1: no block of that pool exists, so somebody else assigns its addresses.
    users = "WorkloadEndpoint/shop/h-cni-c1-eth0, WorkloadEndpoint/shop/h-cni-c2-eth0"
    assert await told(cluster) == [
        ("address-shared", f"address 10.0.0.77: is used by {users}"),
        ("address-unassigned", f"address 10.0.0.77: is used by {users}, and not assigned"),
    ]
    await cluster.put("/calico/resources/v3/projectcalico.org/ipreservations/r", {"spec": {"reservedCIDRs": ["10.0.0.77"]}})
    assert [code for code, _ in await told(cluster)] == ["address-shared"]


async def test_addresses_of_a_pool_that_is_gone(cluster: Cluster) -> None:
    (address,) = (await cluster.client().assign(want(handle="by-hand"))).addresses
    await cluster.put(ResourceKey("IPPool", "a"), None)
    assert [(finding.code, finding.kind.level) for finding in await found(cluster)] == [("block-without-pool", Level.NOTE)]
    assert address.is_host


# --- spares ---------------------------------------------------------------------------------------------------------------


async def spares(cluster: Cluster, age_s: float = 60.0) -> list[str]:
    inventory, fabric = await read_inventory(cluster.store), await read_fabric(cluster.store)
    return [str(finding) for finding in find_spares(inventory, fabric, cluster.now_ns / 1e9, age_s)]


async def test_a_host_keeps_one_empty_block_of_a_pool(cluster: Cluster) -> None:
    client = cluster.client()
    await client.assign(want(count4=12))
    await client.release_handle("w")
    assert await spares(cluster) == []  # too young
    cluster.now_ns += 60 * 10**9
    assert len(await spares(cluster)) == 2
    await client.assign(want())
    found_with_one_in_use = await spares(cluster)
    assert len(found_with_one_in_use) == 2
    assert all("is empty, and host h has another in pool a" in text for text in found_with_one_in_use)


async def test_an_empty_block_goes_from_where_it_is_of_no_use(cluster: Cluster) -> None:
    client = cluster.client()
    await client.assign(want())
    await client.release_handle("w")
    cluster.now_ns += 60 * 10**9
    assert await spares(cluster) == []
    await cluster.pool("a", "10.0.0.0/24", blockSize=30, nodeSelector="rack == 'r1'")
    assert "pool a no longer serves h" in (await spares(cluster))[0]
    await cluster.pool("a", "10.0.0.0/24", blockSize=30, disabled=True)
    assert "pool a is disabled" in (await spares(cluster))[0]
    await cluster.put(ResourceKey("IPPool", "a"), None)
    assert "in no pool" in (await spares(cluster))[0]


async def test_an_empty_block_of_nobody_goes_and_one_of_load_balancers_stays(cluster: Cluster) -> None:
    await put_block(cluster, owner="")
    await cluster.pool("lb", "10.3.0.0/24", allowedUses=["LoadBalancer"])
    client = cluster.client()
    await client.assign(want(host="load-balancer", handle="lb", use=LOAD_BALANCER))
    await client.release_handle("lb")
    cluster.now_ns += 60 * 10**9
    assert await spares(cluster) == ["block 10.0.0.0/30: is empty, and nobody's"]


# --- reports --------------------------------------------------------------------------------------------------------------


async def test_usage_counts_reserved_resting_and_free_once_each(cluster: Cluster) -> None:
    await cluster.put("/calico/ipam/v2/config", {"ipCooldownSeconds": 60})
    await cluster.put(
        "/calico/resources/v3/projectcalico.org/ipreservations/r",
        {"spec": {"reservedCIDRs": ["10.0.0.128/25", "10.0.0.192/26", "10.0.0.1", "192.0.2.0/24"]}},
    )
    client = cluster.client()
    addresses = (await client.assign(want(count4=6))).addresses
    await client.release_addresses(addresses[:2])
    inventory = await read_inventory(cluster.store)
    (pool,) = inventory.settings.pools
    usage = pool_usage(pool, inventory.blocks, inventory.settings.reserved)
    assert (usage.size, usage.assigned, usage.resting, usage.reserved, usage.free) == (256, 4, 2, 129, 256 - 6 - 129)
    wide = parse_prefix("10.0.0.0/8")
    assert pool_usage(pool, {}, (wide,)).free == 0


async def test_borrowed_addresses(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/30", blockSize=30)
    await cluster.client().assign(want(host="x", handle="x"))
    (address,) = (await cluster.client().assign(want(handle="b"))).addresses
    (one,) = borrowed((await read_inventory(cluster.store)).blocks)
    assert (one.address, one.borrower, one.block_owner, one.handle) == (address, "h", "x", "b")


async def test_facts_of_an_address(cluster: Cluster) -> None:
    await cluster.put("/calico/ipam/v2/config", {"ipCooldownSeconds": 60})
    client = cluster.client()
    (address,) = (await client.assign(want(attributes={"workload": "c"}))).addresses
    await cluster.endpoint("h-cni-c-eth0", str(address))

    async def facts(asked: Prefix) -> AddressFacts:
        return address_facts(await read_inventory(cluster.store), await read_fabric(cluster.store), asked)

    one = await facts(address)
    assert (one.pool, one.block_owner, one.assigned, one.handle) == ("a", "host:h", True, "w")
    assert one.used_by == ("WorkloadEndpoint/shop/h-cni-c-eth0",)
    await client.release_handle("w")
    rested = await facts(address)
    assert (rested.assigned, rested.resting_since) == (False, "2026-01-02T03:00:00Z")
    nowhere = await facts(parse_address("192.0.2.1"))
    assert (nowhere.pool, nowhere.block, nowhere.assigned) == ("", None, False)

"""The client against a store: what is written, what is refused, and how many round trips it takes."""

from __future__ import annotations

import pytest
from ipam_cluster import NOW, Cluster, block_of, texts, want

from tabinet.errors import AddressError, DataError, StoreUnavailable
from tabinet.ipam import blocks as algebra
from tabinet.ipam.client import IpamClient
from tabinet.lib.ip import Prefix, parse_address, parse_prefix
from tabinet.model.keys import AffinityKey, BlockKey, HandleKey, ResourceKey, path_of


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


async def test_the_first_assignment_claims_a_block_with_everything_in_one_revision(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/16")
    await cluster.pool("b", "fd00::/64")
    before = cluster.store.revision
    result = await cluster.client().assign(want(count6=2, attributes={"pod": "p"}))
    assert cluster.store.revision == before + 1
    assert [address.family for address in result.addresses] == [4, 6, 6]
    assert result.assigned == result.addresses
    four, six = block_of(result.addresses[0], 26), block_of(result.addresses[1], 122)
    assert await cluster.read(AffinityKey("h", four)) == {"state": "confirmed", "deleted": False}
    assert await cluster.read(AffinityKey("h", six)) == {"state": "confirmed", "deleted": False}
    assert await cluster.read(HandleKey("w")) == {"block": {str(four): 1, str(six): 2}, "deleted": False}
    document = await cluster.read(BlockKey(four))
    assert document is not None
    assert document["affinity"] == "host:h"
    assert document["affinity_claim_time"] == "2026-01-02T03:00:00Z"
    assert document["attributes"] == [{"handle_id": "w", "secondary": {"node": "h", "pod": "p", "timestamp": "2026-01-02T03:00:00Z"}}]
    assert document["sequenceNumber"] == NOW + 1
    assert await cluster.client().check() == ()


async def test_repeating_gives_the_same_addresses_and_writes_only_the_handle_anew(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/16")
    first = await cluster.client().assign(want(count4=2))
    handle = await cluster.store.get(path_of(HandleKey("w")))
    block = await cluster.store.get(path_of(BlockKey(block_of(first.addresses[0], 26))))
    for client in (cluster.client(), cluster.client()):
        again = await client.assign(want(count4=2))
        assert (again.addresses, again.assigned) == (first.addresses, ())
    touched = await cluster.store.get(path_of(HandleKey("w")))
    assert handle is not None and touched is not None and touched.value == handle.value
    # Whoever collects garbage sees in the revision that the addresses were asked for again.
    assert touched.revision > handle.revision
    assert await cluster.store.get(path_of(BlockKey(block_of(first.addresses[0], 26)))) == block


async def test_looking_at_what_a_handle_owns_writes_nothing(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/16")
    first = await cluster.client().assign(want(count4=2))
    before = cluster.store.revision
    assert await cluster.client().owned("w") == first.addresses
    assert await cluster.client().owned("other") == ()
    assert (await cluster.client().assign(want(count4=0))).addresses == first.addresses
    assert cluster.store.revision == before


async def test_asking_for_more_adds_to_what_the_handle_has(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/16")
    client = cluster.client()
    first = await client.assign(want())
    more = await client.assign(want(count4=3))
    assert more.addresses[:1] == first.addresses
    assert len(more.addresses) == 3
    assert more.addresses[1:] == more.assigned


async def test_repeating_sees_what_another_process_assigned(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/16")
    one, other = cluster.client(), cluster.client()
    await one.assign(want(handle="first"))
    theirs = await other.assign(want())
    assert (await one.assign(want())).addresses == theirs.addresses
    await other.release_handle("w")
    mine = await one.assign(want())
    assert len(mine.assigned) == 1
    assert await one.check() == ()


async def test_repeating_sees_an_address_in_a_block_that_was_full_when_last_read(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/24", blockSize=31)
    one, other = cluster.client(), cluster.client()
    full = (await one.assign(want(handle="full", count4=2))).addresses
    await one.assign(want(handle="next"))
    await other.release_addresses(full[:1])
    theirs = await other.assign_address(full[0], want())
    again = await one.assign(want())
    assert (again.addresses, again.assigned) == (theirs.addresses, ())


async def test_an_assignment_is_one_round_trip_in_the_good_case(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/16")
    client = cluster.client()
    await client.assign(want())
    before = cluster.store.revision
    # Reads would fail: only the transaction may be asked for.
    cluster.store.get = cluster.store.list = None  # type: ignore[assignment,method-assign]
    for number in range(5):
        await client.assign(want(handle=f"x{number}"))
    assert cluster.store.revision == before + 5


async def test_a_host_uses_its_blocks_before_it_claims_another(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/24", blockSize=30)
    client = cluster.client()
    for number in range(9):
        await client.assign(want(handle=f"w{number}"))
    assert [(usage.assigned, usage.free) for usage in await client.blocks("h")] in (
        [(4, 0), (4, 0), (1, 3)],
        [(1, 3), (4, 0), (4, 0)],
        [(4, 0), (1, 3), (4, 0)],
    )
    assert all(usage.state == "confirmed" and usage.claimed for usage in await client.blocks("h"))


async def test_one_request_may_span_blocks(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/24", blockSize=30)
    before = cluster.store.revision
    result = await cluster.client().assign(want(count4=10))
    assert len(set(result.addresses)) == 10
    assert cluster.store.revision == before + 1
    assert await cluster.client().check() == ()


async def test_too_much_for_one_transaction_is_refused_with_nothing_assigned(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/16", blockSize=32)
    await cluster.put("/calico/ipam/v2/config", {"maxBlocksPerHost": 1000})
    with pytest.raises(AddressError, match="ask for fewer"):
        await cluster.client().assign(want(count4=100))
    assert await cluster.read(HandleKey("w")) is None


async def test_blocks_of_other_hosts_are_borrowed_from_when_no_block_is_left(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/29", blockSize=30)
    for host in ("x", "y"):
        await cluster.client().assign(want(host=host, handle=host))
    result = await cluster.client().assign(want(count4=6))
    assert len(result.addresses) == 6
    assert await cluster.client().blocks("h") == ()
    assert await cluster.client().check() == ()
    with pytest.raises(
        AddressError, match="a: no address is free in the host's blocks, and no block is left to claim, and none in the blocks of"
    ):
        await cluster.client().assign(want(handle="v"))


async def test_strict_affinity_forbids_borrowing(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/30", blockSize=30)
    await cluster.put("/calico/ipam/v2/config", {"strict_affinity": True, "auto_allocate_blocks": True})
    await cluster.client().assign(want(host="x", handle="x"))
    with pytest.raises(AddressError, match="strictAffinity forbids borrowing"):
        await cluster.client().assign(want())


async def test_an_idle_block_is_taken_over_after_a_minute(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/30", blockSize=30)
    await cluster.put("/calico/ipam/v2/config", {"strict_affinity": True})
    other = cluster.client()
    (address,) = (await other.assign(want(host="x", handle="x"))).addresses
    await other.release_handle("x")
    cluster.now_ns += 59 * 10**9
    with pytest.raises(AddressError):
        await cluster.client().assign(want())
    cluster.now_ns += 10**9
    await cluster.client().assign(want())
    block = block_of(address, 30)
    assert await cluster.read(AffinityKey("x", block)) is None
    assert await cluster.read(AffinityKey("h", block)) == {"state": "confirmed", "deleted": False}
    with pytest.raises(AddressError):
        await other.assign(want(host="x", handle="x"))
    assert await other.check() == ()


async def test_the_limit_of_blocks_for_a_host(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/24", blockSize=31)
    await cluster.put("/calico/ipam/v2/config", {"maxBlocksPerHost": 2})
    client = cluster.client()
    await client.assign(want(count4=4))
    with pytest.raises(AddressError, match="it has the 2 that maxBlocksPerHost allows"):
        await client.assign(want(handle="v"))


async def test_twenty_blocks_are_the_limit_unless_configured(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/24", blockSize=32)
    with pytest.raises(AddressError, match="the 20 that"):
        await cluster.client().assign(want(count4=21))
    assert len((await cluster.client().assign(want(count4=20))).addresses) == 20


async def test_no_block_is_claimed_where_that_is_switched_off(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/24")
    await cluster.put("/calico/ipam/v2/config", {"auto_allocate_blocks": False})
    with pytest.raises(AddressError, match="autoAllocateBlocks is off"):
        await cluster.client().assign(want())


async def test_nothing_is_assigned_when_one_family_fails(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/24")
    before = cluster.store.revision
    with pytest.raises(AddressError, match="no IPv6 address for w on host h: there is no IPv6 pool"):
        await cluster.client().assign(want(count6=1))
    assert cluster.store.revision == before


async def test_every_pool_says_why_not(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/24", disabled=True)
    await cluster.pool("b", "10.1.0.0/24", nodeSelector="rack == 'r1'")
    await cluster.pool("c", "10.2.0.0/99")
    await cluster.node("h", rack="r2")
    with pytest.raises(AddressError) as caught:
        await cluster.client().assign(want())
    text = str(caught.value)
    assert "a: disabled" in text
    assert "b: nodeSelector rack == 'r1' does not select the host" in text
    assert "c: spec.cidr" in text


async def test_labels_of_the_node_select_the_pool_and_a_change_counts_at_once(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/24", nodeSelector="rack == 'r1'")
    await cluster.pool("b", "10.1.0.0/24", nodeSelector="rack == 'r2'")
    await cluster.node("h", rack="r1")
    client = cluster.client()
    assert texts((await client.assign(want())).addresses)[0].startswith("10.0.")
    await cluster.node("h", rack="r2")
    assert texts((await client.assign(want(handle="v"))).addresses)[0].startswith("10.1.")


async def test_a_pool_that_is_disabled_serves_nobody_from_that_moment(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/24")
    client = cluster.client()
    await client.assign(want())
    await cluster.pool("a", "10.0.0.0/24", disabled=True)
    with pytest.raises(AddressError, match="a: disabled"):
        await client.assign(want(handle="v"))


async def test_a_new_pool_is_found_when_the_known_ones_do_not_suffice(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/32", blockSize=32)
    client = cluster.client()
    await client.assign(want())
    await cluster.pool("b", "10.1.0.0/24")
    assert texts((await client.assign(want(handle="v"))).addresses)[0].startswith("10.1.")


async def test_a_new_pool_that_comes_first_is_used_before_long(cluster: Cluster) -> None:
    now = [0.0]
    client = IpamClient(cluster.store, monotonic=lambda: now[0])
    await cluster.pool("b", "10.1.0.0/26")
    await client.assign(want(count4=64))
    await cluster.pool("a", "10.0.0.0/26")
    await cluster.pool("c", "10.2.0.0/26")
    now[0] += 5.1
    assert texts((await client.assign(want(handle="v"))).addresses)[0].startswith("10.0.")


async def test_named_pools(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/24")
    await cluster.pool("b", "10.1.0.0/24", assignmentMode="Manual")
    result = await cluster.client().assign(want(pools4=(parse_prefix("10.1.0.0/24"),)))
    assert texts(result.addresses)[0].startswith("10.1.")


async def test_reserved_addresses_are_never_assigned(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/29", blockSize=30)
    await cluster.put("/calico/resources/v3/projectcalico.org/ipreservations/r", {"spec": {"reservedCIDRs": ["10.0.0.0/30", "10.0.0.5"]}})
    result = await cluster.client().assign(want(count4=3))
    assert texts(result.addresses) == ["10.0.0.4", "10.0.0.6", "10.0.0.7"]
    with pytest.raises(AddressError):
        await cluster.client().assign(want(handle="v"))


async def test_a_reservation_that_cannot_be_understood_stops_assignment(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/29")
    await cluster.put("/calico/resources/v3/projectcalico.org/ipreservations/r", {"spec": {"reservedCIDRs": ["x"]}})
    with pytest.raises(DataError, match="reservedCIDRs"):
        await cluster.client().assign(want())


async def test_a_broken_block_is_left_alone_and_another_is_used(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/29", blockSize=30)
    await cluster.put(BlockKey(parse_prefix("10.0.0.0/30")), {"cidr": "nonsense"})
    result = await cluster.client().assign(want(count4=4))
    assert texts(result.addresses) == ["10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.7"]
    assert await cluster.read(BlockKey(parse_prefix("10.0.0.0/30"))) == {"cidr": "nonsense"}
    assert [str(finding) for finding in await cluster.client().check()] == ["block 10.0.0.0/30: cannot be understood"]


async def test_no_block_is_claimed_across_one_of_another_size(cluster: Cluster) -> None:
    wide = parse_prefix("10.0.0.0/29")
    await cluster.put(BlockKey(wide), algebra.new_block(wide, "host:x", 1, "2026-01-02T02:59:59Z"))
    await cluster.put(AffinityKey("x", wide), {"state": "confirmed", "deleted": False})
    await cluster.pool("a", "10.0.0.0/28", blockSize=30)
    result = await cluster.client().assign(want(count4=8))
    assert all(not wide.contains(address) for address in result.addresses)


async def test_a_claim_that_calico_began_is_finished(cluster: Cluster) -> None:
    block = parse_prefix("10.0.0.64/26")
    await cluster.pool("a", "10.0.0.0/16")
    await cluster.put(AffinityKey("h", block), {"state": "pending", "deleted": False})
    result = await cluster.client().assign(want())
    assert texts(result.addresses) == ["10.0.0.64"]
    assert await cluster.read(AffinityKey("h", block)) == {"state": "confirmed", "deleted": False}
    assert await cluster.client().check() == ()


async def test_a_block_whose_affinity_was_not_confirmed_is_used_and_confirmed(cluster: Cluster) -> None:
    block = parse_prefix("10.0.0.64/26")
    await cluster.pool("a", "10.0.0.0/16")
    await cluster.put(AffinityKey("h", block), {"state": "pendingDeletion", "deleted": False})
    await cluster.put(BlockKey(block), algebra.new_block(block, "host:h", 1, "2026-01-02T02:59:59Z"))
    assert texts((await cluster.client().assign(want())).addresses) == ["10.0.0.64"]
    assert await cluster.client().check() == ()


async def test_a_pending_claim_on_a_block_of_another_host_is_not_used(cluster: Cluster) -> None:
    block = parse_prefix("10.0.0.64/26")
    await cluster.pool("a", "10.0.0.0/16")
    await cluster.put(AffinityKey("h", block), {"state": "pending", "deleted": False})
    await cluster.put(BlockKey(block), algebra.new_block(block, "host:x", 1, "2026-01-02T02:59:59Z"))
    await cluster.put(AffinityKey("x", block), {"state": "confirmed", "deleted": False})
    (address,) = (await cluster.client().assign(want())).addresses
    assert not block.contains(address)


async def test_a_given_address_claims_its_block(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/16")
    client = cluster.client()
    address = parse_address("10.0.7.9")
    result = await client.assign_address(address, want())
    assert result.addresses == result.assigned == (address,)
    assert (await client.assign_address(address, want())).assigned == ()
    with pytest.raises(AddressError, match=r"10\.0\.7\.9 is in use by w"):
        await client.assign_address(address, want(handle="v"))
    assert await client.check() == ()


@pytest.mark.parametrize(("address", "message"), [("192.0.2.1", "belongs to no pool"), ("10.9.0.1", "unusable: disabled")])
async def test_a_given_address_outside_usable_pools_is_refused(cluster: Cluster, address: str, message: str) -> None:
    await cluster.pool("a", "10.0.0.0/16")
    await cluster.pool("b", "10.9.0.0/16", disabled=True)
    with pytest.raises(AddressError, match=message):
        await cluster.client().assign_address(parse_address(address), want())


async def test_releasing_a_handle_frees_all_it_has_and_nothing_else(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/16")
    await cluster.pool("b", "fd00::/64")
    client = cluster.client()
    kept = await client.assign(want(handle="v"))
    gone = await client.assign(want(count4=2, count6=1))
    assert await client.release_handle("w") == gone.addresses
    assert await client.release_handle("w") == ()
    assert await cluster.read(HandleKey("w")) is None
    assert (await client.assign(want(handle="v"))).addresses == kept.addresses
    assert [usage.assigned for usage in await client.usage()] == [1, 0]
    assert await client.check() == ()


async def test_releasing_a_handle_clears_counts_that_a_crash_left(cluster: Cluster) -> None:
    await cluster.put(HandleKey("w"), {"block": {"10.0.0.0/26": 1}, "deleted": False})
    assert [str(finding) for finding in await cluster.client().check()] == ["handle w: counts 1 addresses in 10.0.0.0/26, and owns 0"]
    assert await cluster.client().release_handle("w") == ()
    assert await cluster.client().check() == ()


async def test_releasing_addresses(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/16")
    client = cluster.client()
    mine = (await client.assign(want(count4=3))).addresses
    theirs = (await client.assign(want(handle="v"))).addresses
    assert await client.release_addresses([*mine[:1], *theirs, parse_address("192.0.2.1")], handle="w") == mine[:1]
    assert await client.release_addresses([*mine, *theirs]) == (*mine[1:], *theirs)
    assert await cluster.read(HandleKey("w")) is None
    assert await client.check() == ()


async def test_releasing_finds_blocks_whose_pool_is_gone_and_many_at_once(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/16", blockSize=25)
    client = cluster.client()
    addresses: tuple[Prefix, ...] = ()
    for number in range(120):
        addresses += (await client.assign(want(handle=f"w{number}"))).addresses
    await cluster.put(ResourceKey("IPPool", "a"), None)
    assert set(await client.release_addresses(addresses)) == set(addresses)
    assert await client.check() == ()


async def test_the_last_address_of_a_block_that_nobody_claims_takes_the_block_along(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/26")
    client = cluster.client()
    (address,) = (await client.assign(want())).addresses
    block = block_of(address, 26)
    await cluster.put(BlockKey(block), (await cluster.read(BlockKey(block)) or {}) | {"affinity": None})
    await cluster.put(AffinityKey("h", block), None)
    assert await client.release_handle("w") == (address,)
    assert await cluster.read(BlockKey(block)) is None


async def test_unknown_fields_survive(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/26")
    client = cluster.client()
    (address,) = (await client.assign(want())).addresses
    for key in (BlockKey(block_of(address, 26)), HandleKey("w")):
        await cluster.put(key, (await cluster.read(key) or {}) | {"later": "x"})
    await client.assign(want(count4=2))
    for key in (BlockKey(block_of(address, 26)), HandleKey("w")):
        assert (await cluster.read(key) or {})["later"] == "x"


async def test_usage_of_pools(cluster: Cluster) -> None:
    await cluster.pool("a", "10.0.0.0/24", blockSize=28)
    await cluster.client().assign(want(count4=17))
    (usage,) = await cluster.client().usage()
    assert (usage.pool, usage.size, usage.blocks, usage.assigned, usage.disabled) == ("a", 256, 2, 17, False)


@pytest.mark.parametrize("handle", ["", "a/b"])
async def test_a_handle_that_cannot_be_a_key_is_a_mistake_of_the_caller(cluster: Cluster, handle: str) -> None:
    await cluster.pool("a", "10.0.0.0/24")
    with pytest.raises(ValueError, match="cannot be part of a path"):
        await cluster.client().assign(want(handle=handle))


async def test_a_store_that_is_down_says_so_by_itself(cluster: Cluster) -> None:
    cluster.store.set_available(False)
    with pytest.raises(StoreUnavailable):
        await cluster.client().assign(want())

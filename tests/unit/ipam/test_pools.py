"""Which pools may serve, and in which order blocks are looked for."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from tabinet.errors import DataError
from tabinet.ipam import blocks
from tabinet.ipam.pools import Pool, candidate_blocks, containing_block, containing_pool, in_use, parse_pool, select_pools
from tabinet.lib.ip import Prefix, parse_address, parse_prefix
from tabinet.model.keys import ResourceKey, path_of


def pool(name: str, cidr: str, **spec: object) -> Pool:
    return stored(name, {"cidr": cidr, **spec})


def stored(name: str, spec: dict[str, object]) -> Pool:
    document = {"kind": "IPPool", "apiVersion": "projectcalico.org/v3", "metadata": {"name": name}, "spec": spec}
    return parse_pool(path_of(ResourceKey("IPPool", name)), 7, msgspec.json.encode(document))


def selected(pools: list[Pool], family: int = 4, named: tuple[str, ...] = (), **labels: str) -> tuple[list[str], list[str]]:
    usable, refusals = select_pools(pools, family, [parse_prefix(cidr) for cidr in named], labels, {})
    return [one.name for one in usable], [str(refusal) for refusal in refusals]


def test_defaults() -> None:
    four = pool("a", "10.0.0.0/16")
    assert (four.block_length, four.uses, four.automatic, four.all_nodes) == (26, ("Workload", "Tunnel"), True, True)
    assert pool("b", "fd00::/64").block_length == 122


def test_pools_of_the_family_in_order_of_name() -> None:
    assert selected([pool("b", "10.1.0.0/16"), pool("a", "10.0.0.0/16"), pool("six", "fd00::/64")]) == (["a", "b"], [])


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"disabled": True}, "a: disabled"),
        ({"allowedUses": ["Tunnel"]}, "a: allowedUses is Tunnel, and the address is for Workload"),
        ({"assignmentMode": "Manual"}, "a: assignmentMode is Manual, and the request does not name the pool"),
        ({"nodeSelector": "rack == 'r2'"}, "a: nodeSelector rack == 'r2' does not select the host"),
        ({"namespaceSelector": "has(x)"}, "a: namespaceSelector has(x) does not select the namespace"),
    ],
)
def test_refusals_say_why(spec: dict[str, object], reason: str) -> None:
    assert selected([pool("a", "10.0.0.0/16", **spec)], rack="r1") == ([], [reason])


def test_a_node_selector_is_over_the_labels_of_the_host() -> None:
    assert selected([pool("a", "10.0.0.0/16", nodeSelector="rack == 'r1'")], rack="r1") == (["a"], [])


def test_a_named_pool_is_used_whatever_its_selectors_say() -> None:
    pools = [pool("a", "10.0.0.0/16"), pool("b", "10.1.0.0/16", nodeSelector="has(x)", assignmentMode="Manual")]
    assert selected(pools, named=("10.1.0.0/16", "10.0.0.0/16")) == (["b", "a"], [])


def test_a_named_pool_that_cannot_serve_is_refused() -> None:
    pools = [pool("a", "10.0.0.0/16", disabled=True), pool("six", "fd00::/64")]
    usable, refusals = selected(pools, named=("10.0.0.0/16", "10.9.0.0/16", "fd00::/64"))
    assert usable == []
    assert refusals == ["a: disabled", "10.9.0.0/16: there is no such pool", "six: not an IPv4 pool"]


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"cidr": "10.0.0.0/33"}, "spec.cidr"),
        ({"cidr": "10.0.0.0/16", "blockSize": 12}, "spec.blockSize"),
        ({"cidr": "10.0.0.0/28", "blockSize": 26}, "spec.cidr"),
        ({"cidr": "10.0.0.0/16", "nodeSelector": "=="}, "spec.nodeSelector"),
        ({}, "spec"),
    ],
)
def test_a_pool_with_errors_is_refused(spec: dict[str, object], path: str) -> None:
    with pytest.raises(DataError) as caught:
        stored("a", spec)
    assert [problem.path for problem in caught.value.problems] == [path]


def test_candidates_are_every_block_once() -> None:
    one = pool("a", "10.0.0.0/22")
    found = list(candidate_blocks(one, "h"))
    assert sorted(found) == [parse_prefix(f"10.0.{i // 4}.{i % 4 * 64}/26") for i in range(16)]
    assert found == list(candidate_blocks(one, "h"))


def test_hosts_begin_at_different_places() -> None:
    one = pool("a", "10.0.0.0/16")
    assert len({next(candidate_blocks(one, f"h{number}")) for number in range(20)}) > 15


def test_candidates_of_a_huge_pool_are_lazy() -> None:
    one = pool("a", "fd00::/48")
    found = list(itertools.islice(candidate_blocks(one, "h"), 3))
    assert len(set(found)) == 3
    assert all(one.cidr.contains(block) and block.length == 122 for block in found)


def test_where_an_address_belongs() -> None:
    wide, narrow = pool("a", "10.0.0.0/8"), pool("b", "10.1.0.0/16", blockSize=28)
    assert containing_pool([wide, narrow], parse_address("10.1.0.17")) is narrow
    assert containing_block(narrow, parse_address("10.1.0.17")) == parse_prefix("10.1.0.16/28")
    assert containing_pool([wide, narrow], parse_address("11.0.0.1")) is None


def test_a_pool_serves_its_uses_only() -> None:
    pools = [
        pool("a", "10.0.0.0/16", allowedUses=["LoadBalancer"]),
        pool("b", "10.1.0.0/16"),
        pool("c", "10.2.0.0/16", allowedUses=["Tunnel"]),
    ]
    for use, names in (("Workload", ["b"]), ("Tunnel", ["b", "c"]), ("LoadBalancer", ["a"])):
        assert [one.name for one in select_pools(pools, 4, [], {}, {}, use)[0]] == names
        assert [one.name for one in select_pools(pools, 4, [one.cidr for one in pools], {}, {}, use)[0]] == names


def test_who_uses_a_pool() -> None:
    one, other, empty, foreign = (parse_prefix(text) for text in ("10.0.0.0/30", "10.0.0.4/30", "10.0.0.8/30", "10.9.0.0/30"))
    documents: dict[Prefix, blocks.Document | None] = {}
    for block, host, count in ((one, "x", 2), (other, "y", 3), (empty, "z", 0), (foreign, "x", 1)):
        fresh = blocks.new_block(block, f"host:{host}", 1, "2026-01-02T03:04:05Z")
        documents[block] = blocks.assign(fresh, block, count, "w", {}, "", strict=False)[0]
    use = in_use(pool("a", "10.0.0.0/24"), documents)
    assert (use.assigned, use.hosts, use.empty, use.is_used) == (5, ("x", "y"), (empty,), True)
    assert str(use) == "5 addresses are assigned (10.0.0.0, 10.0.0.1, 10.0.0.4, ...) from blocks of x, y"
    assert not in_use(pool("b", "10.1.0.0/24"), documents).is_used
    broken = in_use(pool("a", "10.0.0.0/24"), {empty: None})
    assert broken.is_used
    assert str(broken) == "block 10.0.0.8/30 cannot be understood"


def test_addresses_that_only_rest_do_not_use_a_pool() -> None:
    block = parse_prefix("10.0.0.0/30")
    document, _ = blocks.assign(blocks.new_block(block, "host:x", 1, "2026-01-02T03:04:05Z"), block, 1, "w", {}, "", strict=False)
    document, _ = blocks.release(document, block, [block.host(0)], rest_since="2026-01-02T03:04:05Z")
    use = in_use(pool("a", "10.0.0.0/24"), {block: document})
    assert (use.is_used, use.empty) == (False, (block,))

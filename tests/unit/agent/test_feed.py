"""From events of the store to inputs of the calculation: order, broken values, and the hold."""

from __future__ import annotations

import msgspec

from tabinet.agent.feed import Feed
from tabinet.calc.inputs import Delete, Input, InSync, Put
from tabinet.model.keys import ResourceKey, path_of
from tabinet.model.resources import GlobalNetworkPolicy
from tabinet.store.api import DeleteEvent, KeyValue, PutEvent, WatchBatch

P = ResourceKey("GlobalNetworkPolicy", "p")
CLUSTER = ResourceKey("ClusterInformation", "default")


def put(key: ResourceKey, spec: object, revision: int) -> PutEvent:
    value = msgspec.json.encode({"metadata": {"name": key.name}, "spec": spec})
    return PutEvent(KeyValue(path_of(key), value, revision, revision))


def make() -> tuple[Feed, list[Input]]:
    delivered: list[Input] = []
    return Feed(delivered.append), delivered


def test_events_come_in_order_with_their_revisions() -> None:
    feed, delivered = make()
    feed.on_batch(WatchBatch([put(P, {"selector": "a == 'b'"}, 5), DeleteEvent(path_of(P), 6)], 6))
    feed.on_in_sync()
    first, second, third = delivered
    assert isinstance(first, Put)
    assert (first.key, first.revision) == (P, 5)
    assert second == Delete(P)
    assert third == InSync()
    assert feed.revision == 6


def test_a_broken_policy_denies_whom_it_selects_and_is_remembered_until_it_is_mended_or_gone() -> None:
    feed, delivered = make()
    broken = {"selector": "a == 'b'", "ingress": [{"action": "Allow", "protocol": "pigeons"}]}
    feed.on_batch(WatchBatch([put(P, broken, 5)], 5))
    (closed,) = delivered
    assert isinstance(closed, Put)
    assert isinstance(closed.value, GlobalNetworkPolicy)
    assert [rule.action for rule in closed.value.spec.ingress] == ["Deny"]
    assert list(feed.problems) == [path_of(P)]
    feed.on_batch(WatchBatch([put(P, {"selector": "all()"}, 6)], 6))
    assert feed.problems == {}
    feed.on_batch(WatchBatch([put(P, broken, 7), DeleteEvent(path_of(P), 8)], 8))
    assert feed.problems == {}
    assert delivered[-1] == Delete(P)


def test_what_cannot_be_understood_at_all_counts_as_absent() -> None:
    feed, delivered = make()
    path = path_of(ResourceKey("WorkloadEndpoint", "h-lab-w-eth0", "default"))
    feed.on_batch(WatchBatch([PutEvent(KeyValue(path, b"\xff\x00", 1, 1))], 1))
    assert delivered == [Delete(ResourceKey("WorkloadEndpoint", "h-lab-w-eth0", "default"))]
    assert list(feed.problems) == [path]


def test_paths_of_others_are_none_of_our_business() -> None:
    feed, delivered = make()
    feed.on_batch(WatchBatch([PutEvent(KeyValue("/calico/elsewhere", b"?", 1, 1)), DeleteEvent("/registry/pods/x", 2)], 2))
    assert (delivered, feed.problems, feed.revision) == ([], {}, 2)


def test_the_store_is_held_while_the_cluster_says_that_it_is_not_ready() -> None:
    feed, _ = make()
    for spec, hold in (
        ({"datastoreReady": False}, True),
        ({"datastoreReady": True}, False),
        ({"datastoreReady": False}, True),
        ({}, False),
    ):
        feed.on_batch(WatchBatch([put(CLUSTER, spec, 1)], 1))
        assert feed.hold is hold, spec
    feed.on_batch(WatchBatch([put(CLUSTER, {"datastoreReady": False}, 2), DeleteEvent(path_of(CLUSTER), 3)], 3))
    assert feed.hold is False

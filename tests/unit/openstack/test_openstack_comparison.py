"""Comparing a store in memory with a Neutron of dictionaries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from tabinet.attach.openstack.cluster import complete_cluster
from tabinet.attach.openstack.comparison import Comparer, Comparison, Scope, owner_of, parse_comparison, publish_report
from tabinet.attach.openstack.groups import path_of_document, translate_group
from tabinet.attach.openstack.names import Region, comparison_path, endpoint_key, subnet_path
from tabinet.attach.openstack.neutron import SecurityGroup
from tabinet.attach.openstack.publisher import GROUP, PORT, SUBNET, Publisher, Subject, paths_of
from tabinet.attach.openstack.storethread import StoreThread
from tabinet.errors import DataError
from tabinet.model.keys import ResourceKey, path_of
from tabinet.store.api import Datastore, DeleteOp, PutOp
from tabinet.store.memory import MemoryStore

REGION = Region()


@dataclass
class Neutron:
    """Security groups by identifier."""

    groups: dict[str, SecurityGroup] = field(default_factory=dict)

    def ids(self, kind: str) -> list[str]:
        return sorted(self.groups) if kind == GROUP else []

    def places(self, kind: str, ids: Sequence[str]) -> dict[str, list[str]]:
        return {each: paths_of(REGION, Subject(kind, each)) for each in ids}

    def read_many(self, kind: str, ids: Sequence[str]) -> dict[str, dict[str, dict[str, Any]]]:
        known = [self.groups[each] for each in ids if each in self.groups] if kind == GROUP else []
        documents = {group.id: translate_group(group, REGION) for group in known}
        return {identifier: {path_of_document(document): document} for identifier, document in documents.items()}

    def read(self, subject: Subject) -> Mapping[str, dict[str, Any]]:
        return self.read_many(subject.kind, [subject.id]).get(subject.id, {})


@pytest.fixture
def stores() -> Iterator[StoreThread]:
    async def open_memory() -> Datastore:
        return MemoryStore()

    thread = StoreThread(open_memory)
    thread.start()
    yield thread
    thread.close()


@pytest.fixture
def neutron() -> Neutron:
    return Neutron({f"g{number}": SecurityGroup(id=f"g{number}", revision_number=number) for number in range(5)})


def comparer(neutron: Neutron, stores: StoreThread, **more: Any) -> Comparer:
    return Comparer(Publisher(REGION, neutron, stores), page=2, **more)


def path(group: str) -> str:
    return path_of(ResourceKey("NetworkPolicy", f"ossg.default.{group}", "openstack"))


def test_an_empty_store_is_filled_and_then_there_is_nothing_to_do(neutron: Neutron, stores: StoreThread) -> None:
    progress: list[int] = []
    shares: list[float] = []

    def pause(share: float) -> bool:
        shares.append(share)
        return True

    first = comparer(neutron, stores, on_progress=lambda comparison: progress.append(comparison.compared), pause=pause).compare()
    assert (first.total, first.compared, first.found, first.repaired) == (5, 5, 5, 5)
    assert first.finished
    assert progress == [2, 4, 5, 5]
    assert sum(shares) == pytest.approx(1.0)
    again = comparer(neutron, stores).compare()
    assert (again.compared, again.found) == (5, 0)


def test_what_differs_is_missing_or_left_over(neutron: Neutron, stores: StoreThread) -> None:
    comparer(neutron, stores).compare()
    left = path_of(endpoint_key(REGION, "hosta", "device", "port"))

    async def break_things(store: Datastore) -> None:
        await store.txn(
            (), [DeleteOp(path("g1")), PutOp(path("g2"), b'{"metadata":{}}'), PutOp(left, b"{}"), PutOp(path("old"), b"not json")]
        )

    stores.call(break_things)
    found = comparer(neutron, stores, dry_run=True).compare()
    expected = {(path("g1"), "missing"), (path("g2"), "different"), (left, "left over"), (path("old"), "left over")}
    assert {(each.path, each.what) for each in found.differences} == expected
    assert found.repaired == 0
    assert comparer(neutron, stores).compare(Scope(ids={GROUP: ("g1",)})).repaired == 1
    assert comparer(neutron, stores).compare().repaired == 3
    assert comparer(neutron, stores).compare().found == 0


def test_what_is_settled_meanwhile_is_no_difference(neutron: Neutron, stores: StoreThread) -> None:
    late = SecurityGroup(id="late")

    class Behind(Neutron):
        """Its bulk readings are from before the group was made."""

        def ids(self, kind: str) -> list[str]:
            return [each for each in super().ids(kind) if each != "late"]

    behind = Behind(dict(neutron.groups) | {"late": late})
    Publisher(REGION, behind, stores).publish(Subject(GROUP, "late"))
    for dry_run in (True, False):
        result = comparer(behind, stores, dry_run=dry_run).compare()
        assert [each for each in result.differences if each.id == "late"] == []


def test_a_comparison_that_is_ended_says_so_and_removes_nothing(neutron: Neutron, stores: StoreThread) -> None:
    result = comparer(neutron, stores, pause=lambda share: False).compare()
    assert (result.compared, result.finished) == (2, "")


def test_reports_are_kept_in_the_store(stores: StoreThread) -> None:
    report = Comparison(started="now", total=3, compared=3)
    publish_report(stores, REGION, report)
    item = stores.call(lambda store: store.get(comparison_path(REGION)))
    assert item is not None
    assert parse_comparison(item.key, item.value) == report
    with pytest.raises(DataError):
        parse_comparison("path", b"[]")


@pytest.mark.parametrize(
    ("where", "subject"),
    [
        (subnet_path(REGION, "s"), (Subject(SUBNET, "s"), ())),
        (path("g"), (Subject(GROUP, "g"), ())),
        (path_of(endpoint_key(REGION, "h-1", "d-1", "p-1")), (Subject(PORT, "p-1"), (("h-1", "d-1"),))),
        (path_of(ResourceKey("NetworkSet", "ospairs.default.p", "openstack")), (Subject(PORT, "p"), ())),
        (path_of(ResourceKey("NetworkSet", "mine", "openstack")), None),
        (path_of(ResourceKey("NetworkPolicy", "osps.default.off", "openstack")), None),
        (path_of(endpoint_key(Region("other"), "h", "d", "p")), None),
        ("/calico/ipam/v2/config", None),
    ],
)
def test_whose_a_path_is(where: str, subject: object) -> None:
    assert owner_of(REGION, where) == subject


def test_the_cluster_is_completed_and_what_an_operator_set_stays() -> None:
    fresh = complete_cluster({}, REGION, "guid")
    cluster, felix, *_ = fresh.values()
    assert cluster is not None and felix is not None
    assert cluster["spec"] == {"clusterGUID": "guid", "clusterType": "openstack", "datastoreReady": True}
    assert felix["spec"] == {"endpointReportingEnabled": True, "interfacePrefix": "tap", "workloadSourceSpoofing": "Any"}
    mine = {"interfacePrefix": "cali", "endpointReportingEnabled": False, "mtu": 9000}
    paths = list(fresh)
    again = complete_cluster({paths[0]: cluster, paths[1]: {**felix, "spec": mine}}, REGION, "another")
    assert again[paths[0]] == cluster
    assert (again[paths[1]] or {})["spec"] == mine | {"interfacePrefix": "cali,tap", "workloadSourceSpoofing": "Any"}

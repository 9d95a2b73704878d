"""What hosts report, judged against the endpoints that are stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from tabinet.attach.openstack.names import Region, endpoint_key
from tabinet.attach.openstack.statuses import GroupReport, HostReport, PortReport, StatusBoard, group_prefix, judge_port, refused_of
from tabinet.attach.openstack.storethread import StoreThread
from tabinet.errors import StoreUnavailable
from tabinet.model.keys import path_of
from tabinet.model.status import EndpointStatusKey, HostStatusKey, status_path_of
from tabinet.store.api import Datastore, DeleteEvent, KeyValue, PutEvent, PutOp, WatchBatch
from tabinet.store.memory import MemoryStore

REGION = Region()
KEY = EndpointStatusKey("hosta", "openstack", "openstack/device", "port")
PATH = status_path_of(KEY)
ENDPOINT = path_of(endpoint_key(REGION, "hosta", "device", "port"))


def item(path: str, value: Any, revision: int = 50) -> KeyValue:
    return KeyValue(path, value if isinstance(value, bytes) else msgspec.json.encode(value), revision, 1)


@pytest.mark.parametrize(
    ("status", "endpoint_revision", "expected"),
    [
        ({"status": "up", "revision": 40}, 40, PortReport("port", "hosta", "up")),
        ({"status": "up", "revision": 41}, 40, PortReport("port", "hosta", "up")),
        ({"status": "up", "revision": 39}, 40, None),
        ({"status": "up"}, 40, PortReport("port", "hosta", "up")),  # Felix names no revision, and said it later
        ({"status": "up"}, 60, None),
        ({"status": "down", "revision": 40, "reason": "no interface"}, 40, PortReport("port", "hosta", "down", "no interface")),
        ({"status": "down", "revision": 39, "reason": "no interface"}, 40, PortReport("port", "hosta", "down", "no interface")),
        ({"status": "error", "revision": 40, "reason": "x"}, 40, PortReport("port", "hosta", "error", "x")),
    ],
)
def test_what_a_status_means(status: dict[str, Any], endpoint_revision: int, expected: PortReport | None) -> None:
    assert judge_port(KEY, item(PATH, status), item(ENDPOINT, {}, endpoint_revision)) == expected


def test_statuses_without_counterpart() -> None:
    assert judge_port(KEY, item(PATH, {"status": "up"}), None) is None
    gone = judge_port(KEY, None, item(ENDPOINT, {}))
    assert gone is not None and gone.status == "down"
    broken = judge_port(KEY, item(PATH, b"\xff"), item(ENDPOINT, {}))
    assert broken is not None and broken.status == "error"


REFUSED = {"metadata": {"annotations": {"openstack.tabinet/refused": "port forwarding p: 192.0.2.1 is on hostb"}}}


@pytest.mark.parametrize("status", ["up", "down"])
def test_what_of_a_port_was_refused_is_said_whether_it_is_up_or_not(status: str) -> None:
    report = judge_port(KEY, item(PATH, {"status": status, "revision": 40}), item(ENDPOINT, REFUSED, 40))
    assert report is not None
    assert (report.status, report.refused) == (status, "port forwarding p: 192.0.2.1 is on hostb")


@pytest.mark.parametrize("value", [b"\xff openstack.tabinet/refused", {"openstack.tabinet/refused": ""}, REFUSED | {"metadata": []}])
def test_what_cannot_be_read_refuses_nothing(value: Any) -> None:
    assert refused_of(item(ENDPOINT, value)) == ""


def test_groups_are_told_when_something_of_them_is_refused_and_when_nothing_is_any_more(stores: StoreThread) -> None:
    board = StatusBoard(REGION, stores)
    prefix = group_prefix(REGION)
    bad = {"metadata": {"annotations": {"openstack.tabinet/refused": "rule r: protocol x"}}}
    events = [PutEvent(item(f"{prefix}a", bad)), PutEvent(item(f"{prefix}b", {})), PutEvent(item(f"{prefix}c", bad))]
    board.take_in(WatchBatch(events, 60))
    assert board.judge(board.take_out(0.0)) == [GroupReport(each, "rule r: protocol x") for each in "ac"]
    board.take_in(WatchBatch([PutEvent(item(f"{prefix}a", {})), DeleteEvent(f"{prefix}b", 61), DeleteEvent(f"{prefix}c", 61)], 61))
    assert board.judge(board.take_out(0.0)) == [GroupReport("a", ""), GroupReport("c", "")]


@pytest.fixture
def stores() -> Iterator[StoreThread]:
    async def open_memory() -> Datastore:
        return MemoryStore()

    thread = StoreThread(open_memory)
    thread.start()
    yield thread
    thread.close()


def test_only_the_latest_is_told(stores: StoreThread) -> None:
    board = StatusBoard(REGION, stores)
    revision = stores.call(lambda store: store.txn((), [PutOp(ENDPOINT, b"{}")])).revision
    host = status_path_of(HostStatusKey("hosta"))
    foreign = status_path_of(EndpointStatusKey("hosta", "k8s", "default/pod", "eth0"))
    other = status_path_of(EndpointStatusKey("hosta", "openstack", "openstack-two/device", "port"))
    events: list[PutEvent | DeleteEvent] = [
        PutEvent(item(PATH, {"status": "down"})),
        PutEvent(item(host, {"time": "now", "uptime": 1.0, "first_update": True})),
        PutEvent(item(foreign, {"status": "up"})),
        PutEvent(item(other, {"status": "up"})),
        PutEvent(item(host + "/nonsense", b"x")),
        PutEvent(item(PATH, {"status": "up", "revision": revision})),
    ]
    board.take_in(WatchBatch(events, 60))
    reports = board.judge(board.take_out(0.0))
    assert reports == [HostReport("hosta", started=True), PortReport("port", "hosta", "up")]
    assert board.take_out(0.0) == []


def test_what_could_not_be_told_is_told_again_unless_there_is_something_newer(stores: StoreThread) -> None:
    board = StatusBoard(REGION, stores)
    board.take_in(WatchBatch([PutEvent(item(PATH, {"status": "down"}, 1)), DeleteEvent("/calico/felix/v2/other", 2)], 2))
    first = board.take_out(0.0)
    board.take_in(WatchBatch([PutEvent(item(PATH, {"status": "up"}, 3))], 3))
    board.put_back(first)
    again = dict(board.take_out(0.0))
    assert again[PATH] == item(PATH, {"status": "up"}, 3)
    assert len(again) == 2


def test_a_store_that_does_not_answer_is_said_so(stores: StoreThread) -> None:
    board = StatusBoard(REGION, stores)
    board.take_in(WatchBatch([PutEvent(item(PATH, {"status": "up"}))], 60))

    async def away(store: Datastore) -> None:
        assert isinstance(store, MemoryStore)
        store.set_available(False)

    stores.call(away)
    with pytest.raises(StoreUnavailable):
        board.judge(board.take_out(0.0))

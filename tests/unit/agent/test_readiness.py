"""Waiting for an endpoint in the agent's own process."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import msgspec
import pytest

from tabinet.agent.dataplane import EndpointStatus
from tabinet.agent.readiness import Readiness
from tabinet.attach.fakenetwork import FakeNetwork
from tabinet.attach.names import Workload
from tabinet.attach.netns import AttachRequest, attach
from tabinet.errors import AttachError
from tabinet.lib.ip import parse_address
from tabinet.model.keys import ResourceKey, path_of
from tabinet.model.report import HostReport, report_path
from tabinet.store.api import PutEvent, PutOp
from tabinet.store.memory import MemoryStore

WORKLOAD = Workload(node="h", workload="w")
LONG_S = 10.0


class Host:
    """The agent's side: statuses that the test sets."""

    def __init__(self, mtu: int | None = 1400, trouble: str = "") -> None:
        self.statuses: dict[ResourceKey, EndpointStatus] = {}
        self.readiness = Readiness(self.statuses, lambda: mtu, lambda: trouble)

    def tell(self, revision: int, *, ready: bool = True, reason: str = "", failed: bool = False, key: ResourceKey = WORKLOAD.key) -> None:
        self.statuses[key] = EndpointStatus(revision, ready, reason, failed)
        self.readiness.note(key)


async def test_who_waits_goes_on_once_the_kernel_has_the_revision_and_not_before() -> None:
    host = Host()
    tasks = [asyncio.create_task(host.readiness.wait_until_ready(WORKLOAD.key, revision, LONG_S)) for revision in (5, 6)]
    await asyncio.sleep(0)
    host.tell(4)
    host.tell(9, key=ResourceKey("WorkloadEndpoint", "another"))
    host.tell(5, ready=False, reason="not yet")
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    host.tell(5)
    await tasks[0]
    assert not tasks[1].done()
    assert host.readiness.missing(WORKLOAD.key, 6)
    host.tell(7)
    assert not host.readiness.missing(WORKLOAD.key, 6)
    await tasks[1]
    await host.readiness.wait_until_ready(WORKLOAD.key, 7, 0.0)
    assert not host.readiness._waiting


async def test_when_time_is_up_it_is_said_what_was_missing() -> None:
    host = Host(trouble="the store is not in sync")
    with pytest.raises(
        AttachError, match=r"not ready after 0 s: the agent has not seen the endpoint; the agent is not ready: the store is"
    ):
        await host.readiness.wait_until_ready(WORKLOAD.key, 5, 0.0)
    host = Host()
    host.tell(4)
    with pytest.raises(AttachError, match="holds revision 4 of the endpoint, and 5 is wanted; the agent follows the store"):
        await host.readiness.wait_until_ready(WORKLOAD.key, 5, 0.0)
    for failed, word in ((False, "down"), (True, "error")):
        host.tell(5, ready=False, reason="refused", failed=failed)
        with pytest.raises(AttachError, match=f"the agent reports it {word}: refused"):
            await host.readiness.wait_until_ready(WORKLOAD.key, 5, 0.0)
    assert not host.readiness._waiting


@pytest.mark.parametrize(("known", "mtu"), [(1400, 1400), (None, 1300)])
async def test_an_attachment_returns_by_the_word_of_the_agent_beside_it(known: int | None, mtu: int) -> None:
    store, network, host = MemoryStore(), FakeNetwork(), Host(known)
    network.create("ns")
    report = HostReport(
        host="h", version="", started="", revision=1, in_sync=True, endpoints_ready=0, endpoints_waiting=0, workload_mtu=1300
    )
    await store.txn([], [PutOp(report_path("h"), msgspec.json.encode(report))])
    request = AttachRequest(workload=WORKLOAD, netns="ns", unmanaged=(parse_address("10.0.0.1"),))
    order: list[str] = []

    async def beside() -> None:
        await asyncio.sleep(0)
        order.append("beside")
        assert await store.get(path_of(WORKLOAD.key)) is None

    task = asyncio.create_task(attach(request, store, network=network, agent=host.readiness, beside=beside, wait_s=LONG_S))
    async with asyncio.timeout(LONG_S), aclosing(store.watch(path_of(WORKLOAD.key), store.revision)) as changes:
        while not (events := (await anext(changes)).events):
            pass
    assert order == ["beside"]
    assert not task.done()
    assert isinstance(events[0], PutEvent)
    host.tell(events[0].item.revision)
    assert (await task).ready
    (link,) = (link for link in network.host.links() if link.name in network.pairs)
    assert link.mtu == mtu


async def test_an_attachment_that_is_not_ready_in_time_is_undone() -> None:
    store, network, host = MemoryStore(), FakeNetwork(), Host()
    network.create("ns")
    request = AttachRequest(workload=WORKLOAD, netns="ns", unmanaged=(parse_address("10.0.0.1"),))
    with pytest.raises(AttachError, match="the agent has not seen the endpoint"):
        await attach(request, store, network=network, agent=host.readiness, wait_s=0.01)
    assert await store.get(path_of(WORKLOAD.key)) is None
    assert not network.pairs


async def test_what_fails_beside_undoes_the_attachment() -> None:
    store, network, host = MemoryStore(), FakeNetwork(), Host()
    network.create("ns")
    request = AttachRequest(workload=WORKLOAD, netns="ns", unmanaged=(parse_address("10.0.0.1"),))

    async def beside() -> None:
        raise AttachError("no profile")

    with pytest.raises(AttachError, match="no profile"):
        await attach(request, store, network=network, agent=host.readiness, beside=beside)
    assert await store.get(path_of(WORKLOAD.key)) is None
    assert not network.pairs

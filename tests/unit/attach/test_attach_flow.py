"""Attaching and detaching with a store in memory, a fake network, and a task that plays the agent."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import msgspec
import pytest

from tabinet.attach.fakenetwork import FakeNetwork
from tabinet.attach.inside import HOST_MAC
from tabinet.attach.mtu import reported_mtu
from tabinet.attach.names import Workload, interface_name
from tabinet.attach.netns import Attachment, AttachRequest, attach, detach
from tabinet.errors import AddressError, AttachError, InputError, KernelError, StoreUnavailable
from tabinet.ipam.client import IpamClient
from tabinet.kernel.rtnetlink import AddVeth, DeleteLink, ReplaceRoute
from tabinet.lib.ip import parse_address, parse_prefix
from tabinet.model.keys import HandleKey, ResourceKey, kind_prefix, parse_path, path_of
from tabinet.model.report import HostReport, report_path
from tabinet.model.status import HostStatusKey, endpoint_status_path, render_endpoint_status, status_path_of
from tabinet.store.api import Compare, KeyValue, Op, Page, PutEvent, PutOp, TxnResult, WatchBatch
from tabinet.store.memory import MemoryStore

WORKLOAD = Workload(node="h", workload="w-1")
NAME = interface_name(WORKLOAD)
REQUEST = AttachRequest(workload=WORKLOAD, netns="ns", count4=1, count6=1, labels={"app": "web"}, profiles=("p",))
DONE_WITHIN_S = 10.0


@dataclass(slots=True)
class Agent:
    """Reports each endpoint up, at the revision that it saw, or what ``verdict`` says."""

    store: MemoryStore
    verdict: str = ""
    lag: int = 0
    seen: list[int] = field(default_factory=list)

    async def run(self) -> None:
        async for batch in self.store.watch(kind_prefix("WorkloadEndpoint"), self.store.revision):
            for event in batch.events:
                if isinstance(event, PutEvent):
                    key = parse_path(event.item.key)
                    assert isinstance(key, ResourceKey)
                    self.seen.append(event.item.revision)
                    value = render_endpoint_status(not self.verdict, event.item.revision - self.lag, self.verdict)
                    await self.store.txn([], [PutOp(endpoint_status_path("h", key), value)])


@dataclass(slots=True)
class FailingStore:
    """The ``fail_at``-th call from outside is lost: before it reaches the store, or, with ``after``, on the way back."""

    inner: MemoryStore
    fail_at: int
    after: bool
    calls: int = 0

    def _fails(self, *, after: bool) -> None:
        if self.calls == self.fail_at and after == self.after:
            raise StoreUnavailable("lost")

    async def get(self, key: str) -> KeyValue | None:
        self.calls += 1
        self._fails(after=False)
        found = await self.inner.get(key)
        self._fails(after=True)
        return found

    async def list(self, prefix: str, *, page_size: int = 5000) -> AsyncGenerator[Page, None]:
        self.calls += 1
        self._fails(after=False)
        async for page in self.inner.list(prefix, page_size=page_size):
            yield page
        self._fails(after=True)

    async def txn(self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()) -> TxnResult:
        self.calls += 1
        self._fails(after=False)
        result = await self.inner.txn(compares, then, otherwise)
        self._fails(after=True)
        return result

    async def watch(self, prefix: str, after_revision: int) -> AsyncGenerator[WatchBatch, None]:
        async for batch in self.inner.watch(prefix, after_revision):
            yield batch

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


async def pool(store: MemoryStore, name: str, cidr: str) -> None:
    document = {"kind": "IPPool", "apiVersion": "projectcalico.org/v3", "metadata": {"name": name}, "spec": {"cidr": cidr}}
    await store.txn([], [PutOp(path_of(ResourceKey("IPPool", name)), msgspec.json.encode(document))])


async def new_store() -> MemoryStore:
    store = MemoryStore()
    await pool(store, "four", "10.0.0.0/16")
    await pool(store, "six", "fd00::/64")
    return store


@pytest.fixture
async def store() -> MemoryStore:
    return await new_store()


@pytest.fixture
def network() -> FakeNetwork:
    made = FakeNetwork()
    made.create("ns").sysctl.values["net/ipv6/conf/eth0/accept_ra"] = "1"
    return made


@pytest.fixture
async def agent(store: MemoryStore) -> AsyncIterator[Agent]:
    made = Agent(store)
    task = asyncio.create_task(made.run())
    await asyncio.sleep(0)
    yield made
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def endpoint(store: MemoryStore) -> dict[str, dict[str, object]] | None:
    item = await store.get(path_of(WORKLOAD.key))
    return msgspec.json.decode(item.value) if item else None


async def leftovers(store: MemoryStore, network: FakeNetwork) -> list[str]:
    """Everything of the workload that is still there."""
    left = [link.name for link in network.host.links() if link.name != "lo"]
    if await endpoint(store) is not None:
        left.append("endpoint")
    client = IpamClient(store)
    left += [f"{usage.assigned} addresses of {usage.pool}" for usage in await client.usage() if usage.assigned]
    return left + [str(finding) for finding in await client.check()]


async def test_an_attached_namespace(store: MemoryStore, network: FakeNetwork, agent: Agent) -> None:
    result = await attach(REQUEST, store, network=network)
    assert result.ready
    assert result.host_interface == NAME
    four, six = result.addresses
    assert (four.family, six.family) == (4, 6)
    assert [gateway.address for gateway in result.gateways] == ["169.254.1.1", "fe80::1"]
    host = network.host.links()[1]
    assert (host.name, host.mac, host.up) == (NAME, HOST_MAC, True)
    inside = network.namespaces["ns"]
    eth0 = inside.rtnetlink.links()[1]
    assert (eth0.name, eth0.up, eth0.mac) == ("eth0", True, result.mac)
    assert {(address.address, address.length) for address in inside.rtnetlink.addresses()} == {(four, 32), (six, 128)}
    assert sorted(str(route.destination) for route in inside.rtnetlink.routes()) == ["0.0.0.0/0", "169.254.1.1/32", "::/0"]
    assert {neighbour.mac for neighbour in inside.rtnetlink.neighbours()} == {HOST_MAC}
    assert inside.sysctl.values["net/ipv6/conf/eth0/accept_ra"] == "0"
    document = await endpoint(store)
    assert document is not None
    assert document["spec"] == {
        "node": "h",
        "orchestrator": "cni",
        "endpoint": "eth0",
        "containerID": "w-1",
        "ipNetworks": [str(four), str(six)],
        "interfaceName": NAME,
        "mac": result.mac,
        "profiles": ["p"],
    }
    assert agent.seen == [result.revision]


async def everything(store: MemoryStore) -> dict[str, KeyValue]:
    return {item.key: item async for page in store.list("/") for item in page.items}


async def test_packets_are_as_large_as_tunnels_carry(store: MemoryStore, network: FakeNetwork, agent: Agent) -> None:
    report = HostReport("h", "1", "now", 1, True, endpoints_ready=0, endpoints_waiting=0, workload_mtu=1430)
    await store.txn([], [PutOp(report_path("h"), msgspec.json.encode(report))])
    await attach(REQUEST, store, network=network)
    assert (network.host.links()[1].mtu, network.namespaces["ns"].rtnetlink.links()[1].mtu) == (1430, 1430)
    await attach(msgspec.structs.replace(REQUEST, mtu=1400), store, network=network)
    assert (network.host.links()[1].mtu, network.namespaces["ns"].rtnetlink.links()[1].mtu) == (1400, 1400)
    await store.txn([], [PutOp(report_path("h"), b"{}")])  # of an agent of another version
    assert await reported_mtu(store, "h") == 0


async def test_repeating_changes_nothing(store: MemoryStore, network: FakeNetwork, agent: Agent) -> None:
    first = await attach(REQUEST, store, network=network)
    before = await everything(store)
    again = await attach(REQUEST, store, network=network)
    assert again == first
    # The handle is written anew, as it was: garbage collection sees in its revision that the addresses were asked for again.
    changed = {key for key, item in (await everything(store)).items() if item != before[key]}
    assert changed == {path_of(HandleKey(REQUEST.workload.handle))}
    assert {key: item.value for key, item in (await everything(store)).items()} == {key: item.value for key, item in before.items()}
    assert [type(operation) for operation in network.host.executed].count(AddVeth) == 1


async def test_repeating_repairs_the_inside(store: MemoryStore, network: FakeNetwork, agent: Agent) -> None:
    first = await attach(REQUEST, store, network=network)
    inside = network.namespaces["ns"].rtnetlink
    network.inside("ns", lambda rtnetlink, _: rtnetlink.execute([DeleteLink("eth0")]))
    again = await attach(REQUEST, store, network=network)
    assert again.addresses == first.addresses
    assert len(inside.routes()) == 3


async def test_a_namespace_that_was_made_anew_gets_the_same_addresses(store: MemoryStore, network: FakeNetwork, agent: Agent) -> None:
    first = await attach(REQUEST, store, network=network)
    network.create("other")
    again = await attach(msgspec.structs.replace(REQUEST, netns="other"), store, network=network)
    assert again.addresses == first.addresses
    assert network.pairs[NAME] == ("other", "eth0")
    assert [link.name for link in network.namespaces["ns"].rtnetlink.links()] == ["lo"]


async def test_detaching_leaves_nothing_and_may_be_repeated(store: MemoryStore, network: FakeNetwork, agent: Agent) -> None:
    await attach(REQUEST, store, network=network)
    assert len(await leftovers(store, network)) == 4
    await detach(WORKLOAD, store, network=network)
    assert await leftovers(store, network) == []
    assert [link.name for link in network.namespaces["ns"].rtnetlink.links()] == ["lo"]
    await detach(WORKLOAD, store, network=network)


async def test_detaching_after_the_namespace_vanished(store: MemoryStore, network: FakeNetwork, agent: Agent) -> None:
    await attach(REQUEST, store, network=network)
    network.remove("ns")
    await detach(WORKLOAD, store, network=network)
    assert await leftovers(store, network) == []


async def test_addresses_are_kept_while_the_interface_may_use_them(store: MemoryStore, network: FakeNetwork, agent: Agent) -> None:
    await attach(REQUEST, store, network=network)
    network.host.refuse(DeleteLink, errno.EBUSY)
    with pytest.raises(KernelError):
        await detach(WORKLOAD, store, network=network)
    assert [usage.assigned for usage in await IpamClient(store).usage()] == [1, 1]
    await detach(WORKLOAD, store, network=network)
    assert await leftovers(store, network) == []


async def test_without_waiting_nobody_is_asked(store: MemoryStore, network: FakeNetwork) -> None:
    result = await attach(REQUEST, store, network=network, wait=False)
    assert not result.ready


async def test_requested_addresses(store: MemoryStore, network: FakeNetwork, agent: Agent) -> None:
    four, six = parse_address("10.0.3.4"), parse_address("fd00::3:4")
    request = msgspec.structs.replace(REQUEST, addresses=(four, six), count4=2)
    result = await attach(request, store, network=network)
    assert {four, six} < set(result.addresses)
    assert [address.family for address in result.addresses] == [4, 4, 6]


async def test_an_address_in_use_is_refused_and_nothing_is_left(store: MemoryStore, network: FakeNetwork, agent: Agent) -> None:
    await attach(REQUEST, store, network=network)
    network.create("second")
    (four,) = (address for address in (await attach(REQUEST, store, network=network)).addresses if address.family == 4)
    other = Workload(node="h", workload="w-2")
    request = msgspec.structs.replace(REQUEST, workload=other, netns="second", addresses=(parse_address("10.0.3.4"), four))
    with pytest.raises(AddressError, match="in use"):
        await attach(request, store, network=network)
    await detach(WORKLOAD, store, network=network)
    assert await leftovers(store, network) == []


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"count4": 0, "count6": 0}, "addresses"),
        ({"addresses": (parse_prefix("10.0.0.0/24"),)}, "addresses[0]"),
        ({"interface": "a/b"}, "interface"),
        ({"interface": "lo"}, "interface"),
        ({"interface": "a-very-long-name"}, "interface"),
        ({"netns": ""}, "netns"),
        ({"interface_prefix": "toolong"}, "workload"),
        ({"workload": Workload(node="h", workload="-x")}, "workload"),
        ({"workload": Workload(node="h", workload="x", namespace="")}, "workload"),
    ],
)
async def test_requests_that_make_no_sense(store: MemoryStore, network: FakeNetwork, change: dict[str, object], path: str) -> None:
    before = store.revision
    with pytest.raises(InputError) as caught:
        await attach(msgspec.structs.replace(REQUEST, **change), store, network=network)
    assert [problem.path for problem in caught.value.problems] == [path]
    assert store.revision == before


async def test_a_namespace_that_does_not_exist(store: MemoryStore, network: FakeNetwork) -> None:
    with pytest.raises(AttachError, match="there is no network namespace nowhere"):
        await attach(msgspec.structs.replace(REQUEST, netns="nowhere"), store, network=network)
    assert await leftovers(store, network) == []


async def test_an_interface_in_the_way(store: MemoryStore, network: FakeNetwork) -> None:
    network.namespaces["ns"].rtnetlink.stranger(AddVeth(name="eth0", peer_name="eth1"))
    with pytest.raises(AttachError, match="has an interface eth0 that is not ours"):
        await attach(REQUEST, store, network=network)
    assert await leftovers(store, network) == []


async def test_what_the_kernel_refuses_inside_is_undone_outside(store: MemoryStore, network: FakeNetwork) -> None:
    network.namespaces["ns"].rtnetlink.refuse(ReplaceRoute, errno.EPERM)
    with pytest.raises(KernelError):
        await attach(REQUEST, store, network=network)
    assert await leftovers(store, network) == []


async def test_no_agent(store: MemoryStore, network: FakeNetwork) -> None:
    with pytest.raises(AttachError, match=r"not ready after 0\.05 s: no status has been reported .*; no agent is alive on h"):
        await attach(REQUEST, store, network=network, wait_s=0.05)
    assert await leftovers(store, network) == []


async def test_an_agent_that_says_why_not(store: MemoryStore, network: FakeNetwork, agent: Agent) -> None:
    agent.verdict = "policy not programmed"
    await store.txn([], [PutOp(status_path_of(HostStatusKey("h")), b'{"time":"2026-01-01T00:00:00Z"}')])
    with pytest.raises(AttachError, match="down: policy not programmed; an agent is alive on h, last heard of at 2026"):
        await attach(REQUEST, store, network=network, wait_s=0.05)
    assert await leftovers(store, network) == []


async def test_an_agent_that_is_behind(store: MemoryStore, network: FakeNetwork, agent: Agent) -> None:
    agent.lag = 1
    with pytest.raises(AttachError, match="the agent holds revision"):
        await attach(REQUEST, store, network=network, wait_s=0.05)


async def test_a_late_agent_is_waited_for_across_broken_watches_and_compaction(store: MemoryStore, network: FakeNetwork) -> None:
    task = asyncio.create_task(attach(REQUEST, store, network=network))
    async with asyncio.timeout(DONE_WITHIN_S):
        async with aclosing(store.watch(path_of(WORKLOAD.key), store.revision)) as changes:
            while not (events := (await anext(changes)).events):
                pass
        assert isinstance(events[0], PutEvent)
        item = events[0].item
        store.drop_watches()
        for number in range(3):
            await store.txn([], [PutOp("/other", str(number).encode())])
        await store.txn([], [PutOp(endpoint_status_path("h", WORKLOAD.key), render_endpoint_status(True, item.revision))])
        await store.txn([], [PutOp("/other", b"more")])
        await store.compact(store.revision)
        assert (await task).revision == item.revision


async def test_a_failed_repetition_spares_what_was_attached(store: MemoryStore, network: FakeNetwork, agent: Agent) -> None:
    first = await attach(REQUEST, store, network=network)
    document = await endpoint(store)
    agent.verdict = "broken"
    more = msgspec.structs.replace(REQUEST, count4=3, labels={"app": "db"})
    with pytest.raises(AttachError):
        await attach(more, store, network=network, wait_s=0.05)
    assert await endpoint(store) == document
    assert NAME in network.pairs
    assert (await IpamClient(store).release_handle(WORKLOAD.handle)) == first.addresses


@pytest.mark.parametrize("after", [False, True])
async def test_a_store_that_fails_at_any_call_leaves_nothing_behind(after: bool) -> None:
    fail_at = 0
    while True:
        fail_at += 1
        store, network = await new_store(), FakeNetwork()
        network.create("ns")
        failing = FailingStore(store, fail_at, after)
        try:
            await attach(REQUEST, failing, network=network, wait=False)
        except StoreUnavailable:
            assert await leftovers(store, network) == [], f"call {fail_at}"
        else:
            break
    assert fail_at > 5


async def test_a_cancellation_at_any_time_leaves_nothing_behind() -> None:
    finished = False
    turns = 0
    while not finished:
        turns += 1
        store, network = await new_store(), FakeNetwork()
        network.create("ns")
        agent = asyncio.create_task(Agent(store).run())
        task: asyncio.Task[Attachment] = asyncio.create_task(attach(REQUEST, FailingStore(store, -1, False), network=network))
        for _ in range(turns):
            await asyncio.sleep(0)
        finished = task.done()
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            assert await leftovers(store, network) == [], f"after {turns} turns"
        agent.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await agent
        turns += turns // 8
    assert turns > 10


async def test_what_cannot_be_undone_is_named(store: MemoryStore, network: FakeNetwork) -> None:
    network.host.refuse(DeleteLink, errno.EBUSY)
    with pytest.raises(AttachError) as caught:
        await attach(REQUEST, store, network=network, wait_s=0.02)
    assert caught.value.__notes__[0].startswith(f"left behind: interface {NAME} (delete interface")
    assert caught.value.__notes__[1] == f"left behind: addresses of {WORKLOAD.handle}"
    await detach(WORKLOAD, store, network=network)
    assert await leftovers(store, network) == []

"""Attaching real network namespaces to a host that is a network namespace too; a small task plays the agent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import msgspec
import pytest

from tabinet.attach.names import Workload, interface_name
from tabinet.attach.netns import AttachRequest, attach, detach
from tabinet.attach.network import LinuxNetwork
from tabinet.errors import AttachError
from tabinet.ipam.client import IpamClient
from tabinet.kernel import netns
from tabinet.kernel.rtnetlink import Neighbour, ReplaceRoute, Rtnetlink, SetNeighbour, device_route, execute_all
from tabinet.lib.ip import Prefix, parse_prefix
from tabinet.model.codec import decode_stored
from tabinet.model.keys import ResourceKey, kind_prefix, path_of
from tabinet.model.resources import WorkloadEndpoint
from tabinet.model.status import endpoint_status_path, render_endpoint_status
from tabinet.store.api import PutEvent, PutOp
from tabinet.store.memory import MemoryStore

pytestmark = pytest.mark.kernel

FORWARDING = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")


@dataclass(frozen=True, slots=True)
class Site:
    """A host and two workloads' namespaces."""

    host: str
    one: str
    two: str

    @property
    def network(self) -> LinuxNetwork:
        return LinuxNetwork(self.host)


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site(*(f"tabt-{os.getpid()}-{part}" for part in ("host", "one", "two")))
    names = (made.host, made.one, made.two)
    try:
        for name in names:
            netns.create(name)
        yield made
    finally:
        for name in names:
            if netns.exists(name):
                netns.delete(name)


@pytest.fixture
async def store() -> MemoryStore:
    made = MemoryStore()
    for name, cidr in (("four", "10.65.0.0/16"), ("six", "fd00:65::/64")):
        document = {"kind": "IPPool", "apiVersion": "projectcalico.org/v3", "metadata": {"name": name}, "spec": {"cidr": cidr}}
        await made.txn([], [PutOp(path_of(ResourceKey("IPPool", name)), msgspec.json.encode(document))])
    return made


@pytest.fixture
async def agent(store: MemoryStore, site: Site) -> AsyncIterator[None]:
    """Gives each endpoint neighbours and routes, then says that it is up."""

    def forward() -> None:
        for name in FORWARDING:
            with open(f"/proc/sys/{name}", "w") as parameter:
                parameter.write("1")

    def route(record: WorkloadEndpoint) -> None:
        def work(rtnetlink: Rtnetlink) -> None:
            index = next(link.index for link in rtnetlink.links() if link.name == record.spec.interface_name)
            addresses = [parse_prefix(text) for text in record.spec.ip_networks]
            execute_all(rtnetlink, [SetNeighbour(Neighbour(index, address, record.spec.mac)) for address in addresses])
            execute_all(rtnetlink, [ReplaceRoute(device_route(address, index)) for address in addresses])

        site.network.on_host(work)

    async def run() -> None:
        async for batch in store.watch(kind_prefix("WorkloadEndpoint"), store.revision):
            for event in batch.events:
                decoded = decode_stored(event.item.key, event.item.value) if isinstance(event, PutEvent) else None
                if decoded is not None and isinstance(event, PutEvent):
                    key, record = decoded
                    assert isinstance(record, WorkloadEndpoint)
                    assert isinstance(key, ResourceKey)
                    route(record)
                    status = render_endpoint_status(True, event.item.revision)
                    await store.txn([], [PutOp(endpoint_status_path(record.spec.node, key), status)])

    netns.run_in(site.host, forward)
    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def request(namespace: str, workload: str, **more: object) -> AttachRequest:
    return AttachRequest(workload=Workload(node="h", workload=workload), netns=namespace, count4=1, count6=1, **more)  # type: ignore[arg-type]


def ip(namespace: str, *arguments: str) -> str:
    return subprocess.run(["ip", "-n", namespace, *arguments], check=True, capture_output=True, text=True).stdout


def one_datagram_arrives(sender: str, receiver: str, address: Prefix) -> bool:
    """A single UDP datagram from one namespace reaches the address in the other: nothing may be lost for want of a neighbour."""
    family = socket.AF_INET if address.family == 4 else socket.AF_INET6

    def open_socket() -> socket.socket:
        return socket.socket(family, socket.SOCK_DGRAM)

    with netns.run_in(receiver, open_socket) as inbox, netns.run_in(sender, open_socket) as outbox:
        inbox.settimeout(2.0)
        inbox.bind((address.address, 0))
        outbox.sendto(b"once", (address.address, inbox.getsockname()[1]))
        with contextlib.suppress(TimeoutError):
            return inbox.recv(16) == b"once"
    return False


async def test_two_attached_namespaces_reach_each_other_at_the_first_packet(site: Site, store: MemoryStore, agent: None) -> None:
    client = IpamClient(store)
    await attach(request(site.one, "a"), store, network=site.network, ipam=client)
    two = await attach(request(site.two, "b"), store, network=site.network, ipam=client)
    for address in two.addresses:
        assert one_datagram_arrives(site.one, site.two, address)
    assert "PERMANENT" in ip(site.one, "neighbour")
    assert "INCOMPLETE" not in ip(site.one, "neighbour")


async def test_the_inside(site: Site, store: MemoryStore, agent: None) -> None:
    result = await attach(request(site.one, "a", mtu=1400), store, network=site.network)
    four, six = (address.address for address in result.addresses)
    assert f"inet {four}/32 scope global eth0" in ip(site.one, "-4", "address", "show", "dev", "eth0")
    assert f"inet6 {six}/128 scope global" in ip(site.one, "-6", "address", "show", "dev", "eth0")
    assert "tentative" not in ip(site.one, "-6", "address", "show", "dev", "eth0")
    assert "default via 169.254.1.1 dev eth0" in ip(site.one, "-4", "route")
    assert "169.254.1.1 dev eth0 proto 84 scope link" in ip(site.one, "-4", "route")
    assert "default via fe80::1 dev eth0" in ip(site.one, "-6", "route")
    assert ip(site.one, "neighbour").count("ee:ee:ee:ee:ee:ee PERMANENT") == 2
    assert "state UNKNOWN" in ip(site.one, "link", "show", "lo")
    for namespace, name in ((site.one, "eth0"), (site.host, result.host_interface)):
        assert "mtu 1400" in ip(namespace, "link", "show", "dev", name)
    assert "link/ether ee:ee:ee:ee:ee:ee" in ip(site.host, "link", "show", "dev", result.host_interface)
    assert f"link/ether {result.mac}" in ip(site.one, "link", "show", "dev", "eth0")


async def test_ipv6_is_switched_on_where_the_runtime_had_switched_it_off(site: Site, store: MemoryStore, agent: None) -> None:
    def switch_off() -> None:
        for scope in ("all", "default"):
            with open(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6", "w") as parameter:
                parameter.write("1")

    netns.run_in(site.one, switch_off)
    result = await attach(request(site.one, "a"), store, network=site.network)
    assert result.addresses[1].address in ip(site.one, "-6", "address", "show", "dev", "eth0")


async def test_attach_may_be_repeated_and_repairs(site: Site, store: MemoryStore, agent: None) -> None:
    first = await attach(request(site.one, "a"), store, network=site.network)
    assert await attach(request(site.one, "a"), store, network=site.network) == first
    ip(site.one, "route", "del", "default")
    ip(site.one, "address", "add", "192.0.2.9/32", "dev", "eth0")
    assert await attach(request(site.one, "a"), store, network=site.network) == first
    assert "default via 169.254.1.1" in ip(site.one, "-4", "route")
    assert "192.0.2.9" not in ip(site.one, "-4", "address")


async def test_a_namespace_made_anew_under_the_same_name(site: Site, store: MemoryStore, agent: None) -> None:
    first = await attach(request(site.one, "a"), store, network=site.network)
    netns.delete(site.one)
    netns.create(site.one)
    again = await attach(request(site.one, "a"), store, network=site.network)
    assert again.addresses == first.addresses
    assert first.addresses[0].address in ip(site.one, "-4", "address")


async def test_a_path_serves_as_well_as_a_name(site: Site, store: MemoryStore, agent: None) -> None:
    result = await attach(request(f"/run/netns/{site.one}", "a"), store, network=site.network)
    assert result.addresses[0].address in ip(site.one, "-4", "address")


async def test_detach_removes_everything_also_when_the_namespace_is_gone(site: Site, store: MemoryStore, agent: None) -> None:
    for vanish in (False, True):
        await attach(request(site.one, "a"), store, network=site.network)
        if vanish:
            netns.delete(site.one)
        workload = Workload(node="h", workload="a")
        for _ in range(2):
            await detach(workload, store, network=site.network)
        assert interface_name(workload) not in ip(site.host, "link")
        assert [usage.assigned for usage in await IpamClient(store).usage()] == [0, 0]
        assert await store.get(path_of(workload.key)) is None


async def test_an_interface_that_is_not_ours_is_left_alone(site: Site, store: MemoryStore, agent: None) -> None:
    ip(site.one, "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
    with pytest.raises(AttachError, match="not ours"):
        await attach(request(site.one, "a"), store, network=site.network)
    assert "eth0@eth1" in ip(site.one, "link")
    assert "cali" not in ip(site.host, "link")
    assert [usage.assigned for usage in await IpamClient(store).usage()] == [0, 0]


async def test_nothing_is_left_when_nobody_programs_it(site: Site, store: MemoryStore) -> None:
    with pytest.raises(AttachError, match="no agent is alive on h"):
        await attach(request(site.one, "a"), store, network=site.network, wait_s=0.1)
    assert "cali" not in ip(site.host, "link")
    assert "eth0" not in ip(site.one, "link")
    assert [usage.assigned for usage in await IpamClient(store).usage()] == [0, 0]


async def test_a_namespace_that_is_missing(site: Site, store: MemoryStore) -> None:
    with pytest.raises(AttachError, match="there is no network namespace"):
        await attach(request("tabt-missing", "a"), store, network=site.network)

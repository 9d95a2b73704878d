"""Calls of libvirt's hook against a store in memory, a fake kernel, a fake libvirt, and a task that plays the agents of two hosts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field

import msgspec
import pytest
from test_libvirt_domain import UUID, domain, interface

from tabinet.attach.fakenetwork import FakeNetwork
from tabinet.attach.inside import HOST_MAC
from tabinet.attach.libvirt.events import Following
from tabinet.attach.libvirt.hook import NoAgentError, ask, ask_patiently, render_request
from tabinet.attach.libvirt.protocol import HookCall
from tabinet.attach.libvirt.server import serve_libvirt
from tabinet.attach.libvirt.service import LibvirtService
from tabinet.attach.libvirt.taps import Taps
from tabinet.attach.libvirt.virsh import Lifecycle, parse_event
from tabinet.errors import SetupError
from tabinet.ipam.client import IpamClient
from tabinet.kernel.rtnetlink import AddVeth, DeleteLink
from tabinet.model.keys import ResourceKey, kind_prefix, parse_path, path_of
from tabinet.model.resources import LiveMigration
from tabinet.model.status import endpoint_status_path, render_endpoint_status
from tabinet.store.api import PutEvent, PutOp
from tabinet.store.memory import MemoryStore

DONE_WITHIN_S = 10.0


@dataclass(slots=True)
class FakeLibvirt:
    """Implements ``Hypervisor``."""

    running: set[str] = field(default_factory=set)
    asked: int = 0
    away: bool = False
    queue: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    async def active(self) -> frozenset[str]:
        self.asked += 1
        if self.away:
            raise SetupError("libvirt does not answer")
        return frozenset(self.running)

    async def lines(self) -> AsyncGenerator[str, None]:
        while line := await self.queue.get():
            yield line


@dataclass(slots=True)
class Site:
    """A host with a libvirt."""

    name: str
    store: MemoryStore
    libvirt: FakeLibvirt = field(default_factory=FakeLibvirt)
    network: FakeNetwork = field(default_factory=FakeNetwork)
    told: list[tuple[str, bool]] = field(default_factory=list)
    has_told: asyncio.Event = field(default_factory=asyncio.Event)
    service: LibvirtService = field(init=False)

    def __post_init__(self) -> None:
        self.service = LibvirtService(
            host=self.name,
            store=self.store,
            network=self.network,
            ipam=IpamClient(self.store),
            taps=Taps(self.network, self.create),
            hypervisor=self.libvirt,
            interface_prefixes=("cali", "tap"),
            note_machine=self.tell,
            wait_s=DONE_WITHIN_S,
        )

    def create(self, name: str, multi_queue: bool) -> None:
        self.network.host.stranger(AddVeth(name=name, peer_name=f"{name}~"))

    def tell(self, device: str, running: bool) -> bool:
        self.told.append((device, running))
        self.has_told.set()
        return True

    async def call(self, operation: str, xml: bytes) -> str:
        code, message = await self.service.answer(HookCall("web", operation, "begin", "-", xml))
        return message if code else ""

    def taps(self) -> dict[str, str]:
        return {link.name: link.mac for link in self.network.host.links() if not link.name.endswith("~") and link.name != "lo"}


@pytest.fixture
async def sites() -> AsyncIterator[tuple[Site, Site]]:
    store = MemoryStore()
    for kind, name, spec in (("IPPool", "four", {"cidr": "10.66.0.0/16"}), ("Node", "a", {}), ("Node", "b", {})):
        document = {"kind": kind, "apiVersion": "projectcalico.org/v3", "metadata": {"name": name}, "spec": spec}
        await store.txn([], [PutOp(path_of(ResourceKey(kind, name)), msgspec.json.encode(document))])
    agents = asyncio.create_task(play_agents(store))
    await asyncio.sleep(0)
    yield Site("a", store), Site("b", store)
    agents.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await agents


async def play_agents(store: MemoryStore) -> None:
    """Every endpoint is in its host's kernel at once."""
    async for batch in store.watch(kind_prefix("WorkloadEndpoint"), store.revision):
        for event in batch.events:
            if isinstance(event, PutEvent):
                key = parse_path(event.item.key)
                assert isinstance(key, ResourceKey)
                value = render_endpoint_status(True, event.item.revision, "")
                await store.txn([], [PutOp(endpoint_status_path(key.name[0], key), value)])


async def stored(store: MemoryStore, kind: str) -> list[str]:
    return [item.key.rpartition("/")[2] async for page in store.list(kind_prefix(kind)) for item in page.items]


async def addresses(store: MemoryStore) -> list[str]:
    found = []
    async for page in store.list(kind_prefix("WorkloadEndpoint")):
        for item in page.items:
            found += msgspec.json.decode(item.value)["spec"]["ipNetworks"]
    return found


async def assigned(store: MemoryStore) -> int:
    return sum(pool.assigned for pool in await IpamClient(store).usage())


def endpoint(host: str, device: str = "tapweb") -> str:
    return f"{host}-libvirt-{UUID.replace('-', '--')}-{device}"


async def test_a_domain_comes_and_goes(sites: tuple[Site, Site]) -> None:
    here, _ = sites
    two = domain("<t:label name='app' value='web'/>", devices=interface("tapa") + interface("tapb"))
    assert await here.call("prepare", two) == ""
    assert here.taps() == {"tapa": HOST_MAC, "tapb": HOST_MAC}
    assert await stored(here.store, "WorkloadEndpoint") == [endpoint("a", "tapa"), endpoint("a", "tapb")]
    before = await addresses(here.store)
    for operation in ("reconnect", "prepare"):
        assert await here.call(operation, two) == ""
    assert await addresses(here.store) == before, "repeated"
    for _ in range(2):
        assert await here.call("release", two) == ""
    assert (here.taps(), await stored(here.store, "WorkloadEndpoint"), await assigned(here.store)) == ({}, [], 0)


async def test_a_domain_that_cannot_be_prepared_leaves_nothing(sites: tuple[Site, Site]) -> None:
    here, _ = sites
    first = "<t:interface dev='tapb'><t:address>192.0.2.1</t:address></t:interface>"
    said = await here.call("prepare", domain(first, devices=interface("tapa") + interface("tapb")))
    assert "192.0.2.1" in said
    assert (here.taps(), await stored(here.store, "WorkloadEndpoint"), await assigned(here.store)) == ({}, [], 0)


async def test_a_tap_of_somebody_else_is_used_and_left(sites: tuple[Site, Site]) -> None:
    here, _ = sites
    here.create("tapweb", False)
    mac = here.taps()["tapweb"]
    assert await here.call("prepare", domain("")) == ""
    assert await here.call("release", domain("")) == ""
    assert here.taps() == {"tapweb": mac}


async def test_a_domain_moves_with_its_address(sites: tuple[Site, Site]) -> None:
    source, target = sites
    assert await source.call("prepare", domain("")) == ""
    (address,) = await addresses(source.store)
    assert await target.call("migrate", domain("")) == ""
    (migration,) = await stored(source.store, "LiveMigration")
    assert migration == endpoint("b")
    item = await source.store.get(path_of(ResourceKey("LiveMigration", migration, "default")))
    assert item is not None
    ends = msgspec.json.decode(item.value, type=LiveMigration).spec
    assert ends.source is not None
    assert ends.source.workload_endpoint is not None
    assert ends.source.workload_endpoint.hostname == "a"
    assert await target.call("prepare", domain("")) == ""
    assert await addresses(source.store) == [address, address]
    source.service.on_event(_event("Suspended Migrated"))
    target.service.on_event(_event("Resumed Migrated"))
    assert (source.told, target.told) == ([("tapweb", False)], [("tapweb", True)])
    assert await source.call("release", domain("")) == ""
    assert await stored(source.store, "LiveMigration") == []
    assert (source.taps(), await stored(source.store, "WorkloadEndpoint")) == ({}, [endpoint("b")])
    assert (await addresses(source.store), await assigned(source.store)) == ([address], 1), "it took the address along"
    assert await target.call("release", domain("")) == ""
    assert await assigned(source.store) == 0


async def test_a_move_that_fails_changes_nothing(sites: tuple[Site, Site]) -> None:
    source, target = sites
    assert await source.call("prepare", domain("")) == ""
    for operation in ("migrate", "prepare", "stopped", "release"):
        assert await target.call(operation, domain("")) == ""
    assert await stored(source.store, "WorkloadEndpoint") == [endpoint("a")]
    assert (await stored(source.store, "LiveMigration"), target.taps(), await assigned(source.store)) == ([], {}, 1)


async def test_what_libvirt_does_not_know_is_removed(sites: tuple[Site, Site]) -> None:
    here, there = sites
    assert await here.call("prepare", domain("")) == ""
    assert await there.call("migrate", domain("")) == ""
    again = Site("a", here.store, network=here.network)
    again.libvirt.running = {UUID}
    assert await again.service.sync() == []
    again.service.on_event(_event("Suspended Migrated"))
    assert again.told == [("tapweb", False)], "an agent that has just started knows whose interface it is"
    again.libvirt.away = True
    assert "does not answer" in await again.call("sync", b"")
    again.libvirt.away, again.libvirt.running = False, set()
    here.network.host.stranger(DeleteLink("tapweb"))  # as after a reboot
    assert await again.service.sync() == [f"WorkloadEndpoint/default/{endpoint('a')} removed"]
    assert (await stored(here.store, "WorkloadEndpoint"), await assigned(here.store)) == ([], 0)
    assert len(await there.service.sync()) == 0, "the migration went with its source"


async def test_a_tap_without_an_endpoint_is_removed(sites: tuple[Site, Site]) -> None:
    here, _ = sites
    here.service.taps.make("tapold", UUID)
    assert await here.service.sync() == ["interface tapold removed"]
    assert here.taps() == {}


async def test_libvirt_is_followed_once_there_is_a_domain(sites: tuple[Site, Site]) -> None:
    here, _ = sites
    following = asyncio.create_task(Following(here.service).run())
    assert await here.call("prepare", domain("")) == ""
    here.libvirt.running = {UUID}
    await here.libvirt.queue.put("event 'lifecycle' for domain 'web': Suspended Migrated\n")
    async with asyncio.timeout(DONE_WITHIN_S):
        await here.has_told.wait()
    assert here.told == [("tapweb", False)]
    here.has_told.clear()
    await here.libvirt.queue.put("")  # libvirt goes away
    await here.libvirt.queue.put("event 'lifecycle' for domain 'web': Resumed Unpaused\n")
    async with asyncio.timeout(DONE_WITHIN_S):
        await here.has_told.wait()
    assert here.told[1:] == [("tapweb", True)]
    following.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await following


async def test_an_agent_that_is_being_started_is_waited_for(sites: tuple[Site, Site]) -> None:
    here, _ = sites
    address = "\0tabinet-libvirt-late"
    call = asyncio.create_task(asyncio.to_thread(ask_patiently, render_request([b"web", b"prepare"], domain("")), address, DONE_WITHIN_S))
    await asyncio.sleep(0.05)
    async with serve_libvirt(here.service, follow=False, address=address):
        assert await call == (0, b"")


async def test_the_socket(sites: tuple[Site, Site]) -> None:
    here, _ = sites
    address = "\0tabinet-libvirt-test"
    async with serve_libvirt(here.service, follow=False, address=address):
        wrong = render_request([b"web", b"prepare", b"begin", b"-"], domain("<t:label/>"))
        code, message = await asyncio.to_thread(ask, wrong, address)
        assert (code, message.split(b":")[0]) == (1, b"workload/label")
        right = render_request([b"web", b"prepare", b"begin", b"-"], domain(""))
        assert await asyncio.to_thread(ask, right, address) == (0, b"")
        assert (await asyncio.to_thread(ask, b"nonsense" * 10, address))[0] == 1
    with pytest.raises(NoAgentError):
        await asyncio.to_thread(ask, right, address)


def _event(text: str) -> Lifecycle:
    event = parse_event(f"event 'lifecycle' for domain 'web': {text}")
    assert event is not None
    return event

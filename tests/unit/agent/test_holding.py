"""An address that several ports may have, as the agent of one host sees it: who was heard to take it has it."""

from __future__ import annotations

import asyncio
import contextlib
import time

import msgspec
import pytest
from agent_world import World, endpoint, endpoint_key, until

from tabinet.agent import holding
from tabinet.agent.holding import Holding
from tabinet.agent.log import open_log
from tabinet.calc.messages import Endpoint, EndpointRemove, EndpointUpdate
from tabinet.dataplane.moves import ARRIVALS_TABLE
from tabinet.guest.announcements import Announcement
from tabinet.guest.listener import FakeListener
from tabinet.kernel.rtnetlink import AddAddress, AddVeth, InterfaceAddress, SetLink
from tabinet.lib.ip import parse_address
from tabinet.model.holders import Holder
from tabinet.model.keys import HolderKey, ResourceKey, path_of
from tabinet.model.openstack import PORT_ANNOTATION, AddressPair, PortFacts, render_port_facts
from tabinet.store.memory import MemoryStore

SHARED = "10.0.0.9"
ADDRESS = parse_address(SHARED)
RECORD = path_of(HolderKey(ADDRESS))
MACS = {"one": "02:00:00:00:00:01", "two": "02:00:00:00:00:02", "there": "02:00:00:00:00:03"}
THERE = ResourceKey("WorkloadEndpoint", "h2-lab-there-eth0", "default")


def port(name: str, address: str, mac: str = "") -> tuple[ResourceKey, dict[str, object]]:
    """A port of the host with the shared address as a pair; ``mac``: of the pair."""
    pairs = PortFacts(pairs=(AddressPair(net=SHARED, mac=mac),))
    key, document = endpoint(name, f"{address}/32", f"{SHARED}/32", mac=MACS[name], allowedIps=[f"{SHARED}/32"])
    document["metadata"]["annotations"] = {PORT_ANNOTATION: render_port_facts(pairs)}
    return key, document


async def fill(world: World, *here: str, mac: str = "") -> dict[str, int]:
    """Ports here and one on another host; gives the interfaces here."""
    for number, name in enumerate(here, 1):
        await world.put(*port(name, f"10.0.0.{number}", mac))
    document = port("there", "10.0.0.3")[1]
    spec = document["spec"]
    assert isinstance(spec, dict)
    await world.put(THERE, document | {"spec": spec | {"node": "h2"}})
    return {name: world.add_interface(name) for name in here}


def way(world: World) -> int | None:
    """The interface that the address is routed to."""
    return next((route.hops[0].index for route in world.routes if route.destination == ADDRESS), None)


def said(name: str, *, asked: bool = False, mac: str = "", address: str = SHARED) -> tuple[str, Announcement]:
    return f"cali{name}", Announcement(mac or MACS[name], parse_address(address), asked)


def named(world: World) -> str:
    """The endpoint that the record names."""
    item = world.store._items.get(RECORD)  # the store's own coroutines would need a turn of the loop
    return msgspec.json.decode(item.value, type=Holder).name if item is not None else ""


def record(key: ResourceKey) -> bytes:
    return msgspec.json.encode(Holder(namespace=key.namespace, name=key.name))


async def test_of_two_on_one_host_the_one_that_was_heard_last_has_it() -> None:
    world = World()
    async with world.agent():
        taps = await fill(world, "one", "two")
        await until(lambda: way(world) == taps["one"])  # nobody was heard: the smallest name here
        for name in ("two", "one", "two"):
            world.listener.say(*said(name))
            await until(lambda name=name: named(world) == endpoint_key(name).name and way(world) == taps[name])
            assert {str(each.address) for each in world.rtnetlink.neighbours() if each.index == taps[name]} >= {f"{SHARED}/32"}
        await until(lambda: world.is_up(endpoint_key("one")) and world.is_up(endpoint_key("two")))
        await world.delete(endpoint_key("two"))
        await until(lambda: named(world) == "" and way(world) == taps["one"])


async def test_an_address_that_another_host_holds_is_not_routed_here_until_it_is_heard_here() -> None:
    world = World()
    async with world.agent():
        taps = await fill(world, "one")
        await until(lambda: way(world) == taps["one"])
        await world.put_raw(RECORD, record(THERE))
        await until(lambda: way(world) is None and world.is_up(endpoint_key("one")))
        world.listener.say(*said("one"))
        await until(lambda: way(world) == taps["one"] and named(world) == endpoint_key("one").name)
        await world.put_raw(RECORD, record(THERE))
        await until(lambda: way(world) is None)
        await world.delete(THERE)
        await until(lambda: way(world) == taps["one"])  # nobody is left who could hold it


async def test_only_who_may_have_the_address_is_believed() -> None:
    world = World()
    async with world.agent():
        taps = await fill(world, "one", mac="00:00:5e:00:01:07")
        await world.put_raw(RECORD, record(THERE))
        await until(lambda: world.listener.listens and way(world) is None and world.is_up(endpoint_key("one")))
        for false in (said("one"), said("one", mac="00:00:5e:00:01:07", asked=True), said("one", address="10.0.0.3"), said("two")):
            world.listener.say(*false)
        world.listener.say(*said("one", mac="00:00:5e:00:01:07"))
        await until(lambda: way(world) == taps["one"])
        assert await revisions(world) == 2, "nothing else was written"


async def revisions(world: World) -> int:
    """How often the record was written."""
    found = 0
    async with contextlib.aclosing(world.store.watch(RECORD, 1)) as changes:
        async for batch in changes:
            found += len(batch.events)
            if batch.revision >= world.store.revision:
                break
    return found


async def test_an_agent_that_starts_asks_about_what_others_hold() -> None:
    world = World()
    taps = await fill(world, "one")
    await world.put_raw(RECORD, record(THERE))
    async with world.agent():
        await until(lambda: world.listener.asked == [("calione", ADDRESS)])
        assert way(world) is None
        world.listener.say(*said("one", asked=True))
        await until(lambda: way(world) == taps["one"] and named(world) == endpoint_key("one").name)


async def test_a_store_that_is_away_keeps_nobody_from_its_address_and_late_claims_are_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "FRESH_S", 0.0)
    monkeypatch.setattr(holding, "RETRY_S", 0.01)
    world = World()
    async with world.agent():
        taps = await fill(world, "one", "two")
        await world.put_raw(RECORD, record(THERE))
        await until(lambda: way(world) is None and world.is_up(endpoint_key("one")) and world.is_up(endpoint_key("two")))
        world.listener.asked.clear()  # what it asked when it started
        world.store.set_available(False)
        for name in ("two", "one", "two"):
            world.listener.say(*said(name))
            await until(lambda name=name: way(world) == taps[name])
        world.store.set_available(True)
        await until(lambda: world.listener.asked == [("calitwo", ADDRESS)])
        await until(lambda: way(world) is None)  # it is the store's word again, until the machine answers
        monkeypatch.setattr(holding, "FRESH_S", 60.0)
        world.listener.say(*said("two", asked=True))
        await until(lambda: way(world) == taps["two"] and named(world) == endpoint_key("two").name)


async def test_what_was_heard_of_an_endpoint_ends_with_it() -> None:
    store, listener = MemoryStore(), FakeListener()
    store.set_available(False)
    made = Holding(store, listener, open_log("error", "text", "h1"), time.monotonic)
    one = Endpoint("h1", "calione", MACS["one"], (ADDRESS,), (), (), (), (), shared=(ADDRESS,), yields=(ADDRESS,))
    two = msgspec.structs.replace(one, interface="calitwo", mac=MACS["two"])
    made.on_updates([EndpointUpdate(endpoint_key("one"), 1, one), EndpointUpdate(endpoint_key("two"), 1, two)])
    task = asyncio.create_task(made.run())
    try:
        listener.say(*said("one"))
        heard: list[object] = []
        await until(lambda: heard.extend(made.take_heard()) or heard)
        assert heard[0] == (ADDRESS, endpoint_key("one"))
        made.on_updates([EndpointRemove(endpoint_key("one"))])
        assert made.take_heard()[-1] == (ADDRESS, None), "else the other one would yield to nobody"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def move(world: World, source: str, target: str) -> None:
    """The machine of port "one" is about to move between these hosts, of which one is this host."""
    document = port("one", "10.0.0.1")[1]
    spec = document["spec"]
    assert isinstance(spec, dict)
    for host, number in (("h1", 1), ("h3", 3)):
        await world.put(ResourceKey("Node", host), {"spec": {"bgp": {"ipv4Address": f"172.20.0.{number}/24"}}})
    await world.put(end("h3"), document | {"spec": spec | {"node": "h3"}})
    ends = {
        place: {"workloadEndpoint": {"hostname": host, "orchestratorID": "lab", "workloadID": "default/one", "endpointID": "eth0"}}
        for place, host in (("source", source), ("target", target))
    }
    await world.put(ResourceKey("LiveMigration", end(target).name, "default"), {"metadata": {"uid": "u"}, "spec": ends})


def end(host: str) -> ResourceKey:
    return ResourceKey("WorkloadEndpoint", f"{host}-lab-one-eth0", "default")


def inwards(world: World) -> set[str]:
    """What is sent to a machine that is expected."""
    return {str(route.destination.address) for route in world.rtnetlink.routes(table=ARRIVALS_TABLE)}


def onwards(world: World) -> set[str]:
    """What is passed on to the other host."""
    return {str(route.destination.address) for route in world.routes if route.hops[0].gateway is not None}


async def test_a_machine_that_comes_takes_along_what_it_held() -> None:
    world = World()
    async with world.agent():
        taps = await fill(world, "one")
        await move(world, "h3", "h1")
        await world.put_raw(RECORD, record(end("h3")))
        await until(lambda: world.sightings.watched == {taps["one"]} and way(world) is None and inwards(world) == {"10.0.0.1", SHARED})
        world.sightings.see(taps["one"], MACS["one"])
        await until(lambda: way(world) == taps["one"] and named(world) == endpoint_key("one").name)


async def test_nothing_goes_along_with_a_machine_that_another_one_holds() -> None:
    world = World()
    async with world.agent():
        taps = await fill(world, "one")
        await move(world, "h3", "h1")
        await world.put_raw(RECORD, record(THERE))
        await until(lambda: world.sightings.watched == {taps["one"]} and inwards(world) == {"10.0.0.1"})
        world.sightings.see(taps["one"], MACS["one"])
        await until(lambda: inwards(world) == set() and world.routes)
        assert way(world) is None and named(world) == THERE.name


async def test_what_another_one_holds_is_not_passed_on_to_where_a_machine_went() -> None:
    world = World()
    world.rtnetlink.stranger(AddVeth("eth0", "cable"))
    for name in ("eth0", "cable"):
        world.rtnetlink.stranger(SetLink(world.rtnetlink.index_of(name), up=True))
    world.rtnetlink.stranger(AddAddress(InterfaceAddress(world.rtnetlink.index_of("eth0"), parse_address("172.20.0.1"), 24)))
    async with world.agent() as agent:
        await fill(world, "one")
        await world.put_raw(RECORD, record(THERE))
        await move(world, "h1", "h3")
        assert agent.moving is not None
        await until(lambda: agent.moving is not None and agent.moving.stopped("calione"))
        await until(lambda: onwards(world) == {"10.0.0.1"})
        await world.delete(THERE)
        await until(lambda: onwards(world) == {"10.0.0.1", SHARED})

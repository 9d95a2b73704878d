"""A machine that moves, as the agents of its two hosts see it; here h1 is one of them, h2 the other."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from agent_world import World, endpoint, endpoint_key, until

from tabinet.agent import agent as agent_module
from tabinet.agent import verification
from tabinet.agent.agent import Agent
from tabinet.calc.messages import Place
from tabinet.dataplane.links.items import GATEWAY_IPV4, GATEWAY_IPV6
from tabinet.dataplane.moves import ARRIVALS_TABLE
from tabinet.guest.announcements import render_announcements
from tabinet.kernel.flowcodec import Flow, parse_part, render_parts
from tabinet.kernel.netlink import attribute, nested
from tabinet.kernel.rtnetlink import AddAddress, AddVeth, InterfaceAddress, Route, SetLink
from tabinet.lib.ip import Prefix, parse_address
from tabinet.model.arrivals import flows_path
from tabinet.model.keys import ArrivalKey, ResourceKey, path_of
from tabinet.rules import layout
from tabinet.store.api import DeleteOp

MAC = "02:00:00:00:00:01"
NETS = ("10.0.0.1/32", "fd00::1/128")
HERE, THERE = endpoint_key("vm"), ResourceKey("WorkloadEndpoint", "h2-lab-vm-eth0", "default")
NODES = {"h1": ("172.20.0.1/24", "fd20::1/64"), "h2": ("172.20.0.2/24", "fd20::2/64")}
FLOWS = flows_path("h2", "default", THERE.name), flows_path("h1", "default", HERE.name)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(agent_module, "VERIFY_FIRST_S", 0.05)
    monkeypatch.setattr(verification, "QUIET_WAIT_S", 0.05)
    made = World()
    made.rtnetlink.stranger(AddVeth("eth0", "cable"))
    for name in ("eth0", "cable"):
        made.rtnetlink.stranger(SetLink(made.rtnetlink.index_of(name), up=True))
    for text, length in (("172.20.0.1", 24), ("fd20::1", 64)):
        made.rtnetlink.stranger(AddAddress(InterfaceAddress(made.rtnetlink.index_of("eth0"), parse_address(text), length)))
    return made


async def prepare(world: World, *, target: ResourceKey, uid: str = "u1") -> None:
    """Both endpoints and the migration from one to the other are in the store."""
    for name, (v4, v6) in NODES.items():
        await world.put(ResourceKey("Node", name), {"spec": {"bgp": {"ipv4Address": v4, "ipv6Address": v6}}})
    key, document = endpoint("vm", *NETS, mac=MAC)
    await world.put(key, document)
    await world.put(THERE, document | {"spec": document["spec"] | {"node": "h2"}})
    await world.put(ResourceKey("LiveMigration", target.name, "default"), migration(HERE if target is THERE else THERE, target, uid))


def migration(source: ResourceKey, target: ResourceKey, uid: str) -> dict[str, Any]:
    def end(key: ResourceKey) -> dict[str, Any]:
        host = key.name.partition("-")[0]
        return {"workloadEndpoint": {"hostname": host, "orchestratorID": "lab", "workloadID": "default/vm", "endpointID": "eth0"}}

    return {"metadata": {"uid": uid}, "spec": {"source": end(source), "target": end(target)}}


def ways(routes: list[Route] | set[Route]) -> dict[str, str]:
    """Gateway, or interface index, by destination."""
    found = {}
    for route in routes:
        [hop] = route.hops
        found[str(route.destination)] = str(hop.gateway.address if hop.gateway is not None else hop.index)
    return found


def flow(source: str = "10.9.9.9", target: str = "10.0.0.1") -> Flow:
    def tuple_(one: str, other: str, ports: tuple[int, int]) -> bytes:
        addresses = nested(1, *(attribute(at, parse_address(text).packed) for at, text in enumerate((one, other), 1)))
        return addresses + nested(2, attribute(1, b"\x06"), *(attribute(at, port.to_bytes(2, "big")) for at, port in enumerate(ports, 2)))

    return Flow(tuple_(source, target, (4000, 80)), tuple_(target, source, (80, 4000)), 0xE, 60, mark=0x00000101)


def hardware_of(world: World, index: int) -> bytes:
    return next(bytes.fromhex(link.mac.replace(":", "")) for link in world.rtnetlink.links() if link.index == index)


def local_addresses(agent: Agent) -> set[Prefix]:
    elements = agent.dataplane.builder.table.elements
    return {element for name in layout.LOCAL.values() for element in elements[name]}  # type: ignore[misc]  # addresses


ONWARDS = {"10.0.0.1/32": "172.20.0.2", "fd00::1/128": "fd20::2"}


async def test_on_the_target_everything_is_ready_and_nobody_is_told_until_the_machine_is_seen(world: World) -> None:
    async with world.agent() as agent:
        await prepare(world, target=HERE)
        tap = world.add_interface("vm")
        await until(lambda: world.is_up(HERE))
        inside = {net: str(tap) for net in NETS}
        await until(lambda: ways(world.rtnetlink.routes(table=ARRIVALS_TABLE)) == inside)
        assert world.routes == set()
        await until(lambda: {rule.interface for rule in world.rtnetlink.interface_rules(ARRIVALS_TABLE)} >= {"eth0", "cable"})
        assert not any(rule.interface in ("lo", "calivm") for rule in world.rtnetlink.interface_rules(ARRIVALS_TABLE))
        assert local_addresses(agent) == set()
        assert {str(each.address) for each in world.rtnetlink.neighbours()} == set(NETS)
        assert world.sysctl.read("net/ipv4/conf/calivm/proxy_arp") == "0"
        await until(lambda: world.sightings.watched == {tap})

        world.sightings.see(tap, "02:00:00:00:00:99")
        await world.put_raw(f"{FLOWS[1]}/0", next(render_parts([flow(), flow(target="10.0.0.2")])))
        await until(lambda: world.conntrack.flows)
        assert [each.mark for each in world.conntrack.flows.values()] == [0x1], "of this machine only, and judged anew"
        assert world.routes == set(), "somebody else's frame says nothing"
        world.sightings.see(tap, MAC)
        await until(lambda: ways(world.routes) == inside)
        await until(lambda: world.rtnetlink.routes(table=ARRIVALS_TABLE) == [])
        await until(lambda: world.rtnetlink.interface_rules(ARRIVALS_TABLE) == [])
        await until(lambda: {str(address) for address in local_addresses(agent)} == set(NETS))
        await until(lambda: world.sysctl.read("net/ipv4/conf/calivm/proxy_arp") == "1")
        arrival = path_of(ArrivalKey("default", HERE.name))
        await until(lambda: arrival in world.store._items)
        assert b'"u1"' in world.store._items[arrival].value
        await until(lambda: f"{FLOWS[1]}/0" not in world.store._items)
        await until(lambda: not world.sightings.watched)

        said = [frame for index, frame in world.sightings.said if index == tap]
        announced = list(render_announcements((GATEWAY_IPV4, GATEWAY_IPV6), bytes.fromhex("020000000001"), hardware_of(world, tap)))
        assert said == announced * 2, "its gateways are here: at once, and when it is answered"

        await world.delete(THERE)
        await world.delete(ResourceKey("LiveMigration", HERE.name, "default"))
        await until(lambda: arrival not in world.store._items)
        assert ways(world.routes) == inside


async def test_a_machine_that_has_stopped_at_the_source_is_the_targets_before_it_is_seen_there(world: World) -> None:
    arrival = path_of(ArrivalKey("default", HERE.name))
    async with world.agent() as agent:
        await prepare(world, target=HERE)
        tap = world.add_interface("vm")
        await until(lambda: world.sightings.watched == {tap})
        await world.put_raw(arrival, b'{"migration":"u1","host":"h1","running":false}')
        await until(lambda: ways(world.routes) == {net: str(tap) for net in NETS})
        await until(lambda: {str(address) for address in local_addresses(agent)} == set(NETS))
        assert world.sightings.watched == {tap}, "it has yet to say something"
        assert b"false" in world.store._items[arrival].value

        await world.store.txn((), (DeleteOp(arrival),))  # it goes on at the source after all
        await until(lambda: world.routes == set())
        await until(lambda: set(ways(world.rtnetlink.routes(table=ARRIVALS_TABLE))) == set(NETS))
        await world.put_raw(arrival, b'{"migration":"u1","host":"h1","running":false}')
        await until(lambda: world.routes)
        world.sightings.see(tap, MAC)
        await until(lambda: b"true" in world.store._items[arrival].value)
        await until(lambda: not world.sightings.watched)
        said = [frame for index, frame in world.sightings.said if index == tap]
        announced = list(render_announcements((GATEWAY_IPV4, GATEWAY_IPV6), bytes.fromhex("020000000001"), hardware_of(world, tap)))
        assert said[-len(announced) :] == announced
        assert ways(world.routes) == {net: str(tap) for net in NETS}


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "once the store has it"])
async def test_the_source_says_in_the_store_that_the_machine_has_stopped_and_takes_it_back(world: World, at_once: bool) -> None:
    arrival = path_of(ArrivalKey("default", THERE.name))
    tap = world.add_interface("vm")
    async with world.agent() as agent:
        await prepare(world, target=THERE)
        moving = agent.moving
        assert moving is not None
        await until(lambda: moving._ends and world.routes)
        for _ in range(3):
            assert moving.stopped("calivm")
            if not at_once:
                await until(lambda: arrival in world.store._items)
                assert b"false" in world.store._items[arrival].value
                await until(lambda: ways(world.routes) == ONWARDS)
            assert moving.running("calivm")
            await until(lambda: not moving._seen and moving._jobs.empty() and arrival not in world.store._items)
            await until(lambda: ways(world.routes) == {net: str(tap) for net in NETS})
            await until(lambda: moving._ends[HERE].migration.place is Place.DEPARTING)

        assert moving.stopped("calivm")
        await until(lambda: arrival in world.store._items)
        await world.put_raw(arrival, b'{"migration":"u1","host":"h2"}')
        await until(lambda: (moving._ends[HERE].migration.place, moving._ends[HERE].migration.awaited) == (Place.LEFT, False))
        assert not moving.stopped("calivm"), "that is known"
        assert world.store._items[arrival].value == b'{"migration":"u1","host":"h2"}'


async def test_a_restarted_agent_of_the_target_knows_from_the_store_that_the_machine_has_come(world: World) -> None:
    tap = world.add_interface("vm")
    await prepare(world, target=HERE)
    await world.put_raw(path_of(ArrivalKey("default", HERE.name)), b'{"migration":"earlier"}')
    async with world.agent():
        await until(lambda: world.rtnetlink.routes(table=ARRIVALS_TABLE))
        assert world.routes == set()
    await world.put_raw(path_of(ArrivalKey("default", HERE.name)), b'{"migration":"u1"}')
    async with world.agent():
        await until(lambda: ways(world.routes) == {net: str(tap) for net in NETS})
        await until(lambda: not world.rtnetlink.routes(table=ARRIVALS_TABLE))


async def test_flows_go_along_before_the_machine_and_again_when_it_has_stopped(world: World) -> None:
    world.add_interface("vm")
    path, early, late = f"{FLOWS[0]}/0", flow(), flow("10.9.9.10")
    world.conntrack.flows = {early.original: early}
    async with world.agent() as agent:
        await prepare(world, target=THERE)
        await until(lambda: path in world.store._items)
        assert [each.original for each in parse_part(world.store._items[path].value)] == [early.original]
        await world.store.txn((), (DeleteOp(path),))  # as the target does, once it has them
        world.conntrack.flows[late.original] = late
        assert agent.moving is not None
        assert agent.moving.stopped("calivm")
        await until(lambda: path in world.store._items)
        assert {each.original for each in parse_part(world.store._items[path].value)} == {early.original, late.original}


async def test_the_target_takes_flows_that_came_before_it_knew_of_the_migration(world: World) -> None:
    world.add_interface("vm")
    async with world.agent():
        await world.put_raw(f"{FLOWS[1]}/0", next(render_parts([flow()])))
        await prepare(world, target=HERE)
        await until(lambda: flow().original in world.conntrack.flows)
        await until(lambda: f"{FLOWS[1]}/0" not in world.store._items)


async def test_the_source_passes_on_what_comes_for_a_machine_that_has_left_and_hands_its_flows_over(world: World) -> None:
    tap = world.add_interface("vm")
    world.conntrack.flows = {each.original: each for each in (flow(), flow(target="10.0.0.2"))}
    async with world.agent() as agent:
        await prepare(world, target=THERE)
        await until(lambda: ways(world.routes) == {net: str(tap) for net in NETS})
        moving = agent.moving
        assert moving is not None
        await until(lambda: moving._ends)
        assert not moving.stopped("calinobody")
        assert moving.stopped("calivm")
        await until(lambda: ways(world.routes) == ONWARDS)
        await until(lambda: local_addresses(agent) == set())
        await until(lambda: f"{FLOWS[0]}/0" in world.store._items)
        [handed] = parse_part(world.store._items[f"{FLOWS[0]}/0"].value)
        assert (handed.original, handed.mark) == (flow().original, 1)
        assert world.store._items[f"{FLOWS[0]}/0"].lease

        await world.delete(HERE)
        await until(lambda: HERE not in agent.endpoints)
        assert ways(world.routes) == ONWARDS, "for those who have not heard yet"
        agent.dataplane.moves.clock = lambda: 1e12
        await until(lambda: world.routes == set())


@pytest.mark.parametrize("together", [False, True], ids=["after it has moved", "while it moves"])
async def test_nothing_is_passed_on_to_a_machine_that_is_no_more(world: World, together: bool) -> None:
    """The other host would know nobody else to send it to than this one."""
    world.add_interface("vm")
    async with world.agent() as agent:
        await prepare(world, target=THERE)
        await world.put_raw(path_of(ArrivalKey("default", THERE.name)), b'{"migration":"u1"}')
        await until(lambda: ways(world.routes) == ONWARDS)
        if together:
            await world.store.txn((), tuple(DeleteOp(path_of(key)) for key in (THERE, HERE)))
        else:
            await world.delete(HERE)
            await until(lambda: HERE not in agent.endpoints)
            assert ways(world.routes) == ONWARDS
            await world.delete(THERE)
        await until(lambda: world.routes == set())


async def test_the_source_forgets_flows_through_floating_addresses_once_the_machine_was_seen_elsewhere(world: World) -> None:
    world.add_interface("vm")
    plain, floating = flow(), msgspec.structs.replace(flow(target="192.0.2.1"), reply=flow().reply)
    masked = msgspec.structs.replace(flow("10.0.0.1", "10.9.9.9"), reply=flow("172.20.0.1", "10.9.9.9").reply)
    world.conntrack.flows = {each.original: each for each in (plain, floating, masked)}
    async with world.agent() as agent:
        key, document = endpoint("vm", *NETS, mac=MAC, ipNATs=[{"internalIP": "10.0.0.1", "externalIP": "192.0.2.1"}])
        await prepare(world, target=THERE)
        await world.put(key, document)
        await until(lambda: "192.0.2.1/32" in ways(world.routes))
        moving = agent.moving
        assert moving is not None
        await until(lambda: moving._ends)
        assert moving.stopped("calivm")
        await until(lambda: f"{FLOWS[0]}/0" in world.store._items)
        assert len(parse_part(world.store._items[f"{FLOWS[0]}/0"].value)) == 3
        assert len(world.conntrack.flows) == 3, "it may yet go on here"
        await world.put_raw(path_of(ArrivalKey("default", THERE.name)), b'{"migration":"u1"}')
        await until(lambda: set(world.conntrack.flows) == {plain.original, masked.original})


async def test_a_machine_that_goes_on_where_it_was_keeps_its_addresses(world: World) -> None:
    tap = world.add_interface("vm")
    async with world.agent() as agent:
        await prepare(world, target=THERE)
        moving = agent.moving
        assert moving is not None
        await until(lambda: moving._ends and world.routes)
        assert moving.stopped("calivm")
        await until(lambda: ways(world.routes) == ONWARDS)
        assert moving.running("calivm")
        await until(lambda: ways(world.routes) == {net: str(tap) for net in NETS})
        assert moving.stopped("calivm")
        await until(lambda: ways(world.routes) == ONWARDS)
        await world.delete(ResourceKey("LiveMigration", THERE.name, "default"))  # it failed
        await world.delete(THERE)
        await until(lambda: ways(world.routes) == {net: str(tap) for net in NETS})


@pytest.mark.parametrize("how", ["arrival", "activation"])
async def test_the_source_learns_from_the_store_that_the_machine_has_left(world: World, how: str) -> None:
    world.add_interface("vm")
    world.conntrack.flows = {flow().original: flow()}
    async with world.agent():
        await prepare(world, target=THERE)
        await until(lambda: world.routes)
        if how == "arrival":
            await world.put_raw(path_of(ArrivalKey("default", THERE.name)), b'{"migration":"u1"}')
        else:
            await world.delete(HERE)
        await until(lambda: ways(world.routes) == ONWARDS)
        await until(lambda: f"{FLOWS[0]}/0" in world.store._items)


async def test_a_target_that_is_behind_routers_gets_nothing_passed_on(world: World) -> None:
    """They would send it back: to them the machine is still here."""
    tap = world.add_interface("vm")
    async with world.agent() as agent:
        await prepare(world, target=THERE)
        await world.put(ResourceKey("Node", "h2"), {"spec": {"bgp": {"ipv4Address": "172.21.0.2/24"}}})
        await until(lambda: ways(world.routes) == {net: str(tap) for net in NETS})
        await world.put_raw(path_of(ArrivalKey("default", THERE.name)), b'{"migration":"u1"}')
        await until(lambda: world.routes == set())
        assert agent.health()[0]

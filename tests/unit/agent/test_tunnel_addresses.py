"""The addresses of a host's tunnels: from the pools, in the Node, back to the pools; and a whole agent with a tunnel."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from agent_world import HOST, World, until

from tabinet.agent.log import open_log
from tabinet.agent.tunnels import TunnelAddresses, set_address
from tabinet.calc.messages import LocalTunnel, Tunnel, TunnelRemove, TunnelUpdate
from tabinet.ipam.client import IpamClient
from tabinet.ipam.plan import AssignRequest
from tabinet.kernel.rtnetlink import AddAddress, AddVeth, InterfaceAddress, SetLink, Vxlan
from tabinet.lib.ip import Prefix, parse_prefix
from tabinet.model.keys import HandleKey, ResourceKey, path_of
from tabinet.store.client import ResourceClient

NODE = ResourceKey("Node", HOST)
HANDLE = f"vxlan-tunnel-addr-{HOST}"


def p(text: str) -> Prefix:
    return parse_prefix(text)


POOL, OTHER = p("10.65.0.0/24"), p("10.66.0.0/24")


def pool(name: str, cidr: Prefix, **spec: Any) -> tuple[ResourceKey, dict[str, Any]]:
    return ResourceKey("IPPool", name), {"spec": {"cidr": str(cidr), "blockSize": 28 if cidr.family == 4 else 124, **spec}}


class Seat:
    """A store with a Node and two pools, and the task under test."""

    def __init__(self) -> None:
        self.world = World()
        self.ipam = IpamClient(self.world.store)
        self.addresses = TunnelAddresses(HOST, self.ipam, ResourceClient(self.world.store), open_log("error", "text", HOST), retry_s=0.02)

    async def fill(self, **spec: Any) -> None:
        await self.world.put(NODE, {"spec": {"bgp": {"ipv4Address": "172.16.1.1/24"}, **spec}})
        await self.world.put(*pool("one", POOL, vxlanMode="Always"))
        await self.world.put(*pool("two", OTHER, vxlanMode="Always"))

    def node(self) -> dict[str, Any]:
        return dict(msgspec.json.decode(self.world.store._items[path_of(NODE)].value)["spec"])

    def address(self) -> str:
        return str(self.node().get("ipv4VXLANTunnelAddr", ""))

    def tell(self, address: str = "", *pools: Prefix, wanted: bool = True) -> None:
        local = LocalTunnel(None, p(address) if address else None, "", pools, wanted=wanted)
        self.addresses.on_update(TunnelUpdate(HOST, Tunnel.VXLAN4, local))

    def counted(self) -> dict[str, int]:
        """How many addresses of each block the handle has."""
        return dict(msgspec.json.decode(self.world.store._items[path_of(HandleKey(HANDLE))].value)["block"])

    def has_handle(self) -> bool:
        return path_of(HandleKey(HANDLE)) in self.world.store._items


@contextlib.asynccontextmanager
async def running(seat: Seat) -> AsyncIterator[None]:
    task = asyncio.create_task(seat.addresses.run(lambda: None))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def seat() -> AsyncIterator[Seat]:
    seat = Seat()
    await seat.fill()
    async with running(seat):
        yield seat


async def test_an_address_comes_from_the_pool_and_goes_back(seat: Seat) -> None:
    seat.tell("", POOL)
    await asyncio.sleep(0)
    assert not seat.has_handle()  # not begun
    seat.addresses.begin()
    await until(seat.address)
    found = seat.address()
    assert POOL.contains(p(found))
    assert await seat.ipam.owned(HANDLE) == (p(found),)
    block = (await seat.ipam.blocks(HOST))[0]
    raw = seat.world.store._items[f"/calico/ipam/v2/assignment/ipv4/block/{str(block.block).replace('/', '-')}"].value
    attributes = msgspec.json.decode(raw)["attributes"]
    assert [(each["handle_id"], each["secondary"]["type"], each["secondary"]["node"]) for each in attributes] == [
        (HANDLE, "vxlanTunnelAddress", HOST)
    ]
    assert await seat.ipam.check() == ()
    seat.tell(found, wanted=False)
    await until(lambda: not seat.has_handle())
    assert (seat.address(), seat.node()["bgp"]) == ("", {"ipv4Address": "172.16.1.1/24"})
    seat.addresses.on_update(TunnelRemove(HOST, Tunnel.VXLAN4))


async def test_what_the_node_has_already_is_kept(seat: Seat) -> None:
    await seat.fill(ipv4VXLANTunnelAddr="10.65.0.77")
    seat.addresses.begin()
    seat.tell("10.65.0.77", POOL)
    await until(seat.has_handle)
    assert await seat.ipam.owned(HANDLE) == (p("10.65.0.77"),)
    seat.tell("10.65.0.77", OTHER)  # the pool has no tunnel any more
    await until(lambda: seat.address() != "10.65.0.77")
    assert OTHER.contains(p(seat.address()))
    await until(lambda: all(OTHER.contains(p(block)) for block in seat.counted()))
    assert await seat.ipam.owned(HANDLE) == (p(seat.address()),)


async def test_an_address_that_is_somebody_elses_is_replaced(seat: Seat) -> None:
    await seat.ipam.assign_address(p("10.65.0.77"), AssignRequest(host="h9", handle="vm", count4=1))
    await seat.fill(ipv4VXLANTunnelAddr="10.65.0.77")
    seat.addresses.begin()
    seat.tell("10.65.0.77", POOL)
    await until(lambda: seat.address() != "10.65.0.77")
    assert await seat.ipam.owned("vm") == (p("10.65.0.77"),)


async def test_what_a_dead_agent_left_half_done_is_finished(seat: Seat) -> None:
    given = await seat.ipam.assign(AssignRequest(host=HOST, handle=HANDLE, count4=1, pools4=(POOL,), use="Tunnel"))
    seat.tell("", POOL)
    seat.addresses.begin()
    await until(seat.address)
    assert p(seat.address()) == given.addresses[0]
    left = await seat.ipam.assign(AssignRequest(host=HOST, handle=f"ipip-tunnel-addr-{HOST}", count4=1, pools4=(POOL,), use="Tunnel"))
    assert left.addresses
    seat.addresses._begun = False
    seat.addresses.begin()
    await until(lambda: path_of(HandleKey(f"ipip-tunnel-addr-{HOST}")) not in seat.world.store._items)


async def test_pools_that_give_none_are_a_problem_until_one_does(seat: Seat) -> None:
    seat.addresses.begin()
    seat.tell("")
    await until(lambda: "allowedUses" in seat.addresses.problems.get(Tunnel.VXLAN4, ""))
    seat.tell("", POOL)
    await until(seat.address)
    assert seat.addresses.problems == {}


async def test_a_host_without_a_node_takes_nothing(seat: Seat) -> None:
    await seat.world.delete(NODE)
    seat.addresses.begin()
    seat.tell("", POOL)
    await until(lambda: seat.addresses._pending == set())
    assert not seat.has_handle()


@pytest.mark.parametrize("tunnel", list(Tunnel))
def test_the_address_is_written_where_calico_reads_it(tunnel: Tunnel) -> None:
    bare = {"kind": "Node", "spec": {"bgp": {"asNumber": 1}}}
    there = set_address(bare, tunnel, "10.0.0.1")
    assert "10.0.0.1" in str(there)
    assert set_address(there, tunnel, "") == bare
    assert set_address({"kind": "Node"}, tunnel, "") == {"kind": "Node", "spec": {}}
    assert bare == {"kind": "Node", "spec": {"bgp": {"asNumber": 1}}}


async def test_a_whole_agent_with_a_tunnel_and_without() -> None:
    world = World()
    world.rtnetlink.stranger(AddVeth("eth0", "switch"))
    uplink = world.rtnetlink.index_of("eth0")
    world.rtnetlink.stranger(SetLink(uplink, up=True), AddAddress(InterfaceAddress(uplink, p("172.16.1.1"), 24)))
    await world.put(NODE, {"spec": {"bgp": {"ipv4Address": "172.16.1.1/24"}}})
    far = {"bgp": {"ipv4Address": "172.16.2.9/24"}, "ipv4VXLANTunnelAddr": "10.65.0.241"}
    await world.put(ResourceKey("Node", "h9"), {"spec": far})
    await world.put_raw("/calico/ipam/v2/host/h9/ipv4/block/10.65.0.240-28", b'{"state":"confirmed"}')
    await world.put(*pool("one", POOL, vxlanMode="CrossSubnet"))

    def link() -> Any:
        return next((link for link in world.rtnetlink.links() if link.name == "vxlan.calico"), None)

    async with world.agent():
        await until(lambda: world.rtnetlink.routes(protocol=85))
        assert link().vxlan == Vxlan(4096, 4789, p("172.16.1.1"))
        assert [entry.remote for entry in world.rtnetlink.forwarding(link().index)] == [p("172.16.2.9")]
        await until(lambda: world.report() and world.report().workload_mtu == 1450)  # type: ignore[union-attr]  # it exists by then
        await until(lambda: world.problems() == "")
        await world.put(*pool("one", POOL))
        await until(lambda: link() is None)
        await until(lambda: "ipv4VXLANTunnelAddr" not in msgspec.json.decode(world.store._items[path_of(NODE)].value)["spec"])
        assert world.rtnetlink.routes(protocol=85) == []
        await until(lambda: path_of(HandleKey(HANDLE)) not in world.store._items)

"""The whole agent on fakes: what it programs, when it says so, what it repairs, and what it leaves alone."""

from __future__ import annotations

import asyncio
import errno
import threading

import msgspec
import pytest
from agent_world import HOST, World, endpoint, endpoint_key, policy, until

from tabinet.agent import agent as agent_module
from tabinet.agent import verification
from tabinet.agent.agent import Agent, RestartNeeded
from tabinet.agent.statistics import Statistics
from tabinet.kernel.nftables import DeleteTable
from tabinet.kernel.nftexpr import ifname
from tabinet.kernel.rtnetlink import DeleteRoute, SetLink
from tabinet.lib.ip import parse_prefix
from tabinet.model.keys import ResourceKey, path_of
from tabinet.model.status import endpoint_status_path, endpoint_status_prefix
from tabinet.rules.evaluate import Packet, evaluate

A = endpoint_key("a")
FELIX = ResourceKey("FelixConfiguration", "default")
CLUSTER = ResourceKey("ClusterInformation", "default")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(agent_module, "VERIFY_FIRST_S", 0.05)
    monkeypatch.setattr(verification, "QUIET_WAIT_S", 0.05)
    monkeypatch.setattr(agent_module, "PUBLISH_EVERY_S", 0.02)
    return World()


async def test_an_endpoint_is_up_when_the_kernel_has_its_policy_its_routes_and_its_interface(world: World) -> None:
    async with world.agent() as agent:
        revision = await world.put(*endpoint("a", "10.0.0.1/32", "fd00::1/128"))
        await until(lambda: world.status(A) is not None)
        status = world.status(A)
        assert status is not None
        assert (status.status, status.reason) == ("down", "interface calia does not exist")
        assert world.routes == set()
        world.add_interface("a")
        await until(lambda: world.is_up(A, revision))
        assert len(world.routes) == 2
        assert agent.health()[0]
        await until(lambda: (report := world.report()) is not None and report.endpoints_ready == 1)
        await world.delete(A)
        await until(lambda: world.status(A) is None)
        assert world.routes == set()


async def test_an_endpoint_is_not_up_while_the_kernel_refuses_its_policy(world: World) -> None:
    world.add_interface("a")
    async with world.agent() as agent:
        await until(lambda: agent.health()[0])
        world.nftables.fail_next(errno.ENOMEM, 10_000)
        await world.put(*endpoint("a", "10.0.0.1/32"))
        await until(lambda: world.status(A) is not None)
        status = world.status(A)
        assert status is not None
        assert (status.status, status.reason) == ("down", "its policy is not in the kernel")
        assert "Cannot allocate memory" in agent.kernel_error
        assert not agent.health()[0]
        world.nftables._failures.clear()
        await until(lambda: world.is_up(A))
        await until(lambda: agent.kernel_error == "")
        assert agent.metrics.apply_errors._value.get() >= 1


async def test_a_restarted_agent_changes_nothing_and_nobody_sees_a_port_go_down(world: World) -> None:
    world.add_interface("a")
    await world.put(*endpoint("a", "10.0.0.1/32"))
    async with world.agent():
        await until(lambda: world.is_up(A))
    stale = endpoint_status_path(HOST, endpoint_key("gone"))
    await world.put_raw(stale, b'{"status":"up"}')
    before = world.store.revision
    world.nftables.commits.clear()
    world.rtnetlink.executed.clear()
    world.sysctl.writes.clear()
    async with world.agent() as agent:
        await until(lambda: agent.health()[0] and stale not in world.store._items)
    assert (world.nftables.commits, world.rtnetlink.executed, world.sysctl.writes) == ([], [], [])
    written = [event for event in world.store._since(endpoint_status_prefix(HOST), before) if getattr(event, "key", "") != stale]
    assert written == []


async def test_a_store_that_is_away_changes_nothing_and_what_it_says_later_counts(world: World) -> None:
    world.add_interface("a")
    await world.put(*endpoint("a", "10.0.0.1/32"))
    async with world.agent() as agent:
        await until(lambda: world.is_up(A))
        commits, routes = len(world.nftables.commits), world.routes
        world.store.set_available(False)
        await until(lambda: not agent.in_sync)
        assert not agent.health()[0]
        assert (len(world.nftables.commits), world.routes) == (commits, routes)
        world.store.set_available(True)
        await until(lambda: agent.health()[0])
        await world.put(*endpoint("a", "10.0.0.2/32"))
        await until(lambda: [str(route.destination) for route in world.routes] == ["10.0.0.2/32"])


async def test_an_agent_that_starts_without_store_waits_and_removes_nothing(world: World) -> None:
    world.add_interface("a")
    await world.put(*endpoint("a", "10.0.0.1/32"))
    async with world.agent():
        await until(lambda: world.is_up(A))
    world.store.set_available(False)
    world.rtnetlink.executed.clear()
    commits = len(world.nftables.commits)
    async with world.agent() as agent:
        await until(lambda: agent.status is not None and agent.status.error)
        assert (world.rtnetlink.executed, len(world.nftables.commits)) == ([], commits)
        world.store.set_available(True)
        await until(lambda: agent.health()[0])


async def test_somebody_takes_the_table_away(world: World) -> None:
    async with world.agent() as agent:
        await until(lambda: agent.health()[0])
        world.nftables.stranger([DeleteTable()])
        await until(lambda: world.nftables.read_table() is not None)


async def test_somebody_deletes_a_route_sets_an_interface_down_and_changes_a_sysctl(world: World) -> None:
    index = world.add_interface("a")
    await world.put(*endpoint("a", "10.0.0.1/32"))
    async with world.agent():
        await until(lambda: world.is_up(A))
        (route,) = world.routes
        world.rtnetlink.stranger(DeleteRoute(route))
        await until(lambda: world.routes == {route})
        world.rtnetlink.stranger(SetLink(index, up=False))
        await until(lambda: world.rtnetlink.links()[-1].up and world.routes == {route})
        world.sysctl.values["net/ipv4/ip_forward"] = "0"
        world.sysctl.values["net/ipv4/conf/calia/forwarding"] = "0"
        await until(lambda: world.sysctl.values["net/ipv4/ip_forward"] == "1")


async def test_news_that_the_kernel_thread_has_no_time_for_do_not_keep_the_loop_busy(world: World) -> None:
    begun, gate = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        gate.wait()

    async with world.agent() as agent:
        await until(lambda: agent.health()[0])
        blocked = asyncio.create_task(agent.kernel.call(block))
        try:
            await until(begun.is_set)
            world.add_interface("a")
            await until(lambda: not _is_heard(world))
        finally:
            gate.set()
        await blocked
        await until(lambda: _is_heard(world))


def _is_heard(world: World) -> bool:
    assert world.events is not None
    loop = asyncio.get_running_loop()
    return world.events.fileno() in loop._selector.get_map()  # type: ignore[attr-defined]  # no public way to ask


async def test_while_the_store_is_changed_as_a_whole_nothing_is_taken_over_but_the_kernel_is_kept(world: World) -> None:
    world.add_interface("a")
    await world.put(*endpoint("a", "10.0.0.1/32"))
    async with world.agent() as agent:
        await until(lambda: world.is_up(A))
        (route,) = world.routes
        await world.put(CLUSTER, {"spec": {"datastoreReady": False}})
        await until(lambda: "datastoreReady" in world.problems())
        await world.put(*endpoint("a", "10.0.0.2/32"))
        await world.delete(endpoint_key("nobody"))
        await world.put(*policy("p", {"action": "Deny"}))
        revision = await world.put(*endpoint("b", "10.0.0.9/32"))
        world.rtnetlink.stranger(DeleteRoute(route))
        await until(lambda: agent.calculation.feed.revision >= revision and world.routes)
        assert world.routes == {route}
        await world.put(CLUSTER, {"spec": {"datastoreReady": True}})
        await until(lambda: [str(each.destination) for each in world.routes] == ["10.0.0.2/32"])
        await until(lambda: world.problems() == "")


async def test_an_agent_that_starts_while_the_store_is_held_adopts_what_is_there(world: World) -> None:
    world.add_interface("a")
    await world.put(*endpoint("a", "10.0.0.1/32"))
    async with world.agent():
        await until(lambda: world.is_up(A))
    await world.put(CLUSTER, {"spec": {"datastoreReady": False}})
    await world.delete(A)
    async with world.agent() as agent:
        await until(lambda: "datastoreReady" in world.problems())
        assert len(world.routes) == 1
        assert world.is_up(A)
        assert not agent.health()[0]
        await world.put(CLUSTER, {"spec": {"datastoreReady": True}})
        await until(lambda: not world.routes and world.status(A) is None)


async def test_what_is_broken_in_the_store_is_told_and_fails_closed_and_the_rest_goes_on(world: World) -> None:
    world.add_interface("a")
    world.add_interface("b")
    allow = policy("p", {"action": "Allow"})
    async with world.agent() as agent:
        await world.put(*endpoint("a", "10.0.0.1/32"))
        await world.put(*allow)
        await until(lambda: world.is_up(A))
        packet = Packet("fabric", "calia", parse_prefix("192.0.2.1"), parse_prefix("10.0.0.1"), 6, 1, 80)
        assert _accepts(agent, packet)
        await world.put(*policy("p", {"action": "Allow", "protocol": "carrier pigeons"}))
        await world.put(*endpoint("b", "not an address"))
        await world.put_raw(path_of(ResourceKey("GlobalNetworkPolicy", "bytes")), bytes(range(256)))
        await until(lambda: world.problems().count("\n") == 2)
        await until(lambda: not _accepts(agent, packet))  # problems may be told before the table is applied
        assert world.status(endpoint_key("b")) is None
        assert "carrier pigeons" in world.problems()
        assert "not an address" in world.problems()
        await until(lambda: "tabinet_problems 3.0" in agent.metrics.render().decode())
        told = msgspec.json.decode(await agent.tell_statistics(), type=Statistics)
        assert [(rule.policy, rule.action) for rule in told.rules if rule.policy.endswith("/p")] == [("GlobalNetworkPolicy/p", "Deny")]
        revision = await world.put(*endpoint("b", "10.0.0.2/32"))
        await until(lambda: world.is_up(endpoint_key("b"), revision))
        await world.put(*allow)
        await world.delete(ResourceKey("GlobalNetworkPolicy", "bytes"))
        await until(lambda: world.problems() == "")
        await until(lambda: _accepts(agent, packet))


async def test_an_endpoint_without_a_name_of_its_kind_is_programmed_and_told(world: World) -> None:
    world.add_interface("a")
    _, document = endpoint("a", "10.0.0.1/32")
    async with world.agent():
        await world.put(ResourceKey("WorkloadEndpoint", "nonsense", "default"), document)
        await until(lambda: "nonsense" in world.problems() and len(world.routes) == 1)


async def test_live_parameters_are_taken_up(world: World) -> None:
    world.add_interface("a")
    async with world.agent() as agent:
        await world.put(*endpoint("a", "10.0.0.1/32"))
        await until(lambda: world.is_up(A))
        await world.put(FELIX, {"spec": {"endpointReportingEnabled": False, "reportingInterval": "7s"}})
        await until(lambda: world.status(A) is None and agent.reporter.interval_s == 7.0)
        await world.put(FELIX, {"spec": {"endpointReportingEnabled": True, "reportingInterval": "often"}})
        await until(lambda: world.is_up(A) and "often" in world.problems())
        assert agent.reporter.interval_s == 30.0


async def test_a_parameter_that_is_not_live_ends_the_run(world: World) -> None:
    with pytest.raises(ExceptionGroup) as ended:
        async with world.agent() as agent:
            await until(lambda: agent.health()[0])
            await world.put(FELIX, {"spec": {"interfacePrefix": "eth"}})
            await until(lambda: False)
    assert ended.value.subgroup(RestartNeeded) is not None
    assert "felix.interface_prefix" in repr(ended.value.subgroup(RestartNeeded))


async def test_metrics_say_what_is_so(world: World) -> None:
    world.add_interface("a")
    async with world.agent() as agent:
        await world.put(*endpoint("a", "10.0.0.1/32"))
        await world.put(*policy("p", {"action": "Deny", "protocol": "TCP"}))
        await until(lambda: world.is_up(A) and 'tabinet_endpoints{state="ready"} 1.0' in agent.metrics.render().decode())
        info = world.nftables.read_table()
        assert info is not None
        for chain, rules in info.rules.items():
            for rule in rules:
                world.nftables.count(chain, rule.userdata, 3, 100)
        world.nftables.count_element("denied_in", ifname("calia"), 5, 500)
        await agent.count()
        text = agent.metrics.render().decode()
        assert 'tabinet_policy_packets_total{action="Deny",direction="ingress",policy="GlobalNetworkPolicy/p",rule="0"} 3.0' in text
        assert "tabinet_active_policies 1.0" in text
        assert "tabinet_denied_packets_total{" in text
        assert 'tabinet_policy_bytes_total{action="Deny",direction="ingress",policy="GlobalNetworkPolicy/p",rule="0"} 100.0' in text
        assert f'tabinet_endpoint_revision{{endpoint="{A}"}} ' in text
        assert f'tabinet_endpoint_denied_packets_total{{direction="egress",endpoint="{A}"}} 5.0' in text
        assert f'tabinet_endpoint_denied_bytes_total{{direction="ingress",endpoint="{A}"}} 0.0' in text


def _accepts(agent: Agent, packet: Packet) -> bool:
    return evaluate(agent.dataplane.builder.table, packet).accepted

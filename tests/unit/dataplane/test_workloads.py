"""WorkloadManager with both drivers against the fake kernel."""

from __future__ import annotations

import errno

import msgspec
import pytest

from tabinet.calc.messages import Endpoint, EndpointRemove, EndpointUpdate, Pair
from tabinet.dataplane.links.driver import LinkDriver
from tabinet.dataplane.links.vlans import VlanDriver
from tabinet.dataplane.routes.driver import RouteDriver, local_route
from tabinet.dataplane.workloads import WorkloadManager
from tabinet.kernel.rtfake import FakeRtnetlink
from tabinet.kernel.rtnetlink import (
    AddRoute,
    AddVeth,
    DeleteLink,
    DeleteRoute,
    Hop,
    Neighbour,
    Overrun,
    ReplaceRoute,
    Route,
    SetLink,
    blackhole_route,
)
from tabinet.kernel.sysctl import FakeSysctl
from tabinet.lib.ip import Prefix, parse_prefix
from tabinet.model.keys import ResourceKey

MAC = "02:00:00:00:00:09"


def p(text: str) -> Prefix:
    return parse_prefix(text)


def key(name: str) -> ResourceKey:
    return ResourceKey("WorkloadEndpoint", name, "default")


def endpoint(name: str, interface: str, *nets: str) -> EndpointUpdate:
    return EndpointUpdate(key(name), 1, Endpoint("h1", interface, MAC, tuple(sorted(map(p, nets))), (), (), (), ()))


class Host:
    """A manager on a fake host; ``turn`` is one turn of the agent's loop."""

    def __init__(self, rt: FakeRtnetlink | None = None, sysctl: FakeSysctl | None = None) -> None:
        self.rt = rt or FakeRtnetlink()
        self.sysctl = sysctl or FakeSysctl()
        self.events = self.rt.events()
        self.manager = WorkloadManager(LinkDriver(self.rt, self.sysctl), RouteDriver(self.rt), VlanDriver(self.rt))

    def add_link(self, name: str) -> int:
        self.rt.stranger(AddVeth(name, "p" + name))
        return self.rt.index_of(name)

    def turn(self) -> int:
        for event in self.events.read():
            self.manager.on_event(event)
        return self.manager.apply().operations

    def reason(self, name: str) -> str:
        state = self.manager.status(key(name))
        assert state.ready == (state.reason == "")
        return state.reason

    @property
    def routes(self) -> set[Route]:
        return set(self.rt.routes(protocol=84))


@pytest.fixture
def host() -> Host:
    host = Host()
    host.manager.begin()
    return host


def test_an_endpoint_with_its_interface_gets_everything_at_once(host: Host) -> None:
    index = host.add_link("cali1")
    host.turn()
    host.manager.on_endpoint_update(endpoint("a", "cali1", "10.0.0.1", "fd00::1"))
    assert host.reason("a") == "interface cali1 is being set up"
    host.turn()
    assert host.reason("a") == ""
    assert host.routes == {local_route(p("10.0.0.1"), index), local_route(p("fd00::1"), index)}
    assert Neighbour(index, p("10.0.0.1"), MAC) in host.rt.neighbours()
    assert host.manager.in_sync
    assert host.manager.host_state().ready


def test_an_endpoint_waits_for_its_interface(host: Host) -> None:
    host.manager.on_endpoint_update(endpoint("a", "cali1", "10.0.0.1"))
    host.turn()
    assert host.reason("a") == "interface cali1 does not exist"
    assert host.routes == set()
    assert host.manager.take_changed() == {key("a")}
    index = host.add_link("cali1")
    host.turn()
    assert host.reason("a") == ""
    assert host.routes == {local_route(p("10.0.0.1"), index)}
    assert host.manager.take_changed() == {key("a")}
    assert host.manager.take_changed() == set()


def test_status_is_announced_again_when_it_was_taken_before_the_work(host: Host) -> None:
    host.add_link("cali1")
    host.turn()
    host.manager.on_endpoint_update(endpoint("a", "cali1", "10.0.0.1"))
    assert host.manager.take_changed() == {key("a")}
    host.turn()
    assert host.manager.take_changed() == {key("a")}
    assert host.reason("a") == ""


def test_an_interface_that_vanishes_takes_the_route_along(host: Host) -> None:
    host.add_link("cali1")
    host.manager.on_endpoint_update(endpoint("a", "cali1", "10.0.0.1"))
    host.turn()
    host.rt.stranger(DeleteLink("cali1"))
    host.turn()
    assert host.reason("a") == "interface cali1 does not exist"
    assert host.manager.in_sync
    index = host.add_link("cali1")
    host.turn()
    assert host.routes == {local_route(p("10.0.0.1"), index)}
    assert host.reason("a") == ""


def test_a_renamed_interface_is_another_one(host: Host) -> None:
    index = host.add_link("cali1")
    host.manager.on_endpoint_update(endpoint("a", "cali1", "10.0.0.1"))
    host.manager.on_endpoint_update(endpoint("b", "cali2", "10.0.0.2"))
    host.turn()
    host.rt.stranger(SetLink(index, name="cali2"))
    host.turn()
    assert host.reason("a") == "interface cali1 does not exist"
    assert host.reason("b") == ""
    assert host.routes == {local_route(p("10.0.0.2"), index)}


def test_an_interface_renamed_to_something_unclaimed_is_left_alone(host: Host) -> None:
    index = host.add_link("cali1")
    host.manager.on_endpoint_update(endpoint("a", "cali1", "10.0.0.1"))
    host.turn()
    host.rt.stranger(SetLink(index, name="other"))
    host.turn()
    host.rt.stranger(SetLink(index, up=False))
    assert host.turn() == 0
    assert host.routes == set()


def test_an_interface_set_down_is_brought_up_with_its_routes(host: Host) -> None:
    index = host.add_link("cali1")
    host.manager.on_endpoint_update(endpoint("a", "cali1", "10.0.0.1", "fd00::1"))
    host.turn()
    host.rt.stranger(SetLink(index, up=False))
    assert host.routes == set()
    host.turn()
    assert len(host.routes) == 2
    assert host.reason("a") == ""


def test_routes_that_were_made_without_a_carrier_are_announced_when_it_comes(host: Host) -> None:
    index = host.add_link("cali1")
    host.manager.on_endpoint_update(endpoint("a", "cali1", "10.0.0.1", "fd00::1"))
    host.turn()
    assert host.turn() == 0
    host.rt.executed.clear()
    host.rt.stranger(SetLink(host.rt.index_of("pcali1"), up=True))
    host.turn()
    wanted = [local_route(p("10.0.0.1"), index), local_route(p("fd00::1"), index)]
    assert host.rt.executed == [*map(DeleteRoute, wanted), *map(AddRoute, wanted)]
    assert host.routes == set(wanted)
    assert host.manager.in_sync
    assert host.reason("a") == ""
    assert host.turn() == 0


def test_a_route_is_removed_audibly_where_its_interface_lost_its_carrier(host: Host) -> None:
    index = host.add_link("cali1")
    other = host.rt.index_of("pcali1")
    host.rt.stranger(SetLink(other, up=True))
    host.manager.on_endpoint_update(endpoint("a", "cali1", "10.0.0.1"))
    host.turn()
    host.rt.stranger(SetLink(other, up=False))
    host.turn()
    host.rt.executed.clear()
    host.manager.on_endpoint_remove(EndpointRemove(key("a")))
    host.turn()
    hole = blackhole_route(p("10.0.0.1"))
    assert [each for each in host.rt.executed if isinstance(each, ReplaceRoute | DeleteRoute)] == [ReplaceRoute(hole), DeleteRoute(hole)]
    assert host.routes == set()
    assert host.manager.in_sync
    host.manager.on_endpoint_update(endpoint("a", "cali1", "10.0.0.1"))
    host.rt.stranger(SetLink(other, up=True))
    host.turn()
    host.rt.executed.clear()
    host.manager.on_endpoint_remove(EndpointRemove(key("a")))
    host.turn()
    assert [each for each in host.rt.executed if isinstance(each, ReplaceRoute | DeleteRoute)] == [
        DeleteRoute(local_route(p("10.0.0.1"), index))
    ]


def test_a_carrier_that_came_while_news_were_lost_is_noticed(host: Host) -> None:
    index = host.add_link("cali1")
    host.manager.on_endpoint_update(endpoint("a", "cali1", "10.0.0.1"))
    host.turn()
    host.rt.stranger(SetLink(host.rt.index_of("pcali1"), up=True))
    host.events.read()
    host.rt.executed.clear()
    host.manager.on_event(Overrun())
    host.turn()
    route = local_route(p("10.0.0.1"), index)
    operations = [operation for operation in host.rt.executed if isinstance(operation, AddRoute | DeleteRoute)]
    assert operations == [DeleteRoute(route), AddRoute(route)]


def test_removal_withdraws_the_route_and_leaves_the_interface(host: Host) -> None:
    host.add_link("cali1")
    host.manager.on_endpoint_update(endpoint("a", "cali1", "10.0.0.1"))
    host.turn()
    host.manager.on_endpoint_remove(EndpointRemove(key("a")))
    host.turn()
    assert host.routes == set()
    assert host.rt.neighbours() == []
    assert host.reason("a") == "not an endpoint of this host"
    assert "cali1" in {link.name for link in host.rt.links()}
    host.manager.on_endpoint_remove(EndpointRemove(key("a")))
    assert host.turn() == 0


def test_moving_to_another_interface_and_address(host: Host) -> None:
    host.add_link("cali1")
    two = host.add_link("cali2")
    host.manager.on_endpoint_update(endpoint("a", "cali1", "10.0.0.1", "10.0.0.2"))
    host.turn()
    host.manager.on_endpoint_update(endpoint("a", "cali2", "10.0.0.2", "10.0.0.3"))
    host.turn()
    assert host.routes == {local_route(p("10.0.0.2"), two), local_route(p("10.0.0.3"), two)}
    assert {n.index for n in host.rt.neighbours()} == {two}


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_one_interface_claimed_twice_goes_to_the_smallest_key(host: Host, order: tuple[str, str]) -> None:
    index = host.add_link("cali1")
    addresses = {"a": "10.0.0.1", "b": "10.0.0.2"}
    for name in order:
        host.manager.on_endpoint_update(endpoint(name, "cali1", addresses[name]))
        host.turn()
    assert host.reason("a") == ""
    assert host.reason("b") == "interface cali1 is claimed by WorkloadEndpoint/default/a"
    assert host.routes == {local_route(p("10.0.0.1"), index)}
    host.manager.take_changed()
    host.manager.on_endpoint_remove(EndpointRemove(key("a")))
    host.turn()
    assert host.reason("b") == ""
    assert host.routes == {local_route(p("10.0.0.2"), index)}
    assert key("b") in host.manager.take_changed()


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_one_address_claimed_twice_goes_to_the_smallest_key(host: Host, order: tuple[str, str]) -> None:
    indices = {name: host.add_link(f"cali{name}") for name in order}
    for name in order:
        host.manager.on_endpoint_update(endpoint(name, f"cali{name}", "10.0.0.1", f"10.0.1.{ord(name)}"))
        host.turn()
    assert host.reason("a") == ""
    assert host.reason("b") == "address 10.0.0.1/32 is claimed by WorkloadEndpoint/default/a"
    assert local_route(p("10.0.0.1"), indices["a"]) in host.routes
    assert len(host.routes) == 3
    host.manager.on_endpoint_remove(EndpointRemove(key("a")))
    host.turn()
    assert local_route(p("10.0.0.1"), indices["b"]) in host.routes
    assert host.reason("b") == ""


def test_an_endpoint_without_its_interface_does_not_hold_an_address(host: Host) -> None:
    """``a`` claims b's address, but the interface that it names belongs to ``0``."""
    host.add_link("cali1")
    two = host.add_link("cali2")
    host.manager.on_endpoint_update(endpoint("0", "cali1", "10.0.0.9"))
    host.manager.on_endpoint_update(endpoint("a", "cali1", "10.0.0.1"))
    host.manager.on_endpoint_update(endpoint("b", "cali2", "10.0.0.1"))
    host.turn()
    assert host.reason("b") == ""
    assert local_route(p("10.0.0.1"), two) in host.routes


def test_a_refused_route_is_the_endpoints_reason_until_it_works(host: Host) -> None:
    host.add_link("cali1")
    host.manager.on_endpoint_update(endpoint("a", "cali1", "10.0.0.1"))
    host.rt.refuse(AddRoute, errno.ENOMEM)
    host.turn()
    assert host.reason("a").startswith("no route to 10.0.0.1/32: add route 10.0.0.1/32: Cannot allocate memory")
    assert host.manager.take_changed() == {key("a")}
    host.turn()
    assert host.reason("a") == ""
    assert host.manager.take_changed() == {key("a")}


def test_a_failing_interface_is_the_endpoints_reason(host: Host) -> None:
    host.add_link("cali1")
    host.sysctl.absent = frozenset({"net/ipv4/conf/cali1"})
    host.manager.on_endpoint_update(endpoint("a", "cali1", "10.0.0.1"))
    host.turn()
    assert host.reason("a").startswith("interface cali1 could not be set up: read net.ipv4.conf.cali1.")


def test_nothing_is_changed_before_the_endpoints_are_complete() -> None:
    host = Host()
    index = host.add_link("cali1")
    host.rt.stranger(SetLink(index, up=True), AddRoute(local_route(p("10.0.0.1"), index)))
    assert host.turn() == 0
    assert len(host.routes) == 1
    host.manager.begin()
    host.turn()
    assert host.routes == set()


def test_a_restarted_agent_changes_nothing(host: Host) -> None:
    for i in range(5):
        host.add_link(f"cali{i}")
        host.manager.on_endpoint_update(endpoint(f"e{i}", f"cali{i}", f"10.0.0.{i}", f"fd00::{i}"))
    host.turn()
    host.rt.executed.clear()
    host.sysctl.writes.clear()
    again = Host(host.rt, host.sysctl)
    for i in range(5):
        again.manager.on_endpoint_update(endpoint(f"e{i}", f"cali{i}", f"10.0.0.{i}", f"fd00::{i}"))
    again.manager.begin()
    assert again.turn() == 0
    assert (again.rt.executed, again.sysctl.writes) == ([], [])
    assert [again.reason(f"e{i}") for i in range(5)] == [""] * 5


def test_lost_events_lose_nothing(host: Host) -> None:
    host.add_link("cali1")
    host.manager.on_endpoint_update(endpoint("a", "cali1", "10.0.0.1"))
    host.manager.on_endpoint_update(endpoint("b", "cali2", "10.0.0.2"))
    host.turn()
    host.rt.stranger(DeleteLink("cali1"))
    two = host.add_link("cali2")
    host.events.read()
    host.rt.overrun()
    host.turn()
    assert host.routes == {local_route(p("10.0.0.2"), two)}
    assert host.reason("a") == "interface cali1 does not exist"
    assert host.reason("b") == ""
    assert host.manager.in_sync


def test_rechecks_find_what_no_event_told_on_the_host_and_in_the_end_on_every_interface(host: Host) -> None:
    for number in range(5):
        host.add_link(f"cali{number}")
        host.manager.on_endpoint_update(endpoint(f"w{number}", f"cali{number}", f"10.0.0.{number}"))
    host.turn()
    right = dict(host.sysctl.values)
    wrong = dict.fromkeys(right, "7")
    host.sysctl.values.update(wrong)
    host.turn()
    assert host.sysctl.values == wrong  # nobody said anything
    host.manager.recheck(2)
    host.turn()
    assert host.sysctl.values["net/ipv4/ip_forward"] == "1"
    assert host.sysctl.values != right
    host.manager.recheck(2)
    host.manager.recheck(2)
    host.turn()
    assert host.sysctl.values == right
    host.manager.recheck(100)
    host.sysctl.writes.clear()
    host.turn()
    assert host.sysctl.writes == []
    assert all(host.reason(f"w{number}") == "" for number in range(5))


def test_gateways_in_use_are_addresses_of_the_host(host: Host) -> None:
    def update(name: str, address: str, gateway: str) -> EndpointUpdate:
        made = endpoint(name, f"cali{name}", address)
        return msgspec.structs.replace(made, endpoint=msgspec.structs.replace(made.endpoint, gateway4=p(gateway)))

    def gateways() -> set[str]:
        host.manager.begin()
        host.turn()
        return {item.address.address for item in host.rt.addresses() if item.index == 1} - {"127.0.0.1", "169.254.1.1"}

    host.manager.on_endpoint_update(update("a", "10.0.0.5", "10.0.0.1"))
    host.manager.on_endpoint_update(update("b", "10.0.0.6", "10.0.0.1"))
    assert gateways() == {"10.0.0.1"}
    host.manager.on_endpoint_update(update("b", "10.0.0.6", "10.0.0.5"))
    assert gateways() == {"10.0.0.1"}, "what is a workload's is not the host's"
    host.manager.on_endpoint_remove(EndpointRemove(update("a", "10.0.0.5", "10.0.0.1").key))
    assert gateways() == {"10.0.0.5"}
    host.manager.on_endpoint_update(update("a", "10.0.0.5", "10.0.0.1"))
    assert gateways() == {"10.0.0.1"}


@pytest.mark.parametrize("heard", range(8))
def test_an_interface_that_vanishes_before_its_endpoint_is_neither_failure_nor_drift(host: Host, heard: int) -> None:
    """However much of the news had come when the agent looked."""
    host.add_link("cali1")
    host.add_link("cali2")
    host.manager.on_endpoint_update(endpoint("a", "cali1", "10.0.0.1", "fd00::1"))
    host.manager.on_endpoint_update(endpoint("b", "cali2", "10.0.0.2"))
    host.turn()
    host.turn()
    host.rt.stranger(DeleteLink("cali1"))
    news = host.events.read()
    for event in news[:heard]:
        host.manager.on_event(event)
    # Another address for each: for the one that is there it works.
    host.manager.on_endpoint_update(endpoint("a", "cali1", "10.0.0.3", "fd00::1"))
    host.manager.on_endpoint_update(endpoint("b", "cali2", "10.0.0.4"))
    result = host.manager.apply()
    assert (result.errors, result.drifts) == ([], ())
    assert host.reason("b") == ""
    for event in news[heard:]:
        host.manager.on_event(event)
    result = host.manager.apply()
    assert (result.errors, result.drifts) == ([], ())
    assert host.reason("a") == "interface cali1 does not exist"
    host.manager.on_endpoint_remove(EndpointRemove(key("a")))
    host.turn()
    assert host.manager.in_sync
    assert host.routes == {local_route(p("10.0.0.4"), host.rt.index_of("cali2"))}


def test_an_endpoint_that_goes_before_its_interface_is_no_drift(host: Host) -> None:
    host.add_link("cali1")
    host.manager.on_endpoint_update(endpoint("a", "cali1", "10.0.0.1"))
    host.turn()
    host.turn()
    host.manager.on_endpoint_remove(EndpointRemove(key("a")))
    assert host.manager.apply().drifts == ()
    assert host.rt.neighbours() == []


def paired(name: str, interface: str, nets: str, pairs: tuple[Pair, ...], routed: str = "") -> EndpointUpdate:
    update = endpoint(name, interface, *nets.split())
    made = msgspec.structs.replace(update.endpoint, pairs=pairs, routed=tuple(map(p, routed.split())))
    return msgspec.structs.replace(update, endpoint=made)


def test_prefixes_are_reached_by_the_ports_own_address_or_by_the_mac_that_they_are_paired_with(host: Host) -> None:
    index = host.add_link("cali1")
    other = "00:00:5e:00:01:07"
    pairs = (Pair(p("10.0.0.7"), other), Pair(p("10.8.0.0/24"), ""), Pair(p("10.9.0.0/24"), other), Pair(p("fd09::/64"), ""))
    host.manager.on_endpoint_update(paired("a", "cali1", "10.0.0.1 10.0.0.7", pairs, "10.8.0.0/24 10.9.0.0/24 fd09::/64"))
    host.turn()
    assert host.reason("a") == ""
    ways = {str(route.destination): route.hops for route in host.routes}
    assert ways["10.8.0.0/24"] == (Hop(index, p("10.0.0.1"), on_link=True),)
    assert [ways[net] for net in ("10.9.0.0/24", "fd09::/64", "10.0.0.7/32")] == [(Hop(index),)] * 3
    assert {entry.address.address: entry.mac for entry in host.rt.neighbours()} == {"10.0.0.1": MAC, "10.0.0.7": other}
    host.manager.on_endpoint_remove(EndpointRemove(key("a")))
    host.turn()
    assert host.routes == set()


def test_a_shared_address_is_at_one_of_its_ports_and_the_other_is_ready(host: Host) -> None:
    first, second = host.add_link("cali1"), host.add_link("cali2")
    pair = (Pair(p("10.0.0.7"), ""),)
    host.manager.on_endpoint_update(paired("a", "cali1", "10.0.0.1 10.0.0.7", pair))
    host.manager.on_endpoint_update(paired("b", "cali2", "10.0.0.2 10.0.0.7", pair))
    host.turn()
    assert (host.reason("a"), host.reason("b")) == ("", "")
    assert local_route(p("10.0.0.7"), first) in host.routes
    host.manager.on_endpoint_update(endpoint("a", "cali1", "10.0.0.1"))
    host.turn()
    assert local_route(p("10.0.0.7"), second) in host.routes
    assert (host.reason("a"), host.reason("b")) == ("", "")

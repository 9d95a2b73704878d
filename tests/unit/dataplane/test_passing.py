"""Ports that are passed on to other hosts, against the fake kernel."""

from __future__ import annotations

import msgspec
import pytest
from test_workloads import Host, endpoint, key, p

from tabinet.calc.messages import EndpointRemove, EndpointUpdate, ForwardElsewhere
from tabinet.dataplane.passing import FIRST_TABLE, RULE_PRIORITY, PassingManager
from tabinet.kernel.rtfake import FakeRtnetlink
from tabinet.kernel.rtnetlink import AddAddress, AddPortRule, DeletePortRule, DeleteRoute, InterfaceAddress, PortRule, SetLink
from tabinet.lib.ip import parse_prefix

FLOATING = p("192.0.2.1")


def elsewhere(host: str, *addresses: str, first: int = 80, last: int = 80) -> ForwardElsewhere:
    return ForwardElsewhere(FLOATING, 6, first, last, host, tuple(p(address) for address in addresses))


def told(name: str, *ports: ForwardElsewhere) -> EndpointUpdate:
    update = endpoint(name, f"cali{name}", "10.0.0.1")
    return msgspec.structs.replace(update, endpoint=msgspec.structs.replace(update.endpoint, elsewhere=ports))


class PassingHost(Host):
    """Has eth0 with 10.1.0.1/24."""

    def __init__(self, rt: FakeRtnetlink | None = None) -> None:
        super().__init__(rt)
        if rt is None:
            self.connect("eth0", "10.1.0.1")
        self.passing = PassingManager(self.rt)

    def connect(self, name: str, address: str) -> int:
        index = self.add_link(name)
        self.rt.stranger(SetLink(index, up=True), AddAddress(InterfaceAddress(index, p(address), 24)))
        return index

    def settle(self) -> list[str]:
        """Turns until nothing is left to do. Gives the drifts."""
        drifts: list[str] = []
        for _ in range(10):
            for event in self.events.read():
                self.passing.on_event(event)
            done, found = self.passing.apply()
            drifts += [drift.text for drift in found]
            if not done and self.passing.in_sync:
                return drifts
        raise AssertionError("never in sync")

    def ways(self) -> dict[tuple[int, int], str]:
        """By ports: the gateway of the table that their rule leads to."""
        rules = self.rt.port_rules()
        assert all((rule.destination, rule.protocol, rule.priority) == (FLOATING, 6, RULE_PRIORITY) for rule in rules)
        found = {}
        for rule in rules:
            (route,) = self.rt.routes(table=rule.table)
            gateway = route.hops[0].gateway
            assert (route.destination, gateway is not None) == (parse_prefix("0.0.0.0/0"), True)
            found[rule.first_port, rule.last_port] = gateway.address if gateway is not None else ""
        return found


@pytest.fixture
def host() -> PassingHost:
    return PassingHost()


def test_ports_are_passed_on_by_the_host_that_they_lead_to(host: PassingHost) -> None:
    host.passing.on_endpoint_update(told("a", elsewhere("h2", "10.1.0.2"), elsewhere("h3", "10.1.0.3", first=90, last=99)))
    assert host.settle() == []
    assert host.ways() == {(80, 80): "10.1.0.2", (90, 99): "10.1.0.3"}
    host.passing.on_endpoint_update(told("a", elsewhere("h3", "10.1.0.3"), elsewhere("h4", "10.1.0.4", first=81, last=81)))
    host.settle()
    assert host.ways() == {(80, 80): "10.1.0.3", (81, 81): "10.1.0.4"}
    host.passing.on_endpoint_remove(EndpointRemove(key("a")))
    assert host.settle() == []
    assert host.rt.port_rules() == []
    assert [host.rt.routes(table=FIRST_TABLE + number) for number in range(3)] == [[], [], []]


def test_hosts_that_are_not_on_a_link_get_nothing(host: PassingHost) -> None:
    host.passing.on_endpoint_update(told("a", elsewhere("far", "10.2.0.2"), elsewhere("unknown", first=81, last=82)))
    host.settle()
    assert host.rt.port_rules() == []
    assert host.passing.problems == (
        "port 6/80 of 192.0.2.1 leads to host far: no link or VXLAN tunnel goes there",
        "port 6/81-82 of 192.0.2.1 leads to host unknown: no link or VXLAN tunnel goes there",
    )
    host.connect("eth1", "10.2.0.1")
    host.settle()
    assert host.ways() == {(80, 80): "10.2.0.2"}
    assert len(host.passing.problems) == 1


def test_a_restart_changes_nothing_and_sweeps_what_is_left_over(host: PassingHost) -> None:
    host.passing.on_endpoint_update(told("a", elsewhere("h9", "10.1.0.9"), elsewhere("h2", "10.1.0.2", first=81, last=81)))
    host.settle()
    host.passing.on_endpoint_update(told("a", elsewhere("h2", "10.1.0.2", first=81, last=81)))
    host.settle()
    again = PassingHost(host.rt)
    again.passing.on_endpoint_update(told("a", elsewhere("h2", "10.1.0.2", first=81, last=81)))
    assert again.passing.apply() == (0, ())
    third = PassingHost(host.rt)
    third.settle()
    assert host.rt.port_rules() == []
    assert [host.rt.routes(table=FIRST_TABLE + number) for number in range(3)] == [[], [], []]


def test_what_others_change_is_repaired_and_told(host: PassingHost) -> None:
    host.passing.on_endpoint_update(told("a", elsewhere("h2", "10.1.0.2")))
    host.settle()
    (rule,), (route,) = host.rt.port_rules(), host.rt.routes(table=FIRST_TABLE)
    other = PortRule(FLOATING, 6, 443, 443, FIRST_TABLE, RULE_PRIORITY)
    host.rt.stranger(DeletePortRule(rule), AddPortRule(other), DeleteRoute(route))
    host.passing.mark_stale()
    assert [text for text in host.settle() if text.startswith("rule")] == ["rule of port 6/80 is gone", "rule of port 6/443 is not wanted"]
    assert host.ways() == {(80, 80): "10.1.0.2"}


def test_routes_come_again_with_their_interface(host: PassingHost) -> None:
    host.passing.on_endpoint_update(told("a", elsewhere("h2", "10.1.0.2")))
    host.settle()
    eth0 = host.rt.index_of("eth0")
    host.rt.stranger(SetLink(eth0, up=False))
    for event in host.events.read():
        host.passing.on_event(event)
    host.passing.apply()
    assert not host.passing.in_sync
    host.rt.stranger(SetLink(eth0, up=True))
    host.settle()
    assert host.ways() == {(80, 80): "10.1.0.2"}

"""LinkDriver against the fake kernel."""

from __future__ import annotations

import errno

import pytest

from tabinet.dataplane.links.driver import HOST, LinkDriver
from tabinet.dataplane.links.items import GATEWAY_IPV4, GATEWAY_IPV6
from tabinet.kernel.rtfake import FakeEvents, FakeRtnetlink
from tabinet.kernel.rtnetlink import (
    AddAddress,
    AddVeth,
    DeleteAddress,
    DeleteLink,
    DeleteNeighbour,
    InterfaceAddress,
    Neighbour,
    SetLink,
    SetNeighbour,
    execute_all,
)
from tabinet.kernel.sysctl import FakeSysctl
from tabinet.lib.ip import Prefix, parse_prefix

MAC = "02:00:00:00:00:09"


def p(text: str) -> Prefix:
    return parse_prefix(text)


class Host:
    def __init__(self) -> None:
        self.rt = FakeRtnetlink()
        execute_all(self.rt, [AddVeth("cali1", "eth0"), AddVeth("cali2", "eth1")])
        self.rt.executed.clear()
        self.events: FakeEvents = self.rt.events()
        self.sysctl = FakeSysctl({f"net/ipv4/neigh/cali{i}/proxy_delay": "80" for i in (1, 2)} | {"net/ipv6/conf/cali1/accept_ra": "1"})
        self.driver = LinkDriver(self.rt, self.sysctl)

    def index(self, name: str) -> int:
        return self.rt.index_of(name)

    def hear(self) -> None:
        for event in self.events.read():
            self.driver.on_event(event)

    def forget(self) -> None:
        """What was done so far is not looked at."""
        self.rt.executed.clear()
        self.sysctl.writes.clear()


@pytest.fixture
def host() -> Host:
    return Host()


def test_a_workloads_interface_is_set_up_completely(host: Host) -> None:
    index = host.index("cali1")
    host.driver.want(index, "cali1", {p("10.0.0.1"): MAC, p("fd00::1"): MAC.upper(), p("10.0.0.2"): ""})
    assert not host.driver.is_set_up(index)
    result = host.driver.apply()
    assert result.errors == {}
    assert host.driver.is_set_up(index)
    assert set(host.sysctl.writes) == {
        ("net/ipv4/conf/cali1/forwarding", "1"),
        ("net/ipv4/conf/cali1/proxy_arp", "1"),
        ("net/ipv4/neigh/cali1/proxy_delay", "0"),
        ("net/ipv6/conf/cali1/forwarding", "1"),
        ("net/ipv6/conf/cali1/accept_ra", "0"),
    }
    assert host.rt.executed[:2] == [SetLink(index, up=True), AddAddress(InterfaceAddress(index, GATEWAY_IPV6, 64))]
    assert set(host.rt.executed[2:]) == {
        SetNeighbour(Neighbour(index, p("10.0.0.1"), MAC)),
        SetNeighbour(Neighbour(index, p("fd00::1"), MAC)),
    }
    assert "cali1 up" in result.changed
    assert "net.ipv4.conf.cali1.proxy_arp = 1" in result.changed
    assert f"cali1 neighbour 10.0.0.1 {MAC}" in result.changed


def test_the_host_becomes_a_router(host: Host) -> None:
    host.driver.want_host()
    host.driver.apply()
    assert host.driver.is_set_up(HOST)
    assert InterfaceAddress(1, GATEWAY_IPV4, 32) in host.rt.addresses()
    values = host.sysctl.values
    assert values["net/ipv4/ip_forward"] == values["net/ipv6/conf/all/forwarding"] == "1"
    assert values["net/ipv6/conf/all/keep_addr_on_down"] == values["net/ipv4/conf/all/ignore_routes_with_linkdown"] == "1"


def test_a_new_driver_changes_nothing_that_is_right(host: Host) -> None:
    index = host.index("cali1")
    neighbours = {p("10.0.0.1"): MAC}
    for driver in (host.driver, LinkDriver(host.rt, host.sysctl)):
        host.forget()
        driver.want_host()
        driver.want(index, "cali1", neighbours)
        result = driver.apply()
    assert (result.changed, host.rt.executed, host.sysctl.writes) == ((), [], [])
    assert driver.is_set_up(index)
    assert driver.in_sync


def test_interfaces_of_others_are_left_alone(host: Host) -> None:
    stranger = host.index("cali2")
    host.rt.stranger(SetNeighbour(Neighbour(stranger, p("10.0.0.9"), MAC)))
    host.driver.want(host.index("cali1"), "cali1", {})
    host.driver.apply()
    assert {op.index for op in host.rt.executed if isinstance(op, SetLink)} == {host.index("cali1")}
    assert not [op for op in host.rt.executed if isinstance(op, DeleteNeighbour)]


def test_neighbours_follow_the_endpoint(host: Host) -> None:
    index = host.index("cali1")
    host.driver.want(index, "cali1", {p("10.0.0.1"): MAC, p("10.0.0.2"): MAC})
    host.driver.apply()
    host.driver.want(index, "cali1", {p("10.0.0.2"): "02:00:00:00:00:0a"})
    host.driver.apply()
    assert host.rt.neighbours() == [Neighbour(index, p("10.0.0.2"), "02:00:00:00:00:0a")]
    host.driver.drop(index)
    host.driver.apply()
    assert host.rt.neighbours() == []
    assert host.driver.in_sync


def test_a_leftover_neighbour_of_a_workload_is_swept(host: Host) -> None:
    index = host.index("cali1")
    host.rt.stranger(SetNeighbour(Neighbour(index, p("10.0.0.77"), MAC)))
    host.driver.want(index, "cali1", {})
    host.driver.apply()
    assert host.rt.neighbours() == []


def test_down_and_up_again_is_repaired_from_events(host: Host) -> None:
    index = host.index("cali1")
    host.driver.want(index, "cali1", {p("10.0.0.1"): MAC})
    host.driver.apply()
    host.hear()
    assert host.driver.in_sync
    host.rt.stranger(SetLink(index, up=False))
    host.hear()
    assert not host.driver.is_set_up(index)
    host.forget()
    host.driver.apply()
    assert [type(op) for op in host.rt.executed] == [SetLink, AddAddress, SetNeighbour]
    assert host.sysctl.writes == []
    host.hear()
    assert host.driver.in_sync


def test_a_removed_gateway_address_comes_back(host: Host) -> None:
    host.driver.want_host()
    host.driver.apply()
    host.hear()
    host.rt.stranger(DeleteAddress(InterfaceAddress(1, GATEWAY_IPV4, 32)))
    host.hear()
    host.driver.apply()
    assert InterfaceAddress(1, GATEWAY_IPV4, 32) in host.rt.addresses()


def test_an_interface_that_comes_back_under_its_name_is_set_up_anew(host: Host) -> None:
    host.driver.want(host.index("cali1"), "cali1", {p("10.0.0.1"): MAC})
    host.driver.apply()
    host.rt.stranger(DeleteLink("cali1"), AddVeth("cali1", "eth0"))
    for key in list(host.sysctl.values):
        if "/cali1/" in key:
            host.sysctl.values[key] = "7"
    host.hear()
    assert host.driver.in_sync
    host.driver.want(host.index("cali1"), "cali1", {p("10.0.0.1"): MAC})
    assert len(host.driver.apply().changed) == 5 + 3


def test_errors_belong_to_an_interface_and_stay_pending(host: Host) -> None:
    one, two = host.index("cali1"), host.index("cali2")
    host.sysctl.absent = frozenset({"net/ipv4/conf/cali1/proxy_arp"})
    host.rt.refuse(SetLink, errno.EPERM, times=2)
    host.driver.want(two, "cali2", {})
    host.driver.want(one, "cali1", {})
    result = host.driver.apply()
    assert {index: error.errno for index, error in result.errors.items()} == {one: errno.ENOENT, two: errno.EPERM}
    assert not host.driver.in_sync
    host.sysctl.absent = frozenset()
    assert host.driver.apply().errors == {}
    assert host.driver.is_set_up(one)
    assert host.driver.is_set_up(two)


def test_without_ipv6_nothing_of_it_is_wanted(host: Host) -> None:
    host.sysctl.absent = frozenset({"net/ipv6"})
    driver = LinkDriver(host.rt, host.sysctl, ipv6=False)
    driver.want_host()
    driver.want(host.index("cali1"), "cali1", {p("fd00::1"): MAC})
    assert driver.apply().errors == {}
    assert all(a.address.family == 4 for a in host.rt.addresses())


def test_lost_events_make_it_read_again(host: Host) -> None:
    index = host.index("cali1")
    host.driver.want(index, "cali1", {p("10.0.0.1"): MAC})
    host.driver.apply()
    host.rt.stranger(SetLink(index, up=False))
    host.events.read()
    host.rt.overrun()
    host.hear()
    assert not host.driver.is_set_up(index)
    host.driver.apply()
    assert host.driver.is_set_up(index)
    assert host.rt.neighbours() == [Neighbour(index, p("10.0.0.1"), MAC)]


def test_verification_finds_a_changed_sysctl(host: Host) -> None:
    host.driver.want(host.index("cali1"), "cali1", {})
    host.driver.apply()
    host.sysctl.values["net/ipv4/conf/cali1/proxy_arp"] = "0"
    assert host.driver.apply().changed == ()
    host.driver.mark_stale()
    assert host.driver.apply().changed == ("net.ipv4.conf.cali1.proxy_arp = 1",)


def test_addresses_towards_workloads_come_and_go_with_what_is_wanted(host: Host) -> None:
    peering = InterfaceAddress(1, p("169.254.9.9/32"), 32)
    host.driver.want_host()
    host.driver.apply()
    host.driver.want_host([peering.address])
    assert host.driver.apply().changed == ("lo address 169.254.9.9/32",)
    host.hear()
    assert host.driver.is_set_up(HOST)
    host.driver.want_host([peering.address])
    assert host.driver.apply().changed == ()
    host.rt.stranger(DeleteAddress(peering))
    host.hear()
    assert host.driver.apply().changed == ("lo address 169.254.9.9/32",)
    host.driver.want_host()
    assert host.driver.apply().changed == ("lo address 169.254.9.9/32 removed",)
    assert peering not in host.rt.addresses()
    host.hear()
    assert host.driver.in_sync


def test_an_address_that_was_there_before_is_left_there(host: Host) -> None:
    address = InterfaceAddress(1, p("fd00::9/128"), 128)
    host.rt.stranger(AddAddress(address))
    host.driver.want_host()
    host.driver.apply()
    host.hear()
    host.driver.want_host([address.address])
    assert host.driver.apply().changed == ()
    host.driver.want_host()
    assert host.driver.apply().changed == ()
    assert address in host.rt.addresses()

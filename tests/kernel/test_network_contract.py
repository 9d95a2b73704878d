"""What ``connect``, ``configure`` and ``disconnect`` do, on the kernel and on the fake alike."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import pytest

from tabinet.attach.fakenetwork import FakeNetwork
from tabinet.attach.inside import HOST_MAC
from tabinet.attach.network import LinuxNetwork, Network
from tabinet.attach.plug import Pair, configure, connect, disconnect
from tabinet.errors import AttachError
from tabinet.kernel import netns
from tabinet.kernel.rtnetlink import AddVeth, DeleteLink, InterfaceAddress, Link, ReplaceRoute, device_route, execute_all
from tabinet.lib.ip import parse_address

ADDRESSES = (parse_address("10.65.0.1"), parse_address("fd00:65::1"))


@dataclass(slots=True)
class Place:
    """A network, a workload's namespace in it, and ways to make and remove namespaces."""

    network: Network
    namespace: str
    create: Callable[[str], object]
    remove: Callable[[str], None]

    def host_links(self) -> dict[str, Link]:
        return {link.name: link for link in self.network.on_host(lambda rtnetlink: rtnetlink.links()) if link.name != "lo"}

    def inner_links(self, namespace: str = "") -> dict[str, Link]:
        links = self.network.inside(namespace or self.namespace, lambda rtnetlink, _: rtnetlink.links())
        return {link.name: link for link in links if link.name != "lo"}


@pytest.fixture(params=["fake", pytest.param("linux", marks=pytest.mark.kernel)])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "fake":
        fake = FakeNetwork()
        fake.create("inner")
        yield Place(fake, "inner", fake.create, fake.remove)
        return
    host, inner = (f"tabn-{os.getpid()}-{part}" for part in ("host", "inner"))
    made: list[str] = []

    def create(name: str) -> None:
        netns.create(name)
        made.append(name)

    try:
        create(host)
        create(inner)
        yield Place(LinuxNetwork(host), inner, create, netns.delete)
    finally:
        for name in made:
            if netns.exists(name):
                netns.delete(name)


def test_a_pair_is_made_once(place: Place) -> None:
    pair = connect(place.network, "cali1", place.namespace, "eth0", 1400)
    assert pair.made
    assert connect(place.network, "cali1", place.namespace, "eth0", 1400) == Pair(made=False, mac=pair.mac)
    host, inner = place.host_links()["cali1"], place.inner_links()["eth0"]
    assert inner.mac == pair.mac
    assert (host.mac, host.up, host.mtu) == (HOST_MAC, True, 1400)
    assert (inner.up, inner.mtu) == (False, 1400)
    assert (host.peer_index, inner.peer_index) == (inner.index, host.index)


def test_a_pair_that_has_to_be_smaller_is_so_at_both_ends(place: Place) -> None:
    connect(place.network, "cali1", place.namespace, "eth0")
    for mtu in (1400, 1450, 0):
        assert not connect(place.network, "cali1", place.namespace, "eth0", mtu).made
        assert (place.host_links()["cali1"].mtu, place.inner_links()["eth0"].mtu) == (mtu or 1450, mtu or 1450)


def test_the_inside_is_configured_and_again(place: Place) -> None:
    connect(place.network, "cali1", place.namespace, "eth0")
    for _ in range(2):
        configure(place.network, place.namespace, "eth0", ADDRESSES)
        inner = place.inner_links()["eth0"]
        assert inner.up
        found = place.network.inside(place.namespace, lambda rtnetlink, _: rtnetlink.addresses())
        assert {InterfaceAddress(inner.index, address, address.bits) for address in ADDRESSES} <= set(found)
        routes = place.network.inside(place.namespace, lambda rtnetlink, _: rtnetlink.routes(protocol=84))
        assert sorted(str(route.destination) for route in routes) == ["0.0.0.0/0", "169.254.1.1/32", "::/0"]
        value = place.network.inside(place.namespace, lambda _, sysctl: sysctl.read("net/ipv6/conf/eth0/accept_ra"))
        assert value == "0"


def test_both_ends_go_together(place: Place) -> None:
    connect(place.network, "cali1", place.namespace, "eth0")
    for _ in range(2):
        disconnect(place.network, "cali1")
        assert place.host_links() == place.inner_links() == {}


def test_nothing_leads_to_an_interface_that_is_gone_and_its_name_is_free(place: Place) -> None:
    network = place.network
    for _ in range(5):
        assert connect(network, "cali1", place.namespace, "eth0").made
        configure(network, place.namespace, "eth0", ADDRESSES)
        index = place.host_links()["cali1"].index
        ways = [ReplaceRoute(device_route(address, index)) for address in ADDRESSES]
        network.on_host(partial(execute_all, operations=ways))
        assert len(network.on_host(lambda rtnetlink: rtnetlink.routes(protocol=84))) == 2
        disconnect(network, "cali1")
        assert network.on_host(lambda rtnetlink: rtnetlink.routes(protocol=84)) == []
        assert network.on_host(lambda rtnetlink: rtnetlink.link("cali1")) is None
        assert network.inside(place.namespace, lambda rtnetlink, _: rtnetlink.link("eth0")) is None


def test_what_was_not_there_is_not_removed_later(place: Place) -> None:
    for _ in range(20):
        disconnect(place.network, "cali1")
        assert connect(place.network, "cali1", place.namespace, "eth0").made
        for thread in threading.enumerate():
            if thread.name == "remove-interface":
                thread.join(10)
        assert "cali1" in place.host_links()
        disconnect(place.network, "cali1")


def test_an_interface_is_found_by_its_name(place: Place) -> None:
    connect(place.network, "cali1", place.namespace, "eth0")
    assert place.network.on_host(lambda rtnetlink: rtnetlink.link("cali1")) == place.host_links()["cali1"]
    assert place.network.inside(place.namespace, lambda rtnetlink, _: rtnetlink.link("eth0")) == place.inner_links()["eth0"]


def test_a_pair_that_leads_elsewhere_is_made_anew(place: Place) -> None:
    connect(place.network, "cali1", place.namespace, "eth0")
    other = f"{place.namespace}-2"
    place.create(other)
    assert connect(place.network, "cali1", other, "eth0").made
    assert place.inner_links() == {}
    assert place.inner_links(other)["eth0"].index == place.host_links()["cali1"].peer_index


def test_the_hosts_end_goes_with_the_namespace(place: Place) -> None:
    connect(place.network, "cali1", place.namespace, "eth0")
    place.remove(place.namespace)
    disconnect(place.network, "cali1")
    assert place.host_links() == {}


def test_another_interface_in_the_way(place: Place) -> None:
    place.network.inside(place.namespace, lambda rtnetlink, _: execute_all(rtnetlink, [AddVeth(name="eth0", peer_name="eth1")]))
    with pytest.raises(AttachError, match="has an interface eth0 that is not ours"):
        connect(place.network, "cali1", place.namespace, "eth0")
    assert place.host_links() == {}
    assert set(place.inner_links()) == {"eth0", "eth1"}


def test_missing_things(place: Place) -> None:
    with pytest.raises(AttachError, match="there is no network namespace nowhere"):
        connect(place.network, "cali1", "nowhere", "eth0")
    with pytest.raises(AttachError, match="there is no network namespace nowhere"):
        configure(place.network, "nowhere", "eth0", ADDRESSES)
    with pytest.raises(AttachError, match="interface eth0 is gone"):
        configure(place.network, place.namespace, "eth0", ADDRESSES)
    assert place.network.on_host(lambda rtnetlink: rtnetlink.link("cali1")) is None


def test_an_interface_that_was_deleted_inside_takes_the_hosts_along(place: Place) -> None:
    connect(place.network, "cali1", place.namespace, "eth0")
    place.network.inside(place.namespace, lambda rtnetlink, _: execute_all(rtnetlink, [DeleteLink("eth0")]))
    assert place.host_links() == place.inner_links() == {}

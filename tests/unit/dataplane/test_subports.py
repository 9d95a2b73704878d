"""Subports of trunks against the fake kernel: their VLAN interfaces come, go, and come again with their parents."""

from __future__ import annotations

import errno

import msgspec
import pytest
from test_workloads import Host, endpoint, key, p

from tabinet.calc.messages import EndpointRemove, EndpointUpdate, Trunk
from tabinet.dataplane.drift import DriftKind
from tabinet.dataplane.links.vlans import OWNER, UNSUPPORTED
from tabinet.dataplane.routes.driver import local_route
from tabinet.kernel.rtfake import FakeRtnetlink
from tabinet.kernel.rtnetlink import AddVlan, DeleteLink, Link, Neighbour, SetAlias


def subport(name: str, parent: str, tag: int, *nets: str) -> EndpointUpdate:
    update = endpoint(name, f"tap{name}", *nets)
    return msgspec.structs.replace(update, endpoint=msgspec.structs.replace(update.endpoint, trunk=Trunk(parent, tag)))


class TrunkHost(Host):
    """``settle``: turns until nothing is left to do. Gives the drifts."""

    def settle(self) -> list[str]:
        drifts: list[str] = []
        for _ in range(10):
            for event in self.events.read():
                self.manager.on_event(event)
            result = self.manager.apply()
            drifts += [f"{drift.kind.value} {drift.name} {drift.text}" for drift in result.drifts]
            if not result.operations and self.manager.in_sync:
                return drifts
        raise AssertionError("never in sync")

    def vlans(self) -> dict[str, tuple[str, int]]:
        """Parent and tag by name."""
        names = {link.index: link.name for link in self.rt.links()}
        return {link.name: (names[link.peer_index], link.vlan) for link in self.rt.links() if link.kind == "vlan"}

    def link(self, name: str) -> Link:
        return next(link for link in self.rt.links() if link.name == name)


def started(rt: FakeRtnetlink | None = None) -> TrunkHost:
    host = TrunkHost(rt)
    host.manager.begin()
    return host


@pytest.fixture
def host() -> TrunkHost:
    host = started()
    host.add_link("tapp")
    host.manager.on_endpoint_update(endpoint("p", "tapp", "10.0.0.1"))
    host.settle()
    return host


def test_a_subport_gets_an_interface_and_is_then_like_any_port(host: TrunkHost) -> None:
    host.manager.on_endpoint_update(subport("s", "tapp", 7, "10.0.1.1", "fd00::1"))
    assert host.reason("s") == "interface taps is being made"
    host.settle()
    assert host.reason("s") == ""
    assert host.vlans() == {"taps": ("tapp", 7)}
    link = host.link("taps")
    assert (link.up, link.alias) == (True, OWNER)
    assert {local_route(p("10.0.1.1"), link.index), local_route(p("fd00::1"), link.index)} <= host.routes
    assert Neighbour(link.index, p("10.0.1.1"), "02:00:00:00:00:09") in host.rt.neighbours()
    host.manager.on_endpoint_remove(EndpointRemove(key("s")))
    assert host.settle() == []
    assert host.vlans() == {}
    assert host.reason("p") == ""


def test_a_subport_waits_for_its_parents_interface() -> None:
    host = started()
    host.manager.on_endpoint_update(subport("s", "tapp", 7, "10.0.1.1"))
    host.settle()
    assert host.reason("s") == "interface tapp of its trunk does not exist"
    assert not host.manager.status(key("s")).failed
    host.add_link("tapp")
    host.settle()
    assert host.reason("s") == ""
    assert key("s") in host.manager.take_changed()


def test_a_replaced_parent_gets_its_subports_again_and_that_is_no_drift(host: TrunkHost) -> None:
    host.manager.on_endpoint_update(subport("s", "tapp", 7, "10.0.1.1"))
    host.settle()
    before = host.link("taps").index
    host.rt.stranger(DeleteLink("tapp"))
    assert host.settle() == []
    assert host.reason("s") == "interface tapp of its trunk does not exist"
    assert host.vlans() == {}
    host.add_link("tapp")
    assert host.settle() == []
    assert host.reason("s") == ""
    assert host.link("taps").index != before
    # All of it between two looks at the kernel.
    host.rt.stranger(DeleteLink("tapp"))
    host.add_link("tapp")
    assert host.settle() == []
    assert host.vlans() == {"taps": ("tapp", 7)}
    assert host.routes == {local_route(p("10.0.0.1"), host.link("tapp").index), local_route(p("10.0.1.1"), host.link("taps").index)}


def test_an_interface_that_somebody_deleted_is_made_again_and_told(host: TrunkHost) -> None:
    host.manager.on_endpoint_update(subport("s", "tapp", 7, "10.0.1.1"))
    host.settle()
    host.rt.stranger(DeleteLink("taps"))
    assert host.settle() == [f"{DriftKind.LINK.value} taps taps made with tag 7: is missing"]
    assert host.reason("s") == ""


def test_another_tag_or_parent_makes_another_interface(host: TrunkHost) -> None:
    host.add_link("tapq")
    for parent, tag in (("tapp", 7), ("tapp", 8), ("tapq", 8)):
        host.manager.on_endpoint_update(subport("s", parent, tag, "10.0.1.1"))
        assert host.settle() == []
        assert host.vlans() == {"taps": (parent, tag)}
        assert host.reason("s") == ""


def test_a_new_agent_takes_over_what_is_there_and_sweeps_what_nobody_wants(host: TrunkHost) -> None:
    for name, tag in (("s", 7), ("t", 8)):
        host.manager.on_endpoint_update(subport(name, "tapp", tag, f"10.0.1.{tag}"))
    host.settle()
    kept = host.link("taps")
    host.rt.stranger(AddVlan("tapu", host.link("tapp").index, 9), SetAlias("taps", ""))
    again = started(host.rt)
    again.manager.on_endpoint_update(endpoint("p", "tapp", "10.0.0.1"))
    again.manager.on_endpoint_update(subport("s", "tapp", 7, "10.0.1.7"))
    again.settle()
    assert again.vlans() == {"taps": ("tapp", 7), "tapu": ("tapp", 9)}  # whose the last one is, nothing says
    assert again.link("taps") == kept


def test_what_is_in_the_way_stays_and_the_subport_is_not_served(host: TrunkHost) -> None:
    host.add_link("taps")
    host.manager.on_endpoint_update(subport("s", "tapp", 7, "10.0.1.1"))
    host.settle()
    assert host.reason("s") == "interface taps is there and is not VLAN 7 of tapp"
    assert host.routes == {local_route(p("10.0.0.1"), host.link("tapp").index)}
    host.rt.stranger(DeleteLink("taps"))
    host.settle()
    assert host.reason("s") == ""


def test_a_kernel_without_vlans_is_no_failure_of_the_host_but_of_the_subport() -> None:
    host = started(FakeRtnetlink(vlans=False))
    host.add_link("tapp")
    host.manager.on_endpoint_update(endpoint("p", "tapp", "10.0.0.1"))
    host.manager.on_endpoint_update(subport("s", "tapp", 7, "10.0.1.1"))
    host.settle()
    assert host.reason("p") == ""
    assert host.reason("s") == UNSUPPORTED
    assert host.manager.status(key("s")).failed
    assert not host.manager.apply().failed


def test_what_the_kernel_refuses_is_tried_again(host: TrunkHost) -> None:
    host.rt.refuse(AddVlan, errno.ENOMEM)
    host.manager.on_endpoint_update(subport("s", "tapp", 7, "10.0.1.1"))
    host.turn()
    assert host.reason("s").startswith("interface taps could not be made: add VLAN interface taps")
    assert host.manager.status(key("s")).failed
    assert key("s") in host.manager.take_changed()
    host.settle()
    assert host.reason("s") == ""


def test_a_subport_that_goes_at_once_leaves_nothing(host: TrunkHost) -> None:
    host.manager.on_endpoint_update(subport("s", "tapp", 7, "10.0.1.1"))
    host.manager.apply()
    assert not host.link("taps").up
    host.manager.on_endpoint_remove(EndpointRemove(key("s")))
    host.settle()
    assert host.vlans() == {}

"""What endpoints of Neutron's ports ask of their hosts by their annotation."""

from __future__ import annotations

import msgspec
from calc_build import Fabric, Item, endpoint

from tabinet.calc.messages import Endpoint, Pair, Trunk
from tabinet.lib.ip import parse_prefix
from tabinet.model.openstack import PORT_ANNOTATION, AddressPair, PortFacts, render_port_facts
from tabinet.model.resources import WorkloadEndpoint


def port(name: str, facts: PortFacts | str, addresses: str = "10.0.0.1/32") -> Item:
    key, value = endpoint(name, addresses)
    assert isinstance(value, WorkloadEndpoint)
    text = facts if isinstance(facts, str) else render_port_facts(facts)
    return key, WorkloadEndpoint(metadata=msgspec.structs.replace(value.metadata, annotations={PORT_ANNOTATION: text}), spec=value.spec)


def only(fabric: Fabric) -> Endpoint:
    ((_, found),) = fabric.state.endpoints.values()
    return found


def test_a_subport_has_its_parents_interface_and_its_tag() -> None:
    fabric = Fabric()
    fabric.put(port("s", PortFacts(trunk_parent="tapp", vlan=7)))
    assert only(fabric).trunk == Trunk("tapp", 7)
    fabric.put(port("s", PortFacts(trunk_parent="tapp", vlan=8)))
    assert only(fabric).trunk == Trunk("tapp", 8)
    fabric.put(port("s", PortFacts()))
    assert only(fabric).trunk is None
    assert fabric.problems() == []


def test_a_tag_that_cannot_be_and_an_annotation_that_cannot_be_read_are_told() -> None:
    fabric = Fabric()
    for vlan in (0, 4095):
        fabric.put(port("s", PortFacts(trunk_parent="tapp", vlan=vlan)))
        assert only(fabric).trunk is None
        assert [f"{PORT_ANNOTATION}.vlan" in problem for problem in fabric.problems()] == [True]
    fabric.put(port("s", "{"))
    assert only(fabric).trunk is None
    assert [PORT_ANNOTATION in problem for problem in fabric.problems()] == [True]


def test_pairs_with_their_macs_and_what_of_them_is_routed() -> None:
    pairs = (
        AddressPair(net="10.0.0.7"),
        AddressPair(net="10.9.0.0/24", mac="00-00-5E-00-01-07"),
        AddressPair(net="10.0.0.0/24"),
        AddressPair(net="0.0.0.0/0"),
        AddressPair(net="nonsense"),
    )
    fabric = Fabric()
    fabric.put(port("s", PortFacts(pairs=pairs), "10.0.0.1/32 10.0.0.7/32"))
    found = only(fabric)
    assert found.pairs == tuple(
        Pair(parse_prefix(net), mac)
        for net, mac in (("0.0.0.0/0", ""), ("10.0.0.0/24", ""), ("10.0.0.7", ""), ("10.9.0.0/24", "00:00:5e:00:01:07"))
    )
    assert found.routed == (parse_prefix("10.9.0.0/24"),)
    assert [".pairs[4].net" in problem for problem in fabric.problems()] == [True]


def test_without_port_security_a_port_sends_what_it_likes_and_nothing_is_routed_for_it() -> None:
    fabric = Fabric()
    fabric.put(port("s", PortFacts(port_security=False), "10.0.0.1/32"))
    found = only(fabric)
    assert (found.any_mac, found.routed) == (True, ())
    assert {str(pair.net) for pair in found.pairs} == {"0.0.0.0/0", "::/0"}


def test_an_address_that_is_a_pair_may_be_shared_without_a_problem() -> None:
    fabric = Fabric()
    for name, own in (("s", "10.0.0.1/32"), ("t", "10.0.0.2/32")):
        key, value = port(name, PortFacts(pairs=(AddressPair(net="10.0.0.7"),)), f"{own} 10.0.0.7/32")
        assert isinstance(value, WorkloadEndpoint)
        spec = msgspec.structs.replace(value.spec, interface_name=f"tap{name}")
        fabric.put((key, WorkloadEndpoint(metadata=value.metadata, spec=spec)))
    assert fabric.problems() == []

"""What endpoints of Neutron's ports ask of their hosts by their annotation."""

from __future__ import annotations

import msgspec
from calc_build import Fabric, Item, endpoint

from tabinet.calc.messages import Endpoint, Trunk
from tabinet.model.openstack import PORT_ANNOTATION, PortFacts, render_port_facts
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

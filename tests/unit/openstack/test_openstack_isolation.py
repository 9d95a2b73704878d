"""Networks that reach each other only through routers, down to verdicts."""

from __future__ import annotations

from typing import Any

import pytest

from tabinet.attach.openstack.chains import neighbours
from tabinet.attach.openstack.cluster import complete_cluster
from tabinet.attach.openstack.groups import path_of_document, translate_group
from tabinet.attach.openstack.isolation import translate_network, translate_router
from tabinet.attach.openstack.names import Region, interface_of
from tabinet.attach.openstack.neutron import AllowedPair, ExtraRoute, FixedIp, Network, Port, PortView, SecurityGroup, SecurityGroupRule
from tabinet.attach.openstack.translate import translate_port
from tabinet.calc.graph import Graph
from tabinet.calc.inputs import InSync, Put
from tabinet.lib.ip import parse_address
from tabinet.model.codec import decode_stored, encode_document
from tabinet.rules.builder import TableBuilder
from tabinet.rules.evaluate import Packet, evaluate
from tabinet.rules.options import TableOptions

ISOLATED = Region(isolated=True)
UPLINK = "eth0"
ROUTERS = {"red": ("r1",), "blue": ("r1", "r2"), "green": ("r2",), "far": ("r3",), "farther": ("r4",), "lost": ("r5",), "island": ()}
ADDRESSES = {name: f"10.0.{number}.1" for number, name in enumerate(("red", "blue", "green", "island", "far", "farther", "lost"), 1)}
CONNECTED = {
    router: [f"{ADDRESSES[name].removesuffix('.1')}.0/24" for name, routers in ROUTERS.items() if router in routers]
    for router in ("r1", "r2", "r3", "r4", "r5")
}
ROUTES = [
    ("r1", "r3", "10.0.5.0/24"),
    ("r3", "r1", "10.0.1.0/24"),
    ("r1", "r3", "10.0.6.0/24"),
    ("r3", "r4", "10.0.6.0/24"),
    ("r4", "r3", "10.0.1.0/24"),
    ("r4", "r3", "10.0.5.0/24"),
    ("r4", "r5", "10.0.7.0/24"),
    ("r5", "r4", "10.0.0.0/20"),  # r3 and r1 know no way to r5
]
OPEN = SecurityGroup(
    id="g",
    security_group_rules=tuple(SecurityGroupRule(id=way, direction=way, ethertype="IPv4") for way in ("ingress", "egress")),
)


@pytest.fixture(scope="module")
def table() -> TableBuilder:
    """A host with a port in each network, all in a group that allows everything."""
    documents: dict[str, dict[str, Any] | None] = {**complete_cluster({}, ISOLATED, "guid")}
    documents[path_of_document(translate_group(OPEN, ISOLATED))] = translate_group(OPEN, ISOLATED)
    others = neighbours(CONNECTED, ROUTES)
    for router in CONNECTED:
        documents |= translate_router(router, ISOLATED, others.get(router, ()))
    for name, routers in ROUTERS.items():
        documents |= translate_network(name, routers, ISOLATED)
        port = Port(
            id=f"port-{name}",
            network_id=name,
            device_owner="compute:nova",
            device_id="device",
            host="hosta",
            vif_type="tap",
            mac_address="fa:16:3e:00:00:01",
            fixed_ips=(FixedIp(ip_address=ADDRESSES[name], subnet_id="s"),),
            security_groups=("g",),
            allowed_address_pairs=(AllowedPair(ip_address="10.99.0.0/24"),) if name == "red" else (),
        )
        routes = (ExtraRoute(destination="10.98.0.0/24", router="r1"),) if name == "red" else ()
        view = PortView(port=port, network=Network(id=name), groups={"g": "g"}, routers=routers, extra_routes=routes)
        documents |= translate_port(view, ISOLATED)
    graph = Graph(frozenset({"hosta"}))
    for path, document in documents.items():
        assert document is not None
        decoded = decode_stored(path, encode_document(document))
        assert decoded is not None
        graph.on_input(Put(*decoded, 1))
    graph.on_input(InSync())
    builder = TableBuilder(TableOptions(interface_prefixes=("tap",), allow_source_prefixes=True))
    for update in graph.flush():
        builder.on_update(update)
    builder.flush()
    return builder


@pytest.mark.parametrize(
    ("source", "target", "accepted"),
    [
        ("red", "blue", True),
        ("blue", "red", True),
        ("blue", "green", True),
        ("red", "green", False),  # two routers away
        ("red", "island", False),
        ("island", "red", False),
        ("10.99.0.5", "blue", True),  # an address pair of red's
        ("10.99.0.5", "island", False),
        ("10.98.0.5", "blue", True),  # behind red's port
        ("10.98.0.5", "island", False),
        ("red", "far", True),  # both routers have routes
        ("far", "red", True),
        ("blue", "far", False),  # r1 is blue's router too, but r3 knows no way back
        ("far", "blue", False),
        ("far", "farther", True),
        ("red", "farther", True),  # through three routers
        ("farther", "red", True),
        ("blue", "farther", False),
        ("farther", "lost", True),
        ("red", "lost", False),
        ("lost", "red", False),
        ("lost", "far", False),
        ("192.0.2.9", "island", True),  # from outside: groups say
    ],
)
def test_who_reaches_whom(table: TableBuilder, source: str, target: str, accepted: bool) -> None:
    inside = interface_of(f"port-{source}") if source in ADDRESSES else interface_of("port-red") if source.startswith("10.9") else UPLINK
    packet = Packet(
        inside,
        interface_of(f"port-{target}"),
        parse_address(ADDRESSES.get(source, source)),
        parse_address(ADDRESSES[target]),
        6,
        source_port=40_000,
        destination_port=80,
    )
    assert evaluate(table.table, packet).accepted is accepted


def test_without_isolation_nothing_of_it_is_stored() -> None:
    flat = Region()
    documents = {**translate_network("n", ("r",), flat), **translate_router("r", flat), **complete_cluster({}, flat, "guid")}
    assert [path for path, document in documents.items() if document is not None and "openstack-networks" in path] == []
    assert documents.keys() >= translate_network("n", ("r",), ISOLATED).keys() | translate_router("r", ISOLATED).keys()

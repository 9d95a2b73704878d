"""Plans: numbering, who peers with whom, and the resources that make hosts a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from tabinet.lab.build import cable_batch, ends_of, namespace_batch, node_batch
from tabinet.lab.faults import render_end_of_silence, render_silence
from tabinet.lab.launches import components, components_of, render_agent_file, render_client_file
from tabinet.lab.parse import parse_topology
from tabinet.lab.plan import MANAGEMENT, NodeKind, Plan, make_plan, namespace_prefix
from tabinet.lab.routerspec import Software
from tabinet.lab.state import LabDirectory
from tabinet.model.documents import Document
from tabinet.model.validate import validate_all

EXAMPLES = Path(__file__).parents[3] / "examples" / "labs"


@pytest.fixture(scope="module")
def clos() -> Plan:
    return make_plan(parse_topology((EXAMPLES / "clos.yaml").read_text()))


@pytest.fixture(scope="module")
def flat() -> Plan:
    return make_plan(parse_topology((EXAMPLES / "flat.yaml").read_text()))


def of_kind(plan: Plan, kind: str) -> dict[str, dict[str, object]]:
    """Specs of the plan's own resources, by name."""
    found = {}
    for document in plan.resources:
        if document["kind"] == kind:
            metadata, spec = document["metadata"], document["spec"]
            assert isinstance(metadata, dict)
            assert isinstance(spec, dict)
            found[metadata["name"]] = spec
    return found


@pytest.mark.parametrize("name", ["clos", "flat", "reflectors", "unnumbered", "vxlan"])
def test_the_same_topology_gives_the_same_plan_and_valid_resources(name: str) -> None:
    text = (EXAMPLES / f"{name}.yaml").read_text()
    plan = make_plan(parse_topology(text))
    assert plan == make_plan(parse_topology(text))
    assert validate_all([Document(data=data, source="plan", index=i, line=1) for i, data in enumerate(plan.resources, 1)]) == []


@pytest.mark.parametrize("name", ["clos", "flat", "reflectors", "unnumbered", "vxlan"])
def test_no_address_and_no_interface_is_given_out_twice(name: str) -> None:
    plan = make_plan(parse_topology((EXAMPLES / f"{name}.yaml").read_text()))
    ends = [end for cable in plan.cables for end in (cable.a, cable.b)]
    addresses = [item.address for end in ends for item in end.addresses] + [a for node in plan.nodes for a in node.loopbacks]
    assert len(set(addresses)) == len(addresses)
    assert len({(end.node, end.interface) for end in ends}) == len(ends)
    assert all(len(end.interface) <= 15 for end in ends)
    assert all(node.namespace.startswith(namespace_prefix(plan.name)) for node in plan.nodes)


def test_the_ends_of_a_link_are_in_one_subnet_of_two(clos: Plan) -> None:
    cable = clos.cable("host11:tor11")
    assert cable is not None
    assert cable == clos.cable("tor11:host11")
    assert [str(item) for item in cable.a.addresses] == ["10.255.0.16/31", "fd00:255::10/127"]
    assert [str(item) for item in cable.b.addresses] == ["10.255.0.17/31", "fd00:255::11/127"]
    assert (cable.a.interface, cable.b.interface) == ("host11", "tor11")
    assert clos.cable("host11:spine1") is None


def test_hosts_of_a_clos_are_known_by_their_loopbacks_and_peer_with_their_top_of_rack_routers(clos: Plan) -> None:
    nodes = of_kind(clos, "Node")
    assert nodes["host11"]["bgp"] == {"ipv4Address": "10.254.0.7/32", "ipv6Address": "fd00:254::7/128", "asNumber": 4200000011}
    peers = of_kind(clos, "BGPPeer")
    assert {name for name, spec in peers.items() if spec["node"] == "host11"} == {
        "host11-tor11-ipv4",
        "host11-tor11-ipv6",
        "host11-tor12-ipv4",
        "host11-tor12-ipv6",
    }
    assert peers["host11-tor12-ipv6"] == {"node": "host11", "peerIP": "fd00:255::14", "asNumber": 65112, "sourceAddress": "None"}
    assert of_kind(clos, "BGPConfiguration")["default"]["nodeToNodeMeshEnabled"] is False
    pools = of_kind(clos, "IPPool")
    assert [(spec["cidr"], spec["blockSize"]) for spec in pools.values()] == [("10.65.0.0/16", 26), ("fd00:65::/48", 122)]


def test_both_ends_of_every_session_agree(clos: Plan) -> None:
    """What a router expects of a host is what the host's resources say, and routers expect each other."""
    own = {name: {end_address for end in ends_of(clos, name) for end_address in end.addresses} for name in (n.name for n in clos.nodes)}
    as_numbers = {spec.name: spec.as_number for spec in clos.routers} | {host.name: host.as_number for host in clos.hosts}
    asked_by_routers = set()
    for spec in clos.routers:
        for neighbour in spec.neighbours:
            assert neighbour.peer_as == as_numbers[neighbour.peer_name]
            assert neighbour.is_host == (neighbour.peer_name in {host.name for host in clos.hosts})
            for local, peer in ((neighbour.local4, neighbour.peer4), (neighbour.local6, neighbour.peer6)):
                assert local in {item.address for item in own[spec.name]}
                assert peer in {item.address for item in own[neighbour.peer_name]}
                asked_by_routers.add((spec.name, neighbour.peer_name, local))
    asked_by_hosts = {(peer, host.name, address) for host in clos.hosts for peer, _, address in host.peers}
    assert asked_by_hosts == {item for item in asked_by_routers if item[1].startswith("host")}


def test_router_software_and_bfd_come_from_the_file(clos: Plan) -> None:
    by_name = {spec.name: spec for spec in clos.routers}
    assert (by_name["spine1"].software, by_name["tor11"].software) == (Software.BIRD, Software.FRR)
    assert {(spec.bfd_interval_ms, spec.bfd_multiplier) for spec in clos.routers} == {(150, 5)}
    assert {str(prefix) for prefix in by_name["tor11"].host_prefixes} >= {"10.65.0.0/16", "fd00:65::/48", "10.254.0.0/16"}


def test_hosts_of_a_mesh_are_known_by_their_address_on_the_segment(flat: Plan) -> None:
    nodes = of_kind(flat, "Node")
    assert nodes["node2"]["bgp"] == {"ipv4Address": "172.20.0.12/24", "ipv6Address": "fd00:20::c/64", "asNumber": 64512}
    assert of_kind(flat, "BGPPeer") == {}
    assert of_kind(flat, "BGPConfiguration")["default"] == {"nodeToNodeMeshEnabled": True, "asNumber": 64512}
    assert all(node.loopbacks == () for node in flat.nodes)


def test_routers_and_hosts_on_one_segment_without_mesh_all_peer() -> None:
    plan = make_plan(
        parse_topology("""
name: seg
routers: {r: {as: 65000}}
hosts: {a: {as: 65001}, b: {as: 65002}}
segments: {lan: {subnet4: 172.20.0.0/24, subnet6: "fd00:20::/64", members: [r, a, b]}}
""")
    )
    assert [(item.peer_name, str(item.peer4)) for item in plan.routers[0].neighbours] == [("a", "172.20.0.12/32"), ("b", "172.20.0.13/32")]
    assert {(peer, str(address)) for peer, _, address in plan.hosts[0].peers if address.family == 4} == {
        ("r", "172.20.0.11/32"),
        ("b", "172.20.0.13/32"),
    }


def test_batches_name_every_namespace_cable_and_address_once(flat: Plan) -> None:
    assert namespace_batch(flat).splitlines()[0] == "netns add tl-flat-mgmt"
    assert len(namespace_batch(flat).splitlines()) == len(flat.nodes)
    cables = cable_batch(flat).splitlines()
    assert len(cables) == len(flat.cables)
    ends = ("link add name node1 ", " netns tl-flat-lan type veth ", " peer name lan ", " netns tl-flat-node1")
    assert sum(all(part in line for part in ends) for line in cables) == 1
    node = flat.node("node1")
    management = flat.node(MANAGEMENT)
    assert node is not None
    assert management is not None
    assert node_batch(flat, node).splitlines() == [
        "link set dev lo up",
        "addr add 172.20.0.11/24 dev lan",
        "addr add fd00:20::b/64 dev lan nodad",
        "link set dev lan up",
        "addr add 172.31.0.11/24 dev mgmt",
        "link set dev mgmt up",
    ]
    assert "addr add 172.31.0.1/24 dev br0" in node_batch(flat, management)
    assert "link set dev node1 master br0 up" in node_batch(flat, management)


def test_components_start_in_an_order_that_works(clos: Plan) -> None:
    directory = LabDirectory("clos")
    everything = [(item.node, item.name) for item in components(clos, directory)]
    assert everything[0] == (MANAGEMENT, "etcd")
    assert [name for node, name in everything if node == "tor11"] == ["zebra", "bfdd", "bgpd"]
    assert [name for node, name in everything if node == "host11"] == ["bird", "agent"]
    assert len(set(everything)) == len(everything)
    paths = [item.socket for item in components(clos, directory)]
    assert all(0 < len(path) <= 107 for path in paths)  # unix(7)
    assert components_of(clos, directory, "web1") == ()
    assert components_of(clos, directory, "host11")[0].restart_argv[-1] == "-R"


def test_agents_and_commands_find_the_store(clos: Plan) -> None:
    import tomllib

    directory = LabDirectory("clos")
    agent = tomllib.loads(render_agent_file(clos, clos.hosts[0], directory))
    assert agent["agent"]["host"] == "host11"
    assert agent["agent"]["http_address"] == "unix:/run/tabinet/labs/clos/nodes/host11/http.sock"
    assert agent["store"] == {"kind": "etcd", "endpoints": ["http://172.31.0.1:2379"]}
    assert agent["bird"]["socket"].endswith("/host11/bird.ctl")
    client = tomllib.loads(render_client_file(directory))
    assert client["store"]["endpoints"] == ["unix:///run/tabinet/labs/clos/etcd.sock:0"]


def test_a_silent_cut_is_a_table_of_its_own_that_can_go_when_it_is_not_there(clos: Plan) -> None:
    cable = clos.cable("spine1:tor11")
    assert cable is not None
    assert "table netdev tabinet-lab-tor11" in render_silence(cable.a)
    assert "device spine1 priority" in render_silence(cable.b)
    assert render_end_of_silence(cable.a).splitlines() == ["table netdev tabinet-lab-tor11", "delete table netdev tabinet-lab-tor11"]


def test_kinds_of_nodes(clos: Plan) -> None:
    kinds = [node.kind for node in clos.nodes]
    assert (kinds.count(NodeKind.ROUTER), kinds.count(NodeKind.HOST), kinds.count(NodeKind.SEGMENT)) == (6, 4, 1)
    assert kinds.count(NodeKind.WORKLOAD) == len(clos.topology.workloads)


def test_every_host_peers_with_the_reflectors_and_with_nobody_else() -> None:
    plan = make_plan(parse_topology((EXAMPLES / "reflectors.yaml").read_text()))
    assert of_kind(plan, "BGPPeer") == {"reflectors": {"nodeSelector": "all()", "peerSelector": "has(reflector)"}}
    nodes = of_kind(plan, "Node")
    assert {name: spec["bgp"].get("routeReflectorClusterID") for name, spec in nodes.items() if name.startswith("rr")} == {
        "rr1": "224.0.0.1",
        "rr2": "224.0.0.1",
    }
    # Both families: a reflector with the five others, the others with two reflectors.
    assert {host.name: host.sessions for host in plan.hosts} == {"rr1": 10, "rr2": 10} | {f"node{n}": 4 for n in (1, 2, 3, 4)}
    assert all(("reflector" in host.labels) == bool(host.reflector) for host in plan.hosts)


def test_unnumbered_links_have_no_addresses_and_hosts_name_only_their_interfaces() -> None:
    plan = make_plan(parse_topology((EXAMPLES / "unnumbered.yaml").read_text()))
    fabric = [end for cable in plan.cables for end in (cable.a, cable.b) if MANAGEMENT not in (cable.a.node, cable.b.node)]
    assert fabric
    assert all(end.addresses == () for end in fabric)
    assert all(neighbour.unnumbered for router in plan.routers for neighbour in router.neighbours)
    assert {host.name: (host.uplinks, host.sessions, host.peers) for host in plan.hosts} == {
        "host11": (("tor11", "tor12"), 2, ()),
        "host12": (("tor11", "tor12"), 2, ()),
        "host21": (("tor21",), 1, ()),
    }
    (document,) = [each for each in plan.resources if each["metadata"]["name"] == "host11-uplinks"]
    assert document["metadata"]["annotations"] == {"tabinet.io/interfaces": "tor11, tor12", "tabinet.io/remote-as": "external"}


def test_a_router_without_software_is_only_a_way() -> None:
    plan = make_plan(parse_topology((EXAMPLES / "vxlan.yaml").read_text()))
    assert plan.routers == ()
    assert {host.name: (len(host.peers), host.sessions) for host in plan.hosts} == dict.fromkeys(
        ("node11", "node12", "node21", "node22"), (0, 6)
    )
    node = plan.node("node21")
    assert node is not None
    assert [(str(subnet), gateway.address) for subnet, gateway in node.ways] == [
        ("172.20.1.0/24", "172.20.2.11"),
        ("fd00:20:1::/64", "fd00:20:2::b"),
    ]
    assert "route add fd00:20:1::/64 via fd00:20:2::b\n" in node_batch(plan, node)
    assert {spec["vxlanMode"] for spec in of_kind(plan, "IPPool").values()} == {"CrossSubnet"}


def test_ip_in_ip_is_of_ipv4_pools() -> None:
    text = (EXAMPLES / "vxlan.yaml").read_text().replace("vxlan: CrossSubnet", "ipip: CrossSubnet")
    plan = make_plan(parse_topology(text))
    modes = [(spec["ipipMode"], spec["vxlanMode"]) for spec in of_kind(plan, "IPPool").values()]
    assert modes == [("CrossSubnet", "Never"), ("Never", "Never")]
    assert plan.topology.tunnelled

"""BGP intent of single hosts from nodes, configurations and peers."""

from __future__ import annotations

from typing import Any

import pytest

from tabinet.calc.bgp import bgp_intent
from tabinet.calc.bgp_nodes import RoutingFacts
from tabinet.calc.graph import Graph
from tabinet.calc.inputs import Delete, InSync, Put
from tabinet.calc.messages import BgpIntent, BgpUpdate, PeerIntent
from tabinet.lib.ip import parse_prefix
from tabinet.model.ipam import Affinity, AffinityState
from tabinet.model.keys import AffinityKey, ResourceKey
from tabinet.model.resources import (
    BGPConfigurationSpec,
    BgpPassword,
    BGPPeer,
    BGPPeerSpec,
    IPPoolSpec,
    Metadata,
    Node,
    NodeAddress,
    NodeBgp,
    NodeSpec,
)


def node(number: int, *, v6: bool = False, labels: dict[str, str] | None = None, **bgp: object) -> Node:
    fields = {"ipv4_address": f"172.16.0.{number}/24", "ipv6_address": f"fd01::{number}/64" if v6 else ""} | bgp
    return Node(metadata=Metadata(labels=labels or {}), spec=NodeSpec(bgp=NodeBgp(**fields)))


def facts(**changes: Any) -> RoutingFacts:
    nodes = {"h1": node(1, v6=True), "h2": node(2, v6=True), "h3": node(3)}
    peers = {name: peer if isinstance(peer, BGPPeer) else BGPPeer(spec=peer) for name, peer in changes.pop("peers", {}).items()}
    return RoutingFacts(**({"nodes": nodes, "peers": peers} | changes))


def intent(of: RoutingFacts, host: str = "h1") -> BgpIntent:
    found, problems = bgp_intent(host, of)
    assert found is not None
    assert problems == []
    return found


def names(of: BgpIntent) -> list[str]:
    return [peer.name for peer in of.peers]


def test_mesh_has_a_session_for_each_family_that_both_have() -> None:
    found = intent(facts())
    assert names(found) == ["mesh_h2_ipv4", "mesh_h2_ipv6", "mesh_h3_ipv4"]
    assert found.peers[0] == PeerIntent(
        name="mesh_h2_ipv4",
        address=parse_prefix("172.16.0.2"),
        port=179,
        as_number=64512,
        mesh=True,
        use_node_ip=True,
        bfd=True,
        max_restart_time_s=0,
        keepalive_time_s=0,
        ours=True,
        resource="BGPConfiguration/default",
    )
    assert (found.ipv4, found.ipv6, found.router_id) == (parse_prefix("172.16.0.1"), parse_prefix("fd01::1"), "172.16.0.1")


def test_no_mesh_when_disabled_or_with_route_reflectors() -> None:
    off = BGPConfigurationSpec(node_to_node_mesh_enabled=False)
    assert names(intent(facts(configurations={"default": off}))) == []
    reflector = {"h1": node(1), "h2": node(2, route_reflector_cluster_id="224.0.0.1"), "h3": node(3)}
    assert names(intent(facts(nodes=reflector))) == ["mesh_h3_ipv4"]
    assert names(intent(facts(nodes=reflector), "h2")) == []


def test_host_without_bgp_has_no_intent() -> None:
    assert bgp_intent("h9", facts()) == (None, [])
    assert bgp_intent("h1", facts(nodes={"h1": Node()})) == (None, [])


@pytest.mark.parametrize(
    ("own", "configurations", "expected"),
    [
        (65001, {"node.h1": 65002, "default": 65003}, 65001),
        ("1.10", {}, 65546),
        (None, {"node.h1": 65002, "default": 65003}, 65002),
        (None, {"default": 65003}, 65003),
        (None, {}, 64512),
    ],
)
def test_as_number_precedence(own: int | str | None, configurations: dict[str, int], expected: int) -> None:
    nodes = {"h1": node(1, as_number=own), "h2": node(2)}
    specs = {name: BGPConfigurationSpec(as_number=number) for name, number in configurations.items()}
    of = facts(nodes=nodes, configurations=specs)
    assert intent(of).as_number == expected
    assert intent(of, "h2").peers[0].as_number == expected


def test_own_configuration_overlays_the_default() -> None:
    default = BGPConfigurationSpec(listen_port=1179, log_severity_screen="Debug", ignored_interfaces=("docker*",))
    found = intent(facts(configurations={"default": default, "node.h1": BGPConfigurationSpec(listen_port=2179)}))
    assert (found.listen_port, found.log_severity, found.ignored_interfaces) == (2179, "Debug", ("docker*",))
    assert {peer.port for peer in found.peers} == {1179}


def test_explicit_peers_for_a_node_by_selector_and_for_all() -> None:
    nodes = {"h1": node(1, v6=True, labels={"rack": "a"}), "h2": node(2, labels={"rack": "b"})}
    peers = {
        "mine": BGPPeerSpec(node="h1", peer_ip="192.0.2.1", as_number=65100),
        "rack": BGPPeerSpec(node_selector="rack == 'a'", peer_ip="[fd02::1]:1179", as_number=65101, max_restart_time="90s"),
        "all": BGPPeerSpec(peer_ip="192.0.2.9:2179", as_number="65102", source_address="None", failure_detection_mode="None"),
    }
    of = facts(nodes=nodes, peers=peers, configurations={"default": BGPConfigurationSpec(node_to_node_mesh_enabled=False)})
    found = {peer.name: peer for peer in intent(of).peers}
    assert list(found) == ["peer_all", "peer_mine", "peer_rack"]
    assert (found["peer_rack"].address, found["peer_rack"].port) == (parse_prefix("fd02::1"), 1179)
    assert (found["peer_rack"].max_restart_time_s, found["peer_rack"].bfd) == (90, True)
    assert (found["peer_all"].use_node_ip, found["peer_all"].bfd, found["peer_all"].as_number) == (False, False, 65102)
    assert names(intent(of, "h2")) == ["peer_all"]


def test_one_session_for_each_address_the_most_specific_wins() -> None:
    peers = {
        "a": BGPPeerSpec(peer_ip="172.16.0.2", as_number=65100),
        "z": BGPPeerSpec(node="h1", peer_ip="172.16.0.2", as_number=65200),
    }
    found = intent(facts(peers=peers))
    assert [peer.name for peer in found.peers if peer.address == parse_prefix("172.16.0.2")] == ["peer_z"]


def test_peer_selector_stands_for_nodes_and_works_both_ways() -> None:
    nodes = {"h1": node(1), "rr": node(2, labels={"role": "rr"}, route_reflector_cluster_id="1.1.1.1"), "h3": node(3)}
    off = {"default": BGPConfigurationSpec(node_to_node_mesh_enabled=False)}
    spec = BGPPeerSpec(node_selector="!has(role)", peer_selector="role == 'rr'")
    of = facts(nodes=nodes, peers={"rr": spec}, configurations=off)
    assert names(intent(of)) == ["peer_rr_rr_ipv4"]
    assert names(intent(of, "rr")) == ["peer_rr_h1_ipv4", "peer_rr_h3_ipv4"]
    one_way = BGPPeerSpec(node_selector="!has(role)", peer_selector="role == 'rr'", reverse_peering="Manual")
    assert names(intent(facts(nodes=nodes, peers={"rr": one_way}, configurations=off), "rr")) == []


def test_a_peering_for_all_does_not_peer_a_node_with_itself() -> None:
    off = {"default": BGPConfigurationSpec(node_to_node_mesh_enabled=False)}
    of = facts(peers={"p": BGPPeerSpec(peer_ip="172.16.0.1", as_number=64512)}, configurations=off)
    assert names(intent(of)) == []
    assert names(intent(of, "h2")) == ["peer_p"]


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        (BGPPeerSpec(peer_ip="nonsense", as_number=1), "spec.peerIP"),
        (BGPPeerSpec(peer_ip="192.0.2.1", as_number="x"), "spec.asNumber"),
        (BGPPeerSpec(peer_ip="192.0.2.1"), "spec"),
        (BGPPeerSpec(peer_selector="all()", peer_ip="192.0.2.1"), "spec.peerSelector"),
        (BGPPeerSpec(peer_selector="((("), "spec selectors"),
        (BGPPeerSpec(node="h1", node_selector="all()", peer_ip="192.0.2.1", as_number=1), "spec.nodeSelector"),
        (BGPPeerSpec(peer_ip="192.0.2.1", as_number=1, filters=("f",)), "spec.filters"),
        (BGPPeerSpec(peer_ip="192.0.2.1", as_number=1, password=BgpPassword()), "spec.password"),
        (BGPPeerSpec(peer_ip="192.0.2.1", as_number=1, next_hop_mode="Perhaps"), "spec.nextHopMode"),
        (BGPPeerSpec(peer_ip="192.0.2.1", as_number=1, local_as_number=0), "spec.localASNumber"),
        (BGPPeerSpec(peer_ip="192.0.2.1", as_number=1, reachable_by="fd00::1"), "spec.reachableBy"),
        (BGPPeerSpec(local_workload_selector="all()"), "spec.asNumber"),
        (BGPPeerSpec(local_workload_selector="all()", peer_ip="192.0.2.1", as_number=1), "spec.localWorkloadSelector"),
    ],
)
def test_broken_peering_is_left_out_and_reported(spec: BGPPeerSpec, path: str) -> None:
    good = BGPPeerSpec(peer_ip="192.0.2.2", as_number=65000)
    off = {"default": BGPConfigurationSpec(node_to_node_mesh_enabled=False)}
    found, problems = bgp_intent("h1", facts(peers={"bad": spec, "good": good}, configurations=off))
    assert found is not None
    assert names(found) == ["peer_good"]
    assert [(problem.source, problem.path) for problem in problems] == [("BGPPeer/bad", path)]


def test_broken_node_address_is_reported_and_the_other_family_stays() -> None:
    found, problems = bgp_intent("h1", facts(nodes={"h1": node(1, v6=True, ipv4_address="fd00::9/64"), "h2": node(2, v6=True)}))
    assert found is not None
    assert found.ipv4 is None
    assert names(found) == ["mesh_h2_ipv6"]
    assert [problem.path for problem in problems] == ["spec.bgp.ipv4Address"]
    assert parse_prefix(found.router_id).is_host


def test_pools_and_confirmed_blocks_reach_the_intent() -> None:
    graph = Graph(frozenset({"h1"}))
    graph.on_input(InSync())
    assert BgpUpdate("h1", None) in graph.flush()
    graph.on_input(Put(ResourceKey("Node", "h1"), node(1), 1))
    blocks = [AffinityKey("h1", parse_prefix(text)) for text in ("10.0.0.64/26", "10.0.0.0/26")]
    for key in blocks:
        graph.on_input(Put(key, Affinity(state=AffinityState.CONFIRMED), 2))
    graph.on_input(Put(AffinityKey("h2", parse_prefix("10.0.1.0/26")), Affinity(state=AffinityState.CONFIRMED), 2))
    (update,) = [update for update in graph.flush() if isinstance(update, BgpUpdate)]
    assert isinstance(update, BgpUpdate)
    assert update.intent is not None
    assert update.intent.blocks == (blocks[1].block, blocks[0].block)
    graph.on_input(Put(blocks[0], Affinity(state=AffinityState.PENDING_DELETION), 3))
    graph.on_input(Delete(blocks[1]))
    (update,) = [update for update in graph.flush() if isinstance(update, BgpUpdate)]
    assert isinstance(update, BgpUpdate)
    assert update.intent is not None
    assert update.intent.blocks == ()


def test_pools_in_order_of_name() -> None:
    pools = {"b": IPPoolSpec(cidr="10.1.0.0/16", nat_outgoing=True), "a": IPPoolSpec(cidr="fd00::/48", disable_bgp_export=True)}
    assert [(pool.name, pool.nat_outgoing, pool.disable_bgp_export) for pool in intent(facts(pools=pools)).pools] == [
        ("a", False, True),
        ("b", True, False),
    ]


def test_change_of_a_node_that_routing_does_not_see_is_not_told() -> None:
    graph = Graph(frozenset({"h1"}))
    graph.on_input(InSync())
    graph.on_input(Put(ResourceKey("Node", "h1"), node(1), 1))
    graph.flush()
    seen = node(1)
    elsewhere = Node(metadata=seen.metadata, spec=NodeSpec(bgp=seen.spec.bgp, addresses=(NodeAddress(address="192.0.2.7"),)))
    graph.on_input(Put(ResourceKey("Node", "h1"), elsewhere, 2))
    assert not any(isinstance(update, BgpUpdate) for update in graph.flush())

"""BGP intent of peerings in full: reflectors, passwords, filters, unnumbered links, workloads, what nodes and configurations say."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tabinet.calc.bgp import bgp_intent
from tabinet.calc.bgp_nodes import RoutingFacts
from tabinet.calc.bgp_options import ANY_NEIGHBOUR
from tabinet.calc.graph import Graph
from tabinet.calc.inputs import Delete, InSync, Put
from tabinet.calc.intents import (
    AddCommunity,
    Advertisement,
    BgpIntent,
    Drain,
    FilterIntent,
    FilterRule,
    MatchOperator,
    NextHop,
    PeerIntent,
    Prepend,
    SecretRef,
    SetPriority,
)
from tabinet.calc.messages import BgpUpdate
from tabinet.lib.ip import parse_address, parse_prefix
from tabinet.model import resources as r
from tabinet.model.keys import ResourceKey

NO_MESH = {"default": r.BGPConfigurationSpec(node_to_node_mesh_enabled=False)}
SECRET = r.BgpPassword(secret_key_ref=r.SecretKeySelector(name="bgp", key="rack"))


def node(number: int, *, labels: dict[str, str] | None = None, annotations: dict[str, str] | None = None, **bgp: Any) -> r.Node:
    metadata = r.Metadata(labels=labels or {}, annotations=annotations or {})
    return r.Node(metadata=metadata, spec=r.NodeSpec(bgp=r.NodeBgp(**({"ipv4_address": f"172.16.0.{number}/24"} | bgp))))


def peer(annotations: dict[str, str] | None = None, **spec: Any) -> r.BGPPeer:
    return r.BGPPeer(metadata=r.Metadata(annotations=annotations or {}), spec=r.BGPPeerSpec(**spec))


def facts(**changes: Any) -> RoutingFacts:
    return RoutingFacts(**({"nodes": {"h1": node(1), "h2": node(2)}, "configurations": NO_MESH} | changes))


def intent(of: RoutingFacts, host: str = "h1") -> BgpIntent:
    found, problems = bgp_intent(host, of)
    assert problems == []
    assert found is not None
    return found


def only_peer(of: RoutingFacts, host: str = "h1") -> PeerIntent:
    (found,) = intent(of, host).peers
    return found


def peers_left(of: RoutingFacts) -> list[str]:
    found, _ = bgp_intent("h1", of)
    assert found is not None
    return [each.name for each in found.peers]


def wrong(of: RoutingFacts, host: str = "h1") -> list[tuple[str, str]]:
    _, problems = bgp_intent(host, of)
    return [(problem.source, problem.path) for problem in problems]


def test_everything_that_a_peering_can_say() -> None:
    annotations = {"bfd-interval": "50ms", "bfd-multiplier": "4", "route-limit": "500", "long-lived": "true"}
    spec = peer(
        {f"tabinet.io/{name}": text for name, text in annotations.items()},
        node="h1",
        peer_ip="192.0.2.1:1179",
        as_number=65100,
        local_as_number="65000.1",
        num_allowed_local_as_numbers=2,
        next_hop_mode="Keep",
        source_address="None",
        password=SECRET,
        max_restart_time="90s",
        keepalive_time="7s",
        ttl_security=3,
        reachable_by="172.16.0.9",
        failure_detection_mode="None",
    )
    assert only_peer(facts(peers={"p": spec})) == PeerIntent(
        name="peer_p",
        address=parse_address("192.0.2.1"),
        port=1179,
        as_number=65100,
        mesh=False,
        use_node_ip=False,
        bfd=False,
        max_restart_time_s=90,
        keepalive_time_s=7,
        for_node=True,
        local_as=65000 << 16 | 1,
        allowed_own_as=2,
        next_hop=NextHop.KEEP,
        password=SecretRef("bgp", "rack"),
        ttl_hops=3,
        reachable_by=parse_address("172.16.0.9"),
        bfd_interval_ms=50,
        bfd_multiplier=4,
        route_limit=500,
        long_lived=True,
        resource="BGPPeer/p",
    )


def test_older_name_of_keeping_the_next_hop() -> None:
    found = only_peer(facts(peers={"p": peer(peer_ip="192.0.2.1", as_number=65100, keep_original_next_hop=True)}))
    assert found.next_hop is NextHop.KEEP_EXTERNAL


def test_the_mesh_has_one_password_and_restart_time_from_the_default_configuration_only() -> None:
    default = r.BGPConfigurationSpec(node_mesh_password=SECRET, node_mesh_max_restart_time="30s")
    own = r.BGPConfigurationSpec(node_mesh_max_restart_time="99s")
    found = only_peer(facts(configurations={"default": default, "node.h1": own}))
    assert (found.mesh, found.bfd, found.password, found.max_restart_time_s) == (True, True, SecretRef("bgp", "rack"), 30)
    broken = r.BGPConfigurationSpec(node_mesh_password=r.BgpPassword())
    assert wrong(facts(configurations={"default": broken})) == [("BGPConfiguration/default", "spec.nodeMeshPassword")]
    assert peers_left(facts(configurations={"default": broken})) == []


def reflectors() -> RoutingFacts:
    nodes = {
        "h1": node(1),
        "rr1": node(11, labels={"rr": ""}, route_reflector_cluster_id="224.0.0.1"),
        "rr2": node(12, labels={"rr": ""}, route_reflector_cluster_id="224.0.0.1"),
        "rr3": node(13, labels={"rr": ""}, route_reflector_cluster_id="224.0.0.3"),
    }
    return facts(nodes=nodes, peers={"rr": peer(node_selector="all()", peer_selector="has(rr)")})


def test_a_reflector_has_clients_but_not_of_its_own_cluster() -> None:
    found = intent(reflectors(), "rr1")
    assert found.cluster_id == "224.0.0.1"
    assert {each.name: (each.reflected, each.client) for each in found.peers} == {
        "peer_rr_h1_ipv4": (True, True),
        "peer_rr_rr2_ipv4": (True, False),
        "peer_rr_rr3_ipv4": (True, True),
    }


def test_a_client_peers_with_every_reflector_and_reflects_nothing() -> None:
    found = intent(reflectors())
    assert found.cluster_id == ""
    assert [(each.name, each.reflected, each.client) for each in found.peers] == [
        (f"peer_rr_rr{number}_ipv4", True, False) for number in (1, 2, 3)
    ]


def test_a_reflector_that_is_no_node_of_ours_is_one_too() -> None:
    found = intent(facts(peers={"p": peer(peer_ip="192.0.2.1", as_number=64512), "q": peer(peer_ip="192.0.2.2", as_number=65000)}))
    assert [(each.reflected, each.client) for each in found.peers] == [(True, False), (False, False)]


def test_both_ends_of_a_selected_peering_agree_on_the_local_as() -> None:
    nodes = {"h1": node(1, labels={"rack": "a"}), "h2": node(2, labels={"role": "edge"}, as_number=65002)}
    of = facts(nodes=nodes, peers={"p": peer(node_selector="rack == 'a'", peer_selector="role == 'edge'", local_as_number=65009)})
    there, back = only_peer(of), only_peer(of, "h2")
    assert (there.local_as, there.as_number) == (65009, 65002)
    assert (back.local_as, back.as_number) == (0, 65009)


def test_a_broken_cluster_id_is_reported() -> None:
    assert ("Node/h1", "spec.bgp.routeReflectorClusterID") in wrong(facts(nodes={"h1": node(1, route_reflector_cluster_id="seven")}))


# --- filters ---------------------------------------------------------------------------------------------------------

RULES = r.BGPFilterSpec(
    export_v4=(
        r.FilterRuleV4(action="Reject", cidr="10.65.9.0/24", match_operator="Equal", peer_type="iBGP"),
        r.FilterRuleV4(
            action="Accept",
            cidr="10.65.0.0/16",
            match_operator="In",
            prefix_length=r.PrefixLengthV4(max=28),
            source="RemotePeers",
            interface="eth*",
            operations=(
                r.FilterOperation(add_community=r.AddCommunity(value="65000:7")),
                r.FilterOperation(prepend_as_path=r.PrependASPath(prefix=(65001, "1.10"))),
                r.FilterOperation(set_priority=r.SetPriority(value=512)),
            ),
        ),
    ),
    import_v6=(
        r.FilterRuleV6(
            action="Accept", communities=r.CommunityMatch(values=("1:2:3",)), as_path_prefix=(65001,), priority=1024, interface="*"
        ),
    ),
)


def test_filters_that_peers_name_are_in_the_intent() -> None:
    peers = {"p": peer(peer_ip="192.0.2.1", as_number=65000, filters=("rules",))}
    found = intent(facts(peers=peers, filters={"rules": RULES, "unused": RULES}))
    assert found.peers[0].filters == ("rules",)
    assert found.filters == (
        FilterIntent(
            name="rules",
            export_rules=(
                (4, FilterRule(accept=False, net=parse_prefix("10.65.9.0/24"), operator=MatchOperator.EQUAL, external=False)),
                (
                    4,
                    FilterRule(
                        accept=True,
                        net=parse_prefix("10.65.0.0/16"),
                        lengths=(16, 28),
                        remote_only=True,
                        interface="eth*",
                        operations=(AddCommunity((65000, 7)), Prepend((65001, 65546)), SetPriority(512)),
                    ),
                ),
            ),
            import_rules=((6, FilterRule(accept=True, community=(1, 2, 3), as_path=(65001,), priority=1024)),),
        ),
    )


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        (r.FilterRuleV4(action="Accept", cidr="fd00::/16", match_operator="In"), "cidr"),
        (r.FilterRuleV4(action="Accept", cidr="10.0.0.0/8", match_operator="Near"), "matchOperator"),
        (r.FilterRuleV4(action="Accept", cidr="10.0.0.0/8", match_operator="In", prefix_length=r.PrefixLengthV4(max=7)), "prefixLength"),
        (r.FilterRuleV4(action="Accept", interface='eth" then accept'), "interface"),
        (r.FilterRuleV4(action="Accept", communities=r.CommunityMatch(values=("no",))), "communities"),
        (r.FilterRuleV4(action="Accept", as_path_prefix=("no",)), "asPathPrefix"),
        (r.FilterRuleV4(action="Accept", operations=(r.FilterOperation(),)), "operations[0]"),
    ],
)
def test_a_peering_with_a_broken_filter_is_left_out(rule: r.FilterRuleV4, path: str) -> None:
    peers = {"bad": peer(peer_ip="192.0.2.1", as_number=65000, filters=("f",)), "good": peer(peer_ip="192.0.2.2", as_number=65000)}
    of = facts(peers=peers, filters={"f": r.BGPFilterSpec(import_v4=(r.FilterRuleV4(action="Reject"), rule))})
    assert peers_left(of) == ["peer_good"]
    assert wrong(of) == [("BGPFilter/f", f"spec.importV4[1].{path}"), ("BGPPeer/bad", "spec.filters")]


# --- annotations -----------------------------------------------------------------------------------------------------


def test_unnumbered_peers_are_one_session_for_each_interface() -> None:
    spec = peer({"tabinet.io/interfaces": "up1, up2", "tabinet.io/remote-as": "external"}, peer_ip="fe80::", as_number=65000)
    found = intent(facts(peers={"up": spec})).peers
    assert [(each.name, each.interface, each.address, each.as_number) for each in found] == [
        ("peer_up_up1", "up1", ANY_NEIGHBOUR, 0),
        ("peer_up_up2", "up2", ANY_NEIGHBOUR, 0),
    ]
    (one,) = intent(facts(peers={"up": peer({"tabinet.io/interfaces": "up1"}, as_number=65111)})).peers
    assert one.as_number == 65111


@pytest.mark.parametrize(
    ("annotations", "spec", "path"),
    [
        ({"tabinet.io/interfaces": ""}, {}, "metadata.annotations.tabinet.io/interfaces"),
        ({"tabinet.io/interfaces": 'x"'}, {}, "metadata.annotations.tabinet.io/interfaces"),
        ({"tabinet.io/interfaces": "up1"}, {"peer_ip": "192.0.2.1"}, "spec.peerIP"),
        ({"tabinet.io/interfaces": "up1"}, {"ttl_security": 2}, "spec.ttlSecurity"),
        ({"tabinet.io/remote-as": "internal"}, {}, "metadata.annotations.tabinet.io/remote-as"),
        ({"tabinet.io/bfd-interval": "1ms"}, {}, "metadata.annotations.tabinet.io/bfd-interval"),
        ({"tabinet.io/bfd-interval": "fast"}, {}, "metadata.annotations.tabinet.io/bfd-interval"),
        ({"tabinet.io/bfd-multiplier": "1"}, {}, "metadata.annotations.tabinet.io/bfd-multiplier"),
        ({"tabinet.io/route-limit": "-3"}, {}, "metadata.annotations.tabinet.io/route-limit"),
        ({"tabinet.io/long-lived": "yes"}, {}, "metadata.annotations.tabinet.io/long-lived"),
    ],
)
def test_annotations_that_make_no_sense_are_reported(annotations: dict[str, str], spec: dict[str, Any], path: str) -> None:
    of = facts(peers={"p": peer(annotations, **({"peer_ip": "fe80::", "as_number": 65000} | spec))})
    assert ("BGPPeer/p", path) in wrong(of)
    assert peers_left(of) == []


@pytest.mark.parametrize(
    ("text", "expected"), [(None, Drain.NONE), ("false", Drain.NONE), ("true", Drain.GRACEFUL), ("withdrawn", Drain.WITHDRAWN)]
)
def test_a_node_is_drained_by_an_annotation(text: str | None, expected: Drain) -> None:
    annotations = {"tabinet.io/drain": text} if text is not None else {}
    assert intent(facts(nodes={"h1": node(1, annotations=annotations)})).drain is expected


def test_a_drain_that_is_none_is_reported() -> None:
    assert wrong(facts(nodes={"h1": node(1, annotations={"tabinet.io/drain": "soon"})})) == [
        ("Node/h1", "metadata.annotations.tabinet.io/drain")
    ]


# --- configurations --------------------------------------------------------------------------------------------------


def test_what_a_configuration_says_beyond_the_mesh() -> None:
    configuration = r.BGPConfigurationSpec(
        node_to_node_mesh_enabled=False,
        bind_mode="NodeIP",
        communities=(r.Community(name="far", value="65000:100"),),
        prefix_advertisements=(r.PrefixAdvertisement(cidr="10.65.0.0/16", communities=("far", "65000:1:2")),),
        service_cluster_ips=(r.ServiceBlock(cidr="10.96.0.0/12"),),
        service_external_ips=(r.ServiceBlock(cidr="192.0.2.0/24"), r.ServiceBlock(cidr="198.51.100.1/32")),
        service_load_balancer_ips=(r.ServiceBlock(cidr="203.0.113.0/24"),),
        service_load_balancer_aggregation="Disabled",
        ipv4_normal_route_priority=900,
        local_workload_peering_ip_v4="169.254.9.9",
        local_workload_peering_ip_v6="fd00::9",
    )
    found = intent(facts(configurations={"default": configuration}))
    assert found.advertisements == (Advertisement(parse_prefix("10.65.0.0/16"), ((65000, 100), (65000, 1, 2))),)
    assert found.services == (parse_prefix("10.96.0.0/12"), parse_prefix("192.0.2.0/24"))
    assert (found.bind_node_ip, found.metrics) == (True, (900, 0))
    assert (found.peering4, found.peering6) == (parse_address("169.254.9.9"), parse_address("fd00::9"))
    excluded = {"h1": node(1, labels={"node.kubernetes.io/exclude-from-external-load-balancers": ""})}
    assert intent(facts(configurations={"default": configuration}, nodes=excluded)).services == ()


def test_what_is_wrong_in_a_configuration_is_left_out_and_reported() -> None:
    configuration = r.BGPConfigurationSpec(
        prefix_advertisements=(
            r.PrefixAdvertisement(cidr="10.65.0.0/16", communities=("unknown", "65000:1")),
            r.PrefixAdvertisement(cidr="x"),
        ),
        service_cluster_ips=(r.ServiceBlock(cidr="x"),),
        local_workload_peering_ip_v4="fd00::9",
    )
    of = facts(configurations={"default": configuration})
    assert {path for _, path in wrong(of)} == {
        "spec.prefixAdvertisements[0].communities",
        "spec.prefixAdvertisements[1].cidr",
        "spec.serviceClusterIPs[0].cidr",
        "spec.localWorkloadPeeringIPV4",
    }
    found, _ = bgp_intent("h1", of)
    assert found is not None
    assert found.advertisements == (Advertisement(parse_prefix("10.65.0.0/16"), ((65000, 1),)),)


# --- workloads -------------------------------------------------------------------------------------------------------


def endpoint(host: str, app: str, *nets: str, spoofed: tuple[str, ...] = ()) -> r.WorkloadEndpoint:
    spec = r.WorkloadEndpointSpec(node=host, interface_name="cali1", ip_networks=nets, allow_spoofed_source_prefixes=spoofed)
    return r.WorkloadEndpoint(metadata=r.Metadata(labels={"app": app}), spec=spec)


VNF = ResourceKey("WorkloadEndpoint", "h1-k8s-vnf-eth0", "net")
PEERING = peer(local_workload_selector="app == 'vnf' && projectcalico.org/namespace == 'net'", as_number=65300)


def test_workloads_of_the_host_are_peers_within_what_they_may_send_from() -> None:
    local = {
        VNF: endpoint("h1", "vnf", "10.65.0.7/32", "fd00:65::7/128", spoofed=("203.0.113.0/24",)),
        ResourceKey("WorkloadEndpoint", "h1-k8s-web-eth0", "net"): endpoint("h1", "web", "10.65.0.8/32"),
    }
    one = only_peer(facts(peers={"vnf": PEERING}, endpoints={"h1": local, "h2": {}}))
    assert (one.name, one.address, one.families) == ("peer_vnf_net_h1-k8s-vnf-eth0_ipv4", parse_address("10.65.0.7"), (4, 6))
    default = r.BGPConfigurationSpec(node_to_node_mesh_enabled=False, local_workload_peering_ip_v6="fd00::1")
    found = intent(facts(peers={"vnf": PEERING}, endpoints={"h1": local}, configurations={"default": default})).peers
    assert [each.name for each in found] == ["peer_vnf_net_h1-k8s-vnf-eth0_ipv4", "peer_vnf_net_h1-k8s-vnf-eth0_ipv6"]
    assert [each.address for each in found] == [parse_address("10.65.0.7"), parse_address("fd00:65::7")]
    for each in found:
        assert each.workload == (parse_prefix("10.65.0.7/32"), parse_prefix("203.0.113.0/24"), parse_prefix("fd00:65::7/128"))
        assert (each.as_number, each.route_limit, each.bfd, each.reflected, each.families) == (65300, 16, False, False, ())


def test_the_graph_follows_workloads_and_filters() -> None:
    graph = Graph(frozenset({"h1"}))

    def told(*items: Put | Delete) -> BgpIntent | None:
        for item in items:
            graph.on_input(item)
        (found,) = [update for update in graph.flush() if isinstance(update, BgpUpdate)] or [BgpUpdate("", None)]
        return found.intent

    graph.on_input(InSync())
    first = told(Put(ResourceKey("Node", "h1"), node(1), 1), Put(VNF, endpoint("h1", "vnf", "10.65.0.7/32"), 2))
    assert first is not None
    assert first.peers == ()
    assert told(Put(VNF, endpoint("h1", "vnf", "10.65.0.9/32"), 3)) is None  # nobody peers with workloads
    second = told(Put(ResourceKey("BGPPeer", "vnf"), PEERING, 4))
    assert second is not None
    assert [each.address for each in second.peers] == [parse_address("10.65.0.9")]
    moved = told(Put(VNF, endpoint("h2", "vnf", "10.65.0.9/32"), 5))
    assert moved is not None
    assert moved.peers == ()
    filtered = peer(peer_ip="192.0.2.1", as_number=65000, filters=("f",))
    assert told(Put(ResourceKey("BGPPeer", "p"), filtered, 6)) is None  # no such filter: still no peer
    assert [problem.path for problem in graph.problems()] == ["spec.filters"]
    last = told(Put(ResourceKey("BGPFilter", "f"), r.BGPFilter(spec=RULES), 7))
    assert last is not None
    assert [each.name for each in last.filters] == ["f"]
    drained = told(Put(ResourceKey("Node", "h1"), node(1, annotations={"tabinet.io/drain": "true", "note": "x"}), 8))
    assert drained is not None
    assert drained.drain is Drain.GRACEFUL
    assert told(Put(ResourceKey("Node", "h1"), node(1, annotations={"tabinet.io/drain": "true", "note": "y"}), 9)) is None


def test_workloads_are_selected_by_labels_of_their_profiles_too() -> None:
    inherits = endpoint("h1", "vnf", "10.65.0.7/32")
    inherits = r.WorkloadEndpoint(metadata=inherits.metadata, spec=msgspec.structs.replace(inherits.spec, profiles=("first", "second")))
    profiles = {"first": {"tier": "edge", "app": "other"}, "second": {"tier": "core"}}

    def selected(selector: str, labels: dict[str, dict[str, str]]) -> int:
        peering = peer(local_workload_selector=selector, as_number=65300)
        return len(intent(facts(peers={"vnf": peering}, endpoints={"h1": {VNF: inherits}}, profiles=labels)).peers)

    assert selected("tier == 'edge' && app == 'vnf'", profiles) == 1
    assert selected("tier == 'core'", profiles) == 0
    assert selected("tier == 'core'", {"second": profiles["second"]}) == 1

    graph = Graph(frozenset({"h1"}))
    graph.on_input(InSync())
    told = [Put(ResourceKey("Node", "h1"), node(1), 1), Put(VNF, inherits, 2)]
    told.append(Put(ResourceKey("BGPPeer", "vnf"), peer(local_workload_selector="tier == 'edge'", as_number=65300), 3))
    for revision, labels in enumerate(({}, {"tier": "edge"}, {"tier": "core"}), 4):
        told.append(Put(ResourceKey("Profile", "first"), r.Profile(spec=r.ProfileSpec(labels_to_apply=labels)), revision))
        for item in told:
            graph.on_input(item)
        told.clear()
        found = [update.intent for update in graph.flush() if isinstance(update, BgpUpdate)]
        assert [len(each.peers) for each in found if each is not None] == [labels.get("tier") == "edge"]


def test_an_address_of_links_is_none_of_the_host() -> None:
    of = facts(configurations={"default": r.BGPConfigurationSpec(node_to_node_mesh_enabled=False, local_workload_peering_ip_v6="fe80::9")})
    assert wrong(of) == [("BGPConfiguration/default", "spec.localWorkloadPeeringIPV6")]
    found, _ = bgp_intent("h1", of)
    assert found is not None
    assert found.peering6 is None


def test_a_link_local_address_alone_names_nobody() -> None:
    stray = {"a": peer(peer_ip="fe80::1", as_number=64512)}
    found, problems = bgp_intent("h1", facts(peers=stray))
    assert found is not None
    assert found.peers == ()
    assert ["tabinet.io/interfaces" in str(problem) for problem in problems] == [True]

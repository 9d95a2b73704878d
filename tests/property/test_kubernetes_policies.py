"""Kubernetes' policies against Kubernetes' own words: random small clusters, converted, calculated, made into a table, asked about packets.

The table is that of one host; some pods run on another. Around them there are others who have labels of pods without being pods: a
virtual machine, network sets of a namespace and of all, addresses outside.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kube_naive import Cluster, Flow

from tabinet.calc.graph import Graph
from tabinet.calc.inputs import InSync, Put
from tabinet.errors import InputError
from tabinet.lib.ip import parse_address
from tabinet.model.codec import decode_stored, encode_document
from tabinet.model.defaults import with_defaults
from tabinet.model.documents import Document
from tabinet.model.keys import ResourceKey, path_of
from tabinet.model.kubernetes.convert import convert_foreign
from tabinet.model.validate import validate_all
from tabinet.rules.builder import TableBuilder
from tabinet.rules.evaluate import Packet, evaluate

HOST = "h1"
NAMESPACES = ("n1", "n2")
LABELS = st.dictionaries(st.sampled_from(("a", "b", "example.org/c")), st.sampled_from(("x", "y", "")), max_size=3)
NETWORKS = {
    4: ("10.0.0.0/8", "10.0.0.0/30", "10.0.0.2/32", "192.0.2.0/24", "192.0.2.7/25", "0.0.0.0/0"),
    6: ("fd00::/64", "fd00::/126", "fd00::2/128", "2001:db8::/32", "::/0"),
}
HOLES = {
    "10.0.0.0/8": ("10.0.0.0/30", "10.0.0.3/32", "10.0.0.9/31"),
    "0.0.0.0/0": ("10.0.0.0/8", "192.0.2.9/32"),
    "fd00::/64": ("fd00::/127", "fd00::3/128"),
    "::/0": ("fd00::/16", "2001:db8::9/128"),
}
OUTSIDE = ("192.0.2.9", "192.0.2.200", "2001:db8::9")
MACHINE = ("10.0.0.99", "fd00::99")
PORT_NUMBERS = (53, 79, 80, 81, 443)
PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}
PING = {4: (1, 8), 6: (58, 128)}


def optional(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=members)


keys = st.sampled_from(("a", "b", "example.org/c"))
values = st.lists(st.sampled_from(("x", "y", "")), min_size=1, max_size=2)


def label_selectors(key: st.SearchStrategy[str], *more: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Mostly with one or two conditions: those with many select nothing."""
    expressions = st.one_of(
        st.fixed_dictionaries({"key": key, "operator": st.sampled_from(("In", "NotIn")), "values": values}),
        st.fixed_dictionaries({"key": key, "operator": st.sampled_from(("Exists", "DoesNotExist"))}),
    )
    by_label = st.builds(lambda name, value: {"matchLabels": {name: value}}, key, st.sampled_from(("x", "y", "")))
    by_expression = st.lists(expressions, min_size=1, max_size=2).map(lambda some: {"matchExpressions": some})
    both = st.builds(lambda one, other: {**one, **other}, by_label, by_expression)
    return st.one_of(st.just({}), by_label, by_expression, both, *more)


pod_selectors = label_selectors(keys)
namespace_selectors = label_selectors(
    keys, st.sampled_from(NAMESPACES).map(lambda name: {"matchLabels": {"kubernetes.io/metadata.name": name}})
)


def blocks(cidr: str) -> st.SearchStrategy[dict[str, Any]]:
    holes = st.lists(st.sampled_from(HOLES[cidr]), max_size=2) if cidr in HOLES else st.just([])
    return holes.map(lambda chosen: {"cidr": cidr, "except": chosen} if chosen else {"cidr": cidr})


peers = st.one_of(
    st.fixed_dictionaries({"podSelector": pod_selectors}),
    st.fixed_dictionaries({"namespaceSelector": namespace_selectors}, optional={"podSelector": st.one_of(st.none(), pod_selectors)}),
    st.sampled_from(NETWORKS[4] + NETWORKS[6]).flatmap(blocks).map(lambda block: {"ipBlock": block}),
)
protocol_names = st.sampled_from(("TCP", "UDP", "SCTP"))
port_matches = st.one_of(
    optional(protocol=protocol_names),
    st.fixed_dictionaries({"port": st.sampled_from((*PORT_NUMBERS, "http", "dns"))}, optional={"protocol": protocol_names}),
    st.fixed_dictionaries({"port": st.sampled_from((53, 79)), "endPort": st.sampled_from((80, 81))}, optional={"protocol": protocol_names}),
)
nothing = st.sampled_from((None, []))
"""Absent, written as null or as an empty list: all the same."""


def rules(side: str) -> st.SearchStrategy[dict[str, Any]]:
    whom = st.lists(peers, min_size=1, max_size=2)
    ports = st.lists(port_matches, min_size=1, max_size=3)
    return st.one_of(
        st.fixed_dictionaries({side: whom}),
        st.fixed_dictionaries({side: whom}),
        st.fixed_dictionaries({side: whom, "ports": ports}),
        optional(ports=st.one_of(nothing, ports), **{side: nothing}),
    )


def directions() -> st.SearchStrategy[dict[str, Any]]:
    ingress, egress = (st.lists(rules(side), min_size=1, max_size=2) for side in ("from", "to"))
    return st.one_of(
        st.fixed_dictionaries({"ingress": ingress}),
        st.fixed_dictionaries({"ingress": ingress, "egress": egress}),
        st.fixed_dictionaries({"policyTypes": st.just(["Egress"]), "egress": egress}),
        optional(
            policyTypes=st.lists(st.sampled_from(("Ingress", "Egress")), unique=True),
            ingress=st.one_of(nothing, ingress),
            egress=st.one_of(nothing, egress),
        ),
    )


network_policy_specs = st.builds(lambda subject, rest: {**subject, **rest}, optional(podSelector=pod_selectors), directions())

some_pods = st.one_of(
    st.just({"namespaces": {}}),
    st.fixed_dictionaries({"namespaces": namespace_selectors}),
    st.fixed_dictionaries(
        {"pods": st.fixed_dictionaries({"namespaceSelector": namespace_selectors, "podSelector": pod_selectors})},
    ),
)
networks = st.lists(st.sampled_from(NETWORKS[4] + NETWORKS[6]), min_size=1, max_size=3, unique=True).map(lambda some: {"networks": some})
numbered = st.one_of(
    st.sampled_from(PORT_NUMBERS).map(lambda number: {"number": number}),
    st.just({"range": {"start": 79, "end": 81}}),
)
numbered_protocols = st.builds(lambda name, port: {name: {"destinationPort": port}}, st.sampled_from(("tcp", "udp", "sctp")), numbered)
named_protocols = st.sampled_from(("http", "dns")).map(lambda name: {"destinationNamedPort": name})


def cluster_rules(
    side: str, whom: st.SearchStrategy[dict[str, Any]], ports: st.SearchStrategy[dict[str, Any]]
) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"action": st.sampled_from(("Accept", "Deny", "Pass")), side: st.lists(whom, min_size=1, max_size=2)},
        optional={"protocols": st.lists(ports, min_size=1, max_size=3), "name": st.just("a rule")},
    )


any_ports = st.one_of(numbered_protocols, named_protocols)
cluster_ingress = st.lists(cluster_rules("from", some_pods, any_ports), min_size=1, max_size=2)
cluster_egress = st.lists(
    st.one_of(cluster_rules("to", some_pods, any_ports), cluster_rules("to", st.one_of(some_pods, networks), numbered_protocols)),
    min_size=1,
    max_size=2,
)
cluster_policy_specs = st.builds(
    lambda whom, what: {**whom, **what},
    st.fixed_dictionaries({"tier": st.sampled_from(("Admin", "Baseline")), "subject": some_pods}),
    st.one_of(
        st.fixed_dictionaries({"ingress": cluster_ingress}),
        st.fixed_dictionaries({"egress": cluster_egress}),
        st.fixed_dictionaries({"ingress": cluster_ingress, "egress": cluster_egress}),
        st.just({}),
    ),
)


def document(
    version: str, kind: str, name: str, namespace: str = "", labels: dict[str, str] | None = None, **members: Any
) -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {}), **({"labels": labels} if labels else {})}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **members}


PORTS_OF_PODS = (
    [],
    [{"name": "http", "containerPort": 80}],
    [{"name": "http", "containerPort": 81}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}, {"containerPort": 443}],
    [{"name": "dns", "containerPort": 53}, {"name": "http", "containerPort": 80, "protocol": "SCTP"}],
)


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    cluster = Cluster()
    for name in NAMESPACES:
        cluster.namespaces[name] = document("v1", "Namespace", name, labels=draw(LABELS))
    for number in range(1, draw(st.integers(3, 5)) + 1):
        spec = {
            "nodeName": draw(st.sampled_from((HOST, HOST, "h2"))),
            "containers": [{"name": "c", "ports": draw(st.sampled_from(PORTS_OF_PODS))}],
        }
        status = {"podIPs": [{"ip": f"10.0.0.{number}"}, {"ip": f"fd00::{number}"}]}
        pod = document("v1", "Pod", f"p{number}", draw(st.sampled_from(NAMESPACES)), draw(LABELS), spec=spec, status=status)
        cluster.pods.append(pod)
    for number, spec in enumerate(draw(st.lists(network_policy_specs, min_size=1, max_size=3))):
        namespace = draw(st.sampled_from(NAMESPACES))
        cluster.network_policies.append(document("networking.k8s.io/v1", "NetworkPolicy", f"q{number}", namespace, spec=spec))
    for number, spec in enumerate(draw(st.lists(cluster_policy_specs, max_size=3))):
        # One more digit now and then: order is that of numbers, not of texts.
        spec = {**spec, "priority": number * 7 + 5}
        cluster.cluster_policies.append(
            document("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", f"g{3 - number}", spec=spec),
        )
    return cluster


def others(labels: dict[str, str]) -> list[dict[str, Any]]:
    """Whoever has labels, even those of a pod or a namespace, but is no pod."""
    machine = {
        "orchestrator": "openstack",
        "node": "h2",
        "workload": "vm",
        "endpoint": "e",
        "interfaceName": "tap1",
        "ipNetworks": list(MACHINE),
        "profiles": ["kns.n1"],
        "ports": [{"name": "http", "protocol": "TCP", "port": 80}],
    }
    nets = {"nets": [*OUTSIDE, *MACHINE]}
    return [
        document("projectcalico.org/v3", "WorkloadEndpoint", "h2-openstack-vm-e", "n1", labels, spec=machine),
        document("projectcalico.org/v3", "GlobalNetworkSet", "g", labels={**labels, "pcns.a": "x"}, spec=nets),
        document("projectcalico.org/v3", "NetworkSet", "n", "n1", labels, spec=nets),
    ]


def table_of(documents: list[dict[str, Any]]) -> TableBuilder:
    """The table of the host after all documents were converted, stored, read and calculated."""
    graph, builder = Graph(frozenset({HOST})), TableBuilder()
    for index, data in enumerate(documents, 1):
        foreign = Document(data=data, source="test", index=index, line=index)
        ours = convert_foreign(foreign) or [foreign]
        assert validate_all(ours) == []
        for each in ours:
            stored = with_defaults(each.data)
            key = ResourceKey(stored["kind"], stored["metadata"]["name"], stored["metadata"].get("namespace", ""))
            decoded = decode_stored(path_of(key), encode_document(stored))
            assert decoded is not None
            graph.on_input(Put(decoded[0], decoded[1], index))
    graph.on_input(InSync())
    for update in graph.flush():
        builder.on_update(update)
    builder.flush()
    assert graph.problems() == []
    return builder


def interfaces(documents: list[dict[str, Any]]) -> dict[str, str]:
    """Interface of each address of the host."""
    found = {}
    for data in documents:
        if data["kind"] == "Pod" and data["spec"]["nodeName"] == HOST:
            (endpoint,) = convert_foreign(Document(data=data, source="test", index=1, line=1)) or ()
            found |= dict.fromkeys([each["ip"] for each in data["status"]["podIPs"]], endpoint.data["spec"]["interfaceName"])
    return found


def flows(cluster: Cluster) -> list[Flow]:
    """Every pair of addresses of one family, with every kind of packet that the rules can tell apart."""
    addresses = [each["ip"] for pod in cluster.pods for each in pod["status"]["podIPs"]] + [*OUTSIDE, *MACHINE]
    pairs = [(one, two) for one in addresses for two in addresses if one != two and (":" in one) == (":" in two)]
    kinds = [(protocol, port) for protocol in PROTOCOLS for port in PORT_NUMBERS] + [("ping", 0)]
    return [Flow(source, destination, protocol, port) for source, destination in pairs for protocol, port in kinds]


def packet_of(flow: Flow, local: dict[str, str]) -> Packet:
    source, destination = parse_address(flow.source), parse_address(flow.destination)
    protocol, kind = PING[source.family] if flow.protocol == "ping" else (PROTOCOLS[flow.protocol], 0)
    return Packet(
        local.get(flow.source, "eth0"), local.get(flow.destination, "eth0"), source, destination, protocol, 40_000, flow.port, kind
    )


def check(cluster: Cluster, labels: dict[str, str], chosen: list[Flow]) -> None:
    documents = [*cluster.cluster_policies, *cluster.network_policies, *cluster.pods, *cluster.namespaces.values()]
    builder, local = table_of([*documents, *others(labels)]), interfaces(documents)
    for flow in chosen:
        out = flow.source not in local or cluster.allows_out(flow)
        into = flow.destination not in local or cluster.allows_in(flow)
        got = evaluate(builder.table, packet_of(flow, local))
        assert got.accepted == (out and into), (flow, got)


@settings(max_examples=150, deadline=None)
@given(clusters(), LABELS, st.randoms(use_true_random=False))
def test_packets_go_where_kubernetes_lets_them(cluster: Cluster, labels: dict[str, str], random: Any) -> None:
    check(cluster, labels, random.sample(flows(cluster), 200))


# --- single cases ---------------------------------------------------------------------------------------------------


def small(*policies: dict[str, Any], cluster_policies: tuple[dict[str, Any], ...] = ()) -> Cluster:
    """Two pods of one namespace and one of another, all here."""
    cluster = Cluster({name: document("v1", "Namespace", name) for name in NAMESPACES})
    for number, (namespace, labels) in enumerate((("n1", {"a": "x"}), ("n1", {"a": "y"}), ("n2", {"a": "x"})), 1):
        spec = {"nodeName": HOST, "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 80}]}]}
        status = {"podIPs": [{"ip": f"10.0.0.{number}"}, {"ip": f"fd00::{number}"}]}
        cluster.pods.append(document("v1", "Pod", f"p{number}", namespace, labels, spec=spec, status=status))
    cluster.network_policies += policies
    cluster.cluster_policies += cluster_policies
    return cluster


def policy(**spec: Any) -> dict[str, Any]:
    return document("networking.k8s.io/v1", "NetworkPolicy", "q", "n1", spec=spec)


def cluster_policy(tier: str, priority: int, **spec: Any) -> dict[str, Any]:
    whole = {"tier": tier, "priority": priority, "subject": {"namespaces": {}}, **spec}
    return document("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", f"g{priority}", spec=whole)


@pytest.mark.parametrize("peers", [[], [{"ipBlock": {"cidr": "10.0.0.0/8"}}]], ids=["everybody", "a block"])
def test_a_named_port_is_that_of_a_pod(peers: list[dict[str, Any]]) -> None:
    """A machine beside the pods calls a port of its own so, too."""
    egress = [{"ports": [{"port": "http"}, {"port": 443}], **({"to": peers} if peers else {})}]
    cluster = small(policy(podSelector={}, policyTypes=["Egress"], egress=egress))
    check(cluster, {}, flows(cluster))


DENY = {"action": "Deny", "from": [{"namespaces": {}}]}


@pytest.mark.parametrize(
    ("cluster", "allowed"),
    [
        (small(), {(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)}),
        (small(policy(podSelector={})), {(1, 3), (2, 3)}),
        (small(policy(podSelector={}, ingress=[{"from": [{"podSelector": {}}]}])), {(1, 2), (2, 1), (1, 3), (2, 3)}),
        (
            small(policy(ingress=[{"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"a": "x"}}}]}])),
            {(1, 2), (3, 1), (3, 2), (1, 3), (2, 3)},
        ),
        (small(policy(podSelector={}, policyTypes=["Egress"], egress=[])), {(3, 1), (3, 2)}),
        (small(cluster_policies=(cluster_policy("Admin", 1, ingress=[DENY]),)), set()),
        (small(policy(ingress=[{}]), cluster_policies=(cluster_policy("Baseline", 1, ingress=[DENY]),)), {(1, 2), (2, 1), (3, 1), (3, 2)}),
        (
            small(
                policy(ingress=[{}]),
                cluster_policies=(
                    cluster_policy("Admin", 9, ingress=[DENY]),
                    cluster_policy("Admin", 10, ingress=[{**DENY, "action": "Accept"}]),
                    cluster_policy(
                        "Admin",
                        8,
                        subject={"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "n1"}}},
                        ingress=[{**DENY, "action": "Pass"}],
                    ),
                ),
            ),
            {(1, 2), (2, 1), (3, 1), (3, 2)},
        ),
    ],
    ids=[
        "open",
        "closed",
        "own namespace",
        "labels anywhere",
        "no egress",
        "admin denies",
        "baseline only where no policy is",
        "priority, and pass",
    ],
)
def test_pods_that_reach_each_other(cluster: Cluster, allowed: set[tuple[int, int]]) -> None:
    documents = [*cluster.cluster_policies, *cluster.network_policies, *cluster.pods, *cluster.namespaces.values()]
    builder, local = table_of(documents), interfaces(documents)
    pairs = [(one, two) for one in (1, 2, 3) for two in (1, 2, 3) if one != two]
    found = {
        pair
        for pair in pairs
        if evaluate(builder.table, packet_of(Flow(f"10.0.0.{pair[0]}", f"10.0.0.{pair[1]}", "TCP", 80), local)).accepted
    }
    assert found == allowed
    check(cluster, {"a": "x"}, flows(cluster))


def test_a_host_always_reaches_its_own_pods() -> None:
    cluster = small(policy(podSelector={}), cluster_policies=(cluster_policy("Admin", 1, ingress=[DENY]),))
    documents = [*cluster.cluster_policies, *cluster.network_policies, *cluster.pods, *cluster.namespaces.values()]
    builder, local = table_of(documents), interfaces(documents)
    probe = Packet("", local["10.0.0.1"], parse_address("172.16.0.1"), parse_address("10.0.0.1"), 6, 40_000, 80)
    assert evaluate(builder.table, probe, "output").accepted
    assert not evaluate(builder.table, packet_of(Flow("192.0.2.9", "10.0.0.1", "TCP", 80), local)).accepted


# --- bad input ------------------------------------------------------------------------------------------------------

PORT_1 = {"tcp": {"destinationPort": {"number": 1}}}
EXAMPLES = [
    policy(podSelector={"matchExpressions": [{"key": "a", "operator": "In", "values": ["x"]}]}, ingress=[{"from": [{"podSelector": {}}]}]),
    policy(egress=[{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}], "ports": [{"port": 80, "endPort": 90}]}]),
    cluster_policy("Admin", 1, egress=[{"action": "Deny", "to": [{"networks": ["::/0"]}], "protocols": [PORT_1]}]),
    cluster_policy("Baseline", 1, ingress=[{**DENY, "name": "x", "protocols": [{"destinationNamedPort": "http"}]}]),
    *small().namespaces.values(),
    *small().pods,
]
scraps = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(("'\"", "\ud800", "10.0.0.1/8", "In", "x" * 300)),
    st.just([]),
    st.just({}),
    st.just([[None]]),
    st.just({"a": {"b": "'"}}),
)


def broken(value: Any, scrap: Any, random: Any) -> Any:
    """The value with something in it replaced by the scrap, renamed or gone."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        name = random.choice(sorted(value))
        rest = {key: member for key, member in value.items() if key != name}
        where = random.random()
        if where < 0.1:
            return rest
        return {**rest, f"{name}s": value[name]} if where < 0.2 else {**rest, name: broken(value[name], scrap, random)}
    if isinstance(value, list) and value and random.random() < 0.9:
        return [*value[:-1], broken(value[-1], scrap, random)]
    return scrap


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(EXAMPLES), scraps, st.randoms(use_true_random=False))
def test_whatever_is_written_is_converted_or_refused_in_words(example: dict[str, Any], scrap: Any, random: Any) -> None:
    member = random.choice(("metadata", "spec", "status"))
    data = {**example, member: broken(example.get(member), scrap, random)}
    foreign = Document(data=data, source="test", index=1, line=1)
    try:
        ours = convert_foreign(foreign)
    except InputError as error:
        assert error.problems
        assert all(problem.allowed for problem in error.problems)
    else:
        assert ours is not None
        assert validate_all(ours) == []

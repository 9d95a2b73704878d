"""The incremental graph against the naive recomputation: random resources, any order, any flush points, several hosts."""

from __future__ import annotations

import random
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tabinet.calc.graph import Graph
from tabinet.calc.inputs import Delete, InSync, Put
from tabinet.calc.naive import recompute
from tabinet.calc.replica import Replica
from tabinet.lib.ip import parse_prefix
from tabinet.model.ipam import Affinity, AffinityState
from tabinet.model.keys import AffinityKey, Key, ResourceKey
from tabinet.model.resources import (
    BGPConfiguration,
    BGPConfigurationSpec,
    BGPPeer,
    BGPPeerSpec,
    ClusterInformation,
    ClusterInformationSpec,
    EndpointPort,
    EntityRule,
    FelixConfiguration,
    GlobalNetworkPolicy,
    GlobalNetworkPolicySpec,
    GlobalNetworkSet,
    HttpMatch,
    IPPool,
    IPPoolSpec,
    Metadata,
    NetworkPolicy,
    NetworkPolicySpec,
    NetworkSet,
    NetworkSetSpec,
    Node,
    NodeBgp,
    NodeSpec,
    Profile,
    ProfileSpec,
    Rule,
    ServiceAccountMatch,
    Tier,
    TierSpec,
    WorkloadEndpoint,
    WorkloadEndpointSpec,
)

HOSTS = ("h1", "h2", "h3")
KEYS, VALUES = ("a", "b", "c"), ("x", "y", "z")
NAMESPACES = ("n1", "n2")
PROFILES = ("kns.n1", "kns.n2", "p1", "projectcalico-default-allow", "missing")


T = TypeVar("T")


def named(strategy: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """The strategy behind a short description: Hypothesis writes descriptions out, and these would be long."""

    @st.composite
    def drawn(draw: st.DrawFn) -> T:
        return draw(strategy)

    return drawn()


def subset(values: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), unique=True, max_size=3).map(tuple)


labels = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES), max_size=3)
keys, values = st.sampled_from(KEYS), st.sampled_from(VALUES)
operators = st.sampled_from(("==", "!=", "contains", "starts with", "ends with"))
atoms = st.one_of(
    st.builds("{} {} '{}'".format, keys, operators, values),
    st.builds("{}has({})".format, st.sampled_from(("", "!")), st.sampled_from((*KEYS, "projectcalico.org/namespace"))),
    st.builds("{} {} {{'{}', '{}'}}".format, keys, st.sampled_from(("in", "not in")), values, values),
    st.sampled_from(("all()", "pcns.a == 'x'", "broken ==")),
)
selectors = st.recursive(
    atoms,
    lambda inner: st.builds("{}({} {} {})".format, st.sampled_from(("", "!")), inner, st.sampled_from(("&&", "||")), inner),
    max_leaves=3,
)
maybe_selector = st.one_of(st.just(""), selectors)
nets = st.lists(st.sampled_from(("10.0.0.1/32", "10.0.0.2", "10.0.0.3/32", "fd00::1/128", "fd00:0::2")), unique=True, max_size=2).map(tuple)
wide_nets = st.lists(st.sampled_from(("10.0.0.1/32", "192.0.2.0/24", "fd00::/64", "10.1.0.0/16")), unique=True, max_size=3).map(tuple)
ports = st.lists(
    st.builds(
        EndpointPort, name=st.sampled_from(("http", "dns")), protocol=st.sampled_from(("TCP", "UDP", 17)), port=st.sampled_from((53, 80))
    ),
    max_size=2,
).map(tuple)
rule_ports = st.lists(st.sampled_from((80, "8000:8080", "http", "dns")), max_size=2).map(tuple)
accounts = st.one_of(st.none(), st.builds(ServiceAccountMatch, names=subset(("sa1", "sa2")), selector=maybe_selector))
sides = named(
    st.one_of(
        st.just(EntityRule()),
        st.builds(EntityRule, selector=maybe_selector),
        st.builds(
            EntityRule,
            nets=wide_nets,
            not_nets=wide_nets,
            selector=maybe_selector,
            not_selector=maybe_selector,
            namespace_selector=maybe_selector,
            service_accounts=accounts,
            ports=rule_ports,
            not_ports=rule_ports,
        ),
    )
)
rules = st.lists(
    st.builds(
        Rule,
        action=st.sampled_from(("Allow", "Deny", "Pass", "Log")),
        protocol=st.sampled_from((None, "TCP", "UDP", 47)),
        source=sides,
        destination=sides,
        http=st.sampled_from((None, None, None, HttpMatch(methods=("GET",)))),
    ),
    max_size=2,
).map(tuple)
orders = st.sampled_from((None, 1.0, 2.0))
types = st.sampled_from(((), ("Ingress",), ("Egress",), ("Ingress", "Egress")))
tiers = st.sampled_from(("default", "t1", "t2"))
namespaces = st.sampled_from(NAMESPACES)
durations = st.sampled_from(("", "90s"))


def key(kind: str, names: tuple[str, ...], namespace: st.SearchStrategy[str] | None = None) -> st.SearchStrategy[ResourceKey]:
    return st.builds(ResourceKey, st.just(kind), st.sampled_from(names), st.just("") if namespace is None else namespace)


def meta() -> st.SearchStrategy[Metadata]:
    return st.builds(Metadata, labels=labels)


endpoint_items = named(
    st.tuples(
        key("WorkloadEndpoint", ("w1", "w2", "w3", "w4", "w5"), namespaces),
        st.builds(
            WorkloadEndpoint,
            metadata=meta(),
            spec=st.builds(
                WorkloadEndpointSpec,
                node=st.sampled_from(HOSTS),
                orchestrator=st.sampled_from(("", "k8s")),
                ip_networks=nets,
                profiles=st.lists(st.sampled_from(PROFILES), max_size=3).map(tuple),
                interface_name=st.sampled_from(("", "cali1", "cali2", "cali3", "cali4")),
                mac=st.sampled_from(("", "02-00-5E-10-00-01")),
                ports=ports,
                allow_spoofed_source_prefixes=wide_nets,
                service_account_name=st.sampled_from(("", "sa1")),
            ),
        ),
    )
)
policy_items = named(
    st.tuples(
        key("NetworkPolicy", ("q1", "q2", "q3"), namespaces),
        st.builds(
            NetworkPolicy,
            spec=st.builds(
                NetworkPolicySpec,
                tier=tiers,
                order=orders,
                selector=maybe_selector,
                types=types,
                ingress=rules,
                egress=rules,
                service_account_selector=maybe_selector,
            ),
        ),
    )
)
global_policy_items = named(
    st.tuples(
        key("GlobalNetworkPolicy", ("g1", "g2", "g3")),
        st.builds(
            GlobalNetworkPolicy,
            spec=st.builds(
                GlobalNetworkPolicySpec,
                tier=tiers,
                order=orders,
                selector=maybe_selector,
                types=types,
                ingress=rules,
                egress=rules,
                namespace_selector=st.one_of(st.just(""), st.just("global()"), selectors),
                do_not_track=st.sampled_from((False, False, True)),
            ),
        ),
    )
)
other_items = named(
    st.one_of(
        st.tuples(
            key("Profile", PROFILES[:4]),
            st.builds(
                Profile,
                spec=st.builds(
                    ProfileSpec,
                    ingress=rules,
                    labels_to_apply=st.dictionaries(st.sampled_from(("a", "b", "pcns.a", "pcsa.a")), st.sampled_from(VALUES), max_size=2),
                ),
            ),
        ),
        st.tuples(
            key("Tier", ("t1", "t2", "default")),
            st.builds(Tier, spec=st.builds(TierSpec, order=orders, default_action=st.sampled_from(("Deny", "Pass")))),
        ),
        st.tuples(
            key("NetworkSet", ("s1", "s2"), namespaces),
            st.builds(NetworkSet, metadata=meta(), spec=st.builds(NetworkSetSpec, nets=wide_nets)),
        ),
        st.tuples(
            key("GlobalNetworkSet", ("s1", "s2")),
            st.builds(GlobalNetworkSet, metadata=meta(), spec=st.builds(NetworkSetSpec, nets=wide_nets)),
        ),
    )
)
routing_items = named(
    st.one_of(
        st.tuples(
            key("Node", HOSTS),
            st.builds(
                Node,
                metadata=meta(),
                spec=st.builds(
                    NodeSpec,
                    bgp=st.one_of(
                        st.none(),
                        st.builds(
                            NodeBgp,
                            ipv4_address=st.sampled_from(("", "172.16.0.1/24", "172.16.0.2", "nonsense")),
                            ipv6_address=st.sampled_from(("", "fd01::1/64")),
                            as_number=st.sampled_from((None, 65001, "1.10", "x")),
                            route_reflector_cluster_id=st.sampled_from(("", "224.0.0.1")),
                        ),
                    ),
                ),
            ),
        ),
        st.tuples(
            key("BGPConfiguration", ("default", "node.h1")),
            st.builds(
                BGPConfiguration,
                spec=st.builds(
                    BGPConfigurationSpec,
                    node_to_node_mesh_enabled=st.sampled_from((None, True, False)),
                    as_number=st.sampled_from((None, 64999)),
                    listen_port=st.sampled_from((0, 1179)),
                ),
            ),
        ),
        st.tuples(
            key("BGPPeer", ("b1", "b2")),
            st.builds(
                BGPPeer,
                spec=st.builds(
                    BGPPeerSpec,
                    node=st.sampled_from(("", "h1")),
                    node_selector=maybe_selector,
                    peer_ip=st.sampled_from(("", "192.0.2.1", "[fd02::1]:1179", "172.16.0.1", "bad")),
                    as_number=st.sampled_from((None, 65100)),
                    peer_selector=maybe_selector,
                    reverse_peering=st.sampled_from(("", "Manual")),
                    max_restart_time=durations,
                ),
            ),
        ),
        st.tuples(
            key("IPPool", ("i1", "i2")),
            st.builds(IPPool, spec=st.builds(IPPoolSpec, cidr=st.sampled_from(("10.0.0.0/16", "fd00::/48", "x")))),
        ),
        st.tuples(
            st.builds(AffinityKey, st.sampled_from(HOSTS), st.sampled_from((parse_prefix("10.0.0.0/26"), parse_prefix("10.0.0.64/26")))),
            st.builds(Affinity, state=st.sampled_from(AffinityState), deleted=st.booleans()),
        ),
        st.tuples(
            key("FelixConfiguration", ("default", "node.h1")),
            st.builds(FelixConfiguration, spec=st.dictionaries(st.sampled_from(("mtu", "log")), st.integers(0, 2))),
        ),
        st.tuples(
            key("ClusterInformation", ("default",)),
            st.builds(ClusterInformation, spec=st.builds(ClusterInformationSpec, datastore_ready=st.sampled_from((None, True, False)))),
        ),
    )
)


class GraphMachine(RuleBasedStateMachine):
    """Whatever happens, what was told equals what the specification says of the current resources."""

    @initialize(hosts=st.sets(st.sampled_from(HOSTS[:2]), min_size=1).map(frozenset))
    def start(self, hosts: frozenset[str]) -> None:
        self.hosts = hosts
        self.resources: dict[Key, tuple[object, int]] = {}
        self.revision = 0
        self.graph = Graph(hosts)
        self.replica = Replica()
        self.in_sync = False

    def put(self, item: tuple[Key, object]) -> None:
        self.revision += 1
        self.resources[item[0]] = (item[1], self.revision)
        self.graph.on_input(Put(item[0], item[1], self.revision))

    @rule(items=st.lists(endpoint_items, min_size=1, max_size=6))
    def put_endpoints(self, items: list[tuple[Key, object]]) -> None:
        for item in items:
            self.put(item)

    @rule(items=st.lists(st.one_of(policy_items, global_policy_items), min_size=1, max_size=4))
    def put_policies(self, items: list[tuple[Key, object]]) -> None:
        for item in items:
            self.put(item)

    @rule(item=other_items)
    def put_other(self, item: tuple[Key, object]) -> None:
        self.put(item)

    @rule(item=routing_items)
    def put_routing(self, item: tuple[Key, object]) -> None:
        self.put(item)

    @precondition(lambda self: self.resources)
    @rule(data=st.data(), again=st.booleans())
    def delete(self, data: st.DataObject, again: bool) -> None:
        gone = data.draw(st.sampled_from(sorted(self.resources, key=repr)))
        value, _ = self.resources.pop(gone)
        self.graph.on_input(Delete(gone))
        if again:
            self.put((gone, value))

    @precondition(lambda self: self.resources)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        same = data.draw(st.sampled_from(sorted(self.resources, key=repr)))
        value, revision = self.resources[same]
        self.graph.on_input(Put(same, value, revision))

    @rule(item=st.one_of(st.just(Delete(ResourceKey("Profile", "never"))), st.just(Delete(ResourceKey("WorkloadEndpoint", "never", "n1")))))
    def delete_unknown(self, item: Delete) -> None:
        self.graph.on_input(item)

    @rule()
    def synchronise(self) -> None:
        self.in_sync = True
        self.graph.on_input(InSync())

    @rule(budget=st.integers(1, 5))
    def work_a_little(self, budget: int) -> None:
        self.graph.work(budget)

    @rule(limit=st.integers(1, 4))
    def flush_a_little(self, limit: int) -> None:
        told = self.graph.flush(limit)
        assert len(told) <= limit
        for update in told:
            self.replica.apply(update)

    @rule()
    def flush(self) -> None:
        for update in self.graph.flush():
            self.replica.apply(update)
        assert self.graph.flush() == []

    @invariant()
    def silent_before_in_sync(self) -> None:
        if not self.in_sync:
            assert self.graph.flush() == []

    def teardown(self) -> None:
        if not hasattr(self, "graph"):
            return
        self.synchronise()
        self.flush()
        assert self.replica.state == recompute(self.resources, self.hosts)
        self.a_restart_in_another_order_tells_the_same()
        for gone in list(self.resources):
            self.graph.on_input(Delete(gone))
        self.flush()
        assert self.replica.state == recompute({}, self.hosts)

    def a_restart_in_another_order_tells_the_same(self) -> None:
        items = list(self.resources.items())
        random.Random(self.revision).shuffle(items)
        fresh, replica = Graph(self.hosts), Replica()
        for each, (value, revision) in items:
            fresh.on_input(Put(each, value, revision))
        fresh.on_input(InSync())
        for update in fresh.flush():
            replica.apply(update)
        assert replica.state == self.replica.state
        assert set(fresh.problems()) == set(self.graph.problems())


class FlushingMachine(GraphMachine):
    """The same, compared after every step."""

    @invariant()
    def agrees(self) -> None:
        if not self.in_sync:
            return
        for update in self.graph.flush():
            self.replica.apply(update)
        assert self.replica.state == recompute(self.resources, self.hosts)


BUDGET = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
TestGraph = GraphMachine.TestCase
TestGraph.settings = settings(BUDGET, max_examples=60, stateful_step_count=30)
TestFlushingGraph = FlushingMachine.TestCase
TestFlushingGraph.settings = settings(BUDGET, max_examples=40, stateful_step_count=20)

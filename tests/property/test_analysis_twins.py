"""Endpoints for which another one is calculated, against calculating each by itself: the same flows, plans and proofs."""

from __future__ import annotations

import itertools
from collections import Counter

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from test_rules_against_naive import EXAMPLES

from tabinet.analysis.plan import make_plan
from tabinet.analysis.relation import Relation
from tabinet.analysis.situation import Calculation, calculate, relate
from tabinet.analysis.verify import verify
from tabinet.lib.ip import parse_prefix
from tabinet.model.invariants import read_invariant
from tabinet.model.keys import ResourceKey
from tabinet.model.resources import (
    EndpointPort,
    EntityRule,
    GlobalNetworkPolicy,
    GlobalNetworkPolicySpec,
    GlobalNetworkSet,
    HostEndpoint,
    HostEndpointSpec,
    Metadata,
    NetworkPolicy,
    NetworkPolicySpec,
    NetworkSetSpec,
    Profile,
    ProfileSpec,
    Rule,
    WorkloadEndpoint,
    WorkloadEndpointSpec,
)
from tabinet.rules.options import TableOptions

ADDRESSES = [f"10.0.{half}.{number}" for half in (0, 1) for number in range(1, 8)] + [f"fd00::{number}" for number in range(1, 5)]
NETS = ["10.0.0.0/24", "10.0.0.0/30", "10.0.0.2/32", "fd00::/126", "10.0.0.3", "192.0.2.0/24"]
SELECTORS = ["all()", "app == 'a'", "app == 'b'", "has(tier)", "tier != 'x'", "pod == '3'", "team == 't' && app == 'a'"]
PACKETS = [(6, 80, 1000), (6, 8080, 1000), (17, 53, 1000), (1, 8, 0), (58, 128, 0), (47, 0, 0)]

label_sets = st.fixed_dictionaries(
    {}, optional={"app": st.sampled_from("ab"), "tier": st.sampled_from("xy"), "team": st.just("t"), "pod": st.sampled_from("123")}
)
addresses = st.one_of(st.none(), st.lists(st.sampled_from([*ADDRESSES, "10.0.0.8/30"]), max_size=2, unique=True))
"""None: the endpoint's own."""
ports = st.sampled_from([(), (EndpointPort(name="http", protocol="TCP", port=8080),)])


def endpoint(number: int, labels, own, interface, ports, profiles) -> tuple[ResourceKey, WorkloadEndpoint]:
    spec = WorkloadEndpointSpec(
        orchestrator="k8s",
        node=f"host-{number % 2}",
        interface_name=f"cali{number}" if interface is None else interface,
        ip_networks=tuple(own if own is not None else [ADDRESSES[number % len(ADDRESSES)]]),
        ports=ports,
        profiles=profiles,
    )
    key = ResourceKey("WorkloadEndpoint", f"w{number}", "ns" if number % 5 else "other")
    return key, WorkloadEndpoint(metadata=Metadata(name=key.name, namespace=key.namespace, labels=labels), spec=spec)


endpoints = st.builds(
    lambda parts: dict(endpoint(number, *part) for number, part in enumerate(parts)),
    st.lists(
        st.tuples(
            label_sets,
            st.one_of(st.none(), st.none(), addresses),
            st.sampled_from([None, None, None, None, "cali0", ""]),
            ports,
            st.sampled_from([(), ("p",), ("p", "q")]),
        ),
        min_size=2,
        max_size=12,
    ),
)
sides = st.builds(
    EntityRule,
    selector=st.sampled_from(["", *SELECTORS]),
    not_selector=st.sampled_from(["", "", *SELECTORS]),
    nets=st.sampled_from([(), (), *[(net,) for net in NETS]]),
)
rules = st.builds(
    lambda action, source, destination, named: Rule(
        action=action,
        protocol="TCP" if named else None,
        source=source,
        destination=msgspec.structs.replace(destination, ports=("http",)) if named else destination,
    ),
    st.sampled_from(["Allow", "Allow", "Deny", "Pass"]),
    sides,
    sides,
    st.booleans(),
)
directions = st.tuples(st.lists(rules, max_size=2).map(tuple), st.lists(rules, max_size=1).map(tuple))


def policy(selector, both, types, order, namespaced):
    kind, spec_of = (NetworkPolicy, NetworkPolicySpec) if namespaced else (GlobalNetworkPolicy, GlobalNetworkPolicySpec)
    return kind(spec=spec_of(selector=selector, ingress=both[0], egress=both[1], types=types, order=order))


policies = st.lists(
    st.builds(
        policy,
        st.sampled_from(SELECTORS),
        directions,
        st.sampled_from([("Ingress",), ("Ingress", "Egress"), ("Egress",)]),
        st.sampled_from([1.0, 2.0, None]),
        st.booleans(),
    ),
    max_size=3,
).map(
    lambda found: {
        ResourceKey(type(each).__name__, f"p{number}", "ns" if isinstance(each, NetworkPolicy) else ""): each
        for number, each in enumerate(found)
    }
)
others = st.fixed_dictionaries(
    {},
    optional={
        ResourceKey("GlobalNetworkSet", "s"): st.builds(
            lambda labels, nets: GlobalNetworkSet(metadata=Metadata(labels=labels), spec=NetworkSetSpec(nets=tuple(nets))),
            label_sets,
            st.lists(st.sampled_from(NETS), max_size=3),
        ),
        ResourceKey("HostEndpoint", "h"): st.builds(
            lambda labels, address: HostEndpoint(
                metadata=Metadata(labels=labels), spec=HostEndpointSpec(node="host-0", interface_name="eth0", expected_ips=(address,))
            ),
            label_sets,
            st.sampled_from(ADDRESSES),
        ),
        ResourceKey("Profile", "p"): st.builds(
            lambda labels, both: Profile(spec=ProfileSpec(labels_to_apply=labels, ingress=both[0], egress=both[1])), label_sets, directions
        ),
    },
)
fabrics = st.builds(lambda *parts: {key: value for part in parts for key, value in part.items()}, endpoints, policies, others)


def stored(values):
    return {key: (value, 1) for key, value in values.items()}


def one_by_one(values, changes=None) -> Calculation:
    """The calculation in which nobody stands for another."""
    found = calculate(stored(values), {key: value for key, value in values.items() if isinstance(value, WorkloadEndpoint)})
    assert not found.situation.twins.groups
    return found


def ends(relation: Relation, values) -> list[tuple[object, object, int]]:
    """Every address of every endpoint, and some that nobody has, with its class."""
    universe = relation.universe
    found = [((str(unit.endpoint), unit.address), number) for number, units in enumerate(universe.units) for unit in units]
    taken = {address for (_, address), _ in found}
    for text in [*ADDRESSES, "192.0.2.9", "10.9.9.9", "2001:db8::9"]:
        address = parse_prefix(text)
        if address not in taken:
            found.append((("outside", address), universe.classes_at(address)[0]))
    return sorted(((name, address.family, number) for (name, address), number in found for name in [(name, address)]), key=repr)


def assert_alike(one: Relation, other: Relation, values) -> None:
    ours, theirs = ends(one, values), ends(other, values)
    assert [(name, family) for name, family, _ in ours] == [(name, family) for name, family, _ in theirs]
    for (mine, a), (yours, b) in itertools.product(zip(ours, theirs, strict=True), repeat=2):
        if mine[1] == yours[1]:
            for packet in PACKETS:
                assert one.admits(mine[2], yours[2], *packet) == other.admits(a[2], b[2], *packet), (mine, yours, packet)


@settings(max_examples=EXAMPLES)
@given(fabrics)
def test_everybody_may_what_they_may_when_each_is_calculated_by_itself(values):
    _, (one,) = relate([calculate(stored(values)).situation])
    _, (other,) = relate([one_by_one(values).situation])
    assert_alike(one, other, values)


@settings(max_examples=EXAMPLES)
@given(fabrics, fabrics, st.booleans(), st.randoms(use_true_random=False))
def test_changes_do_the_same(values, new, announced, random):
    changes = {key: value for key, value in new.items() if random.random() < 0.25 and values.get(key) != value}
    changes |= {key: None for key in values if key not in changes and random.random() < 0.1}
    one, other = calculate(stored(values), changes if announced else {}), one_by_one(values)
    before = [one.prepare(changes), other.prepare(changes)]
    after = [one.change(changes), other.change(changes)]
    for mine, yours in ((before[0], before[1]), (after[0], after[1])):
        _, (relation,) = relate([mine])
        _, (expected,) = relate([yours])
        assert_alike(relation, expected, values)
    mine, yours = [
        make_plan(calculation, changes, lambda _: TableOptions())
        for calculation in (calculate(stored(values), changes if announced else {}), one_by_one(values))
    ]
    assert (mine.changed_endpoints, mine.hosts, mine.more_hosts) == (yours.changed_endpoints, yours.hosts, yours.more_hosts)
    for field in ("opened", "closed", "first_policies"):
        assert bool(getattr(mine, field)) == bool(getattr(yours, field))
    counts = [Counter((each.direction, each.gets, each.endpoints) for each in plan.first_policies) for plan in (mine, yours)]
    assert counts[0] == counts[1]


INVARIANTS = [
    read_invariant({"apiVersion": "tabinet/v1", "kind": "Invariant", "metadata": {"name": f"i{number}"}, "spec": spec})
    for number, spec in enumerate(
        [
            {"never": {"from": {"selector": "pod == '1'"}, "to": {"selector": "app == 'a'"}}},
            {"always": {"from": {"selector": "app == 'a'"}, "to": {"nets": ["10.0.0.4/30"]}, "packets": [{"protocol": "TCP"}]}},
            {"isolated": {"label": "pod"}},
        ]
    )
]


@settings(max_examples=EXAMPLES)
@given(fabrics)
def test_invariants_hold_or_not_all_the_same(values):
    mine, yours = (verify(each.situation, INVARIANTS) for each in (calculate(stored(values)), one_by_one(values)))
    assert [(each.holds, each.vacuous) for each in mine] == [(each.holds, each.vacuous) for each in yours]

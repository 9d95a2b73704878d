"""The relation and its changes against the naive evaluator: every pair of addresses, every kind of packet that rules can tell apart."""

from __future__ import annotations

import itertools

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from test_rules_against_naive import (
    ADDRESSES,
    EXAMPLES,
    NET_SETS,
    NETS,
    POLICIES,
    PORT_SETS,
    PROFILES,
    endpoints,
    members,
    policies,
    port_members,
)

from tabinet.analysis.boxes import Boxes
from tabinet.analysis.delta import compare
from tabinet.analysis.headers import FULL, HeaderSpace
from tabinet.analysis.masks import numbers_of
from tabinet.analysis.relation import Relation, TierOrder
from tabinet.analysis.universe import Universe, divide
from tabinet.calc import messages as m
from tabinet.calc.replica import State
from tabinet.lib.ip import Prefix, parse_prefix
from tabinet.model.keys import ResourceKey
from tabinet.rules.evaluate import Packet
from tabinet.rules.naive import World

TIERS = ["security", "default"]
KEYS = [ResourceKey("WorkloadEndpoint", f"w{index}", "ns") for index in range(3)]
OUTSIDE = [parse_prefix(text) for text in ("10.0.0.77", "10.9.9.9", "fd00::77", "2001:db8::5")]
KINDS = [
    (6, 80, 1024),
    (6, 443, 22),
    (6, 22, 443),
    (17, 81, 80),
    (17, 443, 443),
    (47, 0, 0),
    (4, 0, 0),
    (132, 443, 80),
    (136, 80, 22),
    (17, 4789, 80),
]
ICMP = {4: [(1, 8, 0), (1, 13, 1), (58, 128, 0)], 6: [(58, 128, 0), (58, 128, 1), (1, 8, 0)]}


def tidy(endpoint: m.Endpoint, index: int) -> m.Endpoint:
    """With an interface of its own; tiers in one order, each with one default, each policy in one tier: so calculations have them."""

    def tiers(listed: tuple[m.TierPolicies, ...]) -> tuple[m.TierPolicies, ...]:
        found = []
        for number, name in enumerate(TIERS):
            keys = {key for tier in listed if tier.tier == name for key in tier.policies if POLICIES.index(key) % 2 == number}
            if keys:
                action = m.Action.PASS if name == "security" else m.Action.DENY
                found.append(m.TierPolicies(name, action, tuple(sorted(keys, key=POLICIES.index))))
        return tuple(found)

    return msgspec.structs.replace(
        endpoint, interface=f"cali{index}", ingress=tiers(endpoint.ingress), egress=tiers(endpoint.egress), spoof_nets=(), nats=(), mac=""
    )


states = st.builds(
    lambda sets, ports, rules, profiles, ends: State(
        sets={name: (m.SetKind.NETS, found) for name, found in zip(NET_SETS, sets, strict=True)}
        | {name: (m.SetKind.PORTS, found) for name, found in zip(PORT_SETS, ports, strict=True)},
        policies=dict(zip(POLICIES, rules, strict=True)),
        profiles={name: found for name, found in zip(PROFILES, profiles, strict=True) if found is not None},
        endpoints={key: (1, tidy(end, index)) for index, (key, end) in enumerate(zip(KEYS, ends, strict=False))},
    ),
    st.tuples(*(members for _ in NET_SETS)),
    st.tuples(*(port_members for _ in PORT_SETS)),
    st.tuples(*(policies for _ in POLICIES)),
    st.tuples(*(st.none() | policies for _ in PROFILES)),
    st.lists(endpoints, min_size=1, max_size=3),
)


def world_of(state: State) -> World:
    world = World(policies=dict(state.policies), profiles=dict(state.profiles))
    world.sets = {name: (kind, set(found)) for name, (kind, found) in state.sets.items()}
    world.endpoints = {key: endpoint for key, (_, endpoint) in state.endpoints.items()}
    return world


def relations(universe: Universe, *, reverse: bool = False) -> list[Relation]:
    algebra = Boxes(HeaderSpace())
    orders = [TierOrder(TIERS, POLICIES) for _ in universe.states]
    return [Relation(universe, index, order, algebra) for index, order in enumerate(orders)]


def ends_in(state: State) -> list[tuple[str, Prefix]]:
    """Every address with the interface behind which it is."""
    owned = {address for _, endpoint in state.endpoints.values() for address in endpoint.nets}
    inside = [(endpoint.interface, address) for _, endpoint in state.endpoints.values() for address in endpoint.nets]
    return inside + [("eth0", address) for address in (*ADDRESSES, *OUTSIDE) if address not in owned]


def class_of(universe: Universe, state: State, interface: str, address: Prefix) -> int:
    found = universe.classes_at(address)
    if interface == "eth0":
        return found[0]
    (key,) = [key for key, (_, endpoint) in state.endpoints.items() if endpoint.interface == interface]
    return next(number for number in found if any(unit.endpoint == key for unit in universe.units[number]))


def questions(state: State):
    for (into, source), (out, destination) in itertools.permutations(ends_in(state), 2):
        if source.family == destination.family and source != destination and "eth0" not in (into if out == "eth0" else "",):
            for protocol, first, second in (*KINDS, *ICMP[source.family]):
                yield into, source, out, destination, protocol, first, second


def packet(into, source, out, destination, protocol, first, second) -> Packet:
    if protocol in (1, 58):
        return Packet(into, out, source, destination, protocol, icmp_type=first, icmp_code=second)
    return Packet(into, out, source, destination, protocol, second, first)


@settings(max_examples=EXAMPLES)
@given(states)
def test_the_relation_is_what_the_naive_evaluator_says(state):
    universe = divide([state])
    (relation,) = relations(universe)
    world = world_of(state)
    for question in questions(state):
        into, source, out, destination, *rest = question
        got = relation.admits(class_of(universe, state, into, source), class_of(universe, state, out, destination), *rest)
        assert got == world.forwards(packet(*question)), question


def altered(state: State, other: State, random) -> State:
    """The state with some things as in the other."""

    def mixed(mine, theirs):
        found = {key: theirs[key] if random.random() < 0.3 and key in theirs else mine[key] for key in mine}
        found |= {key: theirs[key] for key in theirs if key not in mine and random.random() < 0.3}
        return {key: value for key, value in found.items() if random.random() < 0.9}

    return State(
        sets={key: other.sets[key] if random.random() < 0.3 else state.sets[key] for key in state.sets},
        policies={key: other.policies[key] if random.random() < 0.3 else state.policies[key] for key in state.policies},
        profiles=mixed(state.profiles, other.profiles),
        endpoints=mixed(state.endpoints, other.endpoints),
    )


@settings(max_examples=EXAMPLES)
@given(states, states, st.randoms(use_true_random=False))
def test_changes_are_those_that_the_two_relations_have(state, other, random):
    after_state = altered(state, other, random)
    universe = divide([state, after_state])
    before, after = relations(universe)
    delta = compare(before, after)
    for boxes, one, another in ((delta.opened, after, before), (delta.closed, before, after)):
        for source, destination in itertools.product(range(universe.size), repeat=2):
            if universe.kinds[source].family != universe.kinds[destination].family:
                continue
            if not ((one.endpoints >> source | one.endpoints >> destination) & 1):
                continue
            for protocol, first, second in (*KINDS, *ICMP[universe.kinds[source].family]):
                expected = one.admits(source, destination, protocol, first, second) and not another.admits(
                    source, destination, protocol, first, second
                )
                got = any(
                    senders >> source & 1 and receivers >> destination & 1 and after.space.has(headers, protocol, first, second)
                    for senders, receivers, headers in boxes
                )
                assert got == expected, (source, destination, protocol, first, second)


@settings(max_examples=EXAMPLES)
@given(states)
def test_what_is_within_a_window_is_what_is_allowed_there(state):
    universe = divide([state], NETS)
    (relation,) = relations(universe)
    some = relation.within(universe.everything, universe.everything, FULL)
    listed = {(s, d, h) for senders, receivers, h in some for s in numbers_of(senders) for d in numbers_of(receivers)}
    for source, destination in itertools.product(range(universe.size), repeat=2):
        if universe.kinds[source].family == universe.kinds[destination].family:
            for protocol, first, second in (*KINDS, *ICMP[universe.kinds[source].family]):
                got = any(
                    (source, destination) == (s, d) and relation.space.has(headers, protocol, first, second) for s, d, headers in listed
                )
                inside = (relation.endpoints >> source | relation.endpoints >> destination) & 1
                assert got == bool(inside and relation.admits(source, destination, protocol, first, second))

"""Which policies of a tier are asked of a packet, told by protocol and port."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabinet.calc import messages as m
from tabinet.lib.ip import parse_address
from tabinet.model.keys import ResourceKey
from tabinet.rules import ir
from tabinet.rules.builder import TableBuilder
from tabinet.rules.dispatch import EVERYTHING, LAST_PORT, SPREAD, Asked, PortRange, Reach, Run, parts, reach_of
from tabinet.rules.options import TableOptions
from tabinet.rules.policy import merge_ranges

TCP, UDP = 6, 17
EDGES = [0, 1, 79, 80, 81, 443, LAST_PORT - 1, LAST_PORT]

pairs = st.tuples(st.sampled_from(EDGES), st.sampled_from(EDGES)).map(sorted).map(tuple)
by_protocol = st.dictionaries(st.sampled_from([TCP, UDP, 1]), st.lists(pairs, min_size=1, max_size=3), max_size=3)


def reach(ranges: dict[int, list[tuple[int, int]]]) -> Reach:
    return Reach(tuple(PortRange(number, item.first, item.last) for number in sorted(ranges) for item in merge_ranges(ranges[number])))


reaches = st.one_of(st.just(EVERYTHING), by_protocol.map(reach), by_protocol.map(reach), by_protocol.map(reach))


def concerns(what: Reach, protocol: int, port: int) -> bool:
    return what.everything or any(item.protocol == protocol and item.first <= port <= item.last for item in what.ranges)


def asked(found: list[str | Run], protocol: int, port: int) -> list[str]:
    chains: list[str] = []
    for part in found:
        if isinstance(part, str):
            chains.append(part)
            continue
        for segment in part.segments.get(protocol, []):
            if segment.first <= port <= segment.last:
                chains += segment.chains
    return chains


@given(st.lists(reaches, max_size=12), st.integers(1, 5))
def test_who_can_match_is_asked_in_order_and_of_runs_nobody_else(listed, fewest):
    policies = [Asked(f"p{number}", what) for number, what in enumerate(listed)]
    found = list(parts(policies, fewest))
    alone = {part for part in found if isinstance(part, str)}
    for protocol in (TCP, UDP, 1, 132):
        for port in EDGES:
            wanted = [policy.chain for policy in policies if policy.chain in alone or concerns(policy.reach, protocol, port)]
            assert asked(found, protocol, port) == wanted


@given(st.lists(reaches, max_size=30))
def test_lists_are_no_longer_than_the_ranges_allow(listed):
    policies = {f"p{number}": what for number, what in enumerate(listed)}
    found = list(parts([Asked(chain, what) for chain, what in policies.items()], 2))
    for run in found:
        if isinstance(run, Run):
            segments = [segment for listed in run.segments.values() for segment in listed]
            ranges = sum(len(policies[chain].ranges) for chain in {chain for segment in segments for chain in segment.chains})
            assert sum(len(segment.chains) for segment in segments) <= SPREAD * ranges


def test_many_policies_of_overlapping_wide_ranges_stay_linear():
    policies = [Asked(f"p{number}", Reach((PortRange(TCP, 1000 + number, 3000 + number),))) for number in range(500)]
    found = list(parts(policies, 4))
    assert sum(1 if isinstance(part, str) else sum(len(item.chains) for item in part.segments[TCP]) for part in found) <= SPREAD * 500


@pytest.mark.parametrize(
    ("matches", "wanted"),
    [
        ((), EVERYTHING),
        ((ir.Protocol(TCP, negated=True),), EVERYTHING),
        ((ir.Protocol(TCP),), Reach((PortRange(TCP),))),
        ((ir.Protocol(TCP), ir.Port(ir.Side.DESTINATION, 80, 81)), Reach((PortRange(TCP, 80, 81),))),
        ((ir.Protocol(TCP), ir.Port(ir.Side.DESTINATION, 80, 81, negated=True)), Reach((PortRange(TCP),))),
        ((ir.Protocol(TCP), ir.Port(ir.Side.SOURCE, 80, 81)), Reach((PortRange(TCP),))),
        ((ir.Protocol(TCP), ir.PortIn(ir.Side.DESTINATION, "web")), Reach((PortRange(TCP, 80, 80), PortRange(TCP, 443, 443)))),
        ((ir.AddressPortIn(ir.Side.DESTINATION, 4, "named"),), EVERYTHING),
    ],
)
def test_reach_of_a_rule(matches, wanted):
    assert reach_of([ir.Rule(ir.Next(), matches)], {"web": [ir.Range(80, 80), ir.Range(443, 443)]}) == wanted


# --- in a table -----------------------------------------------------------------------------------------------------


def policy_key(number: int) -> ResourceKey:
    return ResourceKey("GlobalNetworkPolicy", f"p{number}")


def allow(port: int) -> m.Policy:
    rules = (m.Rule(m.Action.ALLOW, protocol=TCP, destination=m.Side(ports=(m.PortRange(port, port),))),)
    return m.Policy(rules, rules)


def host(policies: int, options: TableOptions | None = None) -> TableBuilder:
    """An endpoint with so many policies, two for each port."""
    builder = TableBuilder(options)
    for number in range(policies):
        builder.on_update(m.PolicyUpdate(policy_key(number), allow(8000 + number // 2)))
    tiers = (m.TierPolicies("default", m.Action.DENY, tuple(map(policy_key, range(policies)))),)
    body = m.Endpoint("h", "cali1", "", (parse_address("10.0.0.1"),), (), tiers, tiers, ())
    builder.on_update(m.EndpointUpdate(ResourceKey("WorkloadEndpoint", "w"), 1, body))
    builder.flush()
    return builder


def port_maps(builder: TableBuilder) -> dict[str, dict[str, str]]:
    return {name: builder.table.maps[name] for name, item in builder.table.sets.items() if item.type is ir.SetType.PORT_CHAINS}


def test_few_policies_are_asked_one_after_the_other():
    assert not port_maps(host(3))
    assert len(port_maps(host(4))) == 2, "one for each direction"


def test_an_edit_touches_what_it_changes():
    builder = host(100)
    builder.on_update(m.PolicyUpdate(policy_key(0), allow(9000)))
    delta = builder.flush()
    assert len(delta.chains) <= 4, "the policy, and who asks policy 1, in both directions"
    assert not delta.sets and not delta.sets_removed
    changed = list(delta.map_set.values())
    assert [sorted(keys) for keys in changed] == [["8000-8000", "9000-9000"]] * 2
    more = m.Policy((m.Rule(m.Action.DENY, protocol=TCP, destination=m.Side(ports=(m.PortRange(9000, 9000),))),), ())
    builder.on_update(m.PolicyUpdate(policy_key(0), more))
    delta = builder.flush()
    assert len(delta.chains) == 2 and not delta.map_set, "the reach of ingress is what it was, and egress concerns nothing more"
    assert list(delta.map_removed.values()) == [{"9000-9000"}]


def test_equal_lists_are_one_chain():
    builder = TableBuilder()
    web = m.Side(ports=(m.PortRange(80, 80), m.PortRange(443, 443), m.PortRange(8080, 8080)))
    for number in range(8):
        builder.on_update(m.PolicyUpdate(policy_key(number), m.Policy((m.Rule(m.Action.ALLOW, protocol=TCP, destination=web),), ())))
    tiers = (m.TierPolicies("default", m.Action.DENY, tuple(map(policy_key, range(8)))),)
    body = m.Endpoint("h", "cali1", "", (parse_address("10.0.0.1"),), (), tiers, (), ())
    builder.on_update(m.EndpointUpdate(ResourceKey("WorkloadEndpoint", "w"), 1, body))
    builder.flush()
    (ports,) = port_maps(builder).values()
    assert len(ports) == 3 and len(set(ports.values())) == 1
    builder.on_update(m.EndpointRemove(ResourceKey("WorkloadEndpoint", "w")))
    builder.flush()
    assert builder.table == TableBuilder().table

"""Rules: what one rule becomes, what revokes, how the host is reached, names and marks."""

from __future__ import annotations

import pytest

from tabinet.calc import messages as m
from tabinet.kernel.nftables import ARP_PREFIX
from tabinet.lib.ip import Prefix, parse_address, parse_prefix
from tabinet.model.keys import ResourceKey
from tabinet.rules import ir, names
from tabinet.rules.builder import TableBuilder
from tabinet.rules.evaluate import Packet, evaluate
from tabinet.rules.layout import fixed_chains
from tabinet.rules.marks import GENERATION_MASK, LAST_GENERATION, generation_mark, mark_generation, next_generation
from tabinet.rules.options import HostAction, TableOptions
from tabinet.rules.policy import SetShape, Targets, collapse, compile_policy, merge_ranges
from tabinet.rules.reach import End, Flow, judge, passes
from tabinet.rules.revocation import only_adds, polarities
from tabinet.rules.roles import DENIALS

KEY = ResourceKey("NetworkPolicy", "web", "ns")
ALLOW, DENY, LOG, PASS = m.Action.ALLOW, m.Action.DENY, m.Action.LOG, m.Action.PASS
SHAPES = {
    "plain": SetShape(m.SetKind.NETS),
    "nets": SetShape(m.SetKind.NETS, frozenset({4})),
    "named": SetShape(m.SetKind.PORTS),
}


def side(**fields) -> m.Side:
    return m.Side(**fields)


def compiled(*rules: m.Rule):
    return compile_policy(KEY, True, rules, SHAPES.get, Targets(allow=ir.Goto("accepted"), passing=ir.Return()), TableOptions())


def matches(*rules: m.Rule) -> list[tuple[ir.Match, ...]]:
    program = compiled(*rules)
    assert program is not None
    return [rule.matches for rule in program.rules]


@pytest.mark.parametrize(
    ("rule", "count"),
    [
        (m.Rule(ALLOW), 1),
        (m.Rule(ALLOW, ip_version=6), 1),
        (m.Rule(ALLOW, protocol=6), 1),
        (m.Rule(ALLOW, protocol=1), 1),
        (m.Rule(ALLOW, protocol=1, ip_version=6), 0),
        (m.Rule(ALLOW, protocol=6, icmp=m.Icmp(8)), 0),
        (m.Rule(ALLOW, icmp=m.Icmp(8)), 2),
        (m.Rule(ALLOW, source=side(nets=(parse_prefix("10.0.0.0/8"),))), 1),
        (m.Rule(ALLOW, ip_version=6, source=side(nets=(parse_prefix("10.0.0.0/8"),))), 0),
        (m.Rule(ALLOW, source=side(nets=(parse_prefix("10.0.0.0/8"),)), destination=side(nets=(parse_prefix("fd00::/8"),))), 0),
        (m.Rule(ALLOW, source=side(not_nets=(parse_prefix("10.0.0.0/8"),))), 2),
        (m.Rule(ALLOW, source=side(sets=("plain",))), 2),
        (m.Rule(ALLOW, source=side(sets=("nets",))), 3),
        (m.Rule(ALLOW, source=side(not_sets=("nets",))), 2),
        (m.Rule(ALLOW, protocol=6, destination=side(ports=(m.PortRange(1, 2), m.PortRange(9, 9)))), 1),
        (m.Rule(ALLOW, protocol=6, destination=side(ports=(m.PortRange(1, 2),), port_sets=("named",))), 4),
        (m.Rule(ALLOW, destination=side(port_sets=("named",))), 2),
        (m.Rule(ALLOW, destination=side(port_sets=("named",), not_ports=(m.PortRange(1, 2),))), 8),
        (m.Rule(ALLOW, destination=side(ports=(m.PortRange(1, 2),))), 4),
        (m.Rule(ALLOW, not_protocol=17, destination=side(ports=(m.PortRange(1, 2),))), 3),
        (m.Rule(ALLOW, protocol=1, destination=side(ports=(m.PortRange(1, 2),))), 0),
        (m.Rule(ALLOW, protocol=6, destination=side(ports=(m.PortRange(2, 1),))), 0),
    ],
)
def test_how_many_rules_one_rule_becomes(rule, count):
    assert len(matches(rule)) == count


def ports(*numbers: int, **fields) -> list[m.Rule]:
    return [m.Rule(ALLOW, protocol=6, destination=side(ports=(m.PortRange(number, number),)), **fields) for number in numbers]


def test_many_rules_that_differ_in_a_port_are_one_lookup():
    program = compiled(m.Rule(DENY, protocol=17), *ports(80, 443, 8080, 22), m.Rule(LOG))
    assert program is not None
    assert [rule.comment.split()[2:] for rule in program.rules] == [["0", "Deny"], ["1-4", "Allow"], ["5", "Log"]]
    (constant,) = program.constants.values()
    assert constant.elements == {ir.Range(number, number) for number in (22, 80, 443, 8080)}
    assert program.rules[1].origin == ir.Origin("NetworkPolicy/ns/web", True, 1, "Allow", 4)


def test_rules_of_other_actions_and_logs_part_what_could_be_merged():
    for between in (m.Rule(DENY, protocol=6), m.Rule(LOG)):
        assert len(matches(*ports(1, 3), between, *ports(5, 7))) == 5
    assert len(matches(*ports(1, 3, 5))) == 3, "too few for a set"


def test_rules_merge_over_others_of_the_same_action():
    nets = [m.Rule(ALLOW, source=side(nets=(parse_prefix(f"10.{number}.0.0/16"),))) for number in range(0, 10, 2)]
    mixed = [rule for pair in zip(nets, ports(1, 3, 5, 7, 9), strict=True) for rule in pair]
    assert len(matches(*mixed)) == 2


def test_a_rule_for_any_port_is_no_part_of_a_union():
    anyport = m.Rule(ALLOW, protocol=6)
    assert len(matches(anyport, *ports(1, 3, 5))) == 4
    assert len(matches(anyport, *ports(1, 3, 5, 7))) == 2


def test_a_negated_set_with_nets_excludes_both_parts():
    v4, v6 = matches(m.Rule(ALLOW, source=side(not_sets=("nets",))))
    assert v4 == (ir.AddressIn(ir.Side.SOURCE, 4, "a4-nets", True), ir.AddressIn(ir.Side.SOURCE, 4, "n4-nets", True))
    assert v6 == (ir.AddressIn(ir.Side.SOURCE, 6, "a6-nets", True),)


def test_a_family_that_no_address_implies_is_named():
    assert matches(m.Rule(ALLOW, source=side(not_nets=(parse_prefix("10.0.0.0/8"),))))[1] == (ir.Family(6),)


@pytest.mark.parametrize("fields", [{"sets": ("gone",)}, {"not_sets": ("gone",)}, {"sets": ("named",)}, {"port_sets": ("plain",)}])
def test_a_set_that_is_missing_or_of_the_wrong_kind_spoils_the_policy(fields):
    assert compiled(m.Rule(ALLOW), m.Rule(ALLOW, protocol=6, source=side(**fields))) is None


def test_log_counts_and_goes_on():
    program = compiled(m.Rule(LOG))
    assert program is not None
    (rule,) = program.rules
    assert rule.verdict == ir.Next() and rule.log is not None and rule.log.prefix == "NetworkPolicy/ns/web"


def test_ranges_merge_whatever_the_order():
    nets = [parse_prefix(text) for text in ("10.0.1.0/24", "10.0.0.0/24", "10.0.0.7", "10.0.3.0/24")]
    low = nets[1].value
    assert collapse(nets) == collapse(nets[::-1]) == {ir.Range(low, low + 511), ir.Range(low + 768, low + 1023)}
    assert list(merge_ranges([(0, 0), (1, 5), (7, 7)])) == [ir.Range(0, 5), ir.Range(7, 7)]


A, B, D = m.Rule(ALLOW, protocol=6), m.Rule(ALLOW, protocol=17), m.Rule(DENY, protocol=17)


@pytest.mark.parametrize(
    ("old", "new", "adds"),
    [
        ((), (A,), True),
        ((A,), (A, B), True),
        ((A,), (B, A), True),
        ((A, D), (A,), True),
        ((A,), (m.Rule(LOG), A), True),
        ((A, B), (A,), False),
        ((A,), (D, A), False),
        ((A, D), (D, A), False),
        ((m.Rule(PASS),), (), False),
        ((), (m.Rule(PASS),), False),
    ],
)
def test_only_allow_comes_and_deny_goes_without_revoking(old, new, adds):
    assert only_adds(old, new) is adds


@pytest.mark.parametrize(
    ("action", "fields", "growing", "shrinking"),
    [
        (ALLOW, {"sets": ("s",)}, False, True),
        (ALLOW, {"not_sets": ("s",)}, True, False),
        (DENY, {"sets": ("s",)}, True, False),
        (DENY, {"not_sets": ("s",)}, False, True),
        (PASS, {"sets": ("s",)}, True, True),
        (LOG, {"sets": ("s",)}, False, False),
        (ALLOW, {"port_sets": ("s",)}, False, True),
    ],
)
def test_polarity_of_a_set(action, fields, growing, shrinking):
    polarity = polarities([m.Rule(action, source=side(**fields))])["s"]
    assert (polarity.growing_revokes, polarity.shrinking_revokes) == (growing, shrinking)


def test_generations_skip_zero_and_keep_others_bits():
    assert next_generation(0) == (1, False)
    assert next_generation(LAST_GENERATION) == (1, True)
    assert generation_mark(LAST_GENERATION) == GENERATION_MASK == 0x00FFFF00
    assert mark_generation(generation_mark(513) | 0xFF0000FF) == 513
    for wrong in (0, LAST_GENERATION + 1):
        with pytest.raises(ValueError, match="out of range"):
            generation_mark(wrong)


def test_names_stay_within_the_limits_and_apart():
    long = ResourceKey("NetworkPolicy", "n" * 253, "ns")
    odd = ResourceKey("Profile", "a b/c")
    found = {
        names.policy_chain(key, ingress) for key in (KEY, long, odd, ResourceKey("GlobalNetworkPolicy", "web")) for ingress in (True, False)
    }
    assert len(found) == 8
    assert all(len(name) <= 120 and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-./_") for name in found)
    assert names.policy_chain(KEY, True) == "pi-np/ns/web"


def test_prefixes_must_not_be_empty():
    with pytest.raises(ValueError, match="must not be empty"):
        fixed_chains(TableOptions(interface_prefixes=("cali", "")))


# --- a small host ---------------------------------------------------------------------------------------------------


def endpoint(name: str, address: str, policies: tuple[ResourceKey, ...] = (), interface: str = "") -> m.EndpointUpdate:
    tiers = (m.TierPolicies("default", DENY, policies),) if policies else ()
    body = m.Endpoint("h", interface or f"cali{name}", "", (parse_address(address),), (), tiers, tiers, ())
    return m.EndpointUpdate(ResourceKey("WorkloadEndpoint", name, "ns"), 1, body)


def host(*updates: m.Update, options: TableOptions | None = None) -> TableBuilder:
    builder = TableBuilder(options)
    builder.on_update(m.PolicyUpdate(KEY, m.Policy((A,), (A, B))))
    for update in updates:
        builder.on_update(update)
    builder.flush()
    return builder


def packet(into: str, out: str, source: str, destination: str, protocol: int = 6, **fields) -> Packet:
    return Packet(into, out, parse_address(source), parse_address(destination), protocol, **fields)


@pytest.mark.parametrize("action", list(HostAction))
def test_a_workload_reaches_its_host_only_by_its_egress_policy_and_the_action(action):
    builder = host(endpoint("a", "10.0.0.1", (KEY,)), options=TableOptions(endpoint_to_host=action))
    accepted = evaluate(builder.table, packet("calia", "", "10.0.0.1", "10.0.0.254"), "input").accepted
    assert accepted is (action is not HostAction.DROP)
    denied = evaluate(builder.table, packet("calia", "", "10.0.0.1", "10.0.0.254", 132), "input")
    assert not denied.accepted and denied.reason == "denied"


@pytest.mark.parametrize(
    ("what", "accepted"),
    [
        (packet("calia", "", "0.0.0.0", "255.255.255.255", 17, source_port=68, destination_port=67), True),
        (packet("calia", "", "0.0.0.0", "255.255.255.255", 17, source_port=69, destination_port=67), False),
        (packet("calia", "", "10.9.9.9", "255.255.255.255", 17, source_port=68, destination_port=67), False),
        (packet("calia", "", "fe80::9", "ff02::1:2", 17, source_port=546, destination_port=547), True),
        (packet("calia", "", "fe80::9", "ff02::2", 58, icmp_type=133), True),
        (packet("calia", "", "::", "ff02::1:ff00:1", 58, icmp_type=135), True),
        (packet("calia", "", "fd00::9", "ff02::2", 58, icmp_type=134), False),
        (packet("calia", "", "fe80::9", "fe80::1", 58, icmp_type=128), False),
    ],
)
def test_what_an_address_less_workload_may_ask_of_its_host(what, accepted):
    assert evaluate(host(endpoint("a", "10.0.0.1")).table, what, "input").accepted is accepted


def test_a_host_reaches_its_workloads_without_policy():
    builder = host(endpoint("a", "10.0.0.1"))
    assert evaluate(builder.table, packet("", "calia", "10.0.0.254", "10.0.0.1"), "output").accepted
    assert not evaluate(builder.table, packet("eth0", "calix", "10.0.0.254", "10.0.0.1"), "forward").accepted


def test_foreign_traffic_is_left_alone_unless_it_claims_a_local_address():
    builder = host(endpoint("a", "10.0.0.1"))
    assert evaluate(builder.table, packet("eth0", "eth1", "192.0.2.1", "192.0.2.2")).accepted
    assert not evaluate(builder.table, packet("eth0", "eth1", "10.0.0.1", "192.0.2.2")).accepted
    builder = host(endpoint("a", "10.0.0.1"), options=TableOptions(protect_local_sources=False))
    assert evaluate(builder.table, packet("eth0", "eth1", "10.0.0.1", "192.0.2.2")).accepted


def test_a_policy_that_nobody_announced_denies():
    builder = host(endpoint("a", "10.0.0.1", (ResourceKey("NetworkPolicy", "gone", "ns"), KEY)))
    verdict = evaluate(builder.table, packet("eth0", "calia", "192.0.2.1", "10.0.0.1"))
    assert not verdict.accepted and any("NetworkPolicy/ns/gone ingress is not known" in step for step in verdict.trace)


def test_an_interface_that_is_not_ours_by_name_is_told():
    builder = host(endpoint("a", "10.0.0.1", interface="eth7"), endpoint("b", "10.0.0.2", interface="cali-and-far-too-long"))
    assert sorted(builder.unbound.values()) == ["cali-and-far-too-long", "eth7"]
    assert not any(builder.table.maps.values())


def test_equal_endpoints_share_their_chains():
    one = host(endpoint("a", "10.0.0.1", (KEY,)))
    two = host(endpoint("a", "10.0.0.1", (KEY,)), endpoint("b", "10.0.0.2", (KEY,)))
    assert one.table.chains == two.table.chains


def test_what_revokes_and_what_does_not():
    builder = host(endpoint("a", "10.0.0.1", (KEY,)))

    def revokes(*updates: m.Update) -> bool:
        for update in updates:
            builder.on_update(update)
        return builder.flush().revokes

    assert not revokes(endpoint("b", "10.0.0.2", (KEY,)))
    assert not revokes(m.PolicyUpdate(KEY, m.Policy((A, B), (A, B))))
    other = ResourceKey("NetworkPolicy", "other", "ns")
    assert not revokes(m.PolicyUpdate(other, m.Policy((B,), ())), endpoint("b", "10.0.0.2", (KEY, other)))
    assert revokes(endpoint("b", "10.0.0.2", (KEY,)))
    assert revokes(endpoint("b", "10.0.0.3", (KEY,)))
    assert revokes(m.PolicyUpdate(KEY, m.Policy((A,), (A,))))
    assert revokes(m.EndpointRemove(endpoint("b", "10.0.0.3").key))
    assert not revokes(m.EndpointRemove(endpoint("b", "10.0.0.3").key))


def test_reach_asks_both_hosts_and_says_which_denied():
    source = host(endpoint("a", "10.0.0.1", (KEY,)))
    target = host(endpoint("b", "10.0.0.2", (KEY,)))
    tables = {"h1": source.table, "h2": target.table}
    a, b = (End(parse_address(f"10.0.0.{number}"), f"h{number}", f"cali{name}") for number, name in ((1, "a"), (2, "b")))
    outside = End(parse_address("192.0.2.1"))

    def verdict(source: End, destination: End, protocol: int):
        return judge(tables, passes(Flow(source, destination, protocol)))

    assert verdict(a, b, 6).accepted
    denied = verdict(a, b, 17)  # egress allows it, ingress does not
    assert not denied.accepted and denied.trace[-1].startswith("h2 ")
    assert verdict(outside, b, 6).accepted
    assert verdict(a, outside, 17).accepted
    with pytest.raises(ValueError, match="neither"):
        passes(Flow(outside, outside, 6))


def test_every_way_has_its_hooks_interfaces_and_addresses():
    a, b, c, floating = (parse_address(text) for text in ("10.0.0.1", "10.0.0.2", "10.0.0.3", "192.0.2.7"))
    near, far, host = End(a, "h1", "calia"), End(b, "h2", "calib", floating), End(c, "h1")

    def ways(source: End, destination: End, sent_as: Prefix | None = None) -> list[tuple]:
        found = passes(Flow(source, destination, 6), {"h1": "eth1", "h2": "eth2"}.__getitem__, sent_as)
        return [
            (
                p.host,
                p.hook,
                p.packet.in_interface,
                p.packet.out_interface,
                p.packet.source,
                p.packet.destination,
                p.packet.original_destination,
            )
            for p in found
        ]

    assert ways(near, host) == [("h1", "input", "calia", "", a, c, None)]
    assert ways(host, near) == [("h1", "output", "", "calia", c, a, None)]
    assert ways(host, host) == []
    assert ways(near, End(c, "h2")) == [("h1", "forward", "calia", "eth1", a, c, None), ("h2", "input", "eth2", "", a, c, None)]
    # A floating address is translated where the workload is; the source, where it leaves.
    across = [("h1", "forward", "calia", "eth1", a, floating, None), ("h2", "forward", "eth2", "calib", c, b, floating)]
    assert ways(near, far, c) == across
    assert ways(near, End(b, "h1", "calib", floating)) == [("h1", "forward", "calia", "calib", a, b, floating)]
    assert ways(End(c), far) == [("h2", "forward", "eth2", "calib", c, b, floating)]


def test_only_chains_that_nothing_comes_back_from_count_by_endpoint():
    """What is accepted pays nothing for it, and what is denied is counted wherever it ends."""
    builder = host(endpoint("a", "10.0.0.1", (KEY,)))
    builder.on_update(m.HostEndpointUpdate(ResourceKey("HostEndpoint", "h"), 1, m.HostEndpoint("h1", "eth0", ())))
    builder.flush()
    chains = {name: chain for name, chain in builder.table.chains.items() if not name.startswith(ARP_PREFIX)}
    counting = {name for name, chain in chains.items() if any(isinstance(rule.verdict, ir.CountFor) for rule in chain.rules)}
    assert counting == set(DENIALS) & chains.keys()
    assert {
        name for name, chain in chains.items() if any(isinstance(rule.verdict, ir.Drop | ir.Reject) for rule in chain.rules)
    } == counting
    assert builder.table.elements["denied_in"] == builder.table.elements["denied_out"] == {ir.Interface("calia"), ir.Interface("eth0")}
    assert {name: owner.is_host for name, owner in builder.counted.owners.items()} == {"calia": False, "eth0": True}
    builder.on_update(m.EndpointRemove(endpoint("a", "10.0.0.1").key))
    builder.flush()
    assert builder.table.elements["denied_in"] == {ir.Interface("eth0")}
    assert builder.counted.take_left().keys() == {"calia"}

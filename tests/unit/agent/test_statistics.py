"""Counts for people: totals that never go back, sums over hosts, one policy out of many."""

from __future__ import annotations

import msgspec

from tabinet.agent.statistics import Denied, EndpointDenied, RuleCount, StagedPolicy, Statistics, add_up, make_statistics, of_name
from tabinet.calc.staged import StagedEffect
from tabinet.dataplane.nft.counters import Count, EndpointTotals, Half, TableCounters, Totals
from tabinet.kernel.nftexpr import comment
from tabinet.model.keys import ResourceKey
from tabinet.rules import ir
from tabinet.rules.denied import Owner
from tabinet.rules.ir import Via

WEB = "NetworkPolicy/default/web"
ALLOW = ir.Origin(WEB, True, 0, "Allow")
WORKLOAD = Owner(ResourceKey("WorkloadEndpoint", "w", "default"), False)
DENY = ir.Origin(WEB, True, 1, "Deny", 3)


def table(*origins: ir.Origin) -> ir.Table:
    return ir.Table(chains={"c": ir.Chain(tuple(map(rule, origins)))})


def rule(origin: ir.Origin) -> ir.Rule:
    verdict = ir.Goto("deny") if origin.action == "Deny" else ir.Accept()
    return ir.Rule(verdict, counter=True, comment=f"rule {origin.index}", origin=origin)


def place(index: int, digest: bytes = b"") -> tuple[str, bytes]:
    return "c", comment(f"rule {index}") + digest


def test_totals_add_what_is_new() -> None:
    totals = Totals()
    totals.take_all(table(ALLOW), {place(0): (3, 300)})
    assert totals.take_all(table(ALLOW), {place(0): (5, 500)}).rules == {ALLOW: Count(5, 500)}


def test_a_chain_that_was_rewritten_does_not_take_counts_back() -> None:
    totals = Totals()
    totals.take_all(table(ALLOW), {place(0): (3, 300)})
    totals.take_chains(table(ALLOW), {place(0): (7, 700)})
    totals.forget_chains({"c"})
    assert totals.take_all(table(ALLOW), {place(0): (8, 800)}).rules == {ALLOW: Count(15, 1500)}


def test_a_rewriting_that_failed_counts_nothing_twice() -> None:
    totals = Totals()
    totals.take_chains(table(ALLOW), {place(0): (7, 700)})
    assert totals.take_all(table(ALLOW), {place(0): (8, 800)}).rules == {ALLOW: Count(8, 800)}


def test_a_chain_that_somebody_else_rewrote_is_noticed_by_its_lower_counts() -> None:
    totals = Totals()
    totals.take_all(table(ALLOW), {place(0): (7, 700)})
    assert totals.take_all(table(ALLOW), {place(0): (2, 200)}).rules == {ALLOW: Count(9, 900)}


def test_a_rule_that_is_gone_is_forgotten_and_its_denials_are_not() -> None:
    totals = Totals()
    totals.take_all(table(ALLOW, DENY), {place(0): (1, 10), place(1): (2, 20)})
    found = totals.take_all(table(ALLOW), {place(0): (1, 10)})
    assert found.rules == {ALLOW: Count(1, 10)}
    assert found.denied == {"rule 1": Count(2, 20)}


def test_statistics_have_the_text_of_each_rule() -> None:
    counters = TableCounters(
        {ALLOW: Count(1, 10), DENY: Count(2, 20), ir.Origin("x", False, -1, "Deny"): Count()},
        {"denied": Count(2, 20)},
        {Half(str(WORKLOAD.key), True): Count(4, 40), Half(str(WORKLOAD.key), False): Count()},
    )
    effect = StagedEffect(ResourceKey("StagedNetworkPolicy", "next", "default"), "Set", "default", None, (ResourceKey("W", "a"),), 2, 0, ())
    found = make_statistics("h", counters, [effect], lambda owner, ingress, index: f"text {index}")
    assert found == Statistics(
        "h",
        (
            RuleCount(WEB, "ingress", 0, 0, "Allow", "text 0", 1, 10),
            RuleCount(WEB, "ingress", 1, 3, "Deny", "text 1 ... text 3", 2, 20),
            RuleCount("x", "egress", -1, -1, "Deny", "cannot be compiled: denies", 0, 0),
        ),
        (Denied("denied", 2, 20),),
        (StagedPolicy("StagedNetworkPolicy/default/next", "Set", "default", 1, 2, ()),),
        (EndpointDenied(str(WORKLOAD.key), "egress", 0, 0), EndpointDenied(str(WORKLOAD.key), "ingress", 4, 40)),
    )
    assert msgspec.json.decode(msgspec.json.encode(found), type=Statistics) == found
    both = add_up([found, msgspec.structs.replace(found, host="i")])
    assert (both.host, both.rules[0].packets, both.denied[0].bytes, both.staged[0].endpoints) == ("h, i", 2, 40, 2)
    assert both.endpoints[1] == EndpointDenied(str(WORKLOAD.key), "ingress", 8, 80)
    assert {rule.policy for rule in of_name(found, "web").rules} == {rule.policy for rule in of_name(found, "default/web").rules} == {WEB}
    assert of_name(found, "eb") == Statistics("h")
    assert [item.policy for item in of_name(found, "next").staged] == ["StagedNetworkPolicy/default/next"]
    assert len(of_name(found, "w").endpoints) == 2


def test_denials_of_an_endpoint_add_up_whatever_its_interface_does() -> None:
    totals = EndpointTotals()
    sent, got = Half(str(WORKLOAD.key), False), Half(str(WORKLOAD.key), True)
    owners = {"tap1": WORKLOAD}
    assert totals.take_all(owners, {}) == {sent: Count(), got: Count()}
    assert totals.take_all(owners, {Via.IN: {"tap1": (3, 300)}, Via.OUT: {"tap1": (1, 10)}}) == {sent: Count(3, 300), got: Count(1, 10)}
    totals.take(Via.IN, "tap1", WORKLOAD, (5, 500))
    totals.forget("tap1")  # it went
    assert totals.take_all({"tap2": WORKLOAD}, {Via.IN: {"tap2": (6, 600)}, Via.OUT: {}})[sent] == Count(11, 1100)
    totals.forget_side(Via.IN)  # the set was replaced
    assert totals.take_all({"tap2": WORKLOAD}, {Via.IN: {"tap2": (7, 700)}})[sent] == Count(18, 1800)


def test_an_interface_counts_for_whoever_owns_it() -> None:
    totals = EndpointTotals()
    other = Owner(ResourceKey("WorkloadEndpoint", "x", "default"), False)
    totals.take_all({"tap1": WORKLOAD}, {Via.IN: {"tap1": (3, 300)}})
    totals.take(Via.IN, "tap1", WORKLOAD, (4, 400))
    found = totals.take_all({"tap1": other}, {Via.IN: {"tap1": (9, 900)}})
    assert found[Half(str(other.key), False)] == Count(5, 500)
    assert Half(str(WORKLOAD.key), False) not in found


def test_a_host_endpoint_receives_what_comes_in_through_its_interface() -> None:
    host = Owner(ResourceKey("HostEndpoint", "h"), True)
    found = EndpointTotals().take_all({"eth0": host}, {Via.IN: {"eth0": (3, 300)}, Via.OUT: {"eth0": (1, 10)}})
    assert found == {Half("HostEndpoint/h", True): Count(3, 300), Half("HostEndpoint/h", False): Count(1, 10)}

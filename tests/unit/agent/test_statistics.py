"""Counts for people: totals that never go back, sums over hosts, one policy out of many."""

from __future__ import annotations

import msgspec

from tabinet.agent.statistics import Denied, RuleCount, StagedPolicy, Statistics, add_up, make_statistics, of_policy
from tabinet.calc.staged import StagedEffect
from tabinet.dataplane.nft.counters import Count, TableCounters, Totals
from tabinet.kernel.nftexpr import comment
from tabinet.model.keys import ResourceKey
from tabinet.rules import ir

WEB = "NetworkPolicy/default/web"
ALLOW = ir.Origin(WEB, True, 0, "Allow")
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
        {ALLOW: Count(1, 10), DENY: Count(2, 20), ir.Origin("x", False, -1, "Deny"): Count()}, {"denied": Count(2, 20)}
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
    )
    assert msgspec.json.decode(msgspec.json.encode(found), type=Statistics) == found
    both = add_up([found, msgspec.structs.replace(found, host="i")])
    assert (both.host, both.rules[0].packets, both.denied[0].bytes, both.staged[0].endpoints) == ("h, i", 2, 40, 2)
    assert (
        {rule.policy for rule in of_policy(found, "web").rules} == {rule.policy for rule in of_policy(found, "default/web").rules} == {WEB}
    )
    assert of_policy(found, "eb") == Statistics("h")
    assert [item.policy for item in of_policy(found, "next").staged] == ["StagedNetworkPolicy/default/next"]

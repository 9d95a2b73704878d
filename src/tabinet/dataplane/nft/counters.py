"""What the kernel counted, by policy rule and by reason of denial.

A flow is judged at its first packet and once more in each generation; all its other packets pass by the generation in its mark and are not
counted. So these are counts of judgements, not of traffic, except for denied packets: those are judged one by one.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tabinet.kernel.nftexpr import parse_comment
from tabinet.rules import ir
from tabinet.rules.roles import DENIALS


class Count(msgspec.Struct, frozen=True, gc=False):
    packets: int = 0
    octets: int = 0

    def plus(self, packets: int, octets: int) -> Count:
        """Both together."""
        return Count(self.packets + packets, self.octets + octets)


class TableCounters(msgspec.Struct, frozen=True):
    """Counts of one table."""

    rules: dict[ir.Origin, Count]
    """Policy rules, summed over the chains that a rule was made into."""
    denied: dict[str, Count]
    """Dropped packets by reason: the comment of the rule that decided."""


def summarize(table: ir.Table, counted: Mapping[tuple[str, bytes], tuple[int, int]]) -> TableCounters:
    """The kernel's counts, which are by (chain, user data), in the words of the table. Rules that the table does not know are left out."""
    rules: dict[ir.Origin, Count] = {}
    denied: dict[str, Count] = {}
    by_comment: dict[str, dict[str, ir.Rule]] = {}
    for (chain, userdata), (packets, octets) in counted.items():
        if chain not in by_comment:
            known = table.chains.get(chain)
            by_comment[chain] = {rule.comment: rule for rule in known.rules if rule.counter} if known is not None else {}
        rule = by_comment[chain].get(parse_comment(userdata))
        if rule is None:
            continue
        if rule.origin is not None:
            rules[rule.origin] = rules.get(rule.origin, Count()).plus(packets, octets)
        if _denies(rule) and chain not in DENIALS:  # what comes to that chain was counted where it came from
            denied[rule.comment] = denied.get(rule.comment, Count()).plus(packets, octets)
    return TableCounters(rules, denied)


def _denies(rule: ir.Rule) -> bool:
    return isinstance(rule.verdict, ir.Drop | ir.Reject) or (isinstance(rule.verdict, ir.Goto) and rule.verdict.chain in DENIALS)

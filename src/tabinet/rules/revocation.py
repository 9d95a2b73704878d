"""What can take a permission away, and what certainly cannot.

Ending and re-judging flows is cheap but not free, so a change that can only permit more does not ask for it. The reasoning is per
direction of a class: Allow is the most that a rule can give and Deny the least, so inserting Allow rules, removing Deny rules, and
changing Log rules never lowers a verdict. A set that grows widens the rules that want its members and narrows those that want
non-members. When sets and rules change together, first the sets are taken to move under the old rules, then the rules under the
new sets: if neither step lowers a verdict, both together do not. Everything that is not proven harmless counts as a revocation.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tabinet.calc.messages import Action, Rule
from tabinet.rules.policy import set_ids


class Polarity(msgspec.Struct, frozen=True, gc=False):
    """Whether a move of a set can lower a verdict."""

    growing_revokes: bool = False
    shrinking_revokes: bool = False


def polarities(rules: Iterable[Rule]) -> dict[str, Polarity]:
    """For each set that the rules name: what its moves can do."""
    found: dict[str, Polarity] = {}
    for rule in rules:
        for set_id, _, negated in set_ids(rule):
            before = found.get(set_id, Polarity())
            # Widening a rule lowers verdicts if it denies, narrowing does if it allows, and both may if it passes.
            widening = rule.action in (Action.DENY, Action.PASS)
            narrowing = rule.action in (Action.ALLOW, Action.PASS)
            growing, shrinking = (narrowing, widening) if negated else (widening, narrowing)
            found[set_id] = Polarity(before.growing_revokes or growing, before.shrinking_revokes or shrinking)
    return found


def only_adds(old: Iterable[Rule], new: Iterable[Rule]) -> bool:
    """True when ``new`` certainly allows all that ``old`` allowed, whatever the sets hold. O(n)."""
    before = [rule for rule in old if rule.action is not Action.LOG]
    after = [rule for rule in new if rule.action is not Action.LOG]
    i = j = 0
    while i < len(before) or j < len(after):
        if i < len(before) and j < len(after) and before[i] == after[j]:
            i, j = i + 1, j + 1
        elif j < len(after) and after[j].action is Action.ALLOW:
            j += 1
        elif i < len(before) and before[i].action is Action.DENY:
            i += 1
        else:
            return False
    return True

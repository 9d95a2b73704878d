"""What would be if a rule, or a whole policy, were not there; only where it has a say.

In: a relation, and what is taken out of it. Out: what its end allows of the flows that the rule (policy) is about, with it and without it.
Exact for one end: what the other end denies all the same is not looked at, so that nothing counts as superfluous because of somebody
else's policy. Pure; O(rules of the policies that concern the same classes) for each removal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from tabinet.analysis.boxes import Box, Taken
from tabinet.analysis.headers import FULL
from tabinet.analysis.masks import Mask, numbers_of
from tabinet.analysis.relation import Regions, Relation
from tabinet.calc.messages import Action
from tabinet.model.keys import ResourceKey


class Removed(msgspec.Struct, frozen=True):
    """Some of the rules of a policy or profile in one direction, by their numbers among those that are not Log; or a policy (None)."""

    key: ResourceKey
    ingress: bool
    rules: frozenset[int] | None


@dataclass(slots=True)
class Removal:
    """Answers for one relation."""

    relation: Relation
    _near: dict[tuple[Mask, bool], tuple[ResourceKey, ...]] = field(default_factory=dict)

    def about(self, removed: Removed) -> list[Box]:
        """The flows that it is about: (local, peer, headers)."""
        regions = self.relation.regions(removed.key, ingress=removed.ingress)
        if removed.rules is None:
            local = self.relation.local_of(removed.key, ingress=removed.ingress)
            return [(local, self.relation.present, FULL)] if local else []
        return [box for number in sorted(removed.rules) for box in regions[number][1]]

    def changes(self, removed: Removed) -> bool:
        """True when the end allows something else without it.

        Raises:
            TooMany: it cannot be told.
        """
        judged = self.relation.judged(ingress=removed.ingress)
        mine = [(local, peer, self.relation.space.meet(headers, judged)) for local, peer, headers in self.about(removed)]
        window = self.relation.boxes.merge(box for box in mine if box[2])
        before, after = self._allowed(window, None, removed.ingress), self._allowed(window, removed, removed.ingress)
        boxes = self.relation.boxes
        return bool(boxes.minus(before, after) or boxes.minus(after, before))

    def blockers(self, removed: Removed) -> list[tuple[ResourceKey, int]] | None:
        """If the rules are nobody's first match in their tier: the rules that come before them and take their flows; else None."""
        found: list[tuple[ResourceKey, int]] = []
        taken = Taken(self.relation.boxes)
        mine = self.about(removed)
        local = 0
        for box in mine:
            local |= box[0]
        assert removed.rules is not None
        for key, number, (_, boxes) in self._before(removed, local):
            overlap = self.relation.boxes.meet(list(boxes), mine)
            if overlap:
                found.append((key, number))
                for box in overlap:
                    taken.add(box)
        return None if any(taken.left_of(box) for box in mine) else found

    def _before(self, removed: Removed, local: Mask) -> Iterator[tuple[ResourceKey, int, Regions]]:
        """The rules that are asked before, of the same policy or profile, or of earlier policies in the tier."""
        for key in self._siblings(removed.key, removed.ingress, local):
            for number, regions in enumerate(self.relation.regions(key, ingress=removed.ingress)):
                if key == removed.key and removed.rules is not None and number >= min(removed.rules):
                    return
                yield key, number, regions

    def _siblings(self, key: ResourceKey, ingress: bool, local: Mask) -> list[ResourceKey]:
        """The policy itself, last, and those before it in its tier that concern some of the classes."""
        if key.kind == "Profile":
            return [key]
        near = self._policies_near(local, ingress)
        tier = self.relation.tier_of(key)
        before = [other for other in near if self.relation.tier_of(other) == tier and self.relation.order.rank[other] < self._rank(key)]
        return [*before, key]

    def _rank(self, key: ResourceKey) -> int:
        return self.relation.order.rank[key]

    def _policies_near(self, local: Mask, ingress: bool) -> tuple[ResourceKey, ...]:
        """Policies that apply to some of the classes, in order."""
        found = self._near.get((local, ingress))
        if found is None:
            keys: set[ResourceKey] = set()
            for number in numbers_of(local):
                policing = self.relation.universe.kinds[number].policing[self.relation.state]
                if policing is not None:
                    keys.update(key for tier in (policing[0] if ingress else policing[1]) for key in tier.policies)
            found = self._near[local, ingress] = tuple(sorted(keys, key=self._rank))
        return found

    def _allowed(self, window: list[Box], removed: Removed | None, ingress: bool) -> list[Box]:
        """What of the window the end allows."""
        relation = self.relation
        local = 0
        for box in window:
            local |= box[0]
        near = [key for key in self._policies_near(local, ingress) if removed is None or removed.rules is not None or key != removed.key]
        allowed: list[Box] = []
        undecided = window
        for tier in relation.order.tiers:
            keys = [key for key in near if relation.tier_of(key) == tier]
            concerned = 0
            for key in keys:
                concerned |= relation.local_of(key, ingress=ingress) & local
            if concerned:
                rules = [regions for key in keys for regions in self._rules(key, ingress, removed)]
                undecided = relation.decide(tier, concerned, rules, ingress, undecided, allowed)
        for names, having in relation.universe.profiles[relation.state].items():
            entering = [(here & having, peer, headers) for here, peer, headers in undecided if here & having]
            if entering:
                rules = [regions for name in names for regions in self._profile_rules(name, ingress, removed)]
                allowed += relation.boxes.meet(relation.first_matches(rules, having & local, (Action.ALLOW,)), entering)
        return allowed

    def _profile_rules(self, name: str, ingress: bool, removed: Removed | None) -> tuple[Regions, ...]:
        key = ResourceKey("Profile", name)
        return () if self.relation.policy(key) is None else self._rules(key, ingress, removed)

    def _rules(self, key: ResourceKey, ingress: bool, removed: Removed | None) -> tuple[Regions, ...]:
        regions = self.relation.regions(key, ingress=ingress)
        if removed is None or removed.rules is None or removed.key != key:
            return regions
        return tuple([each for number, each in enumerate(regions) if number not in removed.rules])

"""What a change opens and closes: the flows that one state of a universe allows and the other does not.

In: the relations of two states of one universe. Out: ``Delta``. Only what changed is looked at: a *window* of flows that changed rules,
changed members and changed endpoints could concern. Pure; O(what changed x boxes that meet it).
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tabinet.analysis.boxes import Box, swapped
from tabinet.analysis.headers import FULL
from tabinet.analysis.masks import Mask
from tabinet.analysis.relation import Regions, Relation
from tabinet.model.keys import ResourceKey


class Delta(msgspec.Struct, frozen=True):
    """Flows as (source, destination, headers)."""

    opened: tuple[Box, ...]
    closed: tuple[Box, ...]


def compare(before: Relation, after: Relation) -> Delta:
    """How the two differ; they are of one universe and one header space.

    Raises:
        TooMany: it cannot be written down.
    """
    boxes = after.boxes
    came_in, went_in = _side(before, after, ingress=True)
    came_out, went_out = _side(before, after, ingress=False)
    opened = [*after.allowed_of(swapped(came_in), by_ingress=True), *after.allowed_of(came_out, by_ingress=False)]
    closed = [*before.allowed_of(swapped(went_in), by_ingress=True), *before.allowed_of(went_out, by_ingress=False)]
    return Delta(tuple(boxes.merge(opened)), tuple(boxes.merge(closed)))


def peers_concerned(before: Relation, after: Relation) -> Mask:
    """Endpoints at the other end of what changed at one end: they have a say in it. Raises as ``compare``."""
    peers = 0
    for ingress in (True, False):
        for boxes in _side(before, after, ingress=ingress):
            for _, peer, _ in boxes:
                peers |= peer
    return peers & (before.endpoints | after.endpoints)


def _side(before: Relation, after: Relation, *, ingress: bool) -> tuple[list[Box], list[Box]]:
    """What one end allows now and did not, and the reverse, as (local, peer, headers)."""
    window = before.boxes.merge(_window(before, after, ingress=ingress))
    if not window:
        return [], []
    local = peer = 0
    for here, there, _ in window:
        local |= here
        peer |= there

    def cut(relation: Relation) -> list[Box]:
        boxes = swapped(relation.ingress) if ingress else relation.egress
        near = [box for box in boxes if box[0] & local and box[1] & peer]
        return relation.boxes.merge(relation.boxes.meet(near, window))

    was, now = cut(before), cut(after)
    same = set(was) & set(now)
    boxes = after.boxes
    came = boxes.minus([box for box in now if box not in same], was)
    went = boxes.minus([box for box in was if box not in same], now)
    return came, went


def _window(before: Relation, after: Relation, *, ingress: bool) -> Iterator[Box]:
    universe = before.universe
    if universe.hosting:  # what hosts say may have changed anywhere
        yield (universe.everything, universe.everything, FULL)
        return
    whole = _rearranged(before, after, ingress=ingress)
    if whole:
        yield (whole, universe.everything, FULL)
    come_or_gone = before.present ^ after.present
    if come_or_gone:
        yield (before.endpoints | after.endpoints, come_or_gone, FULL)
    keys = {key for relation in (before, after) for key, of in universe.policed[relation.state] if of is ingress}
    profiles = {name for relation in (before, after) for names in universe.profiles[relation.state] for name in names}
    for key in keys | {ResourceKey("Profile", name) for name in profiles}:
        yield from _changed_rules(before, after, key, ingress=ingress)


def _rearranged(before: Relation, after: Relation, *, ingress: bool) -> Mask:
    """Classes whose tiers, order or profiles changed as a whole: everything that they receive (send) may have changed."""
    universe = before.universe
    mask = before.endpoints ^ after.endpoints
    if before.order.tiers != after.order.tiers or before.judged(ingress=ingress) != after.judged(ingress=ingress):
        mask |= before.endpoints | after.endpoints
    tiers = {tier for relation in (before, after) for tier, of in universe.tiers[relation.state] if of is ingress}
    for tier in tiers:
        was, now = (universe.tiers[relation.state].get((tier, ingress), 0) for relation in (before, after))
        mask |= was ^ now
        passed, passes = (relation.passing(tier, ingress) for relation in (before, after))
        mask |= (passed ^ passes) & was & now
        if _order_of(before, after, tier, ingress) != _order_of(after, before, tier, ingress):
            mask |= was | now
    lists = set(universe.profiles[before.state]) | set(universe.profiles[after.state])
    for names in lists:
        mask |= universe.profiles[before.state].get(names, 0) ^ universe.profiles[after.state].get(names, 0)
    return mask


def _order_of(one: Relation, other: Relation, tier: str, ingress: bool) -> list[ResourceKey]:
    """The policies of the tier that both have, in the order of ``one``."""
    shared = set(other.in_tier(tier, ingress))
    return [key for key in one.in_tier(tier, ingress) if key in shared]


def _changed_rules(before: Relation, after: Relation, key: ResourceKey, *, ingress: bool) -> Iterator[Box]:
    """What the rules of a policy or profile that are not the same are about, and all of them for whom it begins or ceases to apply to."""
    if after.agrees(before, key, ingress=ingress):
        return
    was, now = before.regions(key, ingress=ingress), after.regions(key, ingress=ingress)
    if was == now:
        return
    touched = before.local_of(key, ingress=ingress) ^ after.local_of(key, ingress=ingress)
    kept = before.local_of(key, ingress=ingress) & after.local_of(key, ingress=ingress)
    old, new = _limited(was, kept), _limited(now, kept)
    first = 0
    while first < min(len(old), len(new)) and old[first] == new[first]:
        first += 1
    last = 0
    while last < min(len(old), len(new)) - first and old[-1 - last] == new[-1 - last]:
        last += 1
    for rules in (old, new):
        for _, boxes in rules[first : len(rules) - last]:
            yield from boxes
    for rules in (was, now):
        for _, boxes in _limited(rules, touched):
            yield from boxes


def _limited(rules: tuple[Regions, ...], local: Mask) -> tuple[Regions, ...]:
    return tuple([(action, tuple([(here & local, peer, of) for here, peer, of in boxes if here & local])) for action, boxes in rules])

"""``plan``: which flows a change of resources opens and closes, whose policy it changes, and what it costs.

In: resources, and changes of them. Out: a ``Plan``. Exact for policy between workloads, hosts and the outside: every flow of a group is
opened (closed), no other one is; each group has a witness, a packet that can be tried. What cannot be enumerated is said, not cut.
Not looked at: floating addresses as workloads use them, host endpoints of very many hosts (``explain`` does; what a change concerns of
them is said, see ``coverage``), and whether packets find their way (routes).
Pure; O(resources) once, then what the change concerns.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tabinet.analysis.boxes import Expired, OutOfTime, TooMany, never
from tabinet.analysis.coverage import changed_endpoints, hosts_changed, uncovered, uncovered_by_change
from tabinet.analysis.delta import Delta, compare
from tabinet.analysis.describe import Describer, FlowGroup
from tabinet.analysis.fabric import OptionsOf, Resources
from tabinet.analysis.narrow import Comparison, compare_narrowly, compare_widely
from tabinet.analysis.relation import Relation
from tabinet.analysis.situation import Calculation, Changes, Situation, calculate
from tabinet.analysis.tables import HOSTS_COUNTED, HostCost, Tables
from tabinet.analysis.universe import Universe

LARGE = 3_000
"""With so many resources only what a change concerns is looked at. With fewer the words for groups may be better, as more is told apart."""


class FirstPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Endpoints that get their first policy in a direction, or lose their last: the default turns over."""

    direction: str
    """``ingress`` or ``egress``."""
    gets: bool
    endpoints: int
    which: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a change does."""

    opened: tuple[FlowGroup, ...]
    closed: tuple[FlowGroup, ...]
    first_policies: tuple[FirstPolicy, ...]
    changed_endpoints: int
    """Endpoints with another list of policies, or with changed rules or members in one of them."""
    hosts: tuple[HostCost, ...]
    more_hosts: int
    """Hosts that change and are not in ``hosts``."""
    not_enumerated: str
    """Why ``opened`` and ``closed`` are empty although flows may change; empty when they are complete."""
    not_covered: str
    """Whose flows may change without being in ``opened`` and ``closed``; empty when nobody's do."""
    notes: tuple[str, ...]


def make_plan(calculation: Calculation, changes: Changes, options_of: OptionsOf, expired: Expired = never) -> Plan:
    """What the changes do; the calculation has them from now on. Flows that are not known when the time has ``expired`` are not told."""
    return plan_of(compare_widely(calculation, changes, expired, options_of), options_of)


def plan_change(resources: Resources, changes: Changes, options_of: OptionsOf, expired: Expired = never) -> Plan:
    """What the changes do. In large fabrics only what they concern is calculated, where that can be told."""
    if len(resources) >= LARGE:
        comparison = compare_narrowly(resources, changes, expired)
        if comparison is not None:
            return plan_of(comparison, options_of)
    return make_plan(calculate(resources, changes), changes, options_of, expired)


def plan_of(comparison: Comparison, options_of: OptionsOf) -> Plan:
    """The two, in words and figures."""
    before, after, universe, was, now = comparison.before, comparison.after, comparison.universe, comparison.was, comparison.now
    describer = Describer(universe, {**before.resources, **after.resources})
    describer.prepare()
    why_not = ""
    try:
        delta = compare(was, now)
    except TooMany:
        delta, why_not = Delta((), ()), f"more than {now.boxes.budget} groups of flows meet: narrow the change down, or ask explain"
    except OutOfTime:
        delta, why_not = (
            Delta((), ()),
            "the time given was over before all flows that change were known; what else is told here is complete",
        )
    hosts = hosts_changed(before, after)
    tables = Tables(before, after, options_of)
    return Plan(
        opened=tuple(describer.groups(delta.opened, now)),
        closed=tuple(describer.groups(delta.closed, was)),
        first_policies=tuple(_first_policies(was, now, describer)),
        changed_endpoints=len(changed_endpoints(before, after)),
        hosts=tuple([tables.cost(host) for host in hosts[:HOSTS_COUNTED]]),
        more_hosts=max(0, len(hosts) - HOSTS_COUNTED),
        not_enumerated=why_not,
        not_covered="" if universe.hosting else uncovered_by_change(before.state, after.state),
        notes=tuple(_notes(after, universe, any_flow=bool(why_not or delta.opened or delta.closed))),
    )


def _first_policies(was: Relation, now: Relation, describer: Describer) -> Iterator[FirstPolicy]:
    universe = now.universe
    both = was.endpoints & now.endpoints
    for ingress in (True, False):
        masks = []
        for relation in (was, now):
            policed = 0
            for (_, of_ingress), mask in universe.tiers[relation.state].items():
                policed |= mask if of_ingress is ingress else 0
            masks.append(policed & both)
        for gets, mask in ((True, masks[1] & ~masks[0]), (False, masks[0] & ~masks[1])):
            if mask:
                direction = "ingress" if ingress else "egress"
                yield FirstPolicy(direction=direction, gets=gets, endpoints=describer.count(mask), which=describer.text(mask))


def _notes(after: Situation, universe: Universe, *, any_flow: bool) -> Iterator[str]:
    if any_flow:
        yield from uncovered(after, with_hosts=bool(universe.hosting))
    if universe.left_out:
        yield f"endpoints with prefixes instead of addresses are not in here: {', '.join(universe.left_out[:4])}"


def changed_resources(before: Resources, after: Changes) -> Changes:
    """Those of the changes that change something."""
    return {key: value for key, value in after.items() if before.get(key, (None, 0))[0] != value}

"""Changes of policies, calculated for those whom they concern, against the whole fabric: the same flows and figures."""

from __future__ import annotations

import itertools
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from test_analysis_twins import ADDRESSES, PACKETS, fabrics, policies, stored
from test_rules_against_naive import EXAMPLES

from tabinet.analysis.delta import compare
from tabinet.analysis.narrow import Comparison, compare_narrowly, compare_widely
from tabinet.analysis.plan import make_plan, plan_of
from tabinet.analysis.situation import calculate
from tabinet.lib.ip import parse_prefix
from tabinet.model.keys import ResourceKey
from tabinet.model.resources import FelixConfiguration, HostEndpoint, Profile, ProfileSpec, Rule
from tabinet.rules.options import TableOptions

TUNNELLED = (4, 0, 0)
EVERYTHING = (Rule(action="Allow"),)
open_profile = Profile(spec=ProfileSpec(ingress=EVERYTHING, egress=EVERYTHING))
worlds = st.builds(
    lambda fabric, opened, tunnels: (
        {
            key: open_profile if opened and key.kind == "Profile" else value
            for key, value in ({ResourceKey("Profile", "p"): open_profile} | fabric).items()
            if not isinstance(value, HostEndpoint)
        }
        | {ResourceKey("FelixConfiguration", "default"): FelixConfiguration(spec={"allowIPIPPacketsFromWorkloads": tunnels})}
    ),
    fabrics,
    st.booleans(),
    st.booleans(),
)


def flows(found: Comparison) -> set[tuple[object, ...]]:
    """Every packet between two addresses that is opened or closed."""
    universe, delta = found.universe, compare(found.was, found.now)
    ends = [(str(unit.endpoint), unit.address, number) for number, units in enumerate(universe.units) for unit in units]
    taken = {address for _, address, _ in ends}
    for text in [*ADDRESSES, "192.0.2.9", "10.9.9.9", "2001:db8::9"]:
        address = parse_prefix(text)
        if address not in taken:
            ends.append(("outside", address, universe.classes_at(address)[0]))
    told = set()
    for word, boxes in (("opened", delta.opened), ("closed", delta.closed)):
        for sources, destinations, headers in boxes:
            for source, destination in itertools.product(ends, repeat=2):
                if source[1].family == destination[1].family and sources >> source[2] & destinations >> destination[2] & 1:
                    for packet in (*PACKETS, TUNNELLED):
                        if found.now.space.has(headers, *packet):
                            told.add((word, source[:2], destination[:2], packet))
    return told


@settings(max_examples=EXAMPLES)
@given(worlds, policies, st.randoms(use_true_random=False))
def test_the_same_flows_open_and_close(values, new, random):
    changes = {key: value for key, value in new.items() if values.get(key) != value}
    changes |= {key: None for key in values if "Policy" in key.kind and key not in changes and random.random() < 0.3}
    narrow = compare_narrowly(stored(values), changes)
    if narrow is None:
        return
    wide = compare_widely(calculate(stored(values), changes), changes)
    assert flows(narrow) == flows(wide)
    mine = plan_of(narrow, lambda _: TableOptions())
    yours = make_plan(calculate(stored(values), changes), changes, lambda _: TableOptions())
    assert (mine.changed_endpoints, mine.hosts, mine.more_hosts) == (yours.changed_endpoints, yours.hosts, yours.more_hosts)
    assert (mine.not_enumerated, mine.not_covered, mine.notes) == (yours.not_enumerated, yours.not_covered, yours.notes)
    for field in ("opened", "closed"):
        assert bool(getattr(mine, field)) == bool(getattr(yours, field))
    counts = [Counter((each.direction, each.gets, each.endpoints) for each in plan.first_policies) for plan in (mine, yours)]
    assert counts[0] == counts[1]


@given(worlds, policies)
def test_what_is_more_than_policy_of_workloads_is_left_to_the_whole(values, changes):
    host = {ResourceKey("HostEndpoint", "h"): HostEndpoint()}
    assert compare_narrowly(stored(values | host), changes) is None
    gone = {key: None for key in values if key.kind == "WorkloadEndpoint"}
    assert compare_narrowly(stored(values), gone) is None

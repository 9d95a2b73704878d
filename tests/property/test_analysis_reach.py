"""The matrix of reachability against the relation: every pair of classes, every kind of packet, in the cell of their groups."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from test_analysis_relation import ICMP, KINDS, TIERS, states
from test_rules_against_naive import EXAMPLES, POLICIES

from tabinet.analysis.boxes import Boxes
from tabinet.analysis.describe import Describer
from tabinet.analysis.headers import EMPTY, FULL, HeaderSpace
from tabinet.analysis.masks import numbers_of
from tabinet.analysis.reach import GroupFinder
from tabinet.analysis.relation import Relation, TierOrder
from tabinet.analysis.universe import divide


@settings(max_examples=EXAMPLES, deadline=None)
@given(states)
def test_a_pair_may_what_the_cell_of_its_groups_says(state):
    universe = divide([state])
    relation = Relation(universe, 0, TierOrder(TIERS, POLICIES), Boxes(HeaderSpace()))
    describer = Describer(universe, {})
    describer.prepare()
    finder = GroupFinder(relation, describer)
    everybody = universe.everything
    flows = relation.within(everybody, everybody, FULL)
    groups = [mask for mask, _ in finder.alike(flows, everybody, everybody)]
    assert sum(mask.bit_count() for mask in groups) == universe.size
    place = {number: index for index, mask in enumerate(groups) for number in numbers_of(mask)}
    cells = {(start, end): (some, every) for start, end, some, every in finder.cells(groups, everybody, everybody, flows)}
    for source, destination in itertools.product(range(universe.size), repeat=2):
        family = universe.kinds[source].family
        inside = relation.endpoints >> source & 1 or relation.endpoints >> destination & 1
        if family != universe.kinds[destination].family or not inside:
            continue
        some, every = cells.get((place[source], place[destination]), (EMPTY, EMPTY))
        for kind in (*KINDS, *ICMP[family]):
            allowed = relation.admits(source, destination, *kind)
            assert not allowed or relation.space.has(some, *kind)
            assert allowed or not relation.space.has(every, *kind)

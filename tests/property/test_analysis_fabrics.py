"""The relation against the tables of all hosts on a packet's way: whole fabrics, small and large, and flows picked at random in them.

A case is one flow in one fabric: what ``plan`` and ``verify`` calculate with, made from resources, against ``evaluate`` on the tables that
the hosts on the way would have. TABINET_FABRICS says how many small fabrics, one in ten of them large; TABINET_FABRIC_FLOWS how many flows
in each. ``--hypothesis-seed`` and CI decide which: without either, others each time.
"""

from __future__ import annotations

import os
from random import Random

import pytest
from fabric_maker import LARGE, SMALL, FabricMaker, flows
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tabinet.analysis.fabric import Fabric, Place, Resources, survey
from tabinet.analysis.relation import Relation
from tabinet.analysis.situation import calculate, relate
from tabinet.analysis.way import Question, find_way
from tabinet.model.protocols import ICMP, ICMPV6
from tabinet.rules.options import TableOptions
from tabinet.rules.reach import judge

FABRICS = int(os.environ.get("TABINET_FABRICS", "20"))
FLOWS = int(os.environ.get("TABINET_FABRIC_FLOWS", "40"))


def class_of(relation: Relation, place: Place) -> int:
    """The class of the address there."""
    found = relation.universe.classes_at(place.address)
    if place.endpoint is None:
        return found[0]
    return next(number for number in found if any(unit.endpoint == place.endpoint for unit in relation.universe.units[number]))


def calculated(relation: Relation, asked: Question) -> bool:
    """What the relation says of the flow."""
    is_icmp = asked.protocol in (ICMP, ICMPV6)
    first, second = (asked.icmp_type, asked.icmp_code) if is_icmp else (asked.destination_port, asked.source_port)
    return relation.admits(class_of(relation, asked.source), class_of(relation, asked.destination), asked.protocol, first, second)


def evaluated(fabric: Fabric, asked: Question) -> bool:
    """What the hosts' tables make of it."""
    views = fabric.view(fabric.nodes)
    return judge({host: view.table for host, view in views.items()}, find_way(fabric, views, asked).passes).accepted


def compare(resources: Resources, choose: Random, count: int) -> list[bool]:
    """The verdicts, on which both agree."""
    _, (relation,) = relate([calculate(resources).situation])
    fabric = survey(resources, lambda _: TableOptions())
    verdicts = []
    for asked in flows(choose, fabric, count):
        verdict = evaluated(fabric, asked)
        assert calculated(relation, asked) == verdict, asked
        verdicts.append(verdict)
    return verdicts


# What is made up from a number does not get smaller with the number, so that there is nothing to shrink.
@pytest.mark.parametrize(
    ("size", "fabrics", "count"), [(SMALL, FABRICS, FLOWS), (LARGE, max(1, FABRICS // 10), FLOWS * 5)], ids=["small", "large"]
)
def test_the_relation_is_what_the_tables_of_the_hosts_do(size, fabrics, count) -> None:
    tally = {"flows": 0, "allowed": 0}
    seeds = set()

    @settings(max_examples=fabrics, deadline=None, phases=(Phase.generate,))
    @given(st.integers(0, 2**48))
    def check(seed: int) -> None:
        choose = Random(seed)
        verdicts = compare(FabricMaker(choose, size).make(), choose, count)
        seeds.add(seed)
        tally["flows"] += len(verdicts)
        tally["allowed"] += sum(verdicts)

    check()
    print(f"\n{len(seeds)} different fabrics, {tally}")  # pytest shows it with -s
    assert 0 < tally["allowed"] < tally["flows"]

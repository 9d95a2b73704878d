"""What goes is freed at once, without the cyclic garbage collector: the agent keeps the collector away from what the calculation keeps."""

from __future__ import annotations

import gc

from calc_build import Item, allow, endpoint, policy, profile

from tabinet.calc.carriers import Carrier, Heritage, LabelClass, Shape
from tabinet.calc.graph import Graph
from tabinet.calc.inputs import Delete, InSync, Put
from tabinet.calc.locals import LocalEndpoint
from tabinet.calc.members import ActiveSet
from tabinet.calc.policies import Arrangement, PolicyEntry, PolicyMatch

KEPT = (ActiveSet, Arrangement, Carrier, Heritage, LabelClass, LocalEndpoint, PolicyEntry, PolicyMatch, Shape)


def kept() -> dict[str, int]:
    """How many objects of the calculation exist."""
    names = [type(found).__name__ for found in gc.get_objects() if isinstance(found, KEPT)]
    return {name: names.count(name) for name in names}


def fabric(label: str) -> list[Item]:
    rules = (allow(selector=f"app == '{label}'"), allow(selector="has(team)"))
    return [
        policy("p", selector="has(app)", ingress=rules),
        profile("kns.shop", labels={"team": label}),
        *(
            endpoint(f"w{number}", f"10.0.0.{number}/32", host=f"h{number % 2}", labels={"app": label}, profiles=("kns.shop",))
            for number in range(8)
        ),
    ]


def test_resources_that_change_or_go_leave_nothing_behind() -> None:
    gc.collect()
    gc.disable()
    try:
        before = kept()
        graph = Graph(frozenset({"h1"}))
        graph.on_input(InSync())

        for label in "abc":
            for key, value in fabric(label):
                graph.on_input(Put(key, value, 1))
            graph.flush()
        assert kept() != before
        for key, _ in fabric("c"):
            graph.on_input(Delete(key))
        graph.flush()
        graph.flush()
        assert kept() == before
    finally:
        gc.enable()

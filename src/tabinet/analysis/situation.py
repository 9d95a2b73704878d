"""What the calculation says for all hosts at once, and what it would say with other resources.

In: resources, then changes of them. Out: ``Situation``s, each a state and the order of its tiers and policies. The calculation is the
agents' own, incremental one: a changed situation costs what changed, and shares with the one before what did not.
Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from tabinet.analysis.boxes import Boxes
from tabinet.analysis.fabric import Resources
from tabinet.analysis.headers import HeaderSpace
from tabinet.analysis.relation import Relation, TierOrder
from tabinet.analysis.universe import Universe, divide
from tabinet.calc.graph import Graph
from tabinet.calc.inputs import Delete, InSync, Put
from tabinet.calc.messages import (
    ConfigUpdate,
    EndpointRemove,
    EndpointUpdate,
    PolicyRemove,
    PolicyUpdate,
    ProfileRemove,
    ProfileUpdate,
    SetDelta,
    SetRemove,
    SetUpdate,
    Update,
)
from tabinet.calc.policyfacts import BUILT_IN_TIERS, describe_policy, tier_rank
from tabinet.calc.replica import State
from tabinet.lib.ip import Prefix
from tabinet.model.keys import Key, ResourceKey
from tabinet.model.resources import GlobalNetworkPolicy, HostEndpoint, NetworkPolicy, Node, Tier, WorkloadEndpoint


class Situation(msgspec.Struct, frozen=True):
    """What all hosts were told."""

    state: State
    order: TierOrder
    resources: Resources


Changes = Mapping[Key, object | None]
"""By key: the value that the resource has then; None: it is gone."""


@dataclass(slots=True)
class Calculation:
    """The calculation for the hosts of some resources, and of resources that shall be."""

    graph: Graph
    situation: Situation

    def change(self, changes: Changes) -> Situation:
        """The situation with these changes, which is the calculation's from now on. O(what they change)."""
        resources = dict(self.situation.resources)
        for key, value in changes.items():
            if value is None:
                resources.pop(key, None)
                self.graph.on_input(Delete(key))
            else:
                resources[key] = (value, 0)
                self.graph.on_input(Put(key, value, 0))
        before = self.situation.state
        state = State(
            sets=dict(before.sets), policies=dict(before.policies), profiles=dict(before.profiles), endpoints=dict(before.endpoints)
        )
        state.config = dict(before.config)
        for update in self.graph.flush():
            _tell(state, update)
        self.situation = Situation(state, order_of(resources), resources)
        return self.situation


def calculate(resources: Resources, more_hosts: frozenset[str] = frozenset()) -> Calculation:
    """The calculation of these resources for every host that has an endpoint or a Node, and for ``more_hosts``."""
    hosts = {value.spec.node for value, _ in resources.values() if isinstance(value, WorkloadEndpoint | HostEndpoint)}
    hosts |= {key.name for key, (value, _) in resources.items() if isinstance(value, Node) and isinstance(key, ResourceKey)}
    graph = Graph(frozenset(hosts) | more_hosts, routed=frozenset())
    for key, (value, revision) in resources.items():
        graph.on_input(Put(key, value, revision))
    graph.on_input(InSync())
    state = State()
    for update in graph.flush():
        _tell(state, update)
    return Calculation(graph, Situation(state, order_of(resources), resources))


def relate(situations: list[Situation], nets: tuple[Prefix, ...] = ()) -> tuple[Universe, list[Relation]]:
    """One universe for all of them, and what each allows in it; ``nets`` are told apart as well."""
    universe = divide([situation.state for situation in situations], nets)
    boxes = Boxes(HeaderSpace())
    return universe, [Relation(universe, index, situation.order, boxes) for index, situation in enumerate(situations)]


def order_of(resources: Resources) -> TierOrder:
    """The order of all tiers and policies."""
    tiers = dict(BUILT_IN_TIERS)
    facts = []
    for key, (value, _) in resources.items():
        if isinstance(key, ResourceKey) and isinstance(value, Tier):
            tiers[key.name] = value.spec
        elif isinstance(key, ResourceKey) and isinstance(value, NetworkPolicy | GlobalNetworkPolicy):
            facts.append(describe_policy(key, value))
    names = sorted(tiers, key=lambda name: tier_rank(name, tiers[name]))
    return TierOrder(names, [policy.key for policy in sorted(facts, key=lambda policy: policy.rank)])


def _tell(state: State, update: Update) -> None:
    match update:
        case SetUpdate(set_id=set_id, kind=kind, members=members):
            state.sets[set_id] = (kind, members)
        case SetDelta(set_id=set_id, added=added, removed=removed):
            kind, members = state.sets[set_id]
            state.sets[set_id] = (kind, (members - removed) | added)
        case SetRemove(set_id=set_id):
            del state.sets[set_id]
        case PolicyUpdate(key=key, policy=policy):
            state.policies[key] = policy
        case PolicyRemove(key=key):
            del state.policies[key]
        case ProfileUpdate(name=name, policy=policy):
            state.profiles[name] = policy
        case ProfileRemove(name=name):
            del state.profiles[name]
        case EndpointUpdate(key=key, revision=revision, endpoint=endpoint):
            state.endpoints[key] = (revision, endpoint)
        case EndpointRemove(key=key):
            del state.endpoints[key]
        case ConfigUpdate(host=host, parameters=parameters):
            state.config[host] = parameters
        case _:
            pass

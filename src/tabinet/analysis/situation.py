"""What the calculation says for all hosts at once, and what it would say with other resources.

In: resources, then changes of them. Out: ``Situation``s, each a state and the order of its tiers and policies. The calculation is the
agents' own, incremental one: a changed situation costs what changed, and shares with the one before what did not. Of endpoints that are
alike (``twins``) only one is calculated, and only that one is in the state.
Pure.
"""

from __future__ import annotations

import types
from collections.abc import Container, Mapping
from dataclasses import dataclass

import msgspec

from tabinet.analysis.boxes import Boxes, Expired, never
from tabinet.analysis.fabric import OptionsOf, Resources, survey
from tabinet.analysis.headers import HeaderSpace
from tabinet.analysis.hosting import Hosting, find_hosting
from tabinet.analysis.relation import Relation, TierOrder
from tabinet.analysis.twins import Twins, asked_by, asked_by_profile, find_twins
from tabinet.analysis.universe import Marks, Universe, divide
from tabinet.calc.graph import Graph
from tabinet.calc.inputs import Delete, InSync, Put
from tabinet.calc.messages import (
    ConfigUpdate,
    EndpointRemove,
    EndpointUpdate,
    HostEndpointRemove,
    HostEndpointUpdate,
    PolicyRemove,
    PolicyUpdate,
    ProfileRemove,
    ProfileUpdate,
    SetDelta,
    SetRemove,
    SetUpdate,
    Update,
)
from tabinet.calc.policyfacts import BUILT_IN_TIERS, PolicyFacts, describe_policy, tier_rank
from tabinet.calc.profiles import BUILT_IN_PROFILES
from tabinet.calc.replica import State
from tabinet.lib.ip import Prefix
from tabinet.model.keys import Key, ResourceKey
from tabinet.model.resources import GlobalNetworkPolicy, HostEndpoint, NetworkPolicy, Node, Profile, Tier, WorkloadEndpoint


class Situation(msgspec.Struct, frozen=True):
    """What all hosts were told."""

    state: State
    """Without endpoints that another one stands for."""
    order: TierOrder
    resources: Resources
    twins: Twins = msgspec.field(default_factory=Twins)
    """Who stands for whom; the same for all situations of a calculation that can be compared."""


Changes = Mapping[Key, object | None]
"""By key: the value that the resource has then; None: it is gone."""


@dataclass(slots=True)
class Calculation:
    """The calculation for the hosts of some resources, and of resources that shall be."""

    graph: Graph
    situation: Situation
    facts: dict[ResourceKey, PolicyFacts]
    """Of all policies."""

    def prepare(self, changes: Changes) -> Situation:
        """The situation, in which each endpoint that the changes could tell from its twins is calculated by itself."""
        now = self.situation
        asked = now.twins.asked | _asked({key: value for key, value in changes.items() if value is not None}, self._facts_of(changes))
        alone = now.twins.released(now.twins.touched(now.resources, changes, asked))
        if alone:
            for key in alone:
                value, revision = now.resources[key]
                self.graph.on_input(Put(key, value, revision))
            self.situation = Situation(self._told(), now.order, now.resources, now.twins)
        return self.situation

    def change(self, changes: Changes) -> Situation:
        """The situation with these changes, which is the calculation's from now on. O(what they change)."""
        before = self.prepare(changes)
        resources = dict(before.resources)
        for key, value in changes.items():
            if value is None:
                resources.pop(key, None)
                self.graph.on_input(Delete(key))
            else:
                resources[key] = (value, 0)
                self.graph.on_input(Put(key, value, 0))
        facts = self._facts_of(changes)
        self.facts = {key: each for key, each in self.facts.items() if key not in changes} | facts
        order = before.order if not _arranges(changes) else order_of(resources, self.facts)
        self.situation = Situation(self._told(), order, resources, before.twins)
        return self.situation

    def tell(self, key: ResourceKey, value: object, revision: int) -> None:
        """The calculation takes the resource as if it were new; for an endpoint that has been chosen since. What follows from it is in the
        situation after the next ``change``."""
        self.graph.on_input(Put(key, value, revision))

    def _facts_of(self, changes: Changes) -> dict[ResourceKey, PolicyFacts]:
        return facts_of({key: value for key, value in changes.items() if value is not None})

    def _told(self) -> State:
        """A new state, with what the calculation has to tell."""
        before = self.situation.state
        state = State(
            sets=dict(before.sets), policies=dict(before.policies), profiles=dict(before.profiles), endpoints=dict(before.endpoints)
        )
        state.config = dict(before.config)
        state.host_endpoints = dict(before.host_endpoints)
        for update in self.graph.flush():
            _tell(state, update)
        return state


def calculate(
    resources: Resources, coming: Changes = types.MappingProxyType({}), chosen: Container[ResourceKey] | None = None
) -> Calculation:
    """The calculation of these resources for every host that has an endpoint or a Node; changes that are ``coming`` cost less later.

    ``chosen``: only these workload endpoints are given their policy; all others are members of sets (None: all of them are).
    """
    values = {key: value for key, (value, _) in resources.items()}
    hosts = {value.spec.node for value in (*values.values(), *coming.values()) if isinstance(value, WorkloadEndpoint | HostEndpoint)}
    hosts |= {key.name for key, value in values.items() if isinstance(value, Node) and isinstance(key, ResourceKey)}
    facts = facts_of(values)
    new = {key: value for key, value in coming.items() if value is not None}
    asked = _asked(values, facts) | _asked(new, facts_of(new))
    twins = find_twins(resources, asked, coming)
    graph = Graph(frozenset(hosts), routed=frozenset(), chosen=chosen)
    for key, (value, revision) in resources.items():
        if key not in twins.leader:
            graph.on_input(Put(key, value, revision))
    graph.on_input(InSync())
    state = State()
    for update in graph.flush():
        _tell(state, update)
    return Calculation(graph, Situation(state, order_of(resources, facts), resources, twins), facts)


def relate(
    situations: list[Situation],
    nets: tuple[Prefix, ...] = (),
    marks: Mapping[ResourceKey, Marks] = types.MappingProxyType({}),
    expired: Expired = never,
    options_of: OptionsOf | None = None,
) -> tuple[Universe, list[Relation]]:
    """One universe for all of them, of one calculation, and what each allows in it; ``nets`` and ``marks`` are told apart as well.

    With ``options_of``, of hosts, flows of hosts and what host endpoints say are in it (``hosting_of``).
    """
    assert all(situation.twins is situations[0].twins for situation in situations)
    states = [situation.state for situation in situations]
    universe = divide(states, nets, marks, situations[0].twins.groups, hosting_of(situations, options_of))
    boxes = Boxes(HeaderSpace(), expired=expired)
    relations: list[Relation] = []
    for index, situation in enumerate(situations):
        relations.append(Relation(universe, index, situation.order, boxes, relations[0] if relations else None))
    return universe, relations


def hosting_of(situations: list[Situation], options_of: OptionsOf | None) -> tuple[Hosting, ...]:
    """The hosts of each situation, where any of them has host endpoints; nothing where there are too many hosts, or no ``options_of``."""
    if options_of is None or not any(situation.state.host_endpoints for situation in situations):
        return ()
    return find_hosting([(situation.state, survey(situation.resources, options_of)) for situation in situations])


def facts_of(values: Mapping[Key, object]) -> dict[ResourceKey, PolicyFacts]:
    """What decides where policies apply, of those among the values."""
    return {
        key: describe_policy(key, value)
        for key, value in values.items()
        if isinstance(value, NetworkPolicy | GlobalNetworkPolicy) and isinstance(key, ResourceKey)
    }


def order_of(resources: Resources, facts: Mapping[ResourceKey, PolicyFacts]) -> TierOrder:
    """The order of all tiers and policies."""
    tiers = dict(BUILT_IN_TIERS)
    for key, (value, _) in resources.items():
        if isinstance(key, ResourceKey) and isinstance(value, Tier):
            tiers[key.name] = value.spec
    names = sorted(tiers, key=lambda name: tier_rank(name, tiers[name]))
    return TierOrder(names, [policy.key for policy in sorted(facts.values(), key=lambda policy: policy.rank)])


def _arranges(changes: Changes) -> bool:
    """The changes may change the order."""
    return any(isinstance(key, ResourceKey) and key.kind in ("Tier", "NetworkPolicy", "GlobalNetworkPolicy") for key in changes)


def _asked(values: Mapping[Key, object], facts: Mapping[ResourceKey, PolicyFacts]) -> frozenset[str]:
    """The label keys that selectors ask for."""
    found: set[str] = set()
    for key, value in values.items():
        if isinstance(value, NetworkPolicy | GlobalNetworkPolicy) and isinstance(key, ResourceKey):
            found |= asked_by(facts[key], value)
        elif isinstance(value, Profile):
            found |= asked_by_profile(value.spec)
    return frozenset(found).union(*[asked_by_profile(spec) for spec in BUILT_IN_PROFILES.values()])


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
        case HostEndpointUpdate(key=key, revision=revision, endpoint=host_endpoint):
            state.host_endpoints[key] = (revision, host_endpoint)
        case HostEndpointRemove(key=key):
            del state.host_endpoints[key]
        case ConfigUpdate(host=host, parameters=parameters):
            state.config[host] = parameters
        case _:
            pass

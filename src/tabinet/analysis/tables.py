"""What a change costs on a host: the rules and elements of its table before and after.

In: two situations and their hosts. Out: ``HostCost``. The table is made as an agent would make it, for the workloads of the host only;
members of sets for which others stand are only counted: they are single addresses of the same families, so no rule depends on them.
Pure; O(endpoints) once, then the size of what the host is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from tabinet.analysis.fabric import OptionsOf
from tabinet.analysis.situation import Situation
from tabinet.calc.endpoints import build_endpoint
from tabinet.calc.messages import (
    Endpoint,
    EndpointRemove,
    EndpointUpdate,
    Member,
    PolicyRemove,
    PolicyUpdate,
    PortMember,
    ProfileRemove,
    ProfileUpdate,
    SetKind,
    SetRemove,
    SetUpdate,
)
from tabinet.calc.ports import port_needs
from tabinet.calc.replica import State, policies_of, set_kinds
from tabinet.lib.ip import Prefix
from tabinet.model.keys import ResourceKey
from tabinet.model.resources import WorkloadEndpoint
from tabinet.rules.builder import TableBuilder

K = TypeVar("K")
Members = tuple[SetKind, frozenset[Member]]


class HostCost(msgspec.Struct, frozen=True, kw_only=True):
    """What a host's table has before and after."""

    host: str
    rules: tuple[int, int]
    elements: tuple[int, int]


@dataclass(slots=True)
class Tables:
    """Makes the tables of hosts as they are before and after a change."""

    before: Situation
    after: Situation
    options_of: OptionsOf
    _alike: dict[Prefix, int] = field(default_factory=dict)
    """By an address of an endpoint that stands for others: how many addresses of the family those have."""
    _more: dict[int, tuple[Members, int]] = field(default_factory=dict)
    """By identity of a set that was told: it, and how many members it has by those for whom endpoints stand."""

    def __post_init__(self) -> None:
        for leader, twins in self.after.twins.groups.items():
            entry = self.after.state.endpoints.get(leader)
            if entry is not None:
                for family in {address.family for address in entry[1].nets}:
                    first = next(address for address in entry[1].nets if address.family == family)
                    self._alike[first] = sum([other.family == family for _, addresses in twins for other in addresses])

    def cost(self, host: str) -> HostCost:
        """For the workloads of the host. The second table is made from the first, as an agent would."""
        builder = TableBuilder(self.options_of(self.after.state.config.get(host, {})))
        was, now = self._on_host(host, self.before), self._on_host(host, self.after)
        _tell(builder, State(), was)
        rules, elements = _size_of(builder)
        _tell(builder, was, now)
        rules_then, elements_then = _size_of(builder)
        more, more_then = (sum(map(self._members_more, local.sets.values())) for local in (was, now))
        return HostCost(host=host, rules=(rules, rules_then), elements=(elements + more, elements_then + more_then))

    def _on_host(self, host: str, situation: Situation) -> State:
        """What of the state the host is told about its workloads."""
        state = situation.state
        endpoints = {key: entry for key, entry in state.endpoints.items() if entry[1].host == host}
        endpoints |= _told_for_others(host, situation)
        policies = {key for _, endpoint in endpoints.values() for key in policies_of(endpoint)}
        profiles = {name for _, endpoint in endpoints.values() for name in endpoint.profiles if name in state.profiles}
        local = State(
            policies={key: state.policies[key] for key in policies},
            profiles={name: state.profiles[name] for name in profiles},
            endpoints=endpoints,
        )
        announced = [*local.policies.values(), *local.profiles.values()]
        wanted = {name for policy in announced for name in set_kinds(policy)}
        local.sets = {set_id: state.sets[set_id] for set_id in wanted}
        return local

    def _members_more(self, told: Members) -> int:
        """How many elements the set has besides those of its members, which stand for others: all of them single addresses."""
        if not self._alike:
            return 0
        known = self._more.get(id(told))
        if known is None:
            alike = self._alike
            addresses = [member.address if isinstance(member, PortMember) else member for member in told[1]]
            known = self._more[id(told)] = (told, sum([alike.get(address, 0) for address in addresses]))
        return known[1]


def _told_for_others(host: str, situation: Situation) -> dict[ResourceKey, tuple[int, Endpoint]]:
    """The endpoints of the host that others stand for, as they would be told."""
    found = {}
    for leader, twins in situation.twins.groups.items():
        for twin, _ in twins:
            value, revision = situation.resources[twin]
            if isinstance(value, WorkloadEndpoint) and value.spec.node == host and leader in situation.state.endpoints:
                model = situation.state.endpoints[leader][1]
                parts = {"ingress": model.ingress, "egress": model.egress}
                found[twin] = (revision, build_endpoint(value.spec, parts, (), port_needs(value.metadata.annotations, str(twin))))
    return found


def _tell(builder: TableBuilder, known: State, state: State) -> None:
    """The builder has what is not known already; what is gone is removed."""
    for set_id in differing(known.sets, state.sets) & state.sets.keys():
        builder.on_update(SetUpdate(set_id, *state.sets[set_id]))
    for key in differing(known.policies, state.policies) & state.policies.keys():
        builder.on_update(PolicyUpdate(key, state.policies[key]))
    for name in differing(known.profiles, state.profiles) & state.profiles.keys():
        builder.on_update(ProfileUpdate(name, state.profiles[name]))
    for key in differing(known.endpoints, state.endpoints):
        entry = state.endpoints.get(key)
        builder.on_update(EndpointRemove(key) if entry is None else EndpointUpdate(key, *entry))
    for key in known.policies.keys() - state.policies.keys():
        builder.on_update(PolicyRemove(key))
    for name in known.profiles.keys() - state.profiles.keys():
        builder.on_update(ProfileRemove(name))
    for set_id in known.sets.keys() - state.sets.keys():
        builder.on_update(SetRemove(set_id))


def differing(before: Mapping[K, object], after: Mapping[K, object]) -> set[K]:
    """The keys of what is not the same object in both."""
    return {key for key in before.keys() | after.keys() if before.get(key) is not after.get(key)}


def _size_of(builder: TableBuilder) -> tuple[int, int]:
    """Rules, and elements of sets and maps."""
    builder.flush()
    table = builder.table
    elements = sum(map(len, table.elements.values())) + sum(map(len, table.maps.values()))
    return sum(len(chain.rules) for chain in table.chains.values()), elements

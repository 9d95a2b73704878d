"""What a change costs on a host: the rules and elements of its table before and after.

In: two situations and their hosts. Out: ``HostCost``. The table is made as an agent would make it, for the workloads of the host only;
single addresses in sets are only counted, but for one of each family: each is an element, and no rule depends on which they are.
Pure; O(endpoints) once, then the size of what the host is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from tabinet.analysis.fabric import OptionsOf
from tabinet.analysis.situation import Situation
from tabinet.calc.endpoints import build_endpoint, readable
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
from tabinet.lib.ip import BITS, Prefix
from tabinet.model.keys import ResourceKey
from tabinet.model.resources import WorkloadEndpoint
from tabinet.rules.builder import TableBuilder

HOSTS_COUNTED = 4
"""Of so many hosts the tables are built to say what a change costs there."""
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
    _thin: dict[int, tuple[Members, Members, int]] = field(default_factory=dict)
    """By identity of a set that was told: it, as much of it as rules depend on, and how many elements it has besides."""

    _stood_for: dict[str, list[tuple[ResourceKey, ResourceKey]]] = field(default_factory=dict)
    """By host: the endpoints that another one stands for, each with that one."""

    def __post_init__(self) -> None:
        resources = self.after.resources
        for twin, leader in self.after.twins.leader.items():
            value, _ = resources[twin]
            assert isinstance(value, WorkloadEndpoint)
            self._stood_for.setdefault(value.spec.node, []).append((twin, leader))
        for leader, twins in self.after.twins.groups.items():
            value, _ = self.after.resources.get(leader, (None, 0))
            if isinstance(value, WorkloadEndpoint):
                firsts = {address.family: address for address in readable(value.spec.ip_networks)}
                for family, first in firsts.items():
                    self._alike[first] = sum([other.family == family for _, addresses in twins for other in addresses])

    def cost(self, host: str) -> HostCost:
        """For the workloads of the host. The second table is made from the first, as an agent would."""
        builder = TableBuilder(self.options_of(self.after.state.config.get(host, {})))
        was, now = self._on_host(host, self.before), self._on_host(host, self.after)
        more, more_then = (sum([self._thinned(told)[1] for told in local.sets.values()]) for local in (was, now))
        for local in (was, now):
            local.sets = {set_id: self._thinned(told)[0] for set_id, told in local.sets.items()}
        _tell(builder, State(), was)
        rules, elements = _size_of(builder)
        _tell(builder, was, now)
        rules_then, elements_then = _size_of(builder)
        return HostCost(host=host, rules=(rules, rules_then), elements=(elements + more, elements_then + more_then))

    def _on_host(self, host: str, situation: Situation) -> State:
        """What of the state the host is told about its workloads."""
        state = situation.state
        endpoints = {key: entry for key, entry in state.endpoints.items() if entry[1].host == host}
        endpoints |= self._told_for_others(host, situation)
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

    def _told_for_others(self, host: str, situation: Situation) -> dict[ResourceKey, tuple[int, Endpoint]]:
        """The endpoints of the host that others stand for, as they would be told."""
        found = {}
        for twin, leader in self._stood_for.get(host, ()):
            entry = situation.state.endpoints.get(leader)
            value, revision = situation.resources[twin]
            if isinstance(value, WorkloadEndpoint) and entry is not None:
                parts = {"ingress": entry[1].ingress, "egress": entry[1].egress}
                found[twin] = (revision, build_endpoint(value.spec, parts, (), port_needs(value.metadata.annotations, str(twin))))
        return found

    def _thinned(self, told: Members) -> tuple[Members, int]:
        """The set with one of its single addresses (or ports of them) in each family, and how many elements it has besides, those for whom
        others stand included."""
        known = self._thin.get(id(told))
        if known is None:
            kind, members = told
            kept: list[Member] = []
            first: dict[int, Member] = {}
            more = 0
            for member in members:
                address = member.address if isinstance(member, PortMember) else member
                if kind is SetKind.NETS and address.length != BITS[address.family]:
                    kept.append(member)
                else:
                    first.setdefault(address.family, member)
                    more += 1 + self._alike.get(address, 0)
            kept += first.values()
            known = self._thin[id(told)] = (told, (kind, frozenset(kept)), more - len(first))
        return known[1], known[2]


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

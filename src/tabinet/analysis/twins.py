"""Endpoints that nothing tells apart but name, place and addresses: one is calculated, and stands for all of them.

In: resources. Out: ``Twins``. Two endpoints are twins when they agree in profiles, ports, what they are, and in all of their labels that a
selector of a policy or rule asks for, and nothing else could make a difference between them: each has an interface and addresses that
nobody else has or names (but nets that hold more than one address: those are looked at for each address, see ``universe``), and neither
translates addresses. So they have the same policy, and their addresses are in the same sets.

Pure; O(resources).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from tabinet.analysis.fabric import Resources
from tabinet.calc.autohosts import host_addresses
from tabinet.calc.endpoints import endpoint_origin, nets_of, readable, readable_addresses
from tabinet.calc.policyfacts import PolicyFacts
from tabinet.calc.scopes import side_scope
from tabinet.lib.ip import BITS, Prefix
from tabinet.model.annotations import PORT_FORWARDS
from tabinet.model.keys import Key, ResourceKey
from tabinet.model.resources import (
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    HostEndpoint,
    NetworkPolicy,
    NetworkSet,
    Node,
    ProfileSpec,
    Rule,
    WorkloadEndpoint,
)
from tabinet.selector import SelectorError, label_keys, parse

Twin = tuple[ResourceKey, tuple[Prefix, ...]]
"""An endpoint and its addresses."""
Interface = tuple[str, str]
"""A host and the name of an interface on it."""


@dataclass(slots=True)
class Twins:
    """Who stands for whom."""

    asked: frozenset[str] = frozenset()
    """The label keys that twins agree in."""
    groups: dict[ResourceKey, list[Twin]] = field(default_factory=dict)
    """By the endpoint that is calculated: those that are not, in the order of resources."""
    leader: dict[ResourceKey, ResourceKey] = field(default_factory=dict)
    """Of each that is not calculated, the one that is."""

    def expanded(self, keys: Iterable[ResourceKey]) -> Iterator[ResourceKey]:
        """These endpoints, which are calculated, and those that they stand for."""
        for key in keys:
            yield key
            for twin, _ in self.groups.get(key, ()):
                yield twin

    def released(self, leaders: Iterable[ResourceKey]) -> list[ResourceKey]:
        """These endpoints stand for nobody any more; gives those that have to be calculated for that reason."""
        found = []
        for key in leaders:
            for twin, _ in self.groups.pop(key, ()):
                del self.leader[twin]
                found.append(twin)
        return found

    def touched(self, resources: Resources, changes: Mapping[Key, object | None], asked: frozenset[str]) -> list[ResourceKey]:
        """Those who could not stand for their twins any more if these were changed, and ``asked`` were the keys that are asked for."""
        if not asked <= self.asked:
            return list(self.groups)
        if not self.groups:
            return []
        interfaces: set[Interface] = set()
        addresses: set[Prefix] = set()
        found: dict[ResourceKey, None] = {}
        for key, value in changes.items():
            if isinstance(key, ResourceKey) and key.kind == "WorkloadEndpoint":
                found[self.leader.get(key, key)] = None
            if isinstance(value, WorkloadEndpoint):
                interfaces.add((value.spec.node, value.spec.interface_name))
                addresses |= set(readable(value.spec.ip_networks))
            else:
                addresses |= set(named_addresses(value))
        for key, twins in self.groups.items() if interfaces or addresses else ():
            for each in (key, *[twin for twin, _ in twins]):
                value, _ = resources[each]
                assert isinstance(value, WorkloadEndpoint)
                spec = value.spec
                if (spec.node, spec.interface_name) in interfaces or not addresses.isdisjoint(readable(spec.ip_networks)):
                    found[key] = None
        return [key for key in found if key in self.groups]


def find_twins(resources: Resources, asked: frozenset[str], apart: Mapping[Key, object | None]) -> Twins:
    """The twins among the workload endpoints; whoever ``apart``, changes that shall be tried, could touch is nobody's twin."""
    twins = Twins(asked)
    interfaces: dict[Interface, int] = {}
    owners: dict[Prefix, int] = {}
    named: set[Prefix] = set()
    plain: list[tuple[ResourceKey, WorkloadEndpoint, tuple[Prefix, ...]]] = []
    values = chain(((key, value) for key, (value, _) in resources.items()), apart.items())
    for key, value in values:
        if isinstance(value, WorkloadEndpoint) and isinstance(key, ResourceKey):
            spec = value.spec
            addresses = nets_of(spec)
            interface = (spec.node, spec.interface_name)
            interfaces[interface] = interfaces.get(interface, 0) + 1
            for address in addresses:
                owners[address] = owners.get(address, 0) + 1
            if key not in apart:
                plain.append((key, value, addresses))
        else:
            named.update(named_addresses(value))
    leaders: dict[tuple[object, ...], ResourceKey] = {}
    for key, value, addresses in plain:
        spec = value.spec
        if not (spec.interface_name and addresses) or interfaces[spec.node, spec.interface_name] > 1:
            continue
        if spec.ip_nats or PORT_FORWARDS in value.metadata.annotations:
            continue
        families = _families_of(addresses, owners, named)
        if not families:
            continue
        labels = tuple([pair for pair in value.metadata.labels.items() if pair[0] in asked])
        leader = leaders.setdefault((endpoint_origin(key, spec), labels, spec.profiles, spec.ports, families), key)
        if leader is not key:
            twins.groups.setdefault(leader, []).append((key, addresses))
            twins.leader[key] = leader
    return twins


def _families_of(addresses: tuple[Prefix, ...], owners: Mapping[Prefix, int], named: Container[Prefix]) -> tuple[int, ...]:
    """Of what families they are; none unless all are single addresses that nobody else has or names."""
    families = []
    for address in addresses:
        if address.length != BITS[address.family] or owners[address] > 1 or address in named:
            return ()
        families.append(address.family)
    return tuple(families)


def named_addresses(value: object) -> Iterator[Prefix]:
    """The single addresses that a resource brings into sets, or could, if it is not a workload endpoint."""
    match value:
        case NetworkSet() | GlobalNetworkSet():
            yield from (net for net in readable(value.spec.nets) if net.is_host)
        case HostEndpoint():
            yield from readable_addresses(value.spec.expected_ips)
        case Node():
            yield from host_addresses(value)
            for interface in value.spec.interfaces:
                yield from readable_addresses(interface.addresses)


def asked_by(facts: PolicyFacts, value: NetworkPolicy | GlobalNetworkPolicy) -> frozenset[str]:
    """The label keys that a policy's selector and its rules ask for."""
    scope = label_keys(facts.scope) if facts.scope is not None else ()
    return frozenset(scope).union(*_asked_by_rules((*value.spec.ingress, *value.spec.egress), facts.key.namespace))


def asked_by_profile(spec: ProfileSpec) -> frozenset[str]:
    """The label keys that a profile's rules ask for."""
    return frozenset[str]().union(*_asked_by_rules((*spec.ingress, *spec.egress), ""))


def _asked_by_rules(rules: Iterable[Rule], namespace: str) -> Iterator[Iterable[str]]:
    for rule in rules:
        for side in (rule.source, rule.destination):
            try:
                selector = side_scope(side, namespace)
            except SelectorError:
                selector = None  # the rule is dropped, or denies whoever the peer is
            try:
                unselected = parse(side.not_selector) if side.not_selector else None
            except SelectorError:
                unselected = None
            yield from (each.keys for each in (selector, unselected) if each is not None)

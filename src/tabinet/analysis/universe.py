"""All addresses, divided into classes that no rule can tell apart.

In: what the calculation says for all hosts, once or (to compare) several times. Out: a ``Universe``: numbered classes, and for everything
that rules ask about addresses (sets, nets, named ports) and for every list of policies the ``Mask`` of the classes that it is true of. A
class is either of addresses of endpoints, with equal policy, or of addresses that no endpoint has. Membership is a matter of
addresses, as in the kernel's sets; policy is a matter of endpoints, so that two endpoints with one address are in two classes if
their policies differ.

Cost: O(addresses + members of sets + nets) to build, O(classes / 8) bytes for each mask. An endpoint's prefix that is not a single
address is left out and told (``left_out``).
"""

from __future__ import annotations

import types
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from tabinet.analysis.hosting import Hosting
from tabinet.analysis.masks import Mask, mask_of
from tabinet.analysis.twins import Twin
from tabinet.calc.messages import Endpoint, Policy, PortMember, SetKind, Side, TierPolicies
from tabinet.calc.replica import State
from tabinet.lib.ip import IPV4, IPV6, Prefix, parse_address
from tabinet.model.keys import ResourceKey

Predicate = tuple[int, str] | Prefix
"""A set (of one of the states), or a net that a rule names."""
Policing = tuple[tuple[TierPolicies, ...], tuple[TierPolicies, ...], tuple[str, ...]]
"""Ingress tiers, egress tiers, profiles of an endpoint."""
Marks = tuple[tuple[bool, ...], tuple[str | None, ...]]
"""Which selectors select an endpoint, and its values of some labels."""
PortVariant = tuple[tuple[int, int], ...]
"""The (protocol, port) pairs that a named port stands for at an address, sorted."""
_FAMILIES = (IPV4, IPV6)
_EXAMPLES = {IPV4: (parse_address("198.51.100.1"), parse_address("192.0.2.1")), IPV6: (parse_address("2001:db8::1"),)}
"""RFC 5737, RFC 3849."""


class Unit(msgspec.Struct, frozen=True, gc=False):
    """An address of an endpoint."""

    endpoint: ResourceKey
    address: Prefix


class Kind(msgspec.Struct, frozen=True):
    """What the members of a class have in common."""

    family: int
    members: tuple[int, ...]
    """Numbers of the predicates that hold by single addresses."""
    nets: int
    """Number of the signature of nets."""
    ports: tuple[tuple[int, PortVariant], ...]
    """By number of the PORTS predicate."""
    marks: Marks | None
    """Of an endpoint: what else shall be told apart."""
    policing: tuple[Policing | None, ...]
    """In each state; None: no endpoint has the address there."""
    hosts: tuple[str, ...] = ()
    """In each state the host that it is on, or of which it is an address; empty where hosts are not told apart."""


class Residents(msgspec.Struct, frozen=True, gc=False):
    """Who is on a host."""

    workloads: Mask
    own: Mask
    """Addresses of the host itself."""


@dataclass(slots=True)
class Universe:
    """The classes, by number, and the masks over them."""

    states: tuple[State, ...]
    kinds: list[Kind] = field(default_factory=list)
    units: list[list[Unit]] = field(default_factory=list)
    """Of each class; empty for addresses that no endpoint has."""
    examples: list[Prefix] = field(default_factory=list)
    """An address of each class."""
    of_address: dict[Prefix, list[int]] = field(default_factory=dict)
    """Classes of the endpoints that have it."""
    told_apart: frozenset[Prefix] = frozenset()
    """Nets, of rules or members of sets, at whose edges classes end."""
    left_out: list[str] = field(default_factory=list)
    everything: Mask = 0
    families: dict[int, Mask] = field(default_factory=dict)
    endpoints: tuple[Mask, ...] = ()
    """In each state: classes that an endpoint has."""
    policed: list[dict[tuple[ResourceKey, bool], Mask]] = field(default_factory=list)
    """In each state, by policy and ingress: whom it applies to."""
    tiers: list[dict[tuple[str, bool], Mask]] = field(default_factory=list)
    """Likewise by tier: whoever has a policy of it."""
    profiles: list[dict[tuple[str, ...], Mask]] = field(default_factory=list)
    """In each state, by list of profiles."""
    hosting: tuple[Hosting, ...] = ()
    """Of each state; empty: hosts are not told apart, and their addresses count as outside."""
    residents: list[dict[str, Residents]] = field(default_factory=list)
    """In each state, by host; where hosts are told apart."""
    _numbers: dict[Predicate, int] = field(default_factory=dict)
    _masks: list[Mask] = field(default_factory=list)
    _variants: dict[int, dict[PortVariant, Mask]] = field(default_factory=dict)
    _atoms: dict[int, tuple[list[int], list[int]]] = field(default_factory=dict)
    _outside: dict[tuple[int, int], int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many classes."""
        return len(self.kinds)

    @property
    def named_nets(self) -> list[Prefix]:
        """The nets that rules name, or that were asked for."""
        return [predicate for predicate in self._numbers if isinstance(predicate, Prefix)]

    def holds(self, state: int, set_id: str) -> Mask:
        """Whose address is in the set, as it is in the state."""
        return self._masks[self._numbers[self.shared(state, set_id)]]

    def class_of_address(self, address: Prefix) -> Mask:
        """The classes of an address, as a mask."""
        return mask_of(self.classes_at(address), self.size)

    def within(self, net: Prefix) -> Mask:
        """Whose address is in the net, which a rule names."""
        return self._masks[self._numbers[net]]

    def variants(self, state: int, set_id: str) -> dict[PortVariant, Mask]:
        """A division of all classes by what the named port is there."""
        return self._variants[self._numbers[self.shared(state, set_id)]]

    def classes_at(self, address: Prefix) -> list[int]:
        """The classes of an address: one, or of each endpoint that has it."""
        found = self.of_address.get(address)
        if found is not None:
            return found
        starts, signatures = self._atoms[address.family]
        return [self._outside[signatures[bisect_right(starts, address.value) - 1], address.family]]

    def shared(self, state: int, set_id: str) -> Predicate:
        """A set that several states share is one predicate."""
        for earlier in range(state):
            if self.states[earlier].sets.get(set_id) is self.states[state].sets[set_id]:
                return (earlier, set_id)
        return (state, set_id)


def divide(
    states: Sequence[State],
    nets: Iterable[Prefix] = (),
    marks: Mapping[ResourceKey, Marks] = types.MappingProxyType({}),
    twins: Mapping[ResourceKey, Sequence[Twin]] = types.MappingProxyType({}),
    hosting: tuple[Hosting, ...] = (),
) -> Universe:
    """The universe of these states; ``nets`` shall be told apart besides those that rules name, and endpoints with other ``marks``.

    ``twins`` are endpoints that the states do not have, by the one that stands for them, which has all of its addresses for itself.
    ``hosting``, of each state: hosts and who is on them are told apart.
    """
    universe = Universe(tuple(states), hosting=hosting)
    builder = _Builder(universe, marks, twins)
    builder.collect(nets)
    builder.sweep()
    builder.classify_endpoints()
    builder.classify_outside()
    builder.make_masks()
    return universe


@dataclass(slots=True)
class _Builder:
    universe: Universe
    marks: Mapping[ResourceKey, Marks]
    twins: Mapping[ResourceKey, Sequence[Twin]]
    nets_of: dict[Prefix, set[int]] = field(default_factory=lambda: defaultdict(set))
    """By net: the predicates that hold in it."""
    singles: dict[Prefix, list[int]] = field(default_factory=dict)
    """By address of an endpoint: the predicates that hold by it alone, ascending."""
    ports: dict[Prefix, dict[int, list[tuple[int, int]]]] = field(default_factory=lambda: defaultdict(dict))
    port_predicates: list[int] = field(default_factory=list)
    owned: dict[Prefix, dict[ResourceKey, None]] = field(default_factory=dict)
    _policings: list[Policing] = field(default_factory=list)
    _policing_numbers: dict[Policing, int] = field(default_factory=dict)
    _shared_policings: dict[tuple[int, int, tuple[str, ...]], int] = field(default_factory=dict)
    signatures: list[frozenset[int]] = field(default_factory=lambda: [frozenset()])
    _signature_numbers: dict[frozenset[int], int] = field(default_factory=lambda: {frozenset(): 0})

    # --- what is asked ---

    def collect(self, nets: Iterable[Prefix]) -> None:
        """Every predicate has a number, and is known by the addresses and nets that it holds for."""
        universe = self.universe
        for state in universe.states:
            for key, (_, endpoint) in state.endpoints.items():
                for address in endpoint.nets:
                    if address.is_host:
                        self.owned.setdefault(address, {})[key] = None
                    elif str(key) not in universe.left_out:
                        universe.left_out.append(str(key))
        for hosting in universe.hosting:
            for address, key in hosting.addresses.items():
                self.owned.setdefault(address, {key: None})
        self.singles = {address: [] for address in self.owned}
        for net in (*nets, *[net for hosting in universe.hosting for net in hosting.nets()]):
            self._number(net)
        for index, state in enumerate(universe.states):
            for rule_side in _sides(state):
                for net in (*rule_side.nets, *rule_side.not_nets):
                    self._number(net)
                for set_id in (*rule_side.sets, *rule_side.not_sets, *rule_side.port_sets, *rule_side.not_port_sets):
                    self._number(universe.shared(index, set_id))
        for predicate, number in universe._numbers.items():
            if isinstance(predicate, Prefix):
                self.nets_of[predicate].add(number)
            else:
                self._collect_set(number, *universe.states[predicate[0]].sets[predicate[1]])

    def _collect_set(self, number: int, kind: SetKind, members: Iterable[object]) -> None:
        if kind is SetKind.PORTS:
            self.port_predicates.append(number)
        singles = self.singles
        for member in members:
            if isinstance(member, Prefix):
                having = singles.get(member)
                if having is not None:
                    having.append(number)
                else:
                    self.nets_of[member].add(number)
            elif isinstance(member, PortMember):
                self.ports[member.address].setdefault(number, []).append((member.protocol, member.port))

    def _number(self, predicate: Predicate) -> None:
        self.universe._numbers.setdefault(predicate, len(self.universe._numbers))

    # --- nets ---

    def sweep(self) -> None:
        """Each family's addresses are cut where membership of nets changes: starts, and the signature from each start on."""
        for address in self.ports:  # a named port of an address that no endpoint has
            if address not in self.owned:
                self.nets_of[address] |= set()
        self.universe.told_apart = frozenset(self.nets_of)
        for family in _FAMILIES:
            self.universe._atoms[family] = self._sweep_family(family)

    def _sweep_family(self, family: int) -> tuple[list[int], list[int]]:
        starts, found = [0], [0]
        open_nets: list[tuple[int, int]] = []
        """Last address and signature of the nets around the place, outermost first."""

        def cut(place: int) -> None:
            signature = open_nets[-1][1] if open_nets else 0
            if starts[-1] == place:
                found[-1] = signature
            else:
                starts.append(place)
                found.append(signature)

        nets = sorted((net.value, -net.last, net) for net in self.nets_of if net.family == family)
        for first, _, net in nets:
            while open_nets and open_nets[-1][0] < first:
                last, _ = open_nets.pop()
                cut(last + 1)
            around = self.signatures[open_nets[-1][1]] if open_nets else frozenset()
            open_nets.append((net.last, self._signature(around | self.nets_of[net])))
            cut(first)
        highest = (1 << (32 if family == IPV4 else 128)) - 1
        while open_nets:
            last, _ = open_nets.pop()
            if last < highest:
                cut(last + 1)
        return starts, found

    def _is_alone(self, place: int, family: int) -> bool:
        return Prefix(family, place, 32 if family == IPV4 else 128) in self.ports

    def _signature(self, predicates: frozenset[int]) -> int:
        number = self._signature_numbers.get(predicates)
        if number is None:
            number = self._signature_numbers[predicates] = len(self.signatures)
            self.signatures.append(predicates)
        return number

    # --- classes ---

    def classify_endpoints(self) -> None:
        """Every address of every endpoint is in a class."""
        universe = self.universe
        numbers: dict[tuple[object, ...], int] = {}

        def enter(key: ResourceKey, address: Prefix, shared: tuple[object, ...], policed: tuple[int | None, ...]) -> None:
            starts, signatures = universe._atoms[address.family]
            nets = signatures[bisect_right(starts, address.value) - 1]
            marks = self.marks.get(key)
            hosts = self._hosts(key, address, policed) if universe.hosting else ()
            place = (shared, nets, marks, hosts)
            number = numbers.get(place)
            if number is None:
                policing = tuple([None if each is None else self._policings[each] for each in policed])
                number = numbers[place] = self._add(Kind(address.family, members, nets, ports, marks, policing, hosts), address)
            universe.units[number].append(Unit(key, address))
            universe.of_address.setdefault(address, []).append(number)

        expanded: set[tuple[ResourceKey, int]] = set()
        for address, owners in self.owned.items():
            members = tuple(self.singles[address])
            ports = self._ports_at(address)
            for key in owners:
                policed = tuple([self._policing(state.endpoints.get(key), address) for state in universe.states])
                shared = (address.family, members, ports, policed)
                enter(key, address, shared, policed)
                alike = self.twins.get(key)
                if alike and (key, address.family) not in expanded:
                    expanded.add((key, address.family))
                    for twin, addresses in alike:
                        for other in addresses:
                            if other.family == address.family:
                                enter(twin, other, shared, policed)

    def _hosts(self, key: ResourceKey, address: Prefix, policed: tuple[int | None, ...]) -> tuple[str, ...]:
        """In each state: the host that the endpoint is on, or whose address it is."""
        found = []
        for hosting, policing in zip(self.universe.hosting, policed, strict=True):
            if policing is not None:
                found.append(hosting.residents.get(key, ""))
            else:
                found.append(hosting.of_address.get(address, "") if hosting.addresses.get(address) == key else "")
        return tuple(found)

    def _policing(self, entry: tuple[int, Endpoint] | None, address: Prefix) -> int | None:
        """Number of what applies to the endpoint. Endpoints that are alike share its parts, so that few are compared as a whole."""
        if entry is None or address not in entry[1].nets:
            return None
        endpoint = entry[1]
        shared = (id(endpoint.ingress), id(endpoint.egress), endpoint.profiles)
        number = self._shared_policings.get(shared)
        if number is None:
            policing = (endpoint.ingress, endpoint.egress, endpoint.profiles)
            number = self._policing_numbers.setdefault(policing, len(self._policings))
            if number == len(self._policings):
                self._policings.append(policing)
            self._shared_policings[shared] = number
        return number

    def classify_outside(self) -> None:
        """Every address that no endpoint has is in a class."""
        universe = self.universe
        taken: dict[tuple[int, int], int] = defaultdict(int)
        for address in universe.of_address:
            starts, _ = universe._atoms[address.family]
            taken[address.family, bisect_right(starts, address.value) - 1] += 1
        nobody = (None,) * len(universe.states)
        for family in _FAMILIES:
            starts, signatures = universe._atoms[family]
            end = 1 << (32 if family == IPV4 else 128)
            for index, signature in enumerate(signatures):
                stop = starts[index + 1] if index + 1 < len(starts) else end
                if stop - starts[index] <= taken.get((family, index), 0):
                    continue
                example = self._example(starts[index], stop, family)
                ports = self._ports_at(example) if self._is_alone(starts[index], family) else ()
                known = None if ports else universe._outside.get((signature, family))
                if known is not None:
                    if example in _EXAMPLES[family]:
                        universe.examples[known] = example
                    continue
                number = self._add(Kind(family, (), signature, ports, None, nobody), example)
                if ports:
                    universe.of_address[example] = [number]
                else:
                    universe._outside[signature, family] = number

    def _example(self, start: int, stop: int, family: int) -> Prefix:
        """An address from start to before stop that no endpoint has: one that people use in examples, or the first that looks like one."""
        length = 32 if family == IPV4 else 128
        for likely in _EXAMPLES[family]:
            if start <= likely.value < stop and likely not in self.universe.of_address:
                return likely
        for place in range(start + 1 if stop - start > 1 else start, stop):
            if Prefix(family, place, length) not in self.universe.of_address:
                return Prefix(family, place, length)
        return Prefix(family, start, length)

    def _ports_at(self, address: Prefix) -> tuple[tuple[int, PortVariant], ...]:
        named = self.ports.get(address)
        return tuple([(number, tuple(sorted(pairs))) for number, pairs in sorted(named.items())]) if named else ()

    def _add(self, kind: Kind, example: Prefix) -> int:
        universe = self.universe
        universe.kinds.append(kind)
        universe.units.append([])
        universe.examples.append(example)
        return len(universe.kinds) - 1

    # --- masks ---

    def make_masks(self) -> None:
        """Every predicate, family, policy, tier and list of profiles has its mask."""
        universe = self.universe
        size = universe.size
        universe.everything = (1 << size) - 1
        of_predicate: dict[int, list[int]] = defaultdict(list)
        of_family: dict[int, list[int]] = defaultdict(list)
        of_variant: dict[int, dict[PortVariant, list[int]]] = {number: defaultdict(list) for number in self.port_predicates}
        for number, kind in enumerate(universe.kinds):
            of_family[kind.family].append(number)
            for predicate in {*kind.members, *self.signatures[kind.nets]}:
                of_predicate[predicate].append(number)
            here = dict(kind.ports)
            for predicate, variants in of_variant.items():
                variants[here.get(predicate, ())].append(number)
        universe.families = {family: mask_of(of_family[family], size) for family in _FAMILIES}
        universe._masks = [mask_of(of_predicate.get(number, ()), size) for number in range(len(universe._numbers))]
        universe._variants = {
            predicate: {variant: mask_of(numbers, size) for variant, numbers in variants.items()}
            for predicate, variants in of_variant.items()
        }
        self._make_policy_masks()

    def _make_policy_masks(self) -> None:
        universe, size = self.universe, self.universe.size
        present = []
        for index in range(len(universe.states)):
            by_policing: dict[Policing, list[int]] = defaultdict(list)
            for number, kind in enumerate(universe.kinds):
                policing = kind.policing[index]
                if policing is not None:
                    by_policing[policing].append(number)
            policed: dict[tuple[ResourceKey, bool], list[int]] = defaultdict(list)
            tiers: dict[tuple[str, bool], list[int]] = defaultdict(list)
            profiles: dict[tuple[str, ...], list[int]] = defaultdict(list)
            for (ingress, egress, names), numbers in by_policing.items():
                profiles[names] += numbers
                for is_ingress, listed in ((True, ingress), (False, egress)):
                    for tier in listed:
                        tiers[tier.tier, is_ingress] += numbers
                        for key in tier.policies:
                            policed[key, is_ingress] += numbers
            universe.policed.append({key: mask_of(numbers, size) for key, numbers in policed.items()})
            universe.tiers.append({key: mask_of(numbers, size) for key, numbers in tiers.items()})
            universe.profiles.append({names: mask_of(numbers, size) for names, numbers in profiles.items()})
            present.append(mask_of((number for numbers in by_policing.values() for number in numbers), size))
            if universe.hosting:
                universe.residents.append(self._residents(index, present[-1]))
        universe.endpoints = tuple(present)

    def _residents(self, index: int, endpoints: Mask) -> dict[str, Residents]:
        numbers: dict[str, list[int]] = {host: [] for host in self.universe.hosting[index].roles}
        for number, kind in enumerate(self.universe.kinds):
            if kind.hosts and kind.hosts[index] in numbers:
                numbers[kind.hosts[index]].append(number)
        masks = {host: mask_of(having, self.universe.size) for host, having in numbers.items()}
        return {host: Residents(mask & endpoints, mask & ~endpoints) for host, mask in masks.items()}


def _sides(state: State) -> Iterator[Side]:
    policies: Iterable[Policy] = (*state.policies.values(), *state.profiles.values())
    for policy in policies:
        for rule in (*policy.ingress, *policy.egress):
            yield rule.source
            yield rule.destination

"""Classes in words: labels, nets and network sets that fit exactly, or as few as cover them, and how many endpoints they are.

Pure. O(endpoints x labels) to build, O(candidates) for each mask.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

import msgspec

from tabinet.analysis.boxes import Box
from tabinet.analysis.fabric import Resources
from tabinet.analysis.masks import Mask, lowest_of, mask_of, numbers_of
from tabinet.analysis.relation import Relation
from tabinet.analysis.universe import Universe
from tabinet.analysis.words import workload_name
from tabinet.calc.carriers import ORIGIN_KEYS, Origin
from tabinet.calc.endpoints import endpoint_labels, endpoint_origin, readable
from tabinet.calc.scopes import NAMESPACE, ORCHESTRATOR
from tabinet.lib.ip import Prefix
from tabinet.model.keys import ResourceKey
from tabinet.model.resources import GlobalNetworkSet, NetworkSet, WorkloadEndpoint

AT_MOST = 4
"""So many parts before the rest is only counted."""
FEW_CLASSES = 8
"""An endpoint has no more classes than that, or no name."""
Pair = tuple[str, str]
"""A label and its value."""


class Witness(msgspec.Struct, frozen=True, kw_only=True):
    """One packet of a group of flows, to be tried."""

    source: str
    """Address."""
    source_name: str
    """Workload, or ``outside``."""
    destination: str
    destination_name: str
    protocol: int
    port: int
    """Destination port; of ICMP the type."""
    source_port: int
    """Of ICMP the code."""


class FlowGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Flows that are alike, in words."""

    source: str
    destination: str
    packets: str
    families: tuple[int, ...]
    """4, 6 or both."""
    source_endpoints: int
    destination_endpoints: int
    witness: Witness


@dataclass
class Describer:
    """Words for the masks of one universe, as its resources are."""

    universe: Universe
    resources: Resources
    _known: dict[Mask, str] = field(default_factory=dict)
    """Masks that have a name; several names: the shortest. Without names that are only one endpoint's: there are many of those."""
    _by_size: list[tuple[Mask, str, int, int]] = field(default_factory=list)
    """Those of several, the largest first, with their sizes and their lowest numbers."""
    _bearers: Counter[Pair] = field(default_factory=Counter)
    """How many endpoints have a label."""

    def prepare(self) -> None:
        """Every label, namespace, net and network set that fits classes exactly is known."""
        universe = self.universe
        inside = 0
        for mask in universe.endpoints:
            inside |= mask
        hosts = self._host_masks()
        for host, mask in hosts.items():
            self._know(mask, f"host {host}")
            inside |= mask
        outside = universe.everything & ~inside
        for (key, value), mask in self._label_masks().items():
            self._know(mask, f"namespace {value}" if key == NAMESPACE else f"{key}={value}")
        named = 0
        for name, nets in self._nets():
            mask = self._covered(nets) & outside
            named |= mask
            self._know(mask, name)
        for mask in (outside, outside & ~named):
            self._know(mask, "every other address")
        self._know(inside, "all endpoints" if not hosts else "all endpoints and hosts")
        if hosts:
            everybody = 0
            for mask in universe.endpoints:
                everybody |= mask
            self._know(everybody, "all endpoints")
            self._know(inside & ~everybody, "all hosts")
        self._know(universe.everything, "every address")
        self._known.pop(0, None)
        # A name of a single endpoint helps nobody in a list of several.
        several = [
            (mask, name, mask.bit_count(), lowest_of(mask))
            for mask, name in self._known.items()
            if mask & outside or self._is_of_several(mask)
        ]
        self._by_size = sorted(several, key=lambda item: -item[2])

    def groups(self, boxes: Iterable[Box], relation: Relation) -> list[FlowGroup]:
        """The boxes in words, the widest first; what reads the same in both families is one group."""
        alike: dict[tuple[str, str, str], list[Box]] = {}
        for sources, destinations, headers in boxes:
            for own in self.universe.families.values():
                part = (sources & own, destinations & own, headers)
                if part[0] and part[1] and self._two_ends(part[0], part[1]) is not None:
                    words = (self.text(part[0]), self.text(part[1]), relation.space.text(headers, relation.unsendable))
                    alike.setdefault(words, []).append(part)
        found = [self._group(words, parts, relation) for words, parts in alike.items()]
        return sorted(found, key=lambda group: (-group.source_endpoints * group.destination_endpoints, group.source, group.destination))

    def _group(self, words: tuple[str, str, str], parts: list[Box], relation: Relation) -> FlowGroup:
        sources = destinations = 0
        for source, destination, _ in parts:
            sources |= source
            destinations |= destination
        families = tuple(family for family, own in self.universe.families.items() if sources & own)
        return FlowGroup(
            source=words[0],
            destination=words[1],
            packets=words[2],
            families=families,
            source_endpoints=self.count(sources),
            destination_endpoints=self.count(destinations),
            witness=self._witness(parts[0], relation),
        )

    def text(self, mask: Mask) -> str:
        """The classes in words."""
        known = self._known.get(mask) or self._name_of_one(mask)
        if known is not None:
            return known
        parts: list[str] = []
        rest = mask
        size = mask.bit_count()
        content = mask.to_bytes((mask.bit_length() + 7) // 8, "little")
        for candidate, name, of, lowest in self._by_size[bisect_left(self._by_size, -size, key=lambda item: -item[2]) :]:
            if len(parts) == AT_MOST or not rest:
                break
            # Most are told to be no part by their lowest number alone.
            if lowest >> 3 >= len(content) or not content[lowest >> 3] >> (lowest & 7) & 1:
                continue
            if of <= size and candidate & rest and candidate & mask == candidate:
                parts.append(name)
                rest &= ~candidate
        if rest:
            parts.append(self._counted(rest))
        return " | ".join(parts)

    def _name_of_one(self, mask: Mask) -> str | None:
        """The shortest label that only this endpoint has, if the mask is all of it, or all of it in a family."""
        if mask.bit_count() > FEW_CLASSES:
            return None
        universe = self.universe
        endpoints = {unit.endpoint for number in numbers_of(mask) for unit in universe.units[number]}
        if len(endpoints) != 1:
            return None
        (key,) = endpoints
        value, _ = self.resources.get(key, (None, 0))
        if not isinstance(value, WorkloadEndpoint):
            return None
        labels = endpoint_labels(key, value)
        names = [f"{name}={text}" for name, text in labels.items() if name != ORCHESTRATOR and self._bearers[name, text] == 1]
        numbers = {number for address in readable(value.spec.ip_networks) for number in universe.of_address.get(address, ())}
        whole = mask_of(numbers, universe.size)
        is_alone = all(unit.endpoint == key for number in numbers for unit in universe.units[number])
        if not names or not is_alone or mask not in (whole, *[whole & own for own in universe.families.values()]):
            return None
        return min(names, key=len)

    def count(self, mask: Mask) -> int:
        """How many endpoints have an address in the classes."""
        return len({unit.endpoint for number in numbers_of(mask) for unit in self.universe.units[number]})

    # --- inside ---

    def _is_of_several(self, mask: Mask) -> bool:
        return mask.bit_count() > 1 or len(self.universe.units[lowest_of(mask)]) > 1

    def _witness(self, part: Box, relation: Relation) -> Witness:
        """A packet of the box, of which both ends are of one family; from and to endpoints where there are some."""
        ends = self._two_ends(part[0], part[1])
        assert ends is not None
        (source, source_name), (destination, destination_name) = ends
        protocol, first, second = relation.space.example(part[2])
        return Witness(
            source=source.address,
            source_name=source_name,
            destination=destination.address,
            destination_name=destination_name,
            protocol=protocol,
            port=first,
            source_port=second,
        )

    def _two_ends(self, sources: Mask, destinations: Mask) -> tuple[tuple[Prefix, str], tuple[Prefix, str]] | None:
        """Two different addresses."""
        for source in self._candidates(sources):
            for destination in self._candidates(destinations):
                if source[0] != destination[0]:
                    return source, destination
        return None

    def _candidates(self, mask: Mask) -> list[tuple[Prefix, str]]:
        """Up to two addresses, of endpoints first."""
        universe = self.universe
        inside = 0
        for each in universe.endpoints:
            inside |= each
        found: list[tuple[Prefix, str]] = []
        for part in (mask & inside, mask & ~inside):
            while part and len(found) < 2:
                number = lowest_of(part)
                part ^= 1 << number
                units = universe.units[number][:2]
                found += [(unit.address, self._name(unit.endpoint)) for unit in units] or [(universe.examples[number], "outside")]
        return found[:2]

    def _counted(self, mask: Mask) -> str:
        names = sorted({self._name(unit.endpoint) for number in numbers_of(mask) for unit in self.universe.units[number]})
        if names:
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            return f"{len(names)} endpoint{'s' if len(names) > 1 else ''} ({shown})"
        return f"addresses such as {self.universe.examples[lowest_of(mask)].address}"

    def _name(self, key: ResourceKey) -> str:
        value, _ = self.resources.get(key, (None, 0))
        return workload_name(value) if isinstance(value, WorkloadEndpoint) else key.name

    def _know(self, mask: Mask, name: str) -> None:
        """The name is that of the mask, and of its part in each family: flows are of one."""
        for part in (mask, *(mask & own for own in self.universe.families.values())):
            if part not in self._known or len(name) < len(self._known[part]):
                self._known[part] = name

    def _label_masks(self) -> dict[Pair, Mask]:
        """Of the labels that several endpoints have, those that all endpoints of a class share."""
        labels: dict[ResourceKey, tuple[Iterable[Pair], ...]] = {}
        origins: dict[Origin, tuple[Pair, ...]] = {}
        for key, (value, _) in self.resources.items():
            if isinstance(value, WorkloadEndpoint) and isinstance(key, ResourceKey):
                labels[key] = _pairs_of(key, value, origins)
        self._bearers = bearers = Counter(chain.from_iterable(chain.from_iterable(labels.values())))
        numbers: dict[Pair, list[int]] = defaultdict(list)
        partial: set[Pair] = set()
        for number, units in enumerate(self.universe.units):
            if len(units) == 1:
                for pair in chain.from_iterable(labels.get(units[0].endpoint, ())):
                    numbers[pair].append(number)
                continue
            of_class = Counter(chain.from_iterable(chain.from_iterable([labels.get(unit.endpoint, ()) for unit in units])))
            for pair, count in of_class.items():
                if count == len(units):
                    numbers[pair].append(number)
                else:
                    partial.add(pair)
        return {pair: mask_of(having, self.universe.size) for pair, having in numbers.items() if bearers[pair] > 1 and pair not in partial}

    def _host_masks(self) -> dict[str, Mask]:
        """The addresses of each host that is one in every state."""
        found: dict[str, Mask] = {}
        for here in self.universe.residents:
            for host, residents in here.items():
                found[host] = found.get(host, 0) | residents.own
        return {host: mask for host, mask in found.items() if mask}

    def _nets(self) -> Iterable[tuple[str, tuple[Prefix, ...]]]:
        for net in self.universe.named_nets:
            yield f"net {net}", (net,)
        for key, (value, _) in self.resources.items():
            if isinstance(value, NetworkSet | GlobalNetworkSet) and isinstance(key, ResourceKey):
                nets = tuple(readable(value.spec.nets))
                if nets and self.universe.told_apart.issuperset(nets):
                    yield f"network set {key.name}", nets

    def _covered(self, nets: tuple[Prefix, ...]) -> Mask:
        """Classes outside of which the example is in one of the nets: where the universe tells the nets apart, all of each class is."""
        numbers: list[int] = []
        for net in nets:
            places, found = self._outside[net.family]
            numbers += found[bisect_left(places, net.value) : bisect_right(places, net.last)]
        return mask_of(numbers, self.universe.size)

    @cached_property
    def _outside(self) -> dict[int, tuple[list[int], list[int]]]:
        """Of each family, the examples of classes outside in ascending order, and the numbers of the classes."""
        universe = self.universe
        found = {}
        for family in universe.families:
            places = [
                (example.value, number)
                for number, example in enumerate(universe.examples)
                if example.family == family and not universe.units[number]
            ]
            places.sort()
            found[family] = ([value for value, _ in places], [number for _, number in places])
        return found


def _pairs_of(key: ResourceKey, endpoint: WorkloadEndpoint, origins: dict[Origin, tuple[Pair, ...]]) -> tuple[Iterable[Pair], ...]:
    """The endpoint's labels but the orchestrator's, in parts that cost nothing to keep; ``origins`` are those known of what they are."""
    labels = endpoint.metadata.labels
    if not labels.keys().isdisjoint(ORIGIN_KEYS):
        return ([pair for pair in endpoint_labels(key, endpoint).items() if pair[0] != ORCHESTRATOR],)
    origin = endpoint_origin(key, endpoint.spec)
    pairs = origins.get(origin)
    if pairs is None:
        found = zip(ORIGIN_KEYS, origin, strict=True)
        pairs = origins[origin] = tuple([pair for pair in found if pair[1] and pair[0] != ORCHESTRATOR])
    return (labels.items(), pairs)

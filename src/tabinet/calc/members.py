"""``MemberIndex``: the members of the sets that active rules name, kept right with every change.

In: endpoints and network sets (``put``, ``delete``), the labels of profiles, and which sets are wanted (``activate``,
``deactivate``). Out: members that come and go, told to a ``MemberSink``.

Members are counted, because two endpoints may share an address. Addresses are parsed when an active set first wants them: what no rule on
our hosts names is kept as it was read. A change of labels costs O(labels + sets that differ): classes of equal projections (see
``labels``) share one remembered answer. Activating sets costs their members, plus one pass over the label classes for keys never
asked for. Pure. A net that is no prefix is left out; the codec refuses such resources before they come here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tabinet.calc.labels import LabelClass, LabelIndex, Query
from tabinet.calc.messages import Member, PortMember, SetKind
from tabinet.calc.sieve import Sieve
from tabinet.calc.specs import SetSpec
from tabinet.lib.ip import Prefix, parse_prefix
from tabinet.model.keys import ResourceKey
from tabinet.model.protocols import parse_protocol
from tabinet.model.resources import EndpointPort, HostEndpointPort

Port = EndpointPort | HostEndpointPort

MEMO_LIMIT = 50_000
"""Remembered answers are forgotten beyond this many: labels that differ for every endpoint would fill the memory."""


class MemberSink(Protocol):
    """Whoever wants to know about members of active sets."""

    def on_member_added(self, set_id: str, member: Member) -> None: ...

    def on_member_removed(self, set_id: str, member: Member) -> None: ...


@dataclass(slots=True, eq=False)
class Carrier:
    """An endpoint or network set, as far as membership goes."""

    label_class: LabelClass
    nets: tuple[str, ...]
    ports: tuple[Port, ...]
    parsed: tuple[Prefix, ...] | None = None
    """``nets`` as prefixes, each once; None: not needed so far."""


@dataclass(slots=True, eq=False)
class ActiveSet:
    """A set that active rules name."""

    set_id: str
    spec: SetSpec
    query: Query
    members: dict[Member, int] = field(default_factory=dict)
    """With how many carriers bring each."""


Sets = tuple[ActiveSet, ...]


class MemberIndex:
    """Carriers by key, and the active sets that they are in."""

    __slots__ = ("_active", "_carriers", "_memo", "_sieve", "_sink", "labels")

    def __init__(self, labels: LabelIndex, sink: MemberSink) -> None:
        self.labels = labels
        self._sink = sink
        self._carriers: dict[ResourceKey, Carrier] = {}
        self._active: dict[str, ActiveSet] = {}
        self._sieve: Sieve[ActiveSet] = Sieve()
        self._memo: dict[tuple[tuple[str, str], ...], Sets] = {}

    # --- carriers ---------------------------------------------------------------------------------------------------

    def put(
        self, key: ResourceKey, own: dict[str, str], profiles: tuple[str, ...], nets: tuple[str, ...], ports: tuple[Port, ...]
    ) -> LabelClass:
        """The carrier has these labels, profiles, nets and ports now; gives its label class."""
        joined, new = self.labels.class_of(own, profiles)
        if new and self._active:
            joined.sets = self._match(joined)
        old = self._carriers.get(key)
        if old is None:
            carrier = self._carriers[key] = Carrier(joined, nets, ports)
            joined.carriers.add(carrier)
            for each in joined.sets:
                self._join(each, carrier)
        elif old.nets == nets and old.ports == ports:
            if old.label_class is not joined:
                left = self._move(old, joined)
                self._shift(old, left.sets, joined.sets)
        else:
            carrier = self._carriers[key] = Carrier(joined, nets, ports)
            joined.carriers.add(carrier)
            for each in joined.sets:
                self._join(each, carrier)
            self._remove(old)
        return joined

    def delete(self, key: ResourceKey) -> None:
        """The carrier is gone; nothing happens when it was not there."""
        old = self._carriers.pop(key, None)
        if old is not None:
            self._remove(old)

    def labels_of(self, key: ResourceKey) -> dict[str, str]:
        """The effective labels of a carrier. Read only."""
        return self._carriers[key].label_class.labels

    def set_profile(self, name: str, labels: dict[str, str]) -> list[LabelClass]:
        """The profile applies these labels now; gives the classes whose effective labels changed by that."""
        changed = self.labels.set_profile(name, labels)
        if self._active:
            for each in changed:
                before, each.sets = each.sets, self._match(each)
                for carrier in each.carriers:
                    self._shift(carrier, before, each.sets)
        return changed

    def _move(self, carrier: Carrier, to: LabelClass) -> LabelClass:
        left = carrier.label_class
        to.carriers.add(carrier)
        carrier.label_class = to
        left.carriers.discard(carrier)
        if not left.carriers:
            self.labels.drop(left)
        return left

    def _remove(self, carrier: Carrier) -> None:
        left = carrier.label_class
        for each in left.sets:
            self._leave(each, carrier)
        left.carriers.discard(carrier)
        if not left.carriers:
            self.labels.drop(left)

    # --- sets -------------------------------------------------------------------------------------------------------

    def activate(self, specs: Sequence[SetSpec]) -> list[ActiveSet]:
        """These sets, none of which is active, have their members from now on. The sink hears of later changes only."""
        activated = []
        for spec, query in zip(specs, self.labels.open([spec.selector for spec in specs]), strict=True):
            new = ActiveSet(spec.set_id, spec, query)
            for selected in self.labels.answer(query):
                selected.sets = (*selected.sets, new)
                for carrier in selected.carriers:
                    self._count(new, carrier)
            self._active[new.set_id] = new
            self._sieve.add(new, spec.selector.root)
            activated.append(new)
        self._memo.clear()
        return activated

    def deactivate(self, set_id: str) -> None:
        """The set, which is active, is forgotten."""
        old = self._active.pop(set_id)
        for selected in self.labels.answer(old.query):
            selected.sets = tuple([each for each in selected.sets if each is not old])
        self.labels.close(old.query)
        self._sieve.discard(old)
        self._memo.clear()

    def _match(self, of: LabelClass) -> Sets:
        """The active sets whose selectors match the class."""
        projection = self.labels.projection(of)
        found = self._memo.get(projection)
        if found is None:
            labels = of.labels
            found = tuple([each for each in self._sieve.candidates(labels) if each.spec.selector.evaluate(labels)])
            if len(self._memo) >= MEMO_LIMIT:
                self._memo.clear()
            self._memo[projection] = found
        return found

    # --- members ----------------------------------------------------------------------------------------------------

    def _shift(self, carrier: Carrier, before: Sets, after: Sets) -> None:
        """The carrier is in the sets ``after`` now. Joins come first, so that a member that stays is not told about."""
        if before is after:
            return
        old, new = set(before), set(after)
        for each in after:
            if each not in old:
                self._join(each, carrier)
        for each in before:
            if each not in new:
                self._leave(each, carrier)

    def _count(self, joined: ActiveSet, carrier: Carrier) -> None:
        members = joined.members
        for member in _brought(joined.spec, carrier):
            members[member] = members.get(member, 0) + 1

    def _join(self, joined: ActiveSet, carrier: Carrier) -> None:
        members = joined.members
        for member in _brought(joined.spec, carrier):
            count = members.get(member, 0)
            members[member] = count + 1
            if not count:
                self._sink.on_member_added(joined.set_id, member)

    def _leave(self, left: ActiveSet, carrier: Carrier) -> None:
        members = left.members
        for member in _brought(left.spec, carrier):
            count = members[member] - 1
            if count:
                members[member] = count
            else:
                del members[member]
                self._sink.on_member_removed(left.set_id, member)


def _brought(spec: SetSpec, carrier: Carrier) -> Sequence[Member]:
    """The members that the carrier brings to a set, each once."""
    prefixes = carrier.parsed
    if prefixes is None:
        prefixes = carrier.parsed = tuple(dict.fromkeys(_prefixes(carrier.nets)))
    if spec.kind is SetKind.NETS:
        return prefixes
    return [PortMember(address, spec.protocol, port) for port in dict.fromkeys(_port_numbers(spec, carrier.ports)) for address in prefixes]


def _prefixes(texts: tuple[str, ...]) -> Iterator[Prefix]:
    for text in texts:
        try:
            yield parse_prefix(text)
        except ValueError:
            continue


def _port_numbers(spec: SetSpec, ports: tuple[Port, ...]) -> Iterator[int]:
    for port in ports:
        if port.name == spec.port_name and _has_protocol(port, spec.protocol):
            yield port.port


def _has_protocol(port: Port, protocol: int) -> bool:
    try:
        return parse_protocol(port.protocol) == protocol
    except ValueError:
        return False

"""``MemberIndex``: the members of the sets that active rules name, kept right with every change.

In: endpoints and network sets (``put``, ``delete``), the labels of profiles, and which sets are wanted (``activate``,
``deactivate``). Out: members that come and go, told to a ``MemberSink``.

Members are counted, because two endpoints may share an address. Addresses are parsed when an active set first wants them: what no rule on
our hosts names is kept as it was read. A change of labels costs O(labels asked for + sets that differ).

What touches many carriers is only noted, and done in pieces by ``settle``: placing carriers anew after a new label key or a profile's
change, filling a set that became active, forgetting one that did, reading the nets of a large network set. Meanwhile every change is still
followed: a set is filled class by class; a class that holds the set in ``sets`` has been counted, except for the carriers that the set
still has ``pending``. A set that is not ``live`` hears nothing.

Pure. A net that is no prefix is left out; the codec refuses such resources before they come here.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tabinet.calc import few
from tabinet.calc.carriers import Carrier, LabelClass, Origin, Port
from tabinet.calc.endpoints import readable
from tabinet.calc.labels import LabelIndex
from tabinet.calc.messages import Member, PortMember, SetKind
from tabinet.calc.sieve import Sieve
from tabinet.calc.specs import SetSpec
from tabinet.lib.ip import Prefix, parse_prefix
from tabinet.model.keys import ResourceKey
from tabinet.model.protocols import parse_protocol

STEPS = 16
"""Classes visited or members counted for one unit of work: some 25 microseconds."""
PLACING = 4
"""Steps that it takes to place a carrier, or to look at its ports."""
PART = 1_000
"""A network set with more nets than this is taken in part by part, so that no piece of work is long."""


class MemberSink(Protocol):
    """Whoever wants to know about members of active sets."""

    def on_member_added(self, set_id: str, member: Member) -> None: ...

    def on_member_removed(self, set_id: str, member: Member) -> None: ...


@dataclass(slots=True, eq=False)
class ActiveSet:
    """A set that active rules name."""

    set_id: str
    spec: SetSpec
    members: Counter[Member] = field(default_factory=Counter)
    """With how many carriers bring each."""
    live: bool = True
    classes: list[LabelClass] = field(default_factory=list)
    """Classes that it selects and that have not been visited."""
    pending: set[Carrier] = field(default_factory=set)
    """Carriers of classes that were visited, which have not been counted."""


Sets = tuple[ActiveSet, ...]
Place = ResourceKey | tuple[ResourceKey, int]
"""A resource, or a further part of a large one."""


@dataclass(slots=True)
class _Part:
    """A part of a large carrier that has not been taken in."""

    origin: Origin
    labels: dict[str, str]
    profiles: tuple[str, ...]
    nets: tuple[str, ...]


class MemberIndex:
    """Carriers, and the active sets that they are in."""

    __slots__ = (
        "_active",
        "_carriers",
        "_filling",
        "_forgetting",
        "_labels",
        "_large",
        "_part",
        "_sieve",
        "_sink",
        "_steps",
        "_unread",
        "_waiting",
    )

    def __init__(self, labels: LabelIndex, sink: MemberSink, steps: int = STEPS, part: int = PART) -> None:
        self._labels = labels
        self._sink = sink
        self._steps = steps
        self._part = part
        self._carriers: dict[Place, Carrier] = {}
        self._large: dict[ResourceKey, int] = {}
        """Resources in several parts, with how many."""
        self._unread: dict[Place, _Part | None] = {}
        """Parts to be taken in; None: to be removed."""
        self._active: dict[str, ActiveSet] = {}
        self._sieve: Sieve[ActiveSet] = Sieve()
        """The active sets that are being filled or full."""
        self._waiting: dict[str, ActiveSet] = {}
        """Active sets that wait for the carriers to be placed by the labels that they ask for."""
        self._filling: ActiveSet | None = None
        self._forgetting: deque[ActiveSet] = deque()
        """Sets that are not active any more, which classes may still hold."""

    # --- carriers ---------------------------------------------------------------------------------------------------

    def put(
        self,
        key: ResourceKey,
        origin: Origin,
        labels: dict[str, str],
        profiles: tuple[str, ...],
        nets: tuple[str, ...],
        ports: tuple[Port, ...] = (),
    ) -> None:
        """The endpoint has these labels, profiles, nets and ports now. Its nets are taken in at once: there are few."""
        self._put(key, origin, labels, profiles, nets, ports)

    def put_network_set(
        self, key: ResourceKey, origin: Origin, labels: dict[str, str], profiles: tuple[str, ...], nets: tuple[str, ...]
    ) -> None:
        """The network set has these labels, profiles and nets now; a large one once it is settled."""
        if len(nets) > self._part or key in self._large:
            self._put_large(key, origin, labels, profiles, nets)
            return
        self._unread.pop(key, None)
        self._put(key, origin, labels, profiles, nets, ())

    def _put(
        self,
        place: Place,
        origin: Origin,
        labels: dict[str, str],
        profiles: tuple[str, ...],
        nets: tuple[str, ...],
        ports: tuple[Port, ...],
    ) -> None:
        old = self._carriers.get(place)
        if old is not None and old.nets == nets and old.ports == ports:
            self._labels.change(old, origin, labels, profiles)
            self._move(old)
            return
        carrier = self._carriers[place] = self._labels.enter(origin, labels, profiles, nets, ports)
        joined = carrier.label_class
        if joined.carriers is carrier:
            joined.sets = self._match(joined)
        for each in joined.sets:
            self._join(each, carrier)
        if old is not None:
            # After the new one, so that a member that stays is not told about.
            self._remove(old)

    def _put_large(
        self, key: ResourceKey, origin: Origin, labels: dict[str, str], profiles: tuple[str, ...], nets: tuple[str, ...]
    ) -> None:
        part = self._part
        count = max(1, -(-len(nets) // part))
        for number in range(count):
            self._unread[_place(key, number)] = _Part(origin, labels, profiles, nets[number * part : (number + 1) * part])
        for number in range(count, self._large.get(key, 0)):
            self._unread[_place(key, number)] = None
        self._large[key] = count

    def delete(self, key: ResourceKey) -> None:
        """The carrier is gone; nothing happens when it was not there."""
        if key in self._large:
            for number in range(self._large.pop(key)):
                self._unread[_place(key, number)] = None
            return
        old = self._carriers.pop(key, None)
        if old is not None:
            self._remove(old)

    def set_profile(self, name: str, labels: dict[str, str]) -> None:
        """The profile applies these labels now."""
        self._labels.set_profile(name, labels)

    def labels_of(self, key: ResourceKey) -> dict[str, str]:
        """All labels of an endpoint, own and inherited."""
        return self._labels.effective(self._carriers[key])

    def _move(self, carrier: Carrier) -> None:
        left = self._labels.place(carrier)
        if left is None:
            return
        joined = carrier.label_class
        if joined.carriers is carrier:
            joined.sets = self._match(joined)
        before, after = left.sets, joined.sets
        if before == after:
            return
        old, new = set(before), set(after)
        # Joins come first, so that a member that stays is not told about.
        for each in after:
            if each not in old:
                self._join(each, carrier)
        for each in before:
            if each not in new:
                self._leave(each, carrier)

    def _remove(self, carrier: Carrier) -> None:
        for each in carrier.label_class.sets:
            self._leave(each, carrier)
        self._labels.exit(carrier)

    # --- sets -------------------------------------------------------------------------------------------------------

    def activate(self, specs: Sequence[SetSpec]) -> list[ActiveSet]:
        """These sets, none of which is active, have all their members once ``settle`` has nothing left to do."""
        activated = [ActiveSet(spec.set_id, spec) for spec in specs]
        self._labels.ask([spec.selector for spec in specs])
        for new in activated:
            self._active[new.set_id] = self._waiting[new.set_id] = new
        return activated

    def deactivate(self, set_id: str) -> None:
        """The set, which is active, is not any more."""
        old = self._active.pop(set_id)
        if self._waiting.pop(set_id, None) is not None:
            self._labels.unask(old.spec.selector)
            return
        old.live = False
        self._sieve.discard(old)
        if self._filling is old:
            self._filling = None
        old.classes, old.pending = [], set()
        self._forgetting.append(old)

    def _match(self, of: LabelClass) -> Sets:
        """The active sets whose selectors match a new class."""
        labels = of.labels
        return tuple([each for each in self._sieve.candidates(labels) if each.spec.selector.evaluate(labels)])

    # --- in pieces --------------------------------------------------------------------------------------------------

    def settle(self, limit: int) -> int:
        """Up to ``limit`` units of what was noted are done; gives how many. Less than ``limit``: nothing is left."""
        room = limit * self._steps
        used = 0
        while used < room:
            if self._unread:
                used += self._read_part()
            elif not self._labels.settled:
                used += self._place_stale(min(room - used, self._part) // PLACING + 1)
            elif self._filling is not None or self._waiting:
                used += self._fill(room - used)
            elif self._forgetting:
                used += self._forget(room - used)
            else:
                break
        return -(-used // self._steps)

    def _read_part(self) -> int:
        place = next(iter(self._unread))
        part = self._unread.pop(place)
        old = self._carriers.get(place)
        if part is not None:
            self._put(place, part.origin, part.labels, part.profiles, part.nets, ())
        elif old is not None:
            del self._carriers[place]
            self._remove(old)
        return self._part

    def _place_stale(self, limit: int) -> int:
        stale = self._labels.stale(limit)
        for carrier in stale:
            if self._labels.is_in(carrier):
                self._move(carrier)
        return PLACING * len(stale) + 1

    def _fill(self, room: int) -> int:
        """Members are counted, of the set that is being filled or of the next one."""
        new = self._filling
        if new is None:
            new = self._filling = self._waiting.pop(next(iter(self._waiting)))
            new.classes = self._labels.answer(new.spec.selector)
            self._sieve.add(new, new.spec.selector.root)
        used = 1
        while used < room and (new.pending or new.classes):
            chosen = self._next_carriers(new, min(room - used, self._part // PLACING + 1))
            brought: Sequence[Member]
            if new.spec.kind is SetKind.NETS:
                brought = [prefix for carrier in chosen for prefix in carrier.parsed or _parse(carrier)]
            else:
                brought = [member for carrier in chosen for member in _brought(new.spec, carrier)]
                # Most have no such port; looking takes its time all the same.
                used += PLACING * len(chosen)
            new.members.update(brought)
            used += len(brought) + 1
        if not (new.pending or new.classes):
            self._filling = None
        return used

    def _next_carriers(self, new: ActiveSet, room: int) -> list[Carrier]:
        """Carriers to be counted, with about ``room`` nets; none when the next classes have too many, which are ``pending`` then."""
        chosen: list[Carrier] = []
        if new.pending:
            while new.pending and room > 0:
                carrier = new.pending.pop()
                chosen.append(carrier)
                room -= len(carrier.nets)
            return chosen
        while new.classes and room > 0:
            selected = new.classes.pop()
            selected.sets = (*selected.sets, new)
            chosen.extend(few.each(selected.carriers))
            room -= 1 + few.size(selected.carriers)
        if len(chosen) > self._part or sum([len(carrier.nets) for carrier in chosen]) > self._part:
            new.pending = set(chosen)
            return []
        return chosen

    def _forget(self, room: int) -> int:
        old = self._forgetting[0]
        if old.members or not old.classes:
            old.members = Counter()
            old.classes = self._labels.answer(old.spec.selector)
        visited = min(room, len(old.classes))
        for _ in range(visited):
            selected = old.classes.pop()
            selected.sets = tuple([each for each in selected.sets if each is not old])
        if not old.classes:
            self._forgetting.popleft()
            self._labels.unask(old.spec.selector)
        return visited + 1

    # --- members ----------------------------------------------------------------------------------------------------

    def _join(self, joined: ActiveSet, carrier: Carrier) -> None:
        if not joined.live:
            return
        members = joined.members
        for member in _brought(joined.spec, carrier):
            count = members.get(member, 0)
            members[member] = count + 1
            if not count:
                self._sink.on_member_added(joined.set_id, member)

    def _leave(self, left: ActiveSet, carrier: Carrier) -> None:
        if not left.live:
            return
        if carrier in left.pending:
            left.pending.discard(carrier)
            return
        members = left.members
        for member in _brought(left.spec, carrier):
            count = members[member] - 1
            if count:
                members[member] = count
            else:
                members.pop(member)
                self._sink.on_member_removed(left.set_id, member)


def _place(key: ResourceKey, number: int) -> Place:
    return (key, number) if number else key


def _brought(spec: SetSpec, carrier: Carrier) -> Sequence[Member]:
    """The members that the carrier brings to a set, each once."""
    prefixes = carrier.parsed or _parse(carrier)
    if spec.kind is SetKind.NETS:
        return prefixes
    return [PortMember(address, spec.protocol, port) for port in dict.fromkeys(_port_numbers(spec, carrier.ports)) for address in prefixes]


def _parse(carrier: Carrier) -> tuple[Prefix, ...]:
    """Those of the carrier's nets that are prefixes, each once."""
    texts = carrier.nets
    try:
        if len(texts) == 1:
            carrier.parsed = (parse_prefix(texts[0]),)
        else:
            carrier.parsed = tuple(dict.fromkeys([parse_prefix(text) for text in texts]))
    except ValueError:
        carrier.parsed = tuple(dict.fromkeys(readable(texts)))
    return carrier.parsed


def _port_numbers(spec: SetSpec, ports: tuple[Port, ...]) -> Iterator[int]:
    for port in ports:
        if port.name == spec.port_name and _has_protocol(port, spec.protocol):
            yield port.port


def _has_protocol(port: Port, protocol: int) -> bool:
    try:
        return parse_protocol(port.protocol) == protocol
    except ValueError:
        return False

"""``LabelIndex``: who carries which labels, and which of them a selector means.

A selector that is in use asks for label keys. Carriers are grouped in *label classes* by what they have under all keys asked for, own and
inherited labels together, and by nothing else: of a hundred thousand endpoints the labels that no rule looks at cost nothing, and
a thousand replicas cost as much as one. ``classes`` answers selectors.

A carrier has, in this order: what it is by itself (``Origin``), its own labels, then those that its profiles apply (of several profiles
the first that has the label).

When a key is asked for the first time, or the labels of a profile change, the carriers that have to do with it must change their classes.
That is not done at once: ``stale`` hands them out some at a time, and whoever moves them (``members``) calls ``place`` for each. Until
then answers lack the new key; ``settled`` says when they are right. Keys out of use are kept for a while, for they come back.

Costs: a change O(labels of the carrier that are asked for); a key that is new O(carriers that have it), in pieces. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from sys import intern
from typing import TypeVar

from tabinet.calc import few
from tabinet.calc.carriers import ORIGIN_KEYS, Carrier, Heritage, LabelClass, Origin, Port, Shape
from tabinet.calc.classes import NARROW, ClassIndex
from tabinet.calc.few import Few
from tabinet.lib.refcount import RefCounter
from tabinet.selector import Selector

IDLE_KEYS = 64
"""How many keys that nobody asks for are kept."""
SAMPLE = 64
"""So many carriers of a shape show which values come again."""
MAX_TEXTS = 100_000
"""Most values that are looked out for."""


@dataclass(slots=True)
class _Profile:
    labels: dict[str, str]
    heritages: Few[Heritage] = None


class LabelIndex:
    """Carriers by shape, heritage and class."""

    __slots__ = (
        "_asked",
        "_classes",
        "_heritages",
        "_idle",
        "_idle_keys",
        "_origin",
        "_profiles",
        "_profiles_by_keys",
        "_projected",
        "_shapes",
        "_shapes_by_key",
        "_stale",
        "_texts",
        "_version",
    )

    def __init__(self, narrow: int = NARROW, idle_keys: int = IDLE_KEYS) -> None:
        self._classes = ClassIndex(narrow)
        self._idle_keys = idle_keys
        self._shapes: dict[tuple[str, ...], Shape] = {}
        self._shapes_by_key: dict[str, set[Shape]] = {}
        self._heritages: dict[tuple[str, ...], Heritage] = {}
        self._profiles: dict[str, _Profile] = {}
        self._profiles_by_keys: dict[tuple[str, ...], dict[str, None]] = {}
        """Names of profiles by the keys of the labels that they apply: there are few such tuples."""
        self._asked: RefCounter[str] = RefCounter()
        """By key: how many selectors ask for it."""
        self._idle: dict[str, None] = {}
        """Keys that classes go by though nobody asks for them, the longest unused first."""
        self._projected: set[str] = set()
        """The keys that classes go by: those asked for, and the idle ones."""
        self._origin: tuple[tuple[str, int], ...] = ()
        """Those of them that are of the origin, with their places there."""
        self._version = 1
        """Changes whenever ``_projected`` does."""
        self._stale: deque[Iterator[Carrier]] = deque()
        self._texts: dict[str, str] = {}
        """Values that the first carriers of each shape have."""

    # --- carriers ---------------------------------------------------------------------------------------------------

    def enter(
        self, origin: Origin, labels: dict[str, str], profiles: tuple[str, ...], nets: tuple[str, ...], ports: tuple[Port, ...]
    ) -> Carrier:
        """A new carrier, in its class."""
        shape, heritage = self._shape(labels), self._heritage(profiles)
        values = self._values(shape, labels)
        carrier = Carrier(origin, values, nets, ports, shape, heritage, self._class_of(origin, values, shape, heritage))
        shape.carriers.add(carrier)
        heritage.carriers = few.add(heritage.carriers, carrier)
        joined = carrier.label_class
        joined.carriers = few.add(joined.carriers, carrier)
        return carrier

    def change(self, carrier: Carrier, origin: Origin, labels: dict[str, str], profiles: tuple[str, ...]) -> None:
        """The carrier has these labels now. Its class is right after the next ``place``."""
        shape = self._shape(labels)
        carrier.origin = origin
        carrier.values = self._values(shape, labels)
        if shape is not carrier.shape:
            self._leave_shape(carrier)
            shape.carriers.add(carrier)
            carrier.shape = shape
        if profiles != carrier.heritage.profiles:
            heritage = self._heritage(profiles)
            self._leave_heritage(carrier)
            heritage.carriers = few.add(heritage.carriers, carrier)
            carrier.heritage = heritage

    def place(self, carrier: Carrier) -> LabelClass | None:
        """The carrier is in the class that its labels want; gives the one that it left, None where it stays."""
        left = carrier.label_class
        wanted = self._class_of(carrier.origin, carrier.values, carrier.shape, carrier.heritage)
        if wanted is left:
            return None
        carriers = wanted.carriers
        if isinstance(carriers, set):
            # As few.add does; this is where large fabrics spend their time.
            carriers.add(carrier)
        else:
            wanted.carriers = few.add(carriers, carrier)
        carrier.label_class = wanted
        self._leave_class(left, carrier)
        return left

    def exit(self, carrier: Carrier) -> None:
        """The carrier is gone."""
        self._leave_shape(carrier)
        self._leave_heritage(carrier)
        self._leave_class(carrier.label_class, carrier)

    def effective(self, carrier: Carrier) -> dict[str, str]:
        """All labels of the carrier, own and inherited."""
        labels: dict[str, str] = {}
        for name in reversed(carrier.heritage.profiles):
            labels |= self._profiles[name].labels
        labels.update(zip(carrier.shape.keys, carrier.values, strict=True))
        for key, value in zip(ORIGIN_KEYS, carrier.origin, strict=True):
            if value:
                labels[key] = value
        return labels

    def set_profile(self, name: str, labels: dict[str, str]) -> None:
        """The profile applies these labels from now on; carriers whose class that changes are ``stale``."""
        profile = self._profiles.get(name)
        if profile is None:
            if labels:
                self._profiles[name] = _Profile(labels)
                self._file_profile(name, labels)
            return
        old, profile.labels = profile.labels, labels
        if old == labels:
            return
        self._unfile_profile(name, old)
        self._file_profile(name, labels)
        heritages: list[Heritage] = list(few.each(profile.heritages))
        for heritage in heritages:
            heritage.version = 0
        # Also by keys that classes only still have: who loses such a label would not be found by it any more. And while keys are being
        # followed, a profile that is filed elsewhere may be where they have been looked for already.
        moved = not self.settled and tuple(old) != tuple(labels)
        if moved or any(old.get(key) != labels.get(key) for key in (*old, *labels) if self._classes.knows(key)):
            self._stale.append(_carriers_of(heritages))
        if not labels and profile.heritages is None:
            del self._profiles[name]

    def _file_profile(self, name: str, labels: dict[str, str]) -> None:
        if labels:
            self._profiles_by_keys.setdefault(tuple(labels), {})[name] = None

    def _unfile_profile(self, name: str, labels: dict[str, str]) -> None:
        if labels:
            keys = tuple(labels)
            alike = self._profiles_by_keys[keys]
            del alike[name]
            if not alike:
                del self._profiles_by_keys[keys]

    def _values(self, shape: Shape, labels: dict[str, str]) -> tuple[str, ...]:
        """The values; those that are likely to come again are the same objects each time."""
        texts = self._texts
        if len(shape.carriers) < SAMPLE and len(texts) < MAX_TEXTS:
            for value in labels.values():
                texts.setdefault(value, value)
        values = labels.values()
        return tuple(map(texts.get, values, values))

    def _shape(self, labels: dict[str, str]) -> Shape:
        keys = tuple(labels)
        shape = self._shapes.get(keys)
        if shape is None:
            keys = tuple(map(intern, keys))
            shape = self._shapes[keys] = Shape(keys)
            for key in keys:
                self._shapes_by_key.setdefault(key, set()).add(shape)
        return shape

    def _leave_shape(self, carrier: Carrier) -> None:
        shape = carrier.shape
        shape.carriers.discard(carrier)
        if not shape.carriers:
            del self._shapes[shape.keys]
            for key in shape.keys:
                _discard(self._shapes_by_key, key, shape)

    def _heritage(self, profiles: tuple[str, ...]) -> Heritage:
        heritage = self._heritages.get(profiles)
        if heritage is None:
            heritage = self._heritages[profiles] = Heritage(profiles)
            for name in profiles:
                profile = self._profiles.get(name)
                if profile is None:
                    profile = self._profiles[name] = _Profile({})
                profile.heritages = few.add(profile.heritages, heritage)
        return heritage

    def _leave_heritage(self, carrier: Carrier) -> None:
        heritage = carrier.heritage
        heritage.carriers = few.remove(heritage.carriers, carrier)
        if heritage.carriers is None:
            del self._heritages[heritage.profiles]
            for name in dict.fromkeys(heritage.profiles):
                profile = self._profiles[name]
                profile.heritages = few.remove(profile.heritages, heritage)
                if profile.heritages is None and not profile.labels:
                    del self._profiles[name]

    # --- classes ----------------------------------------------------------------------------------------------------

    def _class_of(self, origin: Origin, values: tuple[str, ...], shape: Shape, heritage: Heritage) -> LabelClass:
        if not self._projected:
            return self._classes.get(())
        if shape.version != self._version:
            # In the order of the keys, so that shapes that agree in these share classes.
            shape.projected = tuple(sorted([(key, place) for place, key in enumerate(shape.keys) if key in self._projected]))
            shape.names = tuple([key for key, _ in shape.projected])
            shape.version = self._version
        if heritage.version != self._version:
            self._refresh(heritage)
        if self._origin or heritage.projected:
            labels = {key: values[place] for key, place in shape.projected}
            for key, place in self._origin:
                if origin[place]:
                    labels[key] = origin[place]
            for key, value in heritage.projected:
                if key not in labels:
                    labels[key] = value
            identity = (*labels, *labels.values())
        else:
            identity = (*shape.names, *[values[place] for _, place in shape.projected])
        return self._classes.get(identity)

    def _refresh(self, heritage: Heritage) -> None:
        inherited: dict[str, str] = {}
        for name in heritage.profiles:
            for key, value in self._profiles[name].labels.items():
                if key in self._projected:
                    inherited.setdefault(key, value)
        heritage.projected = tuple(inherited.items())
        heritage.version = self._version

    def _leave_class(self, left: LabelClass, carrier: Carrier) -> None:
        left.carriers = few.remove(left.carriers, carrier)
        if left.carriers is None:
            self._classes.drop(left)

    # --- selectors in use -------------------------------------------------------------------------------------------

    def ask(self, selectors: Iterable[Selector]) -> None:
        """These selectors are in use, each until ``unask``; answers are right once ``settled``. Cheaper for many at once."""
        new: list[str] = []
        for selector in selectors:
            for key in selector.keys:
                self._asked.add(key)
                self._idle.pop(key, None)
                if key not in self._projected:
                    self._projected.add(key)
                    new.append(key)
        if new:
            for key in new:
                self._classes.need(key)
            self._on_projection(new)

    def unask(self, selector: Selector) -> None:
        """The selector is not in use any more."""
        for key in selector.keys:
            if self._asked.drop(key):
                self._idle[key] = None
        dropped: list[str] = []
        while len(self._idle) > self._idle_keys:
            key = next(iter(self._idle))
            del self._idle[key]
            self._projected.discard(key)
            self._classes.release(key)
            dropped.append(key)
        if dropped:
            self._on_projection(dropped)

    def _on_projection(self, changed: list[str]) -> None:
        self._version += 1
        self._origin = tuple([(key, place) for place, key in enumerate(ORIGIN_KEYS) if key in self._projected])
        self._stale.append(self._carriers_with(changed))

    def _carriers_with(self, keys: list[str]) -> Iterator[Carrier]:
        """The carriers that have one of these labels, some of them several times. May be consumed while carriers come and go."""
        wanted = set(keys)
        if not wanted.isdisjoint(ORIGIN_KEYS):
            yield from _carriers_of(list(self._shapes.values()))
            return
        shapes = {shape for key in keys for shape in self._shapes_by_key.get(key, ())}
        yield from _carriers_of(list(shapes))
        for alike in [alike for applied, alike in self._profiles_by_keys.items() if not wanted.isdisjoint(applied)]:
            for name in list(alike):
                profile = self._profiles.get(name)
                heritages: list[Heritage] = [] if profile is None else list(few.each(profile.heritages))
                yield from _carriers_of(heritages)

    def answer(self, selector: Selector) -> list[LabelClass]:
        """The classes that a selector in use matches."""
        return self._classes.answer(selector)

    @property
    def settled(self) -> bool:
        """True when every carrier is in the class that its labels want."""
        return not self._stale

    def stale(self, limit: int) -> list[Carrier]:
        """Up to ``limit`` carriers that have to be placed anew; some may have gone meanwhile (see ``is_in``)."""
        chosen: list[Carrier] = []
        while self._stale and len(chosen) < limit:
            chosen.extend(islice(self._stale[0], limit - len(chosen)))
            if len(chosen) < limit:
                self._stale.popleft()
        return chosen

    def is_in(self, carrier: Carrier) -> bool:
        """False once the carrier is gone."""
        return carrier in carrier.shape.carriers


def _carriers_of(groups: Iterable[Shape | Heritage]) -> Iterator[Carrier]:
    for group in groups:
        yield from list(few.each(group.carriers))


K = TypeVar("K")
V = TypeVar("V")


def _discard(index: dict[K, set[V]], key: K, value: V) -> None:
    values = index[key]
    values.discard(value)
    if not values:
        del index[key]

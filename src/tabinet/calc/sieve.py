"""``Sieve``: from labels to the selectors that may match them, without trying all selectors.

Each selector is filed under one label that it restricts (see ``selector.restrictions``): under the label's values if it names
them, else under the key; of several, where the fewest are so far, so that what all share (a namespace) does not become a list of
everything. Labels are then judged only by the selectors that are filed under one of them, plus those that restrict nothing.
Asking costs O(labels + candidates). Pure.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from tabinet.selector import Node, restrictions

T = TypeVar("T")


class Sieve(Generic[T]):
    """Things with selectors, filed by what their selectors demand."""

    __slots__ = ("_by_key", "_by_value", "_places", "_rest")

    def __init__(self) -> None:
        self._by_value: dict[tuple[str, str], dict[T, None]] = {}
        self._by_key: dict[str, dict[T, None]] = {}
        self._rest: dict[T, None] = {}
        self._places: dict[T, tuple[tuple[str, str], ...] | str | None] = {}

    def add(self, thing: T, root: Node) -> None:
        """``thing`` is a candidate for labels that keep the restrictions of ``root``; for none when that is impossible."""
        best_key, best_size = "", -1
        best_values: tuple[str, ...] = ()
        for key, restriction in restrictions(root).items():
            if not restriction.possible:
                self._places[thing] = ()
                return
            if not restriction.present:
                continue
            values = () if restriction.values is None else tuple(restriction.values)
            if values:
                size = sum([len(self._by_value.get((key, value), ())) for value in values])
            else:
                size = len(self._by_key.get(key, ()))
            # Among places with as few things in them, one with values is asked less often.
            if best_size < 0 or (size, not values) < (best_size, not best_values):
                best_key, best_values, best_size = key, values, size
        if best_size < 0:
            self._rest[thing] = None
            self._places[thing] = None
        elif best_values:
            places = tuple((best_key, value) for value in best_values)
            for place in places:
                self._by_value.setdefault(place, {})[thing] = None
            self._places[thing] = places
        else:
            self._by_key.setdefault(best_key, {})[thing] = None
            self._places[thing] = best_key

    def discard(self, thing: T) -> None:
        """``thing`` is no candidate any more."""
        places = self._places.pop(thing, ())
        if places is None:
            del self._rest[thing]
        elif isinstance(places, str):
            _remove(self._by_key, places, thing)
        else:
            for place in places:
                _remove(self._by_value, place, thing)

    def candidates(self, labels: dict[str, str]) -> list[T]:
        """Everything whose selector may match these labels, each once."""
        found = list(self._rest)
        for pair in labels.items():
            # Each thing is filed under one key, and a key has one value, so nothing comes twice.
            by_value = self._by_value.get(pair)
            if by_value is not None:
                found.extend(by_value)
            by_key = self._by_key.get(pair[0])
            if by_key is not None:
                found.extend(by_key)
        return found


K = TypeVar("K")


def _remove(index: dict[K, dict[T, None]], place: K, thing: T) -> None:
    things = index[place]
    del things[thing]
    if not things:
        del index[place]

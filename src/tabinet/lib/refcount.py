"""RefCounter: how many users each key has, and when the first came and the last went.

For members that several owners share: an address that two endpoints carry is in a set once, and leaves it with the last of them. O(1) in
everything. Pure; not thread-safe.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

K = TypeVar("K")


class RefCounter(Generic[K]):
    """Counts of keys; a key with count zero is not there."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[K, int] = {}

    def add(self, key: K) -> bool:
        """One more user of ``key``; True when it is the first."""
        count = self._counts.get(key, 0)
        self._counts[key] = count + 1
        return count == 0

    def drop(self, key: K) -> bool:
        """One user of ``key`` less; True when it was the last.

        Raises:
            KeyError: it had none.
        """
        count = self._counts[key]
        if count > 1:
            self._counts[key] = count - 1
            return False
        del self._counts[key]
        return True

    def count(self, key: K) -> int:
        """How many users ``key`` has."""
        return self._counts.get(key, 0)

    def __contains__(self, key: K) -> bool:
        return key in self._counts

    def __len__(self) -> int:
        return len(self._counts)

    def __iter__(self) -> Iterator[K]:
        return iter(self._counts)

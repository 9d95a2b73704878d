"""DeltaTracker: what is wanted, what is there, and what therefore is left to do.

::

            desired                  actual
        +-------------+--------------------------+
        |  to add     |  same  |                 |
        |             |--------|   to delete     |
        |             | to     |                 |
        |             | change |                 |
        +-------------+--------+-----------------+
                      key in both

The tracker keeps both mappings and, all the time, the set of keys where they differ, so that asking for the pending work costs
what is pending, not what is tracked. Drivers tell it what is wanted (``set_desired``), what they read (``replace_actual``,
``set_actual``) and what they did (``set_actual`` again). Pure; not thread-safe. Values are compared with ``==``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class DeltaTracker(Generic[K, V]):
    """Desired and actual state of one kind of object, by key."""

    __slots__ = ("_pending", "actual", "desired")

    def __init__(self) -> None:
        self.desired: dict[K, V] = {}
        """What is wanted. Read only: change it with ``set_desired`` and ``drop_desired``."""
        self.actual: dict[K, V] = {}
        """What is there, as far as we know. Read only: change it with ``set_actual``, ``drop_actual``, ``replace_actual``."""
        self._pending: dict[K, None] = {}

    def set_desired(self, key: K, value: V) -> None:
        """``key`` is wanted with this value."""
        self.desired[key] = value
        self._judge(key)

    def drop_desired(self, key: K) -> None:
        """``key`` is not wanted."""
        self.desired.pop(key, None)
        self._judge(key)

    def set_actual(self, key: K, value: V) -> None:
        """``key`` is there with this value."""
        self.actual[key] = value
        self._judge(key)

    def drop_actual(self, key: K) -> None:
        """``key`` is not there."""
        self.actual.pop(key, None)
        self._judge(key)

    def replace_actual(self, actual: Mapping[K, V]) -> None:
        """All of what is there was read again. O(desired + actual)."""
        self.actual = dict(actual)
        self._pending = {}
        for key in self.desired.keys() | self.actual.keys():
            self._judge(key)

    def _judge(self, key: K) -> None:
        if key in self.desired:
            differs = key not in self.actual or self.actual[key] != self.desired[key]
        else:
            differs = key in self.actual
        if differs:
            self._pending[key] = None
        else:
            self._pending.pop(key, None)

    @property
    def in_sync(self) -> bool:
        """True when nothing is pending. O(1)."""
        return not self._pending

    def pending(self) -> list[K]:
        """Keys that differ, oldest first."""
        return list(self._pending)

    def to_set(self) -> Iterator[tuple[K, V]]:
        """What has to be added or changed, with the wanted value. Safe against changes while it runs."""
        for key in list(self._pending):
            if key in self.desired:
                yield key, self.desired[key]

    def to_delete(self) -> Iterator[tuple[K, V]]:
        """What has to go, with the value that is there. Safe against changes while it runs."""
        for key in list(self._pending):
            if key not in self.desired and key in self.actual:
                yield key, self.actual[key]

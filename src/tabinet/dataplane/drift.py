"""What somebody else changed in the kernel: one record for all kinds of objects, and how drivers tell it from their own doing."""

from __future__ import annotations

import enum
from typing import Generic, TypeVar

import msgspec

from tabinet.lib.delta import DeltaTracker

K = TypeVar("K")
V = TypeVar("V")


class DriftKind(enum.Enum):
    """Kinds of objects; the label of the metric."""

    TABLE = "table"
    """The table as a whole, or something of another make under one of our names."""
    CHAIN = "chain"
    """A chain and its rules."""
    SET = "set"
    """A set or map and its elements."""
    ROUTE = "route"
    LINK = "link"
    """An interface's state, addresses, permanent neighbours or sysctls; also the host's own."""
    BANDWIDTH = "bandwidth"


class Drift(msgspec.Struct, frozen=True, gc=False):
    """One object that was not as wanted."""

    kind: DriftKind
    name: str
    text: str
    """What was different, for people."""


class Ledger(Generic[K, V]):
    """What a driver has made so, by key: it tells what somebody else changed from what is merely new.

    O(pending) to ask, one entry for each object of ours.
    """

    __slots__ = ("_made", "complete")

    def __init__(self) -> None:
        self._made: dict[K, V] = {}
        self.complete = False
        """All that was there before us has been looked at: what is unknown from now on is somebody else's."""

    def made(self, key: K, value: V) -> None:
        """The object is as we want it, by our doing or because it was found so."""
        self._made[key] = value

    def forget(self, key: K) -> None:
        """The object is no concern of ours any more, or went for a reason that we know."""
        self._made.pop(key, None)

    def note(self, tracker: DeltaTracker[K, V]) -> None:
        """Everything that is as wanted now is known to be so. O(desired): for the first time, and after reading everything."""
        self._made = {key: value for key, value in tracker.desired.items() if tracker.actual.get(key) == value}
        self.complete = True

    def drifted(self, tracker: DeltaTracker[K, V]) -> list[tuple[K, str]]:
        """Keys that somebody else changed, with what they did, in words."""
        found = []
        for key, value in tracker.to_set():
            if self._made.get(key) == value:
                found.append((key, "is missing" if key not in tracker.actual else "was changed"))
        if self.complete:
            found += [(key, "is not ours") for key, _ in tracker.to_delete() if key not in self._made]
        return found

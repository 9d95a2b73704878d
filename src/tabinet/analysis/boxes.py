"""Sets of flows as boxes: these classes here, those peers, such packets.

A ``Box`` is (local classes, peer classes, header set) or, of a whole flow, (source classes, destination classes, header set). Lists of
boxes are unions; those that ``subtract`` makes are disjoint. Enumerating can grow beyond all measure where many broad rules overlap:
``TooMany`` then, at a budget, rather than a partial answer; ``OutOfTime`` when somebody's patience ends before. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tabinet.analysis.headers import EMPTY, HeaderSet, HeaderSpace
from tabinet.analysis.masks import Mask

Box = tuple[Mask, Mask, HeaderSet]


class TooMany(Exception):
    """More boxes than the budget: the set cannot be written down like this."""


class OutOfTime(Exception):
    """The time given was over before the set was written down."""


Expired = Callable[[], bool]
"""True once the time given is over."""


def never() -> bool:
    """There is time without end."""
    return False


def swapped(boxes: Iterable[Box]) -> list[Box]:
    """Local and peer change places."""
    return [(second, first, headers) for first, second, headers in boxes]


@dataclass(slots=True)
class Boxes:
    """The algebra, over one header space."""

    space: HeaderSpace
    budget: int = 200_000
    """So many boxes at most in one list."""
    expired: Expired = never

    def subtract(self, one: Box, other: Box) -> list[Box]:
        """What of ``one`` is not in ``other``."""
        first, second, headers = one
        both_first, both_second = first & other[0], second & other[1]
        if not both_first or not both_second or not self.space.meet(headers, other[2]):
            return [one]
        left: list[Box] = []
        if both_first != first:
            left.append((first & ~both_first, second, headers))
        if both_second != second:
            left.append((both_first, second & ~both_second, headers))
        rest = self.space.minus(headers, other[2])
        if rest:
            left.append((both_first, both_second, rest))
        return left

    def meet(self, some: Iterable[Box], others: list[Box]) -> list[Box]:
        """What is in both unions."""
        found: list[Box] = []
        for first, second, headers in some:
            for other_first, other_second, other_headers in others:
                both_first = first & other_first
                if not both_first:
                    continue
                both_second = second & other_second
                if not both_second:
                    continue
                both = self.space.meet(headers, other_headers)
                if both:
                    found.append((both_first, both_second, both))
            self.check(found)
        return found

    def minus(self, some: Iterable[Box], others: list[Box]) -> list[Box]:
        """What is in ``some`` and in none of ``others``."""
        taken = Taken(self)
        for box in others:
            taken.add(box)
        found: list[Box] = []
        for box in some:
            found += taken.left_of(box)
            self.check(found)
        return found

    def merge(self, boxes: Iterable[Box]) -> list[Box]:
        """The same flows in fewer boxes."""
        merged = list(boxes)
        for _ in range(2):
            firsts: dict[tuple[Mask, HeaderSet], Mask] = {}
            for first, second, headers in merged:
                firsts[second, headers] = firsts.get((second, headers), 0) | first
            joined: dict[tuple[Mask, Mask], HeaderSet] = {}
            for (second, headers), first in firsts.items():
                joined[first, second] = self.space.join(joined.get((first, second), EMPTY), headers)
            seconds: dict[tuple[Mask, HeaderSet], Mask] = {}
            for (first, second), headers in joined.items():
                seconds[first, headers] = seconds.get((first, headers), 0) | second
            merged = [(first, second, headers) for (first, headers), second in seconds.items()]
        return merged

    def check(self, boxes: list[Box]) -> None:
        """Raises TooMany beyond the budget, OutOfTime when the time is over."""
        if len(boxes) > self.budget:
            raise TooMany
        if self.expired():
            raise OutOfTime


@dataclass(slots=True)
class Taken:
    """Boxes that are taken already; what they have in common with nothing is seen at once."""

    algebra: Boxes
    boxes: list[Box] = field(default_factory=list)
    _firsts: Mask = 0
    _seconds: Mask = 0

    def add(self, box: Box) -> None:
        """The box is taken."""
        self.boxes.append(box)
        self._firsts |= box[0]
        self._seconds |= box[1]

    def left_of(self, box: Box) -> list[Box]:
        """What of the box is not taken, disjoint.

        Raises:
            TooMany: that is more boxes than the budget.
        """
        if not box[0] & self._firsts or not box[1] & self._seconds:
            return [box]
        left = [box]
        for taken in self.boxes:
            if not box[0] & taken[0] or not box[1] & taken[1]:
                continue
            left = [part for each in left for part in self.algebra.subtract(each, taken)]
            if not left:
                break
            self.algebra.check(left)
        return left

"""``reach``: who reaches whom, between groups of endpoints, as a matrix.

In: a situation, whom it shall be about, and a label to group by. Out: a ``Matrix``. Without a label the groups are the coarsest that policy
cannot tell apart within a family: every endpoint of a group may send to, and receive from, the same ones the same packets. With a label
they are its values; a cell then says what some pairs may and what all pairs may. Limits as those of ``relation``.
Pure; O(resources) once, then O(boxes x groups that they meet).
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import msgspec

from tabinet.analysis.boxes import Box, Boxes
from tabinet.analysis.describe import Describer
from tabinet.analysis.fabric import OptionsOf
from tabinet.analysis.headers import EMPTY, FULL, HeaderSet, HeaderSpace
from tabinet.analysis.labels import marks_of
from tabinet.analysis.masks import Mask, mask_of, numbers_of
from tabinet.analysis.relation import Relation
from tabinet.analysis.situation import Situation, hosting_of
from tabinet.analysis.universe import divide
from tabinet.errors import InputError, Problem
from tabinet.selector import Selector

MOST_GROUPS = 400
"""A matrix of more is for nobody."""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Some endpoints, or some addresses that no endpoint has."""

    name: str
    """In words."""
    endpoints: int
    """0: outside."""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """What one group may send to another; there is none where that is nothing."""

    source: int
    """Number of the group."""
    destination: int
    packets: str
    """That some pair of the two may begin flows with."""
    for_all: str
    """That all pairs may; the same as ``packets`` where there is no difference between them."""


class Matrix(msgspec.Struct, frozen=True, kw_only=True):
    """Groups and cells, by source and destination."""

    groups: tuple[Group, ...]
    cells: tuple[Cell, ...]


def find_reach(
    situation: Situation, source: Selector | None, destination: Selector | None, by: str | None, options_of: OptionsOf | None = None
) -> Matrix:
    """The reachability from endpoints that ``source`` selects to those that ``destination`` selects; None: everybody, and the outside.

    Raises:
        InputError: nobody is selected, or there are too many groups.
        TooMany: it cannot be written down.
    """
    selectors = [selector for selector in (source, destination) if selector is not None]
    marks = marks_of(situation.resources, selectors, [by] if by is not None else [])
    universe = divide([situation.state], (), marks, situation.twins.groups, hosting_of([situation], options_of))
    relation = Relation(universe, 0, situation.order, Boxes(HeaderSpace()))
    describer = Describer(universe, situation.resources)
    describer.prepare()
    finder = GroupFinder(relation, describer)
    senders = finder.meant(source, selectors, "SOURCE")
    receivers = finder.meant(destination, selectors, "DESTINATION")
    flows = relation.within(senders, receivers, FULL)
    groups = finder.by_label(by, senders, receivers) if by is not None else finder.alike(flows, senders, receivers)
    if len(groups) > MOST_GROUPS:
        raise _too_many(str(len(groups)))
    found = [Group(name=name, endpoints=describer.count(mask)) for mask, name in groups]
    text = partial(relation.space.text, never=relation.unsendable)
    cells = [
        Cell(source=start, destination=end, packets=text(some), for_all=text(every))
        for start, end, some, every in finder.cells([mask for mask, _ in groups], senders, receivers, flows)
    ]
    return Matrix(groups=tuple(found), cells=tuple(cells))


@dataclass(slots=True)
class GroupFinder:
    """Divides those who send and receive into groups, and tells what goes between them."""

    relation: Relation
    describer: Describer

    def meant(self, selector: Selector | None, selectors: list[Selector], argument: str) -> Mask:
        """Whom the selector selects; everybody, outside as well, without one."""
        universe = self.relation.universe
        if selector is None:
            return universe.everything
        index = selectors.index(selector)
        chosen = (number for number, kind in enumerate(universe.kinds) if kind.marks is not None and kind.marks[0][index])
        mask = mask_of(chosen, universe.size)
        if not mask:
            raise InputError([Problem(path=argument, value=selector.text, allowed="a selector that selects a workload endpoint")])
        return mask

    def by_label(self, label: str, senders: Mask, receivers: Mask) -> list[tuple[Mask, str]]:
        """A group of each value, one of those without, and one outside."""
        universe = self.relation.universe
        numbers: dict[str, list[int]] = defaultdict(list)
        for number in numbers_of(senders | receivers):
            marks = universe.kinds[number].marks
            value = marks[1][0] if marks is not None else None
            word = self._stranger(number) if marks is None else f"no {label}" if value is None else f"{label}={value}"
            numbers[word].append(number)
        return [(mask_of(found, universe.size), name) for name, found in sorted(numbers.items())]

    def _stranger(self, number: int) -> str:
        return "hosts" if self.relation.endpoints >> number & 1 else "outside"

    def alike(self, flows: list[Box], senders: Mask, receivers: Mask) -> list[tuple[Mask, str]]:
        """The coarsest groups that no flow tells apart, endpoints first; what has the same name in both families is one.

        Raises:
            InputError: there are many more than ``MOST_GROUPS``.
        """
        parts = [senders & ~receivers, receivers & ~senders, senders & receivers]
        inside = self.relation.endpoints
        families = self.relation.universe.families.values()
        groups = [each & own for part in parts for each in (part & inside, part & ~inside) for own in families if each & own]
        for mask in {mask for first, second, _ in flows for mask in (first, second)}:
            groups = [part for group in groups for part in (group & mask, group & ~mask) if part]
            if len(groups) > MOST_GROUPS * 10:
                raise _too_many(f"more than {MOST_GROUPS * 10}")
        named: dict[tuple[bool, str, int], Mask] = {}
        for mask in self._joined(groups, flows):
            outside, name, number = not mask & inside, self.describer.text(mask), 0
            while self._share_family(named.get((outside, name, number), 0), mask):
                number += 1
            named[outside, name, number] = named.get((outside, name, number), 0) | mask
        return [(mask, name) for (_, name, _), mask in sorted(named.items())]

    def _share_family(self, one: Mask, other: Mask) -> bool:
        return any(one & own and other & own for own in self.relation.universe.families.values())

    def _joined(self, groups: list[Mask], flows: list[Box]) -> list[Mask]:
        """Groups of one family, and inside or outside, whose rows and columns are equal, as one."""
        space, inside = self.relation.space, self.relation.endpoints
        rows: dict[int, dict[int, HeaderSet]] = defaultdict(dict)
        columns: dict[int, dict[int, HeaderSet]] = defaultdict(dict)
        for (start, end), boxes in _meeting(groups, flows).items():
            headers = EMPTY
            for box in boxes:
                headers = space.join(headers, box[2])
            rows[start][end] = columns[end][start] = headers
        alike: dict[object, Mask] = {}
        for number, mask in enumerate(groups):
            family = [bool(mask & own) for own in self.relation.universe.families.values()]
            place = (bool(mask & inside), *family, tuple(sorted(rows[number].items())), tuple(sorted(columns[number].items())))
            alike[place] = alike.get(place, 0) | mask
        return list(alike.values())

    def cells(
        self, groups: list[Mask], senders: Mask, receivers: Mask, flows: list[Box]
    ) -> Iterator[tuple[int, int, HeaderSet, HeaderSet]]:
        """By source and destination: what some pair may, and what all pairs may that have a family in common; where that is not nothing."""
        for (start, end), boxes in sorted(_meeting(groups, flows).items()):
            yield start, end, *self._between(groups[start] & senders, groups[end] & receivers, boxes)

    def _between(self, sources: Mask, destinations: Mask, boxes: list[Box]) -> tuple[HeaderSet, HeaderSet]:
        space, algebra = self.relation.space, self.relation.boxes
        some, every = EMPTY, FULL
        for own in self.relation.universe.families.values():
            window = (sources & own, destinations & own, FULL)
            if not window[0] or not window[1]:
                continue
            for _, _, headers in algebra.meet([window], boxes):
                some = space.join(some, headers)
            for _, _, headers in algebra.minus([window], boxes):
                every = space.minus(every, headers)
        return some, space.meet(every, some)


def _meeting(groups: list[Mask], flows: list[Box]) -> dict[tuple[int, int], list[Box]]:
    """By numbers of source and destination: the flows between the two groups."""
    found: dict[tuple[int, int], list[Box]] = defaultdict(list)
    for box in flows:
        starts = [number for number, mask in enumerate(groups) if mask & box[0]]
        ends = [number for number, mask in enumerate(groups) if mask & box[1]]
        for pair in itertools.product(starts, ends):
            found[pair].append(box)
    return found


def _too_many(count: str) -> InputError:
    allowed = f"at most {MOST_GROUPS} groups: narrow it down with selectors, or group by a label (--by)"
    return InputError([Problem(path="groups", value=count, allowed=allowed)])

"""Sets of packets by what their headers say besides addresses: protocol, ports, ICMP type and code.

A *header set* is a number. Equal sets have equal numbers, so that comparing is O(1), and every result of ``meet``, ``join`` and ``minus``
is remembered: the sets that policies of a whole fabric make are a few thousand. Protocols with ports and ICMP are functions from an
interval of destination ports (types) to intervals of source ports (codes); all other protocols are one bit each.

A ``HeaderSpace`` gives meaning to its own numbers only. Pure; O(number of different intervals) where a result is new.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

from tabinet.model.extended import DCCP
from tabinet.model.protocols import ICMP, ICMPV6, NAMES, SCTP, TCP, UDP, UDPLITE

HeaderSet = int
Interval = tuple[int, int]
"""Both ends included."""
Intervals = tuple[Interval, ...]
"""Ascending, with gaps between."""
Plane = tuple[tuple[int, int, Intervals], ...]
"""From first to last port (type), these source ports (codes)."""
Content = tuple[int, tuple[Plane, ...]]
"""Bits of the other protocols, then a plane for each protocol in ``SLOTS``."""

WITH_PORTS = (TCP, UDP, SCTP, UDPLITE, DCCP)
SLOTS = (*WITH_PORTS, ICMP, ICMPV6)
HIGHEST = {**dict.fromkeys(WITH_PORTS, 65535), ICMP: 255, ICMPV6: 255}
EVERY: dict[int, Intervals] = {protocol: ((0, highest),) for protocol, highest in HIGHEST.items()}
_OTHERS = ((1 << 256) - 1) & ~sum(1 << protocol for protocol in SLOTS)
CLIENT_PORT = 40_000
"""The source port of an example, where it may be chosen."""
_LIKELY = (443, 80, 22, 53, 8080, 5432)
"""Destination ports that make a good example."""
_ECHO_REQUEST = {ICMP: 8, ICMPV6: 128}

EMPTY: HeaderSet = 0
FULL: HeaderSet = 1


class HeaderSpace:
    """All header sets of one analysis."""

    def __init__(self) -> None:
        nothing: tuple[Plane, ...] = ((),) * len(SLOTS)
        everything = tuple(((0, HIGHEST[protocol], EVERY[protocol]),) for protocol in SLOTS)
        self._contents: list[Content] = [(0, nothing), (_OTHERS, everything)]
        self._numbers: dict[Content, HeaderSet] = {content: number for number, content in enumerate(self._contents)}
        self._met: dict[tuple[HeaderSet, HeaderSet], HeaderSet] = {}
        self._joined: dict[tuple[HeaderSet, HeaderSet], HeaderSet] = {}
        self._reduced: dict[tuple[HeaderSet, HeaderSet], HeaderSet] = {}

    def __len__(self) -> int:
        return len(self._contents)

    # --- making ---

    def protocol(self, number: int) -> HeaderSet:
        """All packets of the protocol."""
        if number in SLOTS:
            return self.box(number, EVERY[number])
        return self._number((1 << number, ((),) * len(SLOTS)))

    def box(self, protocol: int, first: Iterable[Interval], second: Iterable[Interval] | None = None) -> HeaderSet:
        """Of a protocol with ports or an ICMP: destination ports (types) in ``first``, source ports (codes) in ``second``; None: any."""
        columns = join_intervals(tuple(first))
        rows = EVERY[protocol] if second is None else join_intervals(tuple(second))
        if not columns or not rows:
            return EMPTY
        plane = tuple([(low, high, rows) for low, high in columns])
        return self._number((0, tuple([plane if slot == protocol else () for slot in SLOTS])))

    # --- algebra ---

    def meet(self, one: HeaderSet, other: HeaderSet) -> HeaderSet:
        """What is in both."""
        if one == other or other == FULL:
            return one
        if one == FULL:
            return other
        if not one or not other:
            return EMPTY
        key = (one, other) if one < other else (other, one)
        found = self._met.get(key)
        if found is None:
            found = self._met[key] = self._combine(one, other, int.__and__, meet_intervals)
        return found

    def join(self, one: HeaderSet, other: HeaderSet) -> HeaderSet:
        """What is in either."""
        if one == other or not other:
            return one
        if not one:
            return other
        if FULL in (one, other):
            return FULL
        key = (one, other) if one < other else (other, one)
        found = self._joined.get(key)
        if found is None:
            found = self._joined[key] = self._combine(one, other, int.__or__, _joined)
        return found

    def minus(self, one: HeaderSet, other: HeaderSet) -> HeaderSet:
        """What is in ``one`` and not in ``other``."""
        if one == other or not one or other == FULL:
            return EMPTY
        if not other:
            return one
        found = self._reduced.get((one, other))
        if found is None:
            found = self._reduced[one, other] = self._combine(one, other, lambda a, b: a & ~b, minus_intervals)
        return found

    def _combine(
        self,
        one: HeaderSet,
        other: HeaderSet,
        of_bits: Callable[[int, int], int],
        of_intervals: Callable[[Intervals, Intervals], Intervals],
    ) -> HeaderSet:
        bits, planes = self._contents[one]
        more_bits, more_planes = self._contents[other]
        combined = [_combine_planes(a, b, of_intervals) if a or b else () for a, b in zip(planes, more_planes, strict=True)]
        return self._number((of_bits(bits, more_bits), tuple(combined)))

    def _number(self, content: Content) -> HeaderSet:
        number = self._numbers.get(content)
        if number is None:
            number = self._numbers[content] = len(self._contents)
            self._contents.append(content)
        return number

    def _completed(self, headers: HeaderSet, other: HeaderSet) -> HeaderSet:
        """The set with what of ``other`` makes whole protocols of it."""
        if headers == EMPTY or other == EMPTY:
            return headers
        (bits, planes), (more_bits, more_planes), (_, full) = (self._contents[number] for number in (headers, other, FULL))
        completed = [
            all_of_it if plane and more and _combine_planes(plane, more, _joined) == all_of_it else plane
            for plane, more, all_of_it in zip(planes, more_planes, full, strict=True)
        ]
        return self._number((_OTHERS if bits | more_bits == _OTHERS else bits, tuple(completed)))

    # --- looking ---

    def has(self, headers: HeaderSet, protocol: int, first: int = 0, second: int = 0) -> bool:
        """True when the packet (destination port or type, source port or code) is in the set."""
        bits, planes = self._contents[headers]
        if protocol not in SLOTS:
            return bool(bits >> protocol & 1)
        for low, high, rows in planes[SLOTS.index(protocol)]:
            if low <= first <= high:
                return any(start <= second <= end for start, end in rows)
        return False

    def example(self, headers: HeaderSet) -> tuple[int, int, int]:
        """A packet of the set: protocol, destination port or type, source port or code; one that can be tried where there is one.

        Raises:
            ValueError: the set is empty.
        """
        bits, planes = self._contents[headers]
        for protocol, plane in zip(SLOTS, planes, strict=True):
            if not plane:
                continue
            wanted = _LIKELY if protocol in WITH_PORTS else (_ECHO_REQUEST[protocol],)
            likely = next((column for column in wanted if _rows_at(plane, column)), None)
            low, high, _ = plane[0]
            first = likely if likely is not None else 1 if low == 0 < high and protocol in WITH_PORTS else low
            rows = _rows_at(plane, first)
            free = protocol in WITH_PORTS and any(start <= CLIENT_PORT <= end for start, end in rows)
            return protocol, first, CLIENT_PORT if free else rows[0][0]
        if not bits:
            raise ValueError("an empty header set has no example")
        return (bits & -bits).bit_length() - 1, 0, 0

    def text(self, headers: HeaderSet, never: HeaderSet = EMPTY) -> str:
        """The set in words, as in ``tcp 80,443; udp``. A whole protocol but packets that are ``never`` sent is told as the whole."""
        whole = self._completed(headers, never)
        if whole == FULL:
            return "everything"
        bits, planes = self._contents[whole]
        parts = list(_plane_texts(planes))
        if bits == _OTHERS:
            parts.append("other protocols")
        elif bits:
            numbers = [str(number) for number in range(256) if bits >> number & 1]
            shown = ",".join(numbers) if len(numbers) <= 8 else f"{len(numbers)} others"
            parts.append(f"protocol {shown}")
        return "; ".join(parts) or "nothing"


def _plane_texts(planes: tuple[Plane, ...]) -> Iterator[str]:
    for protocol, plane in zip(SLOTS, planes, strict=True):
        name = "dccp" if protocol == DCCP else NAMES[protocol].lower()
        by_rows: dict[Intervals, list[Interval]] = {}
        for low, high, rows in plane:
            by_rows.setdefault(rows, []).append((low, high))
        for rows, columns in by_rows.items():
            text = name if tuple(columns) == EVERY[protocol] else f"{name} {_interval_text(columns)}"
            word = "from port" if protocol in WITH_PORTS else "code"
            yield text if rows == EVERY[protocol] else f"{text} {word} {_interval_text(rows)}"


def _interval_text(intervals: Iterable[Interval]) -> str:
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in intervals)


def meet_intervals(one: Intervals, other: Intervals) -> Intervals:
    """What is in both."""
    found: list[Interval] = []
    i = j = 0
    while i < len(one) and j < len(other):
        low, high = max(one[i][0], other[j][0]), min(one[i][1], other[j][1])
        if low <= high:
            found.append((low, high))
        if one[i][1] < other[j][1]:
            i += 1
        else:
            j += 1
    return tuple(found)


def join_intervals(intervals: Intervals) -> Intervals:
    """The same numbers, in ascending intervals with gaps between; the argument may overlap and come in any order."""
    found: list[Interval] = []
    for low, high in sorted(intervals):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return tuple(found)


def _joined(one: Intervals, other: Intervals) -> Intervals:
    return join_intervals(one + other)


def minus_intervals(one: Intervals, other: Intervals) -> Intervals:
    """What is in ``one`` and not in ``other``."""
    found: list[Interval] = []
    for start, end in one:
        low = start
        for first, last in other:
            if last < low:
                continue
            if first > end:
                break
            if first > low:
                found.append((low, first - 1))
            low = last + 1
        if low <= end:
            found.append((low, end))
    return tuple(found)


def _combine_planes(one: Plane, other: Plane, of_intervals: Callable[[Intervals, Intervals], Intervals]) -> Plane:
    """Column by column."""
    edges = sorted({edge for low, high, _ in (*one, *other) for edge in (low, high + 1)})
    found: list[tuple[int, int, Intervals]] = []
    for low, after in itertools.pairwise(edges):
        rows = of_intervals(_rows_at(one, low), _rows_at(other, low))
        if not rows:
            continue
        if found and found[-1][1] + 1 == low and found[-1][2] == rows:
            found[-1] = (found[-1][0], after - 1, rows)
        else:
            found.append((low, after - 1, rows))
    return tuple(found)


def _rows_at(plane: Plane, column: int) -> Intervals:
    for low, high, rows in plane:
        if low <= column <= high:
            return rows
    return ()

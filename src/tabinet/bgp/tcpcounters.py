"""What the kernel counts about TCP segments that it dropped before BGP saw them: wrong passwords (TCP MD5) and wrong TTL.

In: the text of /proc/net/netstat (proc(5)), read over time. Out: which counters rose lately. They belong to the whole network namespace,
not to a session. ``parse_counters`` and ``Trend`` are pure; O(lines).
"""

from __future__ import annotations

import enum
import itertools
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

NETSTAT = Path("/proc/thread-self/net/netstat")
WINDOW_S = 15.0
"""A counter that rose within this time says something about sessions that are down now: BIRD and FRR try every few seconds."""


class Drop(enum.Enum):
    """Why the kernel drops segments; values are names in TcpExt (nstat(8) puts TcpExt in front)."""

    NO_PASSWORD = "TCPMD5NotFound"
    """The peer sends none, and one is expected."""
    UNEXPECTED_PASSWORD = "TCPMD5Unexpected"
    """The peer sends one, and none is expected."""
    WRONG_PASSWORD = "TCPMD5Failure"
    TOO_FAR = "TCPMinTTLDrop"
    """The TTL is less than TTL security asks for."""


def parse_counters(text: str) -> dict[Drop, int]:
    """The counters in the text of /proc/net/netstat; those that it does not have are missing."""
    lines = text.splitlines()
    for names, values in itertools.pairwise(lines):
        if names.startswith("TcpExt: ") and values.startswith("TcpExt: "):
            found = dict(zip(names.split(), values.split(), strict=False))
            return {drop: int(found[drop.value]) for drop in Drop if found.get(drop.value, "").isdigit()}
    return {}


def read_counters() -> dict[Drop, int]:
    """The counters of the calling thread's network namespace; empty where the kernel has none."""
    try:
        return parse_counters(NETSTAT.read_text())
    except OSError:
        return {}


@dataclass(slots=True)
class Trend:
    """Counters over the last ``WINDOW_S`` seconds."""

    _seen: deque[tuple[float, dict[Drop, int]]] = field(default_factory=deque)

    def observe(self, now_s: float, counters: dict[Drop, int]) -> frozenset[Drop]:
        """Takes the counters in, and says which of them rose within the window."""
        self._seen.append((now_s, counters))
        while self._seen[0][0] < now_s - WINDOW_S:
            self._seen.popleft()
        first = self._seen[0][1]
        return frozenset(drop for drop, count in counters.items() if count > first.get(drop, count))

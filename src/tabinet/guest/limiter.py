"""``Limiter``: how many messages a port may send before it is not listened to for a while.

In: who sent something, and when. Out: whether it is answered, and which ports are shut off. Each port has a bucket of tokens; the one that
finds it empty is shut off for ``SHUT_S``, and whoever owns the socket keeps its packets out by a filter in the kernel: a flood
then costs the process nothing, however fast it is. Pure: ``now`` is an argument. O(1) for a message, O(shut off) for a change of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

RATE = 5.0
"""Messages a second in the long run."""
BURST = 40.0
"""Messages at once: a guest that starts up sends about ten."""
SHUT_S = 2.0
MOST_SHUT = 1000
"""So many ports are shut off at most; further ones are only not answered."""


@dataclass(slots=True)
class Bucket:
    """Tokens of one port, as of a time."""

    tokens: float
    at_s: float


@dataclass(slots=True)
class Limiter:
    """All ports of a socket, by interface index."""

    rate: float = RATE
    burst: float = BURST
    _buckets: dict[int, Bucket] = field(default_factory=dict)
    _shut: dict[int, float] = field(default_factory=dict)
    """Until when."""

    def allows(self, index: int, now_s: float) -> bool:
        """True: the message may be answered."""
        if index in self._shut:
            return False  # it was under way before the filter
        bucket = self._buckets.get(index)
        if bucket is None:
            bucket = self._buckets[index] = Bucket(self.burst, now_s)
        bucket.tokens = min(self.burst, bucket.tokens + (now_s - bucket.at_s) * self.rate)
        bucket.at_s = now_s
        if bucket.tokens < 1:
            if len(self._shut) < MOST_SHUT:
                self._shut[index] = now_s + SHUT_S
            return False
        bucket.tokens -= 1
        return True

    def shut(self) -> frozenset[int]:
        """Who is shut off."""
        return frozenset(self._shut)

    def open_s(self, now_s: float) -> float | None:
        """Those whose time is over are not shut off any more; seconds until the next one's is, None when there is none."""
        for index in [index for index, until in self._shut.items() if until <= now_s]:
            del self._shut[index]
        return min(self._shut.values()) - now_s if self._shut else None

    def forget(self, now_s: float) -> None:
        """Ports whose bucket is full again are not remembered."""
        full = [index for index, each in self._buckets.items() if each.tokens + (now_s - each.at_s) * self.rate >= self.burst]
        for index in full:
            del self._buckets[index]

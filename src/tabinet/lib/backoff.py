"""How long to wait before the next attempt: exponential, with full jitter, limited.

Full jitter (a wait anywhere between nothing and the current limit) keeps a thousand hosts that lost the same server at the same moment from
coming back in waves. Pure: the source of chance is an argument.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class Backoff(msgspec.Struct, frozen=True, gc=False):
    """Limits of the waits, in seconds."""

    first_s: float = 0.1
    """Upper limit of the wait after the first failure; above 0."""
    limit_s: float = 30.0
    """Upper limit of every wait."""
    factor: float = 2.0
    """By how much the upper limit grows with each failure; at least 1."""

    def limit_after(self, failures: int) -> float:
        """Upper limit in seconds of the wait after so many failures in a row, counted from 1."""
        wait = self.first_s
        for _ in range(failures - 1):
            wait *= self.factor
            if wait >= self.limit_s or self.factor == 1:
                break
        return min(wait, self.limit_s)

    def delay_s(self, failures: int, chance: Callable[[], float]) -> float:
        """Seconds to wait after ``failures`` failures in a row (from 1).

        ``chance()`` gives a number from 0 to 1, as ``random.random`` does.
        """
        return self.limit_after(failures) * chance()

"""When to look at what in the kernel, in case somebody else changed it.

Lives on the kernel thread, a few milliseconds at a time (``turn``). Nothing is changed here: what seems to differ waits for ``apply``.

- Links, addresses, neighbours and our routes tell of themselves by events; sysctls are looked at a few interfaces at a time.
- Whether anybody else has changed anything in nf_tables is one question, asked every turn. If so, the base chains are looked at, once
  a second at most; when several of them differ, the table has been flushed or deleted, and is repaired as a whole at once.
- The table is gone through in rounds (``nft.verify``). While nobody has changed anything a round takes ``ROUND_S``. When somebody has, it
  goes on without pause but for ``URGENT_WAIT_S``; and then not again for ``READING_PAUSE`` times as long as it worked: on a host where
  others change rules all the time that bounds the cost.
- What tells of itself by events, and traffic control, is read again, one kind each ``READING_S``, as events may be lost without a word.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from time import perf_counter

from tabinet.dataplane.nft.verify import TableAudit
from tabinet.dataplane.tc.driver import BandwidthDriver
from tabinet.dataplane.workloads import WorkloadManager
from tabinet.errors import KernelError
from tabinet.kernel.nftables import Nftables

READING_PAUSE = 50
"""Looking at a table that others disturb takes 2 % of the time at most."""
ROUND_S = 300.0
"""How long an undisturbed round takes."""
SLICE_S = 0.003
"""Longest time of one turn on the table; one unit of work (a chain, a page) may go beyond."""
QUIET_WAIT_S = 1.0
URGENT_WAIT_S = 0.02
CHECKED_AT_ONCE = 8
"""Interfaces whose sysctls one turn looks at: about 0.1 ms each."""
READING_S = 150.0
"""Between two readings of what tells of itself."""


@dataclass(slots=True)
class Verification:
    """The background's share in keeping the kernel as wanted."""

    nftables: Nftables
    audit: TableAudit
    workloads: WorkloadManager
    bandwidth: BandwidthDriver
    others: tuple[Callable[[], None], ...] = ()
    """Each makes the next ``apply`` read one more kind of object again."""
    clock: Callable[[], float] = perf_counter
    """For measuring our own work."""
    _disturbed: bool = False
    """Somebody else changed nf_tables since the round began."""
    _gates_doubtful: bool = False
    """... since the base chains were looked at."""
    _next_gates_s: float = 0.0
    _urgent: bool = False
    _worked_s: float = 0.0
    """How long this urgent round has worked."""
    _not_before_s: float = 0.0
    """When the next urgent round may begin; by the clock of ``turn``."""
    _next_recheck_s: float = 0.0
    _next_reading_s: float = -1.0
    _readings: int = 0

    def turn(self, now_s: float) -> float:
        """A little more has been looked at; gives when to call again, in seconds from now.

        Raises:
            KernelError: the kernel did not answer; the table has to be read as a whole.
        """
        if self.nftables.disturbed():
            self._disturbed = self._gates_doubtful = True
        if self._gates_doubtful and now_s >= self._next_gates_s:
            self._gates_doubtful, self._next_gates_s = False, now_s + QUIET_WAIT_S
            self.audit.look_at_gates()
        if self._disturbed and not self._urgent and now_s >= self._not_before_s:
            self._disturbed, self._urgent, self._worked_s = False, True, 0.0
            self.audit.begin()
        self._look_at_table(now_s)
        if now_s >= self._next_recheck_s:
            self._next_recheck_s = now_s + QUIET_WAIT_S
            self.workloads.recheck(CHECKED_AT_ONCE)
        self._read_again(now_s)
        return URGENT_WAIT_S if self._urgent else QUIET_WAIT_S

    def was_read(self) -> None:
        """The whole table has just been read."""
        self._disturbed = self._gates_doubtful = self._urgent = False
        self.audit.begin()
        self.audit.take()

    def _look_at_table(self, now_s: float) -> None:
        size = self.audit.size()
        units = size + 1 if self._urgent else ceil(size * QUIET_WAIT_S / ROUND_S)
        rounds, begin = self.audit.rounds, self.clock()
        try:
            self.audit.work(units, begin + SLICE_S, self.clock)
        except KernelError:
            self._urgent = False
            raise
        if self._urgent:
            self._worked_s += self.clock() - begin
            if self.audit.rounds != rounds:
                self._urgent = False
                self._not_before_s = now_s + READING_PAUSE * self._worked_s

    def _read_again(self, now_s: float) -> None:
        """Once in a while, what tells of itself is read again by the next ``apply``."""
        if self._next_reading_s < 0:
            self._next_reading_s = now_s + READING_S
        if now_s < self._next_reading_s:
            return
        self._next_reading_s = now_s + READING_S
        readings = (self.workloads.verify, self.bandwidth.mark_stale, *self.others)
        readings[self._readings % len(readings)]()
        self._readings += 1

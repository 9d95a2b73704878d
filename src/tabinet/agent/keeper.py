"""``Keeper``: what the calculation keeps is kept out of Python's cyclic garbage collector.

The calculation of a large fabric makes some million objects and keeps nearly all of them. The collector would walk them again and again
and find nothing: that is 40 % of the time of a snapshot, and any later collection stops the process for as long as it takes to
walk everything. So what has been made is put aside every so often (``gc.freeze``, which is O(1)): collections look only at what
is younger, and stay short for ever.

This is safe because the calculation leaves no cycles behind when resources change or go: what is put aside is freed by its last
reference. A cycle of something else that happens to be alive then, and becomes garbage later, is never found; there are few (a
connection to the store), and none that comes with every change.

Changes state of the whole process, which is why it belongs to the agent.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass

EVERY = 2_000
"""Units of work after which there is enough to be put aside: some 10,000 objects, which the collector walks in about a millisecond."""


@dataclass(slots=True)
class Keeper:
    """Counts what was worked, and puts aside."""

    every: int = EVERY
    _worked: int = 0

    def begin(self) -> None:
        """All that exists is put aside: modules, and what the process is made of. Takes some 20 ms."""
        gc.collect()
        gc.freeze()

    def on_work(self, units: int) -> None:
        """So many changes were taken in, or units settled."""
        self._worked += units
        if self._worked >= self.every:
            self._worked = 0
            # The young that are garbage already, lest they be kept.
            gc.collect(0)
            gc.freeze()

"""MarkSweeper: no flow carries a mark long enough for it to mean something again.

The generation in the conntrack mark has 16 bits and comes again (``rules.marks``). In: the generation that is about to end. Out: nothing;
the marks of all other generations are cleared at the two moments of a round that ``sweep_due`` names, and all marks before a table is made
where none was. A sweep that the kernel refuses is owed, and tried again before each generation that follows: no change waits for it.

Cost: a reading of all flows, twice in 65,535 generations.
"""

from __future__ import annotations

from dataclasses import dataclass

from tabinet.errors import KernelError
from tabinet.kernel.conntrack import Conntrack
from tabinet.rules.marks import GENERATION_MASK, generation_mark, sweep_due


@dataclass(slots=True)
class MarkSweeper:
    """Clears the marks of flows in one network namespace."""

    conntrack: Conntrack
    owed: bool = False
    """A sweep was refused: flows that have been idle for long may carry old marks."""
    swept: int = 0
    """Marks that were cleared so far."""

    def before_next(self, generation: int) -> None:
        """The generation may end, as far as idle flows go."""
        if self.owed or sweep_due(generation):
            self._sweep(generation_mark(generation))

    def before_first(self) -> None:
        """A table may be made: no flow has a mark of an earlier one."""
        self._sweep(0)

    def _sweep(self, keep: int) -> None:
        try:
            self.swept += self.conntrack.clear_marks(GENERATION_MASK, keep)
        except KernelError:
            self.owed = True
        else:
            self.owed = False

"""FakeConntrack: connection tracking in memory, with the semantics of the kernel's.

In: the calls of ``kernel.conntrack.Conntrack``. Out: ``marks``, by flow, which whoever plays the packets may change.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

from tabinet.errors import KernelError
from tabinet.kernel.conntrack import TcpFlow


@dataclass(slots=True)
class FakeConntrack:
    """One network namespace's."""

    marks: dict[TcpFlow, int] = field(default_factory=dict)
    failing: bool = False
    """The kernel answers nothing."""

    def clear_marks(self, mask: int, keep: int) -> int:
        """As the protocol says."""
        self._answer("read flows")
        stale = [flow for flow, mark in self.marks.items() if mark & mask not in (0, keep)]
        for flow in stale:
            self.marks[flow] &= ~mask
        return len(stale)

    def add_tcp(self, flow: TcpFlow, mark: int = 0) -> bool:
        """As the protocol says."""
        self._answer("add a flow")
        if flow in self.marks or flow.reversed() in self.marks:
            return False
        self.marks[flow] = mark
        return True

    def close(self) -> None:
        """Nothing to do."""

    def _answer(self, operation: str) -> None:
        if self.failing:
            raise KernelError(errno.ETIMEDOUT, operation)

"""FakeConntrack: connection tracking in memory, with the semantics of the kernel's.

In: the calls of ``kernel.conntrack.Conntrack``. Out: ``marks``, by flow, which whoever plays the packets may change.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, field

from tabinet.errors import KernelError
from tabinet.kernel.conntrack import TcpFlow
from tabinet.kernel.flowcodec import Flow, about, renderable
from tabinet.lib.ip import Prefix


@dataclass(slots=True)
class FakeConntrack:
    """One network namespace's."""

    marks: dict[TcpFlow, int] = field(default_factory=dict)
    flows: dict[bytes, Flow] = field(default_factory=dict)
    """Whole entries, by the tuple that they began with."""
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

    def flows_of(self, address: Prefix) -> list[Flow]:
        """As the protocol says."""
        self._answer("read flows")
        return about(self.flows.values(), frozenset((address.packed,)))

    def add_flows(self, flows: Sequence[Flow]) -> int:
        """As the protocol says."""
        self._answer("add flows")
        new = [flow for flow, _ in renderable(flows) if flow.original not in self.flows]
        self.flows |= {flow.original: flow for flow in new}
        return len(new)

    def remove_flows(self, flows: Sequence[Flow]) -> int:
        """As the protocol says."""
        self._answer("remove flows")
        return sum(self.flows.pop(flow.original, None) is not None for flow in flows)

    def close(self) -> None:
        """Nothing to do."""

    def _answer(self, operation: str) -> None:
        if self.failing:
            raise KernelError(errno.ETIMEDOUT, operation)

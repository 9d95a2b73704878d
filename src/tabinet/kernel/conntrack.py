"""The seam to the kernel's connection tracking: marks that are cleared, and flows that are made known.

What the datapath asks of single flows is asked in nf_tables. This is for what rules cannot do: see to flows that send nothing, say which
end began a flow that is older than the tracking, and take flows along when a machine moves to another host. The real thing is
``kernel.ctsocket``, the fake ``kernel.ctfake``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from tabinet.kernel.flowcodec import Flow
from tabinet.lib.ip import Prefix


class TcpFlow(msgspec.Struct, frozen=True, gc=False):
    """An established TCP connection, in the direction that it began in."""

    source: Prefix
    destination: Prefix
    source_port: int
    destination_port: int

    def reversed(self) -> TcpFlow:
        """The one that goes the other way."""
        return TcpFlow(self.destination, self.source, self.destination_port, self.source_port)


class Conntrack(Protocol):
    """Connection tracking of one network namespace."""

    def clear_marks(self, mask: int, keep: int) -> int:
        """In the mark of every flow the bits of ``mask`` are 0, unless they were ``keep``; gives how many were changed. O(flows).

        All other bits stay. A flow that is marked meanwhile may lose that mark again.

        Raises:
            KernelError: not all could be looked at; some may be changed.
        """
        ...

    def add_tcp(self, flow: TcpFlow, mark: int = 0) -> bool:
        """The flow is known as established, with this mark and any window; False: one with these ends was known already. O(1).

        Raises:
            KernelError: it could not be added.
        """
        ...

    def flows_of(self, address: Prefix) -> list[Flow]:
        """The flows that this address (a host prefix) is an end of, translated or not, without those that cannot be handed over.

        Raises:
            KernelError: they could not be read.
        """
        ...

    def add_flows(self, flows: Sequence[Flow]) -> int:
        """The flows are known, with any TCP window; gives how many were not known before. A flow that cannot be added is left out.

        Raises:
            KernelError: nobody knows which were added.
        """
        ...

    def remove_flows(self, flows: Sequence[Flow]) -> int:
        """The flows are known no more; gives how many were.

        Raises:
            KernelError: nobody knows which were removed.
        """
        ...

    def close(self) -> None: ...

"""Traffic control as records, and operations on it as data: token buckets, and redirection to intermediate functional blocks.

``TrafficControl`` is the seam between the bandwidth driver and the kernel: ``tcsocket.TcSocket`` and ``tcfake.FakeTrafficControl``
implement it and pass one contract suite. A token bucket at an interface's root shapes what goes out of it; what comes in can only be
shaped by sending it through another interface, an ifb(4)-like device, whose root then shapes it. Sources: tc(8), tc-tbf(8), tc-mirred(8),
linux/pkt_sched.h.

Ours are known by the handle of the bucket, the preference of the filter, and the prefix of the device's name; others' are never touched.
Units: bytes and bytes per second. Operations name interfaces by name and each has its own outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from tabinet.errors import KernelError

DEVICE_PREFIX = "tbw"
"""Begins the names of our intermediate devices."""
HANDLE = 0x5484_0000
"""Of our token buckets (``5484:`` in tc(8))."""
PREFERENCE = 84
"""Of our filters."""

_TICK_SHIFT = 6  # PSCHED_SHIFT: a tick of the packet scheduler is 64 ns
_TICKS = 1 << 32
_TICK_TOLERANCE = 64
"""What the kernel's fixed-point arithmetic may be off."""
_NS_PER_S = 1_000_000_000


class TokenBucket(msgspec.Struct, frozen=True, gc=False):
    """At most ``rate`` on average and ``burst`` at once; more waits, and is dropped when ``limit`` waits."""

    rate: int
    burst: int
    """Up to 2**32 - 1."""
    limit: int
    peak_rate: int = 0
    """How fast a burst may go, more than ``rate``; 0: at any speed."""
    peak_burst: int = 0
    """At once at the peak rate; at least a packet."""


class BucketState(msgspec.Struct, frozen=True, gc=False):
    """A token bucket as the kernel shows it: bursts as times, of which it keeps 32 bits."""

    rate: int
    limit: int
    peak_rate: int
    burst_ticks: int
    peak_burst_ticks: int


class TcState(msgspec.Struct, frozen=True):
    """All of ours in one network namespace."""

    buckets: dict[str, BucketState]
    """By interface."""
    redirects: dict[str, str]
    """From interface to the device that its incoming packets go through."""
    devices: frozenset[str]
    """Our intermediate devices."""


def is_made_of(state: BucketState, bucket: TokenBucket) -> bool:
    """True when the kernel's bucket is this one, as far as can be told."""
    if (state.rate, state.limit, state.peak_rate) != (bucket.rate, bucket.limit, bucket.peak_rate):
        return False
    if not _near(state.burst_ticks, ticks(bucket.rate, bucket.burst)):
        return False
    return not bucket.peak_rate or _near(state.peak_burst_ticks, ticks(bucket.peak_rate, bucket.peak_burst))


def ticks(rate: int, size: int) -> int:
    """How long ``size`` takes at ``rate``, in the scheduler's ticks, as many bits of it as the kernel shows."""
    return (size * _NS_PER_S // rate >> _TICK_SHIFT) % _TICKS


def _near(one: int, other: int) -> bool:
    difference = (one - other) % _TICKS
    return min(difference, _TICKS - difference) <= _TICK_TOLERANCE


# --- operations -----------------------------------------------------------------------------------------------------


class TcOp(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Base of the operations. ENODEV when the interface is absent."""


class AddDevice(TcOp, frozen=True):
    """The intermediate device exists and is up. EEXIST when it is there already."""

    name: str


class DeleteDevice(TcOp, frozen=True):
    """The device is gone, with its bucket; what redirects to it drops packets from then on. ENODEV when absent."""

    name: str


class SetBucket(TcOp, frozen=True):
    """What goes out of the interface is shaped so. EEXIST when its root is somebody else's (not the kernel's default)."""

    interface: str
    bucket: TokenBucket


class DeleteBucket(TcOp, frozen=True):
    """ENOENT when there is none of ours."""

    interface: str


class SetRedirect(TcOp, frozen=True):
    """What comes in through the interface goes out of the device and then comes in as before. No packet meets a gap."""

    interface: str
    device: str


class DeleteRedirect(TcOp, frozen=True):
    """ENOENT when there is none of ours."""

    interface: str


def describe(operation: TcOp) -> str:
    """What the operation does, in words for an error message."""
    match operation:
        case AddDevice(name) | DeleteDevice(name):
            return f"{'add' if isinstance(operation, AddDevice) else 'delete'} intermediate device {name}"
        case SetBucket(interface) | DeleteBucket(interface):
            return f"{'set' if isinstance(operation, SetBucket) else 'delete'} token bucket of {interface}"
        case SetRedirect(interface) | DeleteRedirect(interface):
            return f"{'set' if isinstance(operation, SetRedirect) else 'delete'} redirection of {interface}"
        case _:
            raise TypeError(f"not an operation of traffic control: {operation!r}")


class TrafficControl(Protocol):
    """Traffic control in one network namespace."""

    def execute(self, operations: Sequence[TcOp]) -> list[KernelError | None]:
        """Each operation was tried, in order, whatever became of those before it; gives the outcome of each.

        Raises:
            KernelError: no outcome is known: read again.
        """
        ...

    def read(self) -> TcState:
        """All of ours. Linear in the interfaces."""
        ...

    def close(self) -> None: ...

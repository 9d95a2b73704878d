"""FakeTrafficControl: traffic control in memory that behaves as the kernel's does.

It passes the same contract suite as ``TcSocket``. For tests: ``add_interface`` and ``remove_interface`` are the machine's doing,
``take_root`` is another program's, ``refuse`` makes one kind of operation fail, ``executed`` keeps what was asked. It shapes nothing.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from tabinet.errors import KernelError
from tabinet.kernel.tc import (
    DEVICE_PREFIX,
    AddDevice,
    BucketState,
    DeleteBucket,
    DeleteDevice,
    DeleteRedirect,
    SetBucket,
    SetRedirect,
    TcOp,
    TcState,
    TokenBucket,
    describe,
    ticks,
)


class _Refused(Exception):
    def __init__(self, code: int) -> None:
        self.code = code


class FakeTrafficControl:
    """Implements ``TrafficControl`` in memory."""

    def __init__(self) -> None:
        self.executed: list[TcOp] = []
        """All that was tried, oldest first."""
        self._interfaces: dict[str, TokenBucket | None] = {}
        self._devices: set[str] = set()
        self._redirects: dict[str, str] = {}
        self._taken: set[str] = set()
        self._refusals: dict[type[TcOp], int] = {}

    # --- knobs of tests

    def add_interface(self, name: str) -> None:
        """The machine has the interface."""
        self._interfaces[name] = None

    def remove_interface(self, name: str) -> None:
        """The interface went, and all that was on it."""
        self._interfaces.pop(name, None)
        self._redirects.pop(name, None)
        self._taken.discard(name)

    def take_root(self, name: str) -> None:
        """Another program shapes what goes out of the interface."""
        self._taken.add(name)

    def refuse(self, kind: type[TcOp], code: int) -> None:
        """Operations of this kind fail with this errno; 0: no longer."""
        self._refusals[kind] = code

    # --- TrafficControl

    def execute(self, operations: Sequence[TcOp]) -> list[KernelError | None]:
        """As ``TrafficControl.execute``."""
        return [self._outcome(operation) for operation in operations]

    def read(self) -> TcState:
        """As ``TrafficControl.read``."""
        buckets = {name: _state(bucket) for name, bucket in self._interfaces.items() if bucket is not None}
        devices = frozenset(name for name in self._devices if name.startswith(DEVICE_PREFIX))
        redirects = {name: device if device in self._devices else "" for name, device in self._redirects.items()}
        return TcState(buckets, redirects, devices)

    def close(self) -> None:
        """Nothing is to be closed."""

    def _outcome(self, operation: TcOp) -> KernelError | None:
        self.executed.append(operation)
        try:
            if self._refusals.get(type(operation)):
                raise _Refused(self._refusals[type(operation)])
            self._execute(operation)
        except _Refused as refused:
            return KernelError(refused.code, describe(operation))
        return None

    def _execute(self, operation: TcOp) -> None:
        match operation:
            case AddDevice(name):
                _need(name not in self._interfaces, errno.EEXIST)
                self._interfaces[name] = None
                self._devices.add(name)
            case DeleteDevice(name):
                _need(name in self._devices, errno.ENODEV)
                self._devices.discard(name)
                del self._interfaces[name]
            case SetBucket(interface, bucket):
                _need(interface in self._interfaces, errno.ENODEV)
                _need(interface not in self._taken, errno.EEXIST)
                _need(bucket.rate > 0 and bucket.burst > 0 and not 0 < bucket.peak_rate <= bucket.rate, errno.EINVAL)
                self._interfaces[interface] = bucket
            case DeleteBucket(interface):
                _need(interface in self._interfaces, errno.ENODEV)
                _need(self._interfaces[interface] is not None, errno.ENOENT)
                self._interfaces[interface] = None
            case SetRedirect(interface, device):
                _need(interface in self._interfaces and device in self._interfaces, errno.ENODEV)
                self._redirects[interface] = device
            case DeleteRedirect(interface):
                _need(interface in self._interfaces, errno.ENODEV)
                _need(interface in self._redirects, errno.ENOENT)
                del self._redirects[interface]


def _need(holds: bool, code: int) -> None:
    if not holds:
        raise _Refused(code)


def _state(bucket: TokenBucket) -> BucketState:
    peak = ticks(bucket.peak_rate, bucket.peak_burst) if bucket.peak_rate else 0
    return BucketState(bucket.rate, bucket.limit, bucket.peak_rate, ticks(bucket.rate, bucket.burst), peak)

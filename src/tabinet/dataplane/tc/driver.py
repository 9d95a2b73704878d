"""BandwidthDriver: the kernel shapes what workloads receive and send as their quality of service says.

In: what each interface is limited to (``want``, ``unwant``), news of the kernel (``on_event``). Out: ``apply`` makes it so and says what
it did and what failed. A driver with an empty memory reads what is there and adopts it: when nothing differs it does nothing.

What a workload receives goes out of its interface on the host, so that a token bucket at that interface's root shapes it. What it sends
comes in there, and can only be shaped on its way out of another interface: it is sent through a device of its own that has the bucket.
Shaping waits instead of dropping, which is what TCP needs to reach the rate.

Invariants: what is not ours by name, handle or preference is neither replaced nor deleted. An interface that is not there is no error:
it is limited once it comes. What failed stays pending and is tried again by the next ``apply``.

Cost: ``apply`` is linear in what is pending (and the interfaces, when a bucket is among it), O(1) when nothing is. Not thread-safe.
"""

from __future__ import annotations

import enum
import errno
import hashlib

import msgspec

from tabinet.calc.messages import Limits, Qos
from tabinet.dataplane.drift import Drift, DriftKind, Ledger
from tabinet.errors import KernelError
from tabinet.kernel.rtnetlink import Event, LinkEvent, Overrun
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
    TokenBucket,
    TrafficControl,
    is_made_of,
)
from tabinet.lib.delta import DeltaTracker

DEFAULT_BURST_BYTES = (1 << 32) // 8
"""4 Gbit, as Calico has it."""
SMALLEST_BURST_BYTES = 16_384
"""A bucket that cannot hold the largest packet would let none of them pass."""
_MOST_BURST_BYTES = (1 << 32) - 1
SMALLEST_QUEUE_BYTES = 65_536
QUEUES_PER_S = 20
"""What waits is at most a twentieth of a second at the rate: more would only add delay."""


class Part(enum.Enum):
    """The kinds of objects in the kernel, in the order in which they are made."""

    DEVICE = "device"
    BUCKET = "bucket"
    REDIRECT = "redirect"


class Key(msgspec.Struct, frozen=True, order=True, gc=False):
    """One object in the kernel."""

    part: Part
    name: str
    """The interface or device that it is, or that it is on."""


Value = TokenBucket | BucketState | str
"""Of a BUCKET: the bucket, or what the kernel has if that is another. Of a REDIRECT: the device. Of a DEVICE: empty."""


class Step(msgspec.Struct, frozen=True, gc=False):
    """One operation and what is there afterwards; None: nothing."""

    key: Key
    operation: TcOp
    result: Value | None


class TcResult(msgspec.Struct, frozen=True):
    """What an ``apply`` did."""

    operations: tuple[TcOp, ...]
    """Sent to the kernel, whether they succeeded or not."""
    errors: dict[str, KernelError]
    """By workload's interface: still pending."""
    drifts: tuple[Drift, ...] = ()
    """What somebody else had changed."""


def token_bucket(limits: Limits) -> TokenBucket | None:
    """The bucket for one direction's bandwidth; None without a limit."""
    rate = limits.bandwidth_bit_s // 8
    if rate <= 0:
        return None
    burst = limits.burst_bits // 8 or DEFAULT_BURST_BYTES
    peak = limits.peak_bit_s // 8
    return TokenBucket(
        rate=rate,
        burst=min(max(burst, SMALLEST_BURST_BYTES), _MOST_BURST_BYTES),
        limit=max(rate // QUEUES_PER_S, SMALLEST_QUEUE_BYTES),
        peak_rate=peak if peak > rate else 0,
        peak_burst=max(limits.peak_burst_bytes, SMALLEST_BURST_BYTES) if peak > rate else 0,
    )


def device_name(interface: str) -> str:
    """The device that packets from the interface go through; a function of its name."""
    return DEVICE_PREFIX + hashlib.blake2b(interface.encode(), digest_size=6).hexdigest()


def plan(tracker: DeltaTracker[Key, Value]) -> list[Step]:
    """The steps from actual to desired: what goes, the redirects first; then what comes, the redirects last."""
    steps = []
    gone = dict(tracker.to_delete())
    for key in sorted(gone, key=_order, reverse=True):
        if key.part is Part.BUCKET and Key(Part.DEVICE, key.name) in gone:
            continue  # it goes with its device
        steps.append(Step(key, _deletion(key), None))
    for key, value in sorted(tracker.to_set(), key=lambda item: _order(item[0])):
        steps.append(Step(key, _creation(key, value), value))
    return steps


def _order(key: Key) -> tuple[int, str]:
    return list(Part).index(key.part), key.name


def _deletion(key: Key) -> TcOp:
    match key.part:
        case Part.DEVICE:
            return DeleteDevice(key.name)
        case Part.BUCKET:
            return DeleteBucket(key.name)
        case Part.REDIRECT:
            return DeleteRedirect(key.name)


def _creation(key: Key, value: Value) -> TcOp:
    match value:
        case TokenBucket():
            return SetBucket(key.name, value)
        case str() if key.part is Part.REDIRECT:
            return SetRedirect(key.name, value)
        case _:
            return AddDevice(key.name)


class BandwidthDriver:
    """Owns the token buckets, devices and redirects of workloads in one network namespace."""

    def __init__(self, traffic_control: TrafficControl) -> None:
        self._tc = traffic_control
        self._tracker: DeltaTracker[Key, Value] = DeltaTracker()
        self._ledger: Ledger[Key, Value] = Ledger()
        self._owners: dict[str, str] = {}
        """From device to the interface that it is for."""
        self._absent: set[str] = set()
        """Interfaces that were not there when they were to be limited."""
        self._stale = True
        self.errors: dict[str, KernelError] = {}
        """Of the last attempt, by interface."""

    # --- desired

    def want(self, interface: str, qos: Qos) -> None:
        """The workload behind the interface has this bandwidth; no limits are as ``unwant``."""
        received, sent = token_bucket(qos.ingress), token_bucket(qos.egress)
        device = device_name(interface)
        self._want(Key(Part.BUCKET, interface), received)
        self._want(Key(Part.DEVICE, device), None if sent is None else "")
        self._want(Key(Part.BUCKET, device), sent)
        self._want(Key(Part.REDIRECT, interface), None if sent is None else device)
        if received is None and sent is None:
            self._owners.pop(device, None)
            self._absent.discard(interface)
        else:
            self._owners[device] = interface

    def unwant(self, interface: str) -> None:
        """The interface is not limited."""
        self.want(interface, Qos())
        self.errors.pop(interface, None)

    def wanted(self) -> dict[Key, Value]:
        """All wanted objects, of interfaces that exist or not."""
        return dict(self._tracker.desired)

    def _want(self, key: Key, value: Value | None) -> None:
        if value is None:
            self._tracker.drop_desired(key)
        else:
            self._tracker.set_desired(key, value)

    @property
    def in_sync(self) -> bool:
        """True when ``apply`` would do nothing. O(pending)."""
        return not self._stale and not self._steps()

    # --- actual

    def on_event(self, event: Event) -> None:
        """The kernel's state is as the event says: what was on an interface goes with it."""
        match event:
            case Overrun():
                self._stale = True
            case LinkEvent(link, gone) if gone:
                for part in Part:
                    self._tracker.drop_actual(Key(part, link.name))
                    self._ledger.forget(Key(part, link.name))
            case LinkEvent(link):
                self._absent.discard(link.name)
            case _:
                pass

    def mark_stale(self) -> None:
        """The next ``apply`` reads everything again: for a verification in the background."""
        self._stale = True

    def resync(self) -> None:
        """What is there was read.

        Raises:
            KernelError: it could not be.
        """
        state = self._tc.read()
        actual: dict[Key, Value] = {Key(Part.DEVICE, name): "" for name in state.devices}
        actual |= {Key(Part.REDIRECT, name): device for name, device in state.redirects.items()}
        for name, found in state.buckets.items():
            key = Key(Part.BUCKET, name)
            wanted = self._tracker.desired.get(key)
            actual[key] = wanted if isinstance(wanted, TokenBucket) and is_made_of(found, wanted) else found
        self._tracker.replace_actual(actual)
        self._absent.clear()
        self._stale = False

    # --- reconciliation

    def apply(self) -> TcResult:
        """The kernel shapes as wanted, but for what is in ``errors`` and for interfaces that are not there.

        Raises:
            KernelError: the kernel could not be asked; what it has now is read again by the next call.
        """
        reading = self._stale
        if reading:
            self.resync()
        drifts = tuple(
            Drift(DriftKind.BANDWIDTH, key.name, f"{key.part.value} {text}") for key, text in self._ledger.drifted(self._tracker)
        )
        self.errors = {}
        operations, surprised = self._execute(self._steps())
        if surprised:  # what we believed is not so: believe the kernel, and try once more
            self.resync()
            self.errors = {}
            more, _ = self._execute(self._steps())
            operations += more
        if reading:
            self._ledger.note(self._tracker)
        return TcResult(tuple(operations), dict(self.errors), drifts)

    def _steps(self) -> list[Step]:
        """What is to be done and can be."""
        return [step for step in plan(self._tracker) if step.result is None or step.key.name not in self._absent]

    def _execute(self, steps: list[Step]) -> tuple[list[TcOp], bool]:
        """Executes the steps; also says whether one of them met something that should not have been there."""
        operations = [step.operation for step in steps]
        if not steps:
            return operations, False
        try:
            outcomes = self._tc.execute(operations)
        except KernelError:
            self._stale = True
            raise
        surprised = False
        for step, outcome in zip(steps, outcomes, strict=True):
            surprised = self._learn(step, outcome) or surprised
        return operations, surprised

    def _learn(self, step: Step, outcome: KernelError | None) -> bool:
        """What became of a step is known; True when it is a surprise."""
        key = step.key
        if outcome is not None and step.result is None and outcome.errno in (errno.ENOENT, errno.ENODEV):
            outcome = None  # gone is gone
        if outcome is None:
            if step.result is not None:
                self._tracker.set_actual(key, step.result)
                self._ledger.made(key, step.result)
                return False
            self._tracker.drop_actual(key)
            self._ledger.forget(key)
            if key.part is Part.DEVICE:
                self._tracker.drop_actual(Key(Part.BUCKET, key.name))
            return False
        if outcome.errno == errno.ENODEV:
            self._absent.add(key.name)
            return False
        self.errors.setdefault(self._owners.get(key.name, key.name), outcome)
        return outcome.errno == errno.EEXIST and key.part is Part.DEVICE

"""The daemon of one host: store -> calculation -> kernel and BIRD -> status.

One event loop owns the store and the graph; one thread owns the kernel sockets (``KernelThread``); at most one apply is in flight, and what
changes meanwhile is coalesced by the graph. A store or BIRD that is away changes nothing in the kernel. Loops carry the retries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

import msgspec

from tabinet.agent.bgp import BgpWatcher
from tabinet.agent.dataplane import ApplyReport, Dataplane
from tabinet.agent.feed import Feed
from tabinet.agent.kernelthread import KernelThread
from tabinet.agent.log import Logger
from tabinet.agent.metrics import Metrics
from tabinet.agent.notify import notify
from tabinet.agent.parameters import Parameters, felix_problems, restart_needed
from tabinet.agent.reporter import Reporter
from tabinet.calc.graph import Graph
from tabinet.calc.messages import BgpUpdate, ConfigUpdate, Update
from tabinet.lib.backoff import Backoff
from tabinet.model.keys import ResourceKey
from tabinet.model.report import EndpointTrouble, HostReport
from tabinet.model.status import endpoint_status_path, render_endpoint_status
from tabinet.store.api import WatchBatch
from tabinet.store.syncer import Syncer, SyncState, SyncStatus

SLICE_EVENTS = 500
"""So many store events are decoded before other work gets its turn: about 5 ms."""
REPORTED = 20
"""Most troubles and problems in a report: it is for people."""
COUNTERS_EVERY_S = 5.0


class RestartNeeded(Exception):
    """Parameters that only a new process can take up have changed."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        super().__init__(", ".join(names))


@dataclass(slots=True)
class Agent:
    """Wires the parts together; ``run`` never returns but by an exception."""

    host: str
    version: str
    started: str
    parameters: Parameters
    syncer: Syncer
    graph: Graph
    feed: Feed
    kernel: KernelThread
    dataplane: Dataplane
    bgp: BgpWatcher | None
    reporter: Reporter
    metrics: Metrics
    log: Logger
    retry: Backoff
    chance: Callable[[], float]
    """A number from 0 to 1, for the backoff."""
    status: SyncStatus | None = None
    revision: int = 0
    """Store revision that the kernel holds."""
    kernel_error: str = "the first snapshot is not programmed yet"
    failures: int = 0
    """Applies that failed in a row."""
    endpoints: dict[ResourceKey, tuple[bool, str]] = field(default_factory=dict)
    config_problems: tuple[str, ...] = ()
    _complete: bool = False
    """The first snapshot was seen whole."""
    _dirty: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Follows the store until cancelled.

        Raises:
            ExceptionGroup: with RestartNeeded inside, or a bug.
        """
        loop = asyncio.get_running_loop()
        loop.add_reader(self.dataplane.event_fd(), self._dirty.set)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.syncer.run(self.on_sync_event))
            group.create_task(self._apply_forever())
            group.create_task(self.reporter.run())
            group.create_task(self._count_forever())
            if self.bgp is not None:
                group.create_task(self.bgp.run(self._publish))

    async def on_sync_event(self, event: SyncStatus | WatchBatch) -> None:
        """Takes in what the syncer says, in slices that leave the loop free."""
        if isinstance(event, SyncStatus):
            self.status = event
            self.log.info("store", state=event.state.value, error=event.error or None)
            if event.state is SyncState.IN_SYNC:
                self.feed.on_in_sync()
            self._publish()
        else:
            for start in range(0, max(1, len(event.events)), SLICE_EVENTS):
                self.feed.on_batch(WatchBatch(event.events[start : start + SLICE_EVENTS], event.revision))
                await asyncio.sleep(0)
        self._dirty.set()

    @property
    def in_sync(self) -> bool:
        """True while everything in the store is known."""
        return self.status is not None and self.status.state is SyncState.IN_SYNC

    async def _apply_forever(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            if self.feed.hold:
                continue
            revision = self.feed.revision
            begin = perf_counter()
            updates = self.graph.flush()
            self._complete = self._complete or self.in_sync
            self._route(updates)
            report = await self.kernel.call(self.dataplane.apply, updates, self._complete)
            self._take_report(report, revision, perf_counter() - begin, bool(updates))

    def _route(self, updates: list[Update]) -> None:
        for update in updates:
            match update:
                case BgpUpdate():
                    if self.bgp is not None:
                        self.bgp.set_intent(update.intent)
                case ConfigUpdate():
                    self._on_config(update.parameters)
                case _:
                    pass  # the dataplane's, or nobody's

    def _on_config(self, felix: dict[str, object]) -> None:
        problems = felix_problems(felix, "FelixConfiguration")
        self.config_problems = tuple(str(problem) for problem in problems)
        parameters = self.parameters.under(felix)
        changed = restart_needed(self.parameters, parameters)
        if changed:
            raise RestartNeeded(changed)
        self.parameters = parameters
        self.reporter.interval_s = parameters.seconds("felix", "reporting_interval_s")
        self.reporter.ttl_s = parameters.seconds("felix", "reporting_ttl_s")

    def _take_report(self, report: ApplyReport, revision: int, took_s: float, changed: bool) -> None:
        for key, status in report.endpoints.items():
            self.endpoints[key] = (status.ready, status.reason)
            path = endpoint_status_path(self.host, key)
            if self.parameters.switch("felix", "endpoint_reporting_enabled"):
                self.reporter.set_endpoint(path, render_endpoint_status(status.ready, status.revision, status.reason))
        for key in report.removed:
            self.endpoints.pop(key, None)
            self.reporter.drop_endpoint(endpoint_status_path(self.host, key))
        if report.error:
            self.failures += 1
            delay_s = self.retry.delay_s(self.failures, self.chance)
            self.metrics.apply_errors.inc()
            self.log.error("apply failed", error=report.error, retry_s=round(delay_s, 2))
            asyncio.get_running_loop().call_later(delay_s, self._dirty.set)
        else:
            self.failures = 0
            if self._complete:
                self.revision = revision
        self.kernel_error = report.error if self._complete else self.kernel_error
        if changed or any(report.operations.values()):
            self.metrics.apply_seconds.observe(took_s)
            operations = {name: n for name, n in report.operations.items() if n}
            self.log.info("apply", revision=revision, ms=round(took_s * 1e3, 1), **operations)
        for driver, n in report.operations.items():
            self.metrics.operations.labels(driver).inc(n)
        if self.bgp is not None and report.addresses_changed:
            self.bgp.on_addresses_changed()
        self._publish()
        if self.revision:
            notify("READY=1")

    def _publish(self) -> None:
        """The metrics and the report say what is true now."""
        ready = sum(ok for ok, _ in self.endpoints.values())
        waiting = len(self.endpoints) - ready
        problems = self.problems()
        self.metrics.store_in_sync.set(self.in_sync)
        self.metrics.revision.set(self.revision)
        self.metrics.endpoints.labels("ready").set(ready)
        self.metrics.endpoints.labels("waiting").set(waiting)
        self.metrics.problems.set(len(problems))
        sessions = self.bgp.sessions if self.bgp is not None else ()
        for state in ("up", "down"):
            self.metrics.bgp_sessions.labels(state).set(sum(session.state == state for session in sessions))
        self.reporter.set_report(
            HostReport(
                host=self.host,
                version=self.version,
                started=self.started,
                revision=self.revision,
                in_sync=self.in_sync,
                endpoints_ready=ready,
                endpoints_waiting=waiting,
                troubles=tuple(EndpointTrouble(str(key), reason) for key, (ok, reason) in sorted(self.endpoints.items()) if not ok)[
                    :REPORTED
                ],
                sessions=sessions,
                bird=self.bgp.error if self.bgp is not None else "",
                problems=tuple(problems[:REPORTED]),
                kernel=self.kernel_error,
            )
        )

    def problems(self) -> list[str]:
        """What is wrong with resources, in words."""
        broken = [f"{path}: {problem}" for path, found in sorted(self.feed.problems.items()) for problem in found]
        return [*broken, *self.config_problems, *(str(problem) for problem in self.graph.problems())]

    def health(self) -> tuple[bool, bytes]:
        """(ready, JSON): ready means that the kernel holds what the store says, and that we follow the store."""
        ready = self.in_sync and bool(self.revision) and not self.kernel_error
        state = {
            "ready": ready,
            "in_sync": self.in_sync,
            "revision": self.revision,
            "kernel": self.kernel_error,
            "problems": self.problems()[:REPORTED],
        }
        return ready, msgspec.json.encode(state)

    async def _count_forever(self) -> None:
        while True:
            await asyncio.sleep(COUNTERS_EVERY_S)
            counters = await self.kernel.call(self.dataplane.counters)
            for reason, packets in counters.denied.items():
                self.metrics.denied_packets.labels(reason).set(packets)
            for rule, packets in counters.rules.items():
                self.metrics.policy_packets.labels(rule).set(packets)
            notify("WATCHDOG=1")

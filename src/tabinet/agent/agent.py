"""The daemon of one host: store -> calculation -> kernel and BIRD -> status.

One event loop owns the store and the graph; one thread owns the kernel sockets (``KernelThread``); at most one apply is in flight, and
what changes meanwhile is coalesced by the graph. A store or BIRD that is away changes nothing in the kernel. Loops carry the retries.
While the store is being changed as a whole (``datastoreReady: false``) nothing is taken over from it; what the kernel holds is still kept.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic, perf_counter, thread_time

import msgspec

from tabinet.agent.adopting import adopt
from tabinet.agent.bgp import BgpWatcher
from tabinet.agent.calculation import Calculation
from tabinet.agent.checksum import ChecksumTest
from tabinet.agent.dataplane import ApplyReport, Dataplane, EndpointStatus
from tabinet.agent.holding import Holding
from tabinet.agent.kernelthread import KernelThread, call_aside
from tabinet.agent.log import Logger
from tabinet.agent.metrics import Metrics
from tabinet.agent.moving import Moving
from tabinet.agent.notify import notify
from tabinet.agent.operator import told_in_slices
from tabinet.agent.parameters import Parameters, felix_problems, restart_needed
from tabinet.agent.readiness import Readiness
from tabinet.agent.reporter import Reporter
from tabinet.agent.statistics import make_statistics
from tabinet.agent.statusrequests import StatusRequests
from tabinet.agent.tunnels import TunnelAddresses
from tabinet.analysis.words import rule_text
from tabinet.bgp.replies import BirdStatus
from tabinet.calc.messages import BgpUpdate, ConfigUpdate, PolicyRemove, PolicyUpdate, Update
from tabinet.dataplane.adoption import Adopter
from tabinet.dataplane.nft.counters import TableCounters
from tabinet.dataplane.view import About
from tabinet.lib.backoff import Backoff
from tabinet.model.endpoint_names import parse_endpoint_name
from tabinet.model.keys import ResourceKey
from tabinet.model.report import EndpointTrouble, HostReport
from tabinet.model.status import endpoint_status_path, render_endpoint_status
from tabinet.store.api import WatchBatch
from tabinet.store.syncer import Syncer, SyncState, SyncStatus

REPORTED = 20
"""Most troubles and problems in a report: it is for people."""
SLICE_STATUSES = 500
"""So many statuses of endpoints are noted before other work gets its turn."""
VERIFY_FIRST_S = 1.0
"""When the verification in the background first looks; later it says itself when to look again."""
LOGGED_DRIFTS = 20
"""Most drifts of one apply that have a line in the log; the metric counts all."""
PUBLISH_EVERY_S = 0.1
"""Metrics and report lag behind by this at most: they count everything there is."""
PUBLISH_PAUSE = 50
"""They are made anew after so many times as long as it took: with thousands of endpoints here, what is wrong takes a while to find."""
COUNTERS_FRESH_S = 1.0
NEWS_SETTLE_S = 0.002
"""So long what the kernel tells waits for more: an interface that comes or goes tells several things, and its endpoint is on its way."""


HELD = "the store is being changed as a whole (ClusterInformation datastoreReady is false): nothing is taken over until it is true again"


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
    calculation: Calculation
    kernel: KernelThread
    dataplane: Dataplane
    bgp: BgpWatcher | None
    tunnels: TunnelAddresses
    checksums: ChecksumTest
    reporter: Reporter
    requests: StatusRequests
    metrics: Metrics
    log: Logger
    retry: Backoff
    chance: Callable[[], float]
    """A number from 0 to 1, for the backoff."""
    moving: Moving | None = None
    """Live migrations."""
    holding: Holding | None = None
    """Addresses that several endpoints may have."""
    adopter: Adopter | None = None
    """For connections that are older than the table, if this agent made it."""
    status: SyncStatus | None = None
    revision: int = 0
    """Store revision that the kernel holds; 0 also when nothing in the store concerns hosts."""
    programmed: bool = False
    """The kernel has held a whole snapshot."""
    kernel_error: str = "the first snapshot is not programmed yet"
    failures: int = 0
    """Applies that failed in a row."""
    endpoints: dict[ResourceKey, EndpointStatus] = field(default_factory=dict)
    counters: TableCounters = field(default_factory=lambda: TableCounters({}, {}))
    """As of the last ``count``."""
    readiness: Readiness = field(init=False)
    """Of the endpoints, for the front ends of this process."""
    config_problems: tuple[str, ...] = ()
    tunnel_problems: tuple[str, ...] = ()
    """What keeps tunnels from carrying what they should."""
    workload_mtu: int = 0
    """The largest packet that workloads can send wherever it goes; 0 when no tunnel limits it."""
    _dirty: asyncio.Event = field(default_factory=asyncio.Event)
    _kernel_asked: bool = True
    _policies: set[ResourceKey] = field(default_factory=set)
    """Those that apply to a local endpoint."""
    _told: set[str] = field(default_factory=set)
    """Problems that have a line in the log."""
    _problems: list[str] | None = None
    """What ``problems`` found, while it is still true."""
    _retrying: asyncio.TimerHandle | None = None
    _news: asyncio.TimerHandle | None = None
    """The kernel has told something, which will be looked at."""
    _publishing: bool = False
    """``_publish`` is about to be called."""
    _publishing_took_s: float = 0.0
    _counted_s: float = 0.0

    def __post_init__(self) -> None:
        self.readiness = Readiness(self.endpoints, lambda: self.workload_mtu if self.programmed else None, self.why_not_ready)

    async def run(self) -> None:
        """Follows the store until cancelled.

        Raises:
            ExceptionGroup: with RestartNeeded inside, or a bug.
        """
        try:
            self._listen()
            async with asyncio.TaskGroup() as group:
                group.create_task(self.syncer.run(self.on_sync_event))
                group.create_task(self._apply_forever())
                group.create_task(self._verify_forever())
                group.create_task(self.reporter.run())
                if self.adopter is not None:
                    group.create_task(adopt(self.adopter, self.kernel, self.log))
                group.create_task(self.requests.run())
                group.create_task(self.tunnels.run(self._publish_soon))
                group.create_task(self.checksums.run(self._publish_soon))
                if self.moving is not None:
                    self.moving.ask = self._ask_kernel
                    group.create_task(self.moving.run())
                if self.holding is not None:
                    self.holding.ask = self._ask_kernel
                    group.create_task(self.holding.run())
                if self.bgp is not None:
                    group.create_task(self.bgp.run(self._publish_soon))
        finally:
            asyncio.get_running_loop().remove_reader(self.dataplane.event_fd())

    def _listen(self) -> None:
        """What the kernel will tell from now on is heard; what it has told was read."""
        if self._news is not None:
            self._news.cancel()
            self._news = None
        asyncio.get_running_loop().add_reader(self.dataplane.event_fd(), self._on_kernel_news)

    def _on_kernel_news(self) -> None:
        """The descriptor stays readable until the kernel thread has read it: that there is news is heard once."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self.dataplane.event_fd())
        self._news = loop.call_later(NEWS_SETTLE_S, self._ask_kernel)

    def _ask_kernel(self) -> None:
        """The kernel is to be looked at again, whether or not the calculation has something new."""
        self._kernel_asked = True
        self._dirty.set()

    async def on_sync_event(self, event: SyncStatus | WatchBatch) -> None:
        """Takes in what the syncer says."""
        if isinstance(event, SyncStatus):
            self.status = event
            self.log.info("store", state=event.state.value, error=event.error or None)
            if event.state is SyncState.IN_SYNC:
                self.calculation.on_in_sync()
            self._publish_soon()
        else:
            await self.calculation.take_in(event)
            self._problems = None
            if self.moving is not None:
                self.moving.look_for_ends()
        self._dirty.set()

    @property
    def in_sync(self) -> bool:
        """True while everything in the store is known."""
        return self.status is not None and self.status.state is SyncState.IN_SYNC

    async def _apply_forever(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            begin = perf_counter()
            updates: list[Update] = []
            revision = self.revision
            told = await self.calculation.tell()
            if told is not None:
                updates, revision = told
                self._route(updates)
                if self.calculation.complete:
                    self.tunnels.begin()
            if not updates and not self._kernel_asked and self.programmed:
                # A change that is of no concern here: most are, in a large fabric.
                self.revision = revision
                self._publish_soon()
                continue
            self._kernel_asked = False
            for key, moved in self.moving.take_switches() if self.moving is not None else ():
                await self.kernel.call(self.dataplane.switch, key, moved)
            for key in self.moving.take_ended() if self.moving is not None else ():
                await self.kernel.call(self.dataplane.end_detour, key)
            for address, holder in self.holding.take_heard() if self.holding is not None else ():
                await self.kernel.call(self.dataplane.hear, address, holder)
            report = await self.kernel.call(self.dataplane.apply, updates, self.calculation.complete)
            self._listen()
            if self.moving is not None:
                self.moving.on_applied(report.arriving)
            if self.holding is not None and self.calculation.complete:
                self.holding.on_applied()
            await self._note_statuses(report)
            self._take_report(report, revision, perf_counter() - begin, bool(updates))

    async def _verify_forever(self) -> None:
        """Looks in the background for what no event tells; and as it needs both the loop and the kernel thread, it is the sign of life."""
        wait_s = VERIFY_FIRST_S
        while True:
            await asyncio.sleep(wait_s)
            report = await self.kernel.call(self.dataplane.verify, monotonic())
            wait_s = report.wait_s
            if report.differs:
                self._ask_kernel()
            notify("WATCHDOG=1")

    def _route(self, updates: list[Update]) -> None:
        self._problems = None if updates else self._problems
        if self.moving is not None:
            self.moving.on_updates(updates)
        if self.holding is not None:
            self.holding.on_updates(updates)
        for update in updates:
            self.tunnels.on_update(update)
            self.checksums.on_update(update)
            match update:
                case PolicyUpdate(key=key):
                    self._policies.add(key)
                case PolicyRemove(key=key):
                    self._policies.discard(key)
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
        reporting = self._reports_endpoints()
        self.parameters = parameters
        self.reporter.interval_s = parameters.seconds("felix", "reporting_interval_s")
        self.reporter.ttl_s = parameters.seconds("felix", "reporting_ttl_s")
        if reporting != self._reports_endpoints():
            for key, status in self.endpoints.items():
                self._report_endpoint(key, status)

    def _reports_endpoints(self) -> bool:
        return self.parameters.switch("felix", "endpoint_reporting_enabled")

    def _report_endpoint(self, key: ResourceKey, status: EndpointStatus | None) -> None:
        """The store shall say this of the endpoint; None: nothing."""
        try:
            path = endpoint_status_path(self.host, key)
        except ValueError:
            return  # no place is defined for it; ``problems`` tells
        if status is None or not self._reports_endpoints():
            self.reporter.drop_endpoint(path)
        else:
            self.reporter.set_endpoint(path, render_endpoint_status(status.ready, status.revision, status.reason, failed=status.failed))

    async def _note_statuses(self, report: ApplyReport) -> None:
        """The store will say of the endpoints what the apply found."""
        for place, (key, status) in enumerate(report.endpoints.items(), 1):
            self.endpoints[key] = status
            self.readiness.note(key)
            self._report_endpoint(key, status)
            if place % SLICE_STATUSES == 0:
                await asyncio.sleep(0)
        for key in report.removed:
            self.endpoints.pop(key, None)
            self._report_endpoint(key, None)
        if report.endpoints or report.removed:
            self._problems = None

    def _take_report(self, report: ApplyReport, revision: int, took_s: float, changed: bool) -> None:
        self.tunnel_problems, self.workload_mtu = report.problems, report.workload_mtu
        if report.error:
            self._retry(report.error)
        else:
            self.failures = 0
            if self.calculation.complete:
                self.revision, self.programmed = revision, True
                self.reporter.begin()
        self.kernel_error = report.error if self.calculation.complete else self.kernel_error
        if changed or any(report.operations.values()):
            self.metrics.apply_seconds.observe(took_s)
            operations = {name: n for name, n in report.operations.items() if n}
            self.log.info("apply", revision=revision, ms=round(took_s * 1e3, 1), **operations)
        for driver, n in report.operations.items():
            self.metrics.operations.labels(driver).inc(n)
        for drift in report.drifts:
            self.metrics.drifts.labels(drift.kind.value).inc()
        for drift in report.drifts[:LOGGED_DRIFTS]:
            self.log.warning("drift repaired", kind=drift.kind.value, object=drift.name, what=drift.text)
        if self.bgp is not None and report.addresses_changed:
            self.bgp.on_addresses_changed()
        self._publish_soon()
        if self.programmed:
            notify("READY=1")

    def _retry(self, error: str) -> None:
        self.failures += 1
        delay_s = self.retry.delay_s(self.failures, self.chance)
        self.metrics.apply_errors.inc()
        if error != self.kernel_error:  # once, not with every attempt
            self.log.error("apply failed", error=error, retry_s=round(delay_s, 2))
        if self._retrying is not None:  # there is one attempt to come, however many failed meanwhile
            self._retrying.cancel()
        self._retrying = asyncio.get_running_loop().call_later(delay_s, self._ask_kernel)

    def _publish_soon(self) -> None:
        if not self._publishing:
            self._publishing = True
            asyncio.get_running_loop().call_later(max(PUBLISH_EVERY_S, PUBLISH_PAUSE * self._publishing_took_s), self._publish)

    def _publish(self) -> None:
        """The metrics and the report say what is true now."""
        begin = thread_time()  # others on the machine do not count
        self._publishing = False
        self._set_report()
        self._publishing_took_s = thread_time() - begin

    def _set_report(self) -> None:
        ready = sum(status.ready for status in self.endpoints.values())
        waiting = len(self.endpoints) - ready
        problems = self.problems()
        self._log_problems(problems)
        self.metrics.store_in_sync.set(self.in_sync)
        self.metrics.revision.set(self.revision)
        self.metrics.endpoints.labels("ready").set(ready)
        self.metrics.endpoints.labels("waiting").set(waiting)
        self.metrics.policies.set(len(self._policies))
        self.metrics.problems.set(len(problems))
        sessions = self.bgp.sessions if self.bgp is not None else ()
        bird = self.bgp.status if self.bgp is not None else BirdStatus()
        intent = self.bgp.intent if self.bgp is not None else None
        in_force = self.bgp.in_force if self.bgp is not None else None
        for state in ("up", "down"):
            self.metrics.bgp_sessions.labels(state).set(sum(session.state == state for session in sessions))
        troubles = sorted(key for key, status in self.endpoints.items() if not status.ready)
        self.reporter.set_report(
            HostReport(
                host=self.host,
                version=self.version,
                started=self.started,
                revision=self.revision,
                in_sync=self.in_sync,
                endpoints_ready=ready,
                endpoints_waiting=waiting,
                troubles=tuple(EndpointTrouble(str(key), self.endpoints[key].reason) for key in troubles[:REPORTED]),
                sessions=sessions,
                bird=self.bgp.error if self.bgp is not None else "",
                problems=tuple(problems[:REPORTED]),
                kernel=self.kernel_error,
                bird_version=bird.version,
                router_id=bird.router_id,
                bird_started=bird.started,
                bird_configured=bird.configured,
                as_number=intent.as_number if intent is not None else 0,
                drain=in_force.drain.value if in_force is not None else "",
                workload_mtu=self.workload_mtu,
            )
        )

    def _log_problems(self, problems: list[str]) -> None:
        """What is newly wrong has a line in the log, and what is not wrong any more another."""
        now = set(problems)
        for problem in [problem for problem in problems if problem not in self._told][:REPORTED]:
            self.log.warning("problem", what=problem)
        if self._told and not now:
            self.log.info("no problem any more")
        self._told = now

    def problems(self) -> list[str]:
        """What is wrong with resources, in words, and what keeps this host from following them. O(1) while nothing changes."""
        if self._problems is None:
            broken = [f"{path}: {problem}" for path, found in sorted(self.calculation.feed.problems.items()) for problem in found]
            nameless = [f"{key}: the name is none of an endpoint's, so it has no status" for key in self.endpoints if not _has_status(key)]
            self._problems = [*broken, *nameless, *self.config_problems, *(str(problem) for problem in self.calculation.graph.problems())]
        now = [HELD] if self.calculation.feed.hold else []
        now += [*self.tunnel_problems, *self.tunnels.problems.values(), *self.checksums.problems()]
        if self.reporter.rival:
            now.append(f"another agent reports as host {self.host}: each host needs a name of its own ([agent] host)")
        return [*now, *self._problems]

    def why_not_ready(self) -> str:
        """What keeps the kernel from holding what the store says now; empty: nothing."""
        if not self.in_sync:
            return f"the store is not in sync{f' ({self.status.error})' if self.status is not None and self.status.error else ''}"
        return self.kernel_error or ("" if self.programmed else "the first snapshot is not programmed yet")

    def health(self) -> tuple[bool, bytes]:
        """(ready, JSON): ready means that the kernel holds what the store says, and that we follow the store."""
        ready = not self.why_not_ready()
        state = {
            "ready": ready,
            "in_sync": self.in_sync,
            "revision": self.revision,
            "kernel": self.kernel_error,
            "problems": self.problems()[:REPORTED],
        }
        return ready, msgspec.json.encode(state)

    async def tell_view(self) -> bytes:
        """What the kernel should hold, one record a line (``dataplane.view``)."""
        views = await self.kernel.call(self.dataplane.views)
        about = About(self.host, self.version, self.revision, self.dataplane.nft.generation, self.kernel_error)
        return await told_in_slices(self.kernel, itertools.chain((about,), views))

    async def tell_statistics(self) -> bytes:
        """What the policies have counted, as JSON (``Statistics``)."""
        await self.count()
        graph = self.calculation.graph
        statistics = make_statistics(self.host, self.counters, graph.staged(), self._rule_text)
        return msgspec.json.encode(statistics)

    def _rule_text(self, policy: str, ingress: bool, index: int) -> str:
        kind, *space, name = policy.split("/")
        rules = self.calculation.graph.written_rules(ResourceKey(kind, name, "".join(space)), ingress=ingress)
        return rule_text(rules[index]) if index < len(rules) else ""

    async def count(self) -> None:
        """The metrics have the kernel's counters and what is staged, not older than ``COUNTERS_FRESH_S``."""
        if monotonic() - self._counted_s >= COUNTERS_FRESH_S:
            self.counters = await self.kernel.call(self.dataplane.counters)
            self._counted_s = monotonic()
            await call_aside(self.metrics.set_counts, self.counters, self.calculation.graph.staged())
            self.metrics.set_endpoints(self.dataplane.nft.generation, self.endpoints)


def _has_status(key: ResourceKey) -> bool:
    try:
        parse_endpoint_name(key.name)
    except ValueError:
        return False
    return True

"""Keeps the agent's state in the store: endpoint statuses, the host's heartbeat, the host's report.

Endpoint statuses and the heartbeat are Calico's (``model.status``), so that Neutron's driver and other readers understand them; the
report is ours. Heartbeat and report hang on a lease: they go when the agent is dead. Only what differs is written, in
transactions of up to 100 keys; a store that is away is retried, with the newest state. A restarted agent reads what it left behind and,
once it knows its endpoints (``begin``), deletes what is stale: until then what is there stays, so that nobody sees a port go down and up.

Two agents with one host name overwrite each other; each finds the other's lease on its heartbeat and says so (``rival``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from tabinet.errors import NotFound, StoreError
from tabinet.lib.delta import DeltaTracker
from tabinet.model.report import HostReport
from tabinet.store.api import Datastore, DeleteOp, GetOp, Op, PutOp

BATCH = 100
LAZY_S = 5.0
"""A report in which nothing but the revision is new waits so long: otherwise every change of the cluster would make every host write."""
RETRY_S = 1.0
SETTLE_S = 0.02
"""Between two writes: a change that comes alone is written at once, since attachments wait for it; what comes after it, together."""


@dataclass(slots=True)
class Reporter:
    """Desired and actual reports of one host; ``run`` makes them equal, forever."""

    store: Datastore
    endpoint_prefix: str
    """Where this host's endpoint statuses are."""
    heartbeat_path: str
    last_heartbeat_path: str
    report_path: str
    interval_s: float
    ttl_s: float
    heartbeat: Callable[[], bytes]
    lazy_s: float = LAZY_S
    endpoints: DeltaTracker[str, bytes] = field(default_factory=DeltaTracker)
    report: bytes = b""
    rival: bool = False
    """Another agent writes this host's heartbeat."""
    _begun: bool = False
    _granted_s: float = 0.0
    """The time that the lease was granted for."""
    _beaten: bool = False
    """The heartbeat was written with this lease."""
    _written_report: bytes = b""
    _gist: bytes = b""
    """The report without its revision."""
    _later: asyncio.TimerHandle | None = None
    _lease: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _known: bool = False

    def set_endpoint(self, path: str, status: bytes) -> None:
        """The endpoint's status shall be this."""
        if self.endpoints.desired.get(path) != status:
            self.endpoints.set_desired(path, status)
            self._changed.set()

    def drop_endpoint(self, path: str) -> None:
        """The endpoint shall have no status."""
        self.endpoints.drop_desired(path)
        self._changed.set()

    def begin(self) -> None:
        """The statuses are complete: whatever else the store has of this host is stale."""
        if not self._begun:
            self._begun = True
            self._changed.set()

    def set_report(self, report: HostReport) -> None:
        """The host's report shall be this."""
        encoded = msgspec.json.encode(report)
        if encoded == self.report:
            return
        self.report = encoded
        gist = msgspec.json.encode(msgspec.structs.replace(report, revision=0))
        if gist != self._gist:
            self._gist = gist
            self._changed.set()
        elif self._later is None:
            self._later = asyncio.get_running_loop().call_later(self.lazy_s, self._changed.set)

    async def run(self) -> None:
        """Never returns. Waits have no limit but the interval: what is written next depends on what happens next."""
        while True:
            try:
                await self._run_leased()
            except StoreError:
                # Nobody knows what the store has now: it may have lost our lease, or everything.
                self._lease = 0
                self._known = False
                await asyncio.sleep(RETRY_S)

    async def _run_leased(self) -> None:
        loop = asyncio.get_running_loop()
        if not self._known:
            await self._read_endpoints()
        if not self._lease:
            self._granted_s = self.ttl_s
            self._lease = await self.store.grant(max(2, int(self.ttl_s)))
            self._written_report, self._beaten = b"", False
            await self._beat()
        next_beat = loop.time() + self.interval_s
        while True:
            await self._write()
            settled_s = loop.time() + SETTLE_S
            try:
                async with asyncio.timeout(max(0.0, next_beat - loop.time())):
                    await self._changed.wait()
                await asyncio.sleep(max(0.0, settled_s - loop.time()))
            except TimeoutError:
                next_beat = loop.time() + self.interval_s
                if not await self._renew():
                    return
            self._changed.clear()

    async def _renew(self) -> bool:
        """The lease and the heartbeat are fresh; False when there has to be a new lease."""
        if self._granted_s == self.ttl_s:
            try:
                await self.store.keep_alive(self._lease)
                await self._beat()
                return True
            except NotFound:  # too long without word from us, or another store: look at everything again
                self._known = False
        self._lease = 0
        return False

    async def _read_endpoints(self) -> None:
        actual: dict[str, bytes] = {}
        async for page in self.store.list(self.endpoint_prefix):
            actual.update((item.key, item.value) for item in page.items)
        self.endpoints.replace_actual(actual)
        self._known = True

    async def _beat(self) -> None:
        now = self.heartbeat()
        operations = (GetOp(self.heartbeat_path), PutOp(self.heartbeat_path, now, self._lease), PutOp(self.last_heartbeat_path, now))
        found = (await self.store.txn((), operations)).values[0]
        self.rival = self._beaten and found is not None and found.lease != self._lease
        self._beaten = True

    async def _write(self) -> None:
        puts = list(self.endpoints.to_set())
        deletes = [path for path, _ in self.endpoints.to_delete()] if self._begun else []
        operations: list[Op] = [*(PutOp(path, value) for path, value in puts), *(DeleteOp(path) for path in deletes)]
        for start in range(0, len(operations), BATCH):
            await self.store.txn((), operations[start : start + BATCH])
        for path, value in puts:
            self.endpoints.set_actual(path, value)
        for path in deletes:
            self.endpoints.drop_actual(path)
        if self._later is not None:
            self._later.cancel()
            self._later = None
        report = self.report
        if report and report != self._written_report:
            await self.store.txn((), (PutOp(self.report_path, report, self._lease),))
            self._written_report = report

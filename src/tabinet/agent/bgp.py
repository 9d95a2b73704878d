"""Keeps BIRD as the intent says, and watches its sessions.

One loop: an intent or the host's addresses changed -> configure; once a second -> read the sessions (0.5 ms on the control socket). A BIRD
that is away is an error in the report, never a reason to stop: its configuration file is in place for when it starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from tabinet.agent.kernelthread import KernelThread, call_aside
from tabinet.agent.log import Logger
from tabinet.bgp.drain import DrainWalk
from tabinet.bgp.driver import ApplyResult, BgpDriver
from tabinet.bgp.records import HostFacts, SessionState, SessionStatus
from tabinet.bgp.replies import BirdStatus
from tabinet.calc.messages import BgpIntent
from tabinet.errors import BirdError
from tabinet.model.report import SessionReport

WATCH_EVERY_S = 1.0
SETTLE_S = 0.005
"""Intents that come within this time of each other are configured together."""


@dataclass(slots=True)
class BgpWatcher:
    """The BGP side of an agent."""

    driver: BgpDriver
    read_facts: Callable[[], HostFacts]
    kernel: KernelThread
    log: Logger
    sessions: tuple[SessionReport, ...] = ()
    found: tuple[SessionStatus, ...] = ()
    """The same sessions with all that is known of them."""
    error: str = "no configuration was asked for yet"
    status: BirdStatus = field(default_factory=BirdStatus)
    """What BIRD last said of itself."""
    in_force: BgpIntent | None = None
    """What BIRD was last told and has accepted."""
    walk: DrainWalk = field(default_factory=DrainWalk)
    _intent: BgpIntent | None = None
    _known: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def set_intent(self, intent: BgpIntent | None) -> None:
        """BIRD shall do this."""
        self._intent, self._known = intent, True
        self._changed.set()

    @property
    def intent(self) -> BgpIntent | None:
        """What BIRD shall do."""
        return self._intent

    def on_addresses_changed(self) -> None:
        """The host's addresses changed, so what the intent means may have."""
        self._changed.set()

    async def run(self, publish: Callable[[], None]) -> None:
        """Never returns. ``publish`` is called when sessions or the error changed."""
        while True:
            try:
                async with asyncio.timeout(WATCH_EVERY_S):
                    await self._changed.wait()
                await asyncio.sleep(SETTLE_S)
            except TimeoutError:
                pass
            before = (self.sessions, self.error, self.status, self.in_force)
            if self._known and (self._changed.is_set() or self.error or self.walk.under_way):
                self._changed.clear()
                await self._configure()
            elif self._known:
                self._take(await call_aside(self.driver.refresh))
            if self._known:
                await self._watch()
            if (self.sessions, self.error, self.status, self.in_force) != before:
                publish()

    async def _configure(self) -> None:
        facts = await self.kernel.call(self.read_facts)
        intent = self.walk.intent_at(self._intent, asyncio.get_running_loop().time())
        result = await call_aside(self.driver.apply, intent, facts)
        self._take(result)
        if not result.error:
            self.in_force = intent

    def _take(self, result: ApplyResult | None) -> None:
        if result is None:
            return
        if result.error and result.error != self.error:
            self.log.error("bird refused", error=result.error)
        if result.changed:
            self.log.info("bird configured", peers=len(self._intent.peers) if self._intent else 0)
        self.error = result.error

    async def _watch(self) -> None:
        try:
            sessions = await call_aside(self.driver.sessions)
            self.status = await call_aside(self.driver.control.status)
            revived = await call_aside(self.driver.revive, sessions)
        except BirdError as error:
            self.error, self.sessions, self.found, self.status = str(error), (), (), BirdStatus()
            return
        if revived:
            self.log.warning("bird could not listen, and is asked again", sessions=len(revived))
        reports = tuple(to_report(session) for session in sessions)
        for report in reports:
            if report.name not in {known.name for known in self.sessions if known.state == report.state}:
                self.log.info("bgp session", session=report.name, peer=report.peer, state=report.state, reason=report.reason or None)
        self.sessions, self.found = reports, sessions


def to_report(session: SessionStatus) -> SessionReport:
    """What the host's report says of a session."""
    return SessionReport(
        name=session.name,
        peer=session.peer,
        state="up" if session.state is SessionState.ESTABLISHED else "down",
        reason=session.reason,
        since=session.since,
        imported=sum(channel.imported for channel in session.channels),
        exported=sum(channel.exported for channel in session.channels),
        address=session.address,
        peer_as=session.peer_as or 0,
        origin=session.origin.value if session.origin else "",
        resource=session.resource,
        bgp_state=session.state.value,
        last_error=session.last_error,
        bfd=session.bfd,
        bfd_interval_ms=session.bfd_interval_ms,
        bfd_timeout_ms=session.bfd_timeout_ms,
        filtered=sum(channel.filtered for channel in session.channels),
        preferred=sum(channel.preferred for channel in session.channels),
    )

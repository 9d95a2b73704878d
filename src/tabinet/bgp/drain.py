"""The way from a host that carries traffic to one that is drained, in steps that make no loops on other routers.

GRACEFUL_SHUTDOWN (RFC 8326) makes a top-of-rack router prefer what its spine says, at the same moment as the spine, which still sends to
that router, begins to look for something else: until both have settled, packets go back and forth between them (15 to 35 ms under FRR).
So the paths that the host tells to other ASes get longer first, by one AS number at a time: with each step only routers move that are
farther away than the ones that will move with the next, because a router's way around is always longer than that of the router it leads
over (the argument is that of metric increments: Francois, Shand, Bonaventure, "Disruption Free Topology Reconfiguration in OSPF Networks",
2007). When GRACEFUL_SHUTDOWN comes, nobody is left who would send packets back.

In: what is wanted, and the time. Out: what BIRD shall do now. Pure; O(1). It is about the way only: an agent that starts on a host that is
to be drained begins at its end. The way back needs no steps: whoever is nearest hears first.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from tabinet.calc.intents import BgpIntent, Drain

STEPS = 4
"""Enough for a Clos of five stages, in which ways around are longer by up to four AS numbers."""
STEP_S = 1.0
"""How long the fabric gets for each step."""


@dataclass(slots=True)
class DrainWalk:
    """Where a host is on its way."""

    step_s: float = STEP_S
    _carries: bool = False
    """It was not drained when we looked last."""
    _begun_s: float | None = None

    @property
    def under_way(self) -> bool:
        """True while ``intent_at`` says something else later, for the same intent."""
        return self._begun_s is not None

    def intent_at(self, wanted: BgpIntent | None, now_s: float) -> BgpIntent | None:
        """What BIRD shall do now so that in the end it does what is wanted."""
        if wanted is None or wanted.drain is Drain.NONE or not _has_external(wanted):
            self._carries = wanted is not None and wanted.drain is Drain.NONE
            self._begun_s = None
            return wanted
        if self._carries:
            self._carries, self._begun_s = False, now_s
        if self._begun_s is None:
            return wanted
        step = 1 + int((now_s - self._begun_s) / self.step_s)
        if step <= STEPS:
            return msgspec.structs.replace(wanted, drain=Drain.NONE, prepends=step)
        if step == STEPS + 1 and wanted.drain is Drain.WITHDRAWN:
            return msgspec.structs.replace(wanted, drain=Drain.GRACEFUL)
        self._begun_s = None
        return wanted


def _has_external(intent: BgpIntent) -> bool:
    return any(peer.as_number != (peer.local_as or intent.as_number) and peer.workload is None for peer in intent.peers)

"""What events cost in a lab, measured with packets: how much traffic is lost, how long a change takes to be enforced or reached.

In: a running lab and an event. Out: records with milliseconds. All times are by the monotonic clock, which all namespaces of a machine
share: when a packet was sent tells when the change took effect, so a receiver that is scheduled late adds nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from tabinet.errors import LabError
from tabinet.lab.lab import Lab
from tabinet.lab.traffic import FlowSpec, LossReport, start_traffic

BEFORE_S = 0.3
AFTER_S = 1.5
ENFORCED_AFTER_S = 1.0
"""How long traffic goes on after a change was made, so that its effect is seen."""

Event = Callable[[], Awaitable[object]]


class Cost(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What an event cost."""

    took_ms: float
    """How long the event itself took."""
    flows: int
    sent: int
    lost: int
    """Packets of all flows."""
    worst_ms: float
    """Lost packets of the worst flow, as time."""


async def cost_of(flows: Sequence[FlowSpec], event: Event, *, after_s: float = AFTER_S) -> Cost:
    """What the event costs traffic that is allowed, and runs before, during and after it.

    Raises:
        LabError: no traffic flows at all, so nothing can be said.
    """
    traffic = await start_traffic(flows)
    try:
        await asyncio.sleep(BEFORE_S)
        begin = time.monotonic()
        await event()
        took_ms = (time.monotonic() - begin) * 1000
        await asyncio.sleep(after_s)
    except BaseException:
        await traffic.close()
        raise
    reports = await traffic.stop()
    silent = [f"{r.flow.source} to {r.flow.destination} IPv{r.flow.family}" for r in reports if not r.first_ns]
    if silent:
        raise LabError(f"no packet came from {', '.join(silent)}: is it allowed?")
    return Cost(
        took_ms=round(took_ms, 1),
        flows=len(reports),
        sent=sum(report.sent for report in reports),
        lost=sum(report.lost for report in reports),
        worst_ms=max(report.lost_ms for report in reports),
    )


async def denied_after_ms(flows: Sequence[FlowSpec], change: Event, *, within_s: float = ENFORCED_AFTER_S) -> float:
    """Milliseconds from the beginning of the change until the last packet of any of these flows that still passed was sent; they are
    watched for ``within_s``.

    Raises:
        LabError: a flow did not pass before, or still passes at the end.
    """
    began_ns, reports = await _observe(flows, change, within_s)
    for report in reports:
        if not report.first_ns or report.first_ns > began_ns:
            raise LabError(f"{report.flow.source} did not reach {report.flow.destination} before the change")
        if report.last_ns > began_ns + int(within_s * 1e9) - 100_000_000:
            raise LabError(f"{report.flow.source} still reaches {report.flow.destination}: the change does not deny it")
    return max(report.last_ns - began_ns for report in reports) / 1e6


async def allowed_after_ms(flows: Sequence[FlowSpec], change: Event, *, within_s: float = ENFORCED_AFTER_S) -> float:
    """Milliseconds from the beginning of the change until the first packet of every flow passed, which is waited for ``within_s``.

    Raises:
        LabError: a flow passed before, or never does.
    """
    began_ns, reports = await _observe(flows, change, within_s)
    for report in reports:
        if not report.first_ns:
            raise LabError(f"{report.flow.source} never reaches {report.flow.destination} after the change")
        if report.first_ns < began_ns:
            raise LabError(f"{report.flow.source} reached {report.flow.destination} before the change")
    return max(report.first_ns - began_ns for report in reports) / 1e6


async def _observe(flows: Sequence[FlowSpec], change: Event, for_s: float) -> tuple[int, list[LossReport]]:
    traffic = await start_traffic(flows)
    try:
        await asyncio.sleep(BEFORE_S)
        began_ns = time.monotonic_ns()
        await change()
        await asyncio.sleep(max(0.0, began_ns / 1e9 + for_s - time.monotonic()))
    except BaseException:
        await traffic.close()
        raise
    return began_ns, await traffic.stop()


async def flows_between(lab: Lab, pairs: Sequence[tuple[str, str]], families: Sequence[int] = (4, 6)) -> list[FlowSpec]:
    """UDP flows of the lab's measuring port between these workloads, in these families."""
    return [await lab.flow(source, destination, family) for source, destination in pairs for family in families]

"""How far the takeover of a host has come, and what keeps its end off. Pure.

In: a ``Sighting``. Out: the next step, and the reasons why Felix's rules may not be removed yet. The order is that of docs/from-calico.md.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

from tabinet.agent.takeover.records import Sighting
from tabinet.agent.takeover.routes import superseded_routes

MANY = 5
"""So many endpoints are named as examples."""


class Step(enum.Enum):
    """What is to be done next."""

    PUT_RIGHT = "put-right"
    STOP_CALICO = "stop-calico"
    START_AGENT = "start-agent"
    WAIT = "wait"
    FINISH = "finish"
    DONE = "done"


def next_step(sighting: Sighting, *, blocked: bool) -> tuple[Step, str]:
    """The step, and how it is done."""
    running = ", ".join(f"{process.what} ({process.pid})" for process in sighting.processes)
    waiting = not_ready(sighting)
    if blocked:
        return Step.PUT_RIGHT, "put right what blocks, then look again: tabinet import"
    if sighting.processes:
        return Step.STOP_CALICO, f"stop Calico here, BIRD with SIGKILL so that its peers keep their routes; there run: {running}"
    if sighting.agent.report is None:
        return Step.START_AGENT, f"start the agent: systemctl start tabinet-agent ({sighting.agent.error})"
    if waiting:
        return Step.WAIT, f"wait until the agent is ready, then look again: {'; '.join(waiting)}"
    if has_leftovers(sighting):
        return Step.FINISH, "remove what Felix left: tabinet import --finish"
    return Step.DONE, "nothing: this host is Tabinet's"


def has_leftovers(sighting: Sighting) -> bool:
    """There is something for ``finish`` to remove."""
    traces = sighting.traces
    return bool(traces.tables or traces.nft_tables or traces.ipsets or traces.rules or superseded_routes(sighting))


def refusals(sighting: Sighting) -> list[str]:
    """Why Felix's rules must stay for now; none: they may go."""
    found = [f"{process.what} runs (process {process.pid}: {process.command})" for process in sighting.processes]
    found += [*not_ready(sighting)] if sighting.agent.report is not None else [f"our agent cannot be asked: {sighting.agent.error}"]
    found += [f"{table.name}: {table.closed}, and nothing else there accepts workloads" for table in sighting.traces.tables if table.closed]
    return found + list(sighting.traces.unread)


def not_ready(sighting: Sighting) -> list[str]:
    """Why the agent's policy and routes cannot be relied on; nothing when it does not run. Nobody waits for endpoints without interface."""
    return list(_not_ready(sighting)) if sighting.agent.report is not None else []


def _not_ready(sighting: Sighting) -> Iterator[str]:
    report = sighting.agent.report
    if report is None:
        return
    if report.host != sighting.host:
        yield f"the agent that answers is that of {report.host}, and this is {sighting.host}"
    if not report.in_sync:
        yield "the agent has not read the store yet"
    if report.kernel:
        yield f"kernel: {report.kernel}"
    gone = sum(sighting.link(endpoint.spec.interface_name) is None for endpoint in sighting.endpoints.values())
    if report.endpoints_ready + gone < len(sighting.endpoints):
        reasons = [f"{trouble.endpoint}: {trouble.reason}" for trouble in report.troubles[:MANY]]
        yield f"{report.endpoints_waiting} of {len(sighting.endpoints)} endpoints wait ({'; '.join(reasons)})"

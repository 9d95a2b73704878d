"""What runs in the agent's process beside it, without the agent knowing what it is: the front ends of orchestrators.

The agent gives them its store, its log and word of its state; whoever starts the agent says which there are. They begin once the agent has
its store, and end before it. A bug in one of them ends the process, as any other.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from tabinet.agent.log import Logger
from tabinet.agent.parameters import Parameters
from tabinet.agent.readiness import Readiness
from tabinet.store.api import Datastore


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a companion finds."""

    host: str
    parameters: Parameters
    store: Datastore
    log: Logger
    readiness: Readiness
    """Of the endpoints of this host."""
    why_not_ready: Callable[[], str]
    """What keeps the agent from programming new workloads; empty: nothing."""
    note_machine: Callable[[str, bool], bool] = lambda *_: False
    """The machine behind an interface runs (True), or has stopped to go on elsewhere; False: none moves there."""


Companion = Callable[[Surroundings], AbstractAsyncContextManager[None]]

"""What the agent tells the front ends of its own process: when an endpoint is in the kernel, without the way through the store.

In: the statuses as each apply leaves them. Out: whoever waits for an endpoint goes on in the same turn of the loop; others read the status
from the store, which gets it a moment later. Nothing is kept for endpoints that nobody waits for. O(those who wait for the endpoint).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tabinet.agent.dataplane import EndpointStatus
from tabinet.errors import AttachError
from tabinet.model.keys import ResourceKey


@dataclass(slots=True)
class Readiness:
    """Lets others wait for the endpoints of this host. One event loop."""

    statuses: Mapping[ResourceKey, EndpointStatus]
    """The agent's own, which change."""
    known_mtu: Callable[[], int | None]
    """The largest packet that workloads can send wherever it goes, in bytes; 0: no tunnel limits it; None: not known yet."""
    why_not_ready: Callable[[], str]
    """What keeps the agent from following the store; empty: nothing."""
    _waiting: dict[ResourceKey, list[asyncio.Event]] = field(default_factory=dict)

    def workload_mtu(self) -> int | None:
        """See ``known_mtu``."""
        return self.known_mtu()

    def note(self, key: ResourceKey) -> None:
        """The status of the endpoint has changed."""
        for event in self._waiting.get(key, ()):
            event.set()

    async def wait_until_ready(self, key: ResourceKey, revision: int, wait_s: float) -> None:
        """The kernel has the endpoint of this revision, or a later one.

        Raises:
            AttachError: not within ``wait_s`` seconds; says what was missing.
        """
        changed = asyncio.Event()
        self._waiting.setdefault(key, []).append(changed)
        try:
            async with asyncio.timeout(wait_s):
                while self.missing(key, revision):
                    await changed.wait()
                    changed.clear()
        except TimeoutError:
            agent = self.why_not_ready()
            told = f"the agent is not ready: {agent}" if agent else "the agent follows the store"
            raise AttachError(f"not ready after {wait_s:g} s: {self.missing(key, revision)}; {told}") from None
        finally:
            self._waiting[key].remove(changed)
            if not self._waiting[key]:
                del self._waiting[key]

    def missing(self, key: ResourceKey, revision: int) -> str:
        """Why the kernel does not have the endpoint of this revision, or a later one; empty when it has."""
        status = self.statuses.get(key)
        if status is None:
            return "the agent has not seen the endpoint"
        if status.revision < revision:
            return f"the agent holds revision {status.revision} of the endpoint, and {revision} is wanted"
        if not status.ready:
            return f"the agent reports it {'error' if status.failed else 'down'}: {status.reason}"
        return ""

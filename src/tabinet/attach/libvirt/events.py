"""libvirt is followed: events of domains that move, and what it has forgotten whenever it comes back.

In: a service and its hypervisor. Out: the agent hears of a machine that stops to go on elsewhere with the machine's own stop. Nothing is
asked before there is a domain of ours. A libvirt that goes away is asked again from time to time, and as soon as it calls its hook; domains
run on meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from contextlib import aclosing
from dataclasses import dataclass

from tabinet.attach.libvirt.service import LibvirtService
from tabinet.attach.libvirt.virsh import parse_event
from tabinet.errors import TabinetError
from tabinet.lib.backoff import Backoff

_RETRY = Backoff(first_s=1.0, limit_s=30.0)


@dataclass(frozen=True, slots=True)
class Following:
    """Of one host's libvirt."""

    service: LibvirtService

    async def run(self) -> None:
        """Until cancelled."""
        failures = 0
        while not self.service.seen.is_set():
            try:
                await self.service.look()
                break
            except TabinetError as error:
                failures += 1
                self.service.note("libvirt: the host's domains are not known yet", error=str(error))
                await asyncio.sleep(_RETRY.delay_s(failures, random.random))
        await self.service.seen.wait()
        failures = 0
        while True:
            try:
                async with asyncio.TaskGroup() as group:
                    following = group.create_task(self._follow())
                    await self.service.sync()
                    failures = 0
                    await following
            except* TabinetError as errors:
                self.service.note("libvirt is away", error=str(errors.exceptions[0]))
            failures += 1
            self.service.heard.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RETRY.delay_s(failures, random.random)):
                    await self.service.heard.wait()

    async def _follow(self) -> None:
        async with aclosing(self.service.hypervisor.lines()) as lines:
            async for line in lines:
                event = parse_event(line)
                if event is not None:
                    self.service.on_event(event)

"""What libvirt's hooks do not tell is asked of ``virsh``: which domains run, and, as it happens, that one stops because it moves.

In: a connection URI. Out: UUIDs, lines of events. ``parse_event`` is pure. Hooks tell the end of a migration only a second later, when the
source's QEMU is gone; the event comes with QEMU's own STOP. Nothing is changed here: connections are read-only. A hook that is running
holds libvirt's lock on its domain, so that no answer to a hook may wait for this. Source: virsh(1), commands ``list`` and ``event``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

import msgspec

from tabinet.errors import SetupError

ANSWER_TIMEOUT_S = 60.0
_EVENT = re.compile(r"event 'lifecycle' for domain '?(.+?)'?: (\w+) (.+)")
_MOVED = ("Migrated", "Post-copy")


class Lifecycle(msgspec.Struct, frozen=True):
    """Something has become of a domain."""

    domain: str
    """Its name."""
    what: str
    """``Started``, ``Suspended``, ``Resumed``, ``Stopped``..."""
    why: str

    @property
    def has_stopped_to_move(self) -> bool:
        """It does not run here any more: it goes on at the target of its migration."""
        return self.what == "Suspended" and self.why in _MOVED

    @property
    def runs(self) -> bool:
        """It has begun to run here, or goes on to."""
        return self.what == "Resumed"


def parse_event(line: str) -> Lifecycle | None:
    """The event that a line of ``virsh event`` tells; None: none of these."""
    match = _EVENT.fullmatch(line.strip())
    return Lifecycle(match[1], match[2], match[3]) if match else None


class Hypervisor(Protocol):
    """One host's libvirt."""

    async def active(self) -> frozenset[str]:
        """The UUIDs of the domains that run, or are being started.

        Raises:
            SetupError: libvirt does not answer.
        """
        ...

    def lines(self) -> AsyncGenerator[str, None]:
        """What happens from now on, until libvirt goes away.

        Raises:
            SetupError: it cannot be asked.
        """
        ...


@dataclass(frozen=True, slots=True)
class Virsh:
    """Implements ``Hypervisor``."""

    uri: str

    def _argv(self, *command: str) -> list[str]:
        argv = ["virsh", "--readonly", "--quiet", "--connect", self.uri, *command]
        # Should this process be killed, nobody is left to end what follows events.
        return ["setpriv", "--pdeathsig", "TERM", *argv] if shutil.which("setpriv") else argv

    async def _begin(self, *command: str) -> asyncio.subprocess.Process:
        environment = os.environ | {"LC_ALL": "C"}
        pipe = asyncio.subprocess.PIPE
        try:
            return await asyncio.create_subprocess_exec(
                *self._argv(*command), stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=asyncio.subprocess.STDOUT, env=environment
            )
        except OSError as error:
            raise SetupError(f"virsh cannot be run: {error.strerror}") from error

    async def active(self) -> frozenset[str]:
        process = await self._begin("list", "--uuid")
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                output, _ = await process.communicate()
        except TimeoutError:
            raise SetupError(f"libvirt ({self.uri}) does not answer in {ANSWER_TIMEOUT_S:g} s") from None
        finally:
            await _end(process)
        text = output.decode(errors="replace")
        if process.returncode != 0:
            raise SetupError(f"libvirt ({self.uri}) does not say what runs: {' '.join(text.split())}")
        return frozenset(text.split())

    async def lines(self) -> AsyncGenerator[str, None]:
        process = await self._begin("event", "--event", "lifecycle", "--loop")
        assert process.stdout is not None
        try:
            while line := await process.stdout.readline():
                yield line.decode(errors="replace")
        finally:
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()

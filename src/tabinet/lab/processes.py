"""Starts, watches and ends the processes of a lab, which live on without any supervisor when the command that started them ends.

In: a command line, a namespace and a directory. Out: a ``ProcessRecord`` that identifies the process for good (id and start time), whoever
looks later. Processes run in a session of their own, in the node's network namespace and the node's directory, with standard output and
error in a log file. Each call is O(1).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from tabinet.errors import LabError
from tabinet.lab.build import NETNS_DIRECTORY
from tabinet.lab.state import ProcessRecord

_POLL_S = 0.01
_KILL_TIMEOUT_S = 5.0
NSENTER = "/usr/bin/nsenter"
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "HOME", "VIRTUAL_ENV", "TZ")
"""What processes inherit: a lab must not depend on the shell that it was started from."""


class Launch(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """How to run one component of a node."""

    node: str
    component: str
    argv: tuple[str, ...]
    namespace: str
    directory: Path
    log: Path
    environment: dict[str, str] = {}


def start(launch: Launch) -> ProcessRecord:
    """The component runs, detached; whether it is of any use yet is for the caller to find out.

    Raises:
        LabError: it could not be started.
    """
    launch.directory.mkdir(parents=True, exist_ok=True)
    launch.log.parent.mkdir(parents=True, exist_ok=True)
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | launch.environment
    argv = [NSENTER, f"--net={NETNS_DIRECTORY / launch.namespace}", f"--wd={launch.directory}", "--", *launch.argv]
    try:
        pid = os.posix_spawn(
            NSENTER,
            argv,
            environment,
            setsid=True,
            setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM],
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(launch.log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
        )
        ticks = start_ticks(pid)
    except OSError as error:
        raise LabError(f"{launch.component} of {launch.node} could not be started: {error}") from error
    if ticks is None:
        raise LabError(f"{launch.component} of {launch.node} ended at once: see {launch.log}")
    return ProcessRecord(node=launch.node, component=launch.component, pid=pid, start_ticks=ticks)


def start_ticks(pid: int) -> int | None:
    """When the process started (field 22 of /proc/PID/stat, proc(5)); None when there is none, or only a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def alive(record: ProcessRecord) -> bool:
    """True while the very process that was started runs."""
    with contextlib.suppress(ChildProcessError):  # not our child: started by an earlier command
        os.waitpid(record.pid, os.WNOHANG)
    return start_ticks(record.pid) == record.start_ticks


def send(record: ProcessRecord, number: signal.Signals) -> bool:
    """The signal was sent to the very process that was started; False when it is gone."""
    try:
        descriptor = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return False
    # The descriptor names one process for good, so what is checked after opening it is what gets the signal (pidfd_open(2)).
    try:
        if start_ticks(record.pid) != record.start_ticks:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


async def stop(record: ProcessRecord, timeout_s: float = 5.0) -> None:
    """The process has ended: by itself after SIGTERM, or by SIGKILL after ``timeout_s``."""
    if send(record, signal.SIGTERM) and not await ended([record], timeout_s):
        await kill([record])


async def kill(records: Iterable[ProcessRecord]) -> None:
    """These processes have ended by SIGKILL.

    Raises:
        LabError: one of them is stuck in the kernel.
    """
    left = [record for record in records if send(record, signal.SIGKILL)]
    if not await ended(left, _KILL_TIMEOUT_S):
        stuck = ", ".join(f"{record.component} of {record.node} (process {record.pid})" for record in left if alive(record))
        raise LabError(f"processes that do not die: {stuck}")


async def ended(records: Sequence[ProcessRecord], timeout_s: float) -> bool:
    """True as soon as all have ended, False after ``timeout_s``."""
    return await poll(lambda: not any(alive(record) for record in records), timeout_s)


async def poll(condition: Callable[[], bool], timeout_s: float, every_s: float = _POLL_S) -> bool:
    """True as soon as the condition holds, False after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(every_s)
    return True


def foreign(pids: Iterable[int]) -> list[ProcessRecord]:
    """Records for processes that the lab did not start itself but that are to be ended with it."""
    found = []
    for pid in pids:
        ticks = start_ticks(pid)
        if ticks is not None:
            found.append(ProcessRecord(node="", component="process", pid=pid, start_ticks=ticks))
    return found

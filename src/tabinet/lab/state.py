"""What a lab remembers between commands: its directory, its state file and its lock.

``/run/tabinet/labs/<lab>/`` holds ``state.json`` (topology, processes, faults), the sockets of etcd and of everything else, and a directory
for each node. ``state.json`` is replaced atomically (rename(2)), so a reader sees either the old or the new state, also after a crash. A
lock (flock(2)) beside the directory keeps two commands from changing one lab at the same time; it vanishes with its holder.
A process is known by its id and its start time, so that another one with the same id is never mistaken for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from tabinet.errors import LabError
from tabinet.lab.topology import Topology

ROOT = Path("/run/tabinet/labs")
_LOCK_WAIT_S = 10.0
_LOCK_POLL_S = 0.05
STATE_VERSION = 1


class ProcessRecord(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A process that the lab started."""

    node: str
    component: str
    """``agent``, ``bird``, ``etcd``, or a router's ``zebra``, ``bfdd``, ``bgpd``."""
    pid: int
    start_ticks: int
    """When it started, in clock ticks since boot (field 22 of /proc/PID/stat, proc(5))."""


class Fault(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A cable that was cut and not healed."""

    cable: str
    silent: bool


class LabState(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """All that cannot be computed from the topology."""

    version: int = STATE_VERSION
    topology: Topology
    source: str
    """The topology file, for people."""
    stage: str
    """``building``, ``up`` or ``removing``."""
    processes: tuple[ProcessRecord, ...] = ()
    faults: tuple[Fault, ...] = ()


class LabDirectory(msgspec.Struct, frozen=True, gc=False):
    """The paths of a lab."""

    name: str
    root: Path = ROOT

    @property
    def path(self) -> Path:
        """The lab's directory."""
        return self.root / self.name

    @property
    def state_file(self) -> Path:
        return self.path / "state.json"

    @property
    def lock_file(self) -> Path:
        """Beside the directory, because the directory goes while the lock is held."""
        return self.root / f"{self.name}.lock"

    @property
    def etcd_socket(self) -> Path:
        """etcd's unix socket; etcd wants a port in the name."""
        return self.path / "etcd.sock:0"

    def node(self, name: str) -> Path:
        """The directory of one node."""
        return self.path / "nodes" / name

    def log(self, node: str, component: str) -> Path:
        """Where a process's standard output and error go."""
        return self.node(node) / f"{component}.log"

    def read(self) -> LabState | None:
        """The state, or None when there is none that can be read: no lab, a lab of another version, or a crash before the first write."""
        try:
            return msgspec.json.decode(self.state_file.read_bytes(), type=LabState)
        except (OSError, msgspec.DecodeError):
            return None

    def write(self, state: LabState) -> None:
        """``state`` is on disk, as a whole."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.state_file, msgspec.json.encode(state))

    def remove(self) -> None:
        """Nothing of the lab is in the file system; the lock file stays until the lock is released."""
        shutil.rmtree(self.path, ignore_errors=True)


def write_atomically(path: Path, content: bytes) -> None:
    """``path`` has this content; whoever reads meanwhile sees the old or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)


def running_labs(root: Path = ROOT) -> list[str]:
    """Names of all labs that have a state file."""
    return sorted(path.parent.name for path in root.glob("*/state.json"))


@contextlib.asynccontextmanager
async def exclusive(directory: LabDirectory, wait_s: float = _LOCK_WAIT_S) -> AsyncIterator[None]:
    """While inside, no other command changes the lab.

    Raises:
        LabError: another command held the lock for all of ``wait_s``.
    """
    directory.root.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_s
    descriptor = await _acquire(directory, deadline)
    try:
        yield
    finally:
        if not directory.path.exists():
            directory.lock_file.unlink(missing_ok=True)
        os.close(descriptor)


async def _acquire(directory: LabDirectory, deadline: float) -> int:
    while True:
        descriptor = os.open(directory.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            if time.monotonic() > deadline:
                raise LabError(f"another command is at work on lab {directory.name}: wait until it ends") from None
            await asyncio.sleep(_LOCK_POLL_S)
            continue
        # The file may have been removed by the last holder between our open and our lock: then others lock another file.
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == directory.lock_file.stat().st_ino:
                return descriptor
        os.close(descriptor)

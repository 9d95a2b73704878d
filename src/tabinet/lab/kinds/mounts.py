"""Mounts of their own for container runtimes and libvirt, which have fixed places in the file system, one for each machine.

In: a site and which directories shall be its own. Out: a program that does nothing but hold a mount namespace, and command lines that run
in it. In there the directories are empty and belong to the runtime, the lab's directory is as outside, and nothing that is mounted is seen
anywhere else. All of it is gone when the last process in it has ended: nothing is left to be unmounted. A runtime that is killed and
started again finds what the last one left.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tabinet.errors import LabError
from tabinet.lab.build import run
from tabinet.lab.component import Component
from tabinet.lab.kinds.kind import Site
from tabinet.lab.routers import RouterFile

_PRELUDE = """\
mount --bind {lab} /mnt
for place in {own}; do mount -t tmpfs tmpfs $place; done
mkdir -p {lab}
mount --move /mnt {lab}
"""
_HOLD = """
echo $$ >{pid}.new
mv {pid}.new {pid}
exec sleep infinity
"""


def holder(site: Site, name: str, own: Sequence[str], script: str, files: Sequence[RouterFile] = ()) -> Component:
    """The program that holds the mounts; ``script`` prepares them (sh(1)), once the directories ``own`` are empty."""
    prelude = _PRELUDE.format(lab=site.directory.path, own=" ".join(own))
    text = f"{prelude}{script}{_HOLD.format(pid=_pid_file(site, name))}"
    return site.component(f"{name}-mounts", ("unshare", "--mount", "sh", "-ec", text), files=files, group=name)


def inside(site: Site, name: str, *argv: str) -> tuple[str, ...]:
    """The command in these mounts, as soon as they are there; in the network namespace of whoever starts it."""
    pid = _pid_file(site, name)
    script = f'until [ -s {pid} ]; do sleep 0.02; done; exec nsenter --mount=/proc/$(cat {pid})/ns/mnt -- "$@"'
    return ("sh", "-ec", script, name, *argv)


async def run_inside(site: Site, name: str, argv: Sequence[str], timeout_s: float) -> str:
    """What the command says that runs in these mounts and in the host's network namespace.

    Raises:
        LabError: it failed, or took longer than ``timeout_s``.
    """
    try:
        pid = _pid_file(site, name).read_text().strip()
    except OSError as error:
        raise LabError(f"{site.host} has no mounts for {name}: {error}") from error
    where = (f"--mount=/proc/{pid}/ns/mnt", f"--net=/proc/{pid}/ns/net")
    return await run(["nsenter", *where, "--", *argv], timeout_s=timeout_s)


def _pid_file(site: Site, name: str) -> Path:
    return site.node / f"{name}-mounts.pid"

"""Control groups that container runtimes make for a lab: found by name, emptied and removed.

In: the lab's name. A group of a lab is named like one of its network namespaces, in version 2 of the hierarchy and in each of version 1
(cgroups(7)). Runtimes remove what they made when a container ends, but not when they are killed. O(groups of the lab).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from tabinet.lab.plan import namespace_prefix
from tabinet.lab.processes import poll

ROOT = Path("/sys/fs/cgroup")
_REMOVE_TIMEOUT_S = 5.0
"""A group is busy until the kernel is done with the last of its processes."""


def lab_groups(lab: str, root: Path = ROOT) -> list[Path]:
    """The directories of all groups of a lab, those within others before them."""
    prefix = namespace_prefix(lab)
    tops = [top for pattern in (f"{prefix}*", f"*/{prefix}*") for top in root.glob(pattern) if top.is_dir()]
    return [Path(directory) for top in tops for directory, _, _ in os.walk(top, topdown=False)]


def processes_in_groups(groups: Iterable[Path]) -> list[int]:
    """Ids of all processes in these groups."""
    found: set[int] = set()
    for group in groups:
        with contextlib.suppress(OSError):  # it ended meanwhile
            found |= {int(line) for line in (group / "cgroup.procs").read_text().split()}
    return sorted(found)


async def remove_groups(lab: str, root: Path = ROOT) -> bool:
    """No group of the lab is left, as its processes have ended; False: one is busy still."""

    def removed() -> bool:
        for group in lab_groups(lab, root):
            with contextlib.suppress(OSError):
                group.rmdir()
        return not lab_groups(lab, root)

    return await poll(removed, _REMOVE_TIMEOUT_S)

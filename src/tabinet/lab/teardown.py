"""Removes a lab: all of it, whatever state it is in, and as often as one likes.

In: the lab's name. What there is to remove is found in two ways that do not depend on each other: what the state file remembers, and what
is named after the lab (namespaces) or lives in it (processes, by the inode of their network namespace). So it works after a crash, and
without a state file. Cost: one look at /proc and a few ms for each namespace.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tabinet.lab.build import lab_namespaces, processes_in, remove_namespaces
from tabinet.lab.processes import alive, foreign, kill
from tabinet.lab.state import LabDirectory, ProcessRecord


class Removed(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What was removed; all zero when there was nothing."""

    namespaces: int
    processes: int
    directory: bool


async def take_down(directory: LabDirectory, started: Sequence[ProcessRecord] = ()) -> Removed:
    """Nothing of the lab is left. The caller holds the lab's lock.

    ``started``: processes that the caller knows of and that may not have reached their namespace, nor the state file, yet.

    Raises:
        LabError: the kernel refused something; what could be removed is.
    """
    state = directory.read()
    namespaces = lab_namespaces(directory.name)
    records = dict.fromkeys((*(state.processes if state is not None else ()), *started))
    recorded = [record for record in records if alive(record)]
    known = {record.pid for record in recorded}
    inside = [record for record in foreign(processes_in(namespaces)) if record.pid not in known]
    # All at once and without notice: what they would save is about to be deleted.
    await kill([*recorded, *inside])
    await remove_namespaces(namespaces)
    existed = directory.path.exists()
    directory.remove()
    return Removed(namespaces=len(namespaces), processes=len(recorded) + len(inside), directory=existed)

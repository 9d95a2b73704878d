"""Removes a lab: all of it, whatever state it is in, and as often as one likes.

In: the lab's name. What there is to remove is found in two ways that do not depend on each other: what the state file remembers, and what
is named after the lab (namespaces, control groups) or lives in it (processes, by the inode of their network namespace or by their control
group). So it works after a crash, and without a state file. Cost: two looks at /proc and a few ms for each namespace.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tabinet.errors import LabError
from tabinet.lab.build import lab_namespaces, processes_in, remove_namespaces
from tabinet.lab.groups import lab_groups, processes_in_groups, remove_groups
from tabinet.lab.processes import alive, foreign, kill
from tabinet.lab.state import LabDirectory, ProcessRecord

_SWEEPS = 10


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
    inside = [record for record in _living(directory.name, namespaces) if record.pid not in known]
    # All at once and without notice: what they would save is about to be deleted.
    await kill([*recorded, *inside])
    for _ in range(_SWEEPS):  # what a runtime was about to start when it was killed
        late = _living(directory.name, namespaces)
        if not late:
            break
        inside += late
        await kill(late)
    await remove_namespaces(namespaces)
    existed = directory.path.exists()
    directory.remove()
    if not await remove_groups(directory.name):
        raise LabError(f"control groups that do not go: {', '.join(map(str, lab_groups(directory.name)))}")
    return Removed(namespaces=len(namespaces), processes=len(recorded) + len(inside), directory=existed)


def _living(lab: str, namespaces: Sequence[str]) -> list[ProcessRecord]:
    """All processes in the lab's network namespaces and control groups."""
    return foreign(sorted({*processes_in(namespaces), *processes_in_groups(lab_groups(lab))}))

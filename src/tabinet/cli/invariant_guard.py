"""Invariants that the store keeps, and changes that would break them.

A change is refused when an invariant that holds now would not hold, or could no longer be proven, after it; one that is broken already
is no reason to refuse. The check is of the store as it is read: who writes at the same moment is not seen. ``--force`` writes all the
same and leaves a record, in the store, before the change. Costs nothing but a request where no invariants are kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec

from tabinet.analysis.fabric import Resources
from tabinet.analysis.situation import Calculation, Changes, Situation, calculate
from tabinet.analysis.verify import Verdict, verify
from tabinet.cli.fabric_reading import default_options, read_resources
from tabinet.cli.output import note, printable
from tabinet.cli.place import who_am_i
from tabinet.cli.plan import render_group
from tabinet.errors import DataError, InputError, Problem
from tabinet.model.codec import decode_document
from tabinet.model.invariants import Invariant, read_invariant
from tabinet.model.kept_invariants import INVARIANTS, KEPT_OVERRIDES, OVERRIDES, Override
from tabinet.store.api import Datastore, DeleteOp, PutOp
from tabinet.store.recording import mark_overridden

ChangesOf = Callable[[Resources], Changes]
SHOWN = 3
"""Groups of flows that are shown of an invariant that would break."""
RESOURCES_RECORDED = 50


async def read_invariants(store: Datastore) -> list[Invariant]:
    """The invariants that are kept, by name.

    Raises:
        DataError: one of them cannot be understood: nothing can be said of what it protects.
    """
    found = []
    async for page in store.list(INVARIANTS):
        for item in page.items:
            try:
                found.append(read_invariant(decode_document(item.value, item.key)))
            except InputError as error:
                raise DataError(item.key, error.problems) from error
    return found


async def refuse_what_breaks(store: Datastore, changes_of: ChangesOf, *, command: str, force: bool) -> None:
    """No invariant of the store breaks by these changes; or it was forced, and recorded.

    Raises:
        InputError: an invariant would break.
        DataError: an invariant cannot be understood.
    """
    invariants = await read_invariants(store)
    if not invariants:
        return
    resources = await read_resources(store)
    changes = changes_of(resources)
    broken = newly_broken(resources, changes, invariants) if changes else []
    if not broken:
        return
    for verdict in broken:
        for group in verdict.breaches[:SHOWN]:
            for line in render_group(group):
                note(printable(line))
    if not force:
        raise InputError([_problem(verdict) for verdict in broken])
    mark_overridden(store, [verdict.name for verdict in broken])
    await record_override(store, command, [verdict.name for verdict in broken], [str(key) for key in changes])
    note(f"broken and recorded: {', '.join(verdict.name for verdict in broken)}")


def newly_broken(resources: Resources, changes: Changes, invariants: Sequence[Invariant]) -> list[Verdict]:
    """What holds now and would not hold after the changes."""
    calculation: Calculation = calculate(resources, changes)
    before: Situation = calculation.prepare(changes)
    broken = [verdict for verdict in verify(calculation.change(changes), invariants, options_of=default_options) if not verdict.holds]
    names = {verdict.name for verdict in broken}
    if not names:
        return []
    asked = [each for each in invariants if each.name in names]
    held = {verdict.name for verdict in verify(before, asked, options_of=default_options) if verdict.holds}
    return [verdict for verdict in broken if verdict.name in held]


def _problem(verdict: Verdict) -> Problem:
    what = verdict.unknown or f"{len(verdict.breaches)} group{'' if len(verdict.breaches) == 1 else 's'} of flows against it"
    allowed = f"it must hold{f': {verdict.description}' if verdict.description else ''} (--force breaks it, and is recorded)"
    return Problem(path=f"invariant {verdict.name}", value=what, allowed=allowed)


async def record_override(store: Datastore, command: str, broken: Sequence[str], resources: Sequence[str]) -> None:
    """The record is stored; the oldest beyond ``KEPT_OVERRIDES`` are gone."""
    now = datetime.now(UTC)
    record = Override(
        when=now.isoformat(timespec="seconds"),
        who=who_am_i(os.environ),
        command=command,
        broken=tuple(broken),
        resources=tuple(resources[:RESOURCES_RECORDED]),
    )
    keys = [item.key async for page in store.list(OVERRIDES) for item in page.items]
    old = [DeleteOp(key) for key in keys[: max(0, len(keys) + 1 - KEPT_OVERRIDES)]]
    path = f"{OVERRIDES}{now.strftime('%Y%m%dT%H%M%S.%f')}-{os.getpid()}"
    await store.txn((), [*old[:KEPT_OVERRIDES], PutOp(path, msgspec.json.encode(record))])

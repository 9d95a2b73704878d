"""``tabinet history``: who changed what, when, and where a record is missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from tabinet.cli.completion import complete_kinds, complete_names
from tabinet.cli.place import STORE_OPTIONS, Place
from tabinet.model.history import UNKNOWN, name_of

if TYPE_CHECKING:
    from tabinet.model.history import Changed
    from tabinet.store.api import Datastore
    from tabinet.store.history import Gap, Recorded

NAMED = 5
"""Resources of one transaction that are named in the text; JSON has all."""
NOBODY = "not known"


@click.command()
@click.argument("kind", required=False, shell_complete=complete_kinds)
@click.argument("name", required=False, shell_complete=complete_names)
@click.option("-n", "--namespace", default=None, help="Namespace of a namespaced kind (default: 'default').")
@click.option("--since", metavar="TIME", default=None, help="Only what was changed since: a revision, a time, or 15m, 2h, 3d ago.")
@click.option("--last", type=click.IntRange(1), default=20, show_default=True, help="So many transactions.")
@click.option("--diff", "with_diff", is_flag=True, help="Show what changed in the documents.")
@click.option("--keep-entries", type=click.IntRange(1), default=None, help="From now on keep so many transactions.")
@click.option("--keep-days", type=click.FloatRange(0, min_open=True), default=None, help="From now on keep them so long.")
@click.option("--keep-mb", type=click.IntRange(1), default=None, help="From now on keep at most so much in the store.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, with the documents before and after.")
@STORE_OPTIONS
@click.pass_obj
def history(
    place: Place,
    kind: str | None,
    name: str | None,
    namespace: str | None,
    since: str | None,
    last: int,
    with_diff: bool,
    keep_entries: int | None,
    keep_days: float | None,
    keep_mb: int | None,
    as_json: bool,
) -> int:
    """Show who changed what, and when.

    \b
    tabinet history                           tabinet history np web -n shop --diff
    tabinet history --since 2h --last 100     tabinet history --keep-days 90

    Commands put down what they change with the change itself. What other programs change, the clerk puts down (tabinet clerk; each
    agent is ready to be it); it cannot say who. Endpoints and Nodes that agents and orchestrators write are not in it. Where a record
    is missing, that is said.
    """
    import time

    from tabinet.cli.fabric_reading import with_store
    from tabinet.cli.output import note, printable, show_json
    from tabinet.model.history import is_watched
    from tabinet.store.history import find_gaps, read_log, unrecorded

    path = _path(kind, name, namespace)
    if keep_entries or keep_days or keep_mb:
        with_store(place, lambda store: _keep(store, keep_entries, keep_days, keep_mb))
        return 0
    log = with_store(place, read_log)
    chosen = _choose(log.records, path, since, last, time.time())
    shown = {record.revision for record in chosen}
    gaps = [gap for gap in find_gaps(log.records) if gap.before in shown]
    gaps += [gap for gap in unrecorded(log) if is_watched(gap.path)]
    gaps = [gap for gap in gaps if path in (None, gap.path)]
    if as_json:
        show_json(
            {
                "entries": [_as_json(record, path) for record in chosen],
                "gaps": [{"resource": name_of(gap.path), "after": gap.after, "before": gap.before or None} for gap in gaps],
                "droppedUntil": log.position.dropped,
                "othersSeen": log.position.seen > 0,
            }
        )
        return 0
    for line in render_history(chosen, gaps, path, with_diff=with_diff):
        click.echo(printable(line))
    if log.position.dropped:
        note(f"older changes, up to revision {log.position.dropped}, were dropped")
    if not log.position.seen:
        note("no clerk has run yet: what other programs changed is not in here")
    return 0


def _path(kind: str | None, name: str | None, namespace: str | None) -> str | None:
    """Of the resource that is asked for."""
    from tabinet.cli.targets import parse_key
    from tabinet.model.kept_invariants import invariant_path
    from tabinet.model.keys import path_of

    if kind is None:
        return None
    if name is None:
        raise click.UsageError("say KIND and NAME, or neither")
    if kind.lower() in ("invariant", "invariants"):
        return invariant_path(name)
    try:
        return path_of(parse_key(kind, name, namespace))
    except ValueError as error:
        raise click.UsageError(str(error)) from None


async def _keep(store: Datastore, entries: int | None, days: float | None, megabytes: int | None) -> None:
    import time

    from tabinet.model.history import Limits
    from tabinet.store.history import read_limits, set_limits, trim

    limits = await read_limits(store)
    size_bytes = megabytes * 1_000_000 if megabytes else limits.size_bytes
    limits = Limits(entries or limits.entries, days or limits.days, size_bytes)
    await set_limits(store, limits)
    dropped = await trim(store, time.time())
    click.echo(f"kept: {limits.entries} transactions, {limits.days:g} days, {limits.size_bytes / 1e6:g} MB; {dropped} dropped now")


def _choose(records: Sequence[Recorded], path: str | None, since: str | None, last: int, now: float) -> list[Recorded]:
    from tabinet.store.history import parse_time

    if since is not None and since.isdigit():
        records = [record for record in records if record.revision > int(since)]
    elif since is not None:
        start = parse_time(since, now)
        records = [record for record in records if record.entry.when >= start]
    if path is not None:
        records = [record for record in records if any(change.path == path for change in record.entry.changes)]
    return list(records[-last:])


def _did(change: Changed) -> str:
    if change.deleted:
        return "deleted"
    return {0: "created", UNKNOWN: "changed, found later"}.get(change.before_revision, "changed")


def _as_json(record: Recorded, path: str | None) -> dict[str, Any]:
    entry = record.entry
    changes = [change for change in entry.changes if path in (None, change.path)]
    return {
        "revision": record.revision,
        "when": datetime.fromtimestamp(entry.when, UTC).isoformat(timespec="milliseconds"),
        "who": entry.who or None,
        "program": entry.program or None,
        "overridden": list(entry.overridden),
        "changes": [
            {
                "resource": name_of(change.path),
                "did": _did(change),
                "before": document_of(change.before),
                "after": document_of(change.after),
                "leftOut": change.left_out,
            }
            for change in changes
        ],
    }


def document_of(value: bytes | None) -> Any:
    """What was stored, as JSON has it; a text that cannot be read as it is."""
    from tabinet.errors import DataError
    from tabinet.model.codec import decode_document

    try:
        return None if value is None else decode_document(value)
    except DataError:
        return None if value is None else value.decode(errors="replace")


def render_history(records: Sequence[Recorded], gaps: Sequence[Gap], path: str | None, *, with_diff: bool) -> Iterator[str]:
    """The lines of the text: newest last, each gap before the change that shows it."""
    by_revision: dict[int, list[Gap]] = {}
    for gap in gaps:
        by_revision.setdefault(gap.before, []).append(gap)
    for record in records:
        for gap in by_revision.get(record.revision, ()):
            yield f"  GAP    {name_of(gap.path)} was changed before {record.revision}{_after(gap)}, and nobody put it down"
        entry = record.entry
        when = datetime.fromtimestamp(entry.when, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        yield f"{record.revision:<8} {when}  {entry.who or NOBODY}  {entry.program or 'another program'}"
        if entry.overridden:
            yield f"         FORCED although this broke: {', '.join(entry.overridden)}"
        changes = [change for change in entry.changes if path in (None, change.path)]
        for change in changes[:NAMED]:
            yield f"         {name_of(change.path)} {_did(change)}{' (too large to be kept)' if change.left_out else ''}"
            if with_diff:
                yield from (f"         | {line}" for line in difference(change))
        if len(changes) > NAMED:
            yield f"         and {len(changes) - NAMED} more (--json has them)"
    for gap in by_revision.get(0, ()):
        yield f"  GAP    {name_of(gap.path)} is not as revision {gap.after} left it, and nobody put that down (yet)"


def _after(gap: Gap) -> str:
    return f" and after {gap.after}" if gap.after else ""


def difference(change: Changed) -> Iterator[str]:
    """The lines of the documents that differ, as diff -u shows them."""
    import difflib

    from tabinet.cli.output import to_yaml

    before, after = ([] if value is None else to_yaml([document_of(value)]).splitlines() for value in (change.before, change.after))
    yield from list(difflib.unified_diff(before, after, lineterm="", n=2))[2:]

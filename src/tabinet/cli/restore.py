"""``tabinet diff`` and ``tabinet restore``: what lies between two moments, in flows; and making things as they were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from tabinet.cli.change import FORCE
from tabinet.cli.place import STORE_OPTIONS, Place

if TYPE_CHECKING:
    from tabinet.cli.moments import Moment
    from tabinet.model.keys import ResourceKey
    from tabinet.store.api import Datastore, KeyValue, Op

    KeyValues = Mapping[str, KeyValue]

CHUNK = 100
"""Resources that are restored in one transaction."""


@click.command()
@click.argument("earlier", metavar="REVISION|TIME")
@click.argument("later", metavar="[REVISION|TIME]", default="now")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@STORE_OPTIONS
@click.pass_obj
def diff(place: Place, earlier: str, later: str, as_json: bool) -> int:
    """Say which resources and which flows differ between two moments.

    \b
    tabinet diff 2h                   what the last two hours opened and closed
    tabinet diff 1207 1250            between two revisions (tabinet history)

    A TIME is RFC 3339, or how long ago: 15m, 2h, 3d. Exit code 0: no flow differs, 10: flows were closed only, 11: flows were opened.
    """
    import msgspec

    from tabinet.cli.fabric_reading import options_reader, with_store
    from tabinet.cli.moments import read_moments, render_unsure
    from tabinet.cli.output import note, printable, show_json
    from tabinet.cli.plan import changes_between, exit_code, plan_changes, render_plan

    _, (first, second) = with_store(place, lambda store: read_moments(store, (earlier, later)))
    differ = list(differences(first.past.items, second.past.items))
    found = plan_changes(first.resources, changes_between(first.resources, second.resources), options_reader(place))
    unsure = list(dict.fromkeys([*render_unsure(first), *render_unsure(second)]))
    if as_json:
        show_json(
            {
                "from": first.revision,
                "to": second.revision,
                "resources": [{"resource": name, "did": did} for name, did in differ],
                "flows": msgspec.to_builtins(found),
                "unsure": unsure,
            }
        )
        return exit_code(found)
    click.echo(f"from revision {first.revision} to {second.revision}")
    for name, did in differ:
        click.echo(printable(f"  {name} {did}"))
    for line in render_plan(found):
        click.echo(printable(line))
    for line in unsure:
        note(printable(line))
    return exit_code(found)


def differences(before: KeyValues, after: KeyValues) -> Iterator[tuple[str, str]]:
    """The resources that differ, and what was done to them."""
    from tabinet.model.history import is_recorded, name_of

    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if is_recorded(path) and (None if old is None else old.value) != (None if new is None else new.value):
            yield name_of(path), "created" if old is None else "deleted" if new is None else "changed"


@click.command()
@click.argument("moment", metavar="REVISION|TIME")
@click.argument("names", nargs=-1, metavar="[KIND/NAME]...")
@click.option("-n", "--namespace", default=None, help="Namespace of namespaced kinds (default: 'default').")
@click.option("--plan", "show_plan", is_flag=True, help="Show what it opens and closes, and ask.")
@click.option("--yes", is_flag=True, help="With --plan: do not ask.")
@FORCE
@click.option("--json", "as_json", is_flag=True, help="Say what was done as JSON.")
@STORE_OPTIONS
@click.pass_obj
def restore(
    place: Place, moment: str, names: Sequence[str], namespace: str | None, show_plan: bool, yes: bool, force: bool, as_json: bool
) -> int:
    """Make resources as they were at a revision or time: those named, or all that the history knows.

    \b
    tabinet restore 1207 --plan             tabinet restore 15m np/shop/web gns/partners

    What was created since is deleted, what was deleted is there again. Up to 100 resources in one transaction; whoever changes one of
    them in between makes it fail, and nothing is changed then. Nothing is changed either when an invariant that the store keeps would
    break. Pools are not deleted (tabinet delete ippool does).
    """
    import asyncio

    from tabinet.cli.output import fail, show_outcomes
    from tabinet.cli.place import open_to_change
    from tabinet.errors import StoreError

    done: list[tuple[str, str]] = []
    failed: list[StoreError] = []

    async def run() -> None:
        store = await open_to_change(place, f"restore {moment}")
        try:
            await _restore(store, place, moment, names, namespace, yes=yes if show_plan else None, force=force, done=done)
        except StoreError as error:
            if not done:
                raise
            failed.append(error)
        finally:
            await store.close()

    asyncio.run(run())
    show_outcomes(done, as_json=as_json)
    for error in failed:
        fail(f"only a part was restored: {error}")
    return 1 if failed else 0


async def _restore(
    store: Datastore,
    place: Place,
    word: str,
    names: Sequence[str],
    namespace: str | None,
    *,
    yes: bool | None,
    force: bool,
    done: list[tuple[str, str]],
) -> None:
    """``yes``: None: no plan is shown. ``done`` is told what is stored, as it happens."""
    from tabinet.analysis.fabric import Resources
    from tabinet.analysis.situation import Changes
    from tabinet.cli.careful import plan_and_ask
    from tabinet.cli.invariant_guard import refuse_what_breaks
    from tabinet.cli.moments import read_moments, render_unsure
    from tabinet.cli.output import note
    from tabinet.cli.plan import changes_between
    from tabinet.errors import Conflict
    from tabinet.model.history import name_of
    from tabinet.store.api import Compare, DeleteOp, PutOp
    from tabinet.store.history import last_changes

    log, (then,) = await read_moments(store, (word,))
    known = last_changes(log.records)
    wanted = _paths(names, namespace) if names else [path for path in known if path not in then.past.unsure]
    _refuse_unsure(then, wanted if names else [])
    if not names:
        for line in render_unsure(then):
            note(f"{line}: left alone")
    paths = [path for path in sorted(set(wanted)) if _value(then.past.items, path) != _value(log.items, path)]
    await _refuse_bad(store, log.items, then.past.items, paths)

    def changes_of(resources: Resources) -> Changes:
        from tabinet.model.keys import parse_path

        keys = {parse_path(path) for path in paths}
        after = {key: entry for key, entry in resources.items() if key not in keys}
        after |= {key: entry for key, entry in then.resources.items() if key in keys}
        return changes_between(resources, after)

    await refuse_what_breaks(store, changes_of, command="restore", force=force)
    if yes is not None:
        await plan_and_ask(store, place, changes_of, yes=yes, question="Restore this?")
    for start in range(0, len(paths), CHUNK):
        chunk = paths[start : start + CHUNK]
        compares = [Compare(path, log.items[path].revision if path in log.items else 0) for path in chunk]
        operations: list[Op] = []
        for path in chunk:
            value = _value(then.past.items, path)
            operations.append(DeleteOp(path) if value is None else PutOp(path, value))
        if not (await store.txn(compares, operations)).succeeded:
            raise Conflict("resources were changed while this command looked at them: nothing of them was restored, try again")
        done += [(name_of(path), "restored" if path in then.past.items else "deleted") for path in chunk]


def _value(items: KeyValues, path: str) -> bytes | None:
    item = items.get(path)
    return None if item is None else item.value


def _paths(names: Sequence[str], namespace: str | None) -> list[str]:
    from tabinet.cli.targets import parse_targets
    from tabinet.model.kept_invariants import invariant_path
    from tabinet.model.keys import path_of

    invariants = [name.partition("/")[2] for name in names if name.lower().startswith("invariant/")]
    others = [name for name in names if not name.lower().startswith("invariant/")]
    targets = parse_targets(others, namespace) if others else None
    if targets is not None and targets.listings:
        raise click.UsageError("say which: KIND/NAME")
    try:
        return [*map(invariant_path, invariants), *[path_of(key) for key in (targets.keys if targets else ())]]
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _refuse_unsure(then: Moment, paths: Sequence[str]) -> None:
    """What was asked for by name is known.

    Raises:
        InputError: it is not.
    """
    from tabinet.errors import InputError, Problem
    from tabinet.model.history import name_of

    allowed = f"what stood there at revision {then.revision} is not known: it was changed since without a record, or is too large"
    problems = [Problem(path="", value=name_of(path), allowed=allowed) for path in paths if path in then.past.unsure]
    if problems:
        raise InputError(problems)


async def _refuse_bad(store: Datastore, now: KeyValues, then: KeyValues, paths: Sequence[str]) -> None:
    """What other commands would refuse is refused here too.

    Raises:
        InputError: a pool or what every cluster has would go, a tier would go from under its policies, or a pool would overlap another.
    """
    from tabinet.cli.guards import check_deletable, refuse_bad_pools
    from tabinet.errors import InputError, Problem
    from tabinet.model.codec import decode_document
    from tabinet.model.documents import Document
    from tabinet.model.keys import ResourceKey, parse_path
    from tabinet.store.client import ResourceClient

    gone: list[ResourceKey] = []
    pools: list[Document] = []
    for path in paths:
        key = parse_path(path)
        if isinstance(key, ResourceKey) and path not in then:
            gone.append(key)
        elif isinstance(key, ResourceKey) and key.kind == "IPPool":
            pools.append(Document(data=decode_document(then[path].value, path), source=str(key), index=0, line=0))
    allowed = "pools are not deleted by restore: delete it (tabinet delete ippool), or name what to restore"
    problems = [Problem(path="", value=str(key), allowed=allowed) for key in gone if key.kind == "IPPool"]
    tiers = {key.name for key in gone if key.kind == "Tier"}
    kept = {**now, **then} if tiers else {}
    for tier, policy in _policies_in(tiers, [kept[path] for path in kept if path not in paths or path in then]):
        problems.append(Problem(path="", value=f"Tier/{tier}", allowed=f"would go while {policy} is in it"))
    if problems:
        raise InputError(problems)
    check_deletable(gone)
    await refuse_bad_pools(ResourceClient(store), pools)


def _policies_in(tiers: set[str], items: Sequence[KeyValue]) -> Iterator[tuple[str, str]]:
    """The policies among the items that are in one of the tiers."""
    from tabinet.cli.guards import POLICIES
    from tabinet.errors import DataError
    from tabinet.model.codec import decode_document
    from tabinet.model.keys import ResourceKey, parse_path

    for item in items:
        key = parse_path(item.key)
        if not isinstance(key, ResourceKey) or key.kind not in POLICIES:
            continue
        try:
            spec = decode_document(item.value, item.key).get("spec")
        except DataError:
            continue
        if isinstance(spec, dict) and spec.get("tier") in tiers:
            yield str(spec["tier"]), str(key)

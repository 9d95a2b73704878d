"""``tabinet apply | create | replace | delete``: many resources at once, each outcome told.

All input is checked before anything is written. Then documents go one by one (``apply``: in transactions of a hundred); when one is
refused the others go on, when the store goes away nothing more is tried. What went through is told in any case, also when the command
is interrupted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from tabinet.cli.careful import Duration, plan_and_ask
from tabinet.cli.completion import complete_kinds, complete_names
from tabinet.cli.place import STORE_OPTIONS, Place
from tabinet.cli.sources import FILES

if TYPE_CHECKING:
    from tabinet.cli.pending import Pending
    from tabinet.errors import StoreError, TabinetError
    from tabinet.model.documents import Document
    from tabinet.model.keys import ResourceKey
    from tabinet.store.client import ResourceClient

IN_FLIGHT = 16
"""Documents that are written at the same time."""
JSON = click.option("--json", "as_json", is_flag=True, help="Say what was done as JSON.")
FORCE = click.option("--force", is_flag=True, help="Also if an invariant of the store breaks; that is recorded.")


@dataclass(slots=True)
class Tally:
    """What became of each of the things that a command is about."""

    names: list[str]
    places: list[str]
    """Where each was given, for messages; empty when on the command line."""
    outcomes: dict[int, str] = field(default_factory=dict)
    errors: dict[int, TabinetError] = field(default_factory=dict)
    stopped: StoreError | None = None
    """Why the rest was not tried."""

    def show(self, *, as_json: bool) -> None:
        """Everything that went through, then every error, is told."""
        from tabinet.cli.output import note, show_outcomes

        done = [(self.names[index], outcome) for index, outcome in sorted(self.outcomes.items())]
        errors = [(self.names[index], self._message(index, error)) for index, error in sorted(self.errors.items())]
        show_outcomes(done, as_json=as_json, errors=errors)
        if len(done) < len(self.names):
            note(f"{len(done)} of {len(self.names)} resources went through")

    def code(self) -> int:
        """The exit code.

        Raises:
            StoreError: the store went away before anything went through.
        """
        if self.stopped is not None and not self.outcomes:
            raise self.stopped
        return 1 if self.errors or self.stopped or "not found" in self.outcomes.values() else 0

    def _message(self, index: int, error: TabinetError) -> str:
        return f"{self.places[index]}: {error}" if self.places[index] else str(error)


def tally_of(documents: Sequence[Document]) -> Tally:
    """An empty tally of documents."""
    from tabinet.cli.sources import place_of
    from tabinet.store.client import key_of

    return Tally([str(key_of(document.data)) for document in documents], [place_of(document) for document in documents])


@click.command()
@FILES
@click.option("--plan", "show_plan", is_flag=True, help="Show what it opens and closes, and ask (tabinet plan).")
@click.option("--yes", is_flag=True, help="With --plan: do not ask.")
@click.option(
    "--confirm", "within_s", type=Duration(), help="Take everything back after this time (5m) unless tabinet confirm comes before."
)
@FORCE
@JSON
@STORE_OPTIONS
@click.pass_obj
def apply(
    place: Place,
    files: Sequence[str],
    recursive: bool,
    show_plan: bool,
    yes: bool,
    within_s: float | None,
    force: bool,
    as_json: bool,
) -> int:
    """Create or change resources so that they are as the files say.

    All documents are checked first; with any error in any of them nothing is applied. Nothing is applied either when an invariant that
    the store keeps (tabinet invariant) would break.
    """
    documents = _documents("apply", files, recursive)
    tally = tally_of(documents)

    async def work(client: ResourceClient) -> None:
        from tabinet.cli.guards import refuse_bad_pools
        from tabinet.errors import StoreError

        await refuse_bad_pools(client, documents)
        await refuse_broken_invariants(client, documents, "apply", force)
        if show_plan:
            from tabinet.cli.plan import changes_by_applying

            await plan_and_ask(client.store, place, lambda resources: changes_by_applying(documents, resources), yes=yes)
        waiting = None if within_s is None else await _begin_pending(client, place, documents, within_s)
        try:
            await client.apply_many([document.data for document in documents], on_done=tally.outcomes.__setitem__)
        except StoreError as error:
            tally.stopped = error
        if waiting is not None and tally.stopped is None:
            from tabinet.cli import pending

            await pending.applied(client.store, waiting)

    return run_tally(place, tally, work, command="apply", as_json=as_json)


async def _begin_pending(client: ResourceClient, place: Place, documents: Sequence[Document], within_s: float) -> Pending:
    """From now on everything is taken back in time, whatever becomes of this process."""
    from tabinet.cli import pending
    from tabinet.cli.output import note
    from tabinet.model.keys import path_of
    from tabinet.store.client import key_of

    found = await pending.begin(client.store, [path_of(key_of(document.data)) for document in documents], within_s)
    pending.start_waiting(place, found)
    note(f"rolled back in {within_s:g} s unless you say: tabinet confirm")
    return found


@click.command()
@FILES
@click.option("--skip-exists", is_flag=True, help="What exists already is left as it is, and no error.")
@FORCE
@JSON
@STORE_OPTIONS
@click.pass_obj
def create(place: Place, files: Sequence[str], recursive: bool, skip_exists: bool, force: bool, as_json: bool) -> int:
    """Create the resources in the files; those that exist already are an error.

    All documents are checked first; with any error in any of them nothing is created.
    """
    documents = _documents("create", files, recursive)
    _refuse_versions(documents)
    tally = tally_of(documents)

    async def create_one(client: ResourceClient, index: int) -> str:
        from tabinet.errors import AlreadyExists

        try:
            await client.create(documents[index].data)
        except AlreadyExists:
            if not skip_exists:
                raise
            return "exists already"
        return "created"

    return _run_documents(place, documents, tally, create_one, command="create", force=force, as_json=as_json)


@click.command()
@FILES
@FORCE
@JSON
@STORE_OPTIONS
@click.pass_obj
def replace(place: Place, files: Sequence[str], recursive: bool, force: bool, as_json: bool) -> int:
    """Replace resources that exist by those in the files.

    A document with a resourceVersion replaces only that version; one without replaces any.
    """
    documents = _documents("replace", files, recursive)
    tally = tally_of(documents)

    async def replace_one(client: ResourceClient, index: int) -> str:
        await client.replace(documents[index].data)
        return "replaced"

    return _run_documents(place, documents, tally, replace_one, command="replace", force=force, as_json=as_json)


@click.command()
@click.argument("kind", required=False, shell_complete=complete_kinds)
@click.argument("names", nargs=-1, shell_complete=complete_names)
@FILES
@click.option("-n", "--namespace", default=None, help="Namespace of namespaced kinds (default: 'default').")
@click.option("--ignore-not-found", "-s", "--skip-not-exists", is_flag=True, help="What does not exist is no error.")
@click.option(
    "--force",
    is_flag=True,
    help="A pool in use is disabled and drained; delete it again when its last address is released. "
    "Also if an invariant of the store breaks; that is recorded.",
)
@JSON
@STORE_OPTIONS
@click.pass_obj
def delete(
    place: Place,
    kind: str | None,
    names: Sequence[str],
    files: Sequence[str],
    recursive: bool,
    namespace: str | None,
    ignore_not_found: bool,
    force: bool,
    as_json: bool,
) -> int:
    """Delete resources: KIND NAMES, or those that the files name.

    \b
    tabinet delete gnp old-policy          tabinet delete np/shop/web tier/shop
    tabinet delete -f policies.yaml        (in reverse order: what was created last goes first)

    Tiers that have policies, pools that have addresses in use, and what every cluster has (the tiers default, kube-admin and
    kube-baseline, ...), are not deleted.
    """
    from tabinet.cli.guards import check_deletable, refuse_full_tier

    keys = _keys(kind, names, files, recursive, namespace)
    check_deletable(keys)
    tally = Tally([str(key) for key in keys], [""] * len(keys))

    async def delete_one(client: ResourceClient, index: int) -> str:
        from tabinet.errors import NotFound
        from tabinet.ipam.removal import delete_pool

        key = keys[index]
        await refuse_full_tier(client, key)
        try:
            if key.kind == "IPPool":
                await delete_pool(client.store, key.name, force=force)
            else:
                await client.delete(key)
        except NotFound:
            return "not found"
        return "deleted"

    async def work(client: ResourceClient) -> None:
        if await keeps_invariants(client):
            from tabinet.cli.invariant_guard import refuse_what_breaks
            from tabinet.cli.plan import changes_by_deleting

            await refuse_what_breaks(client.store, lambda found: changes_by_deleting(keys, found), command="delete", force=force)
        # One after the other: a tier goes only when its policies, which stand after it in a file, are gone.
        await run_each(client, tally, delete_one, in_flight=1)

    code = run_tally(place, tally, work, command="delete", as_json=as_json)
    return 0 if ignore_not_found and not tally.errors and not tally.stopped else code


def _keys(kind: str | None, names: Sequence[str], files: Sequence[str], recursive: bool, namespace: str | None) -> list[ResourceKey]:
    """What to delete, in that order."""
    from tabinet.cli.sources import read_keys
    from tabinet.cli.targets import parse_targets

    if (kind is None) == (not files):
        raise click.UsageError("say either a KIND and NAMES, or -f FILE")
    if kind is None:
        return read_keys(files, recursive=recursive)[::-1]
    targets = parse_targets([kind, *names], namespace)
    if targets.listings:
        raise click.UsageError(f"say which {kind} to delete: tabinet delete {kind} NAME")
    return targets.keys


def _documents(command: str, files: Sequence[str], recursive: bool) -> list[Document]:
    from tabinet.cli.sources import read_documents

    if not files:
        raise click.UsageError(f"say what to {command}: tabinet {command} -f FILE")
    return read_documents(files, recursive=recursive)


def _refuse_versions(documents: Sequence[Document]) -> None:
    from tabinet.cli.sources import placed
    from tabinet.errors import InputError, Problem

    allowed = "must be left out when a resource is created (tabinet get --export leaves it out)"
    versions = [(document, document.data["metadata"].get("resourceVersion")) for document in documents]
    problems = [
        placed(Problem(path="metadata.resourceVersion", value=repr(version), allowed=allowed), document)
        for document, version in versions
        if version
    ]
    if problems:
        raise InputError(problems)


def _run_documents(
    place: Place,
    documents: Sequence[Document],
    tally: Tally,
    act: Callable[[ResourceClient, int], Awaitable[str]],
    *,
    command: str,
    force: bool,
    as_json: bool,
) -> int:
    async def work(client: ResourceClient) -> None:
        from tabinet.cli.guards import refuse_bad_pools

        await refuse_bad_pools(client, documents)
        await refuse_broken_invariants(client, documents, command, force)
        await run_each(client, tally, act, in_flight=IN_FLIGHT)

    return run_tally(place, tally, work, command=command, as_json=as_json)


async def refuse_broken_invariants(client: ResourceClient, documents: Sequence[Document], command: str, force: bool) -> None:
    """No invariant of the store breaks by applying the documents. Raises what ``refuse_what_breaks`` raises."""
    if not await keeps_invariants(client):
        return
    from tabinet.cli.invariant_guard import refuse_what_breaks
    from tabinet.cli.plan import changes_by_applying

    await refuse_what_breaks(client.store, lambda resources: changes_by_applying(documents, resources), command=command, force=force)


async def keeps_invariants(client: ResourceClient) -> bool:
    """True when the store keeps any. Asked before anything is imported that only matters then."""
    from tabinet.model.kept_invariants import INVARIANTS

    async for page in client.store.list(INVARIANTS, page_size=1):
        return bool(page.items)
    return False


async def run_each(client: ResourceClient, tally: Tally, act: Callable[[ResourceClient, int], Awaitable[str]], *, in_flight: int) -> None:
    """``act`` has been done for everything in the tally, or the store went away; the tally says what became of each."""
    from tabinet.errors import StoreDenied, StoreUnavailable, TabinetError

    waiting = iter(range(len(tally.names)))

    async def work() -> None:
        for index in waiting:
            if tally.stopped is not None:
                return
            try:
                tally.outcomes[index] = await act(client, index)
            except (StoreUnavailable, StoreDenied) as error:
                tally.stopped = error
            except TabinetError as error:
                tally.errors[index] = error

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(work())


def run_tally(place: Place, tally: Tally, work: Callable[[ResourceClient], Awaitable[None]], *, command: str, as_json: bool) -> int:
    """Runs ``work`` with the store, which records what is changed, tells what became of everything, and returns the exit code.

    Raises:
        TabinetError: before anything was written.
    """
    from tabinet.cli.output import fail
    from tabinet.cli.place import open_to_change
    from tabinet.store.client import ResourceClient

    async def run() -> None:
        store = await open_to_change(place, command)
        try:
            await work(ResourceClient(store))
        finally:
            await store.close()

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        tally.show(as_json=as_json)
        raise
    code = tally.code()
    tally.show(as_json=as_json)
    if tally.stopped is not None:
        fail(str(tally.stopped))
    return code

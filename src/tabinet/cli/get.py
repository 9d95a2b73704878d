"""``tabinet get``: resources as tables, YAML, JSON or names; and as they change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from tabinet.cli.completion import complete_kinds, complete_names
from tabinet.cli.place import STORE_OPTIONS, Place
from tabinet.cli.sources import FILES

if TYPE_CHECKING:
    from tabinet.cli.targets import Targets
    from tabinet.errors import DataError
    from tabinet.store.api import Datastore
    from tabinet.store.following import Change

Document = dict[str, Any]
Matches = Callable[[Document], bool]

FORMATS = ("table", "ps", "wide", "yaml", "json", "name")
CUSTOM = "custom-columns="


def _check_format(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if value in FORMATS or (value.startswith(CUSTOM) and value != CUSTOM):
        return value
    raise click.BadParameter(f"{value!r} is none of {', '.join(FORMATS)}, {CUSTOM}HEADING:path,...")


@click.command()
@click.argument("kind", metavar="[KIND[,KIND]|all]", required=False, shell_complete=complete_kinds)
@click.argument("names", nargs=-1, shell_complete=complete_names)
@FILES
@click.option("-n", "--namespace", default=None, help="Namespace of namespaced kinds (default: 'default').")
@click.option("-A", "-a", "--all-namespaces", is_flag=True, help="All namespaces.")
@click.option("-l", "--selector", default=None, help="Only resources whose labels match: a selector (app == 'web'), or app=web,tier!=db.")
@click.option(
    "-o",
    "--output",
    default="table",
    show_default=True,
    callback=_check_format,
    metavar="FORMAT",
    help="table (ps), wide, yaml, json, name, or custom-columns=HEADING:path,...",
)
@click.option("--json", "as_json", is_flag=True, help="The same as -o json.")
@click.option("-w", "--watch", is_flag=True, help="Go on and show every change, until interrupted.")
@click.option("--export", is_flag=True, help="Without uid, creationTimestamp and resourceVersion: to create the resources elsewhere.")
@STORE_OPTIONS
@click.pass_obj
def get(
    place: Place,
    kind: str | None,
    names: Sequence[str],
    files: Sequence[str],
    recursive: bool,
    namespace: str | None,
    all_namespaces: bool,
    selector: str | None,
    output: str,
    as_json: bool,
    watch: bool,
    export: bool,
) -> int:
    """Show resources: one, some, or all of a KIND.

    \b
    tabinet get nodes                       tabinet get wep -A -o wide
    tabinet get gnp allow-dns -o yaml       tabinet get np,gnp -A -l "team == 'a'"
    tabinet get tier/default np/shop/web    tabinet get -f policies.yaml
    tabinet get all -A -o name              tabinet get wep -A --watch
    tabinet get nodes -o custom-columns=NAME:metadata.name,AS:spec.bgp.asNumber

    Exit code 1 when something asked for by name does not exist, or something stored cannot be read.
    """
    from tabinet.cli.output import fail, note

    targets = _targets(kind, names, files, recursive, namespace, all_namespaces)
    output = "json" if as_json else output
    matches = _selection(selector)
    if watch:
        return _watch(place, targets, matches, output)
    documents, troubles = asyncio.run(_read(place, targets))
    documents = [document for document in documents if matches(document)]
    show_documents([_exported(document) for document in documents] if export else documents, output, single=_is_single(targets))
    for text in troubles:
        fail(text)
    if not documents and not troubles:
        note("no resources found")
    return 1 if troubles else 0


def _targets(
    kind: str | None, names: Sequence[str], files: Sequence[str], recursive: bool, namespace: str | None, all_namespaces: bool
) -> Targets:
    from tabinet.cli.sources import read_keys
    from tabinet.cli.targets import Targets, parse_targets

    if (kind is None) == (not files):
        raise click.UsageError("say either a KIND or -f FILE")
    if kind is None:
        return Targets(read_keys(files, recursive=recursive), [])
    return parse_targets([kind, *names], namespace, all_namespaces=all_namespaces)


def _is_single(targets: Targets) -> bool:
    return len(targets.keys) == 1 and not targets.listings


def _selection(text: str | None) -> Matches:
    if text is None:
        return lambda _: True
    from tabinet.cli.labels import parse_selection

    selector = parse_selection(text)

    def matches(document: Document) -> bool:
        labels = document["metadata"].get("labels")
        return selector.evaluate(labels if isinstance(labels, dict) else {})

    return matches


async def _read(place: Place, targets: Targets) -> tuple[list[Document], list[str]]:
    """What was asked for, and what could not be had."""
    from tabinet.cli.place import open_place
    from tabinet.errors import DataError, NotFound
    from tabinet.store.client import ResourceClient

    store = await open_place(place)
    try:
        client = ResourceClient(store)
        documents: list[Document] = []
        troubles: list[str] = []

        def on_broken(error: DataError) -> None:
            troubles.append(str(error))

        for listing in targets.listings:
            documents += await client.list(listing.kind, listing.namespace, on_broken=on_broken)
        for key in targets.keys:
            try:
                documents.append(await client.get(key))
            except (NotFound, DataError) as error:
                troubles.append(str(error))
        return documents, troubles
    finally:
        await store.close()


def show_documents(documents: Sequence[Document], output: str, *, single: bool = False) -> None:
    """Prints documents in one of the formats. Of no documents only the formats for programs say anything."""
    from tabinet.cli.columns import at
    from tabinet.cli.output import printable, show_json, show_table, show_yaml

    match output:
        case "json" | "yaml":
            value = documents[0] if single and documents else as_list(documents)
            show_json(value) if output == "json" else show_yaml(value)
            return
        case "name":
            for document in documents:
                click.echo(printable(f"{str(document['kind']).lower()}/{at(document, 'metadata.name')}"))
            return
    by_kind: dict[str, list[Document]] = {}
    for document in documents:
        by_kind.setdefault(str(document.get("kind")), []).append(document)
    for number, (name, group) in enumerate(by_kind.items()):
        if len(by_kind) > 1:
            click.echo(f"{'' if number == 0 else chr(10)}{name}")
        columns = _columns(name, output)
        show_table([column.title for column in columns], [[column.cell(document) for column in columns] for document in group])


def as_list(documents: Sequence[Document]) -> Document:
    """Several documents as one: a ``TierList`` and so on for a single kind, else a ``List``."""
    kinds = {str(document.get("kind")) for document in documents}
    kind = f"{kinds.pop()}List" if len(kinds) == 1 else "List"
    return {"apiVersion": "projectcalico.org/v3", "kind": kind, "items": list(documents)}


def _columns(kind: str, output: str) -> Sequence[Any]:
    from tabinet.cli.columns import columns_of, custom_columns
    from tabinet.model.kinds import BY_NAME

    if output.startswith(CUSTOM):
        return custom_columns(kind, output.removeprefix(CUSTOM))
    known = BY_NAME.get(kind)
    return columns_of(kind, namespaced=known is not None and known.namespaced, wide=output == "wide")


def _exported(document: Document) -> Document:
    """The document without what belongs to this cluster."""
    own = ("uid", "creationTimestamp", "resourceVersion", "generation", "managedFields", "selfLink")
    metadata = {name: value for name, value in document["metadata"].items() if name not in own}
    return {**document, "metadata": metadata}


# --- watching -------------------------------------------------------------------------------------------------------


def _watch(place: Place, targets: Targets, matches: Matches, output: str) -> int:
    from tabinet.cli.targets import Listing

    wanted = targets.listings or list(dict.fromkeys(Listing(key.kind, key.namespace or None) for key in targets.keys))
    asyncio.run(_show_changes(place, targets, wanted, matches, output))
    return 0


async def _show_changes(place: Place, targets: Targets, wanted: Sequence[tuple[str, str | None]], matches: Matches, output: str) -> None:
    from contextlib import aclosing

    from tabinet.cli.output import note
    from tabinet.cli.place import open_place
    from tabinet.store.following import follow

    def on_broken(error: DataError) -> None:
        note(f"cannot be read: {error}")

    store: Datastore = await open_place(place)
    shown: set[object] = set()
    table = _ChangeTable(output, titled=len(wanted) > 1)
    try:
        async with aclosing(follow(store, wanted, on_broken=on_broken, on_lost=lambda error: note(f"{error}; trying again"))) as changes:
            async for change in changes:
                if targets.keys and change.key not in targets.keys:
                    continue
                # One that does not match any more is gone, for whoever asked for those that match.
                here = change.event != "DELETED" and matches(change.document)
                event = ("MODIFIED" if change.key in shown else "ADDED") if here else "DELETED"
                if not here and change.key not in shown:
                    continue
                shown.add(change.key) if here else shown.discard(change.key)
                table.show(event, change)
    finally:
        await store.close()


class _ChangeTable:
    """Prints changes, each at once: as a line of a table, or as a document (JSON: one line for each, as the Kubernetes API has it)."""

    def __init__(self, output: str, *, titled: bool) -> None:
        self.output = output
        self.titled = titled
        self.widths: dict[str, list[int]] = {}

    def show(self, event: str, change: Change) -> None:
        """The change is on standard output, and flushed."""
        import json

        from tabinet.cli.output import printable, to_yaml

        match self.output:
            case "json":
                click.echo(json.dumps({"type": event, "object": change.document}, ensure_ascii=False))
            case "yaml":
                click.echo("---\n" + to_yaml([{"type": event, "object": change.document}]), nl=False)
            case "name":
                click.echo(printable(f"{change.key.kind.lower()}/{change.key.name} {event.lower()}"))
            case _:
                self.show_line(event, change)

    def show_line(self, event: str, change: Change) -> None:
        from tabinet.cli.output import line, printable

        columns = _columns(change.key.kind, self.output)
        titles = ["EVENT", *(["KIND"] if self.titled else []), *(column.title for column in columns)]
        cells = [event, *([change.key.kind] if self.titled else []), *(printable(column.cell(change.document)) for column in columns)]
        first = change.key.kind not in self.widths
        known = self.widths.get(change.key.kind, [len("MODIFIED"), *map(len, titles[1:])])
        # What comes later is not known: columns grow with the widest so far.
        widths = self.widths[change.key.kind] = [max(width, len(cell)) for width, cell in zip(known, cells, strict=True)]
        if first:
            click.echo(line(titles, widths))
        click.echo(line(cells, widths))

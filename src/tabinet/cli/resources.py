"""``tabinet apply | get | delete``: resources by file or by name."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tabinet.cli.output import fail, show_json, show_table, show_yaml

if TYPE_CHECKING:
    from tabinet.errors import Problem
    from tabinet.model.documents import Document
    from tabinet.model.keys import ResourceKey
    from tabinet.store.client import ResourceClient

FILES = click.option(
    "-f",
    "--filename",
    "files",
    multiple=True,
    metavar="FILE|DIR|-",
    help="YAML or JSON, several documents allowed; repeatable; '-' reads standard input.",
)


@click.command()
@FILES
@click.option("--json", "as_json", is_flag=True, help="Say what was done as JSON.")
@click.pass_obj
def apply(config: str | None, files: Sequence[str], as_json: bool) -> int:
    """Create or change resources so that they are as the files say.

    All documents are checked first; with any error in any of them nothing is applied.
    """
    from tabinet.cli.context import open_configured_store
    from tabinet.store.client import ResourceClient

    if not files:
        raise click.UsageError("say what to apply: tabinet apply -f FILE")
    documents = read_documents(files)

    async def run() -> Sequence[tuple[str, str]]:
        store = await open_configured_store(config)
        try:
            return await ResourceClient(store).apply_many([document.data for document in documents])
        finally:
            await store.close()

    outcomes = asyncio.run(run())
    if as_json:
        show_json([{"resource": name, "outcome": outcome} for name, outcome in outcomes])
    else:
        for name, outcome in outcomes:
            click.echo(f"{name} {outcome}")
    return 0


@click.command()
@click.argument("kind", required=False)
@click.argument("names", nargs=-1)
@FILES
@click.option("-n", "--namespace", default=None, help="Namespace of namespaced kinds (default: 'default').")
@click.option("-A", "--all-namespaces", is_flag=True, help="All namespaces.")
@click.option("-o", "--output", type=click.Choice(["table", "wide", "yaml", "json", "name"]), default="table", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The same as -o json.")
@click.pass_obj
def get(
    config: str | None,
    kind: str | None,
    names: Sequence[str],
    files: Sequence[str],
    namespace: str | None,
    all_namespaces: bool,
    output: str,
    as_json: bool,
) -> int:
    """Show resources of a KIND (all of them, or those with NAMES), or those that the files name.

    \b
    tabinet get nodes                     tabinet get wep -A -o wide
    tabinet get gnp allow-dns -o yaml     tabinet get -f policies.yaml
    """
    from tabinet.cli.context import open_configured_store
    from tabinet.errors import NotFound
    from tabinet.store.client import ResourceClient

    keys, listing = _what(kind, names, files, namespace, all_namespaces)

    async def run() -> tuple[list[dict[str, object]], list[str]]:
        store = await open_configured_store(config)
        client = ResourceClient(store)
        missing = []
        try:
            found = []
            if listing is not None:
                found += await client.list(listing[0], listing[1])
            for key in keys:
                try:
                    found.append(await client.get(key))
                except NotFound as error:
                    missing.append(str(error))
            return found, missing
        finally:
            await store.close()

    documents, missing = asyncio.run(run())
    _show(documents, "json" if as_json else output, single=len(keys) == 1 and listing is None)
    for text in missing:
        fail(text)
    return 1 if missing else 0


@click.command()
@click.argument("kind", required=False)
@click.argument("names", nargs=-1)
@FILES
@click.option("-n", "--namespace", default=None, help="Namespace of namespaced kinds (default: 'default').")
@click.option("--ignore-not-found", is_flag=True, help="What does not exist is no error.")
@click.option("--json", "as_json", is_flag=True, help="Say what was done as JSON.")
@click.pass_obj
def delete(
    config: str | None,
    kind: str | None,
    names: Sequence[str],
    files: Sequence[str],
    namespace: str | None,
    ignore_not_found: bool,
    as_json: bool,
) -> int:
    """Delete resources: KIND NAMES, or those that the files name (in reverse order)."""
    from tabinet.cli.context import open_configured_store
    from tabinet.errors import NotFound
    from tabinet.store.client import ResourceClient

    keys, listing = _what(kind, names, files, namespace, False)
    if listing is not None:
        raise click.UsageError(f"say which {kind} to delete: tabinet delete {kind} NAME")

    async def run() -> list[tuple[str, str]]:
        store = await open_configured_store(config)
        client: ResourceClient = ResourceClient(store)
        outcomes = []
        try:
            for key in reversed(keys):
                try:
                    await client.delete(key)
                    outcomes.append((str(key), "deleted"))
                except NotFound:
                    outcomes.append((str(key), "not found"))
            return outcomes
        finally:
            await store.close()

    outcomes = asyncio.run(run())
    if as_json:
        show_json([{"resource": name, "outcome": outcome} for name, outcome in outcomes])
    else:
        for name, outcome in outcomes:
            click.echo(f"{name} {outcome}")
    return 1 if not ignore_not_found and any(outcome == "not found" for _, outcome in outcomes) else 0


def read_documents(files: Sequence[str]) -> list[Document]:
    """All documents of the files, valid and with defaults.

    Raises:
        InputError: with every problem of every document.
    """
    import msgspec

    from tabinet.errors import InputError
    from tabinet.model.defaults import with_defaults
    from tabinet.model.documents import load_documents
    from tabinet.model.validate import validate

    problems: list[Problem] = []
    documents: list[Document] = []
    for source, data in _read_files(files, problems):
        try:
            documents += load_documents(data, source)
        except InputError as error:
            problems += error.problems
    for document in documents:
        problems += validate(document)
    if problems:
        raise InputError(problems)
    return [msgspec.structs.replace(document, data=with_defaults(document.data)) for document in documents]


def _read_files(files: Sequence[str], problems: list[Problem]) -> list[tuple[str, bytes]]:
    from tabinet.errors import Problem

    read: list[tuple[str, bytes]] = []
    for name in files:
        if name == "-":
            read.append(("standard input", click.get_binary_stream("stdin").read()))
            continue
        path = Path(name)
        paths = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml", ".json")) if path.is_dir() else [path]
        for each in paths:
            try:
                read.append((str(each), each.read_bytes()))
            except OSError as error:
                problems.append(Problem(path="", value=str(each), allowed=f"must be a readable file ({error.strerror})"))
    return read


def _what(
    kind: str | None, names: Sequence[str], files: Sequence[str], namespace: str | None, all_namespaces: bool
) -> tuple[list[ResourceKey], tuple[str, str | None] | None]:
    """The keys named, or (kind, namespace) to list."""
    from tabinet.model.keys import ResourceKey
    from tabinet.model.kinds import find_kind

    if (kind is None) == (not files):
        raise click.UsageError("say either a KIND or -f FILE")
    if kind is None:
        return [key_of(document.data) for document in read_documents(files)], None
    found = find_kind(kind)
    if found is None:
        from tabinet.model.kinds import KINDS

        raise click.UsageError(f"there is no kind {kind!r}; there are: {', '.join(sorted(k.plural for k in KINDS))}")
    where = (namespace or "default") if found.namespaced else ""
    if names:
        return [ResourceKey(found.name, name, where) for name in names], None
    return [], (found.name, None if all_namespaces or not found.namespaced else where)


def key_of(document: dict[str, object]) -> ResourceKey:
    """The key of a valid document."""
    from tabinet.model.keys import ResourceKey
    from tabinet.model.kinds import find_kind

    metadata = document["metadata"]
    kind = find_kind(str(document["kind"]))
    if not isinstance(metadata, dict) or kind is None:
        raise TypeError("not a valid document")
    return ResourceKey(kind.name, str(metadata["name"]), str(metadata.get("namespace") or "default") if kind.namespaced else "")


def _show(documents: list[dict[str, object]], output: str, *, single: bool) -> None:
    from tabinet.cli.columns import at, columns_of
    from tabinet.model.kinds import find_kind

    if output in ("json", "yaml"):
        value: object = documents[0] if single and documents else {"apiVersion": "projectcalico.org/v3", "kind": "List", "items": documents}
        if output == "json":
            show_json(value)
        else:
            show_yaml(value)
        return
    if output == "name":
        for document in documents:
            click.echo(f"{str(document['kind']).lower()}/{at(document, 'metadata.name')}")
        return
    by_kind: dict[str, list[dict[str, object]]] = {}
    for document in documents:
        by_kind.setdefault(str(document["kind"]), []).append(document)
    for name, group in by_kind.items():
        kind = find_kind(name)
        columns = columns_of(name, namespaced=kind is not None and kind.namespaced, wide=output == "wide")
        show_table([title for title, _ in columns], [[cell(document) for _, cell in columns] for document in group])
    if not documents:
        click.echo("no resources found", err=True)

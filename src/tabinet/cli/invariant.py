"""``tabinet invariant``: statements that the store keeps, and that no change may break."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import click

from tabinet.cli.place import STORE_OPTIONS, Place, open_place, open_to_change
from tabinet.cli.sources import FILES

if TYPE_CHECKING:
    from tabinet.store.api import Datastore

Answer = TypeVar("Answer")


@click.group()
def invariant() -> None:
    """Statements that must always hold, kept in the store.

    Commands that change resources refuse what would break one; `tabinet verify` without files proves all of them.
    """


@invariant.command("set")
@FILES
@STORE_OPTIONS
@click.pass_obj
def set_invariants(place: Place, files: Sequence[str], recursive: bool) -> int:
    """Keep the invariants in FILES; one of the same name is replaced.

    They are kept whether they hold or not; what is broken already does not keep others from changing things.
    """
    from tabinet.cli.sources import read_own
    from tabinet.cli.verify import read_invariants
    from tabinet.model.codec import encode_document
    from tabinet.model.kept_invariants import invariant_path
    from tabinet.store.api import PutOp

    if not files:
        raise click.UsageError("say what to keep: tabinet invariant set -f FILE")
    documents = read_own(files, recursive=recursive)
    paths = [invariant_path(each.name) for each in read_invariants(documents)]

    async def write(store: Datastore) -> None:
        for path, document in zip(paths, documents, strict=True):
            await store.txn((), [PutOp(path, encode_document(document.data))])
            click.echo(f"{document.data['metadata']['name']} kept")

    _with_store(place, write, "invariant set")
    return 0


@invariant.command("list")
@click.option("-o", "--output", type=click.Choice(["text", "yaml"]), default="text", help="How to show them.")
@STORE_OPTIONS
@click.pass_obj
def list_invariants(place: Place, output: str) -> int:
    """Show the invariants that are kept."""
    from tabinet.cli.output import show_table, to_yaml
    from tabinet.model.codec import decode_document
    from tabinet.model.kept_invariants import INVARIANTS

    async def read(store: Datastore) -> list[dict[str, object]]:
        return [decode_document(item.value, item.key) async for page in store.list(INVARIANTS) for item in page.items]

    documents = _with_store(place, read)
    if output == "yaml":
        click.echo(to_yaml(documents), nl=False)
        return 0
    rows = []
    for document in documents:
        metadata, spec = document.get("metadata"), document.get("spec")
        if isinstance(metadata, dict) and isinstance(spec, dict):
            rows.append(
                [
                    metadata.get("name"),
                    next((word for word in ("never", "always", "isolated") if word in spec), ""),
                    spec.get("description", ""),
                ]
            )
    show_table(["NAME", "SAYS", "DESCRIPTION"], rows)
    return 0


@invariant.command("delete")
@click.argument("names", nargs=-1, required=True)
@STORE_OPTIONS
@click.pass_obj
def delete_invariants(place: Place, names: Sequence[str]) -> int:
    """Keep these no longer."""
    from tabinet.cli.output import fail
    from tabinet.model.kept_invariants import invariant_path
    from tabinet.store.api import DeleteOp

    async def write(store: Datastore) -> int:
        missing = 0
        for name in names:
            path = invariant_path(name)
            if await store.get(path) is None:
                fail(f"there is no invariant {name}")
                missing += 1
                continue
            await store.txn((), [DeleteOp(path)])
            click.echo(f"{name} deleted")
        return missing

    return 1 if _with_store(place, write, "invariant delete") else 0


@invariant.command()
@STORE_OPTIONS
@click.pass_obj
def overrides(place: Place) -> int:
    """Show who broke invariants with --force: the latest 100 times."""
    import msgspec

    from tabinet.cli.output import show_table
    from tabinet.model.kept_invariants import OVERRIDES, Override

    async def read(store: Datastore) -> list[Override]:
        return [msgspec.json.decode(item.value, type=Override) async for page in store.list(OVERRIDES) for item in page.items]

    rows = [[each.when, each.who, each.command, ", ".join(each.broken), ", ".join(each.resources)] for each in _with_store(place, read)]
    show_table(["WHEN", "WHO", "COMMAND", "BROKEN", "RESOURCES"], rows)
    return 0


def _with_store(place: Place, work: Callable[[Datastore], Awaitable[Answer]], program: str = "") -> Answer:
    async def run() -> Answer:
        store = await (open_to_change(place, program) if program else open_place(place))
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())

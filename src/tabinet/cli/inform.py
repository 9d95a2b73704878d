"""``tabinet validate | version``: what files and programs are, without changing anything."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from tabinet.cli.place import STORE_OPTIONS, Place
from tabinet.cli.sources import FILES

if TYPE_CHECKING:
    from tabinet.errors import Problem


@click.command()
@FILES
@click.option("--json", "as_json", is_flag=True, help="The problems as JSON.")
def validate(files: Sequence[str], recursive: bool, as_json: bool) -> int:
    """Check files without a store: every error with its document, line and path.

    Exit code 2 when there are errors. What only the store knows (pools there that overlap) is checked by apply.
    """
    from tabinet.cli.output import show_json
    from tabinet.cli.sources import read_documents
    from tabinet.errors import InputError

    if not files:
        raise click.UsageError("say what to check: tabinet validate -f FILE")
    try:
        documents = read_documents(files, recursive=recursive)
    except InputError as error:
        if not as_json:
            raise
        show_json({"valid": False, "problems": [_as_json(problem) for problem in error.problems]})
        return 2
    if as_json:
        show_json({"valid": True, "documents": len(documents), "problems": []})
    else:
        click.echo(f"{len(documents)} document{'' if len(documents) == 1 else 's'}: no problems")
    return 0


def _as_json(problem: Problem) -> dict[str, Any]:
    import msgspec

    fields: dict[str, Any] = msgspec.structs.asdict(problem)
    return fields


@click.command()
@click.option("--client", "client_only", is_flag=True, help="Only the version of this program; no store is asked.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@STORE_OPTIONS
@click.pass_obj
def version(place: Place, client_only: bool, as_json: bool) -> int:
    """Show the version of this program and what the cluster says of itself.

    Exit code 3 when the store does not answer.
    """
    from tabinet import __version__
    from tabinet.cli.output import show_json
    from tabinet.errors import TabinetError

    found = {"client": __version__}
    failure: TabinetError | None = None
    if not client_only:
        try:
            found |= asyncio.run(_cluster(place))
        except TabinetError as error:
            failure = error
    if as_json:
        show_json(found)
    else:
        for name, value in found.items():
            click.echo(f"{_TITLES[name]:<18}{value}")
    if failure is not None:
        raise failure
    return 0


_TITLES = {
    "client": "Client version:",
    "cluster": "Cluster version:",
    "type": "Cluster type:",
    "guid": "Cluster GUID:",
    "ready": "Datastore ready:",
    "store": "Store:",
}


async def _cluster(place: Place) -> dict[str, str]:
    """What ClusterInformation says, and what the store is."""
    from tabinet.cli.columns import at
    from tabinet.cli.place import open_place
    from tabinet.errors import NotFound
    from tabinet.model.keys import ResourceKey
    from tabinet.store.client import ResourceClient

    store = await open_place(place)
    try:
        try:
            document = await ResourceClient(store).get(ResourceKey("ClusterInformation", "default"))
        except NotFound:
            document = {}
        status = getattr(store, "status", None)  # etcd has one, it is not part of the protocol
        member = await status() if status is not None else None
        return {
            "cluster": at(document, "spec.calicoVersion", "unknown"),
            "type": at(document, "spec.clusterType", "unknown"),
            "guid": at(document, "spec.clusterGUID", "unknown"),
            "ready": at(document, "spec.datastoreReady", "unknown"),
            "store": f"etcd {member.version} at {member.endpoint}" if member is not None else type(store).__name__,
        }
    finally:
        await store.close()

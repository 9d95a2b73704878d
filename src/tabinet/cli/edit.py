"""``tabinet patch | label``: parts of one resource, read, changed and written back; repeated when somebody else wrote in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tabinet.cli.change import FORCE, JSON
from tabinet.cli.completion import complete_kinds, complete_names
from tabinet.cli.place import STORE_OPTIONS, Place

if TYPE_CHECKING:
    from tabinet.cli.patches import Patch
    from tabinet.errors import Problem
    from tabinet.model.keys import ResourceKey
    from tabinet.store.client import Outcome

Document = dict[str, Any]
NAMESPACE = click.option("-n", "--namespace", default=None, help="Namespace of a namespaced kind (default: 'default').")


@click.command()
@click.argument("kind", shell_complete=complete_kinds)
@click.argument("name", shell_complete=complete_names)
@click.option("-p", "--patch", "text", metavar="PATCH", help="The patch itself, JSON or (strategic, merge) YAML.")
@click.option("--patch-file", type=click.Path(dir_okay=False, path_type=Path), help="A file with the patch.")
@click.option(
    "-t",
    "--type",
    "form",
    type=click.Choice(["strategic", "merge", "json"]),
    default="strategic",
    show_default=True,
    help="merge: RFC 7386. json: RFC 6902. strategic: as merge, with $patch directives.",
)
@NAMESPACE
@FORCE
@JSON
@STORE_OPTIONS
@click.pass_obj
def patch(
    place: Place,
    kind: str,
    name: str,
    text: str | None,
    patch_file: Path | None,
    form: str,
    namespace: str | None,
    force: bool,
    as_json: bool,
) -> int:
    """Change parts of one resource.

    \b
    tabinet patch node host1 -p '{"spec": {"bgp": {"routeReflectorClusterID": "224.0.0.1"}}}'
    tabinet patch gnp stop --type json -p '[{"op": "replace", "path": "/spec/order", "value": 5}]'

    In merge and strategic patches mappings are merged, null removes a member, and a list replaces the whole list: also the strategic
    merge of Calico's resources replaces lists, none of them has a merge key. The result is checked as a whole; when it is wrong,
    nothing is changed. Nothing is changed either when an invariant that the store keeps (tabinet invariant) would break.
    """
    from tabinet.cli.patches import parse_patch
    from tabinet.cli.targets import parse_key
    from tabinet.errors import SetupError

    if (text is None) == (patch_file is None):
        raise click.UsageError("say either --patch PATCH or --patch-file FILE")
    if patch_file is not None:
        try:
            text = patch_file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise SetupError(f"{patch_file}: cannot be read: {error}") from error
    wanted = parse_patch(text or "", form, str(patch_file) if patch_file else "--patch")
    key = parse_key(kind, name, namespace)
    outcome = _change(place, key, lambda document: _patched(key, document, wanted), command="patch", force=force)
    return _tell(key, "patched" if outcome == "configured" else outcome, as_json=as_json)


@click.command()
@click.argument("kind", shell_complete=complete_kinds)
@click.argument("name", shell_complete=complete_names)
@click.argument("changes", nargs=-1, required=True, metavar="KEY=VALUE|KEY-...")
@click.option("--overwrite", is_flag=True, help="Labels that exist may get another value.")
@click.option("--remove", is_flag=True, help="Remove the labels whose keys are given, as KEY- does.")
@NAMESPACE
@FORCE
@JSON
@STORE_OPTIONS
@click.pass_obj
def label(
    place: Place,
    kind: str,
    name: str,
    changes: Sequence[str],
    overwrite: bool,
    remove: bool,
    namespace: str | None,
    force: bool,
    as_json: bool,
) -> int:
    """Set or remove labels of one resource.

    \b
    tabinet label node host1 rack=r1 zone=a      tabinet label wep -n shop NAME app-
    """
    from tabinet.cli.labels import changed_labels, parse_label_changes
    from tabinet.cli.targets import parse_key
    from tabinet.errors import Conflict

    wanted, unwanted = parse_label_changes(changes, remove=remove)
    key = parse_key(kind, name, namespace)
    if bad := _label_problems(wanted):
        from tabinet.errors import InputError

        raise InputError(bad)

    def edit(document: Document) -> Document:
        labels = document["metadata"].get("labels")
        try:
            after = changed_labels(labels if isinstance(labels, dict) else {}, wanted, unwanted, overwrite=overwrite)
        except ValueError as error:
            raise Conflict(f"{key}: {error}") from None
        metadata = {**document["metadata"], "labels": after}
        if not after:
            del metadata["labels"]
        return {**document, "metadata": metadata}

    outcome = _change(place, key, edit, command="label", force=force)
    return _tell(key, "labeled" if outcome == "configured" else outcome, as_json=as_json)


def _label_problems(labels: dict[str, str]) -> list[Problem]:
    from tabinet.errors import Problem
    from tabinet.model.names import label_findings

    return [
        Problem(path=f"metadata.labels.{key}".rstrip("."), value=str(value), allowed=allowed)
        for key, value, allowed in label_findings(labels)
    ]


def _patched(key: ResourceKey, document: Document, wanted: Patch) -> Document:
    """The document after the patch, valid and with defaults.

    Raises:
        InputError: the patch does not fit the document, or its result is wrong where the document was not.
    """
    from tabinet.cli.patches import apply_patch
    from tabinet.errors import InputError, Problem
    from tabinet.model.defaults import with_defaults
    from tabinet.model.documents import Document as Given
    from tabinet.model.validate import validate

    after = apply_patch(wanted, document)

    def judged(data: Document) -> list[Problem]:
        return validate(Given(data=data, source=f"{key} after the patch", index=0, line=0))

    fixed = [
        ("apiVersion",),
        ("kind",),
        ("metadata", "name"),
        ("metadata", "namespace"),
        ("metadata", "uid"),
        ("metadata", "creationTimestamp"),
    ]
    problems = [
        Problem(path=".".join(path), value=repr(_inner(after, path)), allowed="cannot be changed")
        for path in fixed
        if _inner(after, path) != _inner(document, path)
    ]
    # What was stored with fields that we do not know stays changeable: only what the patch made wrong counts.
    known = judged(document)
    problems += [problem for problem in judged(after) if problem not in known]
    if problems:
        raise InputError(problems)
    return with_defaults(after)


def _inner(document: Document, path: tuple[str, ...]) -> object:
    value: object = document
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _change(place: Place, key: ResourceKey, edit: Callable[[Document], Document], *, command: str, force: bool) -> Outcome:
    from tabinet.cli.change import keeps_invariants, refuse_broken_invariants
    from tabinet.cli.guards import refuse_bad_pools
    from tabinet.cli.place import open_to_change
    from tabinet.model.documents import Document as Given
    from tabinet.store.client import ResourceClient

    async def run() -> Outcome:
        store = await open_to_change(place, command)
        try:
            client = ResourceClient(store)
            if key.kind == "IPPool" or await keeps_invariants(client):
                after = [Given(data=edit(await client.get(key)), source=f"{key} after the change", index=0, line=0)]
                await refuse_bad_pools(client, after)
                await refuse_broken_invariants(client, after, command, force)
            _, outcome = await client.change(key, edit)
            return outcome
        finally:
            await store.close()

    return asyncio.run(run())


def _tell(key: ResourceKey, outcome: str, *, as_json: bool) -> int:
    from tabinet.cli.output import show_outcomes

    show_outcomes([(str(key), outcome)], as_json=as_json)
    return 0

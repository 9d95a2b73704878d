"""``tabinet plan``: what a change of resources would open and close, before it is made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from tabinet.cli.patience import TIMEOUT, Expired, expiry, unhurried
from tabinet.cli.place import STORE_OPTIONS, Place
from tabinet.cli.sources import FILES

if TYPE_CHECKING:
    from tabinet.analysis.describe import FlowGroup
    from tabinet.analysis.fabric import OptionsOf, Resources
    from tabinet.analysis.plan import Plan
    from tabinet.analysis.situation import Changes
    from tabinet.model.documents import Document
    from tabinet.model.keys import Key, ResourceKey

NOTHING, CLOSES, OPENS = 0, 10, 11
"""Exit codes."""
SHOWN = 20
"""Groups of flows in the text; JSON has all."""


@click.command()
@FILES
@click.option("--delete", is_flag=True, help="Plan to delete what the files name, instead of applying it.")
@TIMEOUT
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="How to show it.")
@click.option("--json", "as_json", is_flag=True, help="The same as -o json.")
@STORE_OPTIONS
@click.pass_obj
def plan(place: Place, files: Sequence[str], recursive: bool, delete: bool, timeout: float | None, output: str, as_json: bool) -> int:
    """Say which flows applying FILES would open and close.

    Groups of endpoints, packets, and of each group one packet that can be tried. Nothing is changed.

    \b
    tabinet plan -f policies/          tabinet plan -f old.yaml --delete

    Exit code 0: no flow is opened or closed, 10: flows are closed only, 11: flows are opened, or may be: those of host endpoints that
    the change concerns are named, not calculated; or that --timeout was over before they were known.
    """
    expired = expiry(timeout)
    import msgspec

    from tabinet.cli.fabric_reading import options_reader, read_all
    from tabinet.cli.output import printable, show_json

    if not files:
        raise click.UsageError("say what to plan: tabinet plan -f FILE")
    resources = read_all(place)
    found = plan_changes(resources, read_changes(files, recursive, delete, resources), options_reader(place), expired)
    if as_json or output == "json":
        show_json(msgspec.to_builtins(found))
    else:
        for line in render_plan(found):
            click.echo(printable(line))
    return exit_code(found)


def plan_changes(resources: Resources, changes: Changes, options_of: OptionsOf, expired: Expired = unhurried) -> Plan:
    """What the changes do."""
    from tabinet.analysis.plan import plan_change

    return plan_change(resources, changes, options_of, expired)


def read_changes(files: Sequence[str], recursive: bool, delete: bool, resources: Resources) -> Changes:
    """What the files would change of the resources.

    Raises:
        InputError: with every problem of every document.
    """
    from tabinet.cli.sources import read_documents, read_keys

    if delete:
        return changes_by_deleting(read_keys(files, recursive=recursive), resources)
    return changes_by_applying(read_documents(files, recursive=recursive), resources)


def changes_by_applying(documents: Sequence[Document], resources: Resources) -> Changes:
    """What the documents would change of the resources."""
    from tabinet.analysis.plan import changed_resources
    from tabinet.model.codec import decode_stored, encode_document
    from tabinet.model.keys import path_of
    from tabinet.store.client import key_of

    changes: dict[Key, object | None] = {}
    for document in documents:
        decoded = decode_stored(path_of(key_of(document.data)), encode_document(document.data))
        if decoded is not None:
            changes[decoded[0]] = decoded[1]
    return changed_resources(resources, changes)


def changes_by_deleting(keys: Sequence[ResourceKey], resources: Resources) -> Changes:
    """Those of the keys that are there, gone."""
    return {key: None for key in keys if key in resources}


def changes_between(before: Resources, after: Resources) -> Changes:
    """What leads from the one to the other."""
    from tabinet.analysis.plan import changed_resources

    changes: dict[Key, object | None] = {key: None for key in before if key not in after}
    return changed_resources(before, changes | {key: value for key, (value, _) in after.items()})


def exit_code(found: Plan) -> int:
    """Of the command."""
    if found.opened or found.not_enumerated or found.not_covered:
        return OPENS
    return CLOSES if found.closed else NOTHING


def render_plan(found: Plan) -> Iterator[str]:
    """The lines of the text."""
    if found.not_covered:
        yield f"NOT COVERED: {found.not_covered}"
    if found.not_enumerated:
        yield f"NOT ENUMERATED: {found.not_enumerated}"
    elif not found.opened and not found.closed:
        yield "no flow is opened or closed" + (" between workloads, or with the outside" if found.not_covered else "")
    for each in found.first_policies:
        verb = "get their first policy" if each.gets else "lose their last policy"
        consequence = "what it does not allow is denied from then on" if each.gets else "their profiles decide from then on"
        yield f"{each.endpoints} endpoint{'s' if each.endpoints != 1 else ''} {verb} in {each.direction} ({each.which}): {consequence}"
    for word, groups in (("OPENS", found.opened), ("CLOSES", found.closed)):
        if groups:
            yield f"{word} {len(groups)} group{'s' if len(groups) > 1 else ''} of flows"
        for group in groups[:SHOWN]:
            yield from render_group(group)
        if len(groups) > SHOWN:
            yield f"  and {len(groups) - SHOWN} more (-o json has them)"
    changed = f"{found.changed_endpoints} endpoint{'' if found.changed_endpoints == 1 else 's'}"
    yield f"policy of {changed} changes, on {len(found.hosts) + found.more_hosts} hosts"
    for host in found.hosts:
        rules, elements = host.rules[1] - host.rules[0], host.elements[1] - host.elements[0]
        yield f"  {host.host}: {host.rules[1]} rules ({rules:+}), {host.elements[1]} elements ({elements:+})"
    for note in found.notes:
        yield f"note: {note}"


def render_group(group: FlowGroup) -> Iterator[str]:
    """A group of flows and its witness."""
    only = "" if len(group.families) > 1 else f" (IPv{group.families[0]})"
    yield f"  {group.source} -> {group.destination}: {group.packets}{only}"
    packet = group.witness
    yield f"    such as {packet.source_name} {packet.source} -> {packet.destination_name} {packet.destination}: {_packet(group)}"


def _packet(group: FlowGroup) -> str:
    from tabinet.analysis.headers import WITH_PORTS
    from tabinet.model.protocols import ICMP, ICMPV6, NAMES

    packet = group.witness
    name = NAMES.get(packet.protocol, f"protocol {packet.protocol}").lower()
    if packet.protocol in WITH_PORTS:
        return f"{name} port {packet.port}"
    return f"{name} type {packet.port} code {packet.source_port}" if packet.protocol in (ICMP, ICMPV6) else name

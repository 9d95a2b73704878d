"""``tabinet host protect``: policy for the host itself, without locking anybody out.

The HostEndpoint is held against what the host and its operator need before it is written, and takes itself back unless it is confirmed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from tabinet.cli.careful import Duration
from tabinet.cli.output import note, printable, show_yaml
from tabinet.cli.place import STORE_OPTIONS, Place, find_store, open_place, read_parameters

if TYPE_CHECKING:
    from tabinet.analysis.explain import Explanation
    from tabinet.analysis.fabric import Resources
    from tabinet.analysis.lifelines import Lifeline
    from tabinet.lib.ip import Prefix
    from tabinet.model.documents import Document

BGP_PORT, ETCD_PORT = 179, 2379


@click.group()
def host() -> None:
    """Policy for hosts themselves."""


@host.command()
@click.argument("name", required=False)
@click.option("--interface", metavar="NAME", help="Which interface, or '*' for all (default: the one with the host's address).")
@click.option("-l", "--label", "labels", metavar="KEY=VALUE", multiple=True, help="Besides the labels of the Node. Repeatable.")
@click.option(
    "--confirm",
    "within_s",
    type=Duration(),
    default="5m",
    show_default=True,
    help="Take it back after this time unless tabinet confirm comes.",
)
@click.option("--dry-run", is_flag=True, help="Print the HostEndpoint and say what it would deny; change nothing.")
@click.option("--force", is_flag=True, help="Also if something that the host needs would be denied.")
@STORE_OPTIONS
@click.pass_obj
def protect(
    place: Place, name: str | None, interface: str | None, labels: Sequence[str], within_s: float, dry_run: bool, force: bool
) -> int:
    """Make a HostEndpoint of this host, so that policies hold for the host itself.

    From then on nothing passes that no policy allows, but for failsafe ports. Before it is written the host is asked whether your SSH
    session, the store and the BGP peers could still connect. Run it on the host. Exit code 1: something would be denied, and nothing
    was changed.
    """
    from tabinet.agent.hostname import host_name
    from tabinet.cli.fabric_reading import read_all

    name = name or host_name(read_parameters(place))
    resources = read_all(place)
    document = _propose(name, interface, labels, resources)
    if dry_run:
        show_yaml(document.data)
    denied = _denied(place, name, document, resources)
    for line, found in denied:
        note(printable(f"would be denied: {line.what} ({found.packet}): {found.reason}"))
    if dry_run or (denied and not force):
        if denied and not dry_run:
            note("nothing was changed; allow these by a policy, or say --force")
        return 1 if denied else 0
    asyncio.run(_apply(place, document, within_s))
    note(f"HostEndpoint/{document.data['metadata']['name']} is there, and taken back in {within_s:g} s unless you say: tabinet confirm")
    return 0


async def _apply(place: Place, document: Document, within_s: float) -> None:
    """The HostEndpoint is stored, and taken back in time whatever becomes of this process."""
    from tabinet.cli import pending
    from tabinet.model.keys import path_of
    from tabinet.store.client import ResourceClient, key_of

    store = await open_place(place)
    try:
        waiting = await pending.begin(store, [path_of(key_of(document.data))], within_s)
        pending.start_waiting(place, waiting)
        await ResourceClient(store).apply(document.data)
        await pending.applied(store, waiting)
    finally:
        await store.close()


def _propose(name: str, interface: str | None, labels: Sequence[str], resources: Resources) -> Document:
    """The HostEndpoint of this host.

    Raises:
        InputError: there is no such Node, or none of its addresses is on this machine.
    """
    from tabinet.calc.autohosts import host_addresses
    from tabinet.cli.labels import parse_label_changes
    from tabinet.errors import InputError, Problem
    from tabinet.model.documents import Document as Given
    from tabinet.model.keys import ResourceKey
    from tabinet.model.resources import Node
    from tabinet.model.validate import validate

    node = resources.get(ResourceKey("Node", name), (None, 0))[0]
    if not isinstance(node, Node):
        raise InputError([Problem(path="NAME", value=name, allowed="a host that has a Node: tabinet node init")])
    addresses = list(host_addresses(node))
    wanted = interface or _interface_with(addresses)
    if not wanted:
        shown = ", ".join(address.address for address in addresses)
        allowed = "run it on the host, or name an interface"
        raise InputError([Problem(path="--interface", value=f"none here has {shown or 'an address of the Node'}", allowed=allowed)])
    given, _ = parse_label_changes(labels, remove=False)
    metadata: dict[str, Any] = {"name": f"{name}-{'all' if wanted == '*' else wanted.replace('.', '-')}".lower()}
    metadata["labels"] = {**node.metadata.labels, **given}
    spec: dict[str, Any] = {"node": name, "interfaceName": wanted, "expectedIPs": [address.address for address in addresses]}
    data = {"apiVersion": "projectcalico.org/v3", "kind": "HostEndpoint", "metadata": metadata, "spec": spec}
    document = Given(data=data, source="HostEndpoint", index=0, line=0)
    if problems := validate(document):
        raise InputError(problems)
    return document


def _interface_with(addresses: Sequence[Prefix]) -> str:
    from tabinet.agent.detection import read_addresses

    return next((owned.interface for owned in read_addresses() if owned.address in addresses and owned.interface != "lo"), "")


def _denied(place: Place, name: str, document: Document, resources: Resources) -> list[tuple[Lifeline, Explanation]]:
    """What the host and its operator need, and would not have."""
    from tabinet.analysis.fabric import survey
    from tabinet.analysis.lifelines import find_denied
    from tabinet.cli.fabric_reading import options_reader
    from tabinet.cli.plan import changes_by_applying

    changes = changes_by_applying([document], resources)
    proposed = {**resources, **{key: (value, 0) for key, value in changes.items()}}
    lines = [*_session_line(place), *_store_lines(place), *asyncio.run(_peer_lines(place))]
    return find_denied(survey(proposed, options_reader(place)), name, lines)


def _session_line(place: Place) -> Iterator[Lifeline]:
    from tabinet.analysis.lifelines import Lifeline
    from tabinet.cli.session import find_session
    from tabinet.lib.ip import parse_address

    session = find_session(place.environment)
    if session is None:
        note("you are in no SSH session: only the store and the peers are asked for")
        return
    client, server = parse_address(session.client), parse_address(session.server)
    yield Lifeline(what=f"your SSH session from {session.client}", local=server, remote=client, port=session.port, inbound=True)


def _store_lines(place: Place) -> Iterator[Lifeline]:
    config = find_store(place)
    for endpoint in config.endpoints if config.kind == "etcd" else ():
        parts = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}")
        if parts.scheme != "unix" and parts.hostname:
            yield from _towards(f"the store at {endpoint}", parts.hostname, parts.port or ETCD_PORT)


async def _peer_lines(place: Place) -> list[Lifeline]:
    from tabinet.cli.node_views import read_here
    from tabinet.errors import SetupError

    try:
        views = await read_here(place)
    except SetupError as error:
        note(f"the BGP peers are not known: {error}")
        return []
    sessions = [session for view in views if view.report is not None for session in view.report.sessions if session.address]
    return [line for session in sessions for line in _towards(f"BGP with {session.peer}", session.address, BGP_PORT, both=True)]


def _towards(what: str, target: str, port: int, *, both: bool = False) -> Iterator[Lifeline]:
    """Connections to a name or address, and with ``both`` from there; none within this host."""
    from tabinet.agent.detection import source_towards
    from tabinet.analysis.lifelines import Lifeline
    from tabinet.lib.ip import parse_address

    try:
        found = {str(info[4][0]).partition("%")[0] for info in socket.getaddrinfo(target, port, type=socket.SOCK_STREAM)}
    except OSError as error:
        note(f"{what} is not asked for: {target}: {error.strerror or error}")
        return
    for remote in map(parse_address, sorted(found)):
        local = source_towards(remote)
        if local is None or local == remote:
            continue
        yield Lifeline(what=what, local=local, remote=remote, port=port)
        if both:
            yield Lifeline(what=f"{what}, begun there", local=local, remote=remote, port=port, inbound=True)

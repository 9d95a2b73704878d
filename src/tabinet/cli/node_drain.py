"""``tabinet node drain | undrain``: a host leaves the fabric for maintenance, and comes back, without losing a packet.

What a host shall do stands in its Node (annotation ``tabinet.io/drain``), so it does not matter from which machine these commands are run,
and agents that restart go on. What it does is read from its report. Steps of a drain, each only after the one before:

1. Everything that the host announces carries GRACEFUL_SHUTDOWN (RFC 8326): peers use it only where there is nothing else. The agent goes
   there in steps (see ``bgp.drain``).
2. The host has said that BIRD does so, and some time has passed, in which peers and their peers choose other paths.
3. Nothing that only this host has is left on it: each address of its workloads is also that of a workload of a host that is not drained.
4. The host announces nothing of its workloads any more. Its sessions, the routes that it has, and its own address stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from tabinet.cli.output import fail, note, printable, show_json
from tabinet.cli.place import STORE_OPTIONS, Place
from tabinet.model.annotations import DRAIN

if TYPE_CHECKING:
    from tabinet.store.api import Datastore
    from tabinet.store.client import Document

GRACEFUL, WITHDRAWN = "true", "withdrawn"
POLL_S = 0.2
SHOWN = 5
"""Endpoints that are named where many are in the way."""


def _duration(_context: click.Context, _parameter: click.Parameter, text: str) -> float:
    """What is written as 30s or 5m."""
    from tabinet.model.formats import parse_duration_s

    try:
        return parse_duration_s(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no duration such as 30s or 5m") from None


TIMEOUT = click.option(
    "--timeout", "timeout_s", default="5m", show_default=True, metavar="TIME", callback=_duration, help="With --wait: how long at most."
)
JSON = click.option("--json", "as_json", is_flag=True, help="As JSON.")


@click.command()
@click.argument("name")
@click.option(
    "--wait", is_flag=True, help="Wait until traffic has moved and nothing is left that only this host has; then withdraw all of it."
)
@TIMEOUT
@click.option(
    "--settle",
    "settle_s",
    default="5s",
    show_default=True,
    metavar="TIME",
    callback=_duration,
    help="How long the fabric needs to choose other paths.",
)
@click.option("--force", is_flag=True, help="As --wait, and withdraw also what only this host has: that cannot be reached then.")
@JSON
@STORE_OPTIONS
@click.pass_obj
def drain(place: Place, name: str, wait: bool, timeout_s: float, settle_s: float, force: bool, as_json: bool) -> int:
    """Take a host out of the paths of traffic, for maintenance.

    At once everything that it announces says that it is about to leave (GRACEFUL_SHUTDOWN), so that it is used only where there is no
    other way. With --wait it then announces nothing of its workloads any more, as soon as each address there has another host.
    Exit code 1 when that was not reached in time; the host stays as far as it got, and the command can be repeated.
    """

    async def work(store: Datastore) -> list[str]:
        begun = await set_drain(store, name, GRACEFUL, unless=WITHDRAWN)
        note(f"Node/{name}: {'leaves the paths of traffic' if begun else 'is being drained already'}")
        if not (wait or force):
            return []
        return await withdraw(store, name, settle_s=settle_s, force=force)

    return _run(place, name, work, timeout_s, as_json)


@click.command()
@click.argument("name")
@click.option("--wait", is_flag=True, help="Wait until the host has done so.")
@TIMEOUT
@JSON
@STORE_OPTIONS
@click.pass_obj
def undrain(place: Place, name: str, wait: bool, timeout_s: float, as_json: bool) -> int:
    """Let a drained host carry traffic again.

    Exit code 1 when with --wait the host did not do so in time; it will when it can.
    """

    async def work(store: Datastore) -> list[str]:
        changed = await set_drain(store, name, "")
        note(f"Node/{name}: {'carries traffic again' if changed else 'was not drained'}")
        if wait:
            await until(lambda: not_reported(store, name, ""))
        return []

    return _run(place, name, work, timeout_s, as_json)


def _run(place: Place, name: str, work: Callable[[Datastore], Awaitable[list[str]]], timeout_s: float, as_json: bool) -> int:
    from tabinet.cli.ipam_reading import with_store

    async def run(store: Datastore) -> tuple[list[str], str]:
        try:
            async with asyncio.timeout(timeout_s):
                left = await work(store)
        except TimeoutError:
            left = [f"not reached within {timeout_s:g} s", *await in_the_way(store, name)]
        return left, await wanted_drain(store, name)

    left, state = with_store(place, run, "node drain")
    if as_json:
        show_json({"node": name, "drain": state, "left": left})
    else:
        click.echo(f"Node/{name} {({'': 'not drained', GRACEFUL: 'draining', WITHDRAWN: 'withdrawn'}).get(state, state)}")
    for text in left:
        fail(printable(text))
    return 1 if left else 0


# --- steps ----------------------------------------------------------------------------------------------------------------


async def set_drain(store: Datastore, name: str, value: str, *, unless: str = "-") -> bool:
    """The Node asks for this (empty: for nothing), or for ``unless`` if it did before; True when that is new.

    Raises:
        NotFound: there is no such Node.
    """
    from tabinet.model.keys import ResourceKey
    from tabinet.store.client import ResourceClient

    def edit(document: Document) -> Document:
        metadata = dict(document["metadata"])
        annotations = metadata.get("annotations")
        found = dict(annotations) if isinstance(annotations, dict) else {}
        if found.get(DRAIN) != unless:
            found.pop(DRAIN, None)
            found |= {DRAIN: value} if value else {}
        metadata.pop("annotations", None)
        return {**document, "metadata": metadata | ({"annotations": found} if found else {})}

    _, outcome = await ResourceClient(store).change(ResourceKey("Node", name), edit)
    return outcome != "unchanged"


async def wanted_drain(store: Datastore, name: str) -> str:
    """What the Node asks for."""
    from tabinet.model.keys import ResourceKey
    from tabinet.store.client import ResourceClient

    document = await ResourceClient(store).get(ResourceKey("Node", name))
    return _annotation(document)


def _annotation(document: Document) -> str:
    annotations = document["metadata"].get("annotations")
    found = annotations.get(DRAIN, "") if isinstance(annotations, dict) else ""
    return "" if found == "false" else str(found)


async def withdraw(store: Datastore, name: str, *, settle_s: float, force: bool) -> list[str]:
    """The host announces nothing of its workloads any more. Waits as long as it takes; gives what of it cannot be reached now."""
    if await wanted_drain(store, name) != WITHDRAWN:
        await until(lambda: not_reported(store, name, GRACEFUL))
        note(f"Node/{name}: its peers know; giving the fabric {settle_s:g} s")
        await asyncio.sleep(settle_s)
        if force:
            for text in await only_here(store, name):
                note(printable(f"cannot be reached now: {text}"))
        else:
            await until(lambda: only_here(store, name))
        await set_drain(store, name, WITHDRAWN)
    await until(lambda: not_reported(store, name, WITHDRAWN))
    return []


async def until(objections: Callable[[], Awaitable[list[str]]]) -> None:
    """There are no objections any more. What they are is told when they change. Waits without limit: the caller has one."""
    before: list[str] = []
    while found := await objections():
        if found != before:
            note(printable("waiting: " + "; ".join(found)))
        before = found
        await asyncio.sleep(POLL_S)


async def in_the_way(store: Datastore, name: str) -> list[str]:
    """What keeps the host from the next step of what its Node asks for."""
    wanted = await wanted_drain(store, name)
    found = await not_reported(store, name, wanted)
    return found if found or wanted != GRACEFUL else await only_here(store, name)


async def not_reported(store: Datastore, name: str, drain: str) -> list[str]:
    """Empty when the host says that it is drained so far; else why not."""
    import msgspec

    from tabinet.model.report import HostReport, report_path

    item = await store.get(report_path(name))
    if item is None:
        return [f"no agent reports for {name}: nothing changes there while it is away"]
    report = msgspec.json.decode(item.value, type=HostReport)
    if report.drain == drain:
        return []
    return [f"{name} has not done it yet{f' (BIRD: {report.bird})' if report.bird else ''}"]


async def only_here(store: Datastore, name: str) -> list[str]:
    """Addresses of workloads that no host has but this one and others that are drained."""
    from tabinet.store.client import ResourceClient

    client = ResourceClient(store)
    nodes = await client.list("Node", on_broken=lambda _: None)
    endpoints = await client.list("WorkloadEndpoint", on_broken=lambda _: None)
    return alone(name, endpoints, {str(node["metadata"].get("name")) for node in nodes if _annotation(node)})


def alone(name: str, endpoints: Iterable[Document], drained: set[str]) -> list[str]:
    """The endpoints of the host that have an address which no endpoint of a host that is not drained has, in words."""
    elsewhere: set[object] = set()
    here: list[tuple[str, list[object]]] = []
    for endpoint in endpoints:
        spec: Any = endpoint.get("spec")
        networks = spec.get("ipNetworks") if isinstance(spec, dict) else None
        if not isinstance(networks, list):
            continue
        if spec.get("node") == name:
            metadata = endpoint["metadata"]
            here.append((f"{metadata.get('namespace', '')}/{metadata.get('name', '')}", networks))
        elif spec.get("node") not in drained:
            elsewhere.update(networks)
    found = [f"{key} ({', '.join(map(str, networks))}) is only on {name}" for key, networks in here if not elsewhere.issuperset(networks)]
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return [*found[:SHOWN], *more]

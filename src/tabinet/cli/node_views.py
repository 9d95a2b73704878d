"""What is known of hosts: of this one from its agent and its BIRD, of any from the store.

In: the place, names. Out: ``NodeView`` records. One request for all reports and one for each hundred hosts' signs of life.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tabinet.agent.bgp import to_report
from tabinet.agent.hostname import host_name
from tabinet.agent.http import fetch
from tabinet.agent.parameters import Parameters
from tabinet.bgp.control import BirdControl
from tabinet.cli.place import Place, open_place, read_parameters
from tabinet.cli.status import read_hosts, troubles_of
from tabinet.errors import BirdError, DataError, NotFound, SetupError
from tabinet.model.annotations import DRAIN
from tabinet.model.report import HostReport
from tabinet.model.status import HostStatusKey, parse_host_status, status_path_of
from tabinet.store.api import Datastore, GetOp

if TYPE_CHECKING:
    from tabinet.store.client import Document

CHUNK = 60
"""Hosts asked for in one transaction, two keys each: etcd takes 128."""
NO_AGENT = "no agent reports: is `tabinet agent` running there, and does it reach the store?"
FELIX = "Calico's Felix reports and no agent of Tabinet's"


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """A host as it is known."""

    name: str
    source: str
    """Who told: ``agent`` (asked itself), ``bird`` (asked itself), or ``store``."""
    report: HostReport | None = None
    """``None``: nobody reports."""
    last_seen: str = ""
    """When an agent last gave a sign of life: RFC 3339, UTC; empty: never, or the agent itself was asked."""
    addresses: tuple[str, ...] = ()
    drain: str = ""
    """What the Node asks for: empty, ``true`` or ``withdrawn``."""
    troubles: tuple[str, ...] = ()
    """What is wrong, in words."""


async def read_here(place: Place) -> list[NodeView]:
    """This host, from its agent; from BIRD alone where no agent answers.

    Raises:
        SetupError: neither answers.
    """
    parameters = read_parameters(place)
    address = parameters.text("agent", "http_address")
    try:
        if not address:
            raise ConnectionError("[agent] http_address is empty, so it serves nothing")
        answer = await fetch(address, "/report")
        if answer.status != 200:
            raise ConnectionError(f"it is not ready: {answer.body.decode(errors='replace')[:200]}")
        report = msgspec.json.decode(answer.body, type=HostReport)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        return [_from_bird(parameters, f"the agent does not answer at {address or 'any address'}: {error or 'no answer in time'}")]
    return [NodeView(name=report.host, source="agent", report=report, drain=report.drain, troubles=tuple(troubles_of(report)))]


def _from_bird(parameters: Parameters, agent: str) -> NodeView:
    control = BirdControl(Path(parameters.text("bird", "socket")))
    try:
        status, sessions = control.status(), control.sessions()
    except BirdError as error:
        there = "`tabinet node status NAME` and --all ask the store instead"
        raise SetupError(f"{agent}; and BIRD: {error}. Is this a host of the fabric? {there}") from error
    report = HostReport(
        host=host_name(parameters),
        version="",
        started="",
        revision=0,
        in_sync=False,
        endpoints_ready=0,
        endpoints_waiting=0,
        sessions=tuple(to_report(session) for session in sessions),
        bird_version=status.version,
        router_id=status.router_id,
        bird_started=status.started,
        bird_configured=status.configured,
    )
    found = [agent, *(trouble for trouble in troubles_of(report) if trouble.startswith("BGP"))]
    return NodeView(name=report.host, source="bird", report=report, troubles=tuple(found))


async def read_named(place: Place, names: Sequence[str]) -> list[NodeView]:
    """Hosts by name, or all of them, from the store, by name.

    Raises:
        NotFound: there is no such host.
        StoreUnavailable, StoreDenied: the store does not answer.
    """
    store = await open_place(place)
    try:
        nodes, reports = await read_hosts(store)
        by_name = {str(document["metadata"]["name"]): document for document in nodes}
        by_host = {report.host: report for report in reports}
        unknown = [name for name in names if name not in by_name and name not in by_host]
        if unknown:
            raise NotFound(f"Node/{unknown[0]} does not exist; there are {', '.join(sorted(by_name)) or 'none'}")
        wanted = sorted(set(names) or {*by_name, *by_host})
        signs = await _signs(store, wanted)
        return [_view(name, by_name.get(name), by_host.get(name), *signs[name]) for name in wanted]
    finally:
        await store.close()


async def _signs(store: Datastore, names: Sequence[str]) -> dict[str, tuple[str, bool]]:
    """Of each host when its agent last gave a sign of life, and whether it lives as far as the store knows."""
    found = {}
    for start in range(0, len(names), CHUNK):
        chunk = names[start : start + CHUNK]
        keys = [HostStatusKey(name, last_reported=last) for name in chunk for last in (True, False)]
        values = (await store.txn((), [GetOp(status_path_of(key)) for key in keys])).values
        for index, name in enumerate(chunk):
            last, alive = values[2 * index], values[2 * index + 1]
            try:
                time = parse_host_status(last.key, last.value).time if last is not None else ""
            except DataError:
                time = ""
            found[name] = (time, alive is not None)
    return found


def _view(name: str, document: Document | None, report: HostReport | None, last_seen: str, alive: bool) -> NodeView:
    troubles = troubles_of(report) if report is not None else [FELIX if alive else NO_AGENT]
    if document is None:
        troubles = ["there is no Node resource of this name: `tabinet node init` on the host makes it", *troubles]
    spec = (document or {}).get("spec")
    bgp = spec.get("bgp") if isinstance(spec, dict) else None
    given = [bgp.get(field) for field in ("ipv4Address", "ipv6Address")] if isinstance(bgp, dict) else []
    annotations = document["metadata"].get("annotations") if document else None
    drain = annotations.get(DRAIN, "") if isinstance(annotations, dict) else ""
    return NodeView(
        name=name,
        source="store",
        report=report,
        last_seen=last_seen,
        addresses=tuple(str(address) for address in given if address),
        drain="" if drain == "false" else str(drain),
        troubles=tuple(troubles),
    )

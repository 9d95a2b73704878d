"""``tabinet status``: how every host is, from what the agents report to the store."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from tabinet.cli.output import show_json, show_table
from tabinet.cli.place import STORE_OPTIONS, Place

if TYPE_CHECKING:
    from tabinet.model.report import HostReport
    from tabinet.store.api import Datastore
    from tabinet.store.client import Document


@click.command()
@STORE_OPTIONS
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_obj
def status(place: Place, as_json: bool) -> int:
    """Show every host: agent, endpoints, BGP sessions, and what is wrong.

    Exit code 1 when a host is not well.
    """
    from tabinet.cli.place import open_place

    async def run() -> tuple[list[str], list[HostReport]]:
        store = await open_place(place)
        try:
            nodes, found = await read_hosts(store)
            return [str(node["metadata"]["name"]) for node in nodes], found
        finally:
            await store.close()

    hosts, reports = asyncio.run(run())
    by_host = {report.host: report for report in reports}
    rows: list[list[object]] = []
    troubles: list[tuple[str, str]] = []
    for host in sorted({*hosts, *by_host}):
        report = by_host.get(host)
        if report is None:
            rows.append([host, "no agent", "", "", ""])
            troubles.append((host, "no agent reports: is `tabinet agent` running there, and does it reach the store?"))
            continue
        up = sum(session.state == "up" for session in report.sessions)
        endpoints = f"{report.endpoints_ready}/{report.endpoints_ready + report.endpoints_waiting}"
        found = troubles_of(report)
        rows.append([host, "well" if not found else "trouble", report.revision, endpoints, f"{up}/{len(report.sessions)}"])
        troubles += [(host, text) for text in found]
    if as_json:
        import msgspec

        show_json(
            {
                "hosts": [msgspec.to_builtins(report) for report in reports],
                "troubles": [{"host": host, "text": text} for host, text in troubles],
            }
        )
    else:
        show_table(["HOST", "STATE", "REVISION", "ENDPOINTS READY", "BGP UP"], rows)
        for host, text in troubles:
            click.echo(f"{host}: {text}")
    return 1 if troubles or not rows else 0


async def read_hosts(store: Datastore) -> tuple[list[Document], list[HostReport]]:
    """All Nodes, and the reports of those that have an agent."""
    import msgspec

    from tabinet.model.report import PREFIX, HostReport
    from tabinet.store.client import ResourceClient

    nodes = await ResourceClient(store).list("Node", None)
    reports = []
    async for page in store.list(PREFIX):
        reports += [msgspec.json.decode(item.value, type=HostReport) for item in page.items if item.key.endswith("/report")]
    return nodes, reports


def troubles_of(report: HostReport) -> list[str]:
    """What is wrong on a host, in words; empty when it is well."""
    found = []
    if not report.in_sync:
        found.append("the agent does not follow the store at the moment")
    if report.kernel:
        found.append(f"kernel: {report.kernel}")
    if report.bird:
        found.append(f"BIRD: {report.bird}")
    found += [f"endpoint {trouble.endpoint}: {trouble.reason}" for trouble in report.troubles]
    found += [
        f"BGP to {session.peer}{f' ({session.resource})' * bool(session.resource)} is down: {session.reason or 'no reason known yet'}"
        for session in report.sessions
        if session.state != "up"
    ]
    found += list(report.problems)
    return found

"""``tabinet import``: a host that Calico runs becomes one of ours while its workloads go on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from tabinet.cli.output import fail, printable, show_json, show_table
from tabinet.cli.place import STORE_OPTIONS, Place, open_place, read_parameters

if TYPE_CHECKING:
    from tabinet.agent.takeover.records import Sighting
    from tabinet.agent.takeover.survey import Survey


@click.command(name="import")
@click.option("--finish", is_flag=True, help="Remove what Calico's Felix left in the kernel; our agent must be ready, and Felix stopped.")
@click.option("--dry-run", is_flag=True, help="With --finish: say what would be removed, and change nothing.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@STORE_OPTIONS
@click.pass_obj
def import_host(place: Place, finish: bool, dry_run: bool, as_json: bool) -> int:
    """Take over a host that Calico runs, without touching its traffic.

    Shows each endpoint of this host in the store against interface, route, block and handle, what fits nothing, what Felix has in the
    kernel, and the next step. Nothing is changed without --finish; needs root. Exit code 1: something stands in the way.
    """
    if dry_run and not finish:
        raise click.UsageError("--dry-run goes with --finish")
    sighting = asyncio.run(_look(place))
    if finish:
        return _finish(sighting, dry_run=dry_run, as_json=as_json)
    from tabinet.agent.takeover.survey import survey

    answer = survey(sighting)
    if as_json:
        show_json(_as_json(answer, sighting))
    else:
        _show(answer, sighting)
    return 1 if answer.blocked else 0


async def _look(place: Place) -> Sighting:
    from tabinet.agent.takeover.sight import look

    store = await open_place(place)
    try:
        return await look(read_parameters(place), store)
    finally:
        await store.close()


def _show(answer: Survey, sighting: Sighting) -> None:
    rows = [
        [line.endpoint, line.interface, line.state, each.address, each.route, each.block, each.handle]
        for line in answer.endpoints
        for each in line.addresses
    ]
    if rows:
        show_table(["ENDPOINT", "INTERFACE", "STATE", "ADDRESS", "ROUTE", "BLOCK", "HANDLE"], rows)
    click.echo(f"{len(answer.endpoints)} endpoints on {answer.host}")
    for name, text in _traces(sighting):
        click.echo(printable(f"{name}: {text}"))
    for finding in answer.findings:
        click.echo(printable(f"{'in the way' if finding.blocks else 'note'}: {finding.subject}: {finding.problem}"))
        if finding.command:
            click.echo(printable(f"    {finding.command}"))
    click.echo(printable(f"next: {answer.advice}"))


def _traces(sighting: Sighting) -> list[tuple[str, str]]:
    """What there is of Calico and of us, in words."""
    traces, agent = sighting.traces, sighting.agent
    parts = [f"{table.name} ({len(table.chains)} chains)" for table in traces.tables]
    parts += [f"nftables table {family} calico" for family in traces.nft_tables]
    counted = ((len(traces.ipsets), "ipsets"), (len(traces.rules), "routing rules"))
    parts += [f"{count} {what}" for count, what in counted if count]
    running = [f"{process.what} ({process.pid})" for process in sighting.processes]
    report = agent.report
    ours = agent.error if report is None else f"{report.endpoints_ready} endpoints ready, {report.endpoints_waiting} waiting"
    return [("Calico runs", ", ".join(running) or "nothing"), ("Felix's rules", ", ".join(parts) or "none"), ("our agent", ours)]


def _as_json(answer: Survey, sighting: Sighting) -> dict[str, object]:
    import msgspec

    return {
        "host": answer.host,
        "well": not answer.blocked,
        "next": {"step": answer.step.value, "advice": answer.advice},
        "endpoints": msgspec.to_builtins(answer.endpoints),
        "findings": msgspec.to_builtins(answer.findings),
        "calico": {
            "processes": msgspec.to_builtins(sighting.processes),
            "tables": [table.name for table in sighting.traces.tables],
            "nftTables": list(sighting.traces.nft_tables),
            "ipsets": list(sighting.traces.ipsets),
            "rules": [str(rule) for rule in sighting.traces.rules],
        },
    }


def _finish(sighting: Sighting, *, dry_run: bool, as_json: bool) -> int:
    """What Felix left is gone, or it is said why it must stay."""
    from tabinet.agent.takeover.finish import plan_removals, remove
    from tabinet.agent.takeover.progress import refusals

    reasons = refusals(sighting)
    planned = plan_removals(sighting)
    if dry_run:
        if as_json:
            show_json({"refused": reasons, "would": [{"what": each.what, "text": each.detail} for each in planned]})
        else:
            for each in planned:
                click.echo(printable(f"would go: {each.what}"))
                for row in each.detail.splitlines():
                    click.echo(printable(f"    {row}"))
            click.echo(f"{len(planned)} things would go" if planned else "nothing is left of Felix")
    for reason in reasons:
        fail(f"not yet: {reason}")
    if reasons or dry_run:
        return 1 if reasons else 0
    outcomes = remove(sighting)
    failed = [outcome for outcome in outcomes if outcome.error]
    if as_json:
        show_json([{"what": outcome.what, "error": outcome.error} for outcome in outcomes])
    else:
        for outcome in outcomes:
            if not outcome.error:
                click.echo(printable(f"gone: {outcome.what}"))
        click.echo(f"{len(outcomes) - len(failed)} things are gone" if outcomes else "nothing is left of Felix")
    for outcome in failed:
        fail(f"{outcome.what}: {outcome.error}")
    return 1 if failed else 0

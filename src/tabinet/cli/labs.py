"""``tabinet lab ...``: fabrics of network namespaces on this machine; and ``tabinet demo``."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Coroutine, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tabinet.cli.output import note, show_json, show_table
from tabinet.cli.place import Place

if TYPE_CHECKING:
    from tabinet.lab.check import CheckReport
    from tabinet.lab.status import LabStatus


T = TypeVar("T")


def _lab_name(context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """The lab named after the command, else before it or in the environment."""
    return value or context.ensure_object(Place).chosen_lab()


LAB = click.option(
    "--lab", "name", metavar="NAME", callback=_lab_name, help="Which lab (default: $TABINET_LAB, or the only one that runs)."
)
JSON = click.option("--json", "as_json", is_flag=True, help="As JSON.")


def examples() -> Path:
    """The directory of the examples: of the checkout, or of the installed package."""
    package = Path(__file__).parents[1]
    checkout = package.parents[1] / "examples"
    return checkout if checkout.is_dir() else package / "examples"


def need_root() -> None:
    """Raises SetupError unless we are root."""
    from tabinet.errors import SetupError

    if os.geteuid() != 0:
        raise SetupError("labs are made of network namespaces, which needs root: run it with sudo")


def run_to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """The work's result. SIGTERM cancels it as SIGINT does, so that it can take back what it has made; then the command is aborted."""

    async def run() -> T:
        task = asyncio.current_task()
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        raise click.Abort from None


@click.group()
def lab() -> None:
    """Fabrics of network namespaces on this machine.

    Routers, hosts and workloads, with real BIRD, FRR, etcd and agents.
    """


@lab.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@JSON
def up(file: Path | None, as_json: bool) -> int:
    """Make the lab that FILE describes (default: the example 'clos', a folded Clos with two racks)."""
    from tabinet.lab.load import load_topology
    from tabinet.lab.up import lab_up

    need_root()
    begin = monotonic()

    def progress(step: str) -> None:
        note(f"{monotonic() - begin:6.1f} s  {step}")

    made = run_to_the_end(lab_up(load_topology(file or examples() / "labs" / "clos.yaml"), progress=progress))
    took_s = monotonic() - begin
    if as_json:
        show_json(
            {"lab": made.name, "seconds": round(took_s, 2), "nodes": len(made.plan.nodes), "workloads": len(made.plan.topology.workloads)}
        )
    else:
        progress(f"lab {made.name} is up: {len(made.plan.hosts)} hosts, {len(made.plan.topology.workloads)} workloads")
        click.echo("try: tabinet lab check    tabinet status    tabinet lab exec web1 -- ip route    tabinet lab down")
    return 0


@lab.command()
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="All labs.")
@JSON
def down(name: str | None, everything: bool, as_json: bool) -> int:
    """Remove the lab NAME (default: the only one): namespaces, processes, files; also after a crash."""
    from tabinet.lab.build import known_labs
    from tabinet.lab.lab import lab_down
    from tabinet.lab.state import ROOT

    need_root()
    known = known_labs(ROOT)
    if name is None and not everything and len(known) > 1:
        raise click.UsageError(f"several labs run ({', '.join(known)}): say which, or --all")
    names = known if everything or name is None else [name]
    removed = {each: asyncio.run(lab_down(each)) for each in names}
    if as_json:
        import msgspec

        show_json({each: msgspec.to_builtins(what) for each, what in removed.items()})
        return 0
    for each, what in removed.items():
        click.echo(f"lab {each}: removed {what.namespaces} namespaces and {what.processes} processes")
    if not removed:
        click.echo("no lab runs")
    return 0


@lab.command()
@LAB
@JSON
def status(name: str | None, as_json: bool) -> int:
    """What runs in the lab and what does not. Exit code 1 when something does not."""
    import msgspec

    from tabinet.lab.lab import open_lab

    need_root()
    found = asyncio.run(open_lab(name).status())
    if as_json:
        show_json(msgspec.to_builtins(found))
    else:
        show_lab(found)
    return 0 if found.healthy else 1


def show_lab(found: LabStatus) -> None:
    """Prints what runs of a lab, and what does not."""
    rows = []
    for node in found.nodes:
        programs = " ".join(f"{item.component}" if item.alive else f"{item.component}(dead)" for item in node.components)
        report = node.report
        bgp = f"{sum(session.state == 'up' for session in report.sessions)}/{len(report.sessions)}" if report else ""
        rows.append([node.name, node.kind, node.namespace if node.exists else "missing", programs, bgp])
    show_table(["NODE", "KIND", "NAMESPACE", "PROGRAMS", "BGP UP"], rows)
    workloads = [[each.name, each.kind, each.host, " ".join(each.addresses) or "-"] for each in found.workloads]
    show_table(["WORKLOAD", "KIND", "HOST", "ADDRESSES"], workloads)
    for cable in found.cables:
        if cable.state != "up":
            click.echo(f"link {cable.name} is cut{' silently' if cable.state == 'silent' else ''}")
    if found.store:
        click.echo(f"store: {found.store}")
    click.echo(f"lab {found.name}: {'well' if found.healthy else 'not well'}")


@lab.command()
@LAB
@JSON
def check(name: str | None, as_json: bool) -> int:
    """Send packets between workloads, and between them and hosts, and compare with what policy says.

    Exit code 1 on any mismatch.
    """
    import msgspec

    from tabinet.lab.lab import open_lab

    need_root()
    report = asyncio.run(open_lab(name).check())
    if as_json:
        show_json(msgspec.to_builtins(report))
    else:
        show_check(report)
    return 1 if report.mismatches else 0


def show_check(report: CheckReport) -> None:
    """Prints the matrix: how many of the probes are allowed from each workload (row) to each other (column)."""
    names = list(dict.fromkeys(pair.source for pair in report.pairs))
    cells = {
        (pair.source, pair.destination): f"{pair.allowed}/{pair.probes}" + (f" !{pair.mismatches}" if pair.mismatches else "")
        for pair in report.pairs
    }
    click.echo("answered / sent, from row to column; '!n' marks n mismatches")
    rows = [[source, *(cells.get((source, destination), "·") for destination in names)] for source in names]
    show_table(["", *names], rows)
    for detail in report.details:
        where = f"{detail.source} -> {detail.destination} {detail.family} {detail.protocol} {detail.port or ''}".rstrip()
        click.echo(f"MISMATCH {where}: expected {detail.expected} ({detail.reason}), seen {detail.seen} {detail.who}".rstrip())
    again = f", {report.retried} sent twice" if report.retried else ""
    click.echo(f"{report.probes} probes ({', '.join(report.families)}), {report.mismatches} mismatches{again}, {report.duration_s:.1f} s")


@lab.command(context_settings={"ignore_unknown_options": True})
@LAB
@click.argument("node")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec(name: str | None, node: str, command: Sequence[str]) -> int:  # the command's name
    """Run COMMAND in a NODE (router, host or workload): tabinet lab exec web1 -- ping -c1 169.254.1.1

    On a host, tabinet itself finds the configuration of that host: tabinet lab exec host11 -- tabinet node status
    """
    from tabinet.lab.lab import open_lab

    need_root()
    found = open_lab(name)
    return subprocess.run(found.exec_argv(node, command), env=os.environ | found.exec_environment(node), check=False).returncode


@lab.command()
@LAB
@click.argument("link")
@click.option("--silent", is_flag=True, help="Drop packets, but leave the carrier on: only BFD can notice.")
def cut(name: str | None, link: str, silent: bool) -> int:
    """Cut a LINK, written as the names of its ends: tor11:host11."""
    from tabinet.lab.lab import open_lab

    need_root()
    asyncio.run(open_lab(name).cut(link, silent=silent))
    return 0


@lab.command()
@LAB
@click.argument("link")
def heal(name: str | None, link: str) -> int:
    """Heal a LINK that was cut."""
    from tabinet.lab.lab import open_lab

    need_root()
    asyncio.run(open_lab(name).heal(link))
    return 0


@lab.command()
@LAB
@click.argument("node")
@click.argument("component")
@click.option("--kill", "kill_it", is_flag=True, help="By SIGKILL instead of in a planned manner.")
@click.option("--stop-only", is_flag=True, help="Do not start it again; a later restart does.")
def restart(name: str | None, node: str, component: str, kill_it: bool, stop_only: bool) -> int:
    """Restart a COMPONENT of a NODE: agent or bird of a host, router of a router, etcd of 'mgmt'."""
    from tabinet.lab.lab import open_lab

    need_root()
    found = open_lab(name)
    if stop_only:
        asyncio.run(found.stop(node, component, kill_it=kill_it))
    else:
        asyncio.run(found.restart(node, component, kill_it=kill_it))
    return 0


@click.command()
@JSON
@click.option("--vms", is_flag=True, help="With two virtual machines among the workloads; needs 'make setup VMS=1'.")
@click.option(
    "--mixed", is_flag=True, help="Another lab: containers of podman and Docker, a domain of libvirt, a port of OpenStack, a bare host."
)
def demo(as_json: bool, vms: bool, mixed: bool) -> int:
    """Bring up the default lab and show policy, failures and repairs with packets.

    Everything that it prints was measured.
    """
    from tabinet.cli.demo import run_demo
    from tabinet.cli.demo_mixed import run_mixed_demo

    if mixed and vms:
        raise click.UsageError("--vms is about the default lab: say one of --vms and --mixed")
    need_root()
    if mixed:
        return run_mixed_demo(examples(), as_json=as_json)
    return run_demo(examples(), as_json=as_json, vms=vms)

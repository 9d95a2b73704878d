"""``tabinet openstack``: what Neutron's driver does, by hand, and how it is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from tabinet.cli.output import show_json, show_table
from tabinet.cli.place import STORE_OPTIONS, Place

if TYPE_CHECKING:
    from tabinet.attach.openstack.comparison import Comparison
    from tabinet.store.api import KeyValue

CONFIG_FILES = ("/etc/neutron/neutron.conf", "/etc/neutron/plugins/ml2/ml2_conf.ini")


@click.group()
def openstack() -> None:
    """OpenStack: compare the store with Neutron, show who leads."""


@openstack.command()
@click.option("--dry-run", is_flag=True, help="Change nothing, only say what differs.")
@click.option("--network", "networks", multiple=True, metavar="ID", help="Only the ports and subnets of this network; repeatable.")
@click.option("--port", "ports", multiple=True, metavar="ID", help="Only this port; repeatable.")
@click.option("--group", "groups", multiple=True, metavar="ID", help="Only this security group; repeatable.")
@click.option(
    "--config-file",
    "config_files",
    multiple=True,
    metavar="FILE",
    default=CONFIG_FILES,
    show_default=True,
    help="Neutron's configuration; repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def resync(
    dry_run: bool, networks: tuple[str, ...], ports: tuple[str, ...], groups: tuple[str, ...], config_files: tuple[str, ...], as_json: bool
) -> int:
    """Make the store equal to what Neutron's database says, and say what differed.

    Runs where Neutron does, with its configuration and in its Python. Without a selection it compares everything and removes what is left
    over. Exit code 1 when something differs (--dry-run) or could not be repaired.
    """
    from tabinet.errors import SetupError

    try:
        from tabinet.attach.openstack.ml2.resync import resync as run
    except ImportError as error:
        raise SetupError(f"Neutron is not installed in this Python ({error}): use the tabinet command of Neutron's environment") from error

    def show_progress(comparison: Comparison) -> None:
        if not as_json:
            click.echo(f"\r{comparison.compared} of {comparison.total} compared, {comparison.found} differ", nl=False, err=True)

    comparison = run(config_files, networks=networks, ports=ports, groups=groups, dry_run=dry_run, on_progress=show_progress)
    if not as_json:
        click.echo(err=True)
    return _show(comparison, as_json)


@openstack.command()
@STORE_OPTIONS
@click.option("--region", default="", metavar="NAME", help="Of which OpenStack region.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_obj
def status(place: Place, region: str, as_json: bool) -> int:
    """Show which Neutron process leads, and what its latest comparison found.

    Exit code 1 when nobody leads.
    """
    from tabinet.attach.openstack.comparison import parse_comparison
    from tabinet.attach.openstack.names import Region, comparison_path, election_path
    from tabinet.cli.place import open_place

    async def read() -> tuple[KeyValue | None, KeyValue | None]:
        store = await open_place(place)
        try:
            return await store.get(election_path(Region(region))), await store.get(comparison_path(Region(region)))
        finally:
            await store.close()

    election, found = asyncio.run(read())
    leader = "" if election is None else election.value.decode("utf-8", "replace")
    comparison = None if found is None else parse_comparison(found.key, found.value)
    if as_json:
        import msgspec

        show_json({"leader": leader, "comparison": msgspec.to_builtins(comparison)})
    else:
        click.echo(f"leader: {leader or 'none'}")
        if comparison is not None:
            _show(comparison, as_json=False)
    return 0 if leader else 1


def _show(comparison: Comparison, as_json: bool) -> int:
    """Prints what a comparison found; the exit code that this is."""
    if as_json:
        import msgspec

        show_json(msgspec.to_builtins(comparison))
    else:
        if comparison.differences:
            rows = [[each.kind, each.id, each.what, "yes" if each.repaired else each.error or "no"] for each in comparison.differences]
            show_table(["KIND", "ID", "IN THE STORE", "REPAIRED"], rows)
        click.echo(f"{comparison.compared} compared, {comparison.found} differed, {comparison.repaired} repaired")
    return 1 if comparison.found > comparison.repaired else 0

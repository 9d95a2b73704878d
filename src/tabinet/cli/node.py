"""``tabinet node ...``: what an operator does with hosts."""

from __future__ import annotations

import click

from tabinet.cli.node_drain import drain, undrain
from tabinet.cli.node_join import checksystem, init
from tabinet.cli.place import STORE_OPTIONS, Place


@click.group()
def node() -> None:
    """Hosts: how they are, joining the fabric, leaving it for maintenance."""


node.add_command(drain)
node.add_command(undrain)
node.add_command(init)
node.add_command(checksystem)

FORMAT = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How to show it: for people or for programs.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="The same as -o json.")


@node.command()
@click.argument("names", nargs=-1, metavar="[NAMES]...")
@click.option("-a", "--all", "everybody", is_flag=True, help="All hosts, as they report to the store.")
@FORMAT
@JSON
@STORE_OPTIONS
@click.pass_obj
def status(place: Place, names: tuple[str, ...], everybody: bool, output: str, as_json: bool) -> int:
    """Show BGP sessions with what keeps them down, BIRD, agent and kernel: of this host, or of hosts by name.

    Without NAMES the agent of this host is asked, and BIRD itself when there is no agent; no store is needed for that.
    Exit code 1 when anything is wrong, 3 when neither answers.
    """
    import asyncio

    from tabinet.cli.node_show import show_status
    from tabinet.cli.node_views import read_here, read_named

    if names and everybody:
        raise click.UsageError("say either NAMES or --all")
    views = asyncio.run(read_named(place, names) if names or everybody else read_here(place))
    show_status(views, as_json=as_json or output == "json")
    return 1 if not views or any(view.troubles for view in views) else 0


@node.command(name="list")
@FORMAT
@JSON
@STORE_OPTIONS
@click.pass_obj
def list_nodes(place: Place, output: str, as_json: bool) -> int:
    """Show all hosts in a line each: agent, sessions, revision in the kernel, drain.

    BEHIND is how many revisions of the store the host's kernel is behind the host that is foremost; what does not concern a host it may
    learn up to 5 s later. Exit code 1 when a host is not well; a drained one is.
    """
    import asyncio

    from tabinet.cli.node_show import show_list
    from tabinet.cli.node_views import read_named

    views = asyncio.run(read_named(place, ()))
    show_list(views, as_json=as_json or output == "json")
    return 1 if not views or any(view.troubles for view in views) else 0

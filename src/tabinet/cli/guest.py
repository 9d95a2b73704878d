"""``tabinet guest``: what the guests of one host are answered."""

from __future__ import annotations

import click

from tabinet.cli.place import STORE_OPTIONS, Place


@click.command()
@STORE_OPTIONS
@click.pass_obj
def guest(place: Place) -> int:
    """Answer the guests of this host (DHCP, metadata), in the foreground.

    Runs beside the agent and with its configuration file; needs root.
    """
    from tabinet.agent.guest import run_guest
    from tabinet.cli.place import read_parameters

    return run_guest(read_parameters(place))

"""``tabinet agent``: the daemon of one host."""

from __future__ import annotations

import click

from tabinet.cli.place import STORE_OPTIONS, Place


@click.command()
@STORE_OPTIONS
@click.option("--print-parameters", is_flag=True, help="Show all parameters with their values and where each comes from, and exit.")
@click.pass_obj
def agent(place: Place, print_parameters: bool) -> int:
    """Run the agent of this host, in the foreground.

    It programs routes, policy and BIRD as the store says; needs root.
    """
    from tabinet.agent.main import run
    from tabinet.cli import clerk, cni, docker, libvirt
    from tabinet.cli.output import show_table
    from tabinet.cli.place import read_parameters

    parameters = read_parameters(place)
    if print_parameters:
        rows = []
        for (section, name), value in parameters.values.items():
            shown = "***" if name == "password" and value else ", ".join(value) if isinstance(value, tuple) else value
            rows.append([f"{section}.{name}", shown, parameters.origins[section, name]])
        show_table(["PARAMETER", "VALUE", "FROM"], rows)
        return 0
    companions = {"cni": cni.beside_agent, "clerk": clerk.beside_agent, "docker": docker.beside_agent, "libvirt": libvirt.beside_agent}
    return run(parameters, [each for section, each in companions.items() if parameters.switch(section, "enabled")])

"""``tabinet agent``: the daemon of one host."""

from __future__ import annotations

import click


@click.command()
@click.option("--print-parameters", is_flag=True, help="Show all parameters with their values and where each comes from, and exit.")
@click.pass_obj
def agent(config: str | None, print_parameters: bool) -> int:
    """Run the agent of this host: it programs routes, policy and BIRD as the store says. In the foreground; needs root."""
    from tabinet.agent.main import run
    from tabinet.cli.context import read_parameters
    from tabinet.cli.output import show_table

    parameters = read_parameters(config)
    if print_parameters:
        rows = []
        for (section, name), value in parameters.values.items():
            shown = "***" if name == "password" and value else ", ".join(value) if isinstance(value, tuple) else value
            rows.append([f"{section}.{name}", shown, parameters.origins[section, name]])
        show_table(["PARAMETER", "VALUE", "FROM"], rows)
        return 0
    return run(parameters)

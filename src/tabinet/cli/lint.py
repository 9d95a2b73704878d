"""``tabinet lint``: what in the policy does nothing, and what looks mistyped."""

from __future__ import annotations

import click

from tabinet.cli.place import STORE_OPTIONS, Place


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@STORE_OPTIONS
@click.pass_obj
def lint(place: Place, as_json: bool) -> int:
    """Find rules and policies that do nothing, and names that look mistyped.

    Rules that can never match, that earlier rules leave nothing to, or without which every packet has the same verdict; policies that
    select nobody or make no difference; rules that allow prefixes of which hardly anything exists; labels that nobody has and that look
    like one that somebody has. Each with its evidence. As things are now: with other endpoints a rule may have something to do.

    Exit code 0: nothing found, 1: something.
    """
    import msgspec

    from tabinet.analysis.lint import lint as find
    from tabinet.analysis.situation import calculate
    from tabinet.cli.fabric_reading import read_all
    from tabinet.cli.output import note, printable, show_json

    findings = find(calculate(read_all(place)).situation)
    if as_json:
        show_json(msgspec.to_builtins(findings))
    else:
        for finding in findings:
            click.echo(printable(f"{finding.what:15}{finding.where}: {finding.text}"))
            click.echo(printable(f"{'':15}{finding.evidence}"))
        note(f"{len(findings)} finding{'' if len(findings) == 1 else 's'}")
    return 1 if findings else 0

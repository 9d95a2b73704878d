"""``tabinet policy``: what policies have counted, on this host or on all hosts of a lab."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import click

from tabinet.cli.output import show_json, show_table
from tabinet.cli.place import Place

if TYPE_CHECKING:
    from tabinet.agent.statistics import Statistics

HOST_TIMEOUT_S = 60.0


@click.group()
def policy() -> None:
    """What policies do."""


@policy.command()
@click.argument("name", required=False)
@click.option("--lab", "lab", metavar="NAME", help="Sums over all hosts of this lab.")
@click.option("-o", "--output", "form", type=click.Choice(["table", "json"]), default="table", help="Form of the output.")
@click.pass_obj
def stats(place: Place, name: str | None, lab: str | None, form: str) -> int:
    """Show packets and bytes by policy and rule, and what was denied by endpoint, of NAME or of all, on this host.

    NAME is the name of a policy or of an endpoint, or more of it (default/web, NetworkPolicy/default/web). Staged policies come
    separately: they count nothing. A flow is counted when it is judged: at its first packet, and again after each revocation; of
    what is denied every packet is. Rules that are decided together are counted together (rule 0-7). Of an endpoint, egress is what
    it sent and ingress what it would have received, whosever policy denied it; without NAME those of which nothing was denied are
    left out. Needs root and a running agent.

    Exit code 1 when no policy or endpoint of this name is in use here.
    """
    from tabinet.agent.statistics import add_up, of_name

    # without a name after the command the one before it, or in the environment, counts: as with all commands
    chosen = lab or place.chosen_lab()
    found = add_up(_of_lab(chosen)) if chosen else _of_this_host()
    if name is not None:
        found = of_name(found, name)
    if form == "json":
        import msgspec

        show_json(msgspec.to_builtins(found))
    else:
        _print(found, whole=name is None)
    return 1 if name is not None and not (found.rules or found.staged or found.endpoints) else 0


def _of_this_host() -> Statistics:
    import msgspec

    from tabinet.agent.operator import STATISTICS, ask
    from tabinet.agent.statistics import Statistics
    from tabinet.errors import SetupError

    answer = ask(STATISTICS)
    if answer is None:
        raise SetupError("no agent runs in this network namespace: only a running agent knows which rule has counted what")
    return msgspec.json.decode(answer, type=Statistics)


def _of_lab(name: str) -> list[Statistics]:
    """Of each host of the lab, asked from inside."""
    import msgspec

    from tabinet.agent.statistics import Statistics
    from tabinet.cli.labs import need_root
    from tabinet.errors import SetupError
    from tabinet.lab.lab import open_lab

    need_root()
    lab = open_lab(name)
    found = []
    for host in lab.plan.hosts:
        argv = lab.exec_argv(host.name, [sys.executable, "-m", "tabinet.cli.main", "policy", "stats", "-o", "json"])
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}  # without TABINET_LAB: each is to tell of itself
        done = subprocess.run(argv, capture_output=True, timeout=HOST_TIMEOUT_S, check=False, env=environment)
        if done.returncode:
            raise SetupError(f"host {host.name} does not tell: {done.stderr.decode(errors='replace').strip()}")
        found.append(msgspec.json.decode(done.stdout, type=Statistics))
    return found


def _print(found: Statistics, *, whole: bool) -> None:
    rows = []
    for rule in found.rules:
        number = "" if rule.rule < 0 else str(rule.rule) if rule.last == rule.rule else f"{rule.rule}-{rule.last}"
        rows.append([rule.policy, rule.direction, number, rule.packets, rule.bytes, rule.text or rule.action])
    if rows or whole:
        show_table(["POLICY", "DIRECTION", "RULE", "PACKETS", "BYTES", "TEXT"], rows)
    if found.staged:
        click.echo()
        staged = [[item.policy, item.action, item.tier, item.endpoints, item.rules, "; ".join(item.problems)] for item in found.staged]
        show_table(["STAGED", "ACTION", "TIER", "ENDPOINTS", "RULES", "PROBLEMS"], staged)
    if whole and found.denied:
        click.echo()
        show_table(["DENIED", "PACKETS", "BYTES"], [[item.reason, item.packets, item.bytes] for item in found.denied])
    endpoints = [[item.endpoint, item.direction, item.packets, item.bytes] for item in found.endpoints if item.packets or not whole]
    if endpoints:
        if whole or rows or found.staged:
            click.echo()
        show_table(["ENDPOINT", "DENIED", "PACKETS", "BYTES"], endpoints)

"""``tabinet doctor``: what is in the way of this host, and what to do about it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from tabinet.cli.output import printable, show_json, show_table
from tabinet.cli.place import STORE_OPTIONS, Place, find_store, open_place, read_parameters

if TYPE_CHECKING:
    from tabinet.agent.checksystem import Check
    from tabinet.agent.parameters import Parameters


@click.command()
@click.option("--all", "everything", is_flag=True, help="Show what is well, too.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@STORE_OPTIONS
@click.pass_obj
def doctor(place: Place, everything: bool, as_json: bool) -> int:
    """Look at this host and around it for what keeps the fabric from working, and say what to do.

    Kernel, programs, clock, settings, tables that fill up, other programs' firewall rules, MTU, the store, and every BGP peer that is
    not up. Nothing is changed; needs root. Exit code 1 when something is wrong; remarks do not count.
    """
    checks = asyncio.run(_examine(place))
    ill = [check for check in checks if not check.well and not check.remark]
    if as_json:
        import msgspec

        show_json({"well": not ill, "checks": msgspec.to_builtins(checks)})
        return 1 if ill else 0
    shown = [check for check in checks if everything or not check.well]
    words = {True: "note", False: "wrong"}
    if shown:
        rows = [[check.name, "ok" if check.well else words[check.remark], "" if check.well else printable(check.advice)] for check in shown]
        show_table(["CHECK", "RESULT", "WHAT TO DO"], rows)
    click.echo(f"{len(checks)} checks, {len(ill)} wrong")
    return 1 if ill else 0


async def _examine(place: Place) -> list[Check]:
    from tabinet.agent.checksystem import check_system

    parameters = read_parameters(place)
    return [*check_system(parameters), *_here(parameters), await _store(place), *await _peers(place)]


def _here(parameters: Parameters) -> list[Check]:
    """What this host itself tells."""
    from tabinet.agent.doctor.firewalls import FELIX, check_firewalls, read_legacy
    from tabinet.agent.doctor.network import check_mtu
    from tabinet.agent.doctor.settings import check_settings
    from tabinet.agent.tunneloptions import tunnel_options
    from tabinet.kernel.nftchains import list_base_chains
    from tabinet.kernel.rtsocket import open_rtnetlink

    options = tunnel_options(parameters)
    rtnetlink = open_rtnetlink()
    try:
        mtu = check_mtu(rtnetlink.links(), rtnetlink.addresses(), None, options)
    finally:
        rtnetlink.close()
    prefixes = options.interface_prefixes
    return [*check_settings(), mtu, *check_firewalls(list_base_chains((*prefixes, FELIX)), prefixes, read_legacy())]


async def _store(place: Place) -> Check:
    from tabinet.agent.checksystem import Check
    from tabinet.agent.doctor.network import check_store
    from tabinet.errors import TabinetError
    from tabinet.model.report import PREFIX

    config = find_store(place)
    name = config.path if config.kind == "sqlite" else ", ".join(config.endpoints) if config.kind == "etcd" else config.kind
    try:
        store = await open_place(place)
    except TabinetError as error:
        return Check(name=f"store {name}", well=False, advice=f"{error}")
    try:
        return await check_store(store, name, PREFIX)
    finally:
        await store.close()


async def _peers(place: Place) -> list[Check]:
    from tabinet.agent.checksystem import Check
    from tabinet.agent.doctor.network import check_peers
    from tabinet.cli.node_views import read_here
    from tabinet.errors import SetupError

    try:
        views = await read_here(place)
    except SetupError as error:
        return [Check(name="agent", well=False, advice=str(error))]
    checks = []
    for view in views:
        troubles = [trouble for trouble in view.troubles if not trouble.startswith("BGP to ")]
        checks += [Check(name="agent", well=False, advice=trouble) for trouble in troubles]
        checks += await check_peers(view.report.sessions if view.report is not None else ())
    return checks

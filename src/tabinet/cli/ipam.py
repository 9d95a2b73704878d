"""``tabinet ipam ...``: who has which addresses, what is wrong with that, and putting it right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from tabinet.cli.ipam_assign import assign
from tabinet.cli.ipam_reading import JSON, parse_ip, read_all, with_store
from tabinet.cli.ipam_show import show
from tabinet.cli.output import fail, note, printable, show_json
from tabinet.cli.place import STORE_OPTIONS, Place

if TYPE_CHECKING:
    from tabinet.ipam.collector import Collection
    from tabinet.ipam.findings import Finding
    from tabinet.ipam.view import Config
    from tabinet.lib.ip import Prefix
    from tabinet.store.api import Datastore


def _seconds(_context: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
    """What is written as 15m, 90s or 1h30m."""
    from tabinet.model.formats import parse_duration_s

    try:
        return None if text is None else parse_duration_s(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no duration such as 15m, 90s or 1h30m") from None


@click.group()
def ipam() -> None:
    """Addresses: who has which, what leaks, how they are assigned."""


ipam.add_command(show)
ipam.add_command(assign)


# --- check ----------------------------------------------------------------------------------------------------------------


@ipam.command()
@JSON
@STORE_OPTIONS
@click.pass_obj
def check(place: Place, as_json: bool) -> int:
    """Show everything that does not fit together, what it means and what to do.

    Blocks, claims and handles are held against each other and against the endpoints and hosts that use the addresses.
    Exit code 1 when there are errors or leaks.
    """
    from tabinet.ipam.findings import Level

    findings, broken = with_store(place, _check)
    if as_json:
        show_json({"findings": [_finding_as_json(finding) for finding in findings], "unreadable": list(broken)})
    else:
        _tell_findings(findings)
        for text in broken:
            fail(f"cannot be understood, so its addresses seem unused: {text}")
        count = len(findings)
        click.echo(
            f"{count} finding{'' if count == 1 else 's'}" if count else "no findings: blocks, claims, handles and endpoints fit together"
        )
    return 1 if broken or any(finding.kind.level is not Level.NOTE for finding in findings) else 0


async def _check(store: Datastore) -> tuple[list[Finding], tuple[str, ...]]:
    """The findings that are there twice: what changes in between is somebody's work, not a fault."""
    from tabinet.ipam.audit import find_leaks, find_problems

    async def once() -> tuple[list[Finding], tuple[str, ...]]:
        inventory, fabric = await read_all(store)
        return find_problems(inventory) + find_leaks(inventory, fabric), fabric.broken

    found, broken = await once()
    if not found:
        return found, broken
    again, broken = await once()
    seen = {(finding.code, finding.subject, finding.identity) for finding in found}
    return [finding for finding in again if (finding.code, finding.subject, finding.identity) in seen], broken


def _tell_findings(findings: Sequence[Finding]) -> None:
    """Each kind is explained once, before its findings."""
    by_code: dict[str, list[Finding]] = {}
    for finding in findings:
        by_code.setdefault(finding.code, []).append(finding)
    for code, group in by_code.items():
        kind = group[0].kind
        click.echo(f"{kind.level.value}: {code}")
        for finding in group:
            click.echo(printable(f"  {finding}"))
        click.echo(f"  what it means: {kind.meaning}")
        click.echo(f"  what to do: {kind.advice}")


def _finding_as_json(finding: Finding) -> dict[str, object]:
    return {
        "level": finding.kind.level.value,
        "code": finding.code,
        "subject": finding.subject,
        "problem": finding.problem,
        "meaning": finding.kind.meaning,
        "advice": finding.kind.advice,
    }


# --- release, gc ----------------------------------------------------------------------------------------------------------


@ipam.command()
@click.option("--ip", "addresses", metavar="ADDRESS", multiple=True, help="This address. Repeatable.")
@click.option("--handle", metavar="HANDLE", help="All addresses of this owner.")
@click.option("--host", metavar="HOST", help="All addresses and blocks of this host.")
@click.option("--force", is_flag=True, help="Also what an endpoint or a host uses: somebody else may get the address then.")
@JSON
@STORE_OPTIONS
@click.pass_obj
def release(place: Place, addresses: Sequence[str], handle: str | None, host: str | None, force: bool, as_json: bool) -> int:
    """Free addresses that were not released by those who had them.

    Exit code 1 when there was nothing to release.
    """
    if bool(addresses) + (handle is not None) + (host is not None) != 1:
        raise click.UsageError("say what to release: --ip ADDRESS, --handle HANDLE or --host HOST")
    wanted = [parse_ip(text) for text in addresses]

    async def work(store: Datastore) -> tuple[Sequence[Prefix], Sequence[Prefix]]:
        from tabinet.ipam.client import IpamClient

        client = IpamClient(store)
        if not force:
            await _refuse_used(store, wanted, handle, host)
        if host is not None:
            return await client.release_host(host)
        if handle is not None:
            return await client.release_handle(handle), ()
        return await client.release_addresses(wanted), ()

    freed, blocks = with_store(place, work)
    if as_json:
        show_json({"addresses": [address.address for address in freed], "blocks": [str(block) for block in blocks]})
    else:
        for address in freed:
            click.echo(f"{address.address} released")
        for block in blocks:
            click.echo(f"{block} given up")
        if not freed and not blocks:
            note("nothing was assigned")
    return 0 if freed or blocks else 1


async def _refuse_used(store: Datastore, addresses: Sequence[Prefix], handle: str | None, host: str | None) -> None:
    """Nothing of what is to be released is in use.

    Raises:
        Conflict: something is.
    """
    from tabinet.errors import Conflict
    from tabinet.ipam.audit import allocations

    inventory, fabric = await read_all(store)
    concerned = [
        allocation.address
        for allocation in allocations(inventory)
        if allocation.address in addresses
        or (handle is not None and allocation.handle == handle)
        or (host is not None and allocation.note("node") == host)
    ]
    used = [f"{address.address} by {fabric.uses[address][0].by}" for address in concerned if address in fabric.uses]
    if used:
        raise Conflict(f"in use: {'; '.join(used[:5])}{'; ...' if len(used) > 5 else ''}. Detach first, or say --force")


@ipam.command()
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
@click.option(
    "--grace",
    callback=_seconds,
    metavar="TIME",
    default="15m",
    show_default=True,
    help="What is found is taken back when it is still so after this time.",
)
@click.option(
    "--every",
    callback=_seconds,
    metavar="TIME",
    default=None,
    help="Stay, and collect again and again; of several such commands one does it.",
)
@JSON
@STORE_OPTIONS
@click.pass_obj
def gc(place: Place, dry_run: bool, grace: float, every: float | None, as_json: bool) -> int:
    """Take back addresses, blocks and leftovers that belong to nobody any more.

    An address without endpoint, or of a host that is gone, is remembered when it is first seen and released when a later run still
    finds it, untouched, after the grace period. With --grace 0 all that is found goes at once: nothing may be just being attached then.
    Exit code 1 when something was left alone that should not be.
    """
    if every is not None:
        if dry_run or every <= 0:
            raise click.UsageError("--every needs more than 0 s, and cannot be a dry run")
        return _collect_forever(place, every, grace, as_json)

    async def work(store: Datastore) -> Collection:
        from tabinet.ipam.collector import collect

        return await collect(store, grace_s=grace, dry_run=dry_run)

    collection = with_store(place, work)
    _tell_collection(collection, as_json)
    return 1 if collection.blocked else 0


def _collect_forever(place: Place, every_s: float, grace_s: float, as_json: bool) -> int:
    def tell(collection: Collection) -> None:
        if collection.done or collection.waiting or collection.changed or collection.blocked:
            _tell_collection(collection, as_json)

    async def work(store: Datastore) -> None:
        import os
        import socket

        from tabinet.ipam.collector import run_collector

        await run_collector(
            store,
            f"{socket.gethostname()}:{os.getpid()}",
            interval_s=every_s,
            grace_s=grace_s,
            on_round=tell,
            on_error=lambda error: fail(str(error)),
        )

    with_store(place, work)
    return 0


def _tell_collection(collection: Collection, as_json: bool) -> None:
    if as_json:
        show_json(
            {
                "dryRun": collection.dry_run,
                "done": [_finding_as_json(finding) for finding in collection.done],
                "waiting": [_finding_as_json(finding) | {"secondsLeft": round(left)} for finding, left in collection.waiting],
                "changed": [_finding_as_json(finding) for finding in collection.changed],
                "blocked": list(collection.blocked),
            }
        )
        return
    word = "would go" if collection.dry_run else "done"
    lines = [f"{word}: {finding}" for finding in collection.done]
    lines += [f"waits {left:.0f} s: {finding}" for finding, left in collection.waiting]
    lines += [f"changed meanwhile: {finding}" for finding in collection.changed]
    for line in lines:
        click.echo(printable(line))
    for text in collection.blocked:
        fail(text)
    if not lines and not collection.blocked:
        click.echo("nothing to collect")


# --- configure, split -----------------------------------------------------------------------------------------------------


def _switch(name: str, text: str) -> Callable[[Any], Any]:
    return click.option(name, type=click.BOOL, default=None, metavar="true|false", help=text)


@ipam.command()
@_switch("--strict-affinity", "true: hosts assign addresses of their own blocks only, never of another host's.")
@_switch("--auto-allocate-blocks", "false: hosts get no new blocks by themselves.")
@click.option("--max-blocks", type=int, default=None, help="Most blocks that a host may have, for each family; 0: the default, 20.")
@click.option(
    "--cooldown", callback=_seconds, metavar="TIME", default=None, help="How long a released address rests before it is assigned again."
)
@JSON
@STORE_OPTIONS
@click.pass_obj
def configure(
    place: Place,
    strict_affinity: bool | None,
    auto_allocate_blocks: bool | None,
    max_blocks: int | None,
    cooldown: float | None,
    as_json: bool,
) -> int:
    """Change how addresses are assigned; without options, show it.

    What is not named stays as it is.
    """
    from tabinet.ipam.configure import Changes
    from tabinet.ipam.configure import configure as change

    changes = Changes(
        strict_affinity=strict_affinity,
        auto_allocate_blocks=auto_allocate_blocks,
        max_blocks_per_host=max_blocks,
        cooldown_s=None if cooldown is None else round(cooldown),
    )

    async def work(store: Datastore) -> tuple[Config, Config]:
        from tabinet.ipam.configure import read_config

        if changes == Changes():
            config = await read_config(store)
            return config, config
        return await change(store, changes)

    before, after = (_settings_of(config) for config in with_store(place, work))
    if as_json:
        show_json(after)
    else:
        for name, value in after.items():
            text = f"{name}: {_plain(value)}"
            click.echo(text if before[name] == value else f"{text} (was {_plain(before[name])})")
    return 0


def _settings_of(config: Config) -> dict[str, object]:
    return {
        "strictAffinity": config.strict_affinity,
        "autoAllocateBlocks": config.auto_allocate_blocks,
        "maxBlocksPerHost": config.max_blocks_per_host,
        "ipCooldownSeconds": config.cooldown_s,
    }


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@ipam.command()
@click.argument("pool")
@click.argument("parts", type=int)
@JSON
@STORE_OPTIONS
@click.pass_obj
def split(place: Place, pool: str, parts: int, as_json: bool) -> int:
    """Split a POOL (name or prefix) into PARTS pools of equal size.

    It is one step, and addresses in use stay: nothing has to be locked. PARTS is a power of two.
    """

    async def work(store: Datastore) -> tuple[str, list[tuple[str, Prefix]]]:
        from tabinet.ipam.settings import load_settings
        from tabinet.ipam.split import split_pool

        pools = (await load_settings(store, "")).pools
        name = next((each.name for each in pools if str(each.cidr) == pool), pool)
        return name, await split_pool(store, name, parts)

    name_before, made = with_store(place, work)
    if as_json:
        show_json([{"name": name, "cidr": str(cidr)} for name, cidr in made])
    else:
        for name, cidr in made:
            click.echo(f"IPPool/{name} {cidr} created")
        click.echo(f"IPPool/{name_before} deleted")
    return 0

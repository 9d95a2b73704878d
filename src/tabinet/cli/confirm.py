"""``tabinet confirm``: a change of ``apply --confirm`` stays, or is taken back at once."""

from __future__ import annotations

import asyncio

import click

from tabinet.cli.place import STORE_OPTIONS, Place, open_to_change


@click.command()
@click.option("--roll-back", is_flag=True, help="Take the change back now.")
@click.option("--wait-for", hidden=True, help="Take the change with this id back at its deadline.")
@STORE_OPTIONS
@click.pass_obj
def confirm(place: Place, roll_back: bool, wait_for: str | None) -> int:
    """Keep what `tabinet apply --confirm` changed.

    Without it everything is as before when the time is over. Exit code 1: no change waits any more.
    """
    from tabinet.cli import pending
    from tabinet.errors import NotFound

    async def run() -> int:
        store = await open_to_change(place, "confirm --roll-back" if roll_back else pending.UNCONFIRMED)
        try:
            if wait_for:
                await pending.wait_and_roll_back(store, wait_for)
            elif roll_back:
                left = await pending.roll_back(store)
                if left is None:
                    raise NotFound("no change waits to be confirmed")
                for path in left:
                    click.echo(f"left alone, because others have changed it since: {path}")
                click.echo("rolled back")
            else:
                await pending.confirm(store)
                click.echo("confirmed")
        finally:
            await store.close()
        return 0

    return asyncio.run(run())

"""What the commands about addresses have in common: reaching the store, reading all that is known of addresses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import click

from tabinet.cli.place import Place

if TYPE_CHECKING:
    from tabinet.ipam.inventory import Fabric, Inventory
    from tabinet.lib.ip import Prefix
    from tabinet.store.api import Datastore

T = TypeVar("T")
JSON = click.option("--json", "as_json", is_flag=True, help="As JSON.")


def with_store(place: Place, work: Callable[[Datastore], Awaitable[T]], program: str = "") -> T:
    """What the work gives, done with the store; a signal ends it as it should be ended. What a ``program`` changes is recorded."""
    from tabinet.cli.labs import run_to_the_end
    from tabinet.cli.place import open_place, open_to_change

    async def run() -> T:
        store = await (open_to_change(place, program) if program else open_place(place))
        try:
            return await work(store)
        finally:
            await store.close()

    return run_to_the_end(run())


def parse_ip(text: str) -> Prefix:
    from tabinet.errors import InputError, Problem
    from tabinet.lib.ip import parse_address

    try:
        return parse_address(text)
    except ValueError:
        raise InputError([Problem(path="--ip", value=repr(text), allowed="an IPv4 or IPv6 address")]) from None


async def read_all(store: Datastore) -> tuple[Inventory, Fabric]:
    from tabinet.ipam.inventory import read_fabric, read_inventory

    return await read_inventory(store), await read_fabric(store)

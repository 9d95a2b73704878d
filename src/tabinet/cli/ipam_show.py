"""``tabinet ipam show``: pools, blocks, single addresses, borrowed ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tabinet.cli.ipam_reading import JSON, parse_ip, read_all, with_store
from tabinet.cli.output import fail, printable, show_json, show_table
from tabinet.cli.place import STORE_OPTIONS, Place

if TYPE_CHECKING:
    from tabinet.ipam.inventory import Inventory
    from tabinet.lib.ip import Prefix


@click.command()
@click.option("--blocks", "with_blocks", is_flag=True, help="Every block, too.")
@click.option("--ip", "address", metavar="ADDRESS", help="Everything that is known of one address.")
@click.option("--borrowed", is_flag=True, help="Addresses that are used on another host than the one their block belongs to.")
@JSON
@STORE_OPTIONS
@click.pass_obj
def show(place: Place, with_blocks: bool, address: str | None, borrowed: bool, as_json: bool) -> int:
    """Show how much of each pool is in use.

    Exit code 1 with --ip when the address is not assigned.
    """
    if (address is not None) + borrowed + with_blocks > 1:
        raise click.UsageError("--blocks, --ip and --borrowed exclude each other")
    if address is not None:
        return _show_address(place, parse_ip(address), as_json)
    inventory, _ = with_store(place, read_all)
    if borrowed:
        return _show_borrowed(inventory, as_json)
    return _show_usage(inventory, with_blocks, as_json)


def _show_usage(inventory: Inventory, with_blocks: bool, as_json: bool) -> int:
    from tabinet.ipam.blocks import count, owner_of
    from tabinet.ipam.pools import containing_pool
    from tabinet.ipam.usage import pool_usage

    pools = sorted(inventory.settings.pools, key=lambda pool: (pool.cidr.family, pool.name))
    usages = [pool_usage(pool, inventory.blocks, inventory.settings.reserved) for pool in pools]
    blocks = []
    for block, stored in sorted(inventory.blocks.items()) if with_blocks else ():
        pool = containing_pool(pools, block)
        counts = count(stored.document) if stored.document else None
        blocks.append(
            {
                "pool": pool.name if pool else "",
                "block": str(block),
                "owner": owner_of(stored.document).removeprefix("host:") if stored.document else "",
                "assigned": counts.assigned if counts else None,
                "resting": counts.resting if counts else None,
                "free": counts.free if counts else None,
            }
        )
    if as_json:
        columns = ("pool", "disabled", "size", "blocks", "assigned", "resting", "reserved", "free")
        found = [{"cidr": str(usage.cidr)} | {name: getattr(usage, name) for name in columns} for usage in usages]
        show_json({"pools": found, "broken": list(inventory.settings.broken)} | ({"blocks": blocks} if with_blocks else {}))
        return 0
    rows = [
        [usage.pool + (" (disabled)" if usage.disabled else ""), usage.cidr, usage.blocks, _number(usage.size)]
        + [_number(number) for number in (usage.assigned, usage.resting, usage.reserved, usage.free)]
        for usage in usages
    ]
    show_table(["POOL", "CIDR", "BLOCKS", "TOTAL", "IN USE", "RESTING", "RESERVED", "FREE"], rows)
    if with_blocks:
        click.echo()
        cells = [["?" if value is None else value if value != "" else "-" for value in each.values()] for each in blocks]
        show_table(["POOL", "BLOCK", "HOST", "IN USE", "RESTING", "FREE"], cells)
    for text in inventory.settings.broken:
        fail(f"pool {text}")
    return 0


def _number(value: int) -> str:
    """A number as it is, or as a power of two where nobody could read it."""
    return str(value) if value < 10**9 else f"~2^{value.bit_length() - 1}"


def _show_address(place: Place, address: Prefix, as_json: bool) -> int:
    from tabinet.ipam.lookup import address_facts

    facts = address_facts(*with_store(place, read_all), address)
    if as_json:
        found = {
            "address": address.address,
            "assigned": facts.assigned,
            "pool": facts.pool,
            "block": str(facts.block) if facts.block else "",
            "owner": facts.block_owner.removeprefix("host:"),
            "handle": facts.handle,
            "notes": facts.notes,
            "restingSince": facts.resting_since,
            "reserved": facts.reserved,
            "usedBy": list(facts.used_by),
        }
        show_json(found)
        return 0 if facts.assigned else 1
    state = "is assigned" if facts.assigned else f"rests since {facts.resting_since}" if facts.resting_since else "is not assigned"
    click.echo(f"{address.address} {state}")
    owner = facts.block_owner.removeprefix("host:") or "nobody"
    lines = [
        ("pool", facts.pool or "none"),
        ("block", f"{facts.block} of {owner}" if facts.block else "none"),
        ("handle", facts.handle),
        *((name, value) for name, value in facts.notes.items()),
        ("reserved", "yes" if facts.reserved else ""),
        ("used by", ", ".join(facts.used_by) or ("nothing" if facts.assigned else "")),
    ]
    for name, value in lines:
        if value:
            click.echo(printable(f"  {name + ':':<11} {value}"))
    return 0 if facts.assigned else 1


def _show_borrowed(inventory: Inventory, as_json: bool) -> int:
    from tabinet.ipam.usage import borrowed

    rows = [
        {
            "address": each.address.address,
            "borrower": each.borrower,
            "block": str(each.block),
            "owner": each.block_owner,
            "handle": each.handle,
        }
        for each in borrowed(inventory.blocks)
    ]
    if as_json:
        show_json(rows)
    else:
        show_table(["ADDRESS", "ON HOST", "BLOCK", "BLOCK OF", "HANDLE"], [[value or "-" for value in row.values()] for row in rows])
    return 0

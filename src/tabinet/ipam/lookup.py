"""Everything that is known of one address: a report over what is stored. Pure; O(pools + blocks)."""

from __future__ import annotations

import msgspec

from tabinet.ipam.blocks import attributes_of, owner, owner_of, resting
from tabinet.ipam.inventory import Fabric, Inventory
from tabinet.ipam.pools import containing_pool
from tabinet.lib.ip import Prefix


class AddressFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an address."""

    address: Prefix
    pool: str = ""
    """Name; empty when it is in none."""
    block: Prefix | None = None
    block_owner: str = ""
    """As in ``host:web1``; empty when the block is nobody's."""
    assigned: bool = False
    handle: str = ""
    """The owner of the address."""
    notes: dict[str, str] = {}
    """What is noted of the assignment: node, namespace, workload, timestamp and others."""
    resting_since: str = ""
    """When it was released, while it rests: RFC 3339."""
    reserved: bool = False
    used_by: tuple[str, ...] = ()
    """Resources that have the address."""


def address_facts(inventory: Inventory, fabric: Fabric, address: Prefix) -> AddressFacts:
    """What is known of the address."""
    pool = containing_pool(inventory.settings.pools, address)
    block = next((block for block in sorted(inventory.blocks) if block.contains(address)), None)
    document = inventory.block(block).document if block is not None else None
    facts = AddressFacts(
        address=address,
        pool=pool.name if pool else "",
        block=block,
        reserved=any(prefix.contains(address) for prefix in inventory.settings.reserved),
        used_by=tuple(use.by for use in sorted(fabric.uses.get(address, ()))),
    )
    if block is None or document is None:
        return facts
    attribute = attributes_of(document, block).get(address)
    notes = attribute.get("secondary") if attribute else None
    return msgspec.structs.replace(
        facts,
        block_owner=owner_of(document),
        assigned=attribute is not None,
        handle=owner(attribute) if attribute else "",
        notes={str(name): str(value) for name, value in sorted(notes.items())} if isinstance(notes, dict) else {},
        resting_since=resting(document, block).get(address, ""),
    )

"""``tabinet ipam assign``: addresses that an endpoint has are its own in IPAM, too, so that nobody else gets them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tabinet.cli.ipam_reading import JSON, with_store
from tabinet.cli.output import note, printable, show_json
from tabinet.cli.place import STORE_OPTIONS, Place

if TYPE_CHECKING:
    from tabinet.lib.ip import Prefix
    from tabinet.model.keys import ResourceKey
    from tabinet.model.resources import WorkloadEndpoint
    from tabinet.store.api import Datastore

CALICO_NETWORK = "k8s-pod-network"
"""The name that Calico's manifests give their CNI network; its plugin's handles are this and the container's identifier."""


@click.command()
@click.argument("endpoint")
@click.option("-n", "--namespace", default="default", show_default=True, metavar="NAME", help="Of the endpoint.")
@click.option("--handle", metavar="HANDLE", help="Who owns the addresses, if not whom the endpoint's orchestrator would release them by.")
@JSON
@STORE_OPTIONS
@click.pass_obj
def assign(place: Place, endpoint: str, namespace: str, handle: str | None, as_json: bool) -> int:
    """Assign to a WorkloadEndpoint the addresses that it has, and that nobody owns.

    Repairs what `tabinet import` and `tabinet ipam check` find: addresses in use that somebody else could get. Addresses in no pool stay
    without owner. Exit code 1: somebody else owns one of them; nothing was changed.
    """
    from tabinet.model.keys import ResourceKey

    key = ResourceKey("WorkloadEndpoint", endpoint, namespace)

    async def work(store: Datastore) -> tuple[str, list[Prefix]]:
        return await _assign(store, key, handle)

    owner, made = with_store(place, work)
    if as_json:
        show_json({"handle": owner, "addresses": [address.address for address in made]})
    else:
        for address in made:
            click.echo(printable(f"{address.address} assigned to {owner}"))
        if not made:
            note("nothing to assign: its addresses are assigned, or in no pool")
    return 0


def handle_of(key: ResourceKey, endpoint: WorkloadEndpoint) -> str:
    """By what the orchestrator would release the endpoint's addresses."""
    container = endpoint.spec.container_id
    return f"{CALICO_NETWORK}.{container}" if container else f"{key.namespace.replace('-', '--')}-{key.name}"


async def _assign(store: Datastore, key: ResourceKey, handle: str | None) -> tuple[str, list[Prefix]]:
    """The owner, and what it owns newly.

    Raises:
        NotFound: there is no such endpoint.
        Conflict: somebody else owns one of its addresses; nothing was changed.
        AddressError: IPAM refuses one.
    """
    from tabinet.errors import Conflict, NotFound
    from tabinet.ipam.audit import allocations
    from tabinet.ipam.client import IpamClient
    from tabinet.ipam.inventory import read_inventory
    from tabinet.ipam.plan import AssignRequest
    from tabinet.ipam.pools import containing_pool
    from tabinet.lib.ip import parse_prefix
    from tabinet.model.codec import decode_stored
    from tabinet.model.keys import path_of
    from tabinet.model.resources import WorkloadEndpoint

    item = await store.get(path_of(key))
    decoded = decode_stored(item.key, item.value) if item is not None else None
    if decoded is None or not isinstance(decoded[1], WorkloadEndpoint):
        raise NotFound(f"{key} does not exist")
    endpoint = decoded[1]
    owner = handle or handle_of(key, endpoint)
    inventory = await read_inventory(store)
    assigned = {allocation.address: allocation.handle for allocation in allocations(inventory)}
    nets = [parse_prefix(text) for text in endpoint.spec.ip_networks]
    others = [f"{net.address} by {assigned[net] or 'somebody without a handle'}" for net in nets if assigned.get(net, owner) != owner]
    if others:
        raise Conflict(f"owned already: {'; '.join(others)}; nothing was changed")
    what = "pod" if endpoint.spec.pod else "workload"
    attributes = {"namespace": key.namespace, what: endpoint.spec.pod or endpoint.spec.workload or key.name}
    request = AssignRequest(host=endpoint.spec.node, handle=owner, attributes=attributes)
    made = [net for net in nets if net not in assigned and containing_pool(inventory.settings.pools, net) is not None]
    client = IpamClient(store)
    for net in made:
        await client.assign_address(net, request)
    return owner, made

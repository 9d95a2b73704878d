"""Containers that Calico's plugin attached and that ours detaches, on a host that was taken over.

Calico's plugin names interfaces and owners of addresses in its own way: an owner is the network's name, a dot and the container. What its
endpoint says is read before the endpoint goes. In: an endpoint's spec as it is stored. Out: interface and owners that ``netns.detach``
would not know of. Nothing is read for endpoints of ours. What is left should the store go away meanwhile, `tabinet ipam gc` finds.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tabinet.attach.network import Network
from tabinet.attach.plug import disconnect
from tabinet.attach.steps import in_thread
from tabinet.ipam.client import IpamClient
from tabinet.lib.ip import parse_prefix


class Inherited(msgspec.Struct, frozen=True):
    """What there is of a container beside what we would have made; mostly nothing."""

    interface: str = ""
    handles: tuple[str, ...] = ()


async def find_inherited(spec: dict[str, Any], own_interface: str, prefix: str, ipam: IpamClient) -> Inherited:
    """What the endpoint has of Calico's. ``own_interface``: what we would call its interface; ``prefix``: how workloads' interfaces begin.

    Raises:
        StoreUnavailable, StoreDenied: the store could not be read.
    """
    interface, container = str(spec.get("interfaceName") or ""), str(spec.get("containerID") or "")
    if interface == own_interface or not interface.startswith(prefix) or not container:
        return Inherited()
    owners: dict[str, None] = {}
    for text in spec.get("ipNetworks") or ():
        try:
            address = parse_prefix(str(text))
        except ValueError:  # then no host has ever served it
            continue
        owners[await ipam.owner_of(address)] = None
    return Inherited(interface, tuple(owner for owner in owners if owner.endswith(f".{container}")))


async def remove_inherited(inherited: Inherited, network: Network, ipam: IpamClient) -> None:
    """Its interface is gone, then its addresses are free.

    Raises:
        KernelError, StoreError: one of them is left.
    """
    if inherited.interface:
        await in_thread(lambda: disconnect(network, inherited.interface))
    for handle in inherited.handles:
        await ipam.release_handle(handle)

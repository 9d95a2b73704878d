"""``TunnelAddresses``: the host's ends of tunnels have addresses from the pools, and the host's Node says which.

In: ``TunnelUpdate`` and ``TunnelRemove`` of the calculation. Out: allocations under the handles that Calico uses, and fields of the Node,
which come back to the calculation as the end's address. Written only about the host that the agent runs on, so that a Calico host beside
it looks after its own.

Invariants
- The address is allocated before the Node has it, and stays allocated until the Node has it no more: nobody else gets it in between.
  Whatever an agent that died left half done is found by the next one, by the handle.
- An address that the Node has already stays, if a pool with that tunnel has it and it is this host's or nobody's.
- What cannot be done is a problem in words, and is tried again.

One task of the agent's loop; a handful of requests when something changes, none while nothing does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tabinet.agent.log import Logger
from tabinet.calc.messages import LocalTunnel, Tunnel, TunnelRemove, TunnelUpdate, Update
from tabinet.errors import AddressError, DataError, NotFound, StoreError
from tabinet.ipam.client import IpamClient
from tabinet.ipam.owners import TUNNEL
from tabinet.ipam.plan import AssignRequest
from tabinet.lib.ip import IPV4, IPV6, Prefix
from tabinet.model.keys import ResourceKey
from tabinet.store.client import Document, ResourceClient

RETRY_S = 5.0
HANDLES = {Tunnel.VXLAN4: "vxlan-tunnel-addr-", Tunnel.VXLAN6: "vxlan-v6-tunnel-addr-", Tunnel.IPIP: "ipip-tunnel-addr-"}
"""The host's name follows."""
TYPES = {Tunnel.VXLAN4: "vxlanTunnelAddress", Tunnel.VXLAN6: "vxlanV6TunnelAddress", Tunnel.IPIP: "ipipTunnelAddress"}
"""Attribute ``type`` of the allocations."""
FIELDS = {
    Tunnel.VXLAN4: ("ipv4VXLANTunnelAddr",),
    Tunnel.VXLAN6: ("ipv6VXLANTunnelAddr",),
    Tunnel.IPIP: ("bgp", "ipv4IPIPTunnelAddr"),
}
"""Where in ``spec`` of the Node the address is."""


def set_address(document: Document, tunnel: Tunnel, text: str) -> Document:
    """The Node with this address for the end of the tunnel; without one when ``text`` is empty."""
    *outer, name = FIELDS[tunnel]
    spec: dict[str, Any] = dict(document.get("spec") or {})
    place = spec
    for step in outer:
        place[step] = dict(place.get(step) or {})
        place = place[step]
    if text:
        place[name] = text
    else:
        place.pop(name, None)
    if outer and not spec[outer[0]]:
        del spec[outer[0]]
    return document | {"spec": spec}


@dataclass(slots=True)
class TunnelAddresses:
    """The tunnel addresses of one host."""

    host: str
    ipam: IpamClient
    nodes: ResourceClient
    log: Logger
    retry_s: float = RETRY_S
    problems: dict[Tunnel, str] = field(default_factory=dict)
    """Why a tunnel has no address, in words."""
    _wanted: dict[Tunnel, LocalTunnel] = field(default_factory=dict)
    _pending: set[Tunnel] = field(default_factory=set)
    _begun: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def on_update(self, update: Update) -> None:
        """Messages about anything but the host's own ends are none of ours."""
        match update:
            case TunnelUpdate(_, tunnel, local):
                self._wanted[tunnel] = local
            case TunnelRemove(_, tunnel):
                self._wanted.pop(tunnel, None)
            case _:
                return
        self._pending.add(tunnel)
        self._changed.set()

    def begin(self) -> None:
        """What was told is complete: from now on addresses that no pool wants are given back."""
        if not self._begun:
            self._begun = True
            self._pending = set(Tunnel)
            self._changed.set()

    async def run(self, publish: Callable[[], None]) -> None:
        """Never returns. ``publish`` is called when the problems changed."""
        while True:
            try:
                async with asyncio.timeout(self.retry_s if self._pending else None):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            if not self._begun:
                continue
            before = dict(self.problems)
            for tunnel in sorted(self._pending, key=lambda each: each.value):
                await self._settle(tunnel)
            if before != self.problems:
                publish()

    async def _settle(self, tunnel: Tunnel) -> None:
        local = self._wanted.get(tunnel)
        self._pending.discard(tunnel)
        try:
            if local is not None and local.wanted:
                await self._provide(tunnel, local)
            else:
                await self._give_back(tunnel)
        except NotFound:
            self.problems.pop(tunnel, None)  # no Node: it is not ours to make; one that comes is told
        except (AddressError, StoreError, DataError) as error:
            self.problems[tunnel] = f"no {TYPES[tunnel]}: {error}"
            self._pending.add(tunnel)
        else:
            self.problems.pop(tunnel, None)

    async def _provide(self, tunnel: Tunnel, local: LocalTunnel) -> None:
        """The Node has an address that the handle owns.

        Raises:
            TabinetError: it could not be had, or not be written.
        """
        if not local.pools:
            raise AddressError("no pool with this tunnel gives addresses for it: they are disabled, or their allowedUses lack Tunnel")
        handle = HANDLES[tunnel] + self.host
        await self.nodes.get(ResourceKey("Node", self.host))
        owned = await self.ipam.owned(handle)
        fitting = [address for address in owned if any(pool.contains(address) for pool in local.pools)]
        if local.address in fitting:
            chosen = local.address
        elif fitting:
            chosen = fitting[0]
        else:
            chosen = await self._assign(tunnel, local, handle, len(owned))
        if chosen is not None and chosen != local.address:
            await self._write(tunnel, chosen.address)
            self.log.info("tunnel address", tunnel=tunnel.value, address=chosen.address)
        await self.ipam.release_addresses([address for address in owned if address != chosen], handle=handle)

    async def _assign(self, tunnel: Tunnel, local: LocalTunnel, handle: str, owned: int) -> Prefix:
        """A new address; the one that the Node has if it can be had."""
        count = owned + 1
        request = AssignRequest(
            host=self.host,
            handle=handle,
            count4=count if tunnel.family == IPV4 else 0,
            count6=count if tunnel.family == IPV6 else 0,
            pools4=local.pools if tunnel.family == IPV4 else (),
            pools6=local.pools if tunnel.family == IPV6 else (),
            attributes={"type": TYPES[tunnel]},
            use=TUNNEL,
        )
        if local.address is not None and any(pool.contains(local.address) for pool in local.pools):
            try:
                return (await self.ipam.assign_address(local.address, request)).assigned[0]
            except AddressError:
                pass  # somebody else has it
        return (await self.ipam.assign(request)).assigned[0]

    async def _give_back(self, tunnel: Tunnel) -> None:
        """Neither the Node nor the handle has an address.

        Raises:
            TabinetError: something could not be written.
        """
        with contextlib.suppress(NotFound):  # without a Node nobody has it
            await self._write(tunnel, "")
        await self.ipam.release_handle(HANDLES[tunnel] + self.host)

    async def _write(self, tunnel: Tunnel, text: str) -> None:
        await self.nodes.change(ResourceKey("Node", self.host), lambda document: set_address(document, tunnel, text))

"""TunnelManager: from what the calculation says of tunnels and remote workloads to interfaces, entries and routes of this host.

In: ``TunnelUpdate``, ``TunnelPeerUpdate``, ``RemoteRouteUpdate`` and their removals, events of the kernel. Out: the desired state of the
tunnel driver and of a route driver for protocol 85, ``apply`` (which runs them), and which MTU workloads can use.

- A route through a tunnel goes to the other end as a gateway on the link; a direct one to the other host over the interface with our own
  address in that subnet. Where the host is on the subnet with several interfaces, the first by index is used.
- The MTU of a tunnel is that of the uplinks less what the tunnel adds. Interfaces of workloads that are larger are named as a problem, and
  left as they are: a host's end of a veth that is smaller than the workload's drops large packets without a word, one that is not lets
  the host tell the workload to send smaller ones.
- Nothing is changed before ``begin``.

Cost: O(what changed); O(all remote routes) when an address of the host or a tunnel's interface changes. Not thread-safe.
"""

from __future__ import annotations

import re

import msgspec

from tabinet.calc.messages import (
    LocalTunnel,
    RemoteRoute,
    RemoteRouteRemove,
    RemoteRouteUpdate,
    Tunnel,
    TunnelPeerRemove,
    TunnelPeerUpdate,
    TunnelRemove,
    TunnelUpdate,
    Update,
)
from tabinet.dataplane.drift import Drift
from tabinet.dataplane.routes.driver import REMOTE_METRICS, RouteDriver
from tabinet.dataplane.tunnels.driver import TunnelDriver
from tabinet.dataplane.tunnels.plan import LEAST_MTU, OVERHEAD_BYTES, TUNNELS, TunnelOptions, uplink_mtu, wanted_interface
from tabinet.errors import KernelError
from tabinet.kernel.ethtool import Offloads
from tabinet.kernel.rtnetlink import (
    TABINET_REMOTE_PROTOCOL,
    AddressEvent,
    Event,
    InterfaceAddress,
    Link,
    LinkEvent,
    Overrun,
    Rtnetlink,
    RtOp,
)
from tabinet.kernel.sysctl import Sysctl
from tabinet.lib.ip import Prefix

CALICO_PROTOCOL = 80
"""rtm_protocol of Calico's routes, which have the lowest metric."""
NAMED = 5
"""Most interfaces or destinations that one problem names."""


class TunnelsApplied(msgspec.Struct, frozen=True):
    """What an ``apply`` did."""

    operations: int
    error: str
    """Empty when the kernel holds everything that was asked for."""
    problems: tuple[str, ...] = ()
    """What keeps tunnels from carrying what they should, in words, though nothing failed."""
    workload_mtu: int = 0
    """The largest packet that workloads can send wherever it goes, in bytes; 0 when no tunnel limits it."""
    drifts: tuple[Drift, ...] = ()
    """Routes to other hosts that somebody else had changed."""


class TunnelManager:
    """Tunnels and remote routes of one host."""

    def __init__(self, rtnetlink: Rtnetlink, tunnels: TunnelDriver, routes: RouteDriver, options: TunnelOptions) -> None:
        self._rtnetlink = rtnetlink
        self._tunnel_driver = tunnels
        self._route_driver = routes
        self._options = options
        self._locals: dict[Tunnel, LocalTunnel] = {}
        self._routes: dict[Prefix, RemoteRoute] = {}
        self._links: dict[int, Link] = {}
        self._addresses: set[InterfaceAddress] = set()
        """Of all interfaces but workloads'."""
        self._subnets: list[tuple[Prefix, int]] = []
        """Connected subnets of interfaces that are up, with the interface's index."""
        self._dirty_routes: set[Prefix] = set()
        self._moved = True
        """Something that interfaces or all routes depend on changed."""
        self._stale = True
        self._mtus: dict[Tunnel, int] = {}
        self._unreachable: set[Prefix] = set()
        self._left: set[Prefix] = set()
        """Destinations of routes that Calico has left in the kernel, as of the last reading."""
        self._problems: tuple[str, ...] | None = None
        """``None``: they may have changed."""
        self._begun = False

    # --- in: what the calculation says

    def on_update(self, update: Update) -> None:
        """The message counts from the next ``apply`` on; those about other things are none of ours."""
        match update:
            case TunnelUpdate(_, tunnel, local):
                self._locals[tunnel] = local
                self._moved = True
            case TunnelRemove(_, tunnel):
                self._locals.pop(tunnel, None)
                self._moved = True
            case TunnelPeerUpdate(_, tunnel, peer, end):
                self._tunnel_driver.want_peer(tunnel, peer, end)
            case TunnelPeerRemove(_, tunnel, peer):
                self._tunnel_driver.unwant_peer(tunnel, peer)
            case RemoteRouteUpdate(_, destination, route):
                self._routes[destination] = route
                self._dirty_routes.add(destination)
            case RemoteRouteRemove(_, destination):
                self._routes.pop(destination, None)
                self._dirty_routes.add(destination)
            case _:
                pass

    def way_to(self, host: str, family: int) -> tuple[Prefix, int] | None:
        """The other host's end of our VXLAN tunnel of the family, and the index of the tunnel's interface; None without such a tunnel.

        As of the last ``apply``.
        """
        for tunnel, link in self._tunnel_driver.links.items():
            end = self._tunnel_driver.peer(tunnel, host)
            if end is not None and end.address.family == family and tunnel not in self._options.disabled:
                return end.address, link.index
        return None

    def want_offload(self, on: bool) -> None:
        """Checksums inside of tunnels are left to the network card, or not; counts from the next ``apply`` on."""
        self._tunnel_driver.want_offload(on)

    def close(self) -> None:
        """Closes what only tunnels use; the kernel keeps everything."""
        self._tunnel_driver.close()

    def begin(self) -> None:
        """What was told is complete: from now on ``apply`` acts, and what nobody wants goes."""
        self._begun = True

    # --- in: what the kernel says

    def on_event(self, event: Event) -> None:
        """The kernel's state is as the event says."""
        self._tunnel_driver.on_event(event)
        self._route_driver.on_event(event)
        match event:
            case Overrun():
                self._stale = True
            case LinkEvent(link, gone):
                before = self._links.get(link.index)
                if before is not None and before.up and (gone or not link.up):
                    self._route_driver.on_interface_lost(link.index)
                if gone:
                    self._links.pop(link.index, None)
                else:
                    self._links[link.index] = link
                after = None if gone else link
                self._problems = None
                self._moved = self._moved or (not self._is_workloads(link) and _gist(before) != _gist(after))
            case AddressEvent(address, gone) if not self._is_workloads(self._links.get(address.index)):
                (self._addresses.discard if gone else self._addresses.add)(address)
                self._moved = True
            case _:
                pass

    def _is_workloads(self, link: Link | None) -> bool:
        return link is not None and link.name.startswith(self._options.interface_prefixes)

    def verify(self) -> None:
        """The next ``apply`` reads everything again."""
        self._stale = True
        self._tunnel_driver.mark_stale()
        self._route_driver.mark_stale()

    # --- out

    @property
    def in_sync(self) -> bool:
        """True when ``apply`` would do nothing."""
        idle = not (self._stale or self._moved or self._dirty_routes)
        return idle and self._tunnel_driver.in_sync and self._route_driver.in_sync

    def apply(self) -> TunnelsApplied:
        """The kernel is as wanted, but for the error. Does nothing before ``begin``.

        Raises:
            KernelError: the kernel could not be asked; everything is read again by the next call.
        """
        if not self._begun:
            return TunnelsApplied(0, "")
        if not self.in_sync:
            self._problems = None
        if self._stale:
            self._links = {link.index: link for link in self._rtnetlink.links()}
            self._left = {route.destination for route in self._rtnetlink.routes(protocol=CALICO_PROTOCOL)}
            found = self._rtnetlink.addresses()
            self._addresses = {entry for entry in found if not self._is_workloads(self._links.get(entry.index))}
            self._stale, self._moved = False, True
        if self._moved:
            self._settle_interfaces()
        before = {tunnel: link.index for tunnel, link in self._tunnel_driver.links.items()}
        made = self._tunnel_driver.apply()
        if self._moved or before != {tunnel: link.index for tunnel, link in self._tunnel_driver.links.items()}:
            self._dirty_routes |= self._routes.keys()
            self._moved = False
        for destination in self._dirty_routes:
            self._settle_route(destination)
        self._dirty_routes.clear()
        routed = self._route_driver.apply()
        operations: list[RtOp] = [*made.operations, *routed.operations]
        errors: list[KernelError] = [*made.errors, *routed.errors.values()]
        if self._problems is None:
            self._problems = (*made.problems, *self._find_problems())
        error, mtu = str(errors[0]) if errors else "", min(self._mtus.values(), default=0)
        return TunnelsApplied(len(operations), error, self._problems, mtu, routed.drifts)

    def _settle_interfaces(self) -> None:
        """Each tunnel's interface is wanted as it can be now."""
        self._subnets = sorted(
            (_subnet(entry), entry.index)
            for entry in self._addresses
            if entry.length < entry.address.bits and entry.index in self._links and self._links[entry.index].up
        )
        self._mtus = {}
        for tunnel in Tunnel:
            local = self._locals.get(tunnel)
            if local is None or not local.wanted or tunnel in self._options.disabled:
                self._tunnel_driver.unwant(tunnel)
                continue
            self._mtus[tunnel] = self._mtu(tunnel, local)
            self._tunnel_driver.want(tunnel, wanted_interface(tunnel, local, self._mtus[tunnel], self._options))

    def _mtu(self, tunnel: Tunnel, local: LocalTunnel) -> int:
        if self._options.mtus.get(tunnel):
            return self._options.mtus[tunnel]
        others = [link for link in self._links.values() if link.name not in TUNNELS]
        pattern = self._options.uplink_pattern
        fits = frozenset(link.name for link in others if pattern and re.search(pattern, link.name))
        uplink = uplink_mtu(local.underlay, others, sorted(self._addresses), self._options, fits) or 1500
        return max(LEAST_MTU[tunnel.family], uplink - OVERHEAD_BYTES[tunnel])

    def _settle_route(self, destination: Prefix) -> None:
        route = self._routes.get(destination)
        self._unreachable.discard(destination)
        if route is None or route.tunnel in self._options.disabled:
            self._route_driver.unwant(destination)
            return
        index = self._near(route.gateway) if route.direct and route.gateway is not None else self._far(route.tunnel)
        if not index:
            self._unreachable.add(destination)
            self._route_driver.unwant(destination)
        elif route.gateway is None:
            self._route_driver.want(destination, index)
        else:
            self._route_driver.want_gateway(destination, route.gateway, index)

    def _far(self, tunnel: Tunnel) -> int:
        """The index of the tunnel's interface; 0 while there is none."""
        link = self._tunnel_driver.links.get(tunnel)
        return link.index if link is not None else 0

    def _near(self, gateway: Prefix) -> int:
        """The index of our interface in the subnet; 0 when there is none."""
        return next((index for subnet, index in self._subnets if subnet.contains(gateway)), 0)

    def _find_problems(self) -> list[str]:
        """O(interfaces)."""
        found = []
        for tunnel, local in self._locals.items():
            if local.wanted and tunnel not in self._options.disabled:
                named = (("an address of the host", local.underlay), ("a tunnel address", local.address))
                missing = [what for what, value in named if value is None]
                if missing:
                    found.append(f"{tunnel.interface} waits for {' and '.join(missing)} in the host's Node")
        lost = sorted(str(net) for net in self._unreachable if self._routes[net].direct)
        if lost:
            found.append(f"no interface of this host is in the subnet of the hosts of {_some(lost)}: is spec.bgp of the Node right?")
        left = sorted(str(net) for net in self._left & self._routes.keys())
        if left:
            found.append(f"Calico's routes (protocol 80) win over ours to {_some(left)}: remove them (ip route flush proto 80, and -6)")
        limit = min(self._mtus.values(), default=0)
        larger = [link for link in self._links.values() if limit and self._is_workloads(link) and link.mtu > limit]
        if larger:
            names = _some(sorted(f"{link.name} ({link.mtu})" for link in larger))
            found.append(f"tunnels carry packets of up to {limit} bytes; interfaces of workloads are larger: {names}")
        return found


def build_tunnels(rtnetlink: Rtnetlink, sysctl: Sysctl, offloads: Offloads, options: TunnelOptions) -> TunnelManager:
    """A manager with its drivers."""
    tunnels = TunnelDriver(rtnetlink, sysctl, offloads)
    if options.checksum_broken:
        tunnels.want_offload(False)
    routes = RouteDriver(rtnetlink, TABINET_REMOTE_PROTOCOL, REMOTE_METRICS)
    return TunnelManager(rtnetlink, tunnels, routes, options)


def _subnet(entry: InterfaceAddress) -> Prefix:
    shift = entry.address.bits - entry.length
    return Prefix(entry.address.family, entry.address.value >> shift << shift, entry.length)


def _gist(link: Link | None) -> tuple[object, ...]:
    """What of an interface matters to tunnels: which it is, whether it is up, how large its packets are."""
    return (link.index, link.name, link.up, link.mtu, link.kind) if link is not None else ()


def _some(names: list[str]) -> str:
    """The first few, and how many more there are."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")

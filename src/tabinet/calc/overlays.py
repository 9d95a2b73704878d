"""Tunnels between hosts, and routes to other hosts' workloads where the underlay cannot carry them: records only, part of ``messages``.

Which pools want a tunnel say ``vxlanMode`` and ``ipipMode``; everything else follows from nodes, blocks and endpoints.
"""

from __future__ import annotations

import enum

import msgspec

from tabinet.lib.ip import IPV4, IPV6, Prefix


class Overlay(msgspec.Struct, frozen=True, gc=False):
    """Base of the records."""


class Tunnel(enum.Enum):
    """A tunnel that a host can have; one interface each."""

    VXLAN4 = "vxlan4"
    """IPv4 in VXLAN (RFC 7348) between IPv4 addresses of hosts."""
    VXLAN6 = "vxlan6"
    """IPv6 in VXLAN between IPv6 addresses of hosts."""
    IPIP = "ipip"
    """IPv4 in IPv4 (RFC 2003)."""

    @property
    def family(self) -> int:
        """Of what it carries, and of the addresses that it runs between."""
        return IPV6 if self is Tunnel.VXLAN6 else IPV4

    @property
    def interface(self) -> str:
        """Name of its interface: Calico's, as the kernel has one VXLAN interface for an identifier and port, so that one of another name
        would mean taking Calico's away from under the packets of a host that is moved."""
        return _INTERFACES[self]


_INTERFACES = {Tunnel.VXLAN4: "vxlan.calico", Tunnel.VXLAN6: "vxlan-v6.calico", Tunnel.IPIP: "tunl0"}


class LocalTunnel(Overlay, frozen=True):
    """A host's own end of a tunnel. What is ``None`` is not known yet, and without it there is no tunnel."""

    underlay: Prefix | None
    """The host's own address."""
    address: Prefix | None
    """The address of the tunnel's interface, as the Node has it."""
    mac: str
    """Of the tunnel's interface; empty where it has none (IP-in-IP)."""
    pools: tuple[Prefix, ...]
    """From which of these the host may take its tunnel address, in order of the pools' names."""
    wanted: bool = True
    """A pool wants the tunnel. False: none does, but the Node still has an address for it, which is to be given back."""


class TunnelPeer(Overlay, frozen=True):
    """Another host's end of a VXLAN tunnel."""

    underlay: Prefix
    address: Prefix
    mac: str


class RemoteRoute(Overlay, frozen=True):
    """Where packets for another host's workloads go."""

    tunnel: Tunnel
    """Of the pool that the destination is in."""
    gateway: Prefix | None
    """The next hop, on the link whatever the subnets say: an address of the other host, or of its end of the tunnel.
    ``None``: the destination is itself the other end."""
    direct: bool = False
    """Both hosts are in one subnet and the pool is for tunnels across subnets only: without the tunnel, from our own interface there."""

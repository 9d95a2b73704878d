"""What tunnels need of nodes and pools, read from single resources. Pure; O(size of the resource).

- The address that a host's tunnels run from is that of ``spec.bgp``, with the length of its subnet; without, the first of type InternalIP.
- The MAC address of a VXLAN interface is in the Node, or else a hash of the host's name, as Calico has it (Felix's ``VXLANResolver``), so
  that hosts of either kind find each other: ``f`` and the first five bytes of SHA-1 of the name, with ``-v6`` after it for IPv6.
- What cannot be read is as if it were not there.
"""

from __future__ import annotations

import hashlib

import msgspec

from tabinet.calc.overlays import Tunnel
from tabinet.lib.ip import IPV4, IPV6, Prefix, parse_address, parse_prefix
from tabinet.model.resources import IPPool, IPPoolSpec, Node

NEVER = ("", "Never")
CROSS_SUBNET = "CrossSubnet"
INTERNAL = "InternalIP"


class NodeFacts(msgspec.Struct, frozen=True, gc=False):
    """A host as tunnels see it."""

    addresses: dict[int, Prefix]
    """Its own, by family."""
    subnets: dict[int, Prefix]
    """The subnets that they are in; a host prefix when nothing says so."""
    tunnels: dict[Tunnel, Prefix]
    """Addresses of its ends of tunnels."""
    macs: dict[Tunnel, str]


class PoolFacts(msgspec.Struct, frozen=True, gc=False):
    """A pool as tunnels see it."""

    cidr: Prefix
    tunnel: Tunnel | None
    cross_subnet: bool
    """The tunnel is for hosts of different subnets only."""
    gives: bool
    """Tunnels may have addresses of the pool."""


def node_facts(name: str, node: Node) -> NodeFacts:
    """What tunnels need of a Node."""
    spec = node.spec
    addresses: dict[int, Prefix] = {}
    subnets: dict[int, Prefix] = {}
    texts = [(IPV4, spec.bgp.ipv4_address), (IPV6, spec.bgp.ipv6_address)] if spec.bgp is not None else []
    texts += [(family, each.address) for each in spec.addresses if each.type == INTERNAL for family in (IPV4, IPV6)]
    for family, text in texts:
        address, subnet = _address(text)
        if address is not None and subnet is not None and address.family == family and family not in addresses:
            addresses[family], subnets[family] = address, subnet
    tunnels = {}
    ipip = spec.bgp.ipv4_ipip_tunnel_addr if spec.bgp is not None else ""
    for tunnel, text in ((Tunnel.VXLAN4, spec.ipv4_vxlan_tunnel_addr), (Tunnel.VXLAN6, spec.ipv6_vxlan_tunnel_addr), (Tunnel.IPIP, ipip)):
        address, _ = _address(text)
        if address is not None and address.family == tunnel.family:
            tunnels[tunnel] = address
    macs = {
        Tunnel.VXLAN4: (spec.vxlan_tunnel_mac_addr or derived_mac(name)).lower().replace("-", ":"),
        Tunnel.VXLAN6: (spec.vxlan_tunnel_mac_addr_v6 or derived_mac(f"{name}-v6")).lower().replace("-", ":"),
    }
    return NodeFacts(addresses, subnets, tunnels, macs)


def pool_facts(pool: IPPool) -> PoolFacts | None:
    """What tunnels need of a pool; ``None`` when its prefix cannot be read."""
    spec = pool.spec
    try:
        cidr = parse_prefix(spec.cidr)
    except ValueError:
        return None
    tunnel = tunnel_of(spec)
    mode = spec.ipip_mode if tunnel is Tunnel.IPIP else spec.vxlan_mode
    uses = spec.allowed_uses or ("Workload", "Tunnel")
    return PoolFacts(cidr, tunnel, mode == CROSS_SUBNET, "Tunnel" in uses and not spec.disabled)


def tunnel_of(pool: IPPoolSpec) -> Tunnel | None:
    """The tunnel that a pool wants.

    Raises:
        ValueError: its prefix cannot be read.
    """
    family = parse_prefix(pool.cidr).family
    if pool.vxlan_mode not in NEVER:
        return Tunnel.VXLAN4 if family == IPV4 else Tunnel.VXLAN6
    return Tunnel.IPIP if pool.ipip_mode not in NEVER and family == IPV4 else None


def derived_mac(name: str) -> str:
    """The MAC address of the VXLAN interface of the host of that name."""
    return (b"f" + hashlib.sha1(name.encode(), usedforsecurity=False).digest()[:5]).hex(":")


def _address(text: str) -> tuple[Prefix | None, Prefix | None]:
    """An address and the subnet that it is in; an address without a length is a subnet of its own."""
    try:
        return parse_address(text.partition("/")[0]), parse_prefix(text)
    except ValueError:
        return None, None

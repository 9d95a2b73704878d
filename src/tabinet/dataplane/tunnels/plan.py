"""What is wanted of a tunnel's interface, compared with what there is. Pure.

The interfaces have Calico's names and properties: the kernel has one VXLAN interface for an identifier and port, so that another name would
mean taking Calico's away first. A host that is moved keeps its interface, and every packet on the way. Ours carry ``OWNER`` as their alias;
an interface without it that nobody wants from us is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from tabinet.calc.messages import LocalTunnel, Tunnel
from tabinet.kernel.rtnetlink import AddIpip, AddVxlan, DeleteLink, InterfaceAddress, Link, RtOp, SetLink, Vxlan
from tabinet.lib.ip import Prefix

OWNER = "tabinet"
TUNNELS = {tunnel.interface: tunnel for tunnel in Tunnel}
"""By the name of the interface."""
OVERHEAD_BYTES = {Tunnel.VXLAN4: 50, Tunnel.VXLAN6: 70, Tunnel.IPIP: 20}
"""VXLAN: Ethernet 14, VXLAN 8, UDP 8 and the outer IP header, 20 or 40 (RFC 7348 section 5)."""
LEAST_MTU = {4: 576, 6: 1280}
"""Below these nothing works (RFC 791, RFC 8200 section 5)."""
NOT_UPLINKS = frozenset(("bridge", "dummy", "ifb", "ipip", "vxlan", "wireguard", "tun", "sit", "ip6tnl", "gre"))
"""Kinds of interfaces that no underlay packets leave by, or that have another one below."""


class TunnelOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Choices of the operator."""

    vni: int = 4096
    port: int = 4789
    mtus: Mapping[Tunnel, int] = {}
    """Of tunnel interfaces; 0 or absent: from the host's interfaces."""
    disabled: frozenset[Tunnel] = frozenset()
    """Tunnels that this host does not take part in, whatever pools say."""
    uplink_pattern: str = ""
    """Regular expression: the interfaces that the MTU is taken from. Empty: the one with the host's address, or all that could be."""
    checksum_broken: bool | None = None
    """Network cards get checksums inside of VXLAN wrong, or do not; ``None``: a test decides."""
    interface_prefixes: tuple[str, ...] = ("cali", "tap")
    """Of workloads' interfaces."""


class Wanted(msgspec.Struct, frozen=True):
    """A tunnel interface as it shall be."""

    tunnel: Tunnel
    address: Prefix
    mac: str
    mtu: int
    vxlan: Vxlan | None

    @property
    def name(self) -> str:
        """Of the interface."""
        return self.tunnel.interface


def wanted_interface(tunnel: Tunnel, local: LocalTunnel, mtu: int, options: TunnelOptions) -> Wanted | None:
    """What the interface shall be; ``None`` while something about it is not known."""
    if not local.wanted or local.underlay is None or local.address is None:
        return None
    vxlan = None if tunnel is Tunnel.IPIP else Vxlan(options.vni, options.port, local.underlay)
    return Wanted(tunnel, local.address, local.mac, mtu, vxlan)


def plan_interface(wanted: Wanted, found: Link | None) -> list[RtOp]:
    """The steps until the interface exists as it shall; more may follow once it does (``plan_settings``)."""
    add: RtOp = AddIpip(wanted.name, wanted.mtu) if wanted.vxlan is None else AddVxlan(wanted.name, wanted.vxlan, wanted.mac, wanted.mtu)
    if found is None:
        return [add]
    return [DeleteLink(wanted.name), add] if found.vxlan != wanted.vxlan else []


def plan_settings(wanted: Wanted, found: Link) -> list[RtOp]:
    """The steps until the existing interface is set up and ours."""
    mac = wanted.mac if wanted.mac and wanted.mac != found.mac else ""
    mtu = wanted.mtu if wanted.mtu != found.mtu else 0
    alias = OWNER if found.alias != OWNER else None
    up = True if not found.up else None
    if not (mac or mtu or up or alias is not None):
        return []
    return [SetLink(found.index, up=up, mac=mac, mtu=mtu, alias=alias)]


def kind_problem(wanted: Wanted, found: Link | None) -> str:
    """Why the name cannot be had; empty when it can."""
    kind = "ipip" if wanted.vxlan is None else "vxlan"
    if found is None or found.kind == kind:
        return ""
    return f"there is an interface {wanted.name} that is no {kind} interface ({found.kind or 'hardware'}): rename or remove it"


def uplink_mtu(
    underlay: Prefix | None, links: Iterable[Link], addresses: Iterable[InterfaceAddress], options: TunnelOptions, fits: frozenset[str]
) -> int:
    """The MTU that packets to other hosts can have for sure; 0 when nothing says so.

    ``fits``: names of the interfaces that the operator's pattern matches.
    """
    known = {link.index: link for link in links}
    candidates = [
        link
        for link in known.values()
        if link.up and link.index != 1 and link.kind not in NOT_UPLINKS and not link.name.startswith(options.interface_prefixes)
    ]
    if options.uplink_pattern:
        chosen = [link for link in known.values() if link.name in fits]
    else:
        own = [known[entry.index] for entry in addresses if entry.address == underlay and entry.index in known and entry.index != 1]
        chosen = own or candidates
    return min((link.mtu for link in chosen), default=0)

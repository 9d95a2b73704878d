"""Router advertisements (RFC 4861 section 4.2, RFC 8106), and what a port is told by them.

In: a port and its subnets. Out: an ``Advert``, and its bytes. ``parse_advert(render_advert(advert)) == advert``; any bytes give an
``Advert`` or a ``PacketError``. Pure; linear in the options.

The router is fe80::1 on every host, so that a guest that moves keeps it. No prefix is ever on the link: neighbours are reached through
the host, which is what a routed network means. Ports get what ``ipv6_ra_mode`` of their subnets says: ``slaac`` and
``dhcpv6-stateless``: the prefix for an address of their own making; ``dhcpv6-stateless`` and ``dhcpv6-stateful``: the flags that say so.
Ports whose subnets have no mode are told nothing: somebody else advertises. Guests of others than Neutron get their addresses by DHCPv6,
and are told so; containers get them from their runtime, and are told nothing.
"""

from __future__ import annotations

import struct

import msgspec

from tabinet.errors import PacketError
from tabinet.guest.directory import SLAAC, STATEFUL, STATELESS, Directory, Port, Subnet
from tabinet.guest.options import GuestOptions
from tabinet.lib.ip import IPV6, Prefix, parse_address

ROUTER = parse_address("fe80::1")
EVERYONE = "ff02::1"
LEAST_MTU = 1280
VALID_S, PREFERRED_S = 86_400, 14_400
_TYPE, _HOPS = 134, 64
_HEAD = struct.Struct(">BBHBBHII")
_MANAGED, _OTHER = 0x80, 0x40
_PREFIX, _MTU, _DNS = 3, 5, 25
_PREFIX_BODY = struct.Struct(">BBBBIII16s")
_MTU_BODY = struct.Struct(">BBHI")
_DNS_HEAD = struct.Struct(">BBHI")
_ON_LINK, _AUTONOMOUS = 0x80, 0x40
_LONGEST_LIFETIME_S = 9000


class AdvertPrefix(msgspec.Struct, frozen=True, gc=False):
    """A prefix information option."""

    net: Prefix
    autonomous: bool
    """Guests make addresses of it (RFC 4862)."""
    valid_s: int = VALID_S
    preferred_s: int = PREFERRED_S
    on_link: bool = False


class Advert(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One router advertisement."""

    lifetime_s: int
    """0: no default router."""
    managed: bool = False
    other: bool = False
    mtu: int = 0
    """0: not said."""
    prefixes: tuple[AdvertPrefix, ...] = ()
    dns: tuple[Prefix, ...] = ()
    dns_lifetime_s: int = 0


def subnets_of(port: Port, directory: Directory) -> list[Subnet]:
    """The IPv6 subnets with DHCP of a port of Neutron's, in the order of its addresses, each once."""
    found = (directory.subnet(port, address) for address in port.addresses if address.family == IPV6 and port.is_neutrons)
    return list({subnet.cidr: subnet for subnet in found if subnet is not None}.values())


def make_advert(port: Port, subnets: list[Subnet], options: GuestOptions) -> Advert | None:
    """What the port is told; None: nothing."""
    if not port.is_neutrons:
        return _advert_of_others(port, options)
    told = [subnet for subnet in subnets if subnet.ipv6_ra_mode in (SLAAC, STATELESS, STATEFUL)]
    if not told:
        return None
    lifetime_s = min(3 * options.advertise_s, _LONGEST_LIFETIME_S)
    modes = {subnet.ipv6_ra_mode for subnet in told}
    named = [address for subnet in told for address in map(parse_address, subnet.dns_servers) if address.family == IPV6]
    servers = tuple(dict.fromkeys(named or [address for address in options.dns_servers if address.family == IPV6]))
    return Advert(
        lifetime_s=lifetime_s if any(subnet.gateway_ip for subnet in told) else 0,
        managed=STATEFUL in modes,
        other=bool(modes & {STATEFUL, STATELESS}),
        mtu=port.facts.mtu if port.facts.mtu >= LEAST_MTU else 0,
        prefixes=tuple(AdvertPrefix(subnet.net, subnet.ipv6_ra_mode != STATEFUL) for subnet in told),
        dns=servers,
        dns_lifetime_s=lifetime_s if servers else 0,
    )


def _advert_of_others(port: Port, options: GuestOptions) -> Advert | None:
    """A guest that nobody's subnet speaks for gets its addresses by DHCPv6, and everything over its host."""
    if port.in_container or not any(address.family == IPV6 for address in port.addresses):
        return None
    lifetime_s = min(3 * options.advertise_s, _LONGEST_LIFETIME_S)
    servers = tuple(address for address in options.dns_servers if address.family == IPV6)
    return Advert(lifetime_s=lifetime_s, managed=True, other=True, dns=servers, dns_lifetime_s=lifetime_s if servers else 0)


def render_advert(advert: Advert) -> bytes:
    """The ICMPv6 message, with a checksum of 0."""
    flags = (_MANAGED if advert.managed else 0) | (_OTHER if advert.other else 0)
    data = _HEAD.pack(_TYPE, 0, 0, _HOPS, flags, advert.lifetime_s, 0, 0)
    if advert.mtu:
        data += _MTU_BODY.pack(_MTU, 1, 0, advert.mtu)
    for prefix in advert.prefixes:
        marks = (_ON_LINK if prefix.on_link else 0) | (_AUTONOMOUS if prefix.autonomous else 0)
        data += _PREFIX_BODY.pack(_PREFIX, 4, prefix.net.length, marks, prefix.valid_s, prefix.preferred_s, 0, prefix.net.packed)
    if advert.dns:
        data += _DNS_HEAD.pack(_DNS, 1 + 2 * len(advert.dns), 0, advert.dns_lifetime_s) + b"".join(each.packed for each in advert.dns)
    return data


def parse_advert(data: bytes) -> Advert:
    """The advertisement in an ICMPv6 message; options that it does not know are left out.

    Raises:
        PacketError: it is none.
    """
    if len(data) < _HEAD.size or data[0] != _TYPE or data[1] != 0:
        raise PacketError("not a router advertisement")
    _, _, _, _, flags, lifetime_s, _, _ = _HEAD.unpack_from(data)
    mtu = dns_lifetime_s = 0
    prefixes: list[AdvertPrefix] = []
    dns: list[Prefix] = []
    place = _HEAD.size
    while place < len(data):
        size = data[place + 1] * 8 if place + 1 < len(data) else 0
        option = data[place : place + size]
        if size == 0 or len(option) < size:
            raise PacketError("an option that is cut off")
        place += size
        if option[0] == _MTU and size == _MTU_BODY.size:
            mtu = _MTU_BODY.unpack(option)[3]
        elif option[0] == _PREFIX and size == _PREFIX_BODY.size:
            prefixes.append(_parse_prefix(option))
        elif option[0] == _DNS and size >= 24 and size % 16 == 8 and not dns:
            dns_lifetime_s = _DNS_HEAD.unpack_from(option)[3]
            dns = [Prefix(IPV6, int.from_bytes(option[at : at + 16], "big"), 128) for at in range(_DNS_HEAD.size, size, 16)]
    return Advert(
        lifetime_s=lifetime_s,
        managed=bool(flags & _MANAGED),
        other=bool(flags & _OTHER),
        mtu=mtu,
        prefixes=tuple(prefixes),
        dns=tuple(dns),
        dns_lifetime_s=dns_lifetime_s,
    )


def _parse_prefix(option: bytes) -> AdvertPrefix:
    _, _, length, marks, valid_s, preferred_s, _, packed = _PREFIX_BODY.unpack(option)
    if length > 128:
        raise PacketError(f"a prefix of {length} bits")
    shift = 128 - length
    net = Prefix(IPV6, int.from_bytes(packed, "big") >> shift << shift, length)
    return AdvertPrefix(net, bool(marks & _AUTONOMOUS), valid_s, preferred_s, bool(marks & _ON_LINK))


def is_solicitation(data: bytes) -> bool:
    """True for a router solicitation that is whole (RFC 4861 section 6.1.1)."""
    return len(data) >= 8 and data[0] == 133 and data[1] == 0

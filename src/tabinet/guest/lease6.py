"""What a guest is answered over DHCPv6 (RFC 8415 section 18.3): its own addresses and what belongs to them, decided from the store alone.

In: a port, its subnets, a request. Out: a reply, or why there is none. As with IPv4 there is no lease database: a port's addresses are its
lease for as long as the endpoint exists. The server's name (DUID) is the same on every host: a guest that has moved renews where it is.
Pure; linear in the options.

Who asks is known by the interface, so a client's DUID and the identifiers of its associations (IAID) decide nothing: the first association
of a message has all addresses of the port, further ones have none. Prefixes are not delegated.

Subnets say how: stateful ones give addresses; of stateless ones and of those there is configuration; in ``slaac`` nobody is answered.
"""

from __future__ import annotations

import enum

import msgspec

from tabinet.guest import dhcp6, options6
from tabinet.guest.dhcp6 import Association, Kind, Message, Options, Status
from tabinet.guest.directory import STATEFUL, STATELESS, Directory, Port, Subnet
from tabinet.guest.lease4 import host_names
from tabinet.guest.options import GuestOptions
from tabinet.guest.options4 import encode_search
from tabinet.lib.ip import IPV6, Prefix, parse_address

SERVER_DUID = bytes.fromhex("00030001eeeeeeeeeeee")
"""DUID-LL (RFC 8415 section 11.4) of a locally administered address."""
MOST_ADDRESSES = 32
"""Of a lease: more would not fit into a packet."""
_INFINITE = 0xFFFFFFFF


class Lease6(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a port gets."""

    mac: bytes
    addresses: tuple[Prefix, ...]
    """None where only configuration is to be had."""
    options: Options
    """The most important ones first."""
    lease_s: int
    fqdn: str = ""
    refused: tuple[str, ...] = ()
    """Extra options that could not be had, in words."""


class Silence6(enum.Enum):
    """Why a message is not answered."""

    NO_REQUEST = "not a request"
    NAMELESS = "without a client's identifier"
    OTHER_SERVER = "meant for another server"
    MALFORMED = "not as its kind has to be"
    NOTHING = "about no address"


def lease6_of(port: Port, directory: Directory, options: GuestOptions) -> Lease6 | None:
    """What the port gets; None: nobody is answered."""
    own = [address for address in port.addresses if address.family == IPV6]
    if not port.is_neutrons:
        return make_lease6(port, [], own, options) if own and not port.in_container else None
    served = [(address, subnet) for address in own if (subnet := directory.subnet(port, address)) is not None]
    served = [(address, subnet) for address, subnet in served if subnet.dhcp6_mode in (STATEFUL, STATELESS)]
    if not served:
        return None
    fixed = {parse_address(fixed.address) for fixed in port.facts.fixed}
    given = [address for address, subnet in served if subnet.dhcp6_mode == STATEFUL and (not fixed or address in fixed)]
    return make_lease6(port, [subnet for _, subnet in served], given, options)


def make_lease6(port: Port, subnets: list[Subnet], addresses: list[Prefix], options: GuestOptions) -> Lease6:
    """What the port gets with these addresses."""
    named = [address for subnet in subnets for address in map(parse_address, subnet.dns_servers) if address.family == IPV6]
    servers = dict.fromkeys(named or [address for address in options.dns_servers if address.family == IPV6])
    host_name, domain = host_names(port)
    found: dict[int, bytes] = {}
    refused: list[str] = []
    if servers:
        found[options6.DNS_SERVERS] = b"".join(server.packed for server in servers)
    try:
        if domain:
            found[options6.DOMAIN_SEARCH] = encode_search(domain)
        fqdn = ".".join(part for part in (host_name, domain) if part)
        if fqdn:
            options6.encode_fqdn(fqdn, b"")
    except ValueError as error:
        refused.append(f"name: {error}")
        fqdn = ""
    for extra in port.facts.dhcp_options:
        if extra.ip_version != IPV6:
            continue
        try:
            if extra.value:
                code, value = options6.encode_option(extra.name, extra.value)
                found[code] = value
            else:  # as dnsmasq has it: not to be sent
                found.pop(options6.option_code(extra.name), None)
        except ValueError as error:
            refused.append(f"{extra.name}: {error}")
    return Lease6(
        mac=port.mac,
        addresses=tuple(addresses[:MOST_ADDRESSES]),
        options=tuple(found.items()),
        lease_s=min(options.lease_s, _INFINITE),
        fqdn=fqdn,
        refused=tuple(refused),
    )


def answer6(request: Message, lease: Lease6) -> Message | Silence6:
    """What the owner of the lease is answered.

    Raises:
        PacketError: an association in it is cut off.
    """
    silence = _judge(request)
    if silence is not None:
        return silence
    associations = [dhcp6.parse_association(code, value) for code, value in request.options if code in dhcp6.ASSOCIATIONS]
    match request.kind:
        case Kind.SOLICIT if request.option(dhcp6.RAPID_COMMIT) is not None and lease.addresses:
            return _reply(request, lease, Kind.REPLY, ((dhcp6.RAPID_COMMIT, b""), *_bind(associations, lease)))
        case Kind.SOLICIT:
            return _reply(request, lease, Kind.ADVERTISE, _bind(associations, lease))
        case Kind.REQUEST | Kind.RENEW | Kind.REBIND:
            return _reply(request, lease, Kind.REPLY, _bind(associations, lease))
        case Kind.INFORMATION_REQUEST:
            # Whoever keeps no state would never ask again; who has addresses asks when it renews them.
            return _reply(request, lease, Kind.REPLY, ((options6.REFRESH_TIME, options6.encode_refresh(lease.lease_s)),))
        case Kind.CONFIRM:
            return _confirm(request, lease, associations)
        case Kind.RELEASE | Kind.DECLINE:
            return _reply(request, lease, Kind.REPLY, (dhcp6.render_status(Status.SUCCESS), *_unbound(associations, lease)), bare=True)
        case _:
            return Silence6.NO_REQUEST


def _judge(request: Message) -> Silence6 | None:
    """Whether the message is as its kind has to be (RFC 8415 section 16)."""
    client, server = request.option(dhcp6.CLIENT_ID), request.option(dhcp6.SERVER_ID)
    match request.kind:
        case Kind.SOLICIT | Kind.CONFIRM | Kind.REBIND:
            if server is not None:
                return Silence6.MALFORMED
        case Kind.REQUEST | Kind.RENEW | Kind.RELEASE | Kind.DECLINE:
            if server != SERVER_DUID:
                return Silence6.OTHER_SERVER
        case Kind.INFORMATION_REQUEST:
            if server not in (None, SERVER_DUID):
                return Silence6.OTHER_SERVER
            return Silence6.MALFORMED if any(code in dhcp6.ASSOCIATIONS for code, _ in request.options) else None
        case _:
            return Silence6.NO_REQUEST
    return None if client is not None else Silence6.NAMELESS


def _bind(associations: list[Association], lease: Lease6) -> Options:
    """What each association gets: the first one for addresses all of them, and what the client has beyond is not its own any more."""
    found: list[tuple[int, bytes]] = []
    own = {address.packed for address in lease.addresses}
    free = bool(own)
    for each in associations:
        stale = tuple(dhcp6.render_address(address, 0, 0) for address in each.addresses if address not in own)
        if each.code == dhcp6.IA_NA and free:
            free = False
            given = tuple(dhcp6.render_address(address.packed, lease.lease_s, lease.lease_s) for address in lease.addresses)
            found.append(dhcp6.render_association(each, lease.lease_s // 2, lease.lease_s * 4 // 5, (*given, *stale)))
        else:
            none = Status.NO_PREFIX if each.code == dhcp6.IA_PD else Status.NO_ADDRESSES
            found.append(dhcp6.render_association(each, 0, 0, (dhcp6.render_status(none, "nothing for this association"), *stale)))
    return tuple(found)


def _unbound(associations: list[Association], lease: Lease6) -> Options:
    own = {address.packed for address in lease.addresses}
    return tuple(
        dhcp6.render_association(each, 0, 0, (dhcp6.render_status(Status.NO_BINDING),))
        for each in associations
        if not each.addresses or not own.issuperset(each.addresses)
    )


def _confirm(request: Message, lease: Lease6, associations: list[Association]) -> Message | Silence6:
    asked = {address for each in associations for address in each.addresses}
    if not asked:
        return Silence6.NOTHING
    right = asked <= {address.packed for address in lease.addresses}
    return _reply(request, lease, Kind.REPLY, (dhcp6.render_status(Status.SUCCESS if right else Status.NOT_ON_LINK),), bare=True)


def _reply(request: Message, lease: Lease6, kind: Kind, options: Options, bare: bool = False) -> Message:
    """``bare``: without configuration."""
    head: list[tuple[int, bytes]] = [(dhcp6.SERVER_ID, SERVER_DUID)]
    client = request.option(dhcp6.CLIENT_ID)
    if client is not None:
        head.insert(0, (dhcp6.CLIENT_ID, client))
    return Message(kind=kind, xid=request.xid, options=(*head, *options, *(() if bare else _configuration(request, lease))))


def _configuration(request: Message, lease: Lease6) -> Options:
    """What the client asks for; everything, when it does not say what."""
    asked = request.option(dhcp6.OPTION_REQUEST)
    wanted = {int.from_bytes(asked[place : place + 2], "big") for place in range(0, len(asked), 2)} if asked is not None else None
    found = [(code, value) for code, value in lease.options if wanted is None or code in wanted]
    sent = request.option(options6.FQDN)
    if lease.fqdn and (sent is not None or (wanted is not None and options6.FQDN in wanted)):
        found.append((options6.FQDN, options6.encode_fqdn(lease.fqdn, sent or b"")))
    return tuple(found)

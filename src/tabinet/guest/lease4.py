"""What a guest is answered over DHCPv4: its own address and what belongs to it, decided from the store alone.

In: a port, its subnet, a request. Out: a reply, or why there is none. There is no lease database: a port's address is its lease for as long
as the endpoint exists, on whichever host, so that a restart or a live migration changes nothing. The server is 169.254.1.1 on every
host: a guest that has moved renews where it is. Pure; linear in the options.

A guest with its subnet's mask looks for its neighbours by ARP, and the host answers for them. A default route by RFC 3442 comes beside
that of RFC 2132, because a client that reads the former ignores the latter. A port without a gateway gets a route to the metadata address
alone.
"""

from __future__ import annotations

import enum

import msgspec

from tabinet.guest import options4 as opt
from tabinet.guest.dhcp4 import BROADCAST_FLAG, REPLY_OP, REQUEST_OP, UNSPECIFIED, Kind, Message
from tabinet.guest.directory import Directory, Port, Subnet
from tabinet.guest.options import GuestOptions
from tabinet.lib.ip import IPV4, Prefix, parse_address, parse_prefix

SERVER = parse_address("169.254.1.1")
METADATA = parse_address("169.254.169.254")
_ANY = parse_prefix("0.0.0.0/0")
_ON_LINK = parse_address("0.0.0.0")
_LIMIT_BYTES = 548
"""Longest message to a client that says nothing of longer ones: 576 bytes less the headers (RFC 2131 section 2)."""
_HEADERS_BYTES = 28
_LONGEST_BYTES = 1472

Options = tuple[tuple[int, bytes], ...]


class Lease4(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a port gets."""

    mac: bytes
    address: Prefix
    options: Options
    """The most important ones first."""
    lease_s: int
    boot_server: bytes = UNSPECIFIED
    refused: tuple[str, ...] = ()
    """Extra options that could not be had, in words."""


class Silence(enum.Enum):
    """Why a message is not answered."""

    NO_REQUEST = "not a request"
    OTHER_HARDWARE = "from another hardware address than the port's"
    RELAYED = "through a relay"
    OTHER_SERVER = "meant for another server"
    DECLINED = "the guest says that somebody else uses its address"
    RELEASED = "the guest gives its address up"


class Reply4(msgspec.Struct, frozen=True, gc=False):
    """An answer and where it goes."""

    message: Message
    target: bytes
    """The guest's address, or ``UNSPECIFIED``: to everyone on the link, where there is only the guest."""
    limit_bytes: int


def lease4_of(port: Port, directory: Directory, options: GuestOptions) -> Lease4 | None:
    """What the port gets: its first IPv4 address that has DHCP; None: none has."""
    for address in port.addresses:
        if address.family == IPV4:
            subnet = directory.subnet(port, address) if port.is_neutrons else None
            if subnet is not None or not port.is_neutrons:
                return make_lease4(port, subnet, address, options)
    return None


def make_lease4(port: Port, subnet: Subnet | None, address: Prefix, options: GuestOptions) -> Lease4:
    """What the port gets with this address; ``subnet``: None for workloads that are not Neutron's."""
    found = dict(_subnet_options(subnet, port, options))
    facts = port.facts
    if facts.mtu:
        found[opt.MTU] = min(facts.mtu, 0xFFFF).to_bytes(2, "big")
    host_name, domain = host_names(port)
    if domain:
        found[opt.DOMAIN_NAME] = domain.encode()
    if host_name:
        found[opt.HOST_NAME] = host_name.encode()
    boot_server, refused = UNSPECIFIED, []
    for extra in facts.dhcp_options:
        if extra.ip_version != IPV4:
            continue
        try:
            if extra.name == "server-ip-address":
                boot_server = opt.encode_option("router", extra.value)[1][:4]
                continue
            if extra.value:
                code, value = opt.encode_option(extra.name, extra.value)
                found[code] = value
            else:  # as dnsmasq has it: not to be sent
                found.pop(opt.option_code(extra.name), None)
        except ValueError as error:
            refused.append(f"{extra.name}: {error}")
    return Lease4(
        mac=port.mac,
        address=address,
        options=tuple(found.items()),
        lease_s=options.lease_s,
        boot_server=boot_server,
        refused=tuple(refused),
    )


def host_names(port: Port) -> tuple[str, str]:
    """Host name and domain."""
    facts = port.facts
    first, _, domain = facts.fqdn.rstrip(".").partition(".")
    return facts.hostname or first, domain


def _subnet_options(subnet: Subnet | None, port: Port, options: GuestOptions) -> Options:
    gateway = port.gateway4 or SERVER
    mask = 32
    has_gateway = True
    if subnet is not None:
        has_gateway = subnet.gateway_ip is not None
        gateway = parse_address(subnet.gateway_ip) if subnet.gateway_ip else SERVER
        mask = subnet.net.length if options.on_link else 32
    routes = _routes(subnet, gateway, has_gateway, mask)
    found: list[tuple[int, bytes]] = [(opt.SUBNET_MASK, (0xFFFFFFFF << (32 - mask) & 0xFFFFFFFF).to_bytes(4, "big"))]
    if has_gateway:
        found.append((opt.ROUTER, gateway.packed))
    found.append((opt.CLASSLESS_ROUTES, opt.encode_routes(routes)))
    servers = [address for address in map(parse_address, subnet.dns_servers if subnet is not None else ()) if address.family == IPV4]
    servers = servers or [address for address in options.dns_servers if address.family == IPV4]
    if servers:
        found.append((opt.DNS_SERVERS, b"".join(server.packed for server in servers)))
    return tuple(found)


def _routes(subnet: Subnet | None, gateway: Prefix, has_gateway: bool, mask: int) -> list[tuple[Prefix, Prefix]]:
    routes: list[tuple[Prefix, Prefix]] = []
    near = subnet.net if subnet is not None and mask < 32 else None
    if near is None or not near.contains(gateway):
        routes.append((gateway, _ON_LINK))  # before the routes over it: clients enter them in this order
    for route in subnet.host_routes if subnet is not None else ():
        pair = (parse_prefix(route.destination), parse_address(route.nexthop))
        if pair[0].family == pair[1].family == IPV4:
            routes.append(pair)
    routes.append((_ANY, gateway) if has_gateway else (METADATA, gateway))
    return routes


def answer4(request: Message, lease: Lease4) -> Reply4 | Silence:
    """What the owner of the lease is answered (RFC 2131 section 4.3)."""
    if request.op != REQUEST_OP:
        return Silence.NO_REQUEST
    if request.giaddr != UNSPECIFIED:
        return Silence.RELAYED
    if not lease.mac or request.mac != lease.mac:
        return Silence.OTHER_HARDWARE
    own = lease.address.packed
    match request.kind:
        case Kind.DISCOVER:
            return _reply(request, lease, Kind.OFFER)
        case Kind.REQUEST if request.option(opt.SERVER_IDENTIFIER) not in (None, SERVER.packed):
            return Silence.OTHER_SERVER
        case Kind.REQUEST if (request.option(opt.REQUESTED_ADDRESS) or request.ciaddr) != own:
            return _refusal(request)
        case Kind.REQUEST:
            return _reply(request, lease, Kind.ACK)
        case Kind.INFORM:
            return _reply(request, lease, Kind.ACK)
        case Kind.DECLINE:
            return Silence.DECLINED
        case Kind.RELEASE:
            return Silence.RELEASED
        case _:
            return Silence.NO_REQUEST


def _reply(request: Message, lease: Lease4, kind: Kind) -> Reply4:
    informs = request.kind is Kind.INFORM
    times: Options = (
        (opt.LEASE_TIME, opt.encode_seconds(lease.lease_s)),
        (opt.RENEWAL_TIME, opt.encode_seconds(lease.lease_s // 2)),
        (opt.REBINDING_TIME, opt.encode_seconds(lease.lease_s * 7 // 8)),
    )
    own = lease.address.packed
    message = Message(
        op=REPLY_OP,
        kind=kind,
        xid=request.xid,
        mac=request.mac,
        flags=request.flags,
        ciaddr=request.ciaddr if kind is Kind.ACK else UNSPECIFIED,
        yiaddr=UNSPECIFIED if informs else own,
        siaddr=lease.boot_server,
        options=((opt.SERVER_IDENTIFIER, SERVER.packed), *(() if informs else times), *lease.options),
    )
    longest = request.option(opt.LONGEST_MESSAGE) or b""
    room = int.from_bytes(longest, "big") - _HEADERS_BYTES if len(longest) == 2 else 0
    answers_to_it = request.ciaddr == own and not request.flags & BROADCAST_FLAG
    return Reply4(message, own if answers_to_it else UNSPECIFIED, min(max(room, _LIMIT_BYTES), _LONGEST_BYTES))


def _refusal(request: Message) -> Reply4:
    message = Message(
        op=REPLY_OP,
        kind=Kind.NAK,
        xid=request.xid,
        mac=request.mac,
        flags=request.flags | BROADCAST_FLAG,
        options=((opt.SERVER_IDENTIFIER, SERVER.packed), (opt.REASON, b"not the address of this port")),
    )
    return Reply4(message, UNSPECIFIED, _LIMIT_BYTES)

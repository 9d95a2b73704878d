"""What virtual machines must not pretend to be: servers that give others their addresses; and what they must not reach of their host.

In: ``TableOptions``. Out: rules. A guest that answers DHCP could take over others (RFC 2131 section 7, RFC 8415 section 22); router
advertisements need no rule, because no router forwards them (RFC 4861 section 6.1.2). Rules look at new flows only.

A metadata server at an address of the loopback net needs the kernel to route that net to interfaces of guests
(``net.ipv4.conf.<interface>.route_localnet``), and then they could reach everything that listens there: what they send to it themselves is
dropped before translation.
"""

from __future__ import annotations

from tabinet.lib.ip import IPV4, IPV6, parse_prefix
from tabinet.rules.ir import (
    Chain,
    Drop,
    Family,
    HeaderAddress,
    InterfacePrefix,
    Jump,
    Match,
    OriginalDirection,
    Port,
    Protocol,
    ReplyDirection,
    Rule,
    Side,
    Via,
)
from tabinet.rules.options import UDP, TableOptions

SERVERS = "guest_servers"
_LOOPBACK = parse_prefix("127.0.0.0/8")
_DHCP = ((IPV4, 67, 68), (IPV6, 547, 546))
"""Family, port of the server, port of the client."""


def needs_localnet(options: TableOptions) -> bool:
    """True when the metadata server is at an address of the loopback net."""
    return options.metadata is not None and _LOOPBACK.contains(options.metadata.address)


def deny_servers(options: TableOptions) -> tuple[Rule, ...]:
    """Sends what looks like an answer of DHCP to where it is dropped if it is a workload's."""
    return tuple(Rule(Jump(SERVERS), matches) for matches in server_packets(options))


def server_packets(options: TableOptions) -> list[tuple[Match, ...]]:
    """What tells answers of DHCP, where workloads may not send them."""
    if not options.deny_guest_servers:
        return []
    return [
        (Family(family), Protocol(UDP), Port(Side.SOURCE, server, server), Port(Side.DESTINATION, client, client))
        for family, server, client in _DHCP
    ]


def server_chains(options: TableOptions) -> dict[str, Chain]:
    """The chain that ``deny_servers`` leads to."""
    if not options.deny_guest_servers:
        return {}
    ends = ((OriginalDirection(), Via.IN), (ReplyDirection(), Via.OUT))
    rules = tuple(
        Rule(Drop(), (direction, InterfacePrefix(via, prefix)), counter=True, comment="a workload's DHCP answer")
        for direction, via in ends
        for prefix in options.interface_prefixes
    )
    return {SERVERS: Chain(rules)}


def keep_from_loopback(options: TableOptions) -> tuple[Rule, ...]:
    """Drops what a workload sends to the host's loopback net by itself."""
    if not needs_localnet(options):
        return ()
    return (Rule(Drop(), (HeaderAddress(Side.DESTINATION, _LOOPBACK),), counter=True, comment="the host's loopback net"),)

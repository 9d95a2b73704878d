"""Rules that choose a routing table (ip-rule(8)), whoever made them: read, and removed one by one.

Ours are made and removed through ``rtnetlink``; this is for those of another program. A rule is removed by the very bytes that the kernel
described it with, so that no other one that resembles it is meant. Source: linux/fib_rules.h.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import msgspec

from tabinet.errors import KernelError
from tabinet.kernel.netlink import NETLINK_ROUTE, Message, Request, open_netlink, parse_attributes
from tabinet.kernel.rtcodec import DELRULE, FAMILIES, get_rules
from tabinet.lib.ip import IPV4, IPV6

_HEAD = struct.Struct("=BBBBBBBBI")  # struct fib_rule_hdr
_PRIORITY, _MARK, _TABLE, _MASK, _PROTOCOL = 6, 10, 15, 16, 21
_INVERT = 0x2
_AF_INET6 = 10


class RoutingRule(msgspec.Struct, frozen=True, kw_only=True):
    """Packets that it is about are routed by a table."""

    family: int
    priority: int
    table: int
    mark: int = 0
    mask: int = 0
    """Which bits of the packet's mark are compared; 0: none."""
    inverted: bool = False
    """It is about all packets but those."""
    protocol: int = 0
    """Who made it (RTPROT_*); 0 where nobody said."""
    raw: bytes = b""
    """The kernel's description."""

    def __str__(self) -> str:
        condition = f" fwmark {self.mark:#x}/{self.mask:#x}" if self.mask else ""
        return f"IPv{self.family} {self.priority}: {'not ' if self.inverted else ''}from all{condition} lookup {self.table}"


def list_rules() -> list[RoutingRule]:
    """The rules of both families, in the kernel's order.

    Raises:
        KernelError: the kernel did not answer.
    """
    netlink = open_netlink(NETLINK_ROUTE)
    try:
        return [rule for family in FAMILIES for rule in netlink.dump(get_rules(family), _parse, "read rules")]
    finally:
        netlink.close()


def delete_rules(rules: Sequence[RoutingRule]) -> list[KernelError | None]:
    """The rules are gone; the outcome of each, in order.

    Raises:
        KernelError: no outcome is known.
    """
    netlink = open_netlink(NETLINK_ROUTE)
    try:
        return netlink.execute([Request(DELRULE, 0, rule.raw) for rule in rules], lambda index: f"delete rule {rules[index]}")
    finally:
        netlink.close()


def _parse(message: Message) -> RoutingRule:
    family, _, _, _, table, _, _, _, flags = _HEAD.unpack_from(message.payload)
    found = parse_attributes(message.payload, _HEAD.size)
    return RoutingRule(
        family=IPV6 if family == _AF_INET6 else IPV4,
        priority=_u32(found.get(_PRIORITY)),
        table=_u32(found.get(_TABLE)) or table,
        mark=_u32(found.get(_MARK)),
        mask=_u32(found.get(_MASK)),
        inverted=bool(flags & _INVERT),
        protocol=found[_PROTOCOL][0] if _PROTOCOL in found else 0,
        raw=message.payload,
    )


def _u32(data: bytes | None) -> int:
    return int(struct.unpack("=I", data)[0]) if data is not None and len(data) == 4 else 0

"""Base chains of every nf_tables table on this host, ours and others': who else has a say in what happens to packets.

Read only. Two dumps, of chains and of rules; the rules are not parsed, only searched. Source: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import errno
import struct

import msgspec

from tabinet.errors import KernelError
from tabinet.kernel.netlink import NETLINK_NETFILTER, Message, Request, open_netlink, parse_attributes, parse_text
from tabinet.kernel.nftables import Hook
from tabinet.kernel.nftparse import parse_chain

_GETCHAIN, _GETRULE = (10 << 8) | 4, (10 << 8) | 7
_EVERY_FAMILY = struct.pack(">BBH", 0, 0, 0)
FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}


class BaseChain(msgspec.Struct, frozen=True):
    """A chain that the kernel calls."""

    family: str
    """As nft(8) calls it."""
    table: str
    name: str
    hook: Hook
    mentions: frozenset[str]
    """Which of the words that were searched for stand in rules of its table."""


def list_base_chains(words: tuple[str, ...] = ()) -> list[BaseChain]:
    """The base chains of all families, and which of ``words`` (names of interfaces or chains, or how they begin) their tables mention.

    Raises:
        KernelError: the kernel did not answer, or has no nf_tables.
    """
    netlink = open_netlink(NETLINK_NETFILTER)
    try:
        chains = netlink.dump(Request(_GETCHAIN, 0, _EVERY_FAMILY), _parse, "list chains")
        found: dict[tuple[str, str], set[str]] = {}
        for family, attributes in netlink.dump(Request(_GETRULE, 0, _EVERY_FAMILY), _parse, "list rules") if words else ():
            content = attributes.get(4, b"")
            found.setdefault((family, parse_text(attributes[1])), set()).update(word for word in words if word.encode() in content)
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return []
        raise
    finally:
        netlink.close()
    base = []
    for family, attributes in chains:
        name, hook = parse_chain(attributes)
        table = parse_text(attributes[1])
        if hook is not None:
            base.append(BaseChain(family, table, name, hook, frozenset(found.get((family, table), ()))))
    return base


def _parse(message: Message) -> tuple[str, dict[int, bytes]]:
    family = message.payload[0]
    return FAMILIES.get(family, str(family)), parse_attributes(message.payload, 4)

"""Sets of the older kind (ipset(8)), which rules of iptables match with ``-m set``: their names, and their removal.

For what another program left behind; nothing of ours uses them. Reads names only, in one dump, O(sets); members stay in the kernel.
Sources: linux/netfilter/ipset/ip_set.h, ipset(8).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence

from tabinet.errors import KernelError
from tabinet.kernel.netlink import (
    NETLINK_NETFILTER,
    Message,
    Request,
    attribute,
    be32,
    nested,
    open_netlink,
    parse_attributes,
    parse_text,
    text,
)

_SUBSYSTEM = 6
_CREATE, _DESTROY, _LIST = ((_SUBSYSTEM << 8) | command for command in (2, 3, 7))
_PROTOCOL, _SETNAME, _TYPENAME, _REVISION, _FAMILY, _FLAGS, _DATA = range(1, 8)
_FLAG_LIST_SETNAME = 1 << 1
"""Names only (IPSET_FLAG_LIST_SETNAME)."""
_VERSION = 6
"""Of the protocol: what every kernel since 2.6.39 speaks."""
_HEAD = struct.pack(">BBH", 0, 0, 0)
_IN_USE = 4100
"""IPSET_ERR_BUSY."""
_NLA_F_NET_BYTEORDER = 0x4000


def _body(*attributes: bytes) -> bytes:
    return _HEAD + attribute(_PROTOCOL, bytes((_VERSION,))) + b"".join(attributes)


def list_sets() -> list[str]:
    """The names of all sets of this network namespace, in order; none where the kernel has no such sets.

    Raises:
        KernelError: the kernel did not answer.
    """
    names_only = attribute(_FLAGS | _NLA_F_NET_BYTEORDER, be32(_FLAG_LIST_SETNAME))
    netlink = open_netlink(NETLINK_NETFILTER)
    try:
        return sorted(set(netlink.dump(Request(_LIST, 0, _body(names_only)), _parse_name, "list ipsets")))
    except KernelError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT, errno.EOPNOTSUPP):  # nothing is behind the subsystem
            return []
        raise
    finally:
        netlink.close()


def destroy_sets(names: Sequence[str]) -> dict[str, KernelError]:
    """The sets are gone, but for those given with the reason (EBUSY: a rule or another set names it). To have been absent is none.

    Raises:
        KernelError: no outcome is known.
    """
    requests = [Request(_DESTROY, 0, _body(attribute(_SETNAME, text(name)))) for name in names]
    netlink = open_netlink(NETLINK_NETFILTER)
    try:
        outcomes = netlink.execute(requests, lambda index: f"destroy ipset {names[index]}")
    finally:
        netlink.close()
    left = {name: outcome for name, outcome in zip(names, outcomes, strict=True) if outcome is not None}
    return {name: _in_words(outcome, name) for name, outcome in left.items() if outcome.errno != errno.ENOENT}


def _in_words(error: KernelError, name: str) -> KernelError:
    """The sets' own error numbers as the system's."""
    return KernelError(errno.EBUSY, f"destroy ipset {name}", "a rule names it") if error.errno == _IN_USE else error


def create_set(name: str, kind: str = "hash:net", *, revision: int = 0, family: int = 2) -> None:
    """An empty set exists. ``family``: AF_INET or AF_INET6.

    Raises:
        KernelError: the kernel refuses; EEXIST when there is one of another type.
    """
    body = _body(
        attribute(_SETNAME, text(name)),
        attribute(_TYPENAME, text(kind)),
        attribute(_REVISION, bytes((revision,))),
        attribute(_FAMILY, bytes((family,))),
        nested(_DATA),
    )
    netlink = open_netlink(NETLINK_NETFILTER)
    try:
        for outcome in netlink.execute([Request(_CREATE, 0, body)], lambda _: f"create ipset {name}"):
            if outcome is not None:
                raise outcome
    finally:
        netlink.close()


def _parse_name(message: Message) -> str | None:
    found = parse_attributes(message.payload, len(_HEAD))
    return parse_text(found[_SETNAME]) if _SETNAME in found else None

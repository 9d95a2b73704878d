"""PacketLog: the packets that rules log to one nfnetlink_log group, as they were.

In: a group. Out: the first bytes of each packet from its network header on. Sources: linux/netfilter/nfnetlink_log.h, nft(8) LOG STATEMENT.

A group has one listener at a time. What comes faster than it is read is lost, and so is what was logged before. ``FakePacketLog`` gives
what it was filled with.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Protocol

from tabinet.errors import KernelOverrun
from tabinet.kernel.netlink import (
    NETLINK_NETFILTER,
    NetlinkSocket,
    Request,
    attribute,
    be32,
    open_netlink,
    parse_attributes,
)

_PACKET, _CONFIG = 4 << 8 | 0, 4 << 8 | 1
_PAYLOAD = 9
_COMMAND, _MODE, _THRESHOLD = 1, 2, 5
_BIND, _COPY_PACKET = 1, 2
_COPIED_BYTES = 80
"""An IPv6 header and a TCP header without options, and some."""
_DATAGRAMS_AT_ONCE = 64


class PacketLog(Protocol):
    """What was logged."""

    def fileno(self) -> int:
        """Readable when there is something."""
        ...

    def read(self) -> list[bytes]:
        """Some of the packets that were logged since the last call, in order. Does not wait."""
        ...

    def close(self) -> None: ...


class NflogSocket:
    """One group of the kernel's. Make it with ``open_packet_log``."""

    __slots__ = ("_netlink",)

    def __init__(self, netlink: NetlinkSocket) -> None:
        self._netlink = netlink

    def fileno(self) -> int:
        """Readable when there is something."""
        return self._netlink.fileno()

    def read(self) -> list[bytes]:
        """Some of the packets that were logged since the last call, in order. Does not wait.

        Raises:
            KernelError: what the socket reports; lost packets are no error.
        """
        found: list[bytes] = []
        for _ in range(_DATAGRAMS_AT_ONCE):
            try:
                messages = self._netlink.poll("read logged packets")
            except KernelOverrun:
                continue
            if not messages:
                break
            logged = (parse_attributes(message.payload, 4) for message in messages if message.type == _PACKET)
            found += [attributes.get(_PAYLOAD, b"") for attributes in logged]
        return found

    def close(self) -> None:
        """Nobody listens to the group."""
        self._netlink.close()


def open_packet_log(group: int, *, timeout_s: float = 10.0) -> NflogSocket:
    """The listener of the group in the network namespace of the calling thread.

    Raises:
        KernelError: EBUSY when somebody else listens to it.
    """
    netlink = open_netlink(NETLINK_NETFILTER, timeout_s=timeout_s)
    header = struct.pack(">BBH", 0, 0, group)
    attributes = (
        attribute(_COMMAND, struct.pack("B", _BIND)),
        attribute(_MODE, struct.pack(">IBx", _COPIED_BYTES, _COPY_PACKET)) + attribute(_THRESHOLD, be32(1)),
    )
    for each in attributes:
        (outcome,) = netlink.execute([Request(_CONFIG, 0, header + each)], lambda _: f"listen to log group {group}")
        if outcome is not None:
            netlink.close()
            raise outcome
    return NflogSocket(netlink)


@dataclass(slots=True)
class FakePacketLog:
    """Packets that a test logs."""

    packets: list[bytes] = field(default_factory=list)

    def fileno(self) -> int:
        """Never readable: for tests that call ``read``."""
        return -1

    def read(self) -> list[bytes]:
        """All that was logged since the last call."""
        found, self.packets = self.packets, []
        return found

    def close(self) -> None:
        """Nothing to do."""

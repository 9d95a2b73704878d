"""RtSocket: executes and reads through rtnetlink; RtEventSocket: hears what happens.

Both stay in the network namespace of the thread that opened them. Costs: an operation takes some microseconds, a bulk of routes goes
at more than a hundred thousand a second; dumps are linear in what the kernel selects: routes are filtered by table and protocol in the
kernel, so that reading ours costs little on a host with a full table.
Sources: rtnetlink(7), netlink(7), Documentation/networking/filter.rst.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Sequence

from tabinet.errors import KernelError, KernelOverrun
from tabinet.kernel import rtcodec, tunnelcodec
from tabinet.kernel.netlink import NETLINK_ROUTE, NetlinkSocket, open_netlink
from tabinet.kernel.rtnetlink import (
    MAIN_TABLE,
    Event,
    Forwarding,
    InterfaceAddress,
    InterfaceRule,
    Link,
    Neighbour,
    Overrun,
    PortRule,
    Route,
    RtOp,
    Watch,
    describe,
)

_CHUNK = 1000
"""Operations in one send: each answer waits in the receive buffer until the last one is executed."""

_GROUPS = {  # RTNLGRP_*
    Watch.LINKS: (1,),
    Watch.ADDRESSES: (5, 9),
    Watch.ROUTES: (7, 11),
    Watch.NEIGHBOURS: (3,),
}


class RtSocket:
    """The kernel behind the ``Rtnetlink`` protocol. Make it with ``open_rtnetlink``."""

    __slots__ = ("_netlink",)

    def __init__(self, netlink: NetlinkSocket) -> None:
        self._netlink = netlink

    @property
    def port(self) -> int:
        return self._netlink.port

    def close(self) -> None:
        self._netlink.close()

    def execute(self, operations: Sequence[RtOp]) -> list[KernelError | None]:
        """See ``Rtnetlink.execute``.

        Raises:
            KernelError: no outcome is known.
            ValueError: a MAC address does not parse; nothing of its thousand was sent.
        """
        outcomes: list[KernelError | None] = []
        for start in range(0, len(operations), _CHUNK):
            chunk = operations[start : start + _CHUNK]
            outcomes += self._execute_chunk(chunk)
        return outcomes

    def _execute_chunk(self, chunk: Sequence[RtOp]) -> list[KernelError | None]:
        return self._netlink.execute([rtcodec.render(operation) for operation in chunk], lambda index: describe(chunk[index]))

    def links(self) -> list[Link]:
        """All interfaces of the namespace, by index."""
        return self._netlink.dump(rtcodec.get_links(), rtcodec.parse_link, "read interfaces")

    def link(self, name: str) -> Link | None:
        """See ``Rtnetlink.link``."""
        try:
            return rtcodec.parse_link(self._netlink.get(rtcodec.get_link(name), f"read interface {name}"))
        except KernelError as error:
            if error.errno != errno.ENODEV:
                raise
            return None

    def addresses(self) -> list[InterfaceAddress]:
        """All addresses of both families."""
        return self._netlink.dump(rtcodec.get_addresses(), rtcodec.parse_address, "read addresses")

    def neighbours(self) -> list[Neighbour]:
        """All neighbours of both families."""
        return [
            neighbour
            for family in rtcodec.FAMILIES
            for neighbour in self._netlink.dump(rtcodec.get_neighbours(family), rtcodec.parse_neighbour, "read neighbours")
        ]

    def forwarding(self, index: int) -> list[Forwarding]:
        """The permanent entries of a VXLAN interface; of any other none."""
        request = tunnelcodec.get_forwarding(index)
        return self._netlink.dump(request, tunnelcodec.parse_forwarding, "read forwarding entries")

    def routes(self, *, protocol: int = 0, table: int = MAIN_TABLE) -> list[Route]:
        """The routes of both families with this protocol number (0: any) in this table."""
        found: list[Route] = []
        for family in rtcodec.FAMILIES:
            try:
                found += self._netlink.dump(rtcodec.get_routes(family, protocol, table), rtcodec.parse_route, "read routes")
            except KernelError as error:
                if error.errno != errno.ENOENT:  # a table without routes does not exist
                    raise
        return found

    def interface_rules(self, table: int) -> list[InterfaceRule]:
        """See ``Rtnetlink.interface_rules``."""
        rules = [
            rule
            for family in rtcodec.FAMILIES
            for rule in self._netlink.dump(rtcodec.get_rules(family), rtcodec.parse_interface_rule, "read rules")
        ]
        return [rule for rule in rules if rule.table == table]

    def port_rules(self) -> list[PortRule]:
        """See ``Rtnetlink.port_rules``."""
        return [
            rule
            for family in rtcodec.FAMILIES
            for rule in self._netlink.dump(rtcodec.get_rules(family), rtcodec.parse_port_rule, "read rules")
        ]


def open_rtnetlink(*, timeout_s: float = 10.0) -> RtSocket:
    """A socket in the network namespace of the calling thread. ``timeout_s`` bounds the wait for each answer.

    Raises:
        KernelError: it cannot be opened.
    """
    return RtSocket(open_netlink(NETLINK_ROUTE, timeout_s=timeout_s))


class RtEventSocket:
    """The kernel behind the ``RtEvents`` protocol. Make it with ``open_events``."""

    __slots__ = ("_netlink",)

    def __init__(self, netlink: NetlinkSocket) -> None:
        self._netlink = netlink

    def fileno(self) -> int:
        return self._netlink.fileno()

    def close(self) -> None:
        self._netlink.close()

    def read(self) -> list[Event]:
        """Everything that waits, oldest first; ``Overrun`` where events were lost.

        Raises:
            KernelError: the socket is broken.
        """
        events: list[Event] = []
        while True:
            try:
                messages = self._netlink.poll("read events")
            except KernelOverrun:
                events.append(Overrun())
                continue
            if not messages:
                return events
            events += [event for message in messages if (event := rtcodec.parse_event(message)) is not None]


def open_events(watch: Watch, *, route_protocols: Sequence[int] = ()) -> RtEventSocket:
    """Hears about what is watched, in the network namespace of the calling thread, from now on.

    With ``route_protocols`` the kernel drops the news of all other routes, so that a full table that churns costs us nothing.

    Raises:
        KernelError: it cannot be opened.
    """
    groups = [group for kind, numbers in _GROUPS.items() if kind in watch for group in numbers]
    netlink = open_netlink(NETLINK_ROUTE, groups=groups, packet_filter=_only_routes_of(route_protocols) if route_protocols else b"")
    return RtEventSocket(netlink)


def _only_routes_of(protocols: Sequence[int]) -> bytes:
    """A classic BPF program (struct sock_filter[]): everything but NEWROUTE and DELROUTE of other protocols passes.

    Loads are in network order, netlink headers in host order, so the message types are compared swapped.
    """
    load_half, load_byte, jump_equal, give = 0x28, 0x30, 0x15, 0x06
    new, gone = socket.htons(rtcodec.NEWROUTE), socket.htons(rtcodec.DELROUTE)
    count = len(protocols)
    program = (
        (load_half, 0, 0, 4),  # nlmsg_type
        (jump_equal, 1, 0, new),
        (jump_equal, 0, 1 + count, gone),
        (load_byte, 0, 0, 16 + 5),  # rtm_protocol
        *((jump_equal, count - 1 - at, 1 if at == count - 1 else 0, protocol) for at, protocol in enumerate(protocols)),
        (give, 0, 0, 0xFFFFFFFF),
        (give, 0, 0, 0),
    )
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)

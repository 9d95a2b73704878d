"""CtSocket: reads and changes the kernel's connection tracking through ctnetlink.

Sources: linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_conntrack_netlink.c, conntrack(8)'s own traffic.

What holds: a mark is changed under a mask, so bits of others stay. Flows are named by the kernel's own bytes of their tuple and zone.
A flow that ended meanwhile is no error. Cost: linear in the flows for a reading, in what is changed for the changes.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence

from tabinet.kernel.conntrack import TcpFlow
from tabinet.kernel.flowcodec import Flow, parse_flow, render_name, render_question, render_reply_question, renderable
from tabinet.kernel.netlink import (
    NETLINK_NETFILTER,
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    NetlinkSocket,
    Request,
    attribute,
    be32,
    nested,
    open_netlink,
    read_attributes,
)
from tabinet.lib.ip import IPV4, Prefix

_NEW, _GET, _DELETE = 1 << 8 | 0, 1 << 8 | 1, 1 << 8 | 2
_TUPLE_ORIGINAL, _TUPLE_REPLY, _STATUS, _PROTOCOL_INFO, _TIMEOUT, _MARK, _ZONE, _MARK_MASK = 1, 2, 3, 4, 7, 8, 18, 21
_NESTED = 0x8000
_ASSURED_AND_SEEN = 0x2 | 0x4 | 0x8  # IPS_SEEN_REPLY, IPS_ASSURED, IPS_CONFIRMED
_TCP_ESTABLISHED = 3
_LIBERAL = 0x08  # IP_CT_TCP_FLAG_BE_LIBERAL: nobody knows the windows
_TIMEOUT_S = 432_000  # as the kernel has it for established connections (nf_conntrack_tcp_timeout_established)
_AT_ONCE = 500
"""Changes in one datagram: 500 errors, each with its request, fit into the receive buffer many times."""


class CtSocket:
    """The kernel behind the ``Conntrack`` protocol. Make it with ``open_conntrack``."""

    __slots__ = ("_netlink",)

    def __init__(self, netlink: NetlinkSocket) -> None:
        self._netlink = netlink

    def close(self) -> None:
        """The socket is closed."""
        self._netlink.close()

    def clear_marks(self, mask: int, keep: int) -> int:
        """In the mark of every flow the bits of ``mask`` are 0, unless they were ``keep``; gives how many were changed. O(flows).

        Raises:
            KernelError: not all could be looked at; some may be changed.
        """

        def stale(message: Message) -> Request | None:
            found, name = 0, b""
            for kind, content in read_attributes(message.payload, 4):
                if kind == _MARK:
                    found = int.from_bytes(content, "big")
                elif kind == _TUPLE_ORIGINAL:
                    name += attribute(kind | _NESTED, content)
                elif kind == _ZONE:
                    name += attribute(kind, content)
            if found & mask in (0, keep):
                return None
            return Request(_NEW, 0, message.payload[:4] + name + attribute(_MARK, be32(0)) + attribute(_MARK_MASK, be32(mask)))

        # While it is read all the time flows come and go: what came is marked by those who judge now.
        pages = self._netlink.browse(Request(_GET, 0, struct.pack(">BBH", 0, 0, 0)), stale, "read flows")
        requests = [request for page in pages for request in page]
        changed = 0
        for start in range(0, len(requests), _AT_ONCE):
            for outcome in self._netlink.execute(requests[start : start + _AT_ONCE], lambda _: "clear the mark of a flow"):
                if outcome is None:
                    changed += 1
                elif outcome.errno != errno.ENOENT:
                    raise outcome
        return changed

    def add_tcp(self, flow: TcpFlow, mark: int = 0) -> bool:
        """The flow is known as established, with this mark and any window; False: one with these ends was known already. O(1).

        Raises:
            KernelError: it could not be added.
        """
        flags = struct.pack("BB", _LIBERAL, _LIBERAL)
        tcp = nested(1, attribute(1, bytes((_TCP_ESTABLISHED,))), attribute(4, flags), attribute(5, flags))
        body = _tuple(_TUPLE_ORIGINAL, flow) + _tuple(_TUPLE_REPLY, flow.reversed()) + attribute(_STATUS, be32(_ASSURED_AND_SEEN))
        body += attribute(_TIMEOUT, be32(_TIMEOUT_S)) + attribute(_MARK, be32(mark)) + nested(_PROTOCOL_INFO, tcp)
        header = struct.pack(">BBH", 2 if flow.source.family == IPV4 else 10, 0, 0)
        (outcome,) = self._netlink.execute([Request(_NEW, NLM_F_CREATE | NLM_F_EXCL, header + body)], lambda _: f"add the flow {flow}")
        if outcome is not None and outcome.errno != errno.EEXIST:
            raise outcome
        return outcome is None

    def flows_of(self, address: Prefix) -> list[Flow]:
        """See ``Conntrack.flows_of``. O(all flows) in the kernel, O(found) here."""
        questions = [render_question(address), render_reply_question(address)]
        found: dict[bytes, Flow] = {}
        for question in questions:
            pages = self._netlink.browse(Request(_GET, 0, question), lambda message: parse_flow(message.payload), "read flows")
            found |= {flow.original: flow for page in pages for flow in page}
        return list(found.values())

    def add_flows(self, flows: Sequence[Flow]) -> int:
        """See ``Conntrack.add_flows``."""
        requests = [Request(_NEW, NLM_F_CREATE | NLM_F_EXCL, body) for _, body in renderable(flows)]
        added = 0
        for start in range(0, len(requests), _AT_ONCE):
            outcomes = self._netlink.execute(requests[start : start + _AT_ONCE], lambda _: "add a flow")
            added += sum(outcome is None for outcome in outcomes)
        return added

    def remove_flows(self, flows: Sequence[Flow]) -> int:
        """See ``Conntrack.remove_flows``."""
        names = [name for flow in flows if (name := render_name(flow)) is not None]
        removed = 0
        for start in range(0, len(names), _AT_ONCE):
            requests = [Request(_DELETE, 0, name) for name in names[start : start + _AT_ONCE]]
            removed += sum(outcome is None for outcome in self._netlink.execute(requests, lambda _: "remove a flow"))
        return removed


def _tuple(kind: int, flow: TcpFlow) -> bytes:
    first = 1 if flow.source.family == IPV4 else 3  # CTA_IP_V4_SRC, CTA_IP_V6_SRC
    ports = attribute(2, struct.pack(">H", flow.source_port)) + attribute(3, struct.pack(">H", flow.destination_port))
    addresses = attribute(first, flow.source.packed) + attribute(first + 1, flow.destination.packed)
    return nested(kind, nested(1, addresses), nested(2, attribute(1, b"\x06"), ports))


def open_conntrack(*, timeout_s: float = 30.0) -> CtSocket:
    """A socket for the connection tracking of the calling thread's network namespace.

    Raises:
        KernelError: the kernel has no nfnetlink.
    """
    return CtSocket(open_netlink(NETLINK_NETFILTER, timeout_s=timeout_s))

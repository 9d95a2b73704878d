"""TcSocket: traffic control over rtnetlink.

Stays in the network namespace of the thread that opened it. An operation costs one or two messages; ``read`` dumps links and queueing
disciplines once, and the filters of interfaces with an intermediate device. Sources: linux/rtnetlink.h, linux/pkt_sched.h, linux/pkt_cls.h,
linux/tc_act/tc_mirred.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Sequence

import msgspec

from tabinet.errors import KernelError
from tabinet.kernel.netlink import (
    NETLINK_ROUTE,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    NetlinkSocket,
    Request,
    attribute,
    nested,
    open_netlink,
    parse_attributes,
    parse_text,
    text,
    u32,
)
from tabinet.kernel.tc import (
    DEVICE_PREFIX,
    HANDLE,
    PREFERENCE,
    AddDevice,
    BucketState,
    DeleteBucket,
    DeleteDevice,
    DeleteRedirect,
    SetBucket,
    SetRedirect,
    TcOp,
    TcState,
    TokenBucket,
    describe,
)

_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWQDISC, _DELQDISC, _GETQDISC = 36, 37, 38
_NEWFILTER, _DELFILTER, _GETFILTER = 44, 45, 46
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_INFO_KIND = 3, 18, 1
_TCA_KIND, _TCA_OPTIONS = 1, 2
_ROOT, _CLSACT, _INGRESS = 0xFFFFFFFF, 0xFFFFFFF1, 0xFFFFFFF2
_CLSACT_HANDLE = 0xFFFF0000
_TBF_PARMS, _TBF_RATE64, _TBF_PRATE64, _TBF_BURST, _TBF_PBURST = 1, 4, 5, 6, 7
_ETHERNET = 1  # TC_LINKLAYER_ETHERNET: no rate table is needed
_U32_SEL, _U32_ACT, _U32_TERMINAL = 5, 7, 1
_ACT_KIND, _ACT_OPTIONS, _MIRRED_PARMS = 1, 2, 2
_STOLEN, _REDIRECT_EGRESS = 4, 1
_ALL_PROTOCOLS = socket.htons(3)  # ETH_P_ALL
_MOST32 = 0xFFFFFFFF

_IFINFO = struct.Struct("=BxHiII")  # family, type, index, flags, change
_TCMSG = struct.Struct("=BxxxiIII")  # family, index, handle, parent, info
_RATE = struct.Struct("=BBHhHI")  # cell log, link layer, overhead, cell alignment, smallest packet, rate
_SELECT_ALL = struct.pack("=BBBxHHhhIIIii", _U32_TERMINAL, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)  # one key with an empty mask
_MIRRED = struct.Struct("=IIiiiiI")  # index, capabilities, action, references, bindings, what, interface


def _tcmsg(index: int, handle: int, parent: int, info: int = 0) -> bytes:
    return _TCMSG.pack(0, index, handle, parent, info)


def _rate(rate: int) -> bytes:
    return _RATE.pack(0, _ETHERNET if rate else 0, 0, 0, 0, min(rate, _MOST32))


def _bucket(bucket: TokenBucket) -> bytes:
    parameters = _rate(bucket.rate) + _rate(bucket.peak_rate) + struct.pack("=III", min(bucket.limit, _MOST32), 0, 0)
    parts = [attribute(_TBF_PARMS, parameters), attribute(_TBF_BURST, u32(bucket.burst))]
    if bucket.rate > _MOST32:
        parts.append(attribute(_TBF_RATE64, struct.pack("=Q", bucket.rate)))
    if bucket.peak_rate:
        parts.append(attribute(_TBF_PBURST, u32(bucket.peak_burst)))
        if bucket.peak_rate > _MOST32:
            parts.append(attribute(_TBF_PRATE64, struct.pack("=Q", bucket.peak_rate)))
    return attribute(_TCA_KIND, text("tbf")) + nested(_TCA_OPTIONS, *parts)


def _redirect(index: int) -> bytes:
    mirred = _MIRRED.pack(0, 0, _STOLEN, 0, 0, _REDIRECT_EGRESS, index)
    action = nested(1, attribute(_ACT_KIND, text("mirred")), nested(_ACT_OPTIONS, attribute(_MIRRED_PARMS, mirred)))
    return attribute(_TCA_KIND, text("u32")) + nested(_TCA_OPTIONS, attribute(_U32_SEL, _SELECT_ALL), nested(_U32_ACT, action))


class _Qdisc(msgspec.Struct, frozen=True, gc=False):
    index: int
    handle: int
    parent: int
    options: bytes


class TcSocket:
    """Implements ``TrafficControl``. Make it with ``open_traffic_control``."""

    __slots__ = ("_netlink",)

    def __init__(self, netlink: NetlinkSocket) -> None:
        self._netlink = netlink

    def close(self) -> None:
        self._netlink.close()

    # --- doing

    def execute(self, operations: Sequence[TcOp]) -> list[KernelError | None]:
        """As ``TrafficControl.execute``."""
        shaped: set[int] = set()
        if any(isinstance(operation, SetBucket | DeleteBucket) for operation in operations):
            shaped = {item.index for item in self._qdiscs() if item.parent == _ROOT and item.handle == HANDLE}
        return [self._execute(operation, shaped) for operation in operations]

    def _execute(self, operation: TcOp, shaped: set[int]) -> KernelError | None:
        """Tries one; one request after the other, since the later ones need what the earlier ones made. Keeps ``shaped`` right."""
        try:
            requests = self._requests(operation, shaped)
        except KernelError as error:
            return error
        for request, tolerated in requests:
            outcome = self._netlink.execute([request], lambda _: describe(operation))[0]
            if outcome is not None and outcome.errno not in tolerated:
                return outcome
        if isinstance(operation, SetBucket):
            shaped.add(_TCMSG.unpack_from(requests[0][0].payload)[1])
        return None

    def _requests(self, operation: TcOp, shaped: set[int]) -> list[tuple[Request, frozenset[int]]]:
        """The requests, each with the errors that do not matter. ``shaped``: interfaces with a bucket of ours."""
        none: frozenset[int] = frozenset()
        words = describe(operation)
        match operation:
            case AddDevice(name):
                body = _IFINFO.pack(0, 0, 0, 1, 1) + attribute(_IFLA_IFNAME, text(name))
                body += nested(_IFLA_LINKINFO, attribute(_IFLA_INFO_KIND, text("ifb")))
                return [(Request(_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body), none)]
            case DeleteDevice(name):
                return [(Request(_DELLINK, 0, _IFINFO.pack(0, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, text(name))), none)]
            case SetBucket(interface, bucket):
                index = self._index(interface, words)
                flags = NLM_F_CREATE | (NLM_F_REPLACE if index in shaped else NLM_F_EXCL)
                return [(Request(_NEWQDISC, flags, _tcmsg(index, HANDLE, _ROOT) + _bucket(bucket)), none)]
            case DeleteBucket(interface):
                index = self._index(interface, words)
                if index not in shaped:
                    raise KernelError(errno.ENOENT, words)
                shaped.discard(index)
                return [(Request(_DELQDISC, 0, _tcmsg(index, HANDLE, _ROOT) + attribute(_TCA_KIND, text("tbf"))), none)]
            case SetRedirect(interface, device):
                index, target = self._index(interface, words), self._index(device, words)
                clsact = _tcmsg(index, _CLSACT_HANDLE, _CLSACT) + attribute(_TCA_KIND, text("clsact"))
                place = _tcmsg(index, 0, _INGRESS, PREFERENCE << 16 | _ALL_PROTOCOLS)
                return [
                    (Request(_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, clsact), frozenset({errno.EEXIST})),
                    (Request(_DELFILTER, 0, place), frozenset({errno.ENOENT, errno.EINVAL})),
                    (Request(_NEWFILTER, NLM_F_CREATE | NLM_F_EXCL, place + _redirect(target)), none),
                ]
            case DeleteRedirect(interface):
                place = _tcmsg(self._index(interface, words), 0, _INGRESS, PREFERENCE << 16 | _ALL_PROTOCOLS)
                return [(Request(_DELFILTER, 0, place), none)]
            case _:
                raise TypeError(f"not an operation of traffic control: {operation!r}")

    def _index(self, name: str, words: str) -> int:
        reply = self._netlink.get(Request(_GETLINK, 0, _IFINFO.pack(0, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, text(name))), words)
        return int(_IFINFO.unpack_from(reply.payload)[2])

    # --- reading

    def read(self) -> TcState:
        """As ``TrafficControl.read``."""
        links = dict(self._netlink.dump(Request(_GETLINK, 0, _IFINFO.pack(0, 0, 0, 0, 0)), _parse_link, "read interfaces"))
        kinds = dict(links.values())
        names = {index: name for index, (name, _) in links.items()}
        devices = frozenset(name for name, kind in kinds.items() if kind == "ifb" and name.startswith(DEVICE_PREFIX))
        buckets: dict[str, BucketState] = {}
        redirects: dict[str, str] = {}
        for item in self._qdiscs():
            name = names.get(item.index)
            if name is None:
                continue
            if item.parent == _ROOT and item.handle == HANDLE:
                buckets[name] = _parse_bucket(item.options)
            elif item.parent == _CLSACT:
                target = self._redirect_target(item.index)
                if target:
                    redirects[name] = names.get(target, "")
        return TcState(buckets, redirects, devices)

    def _qdiscs(self) -> list[_Qdisc]:
        return self._netlink.dump(Request(_GETQDISC, 0, _tcmsg(0, 0, 0)), _parse_qdisc, "read queueing disciplines")

    def _redirect_target(self, index: int) -> int:
        """The interface that our filter redirects to; 0 without one."""
        request = Request(_GETFILTER, 0, _tcmsg(index, 0, _INGRESS))
        targets = self._netlink.dump(request, _parse_redirect, f"read filters of interface {index}")
        return targets[0] if targets else 0


def _parse_link(message: Message) -> tuple[int, tuple[str, str]] | None:
    if message.type != _NEWLINK:
        return None
    attributes = parse_attributes(message.payload, _IFINFO.size)
    kind = parse_attributes(attributes.get(_IFLA_LINKINFO, b"")).get(_IFLA_INFO_KIND, b"")
    return _IFINFO.unpack_from(message.payload)[2], (parse_text(attributes.get(_IFLA_IFNAME, b"")), parse_text(kind))


def _parse_qdisc(message: Message) -> _Qdisc | None:
    if message.type != _NEWQDISC:
        return None
    _, index, handle, parent, _ = _TCMSG.unpack_from(message.payload)
    return _Qdisc(index, handle, parent, parse_attributes(message.payload, _TCMSG.size).get(_TCA_OPTIONS, b""))


def _parse_bucket(options: bytes) -> BucketState:
    attributes = parse_attributes(options)
    data = attributes.get(_TBF_PARMS, b"")
    if len(data) < 2 * _RATE.size + 12:
        raise KernelError(errno.EBADMSG, "parse token bucket")
    rate, peak = _RATE.unpack_from(data)[5], _RATE.unpack_from(data, _RATE.size)[5]
    limit, burst, peak_burst = struct.unpack_from("=III", data, 2 * _RATE.size)
    if _TBF_RATE64 in attributes:
        rate = struct.unpack("=Q", attributes[_TBF_RATE64])[0]
    if _TBF_PRATE64 in attributes:
        peak = struct.unpack("=Q", attributes[_TBF_PRATE64])[0]
    return BucketState(rate, limit, peak, burst, peak_burst)


def _parse_redirect(message: Message) -> int | None:
    if message.type != _NEWFILTER or _TCMSG.unpack_from(message.payload)[4] >> 16 != PREFERENCE:
        return None
    options = parse_attributes(parse_attributes(message.payload, _TCMSG.size).get(_TCA_OPTIONS, b""))
    for action in parse_attributes(options.get(_U32_ACT, b"")).values():
        parameters = parse_attributes(parse_attributes(action).get(_ACT_OPTIONS, b"")).get(_MIRRED_PARMS, b"")
        if len(parameters) >= _MIRRED.size:
            return int(_MIRRED.unpack_from(parameters)[6])
    return None


def open_traffic_control(*, timeout_s: float = 10.0) -> TcSocket:
    """Traffic control of the calling thread's network namespace.

    Raises:
        KernelError: no netlink socket.
    """
    return TcSocket(open_netlink(NETLINK_ROUTE, timeout_s=timeout_s))

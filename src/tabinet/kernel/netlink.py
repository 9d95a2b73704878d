"""Netlink: attributes, messages, and one socket that asks and hears.

In: attributes and requests as bytes. Out: replies as ``Message`` records, errors as ``KernelError`` with the kernel's own words.
Sources: netlink(7), linux/netlink.h, Documentation/userspace-api/netlink/intro.rst.

What holds: every receive has a deadline; a reply that is not the answer to the last request is skipped (it is the late answer
to one that timed out); a dump that the kernel marks as interrupted is read again; lost messages are a ``KernelOverrun``, never
silence. Not thread-safe: one thread owns a socket. The socket stays in the network namespace that its thread was in when it was opened.

Costs are linear in the bytes that cross. It knows no family: ``rtnetlink`` and ``nftsocket`` build on it.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec

from tabinet.errors import KernelError, KernelOverrun

NLM_F_REQUEST = 0x001
NLM_F_ACK = 0x004
NLM_F_DUMP_INTR = 0x010
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_DUMP = 0x300
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSG_OVERRUN = 4

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

ATTRIBUTE_LIMIT_BYTES = 0xFFFF
"""Most bytes of an attribute, its header of 4 included: the length field has 16 bits."""

_NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF
_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_NETLINK_ADD_MEMBERSHIP = 1
_SO_ATTACH_FILTER = 26
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_BUFFER_BYTES = 64 << 20
_RECEIVE_BYTES = 1 << 20
_DUMP_ATTEMPTS = 10
_NLM_F_CAPPED = 0x100
_NLM_F_ACK_TLVS = 0x200
_NLMSGERR_ATTR_MSG = 1

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_PAD = (b"", b"\0\0\0", b"\0\0", b"\0")

T = TypeVar("T")


class Message(msgspec.Struct, frozen=True, gc=False):
    """One netlink message without its header."""

    type: int
    flags: int
    sequence: int
    sender: int
    """Port of the socket whose request caused it; 0 when the kernel acted by itself."""
    payload: bytes


class Request(msgspec.Struct, frozen=True, gc=False):
    """A message to be sent; the socket adds length, sequence number and NLM_F_REQUEST."""

    type: int
    flags: int
    payload: bytes


# --- attributes -----------------------------------------------------------------------------------------------------


def attribute(kind: int, data: bytes) -> bytes:
    """The attribute, padded to 4 bytes. ``data`` holds at most 65,531 bytes (``struct.error`` beyond: our bug)."""
    size = len(data)
    return _ATTRIBUTE.pack(size + 4, kind) + data + _PAD[size & 3]


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | _NLA_F_NESTED, b"".join(attributes))


def text(value: str) -> bytes:
    """A NUL-terminated string, as NLA_NUL_STRING wants it."""
    return value.encode() + b"\0"


def parse_text(data: bytes) -> str:
    """The string before the first NUL; bytes that are not UTF-8 are kept by surrogate escapes."""
    return data.split(b"\0", 1)[0].decode(errors="surrogateescape")


def u32(value: int) -> bytes:
    """32 bits in host byte order (rtnetlink)."""
    return struct.pack("=I", value)


def be32(value: int) -> bytes:
    """32 bits in network byte order (nfnetlink)."""
    return struct.pack(">I", value & 0xFFFFFFFF)


def be64(value: int) -> bytes:
    """64 bits in network byte order (nfnetlink)."""
    return struct.pack(">Q", value)


def read_attributes(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Each attribute in ``data`` from ``offset`` as (type without flags, content), in order.

    Raises:
        KernelError: EBADMSG when a length does not fit.
    """
    end = len(data)
    while offset + 4 <= end:
        size, kind = _ATTRIBUTE.unpack_from(data, offset)
        if size < 4 or offset + size > end:
            raise KernelError(errno.EBADMSG, f"parse netlink attribute at byte {offset} of {end}")
        yield kind & _NLA_TYPE_MASK, data[offset + 4 : offset + size]
        offset += (size + 3) & ~3


def parse_attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes in ``data`` by type; of several with one type the last.

    Raises:
        KernelError: EBADMSG when a length does not fit.
    """
    return dict(read_attributes(data, offset))


def parse_messages(data: bytes) -> Iterator[Message]:
    """Each message of one datagram.

    Raises:
        KernelError: EBADMSG when a length does not fit.
    """
    offset, end = 0, len(data)
    while offset + 16 <= end:
        size, kind, flags, sequence, sender = _HEADER.unpack_from(data, offset)
        if size < 16 or offset + size > end:
            raise KernelError(errno.EBADMSG, f"parse netlink message at byte {offset} of {end}")
        yield Message(kind, flags, sequence, sender, data[offset + 16 : offset + size])
        offset += (size + 3) & ~3


def parse_error(message: Message) -> tuple[int, str]:
    """(errno, the kernel's explanation) of an NLMSG_ERROR; errno 0 is an acknowledgement.

    Raises:
        KernelError: EBADMSG when the message is too short.
    """
    payload = message.payload
    if len(payload) < 20:
        raise KernelError(errno.EBADMSG, "parse netlink error message")
    code = -struct.unpack_from("=i", payload)[0]
    if not message.flags & _NLM_F_ACK_TLVS:
        return code, ""
    request_bytes = 16 if message.flags & _NLM_F_CAPPED else (struct.unpack_from("=I", payload, 4)[0] + 3) & ~3
    explanation = parse_attributes(payload, 4 + request_bytes).get(_NLMSGERR_ATTR_MSG, b"")
    return code, parse_text(explanation)


# --- socket ---------------------------------------------------------------------------------------------------------


class NetlinkSocket:
    """One netlink socket that sends requests and reads their answers. Make it with ``open_netlink``."""

    __slots__ = ("_sequence", "_socket", "_timeout_s", "port")

    def __init__(self, sock: socket.socket, timeout_s: float) -> None:
        self._socket = sock
        self._timeout_s = timeout_s
        self._sequence = int(time.monotonic()) & 0xFFFFFF
        self.port: int = sock.getsockname()[0]
        """Our address: notifications about what we did carry it as ``Message.sender``."""

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, requests: Sequence[Request]) -> range:
        """All requests are with the kernel, as one datagram; gives their sequence numbers in order.

        Raises:
            KernelError: EMSGSIZE when they are larger than the send buffer.
        """
        first = self._sequence + 1 if self._sequence < 0x7FFF0000 else 1
        parts = [
            _HEADER.pack(16 + len(request.payload), request.type, request.flags | NLM_F_REQUEST, sequence, 0) + request.payload
            for sequence, request in enumerate(requests, first)
        ]
        self._sequence = first + len(parts) - 1
        try:
            self._socket.send(b"".join(parts))
        except OSError as error:
            raise KernelError(error.errno or errno.EIO, f"send {len(parts)} netlink messages") from error
        return range(first, first + len(parts))

    def receive(self, operation: str, deadline: float) -> list[Message]:
        """The messages of the next datagram.

        Raises:
            KernelOverrun: messages were lost.
            KernelError: ETIMEDOUT at ``deadline`` (``time.monotonic()``), or what the socket reports.
        """
        self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except TimeoutError as error:
            raise KernelError(errno.ETIMEDOUT, operation) from error
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                raise KernelOverrun(operation) from error
            raise KernelError(error.errno or errno.EIO, operation) from error
        return list(parse_messages(data))

    def poll(self, operation: str) -> list[Message]:
        """The messages of a datagram that waits; empty when none does.

        Raises:
            KernelOverrun: messages were lost.
            KernelError: what the socket reports.
        """
        self._socket.setblocking(False)
        try:
            return list(parse_messages(self._socket.recv(_RECEIVE_BYTES)))
        except BlockingIOError:
            return []
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                raise KernelOverrun(operation) from error
            raise KernelError(error.errno or errno.EIO, operation) from error

    def execute(self, requests: Sequence[Request], describe: Callable[[int], str]) -> list[KernelError | None]:
        """Each request was executed, in order, whatever became of those before it; gives the outcome of each.

        Only the last one asks for an acknowledgement: errors are always sent. ``describe(i)`` names request ``i`` for its error.

        Raises:
            KernelError: when no outcome is known (timeout, overrun, nothing could be sent).
        """
        if not requests:
            return []
        last = requests[-1]
        numbers = self.send([*requests[:-1], Request(last.type, last.flags | NLM_F_ACK, last.payload)])
        outcomes: list[KernelError | None] = [None] * len(requests)
        deadline = time.monotonic() + self._timeout_s
        waiting = True
        while waiting:
            for message in self.receive(describe(len(requests) - 1), deadline):
                if message.type != NLMSG_ERROR or message.sequence not in numbers:
                    continue
                index = message.sequence - numbers.start
                code, explanation = parse_error(message)
                if code:
                    outcomes[index] = KernelError(code, describe(index), explanation)
                waiting = waiting and index != len(requests) - 1
        return outcomes

    def get(self, request: Request, operation: str) -> Message:
        """The single answer to a request that is not a dump.

        Raises:
            KernelError: the kernel's refusal, or ETIMEDOUT.
        """
        numbers = self.send([request])
        deadline = time.monotonic() + self._timeout_s
        while True:
            for message in self.receive(operation, deadline):
                if message.sequence not in numbers:
                    continue
                if message.type == NLMSG_ERROR:
                    code, explanation = parse_error(message)
                    raise KernelError(code or errno.EBADMSG, operation, explanation)
                return message

    def dump(self, request: Request, parse: Callable[[Message], T | None], operation: str) -> list[T]:
        """All objects that the request asks for, each through ``parse`` (None leaves it out), as one consistent reading.

        Raises:
            KernelError: the kernel's refusal; EINTR when the objects changed during each of several attempts.
        """
        for _ in range(_DUMP_ATTEMPTS):
            found = self._dump_once(request, parse, operation)
            if found is not None:
                return found
        raise KernelError(errno.EINTR, operation)

    def _dump_once(self, request: Request, parse: Callable[[Message], T | None], operation: str) -> list[T] | None:
        """One reading, or None when something changed meanwhile (NLM_F_DUMP_INTR)."""
        numbers = self.send([Request(request.type, request.flags | NLM_F_DUMP, request.payload)])
        deadline = time.monotonic() + self._timeout_s
        found: list[T] = []
        consistent = True
        while True:
            for message in self.receive(operation, deadline):
                if message.sequence not in numbers:
                    continue
                consistent = consistent and not message.flags & NLM_F_DUMP_INTR
                if message.type == NLMSG_DONE:
                    self._check_done(message, operation)
                    return found if consistent else None
                if message.type == NLMSG_ERROR:
                    code, explanation = parse_error(message)
                    if code == errno.EINTR:
                        return None
                    raise KernelError(code or errno.EBADMSG, operation, explanation)
                item = parse(message)
                if item is not None:
                    found.append(item)

    def browse(self, request: Request, parse: Callable[[Message], T | None], operation: str) -> Iterator[list[T]]:
        """The objects that the request asks for, a datagram's worth (up to 32 KiB) each time, through ``parse`` (None leaves it out).

        Between two pages anything may change: what was found need not have existed at one moment, and each page may be as old as the
        one before. Only one at a time on a socket, and no ``dump`` meanwhile.

        Raises:
            KernelError: the kernel's refusal, or ETIMEDOUT.
        """
        numbers = self.send([Request(request.type, request.flags | NLM_F_DUMP, request.payload)])
        while True:
            page: list[T] = []
            done = False
            for message in self.receive(operation, time.monotonic() + self._timeout_s):
                if message.sequence not in numbers:
                    continue
                if message.type == NLMSG_ERROR:
                    code, explanation = parse_error(message)
                    raise KernelError(code or errno.EBADMSG, operation, explanation)
                if message.type == NLMSG_DONE:
                    self._check_done(message, operation)
                    done = True
                    continue
                item = parse(message)
                if item is not None:
                    page.append(item)
            yield page
            if done:
                return

    @staticmethod
    def _check_done(message: Message, operation: str) -> None:
        """NLMSG_DONE carries 0, or the error that ended the dump."""
        if len(message.payload) >= 4:
            code = -struct.unpack_from("=i", message.payload)[0]
            if code > 0:
                raise KernelError(code, operation)


def open_netlink(protocol: int, *, groups: Sequence[int] = (), packet_filter: bytes = b"", timeout_s: float = 10.0) -> NetlinkSocket:
    """A bound socket with large buffers, in the network namespace of the calling thread, member of the multicast ``groups``.

    ``packet_filter`` is an array of struct sock_filter that says what arrives at all (socket(7), SO_ATTACH_FILTER). ``timeout_s`` bounds
    the wait for one answer. The buffers go beyond the system's limit where we may (CAP_NET_ADMIN).

    Raises:
        KernelError: no such protocol or group in this kernel.
    """
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, f"open netlink socket of protocol {protocol}") from error
    try:
        for forced, plain in ((_SO_SNDBUFFORCE, socket.SO_SNDBUF), (_SO_RCVBUFFORCE, socket.SO_RCVBUF)):
            try:
                sock.setsockopt(socket.SOL_SOCKET, forced, _BUFFER_BYTES)
            except PermissionError:
                sock.setsockopt(socket.SOL_SOCKET, plain, _BUFFER_BYTES)
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
            sock.setsockopt(_SOL_NETLINK, option, 1)
        if packet_filter:
            attach_filter(sock, packet_filter)
        sock.bind((0, 0))
        for group in groups:
            sock.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
    except OSError as error:
        sock.close()
        raise KernelError(error.errno or errno.EIO, f"set up netlink socket of protocol {protocol}") from error
    return NetlinkSocket(sock, timeout_s)


def attach_filter(sock: socket.socket, program: bytes) -> None:
    """What arrives at the socket passes the program first."""
    # struct sock_fprog holds a pointer: the buffer has to live until the call is over
    buffer = ctypes.create_string_buffer(program, len(program))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer)))

"""``MetadataProxy``: guests' requests to 169.254.169.254 are passed on to Nova's metadata service, in the name of who asks; guests that are
not Nova's are answered from their endpoint (``instance``).

In: connections that the host's table has translated to the proxy's address. Out: connections to Nova, answers. Who asks is told by the
interface that the connection came by, together with the source address; both have been checked by the table before, and what the request
says of itself does not count. By a trunk's subport the machine of the trunk's parent asks. One request a connection. Bounded:
connections of a guest at a time, bytes, and time; a guest that opens many is refused and nobody else is.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tabinet.errors import PacketError, SetupError
from tabinet.guest.directory import Directory, Port
from tabinet.guest.instance import Instance, look_up
from tabinet.guest.metadata import RequestHead, forwarded_head, parse_head, render_head
from tabinet.lib.ip import parse_address

HEAD_BYTES = 16 << 10
REQUEST_S = 30.0
"""Longest time for a request, Nova's answer included."""
HEAD_S = 5.0
MOST_OF_A_GUEST = 16
"""Connections at a time."""
TOKEN_PATH, TOKEN = "/latest/api/token", "nobody-asks-for-it"
MOST_ANSWER_BYTES = 16 << 20
_CHUNK = 64 << 10
_IP_PKTINFO, _IP_PKTOPTIONS, _IP_FREEBIND = 8, 9, 15
_PKTINFO_AT = 16
"""Behind the header of a control message."""

Note = Callable[[str, Port, str], None]


def open_listener(address: str, port: int) -> socket.socket:
    """A socket that takes connections and remembers which interface each came by.

    Raises:
        SetupError: the address cannot be served at.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        # The address may be one that the agent has yet to add.
        sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        sock.bind((address, port))
        sock.listen(1024)
    except OSError as error:
        sock.close()
        raise SetupError(f"cannot serve metadata at {address}:{port}: {error.strerror}; see metadata_addr and metadata_port") from error
    return sock


def interface_of(connection: socket.socket) -> str:
    """The interface that the first packet of a connection came by; empty when it is gone (ip(7), IP_PKTOPTIONS)."""
    told = connection.getsockopt(socket.IPPROTO_IP, _IP_PKTOPTIONS, 64)
    if len(told) < _PKTINFO_AT + 4:
        return ""
    try:
        return socket.if_indextoname(struct.unpack_from("@i", told, _PKTINFO_AT)[0])
    except OSError:
        return ""


@dataclass(slots=True)
class MetadataProxy:
    """Serves ``listener``."""

    listener: socket.socket
    directory: Directory
    service: str
    """Nova's: ``host:port``; empty: there is none."""
    secret: bytes
    note: Note
    local: bool = False
    """Guests that are not Nova's are answered."""
    counts: Counter[str] = field(default_factory=Counter)
    _open: Counter[str] = field(default_factory=Counter)
    """Connections by interface."""

    async def run(self) -> None:
        """Serves until cancelled."""
        server = await asyncio.start_server(self._on_connection, sock=self.listener, limit=HEAD_BYTES)
        async with server:
            await server.serve_forever()

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock: socket.socket = writer.get_extra_info("socket")
        source: str = writer.get_extra_info("peername")[0]
        interface = interface_of(sock)
        port = self.directory.port(interface)
        try:
            if port is None or parse_address(source) not in port.addresses:
                self.counts["from nobody"] += 1
                return await _refuse(writer, b"404 Not Found")
            if self._open[interface] >= MOST_OF_A_GUEST:
                self.counts["too many"] += 1
                return await _refuse(writer, b"503 Service Unavailable")
            self._open[interface] += 1
            try:
                async with asyncio.timeout(REQUEST_S):
                    await self._serve(port, source, reader, writer)
            finally:
                self._open[interface] -= 1
        except (TimeoutError, ConnectionError):
            self.counts["given up"] += 1
        finally:
            writer.close()

    async def _serve(self, port: Port, source: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(HEAD_S):
                head = parse_head(await reader.readuntil(b"\r\n\r\n"))
                body = await reader.readexactly(head.body_bytes)
        except (PacketError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            self.counts["not HTTP"] += 1
            return await _refuse(writer, b"400 Bad Request")
        if port.local is not None and self.local:
            return await self._answer(port.local, head, writer)
        if not self.service:
            self.counts["from nobody"] += 1
            return await _refuse(writer, b"404 Not Found")
        request = render_head(forwarded_head(head, self.directory.machine(port), source, self.service, self.secret)) + body
        host, _, number = self.service.rpartition(":")
        try:
            theirs, ours = await asyncio.open_connection(host.strip("[]"), int(number))
        except OSError as error:
            self.counts["service away"] += 1
            self.note("metadata service does not answer", port, str(error))
            return await _refuse(writer, b"503 Service Unavailable")
        try:
            ours.write(request)
            await ours.drain()
            await _copy(theirs, writer)
            self.counts["passed on"] += 1
        finally:
            ours.close()

    async def _answer(self, instance: Instance, head: RequestHead, writer: asyncio.StreamWriter) -> None:
        """What the endpoint says. Sessions of Ec2 are opened and not asked for: who asks is known without."""
        target, text = head.target.decode("ascii"), None
        if (head.method, target) == (b"PUT", TOKEN_PATH):
            text = TOKEN
        elif head.method in (b"GET", b"HEAD"):
            text = look_up(instance, target)
        self.counts["answered" if text is not None else "not there"] += 1
        if text is None:
            await _refuse(writer, b"404 Not Found")
            return
        body = text.encode()
        fields = f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
        if text is TOKEN:
            fields += "X-Aws-Ec2-Metadata-Token-Ttl-Seconds: 21600\r\n"
        writer.write(b"HTTP/1.1 200 OK\r\n" + fields.encode() + b"\r\n" + (b"" if head.method == b"HEAD" else body))
        await writer.drain()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """All that comes goes on, up to a limit."""
    left = MOST_ANSWER_BYTES
    while left > 0:
        data = await source.read(min(_CHUNK, left))
        if not data:
            return
        left -= len(data)
        target.write(data)
        await target.drain()


async def _refuse(writer: asyncio.StreamWriter, status: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()

"""The agent's HTTP face: ``/metrics`` (Prometheus text), ``/report``, ``/health``, ``/readiness`` and ``/liveness`` (JSON); and ``fetch``
for whoever asks.

Serves GET, and commands where there are some; one request a connection, bounded in size and time; on a TCP address or a unix socket. Health
is answered from state that the agent holds anyway; metrics ask the kernel for its counters first.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Awaitable, Callable

import msgspec

from tabinet.errors import SetupError

REQUEST_TIMEOUT_S = 5.0
REQUEST_BYTES = 8192


class Response(msgspec.Struct, frozen=True):
    """What a path answers."""

    status: int
    content_type: str
    body: bytes


Routes = dict[str, Callable[[], Awaitable[Response]]]
Command = Callable[[str, str], Awaitable[Response]]
"""What is done at a POST, which has no body: for the path up to its last part, and that part."""

_FOR_ROOT = Response(403, "text/plain", b"only for root\n")
_REASONS = {200: "OK", 404: "Not Found", 403: "Forbidden", 405: "Method Not Allowed", 400: "Bad Request", 503: "Service Unavailable"}


async def serve(
    address: str, routes: Routes, command: Command | None = None, *, only_root: bool = False, timeout_s: float = REQUEST_TIMEOUT_S
) -> asyncio.Server:
    """A running server on ``address:port``, ``unix:/path``, or ``unix:@name`` (of the network namespace, without a file: unix(7)).

    ``only_root``: of unix sockets; others than processes of root get no answer. ``timeout_s``: longest time for one request.

    Raises:
        SetupError: the address cannot be used.
    """

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                head = await reader.readuntil(b"\r\n\r\n")
                refused = only_root and _user(writer) != 0
                writer.write(render_response(_FOR_ROOT if refused else await respond(head, routes, command)))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # the peer's loss: it gets no answer
        finally:
            writer.close()

    try:
        if address.startswith("unix:"):
            path = _unix_path(address)
            if not path.startswith("\0"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)  # of an agent before us
            return await asyncio.start_unix_server(on_connection, path, limit=REQUEST_BYTES)
        host, _, port = address.rpartition(":")
        return await asyncio.start_server(on_connection, host.strip("[]"), int(port), limit=REQUEST_BYTES)
    except (OSError, ValueError) as error:
        raise SetupError(
            f"cannot serve metrics on {address!r}: {error}; set http_address of [agent] or [guest] to a free address, or to nothing"
        ) from error


def _unix_path(address: str) -> str:
    path = address.removeprefix("unix:")
    return "\0" + path[1:] if path.startswith("@") else path


def _user(writer: asyncio.StreamWriter) -> int:
    """The user id of the process at the other end (SO_PEERCRED in unix(7))."""
    found = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", found)[1])


async def respond(head: bytes, routes: Routes, command: Command | None = None) -> Response:
    """The response to a request head (RFC 9112)."""
    parts = head.split(b"\r\n", 1)[0].split(b" ")
    if len(parts) != 3:
        return Response(400, "text/plain", b"bad request\n")
    method, target = parts[0], parts[1].split(b"?", 1)[0].decode("ascii", "replace")
    if method == b"POST" and command is not None:
        path, _, name = target.rpartition("/")
        return await command(path, name)
    if method != b"GET":
        return Response(405, "text/plain", b"only GET\n")
    route = routes.get(target)
    if route is None:
        return Response(404, "text/plain", ("there are " + " ".join(sorted(routes)) + "\n").encode())
    return await route()


async def fetch(address: str, path: str, timeout_s: float = 3.0, *, method: str = "GET") -> Response:
    """What an agent at ``address:port``, ``unix:/path`` or ``unix:@name`` answers.

    Raises:
        OSError: nothing answers, or not in time, or not in HTTP.
    """
    async with asyncio.timeout(timeout_s):
        if address.startswith("unix:"):
            reader, writer = await asyncio.open_unix_connection(_unix_path(address))
        else:
            host, _, port = address.rpartition(":")
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        try:
            writer.write(f"{method} {path} HTTP/1.1\r\nHost: tabinet\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
            head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
        finally:
            writer.close()
    first, *fields = head.decode("latin-1").split("\r\n")
    status = first.split(" ")[1:2]
    if not first.startswith("HTTP/") or not status or not status[0].isdigit():
        raise ConnectionError("what answers does not speak HTTP")
    kind = next((text.partition(":")[2].strip() for text in fields if text.lower().startswith("content-type:")), "")
    return Response(int(status[0]), kind, body)


def render_response(response: Response) -> bytes:
    """The bytes of a response."""
    head = (
        f"HTTP/1.1 {response.status} {_REASONS.get(response.status, '')}\r\nContent-Type: {response.content_type}\r\n"
        f"Content-Length: {len(response.body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + response.body

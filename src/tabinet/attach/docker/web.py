"""The plugin socket that Docker calls: HTTP on a unix socket, one call a connection.

In: ``POST /NetworkDriver.Join`` and the like with a JSON body. Out: the answers of ``DockerService``. The socket is a file of root's, which
Docker finds by its name (``/run/docker/plugins/tabinet.sock`` makes the driver ``tabinet``); it is taken away at the end, since Docker
waits for a plugin whose file is there. Bounded in size and time. Sources: Docker's plugin API, RFC 9112.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from tabinet.attach.docker.service import DockerService
from tabinet.errors import SetupError

HEAD_BYTES = 16384
BODY_BYTES = 1 << 20
BACKLOG = 1024
RECEIVE_TIMEOUT_S = 10.0
_KIND = b"application/vnd.docker.plugins.v1.2+json"
_OK, _FAILED, _BAD = b"200 OK", b"500 Internal Server Error", b"400 Bad Request"


@contextlib.asynccontextmanager
async def serve_docker(service: DockerService, path: Path) -> AsyncIterator[None]:
    """While inside, Docker's calls are answered, and what Docker has forgotten is removed.

    Raises:
        SetupError: the socket cannot be opened.
    """
    with _listening(path) as listener:
        async with asyncio.TaskGroup() as group:
            tasks = (group.create_task(_accept(service, listener)), group.create_task(service.run()))
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()


@contextlib.contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    """A socket that listens at the path, which is gone afterwards, unless another agent has taken it over."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    with listener:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)  # of an agent before us
            listener.bind(str(path))
            path.chmod(0o600)
            listener.listen(BACKLOG)
            made = path.stat()
        except OSError as error:
            raise SetupError(f"the socket for Docker, {path}, cannot be opened: {error.strerror}; see [docker] plugin_socket") from error
        try:
            yield listener
        finally:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(path.stat(), made):
                    path.unlink()


async def _accept(service: DockerService, listener: socket.socket) -> None:
    """Never returns; calls under way are cancelled with it, and what they did is undone."""
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        while True:
            connection, _ = await loop.sock_accept(listener)
            reader, writer = await asyncio.open_unix_connection(sock=connection, limit=HEAD_BYTES)
            group.create_task(_serve(service, reader, writer))


async def _serve(service: DockerService, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        async with asyncio.timeout(RECEIVE_TIMEOUT_S):
            request = await _receive(reader)
        # The service has time limits of its own, and Docker waits as long.
        if request is None:
            status, body = _BAD, b'{"Err": "this is no call of a Docker plugin"}'
        else:
            done, body = await service.answer(*request, _process(writer))
            status = _OK if done else _FAILED
        writer.write(
            b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (status, _KIND, len(body), body)
        )
        await writer.drain()
    except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
        pass  # the caller's loss: it gets no answer
    finally:
        writer.close()


async def _receive(reader: asyncio.StreamReader) -> tuple[str, bytes] | None:
    """Method and body of a call; None: it is none."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *fields = head.split(b"\r\n")
    words = first.split(b" ")
    lengths = [text.partition(b":")[2].strip() for text in fields if text.lower().startswith(b"content-length:")]
    length = lengths[0] if lengths else b"0"
    if len(words) != 3 or words[0] != b"POST" or not length.isdigit() or int(length) > BODY_BYTES:
        return None
    return words[1].decode("ascii", "replace").lstrip("/"), await reader.readexactly(int(length))


def _process(writer: asyncio.StreamWriter) -> int:
    """The process at the other end, as we see it (SO_PEERCRED in unix(7)); 0: we do not."""
    found = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", found)[0])

"""The socket at which the CNI plugins of one host call: an abstract one, for root only (unix(7)).

In: a request and, with it, its network namespace as an open file; see ``shim``. Out: exit code and output. One call a connection, any
number at a time. A caller of ADD that goes away before it has its answer is taken at its word: what was done is undone. A DEL for which
the store is away is put down and done later.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

from tabinet.attach.cni.deletions import Deletions
from tabinet.attach.cni.protocol import Code, Request, parse_request, render_error, request_length, version_for_errors
from tabinet.attach.cni.service import CniService
from tabinet.attach.cni.shim import ADDRESS, INPUT_BYTES
from tabinet.errors import CniError, SetupError

T = TypeVar("T")

RECEIVE_TIMEOUT_S = 5.0
BACKLOG = 1024
REQUEST_BYTES = INPUT_BYTES + (1 << 18)
_AT_ONCE = 65536


@contextlib.asynccontextmanager
async def serve_cni(service: CniService, deletions: Path, note: Callable[..., object], address: str = ADDRESS) -> AsyncIterator[None]:
    """While inside, calls are answered, and deletions that wait are done.

    Raises:
        SetupError: the address is taken.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as listener:
        try:
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError as error:
            raise SetupError(f"the socket for CNI plugins cannot be opened: {error.strerror}") from error
        server = CniServer(service, Deletions(deletions, service, note), note)
        async with asyncio.TaskGroup() as group:
            tasks = (group.create_task(server.run(listener)), group.create_task(server.deletions.run()))
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()


@dataclass(slots=True)
class CniServer:
    """Takes calls and answers them."""

    service: CniService
    deletions: Deletions
    note: Callable[..., object]

    async def run(self, listener: socket.socket) -> None:
        """Never returns; calls under way are cancelled with it, and what they did is undone."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                connection, _ = await loop.sock_accept(listener)
                group.create_task(self._serve(connection))

    async def _serve(self, connection: socket.socket) -> None:
        begin = perf_counter()
        descriptors: list[int] = []
        with connection, contextlib.suppress(ConnectionError, TimeoutError):
            try:
                try:
                    if _user(connection) != 0:
                        raise CniError(Code.ENVIRONMENT, "the agent answers only processes of root")
                    async with asyncio.timeout(RECEIVE_TIMEOUT_S):
                        data = await _receive(connection, descriptors)
                    request = parse_request(data)
                except CniError as error:
                    code, output = 1, render_error(version_for_errors(b""), error)
                else:
                    netns = f"/proc/self/fd/{descriptors[0]}" if descriptors else ""
                    code, output = await self._answer(request, data, netns, connection)
                    self._note_call(request, code, output, perf_counter() - begin)
                await asyncio.get_running_loop().sock_sendall(connection, b"%d\n%b" % (code, output))
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)

    def _note_call(self, request: Request, code: int, output: bytes, took_s: float) -> None:
        environ = request.environ
        self.note(
            "cni",
            command=environ.get("CNI_COMMAND"),
            container=environ.get("CNI_CONTAINERID"),
            interface=environ.get("CNI_IFNAME"),
            ms=round(took_s * 1e3, 1),
            error=output.decode(errors="replace") if code else None,
        )

    async def _answer(self, request: Request, data: bytes, netns: str, connection: socket.socket) -> tuple[int, bytes]:
        match request.environ.get("CNI_COMMAND"):
            case "ADD":
                return await _unless_gone(connection, self._add(request, netns))
            case "DEL":
                return await self._delete(request, data)
            case _:
                return await self.service.answer(request, netns)

    async def _add(self, request: Request, netns: str) -> tuple[int, bytes]:
        try:
            await self.deletions.settle(request.environ.get("CNI_CONTAINERID", ""), request.environ.get("CNI_IFNAME", ""))
        except CniError as error:
            return 1, render_error(version_for_errors(request.stdin), error)
        return await self.service.answer(request, netns)

    async def _delete(self, request: Request, data: bytes) -> tuple[int, bytes]:
        """What could not be removed now will be, and nobody has to wait for that."""
        code, output = await self.service.answer(request, "")
        if code and b'"code":%d,' % Code.TRY_AGAIN in output:
            try:
                self.deletions.put_down(data)
            except CniError as error:
                return 1, render_error(version_for_errors(request.stdin), error)
            return 0, b""
        return code, output


def _user(connection: socket.socket) -> int:
    """The user id of the process at the other end (SO_PEERCRED in unix(7))."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", found)[1])


async def _receive(connection: socket.socket, descriptors: list[int]) -> bytes:
    """The bytes of a request; open files that come with it are added to ``descriptors``.

    Raises:
        CniError: it is none.
        ConnectionError: it ends too early.
    """
    data = bytearray()
    while (length := request_length(bytes(data[:100]))) is None or len(data) < length:
        if length is not None and length > REQUEST_BYTES:
            raise CniError(Code.DECODE, f"a call has at most {REQUEST_BYTES} bytes")
        await _readable(connection)
        try:
            part, found, _, _ = socket.recv_fds(connection, _AT_ONCE, 1, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            continue
        descriptors += found
        if not part:
            raise ConnectionResetError
        data += part
    return bytes(data)


async def _readable(connection: socket.socket) -> None:
    """There is something to read, or the other end is gone."""
    loop = asyncio.get_running_loop()
    news: asyncio.Future[None] = loop.create_future()
    loop.add_reader(connection, _tell, news)
    try:
        await news
    finally:
        loop.remove_reader(connection)


def _tell(news: asyncio.Future[None]) -> None:
    if not news.done():
        news.set_result(None)


async def _unless_gone(connection: socket.socket, work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` returns; it is cancelled when the other end goes away meanwhile.

    Raises:
        ConnectionError: it went away.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_readable(connection))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ConnectionResetError
        return task.result()
    finally:
        for each in (gone, task):
            each.cancel()
        await asyncio.wait((task, gone))

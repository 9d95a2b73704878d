"""The socket at which libvirt's hook calls: an abstract one, for root only (unix(7)).

In: a request; see ``hook``. Out: exit code and message. One call a connection, any number at a time. What a caller asked for is done to
its end even if it goes away: a libvirt that was killed does not know afterwards that it had begun, and ``sync`` removes that.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator

from tabinet.attach.libvirt.events import Following
from tabinet.attach.libvirt.hook import ADDRESS
from tabinet.attach.libvirt.protocol import HookCall, parse_request, request_length
from tabinet.attach.libvirt.service import LibvirtService
from tabinet.errors import InputError, SetupError

RECEIVE_TIMEOUT_S = 5.0
_AT_ONCE = 65536


@contextlib.asynccontextmanager
async def serve_libvirt(service: LibvirtService, *, follow: bool = True, address: str = ADDRESS) -> AsyncIterator[None]:
    """While inside, calls are answered, and libvirt is followed if ``follow`` says so.

    Raises:
        SetupError: the address is taken.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):
            try:
                await _serve(service, reader, writer)
            finally:
                writer.close()

    try:
        server = await asyncio.start_unix_server(serve, address)
    except OSError as error:
        raise SetupError(f"the socket for libvirt's hook cannot be opened: {error.strerror}") from error
    async with asyncio.TaskGroup() as group:
        following = group.create_task(Following(service).run()) if follow else None
        try:
            yield
        finally:
            server.close()
            if following is not None:
                following.cancel()


async def _serve(service: LibvirtService, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    connection: socket.socket = writer.get_extra_info("socket")
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    if struct.unpack("3i", found)[1] != 0:
        code, message = 1, "the agent answers only processes of root"
    else:
        try:
            async with asyncio.timeout(RECEIVE_TIMEOUT_S):
                call = await _receive(reader)
        except InputError as error:
            code, message = 1, str(error)
        else:
            code, message = await service.answer(call)
    writer.write(b"%d\n%b" % (code, message.encode()))
    await writer.drain()


async def _receive(reader: asyncio.StreamReader) -> HookCall:
    """The call.

    Raises:
        InputError: it is none.
        ConnectionError: it ends too early.
    """
    data = bytearray()
    while (length := request_length(bytes(data[:100]))) is None or len(data) < length:
        part = await reader.read(_AT_ONCE)
        if not part:
            raise ConnectionResetError
        data += part
    return parse_request(bytes(data))

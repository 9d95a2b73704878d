"""The agent's HTTP face: what it answers, on TCP and on a unix socket."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tabinet.agent.http import Response, Routes, fetch, respond, serve
from tabinet.errors import SetupError


async def unwell() -> Response:
    return Response(503, "application/json", b"{}")


ROUTES: Routes = {"/health": unwell}


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /health HTTP/1.1\r\n\r\n", 503),
        (b"GET /health?verbose HTTP/1.1\r\n\r\n", 503),
        (b"GET /nothing HTTP/1.1\r\n\r\n", 404),
        (b"POST /health HTTP/1.1\r\n\r\n", 405),
        (b"\xff\xfe", 400),
        (b"", 400),
    ],
)
async def test_every_request_gets_an_answer(head: bytes, status: int) -> None:
    assert (await respond(head, ROUTES)).status == status


async def test_serves_on_a_unix_socket_and_replaces_a_dead_one(tmp_path: Path) -> None:
    path = tmp_path / "http"
    for _ in range(2):
        server = await serve(f"unix:{path}", ROUTES)
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        writer.close()
        server.close()


async def test_address_in_use_is_told() -> None:
    server = await serve("127.0.0.1:0", ROUTES)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(SetupError, match="http_address"):
        await serve(f"127.0.0.1:{port}", ROUTES)
    server.close()


async def test_an_agent_is_asked_on_both_kinds_of_address(tmp_path: Path) -> None:
    server = await serve("127.0.0.1:0", ROUTES)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    assert await fetch(address, "/health") == Response(503, "application/json", b"{}")
    assert (await fetch(address, "/nothing")).status == 404
    server.close()
    server = await serve(f"unix:{tmp_path}/http", ROUTES)
    assert (await fetch(f"unix:{tmp_path}/http", "/health")).body == b"{}"
    server.close()


async def test_whoever_does_not_answer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        await fetch(f"unix:{tmp_path}/nobody", "/health")

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0\r\n")
        writer.close()

    async def keep_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        gone.set()

    gone = asyncio.Event()
    server = await asyncio.start_unix_server(babble, str(tmp_path / "ssh"))
    with pytest.raises(ConnectionError, match="does not speak HTTP"):
        await fetch(f"unix:{tmp_path}/ssh", "/health")
    server.close()
    server = await asyncio.start_unix_server(keep_silent, str(tmp_path / "silent"))
    with pytest.raises(TimeoutError):
        await fetch(f"unix:{tmp_path}/silent", "/health", timeout_s=0.05)
    await gone.wait()
    server.close()

"""A guest asks for its metadata, and Nova learns who asks from the host, whatever the guest says; and what else guests cannot do there."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fence import settle
from guest_world import ADDRESSES, ALLOW_ALL, GUESTS, SUBNETS, GuestWorld, endpoint, eventually, guest_world
from metadata_world import MORE, NOVA, SECRET, ask, nova
from one_host import ready

from tabinet.kernel import netns

pytestmark = pytest.mark.kernel


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[GuestWorld]:
    secret = tmp_path / "secret"
    secret.write_text(SECRET + "\n")
    with guest_world(tmp_path, MORE.format(port=NOVA, secret=secret)) as made:
        await made.fill(ALLOW_ALL, *map(endpoint, GUESTS), subnets=SUBNETS)
        made.start("agent")
        made.start("guest")
        for guest in GUESTS:
            made.address(guest)
        with nova(made):
            yield made


async def test_nova_learns_who_asks_from_the_host(world: GuestWorld):
    assert eventually(lambda: ask(world, "g1") and ask(world, "g2")), world.logs()
    for guest in GUESTS:
        got = ask(
            world, guest, X_Instance_ID="g9", X_Forwarded_For="10.65.0.9", X_Tenant_ID="other", X_Mine="kept", x_instance_id_signature="0"
        )
        assert got is not None
        path, *lines = got.splitlines()
        told = dict(line.split("=", 1) for line in lines if line)
        assert path == "/openstack/latest" and len(told) == len([line for line in lines if line])
        assert told["x-instance-id"] == guest
        assert told["x-instance-id-signature"] == hmac.new(SECRET.encode(), guest.encode(), hashlib.sha256).hexdigest()
        assert (told["x-tenant-id"], told["x-forwarded-for"], told["x-mine"]) == ("project", ADDRESSES[guest][0], "kept")
        assert told["host"] == f"127.0.0.1:{NOVA}"
    assert (ask(world, "g1", "POST", "password") or "").endswith("password")
    another_address_is_nobody(world)
    nobody_else_answers_dhcp(world)
    the_loopback_net_of_the_host_is_its_own(world)


def another_address_is_nobody(world: GuestWorld) -> None:
    """Not even one's own for the host itself."""
    with contextlib.closing(netns.run_in(world.host, lambda: socket.create_connection(("127.0.0.1", 8775), 5))) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 404 ")


def nobody_else_answers_dhcp(world: GuestWorld) -> None:
    with contextlib.closing(world.socket("g2", socket.SOCK_DGRAM, 68)) as client:
        for port, expected in ((6767, True), (67, False)):
            with contextlib.closing(world.socket("g1", socket.SOCK_DGRAM, port)) as server:
                arrived = lambda: server.sendto(b"offer", (ADDRESSES["g2"][0], 68)) and _has_come(client)  # noqa: E731
                assert eventually(arrived) if expected else not arrived(), port


def the_loopback_net_of_the_host_is_its_own(world: GuestWorld) -> None:
    namespace = world.namespace("g1")
    world.ip(namespace, "addr flush dev lo")
    world.ip(namespace, "route add 127.0.0.0/8 via 10.65.0.1 dev eth0")
    key = "/proc/sys/net/ipv4/conf/eth0/route_localnet"
    netns.run_in(namespace, lambda: Path(key).write_text("1"))
    with (
        contextlib.closing(world.socket("host", socket.SOCK_DGRAM, 9000)) as server,
        contextlib.closing(world.socket("g1", socket.SOCK_DGRAM)) as client,
    ):
        assert eventually(lambda: client.sendto(b"?", ("10.65.0.1", 9000)) and _has_come(server))
        client.sendto(b"?", ("127.0.0.1", 9000))
        assert not _has_come(server)
    argv = ["ip", "netns", "exec", world.host, "nft", "list", "table", "inet", "tabinet"]
    listed = subprocess.run(argv, capture_output=True, text=True, check=True)
    line = next(line for line in listed.stdout.splitlines() if "the host's loopback net" in line)
    assert "packets 1 " in line, line


def _has_come(sock: socket.socket) -> bool:
    settle()
    found = False
    while ready(sock):
        sock.recv(100)
        found = True
    return found

"""A guest that no orchestrator looks after: addresses of both families and metadata from its endpoint alone."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from guest_world import ADDRESSES, ALLOW_ALL, MACS, GuestWorld, eventually, guest_world

pytestmark = pytest.mark.kernel

MORE = """
[felix]
metadata_addr = "127.0.0.1"
[guest]
local_metadata = true
dns_servers = ["fd00::53"]
"""
USER_DATA = "#cloud-config\nhostname: web1\n"


def workload(guest: str) -> dict[str, Any]:
    """As ``tabinet workload add --tap`` writes it."""
    v4, v6 = ADDRESSES[guest]
    metadata: dict[str, Any] = {"name": f"h1-tabinet-{guest}-eth0", "namespace": "default", "labels": {"role": "web"}}
    metadata["annotations"] = {"tabinet.io/hostname": "web1.example.org", "tabinet.io/user-data": USER_DATA}
    spec = {
        "orchestrator": "tabinet",
        "workload": guest,
        "node": "h1",
        "endpoint": "eth0",
        "ipNetworks": [f"{v4}/32", f"{v6}/128"],
        "interfaceName": f"tap{guest}",
        "mac": MACS[guest],
    }
    return {"apiVersion": "projectcalico.org/v3", "kind": "WorkloadEndpoint", "metadata": metadata, "spec": spec}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[GuestWorld]:
    with guest_world(tmp_path, MORE) as made:
        await made.fill(ALLOW_ALL, workload("g1"))
        made.start("agent")
        made.start("guest")
        yield made


def ask(world: GuestWorld, path: str, method: str = "GET") -> tuple[int, str]:
    """Status and text; 0 without a connection."""
    try:
        with contextlib.closing(world.socket("g1", socket.SOCK_STREAM)) as sock:
            sock.settimeout(5)
            sock.connect(("169.254.169.254", 80))
            connection = http.client.HTTPConnection("169.254.169.254")
            connection.sock = sock
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
    except OSError:
        return 0, ""


async def test_a_guest_of_nobody(world: GuestWorld):
    command = ["ip", "-n", world.namespace("g1"), "-6", "route", "show", "default"]
    assert eventually(lambda: "via fe80::1 " in subprocess.run(command, capture_output=True, text=True, check=True).stdout), world.logs()
    got = world.udhcpc("g1")
    assert (got["ip"], got["mask"], got["hostname"], got["domain"]) == (ADDRESSES["g1"][0], "32", "web1", "example.org")
    got = world.dhclient6("g1")
    assert (got["new_ip6_address"], got["new_dhcp6_name_servers"]) == (ADDRESSES["g1"][1], "fd00::53")

    world.ip(world.namespace("g1"), f"addr replace {ADDRESSES['g1'][0]}/32 dev eth0")
    world.ip(world.namespace("g1"), "route replace 169.254.1.1 dev eth0 scope link")
    world.ip(world.namespace("g1"), "route replace default via 169.254.1.1 dev eth0")
    assert eventually(lambda: ask(world, "/")[0] == 200), world.logs()
    assert ask(world, "/latest/meta-data/local-ipv4") == (200, ADDRESSES["g1"][0])
    assert ask(world, "/2009-04-04/meta-data/tags/instance/role") == (200, "web")
    assert ask(world, "/latest/user-data") == ask(world, "/user-data") == (200, USER_DATA)
    assert ask(world, "/latest/user-data", "HEAD") == (200, "")
    assert json.loads(ask(world, "/meta-data")[1])["local-hostname"] == "web1.example.org"
    assert ask(world, "/latest/api/token", "PUT")[0] == 200
    assert ask(world, "/latest/api/token")[0] == ask(world, "/latest/x")[0] == ask(world, "/user-data", "POST")[0] == 404

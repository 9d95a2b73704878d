"""A host's addresses as they are found in a real kernel: by the way to its peers, and staying where they are."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tabinet.agent.detection import Detected, detect
from tabinet.kernel import netns

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

LINKS = """link set dev lo up
addr add 10.254.0.5/32 dev lo
link add name br-x index 10 type bridge
link add name eth0 index 12 type veth peer name far0
link add name eth1 index 14 type veth peer name far1
link set dev br-x up
link set dev far0 up
link set dev far1 up
link set dev eth0 up
link set dev eth1 up
addr add 172.17.0.1/16 dev br-x
addr add 10.1.0.5/24 dev eth0
addr add 10.2.0.5/24 dev eth1
addr add fd00:2::5/64 dev eth1 nodad
route add 10.9.0.0/16 via 10.2.0.1
"""
PEERS = ({"metadata": {"name": "other"}, "spec": {"bgp": {"ipv4Address": "10.9.0.7/24", "ipv6Address": "fd00:2::7/64"}}},)


@pytest.fixture
def host() -> Iterator[str]:
    name = f"tbda-{uuid.uuid4().hex[:8]}"
    netns.create(name)
    try:
        ip(name, LINKS)
        yield name
    finally:
        netns.delete(name)


def ip(namespace: str, commands: str) -> None:
    subprocess.run(["ip", "-n", namespace, "-batch", "-"], input=commands, text=True, check=True)


def detected(namespace: str, addresses: Mapping[int, str] | None = None) -> dict[int, str]:
    """What the Node would get, if it has these addresses now."""
    before: dict[str, Any] = {"spec": {"bgp": {f"ipv{family}Address": text for family, text in (addresses or {}).items()}}}
    found: Detected = netns.run_in(namespace, lambda: detect("me", before, PEERS, given={}))
    return found.addresses


def test_the_address_follows_the_way_to_the_peers_and_then_stays(host: str) -> None:
    first = detected(host)
    assert first == {4: "10.2.0.5/24", 6: "fd00:2::5/64"}
    # Another way to the peers, a new interface, an address more: a Node that has one of the host's addresses keeps it.
    ip(host, "route replace 10.9.0.0/16 via 10.1.0.1\naddr add 10.2.0.4/24 dev eth1\naddr add 172.18.0.1/16 dev br-x\n")
    assert detected(host) == {4: "10.1.0.5/24", 6: "fd00:2::5/64"}
    assert detected(host, first) == first
    # Only when it has it no longer, the way decides anew.
    ip(host, "addr del 10.2.0.5/24 dev eth1\n")
    assert detected(host, first) == {4: "10.1.0.5/24", 6: "fd00:2::5/64"}

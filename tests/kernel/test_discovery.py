"""What a workload needs before it has an address or knows its neighbours, while policy lets nothing else to the host."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator

import pytest
from one_host import arrives, checksum
from test_host_endpoints import OPEN, tier
from two_hosts import ADDRESSES, WORKLOAD_MACS, WORKLOADS, HostAgent, TwoHosts, two_hosts

from tabinet.calc import messages as m
from tabinet.kernel import netns
from tabinet.lib.ip import parse_address
from tabinet.model.keys import ResourceKey

pytestmark = pytest.mark.kernel

ALL = m.Policy((m.Rule(m.Action.ALLOW),), (m.Rule(m.Action.ALLOW),))
MAC = bytes.fromhex(WORKLOAD_MACS["a"].replace(":", ""))
BROADCAST = b"\xff" * 6


@pytest.fixture(scope="module")
def fabric() -> Iterator[TwoHosts]:
    with two_hosts() as made:
        yield made


@pytest.fixture
def agent(fabric: TwoHosts) -> Iterator[HostAgent]:
    made = HostAgent(fabric, "h1")
    updates: list[m.Update] = [m.PolicyUpdate(OPEN, ALL)]
    for name in ("a", "b"):
        nets = tuple(parse_address(text) for text in ADDRESSES[name])
        body = m.Endpoint("h1", f"cali{name}", WORKLOAD_MACS[name], nets, (), tier(OPEN), tier(OPEN), ())
        updates.append(m.EndpointUpdate(ResourceKey("WorkloadEndpoint", name, WORKLOADS[name]), 1, body))
    made.tell(*updates)
    yield made
    made.close()


def broadcast(fabric: TwoHosts, source: str, source_port: int, port: int, *, mac: bytes = MAC) -> None:
    """A UDP datagram from a to everybody on its link."""
    data = struct.pack(">HHHH", source_port, port, 8 + 4, 0) + b"dhcp"
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(data), 1, 0, 64, 17, 0) + socket.inet_aton(source) + b"\xff" * 4
    header = header[:10] + struct.pack(">H", checksum(header)) + header[12:]
    packet_socket = netns.run_in(fabric.namespace("a"), lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
    with packet_socket as sender:
        sender.bind(("eth0", 0x0800))
        sender.send(BROADCAST + mac + b"\x08\x00" + header + data)


def listener(fabric: TwoHosts, family: int, port: int) -> socket.socket:
    made = fabric.socket("h1", (socket.AF_INET, socket.AF_INET6)[family], socket.SOCK_DGRAM)
    made.bind((("0.0.0.0", "::")[family], port))
    return made


def test_dhcp_before_there_is_an_address(fabric: TwoHosts, agent: HostAgent):
    with contextlib.closing(listener(fabric, 0, 67)) as server, contextlib.closing(listener(fabric, 0, 69)) as other:
        broadcast(fabric, "0.0.0.0", 68, 67)
        assert arrives(server) and server.recv(10) == b"dhcp"
        for source, ports, mac in (
            ("0.0.0.0", (68, 69), MAC),
            ("0.0.0.0", (69, 67), MAC),
            ("10.65.1.2", (68, 67), MAC),
            ("0.0.0.0", (68, 67), b"\x02" + b"\x09" * 5),
        ):
            broadcast(fabric, source, *ports, mac=mac)
            assert not arrives(server) and not arrives(other), (source, ports, mac)


def test_dhcp6_from_a_link_local_address(fabric: TwoHosts, agent: HostAgent):
    with (
        contextlib.closing(listener(fabric, 1, 547)) as server,
        contextlib.closing(fabric.socket("a", socket.AF_INET6, socket.SOCK_DGRAM)) as client,
    ):
        client.bind(("::", 546))
        index = netns.run_in(fabric.namespace("a"), lambda: socket.if_nametoindex("eth0"))
        client.sendto(b"dhcp", ("fe80::1", 547, 0, index))
        assert arrives(server)


def test_neighbours_are_found_anew(fabric: TwoHosts, agent: HostAgent):
    for _ in range(2):
        for place, device in (("a", "eth0"), ("b", "eth0"), ("h1", "calia"), ("h1", "calib")):
            fabric.ip(place, f"neigh flush dev {device}")
        for family in (0, 1):
            assert fabric.ping("a", ADDRESSES["b"][family]), family
    assert not fabric.ping("a", ADDRESSES["h1"][0]), "nothing else is allowed to the host"

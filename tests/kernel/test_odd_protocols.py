"""Rules about protocols that policies have no fields for, in a real kernel: UDP-Lite, DCCP, protocol 0."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator

import pytest
from one_host import arrives, checksum
from two_hosts import ADDRESSES, HostAgent, TwoHosts, two_hosts

from tabinet.calc import messages as m
from tabinet.calc.graph import Graph
from tabinet.calc.inputs import InSync, Put
from tabinet.kernel import netns
from tabinet.model.keys import ResourceKey
from tabinet.model.resources import (
    EntityRule,
    GlobalNetworkPolicy,
    Metadata,
    NetworkPolicySpec,
    Rule,
    RuleMetadata,
    WorkloadEndpoint,
    WorkloadEndpointSpec,
)

pytestmark = pytest.mark.kernel

UDPLITE, DCCP = 136, 33
ALL_FRAMES = 3  # ETH_P_ALL, packet(7)


@pytest.fixture(scope="module")
def fabric() -> Iterator[TwoHosts]:
    with two_hosts() as made:
        yield made


@pytest.fixture
def host(fabric: TwoHosts) -> Iterator[HostAgent]:
    made = HostAgent(fabric, "h1")
    yield made
    made.close()


def tell(host: HostAgent, text: str, *, stateless: bool = False) -> None:
    """Workload a may receive what the annotation says, and nothing else."""
    metadata = RuleMetadata(annotations={"tabinet.io/protocol": text})
    annotated = Rule(action="Allow", destination=EntityRule(selector="!all()"), metadata=metadata)
    policy = GlobalNetworkPolicy(spec=NetworkPolicySpec(selector="all()", types=("Ingress", "Egress"), ingress=(annotated,)))
    spec = WorkloadEndpointSpec(workload="a", endpoint="eth0", node="h1", interface_name="calia", ip_networks=("10.65.1.1/32",))
    endpoint = WorkloadEndpoint(metadata=Metadata(annotations={"tabinet.io/stateless": "true"} if stateless else {}), spec=spec)
    graph = Graph(frozenset({"h1"}))
    graph.on_input(Put(ResourceKey("GlobalNetworkPolicy", "odd"), policy, 1))
    graph.on_input(Put(ResourceKey("WorkloadEndpoint", "h1-test-a-eth0", "default"), endpoint, 1))
    graph.on_input(InSync())
    assert not list(graph.problems())
    host.tell(*(update for update in graph.flush() if isinstance(update, m.SetUpdate | m.PolicyUpdate | m.EndpointUpdate)))


def reaches(fabric: TwoHosts, protocol: int, port: int = 0) -> bool:
    """A packet from x with this destination port arrives at a."""
    source, target = (socket.inet_aton(ADDRESSES[name][0]) for name in ("x", "a"))
    token = os.urandom(8)
    body = struct.pack(">HHHH", 40_000, port, 0, 0) + token  # coverage 0: the checksum is about everything (RFC 3828)
    if protocol == UDPLITE:
        pseudo = source + target + struct.pack(">BBH", 0, protocol, len(body))
        body = body[:6] + struct.pack(">H", checksum(pseudo + body)) + body[8:]
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 1, 0, 64, protocol, 0, source, target)
    listener = netns.run_in(fabric.namespace("a"), lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ALL_FRAMES)))
    sender = fabric.socket("x", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with contextlib.closing(listener), contextlib.closing(sender):
        sender.sendto(header + body, (ADDRESSES["a"][0], 0))
        while arrives(listener):
            if token in listener.recv(2000):
                return True
        return False


@pytest.mark.parametrize("stateless", [False, True])
def test_ports_of_udplite(fabric: TwoHosts, host: HostAgent, stateless: bool) -> None:
    """Connection tracking checks the checksum as if it were UDP's, whose pseudo header is another one."""
    tell(host, "136:5000-5010", stateless=stateless)
    fabric.sysctl("h1", "net/netfilter/nf_conntrack_checksum", "1" if stateless else "0")
    assert reaches(fabric, UDPLITE, 5005)
    assert not reaches(fabric, UDPLITE, 5011)
    assert not reaches(fabric, DCCP, 5005)


def test_ports_of_dccp_packet_by_packet(fabric: TwoHosts, host: HostAgent) -> None:
    tell(host, "33:5000", stateless=True)
    assert reaches(fabric, DCCP, 5000)
    assert not reaches(fabric, DCCP, 5001)
    assert not reaches(fabric, UDPLITE, 5000)


def test_ports_of_dccp_by_connection_never_open_others(fabric: TwoHosts, host: HostAgent) -> None:
    """A kernel that does not track DCCP (since Linux 6.16) knows no ports of its flows: then nothing passes."""
    tell(host, "33:5000")
    reaches(fabric, DCCP, 5000)
    assert not reaches(fabric, DCCP, 5001)
    tell(host, "33")
    assert reaches(fabric, DCCP, 5001), "without ports it needs none"


def test_protocol_zero_is_a_protocol(fabric: TwoHosts, host: HostAgent) -> None:
    tell(host, "0")
    assert reaches(fabric, 0)
    assert not reaches(fabric, UDPLITE, 1)
    assert not reaches(fabric, 47)

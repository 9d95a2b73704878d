"""Stateless endpoints in a real kernel: nothing passes because of a flow."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator

import msgspec
import pytest
from one_host import arrives, checksum, family_of, ready
from two_hosts import ADDRESSES, WORKLOAD_MACS, WORKLOADS, HostAgent, TwoHosts, two_hosts

from tabinet.calc import messages as m
from tabinet.lib.ip import parse_address
from tabinet.model.keys import ResourceKey

pytestmark = pytest.mark.kernel

FAMILIES = (0, 1)
OPEN, OUT = ResourceKey("GlobalNetworkPolicy", "open"), ResourceKey("NetworkPolicy", "out", "default")
ANSWERS = ResourceKey("NetworkPolicy", "answers", "default")
RULE = m.Rule(m.Action.ALLOW)
EXTERNAL = ("192.0.2.10", "2001:db8::10")


def from_port(protocol: int, port: int) -> m.Rule:
    return m.Rule(m.Action.ALLOW, protocol=protocol, source=m.Side(ports=(m.PortRange(port, port),)))


def endpoint(name: str, *policies: ResourceKey, stateless: bool = False, **fields) -> m.EndpointUpdate:
    tiers = (m.TierPolicies("default", m.Action.DENY, policies),)
    nets = tuple(parse_address(text) for text in ADDRESSES[name])
    body = m.Endpoint(WORKLOADS[name], f"cali{name}", WORKLOAD_MACS[name], nets, (), tiers, tiers, (), stateless=stateless)
    return m.EndpointUpdate(ResourceKey("WorkloadEndpoint", name, "default"), 1, msgspec.structs.replace(body, **fields))


@pytest.fixture(scope="module")
def fabric() -> Iterator[TwoHosts]:
    with two_hosts() as made:
        yield made


@pytest.fixture
def host(fabric: TwoHosts) -> Iterator[HostAgent]:
    """h1: a is stateless, may send all and receive nothing; b is as usual and may do everything."""
    made = HostAgent(fabric, "h1")
    try:
        made.tell(
            m.PolicyUpdate(OPEN, m.Policy((RULE,), (RULE,))),
            m.PolicyUpdate(OUT, m.Policy((), (RULE,))),
            m.PolicyUpdate(ANSWERS, m.Policy((), ())),
            endpoint("a", OUT, ANSWERS, stateless=True),
            endpoint("b", OPEN),
        )
        yield made
    finally:
        made.close()


def talks(fabric: TwoHosts, source: str, target: str, family: int, port: int) -> tuple[bool, bool]:
    """A datagram arrives, and so does its answer."""
    return answered(fabric, source, target, ADDRESSES[target][family], port)


def answered(fabric: TwoHosts, source: str, target: str, address: str, port: int) -> tuple[bool, bool]:
    family = family_of(address)
    server, client = fabric.socket(target, family, socket.SOCK_DGRAM), fabric.socket(source, family, socket.SOCK_DGRAM)
    with contextlib.closing(server), contextlib.closing(client):
        server.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))
        client.sendto(b"hello", (address, port))
        if not arrives(server):
            return False, False
        server.sendto(b"welcome", server.recvfrom(100)[1])
        return True, arrives(client)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("other", ["x", "c", "b"])
def test_an_answer_needs_a_rule_of_its_own(fabric: TwoHosts, host: HostAgent, family: int, other: str):
    assert talks(fabric, "a", other, family, 5000) == (True, False)
    host.tell(m.PolicyUpdate(ANSWERS, m.Policy((from_port(17, 5000),), ())))
    assert talks(fabric, "a", other, family, 5000) == (True, True)
    assert talks(fabric, "a", other, family, 5001) == (True, False)
    assert not fabric.connects("a", other, ADDRESSES[other][family], 80)
    host.tell(m.PolicyUpdate(ANSWERS, m.Policy((from_port(6, 80),), ())))
    assert fabric.connects("a", other, ADDRESSES[other][family], 80)
    host.tell(endpoint("a", OUT, ANSWERS))
    assert talks(fabric, "a", other, family, 5001) == (True, True), "tracked again"


@pytest.mark.parametrize("family", FAMILIES)
def test_what_an_endpoint_is_asked_it_may_not_answer_without_a_rule(fabric: TwoHosts, host: HostAgent, family: int):
    host.tell(endpoint("a", ANSWERS, stateless=True), m.PolicyUpdate(ANSWERS, m.Policy((RULE,), ())))
    for other in ("x", "b"):
        assert talks(fabric, other, "a", family, 5000) == (True, False)
    host.tell(m.PolicyUpdate(ANSWERS, m.Policy((RULE,), (from_port(17, 5000),))))
    for other in ("x", "b"):
        assert talks(fabric, other, "a", family, 5000) == (True, True)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("other", ["x", "b"])
def test_a_removed_rule_ends_a_running_connection(fabric: TwoHosts, host: HostAgent, family: int, other: str):
    host.tell(m.PolicyUpdate(ANSWERS, m.Policy((from_port(6, 80),), ())))
    with contextlib.closing(fabric.tcp("a", other, ADDRESSES[other][family], 80)) as connection:
        assert connection.carries() and connection.carries(forward=False)
        host.tell(m.PolicyUpdate(ANSWERS, m.Policy((), ())))
        assert not connection.carries(forward=False)


def test_packets_of_no_known_flow_pass_where_rules_allow_them(fabric: TwoHosts, host: HostAgent):
    """What comes back another way than it went: nobody here saw it begin."""
    allowed = m.Policy((m.Rule(m.Action.ALLOW, protocol=1, icmp=m.Icmp(0)),), ())
    host.tell(m.PolicyUpdate(ANSWERS, allowed))
    assert hears_unasked_answer(fabric, "a", 0)
    assert not hears_unasked_answer(fabric, "b", 0), "b may receive everything that begins a flow"
    host.tell(m.PolicyUpdate(ANSWERS, m.Policy((), ())))
    assert not hears_unasked_answer(fabric, "a", 0)


def hears_unasked_answer(fabric: TwoHosts, target: str, kind: int) -> bool:
    """An echo reply that nobody asked for arrives from outside."""
    receiver = fabric.socket(target, socket.AF_INET, socket.SOCK_RAW, 1)
    sender = fabric.socket("x", socket.AF_INET, socket.SOCK_RAW, 1)
    with contextlib.closing(receiver), contextlib.closing(sender):
        body = struct.pack(">BBHHH", kind, 0, 0, 77, 1)
        sender.sendto(body[:2] + struct.pack(">H", checksum(body)) + body[4:], (ADDRESSES[target][0], 0))
        while arrives(receiver):
            data = receiver.recv(2000)
            if data[20] == kind:
                return True
        return ready(receiver)


@pytest.mark.parametrize("family", FAMILIES)
def test_floating_addresses_work_with_rules_about_the_own_address(fabric: TwoHosts, host: HostAgent, family: int):
    nats = tuple(m.Nat(parse_address(EXTERNAL[each]), parse_address(ADDRESSES["a"][each])) for each in FAMILIES)
    to_own = m.Rule(m.Action.ALLOW, destination=m.Side(nets=tuple(nat.internal for nat in nats)))
    host.tell(endpoint("a", ANSWERS, stateless=True, nats=nats), m.PolicyUpdate(ANSWERS, m.Policy((to_own,), ())))
    assert answered(fabric, "x", "a", EXTERNAL[family], 5000) == (True, False)
    host.tell(m.PolicyUpdate(ANSWERS, m.Policy((to_own,), (from_port(17, 5000),))))
    assert answered(fabric, "x", "a", EXTERNAL[family], 5000) == (True, True)


@pytest.mark.parametrize("family", FAMILIES)
def test_its_own_host_is_as_with_other_endpoints(fabric: TwoHosts, host: HostAgent, family: int):
    assert fabric.ping("h1", ADDRESSES["a"][family]), "health checks need no rule"
    assert not fabric.ping("a", ADDRESSES["h1"][family])

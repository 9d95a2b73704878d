"""A workload that moves from one host to another with its addresses: a goes from h1 to where c is, behind h2."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest
from one_host import arrives
from test_host_endpoints import OPEN, tier
from two_hosts import ADDRESSES, WORKLOAD_MACS, WORKLOADS, HostAgent, TwoHosts, two_hosts

from tabinet.calc import messages as m
from tabinet.lib.ip import parse_address
from tabinet.model.keys import ResourceKey

pytestmark = pytest.mark.kernel

ALL = m.Policy((m.Rule(m.Action.ALLOW),), (m.Rule(m.Action.ALLOW),))
FAMILIES = (0, 1)


def endpoint(name: str, host: str, interface: str) -> m.EndpointUpdate:
    nets = tuple(parse_address(text) for text in ADDRESSES[name])
    body = m.Endpoint(host, interface, WORKLOAD_MACS[interface.removeprefix("cali")], nets, (), tier(OPEN), tier(OPEN), ())
    return m.EndpointUpdate(key(name, host), 1, body)


def key(name: str, host: str) -> ResourceKey:
    return ResourceKey("WorkloadEndpoint", f"{host}-{name}", "default")


@pytest.fixture
def fabric() -> Iterator[TwoHosts]:
    with two_hosts() as made:
        yield made


@pytest.fixture
def hosts(fabric: TwoHosts) -> Iterator[dict[str, HostAgent]]:
    made = {host: HostAgent(fabric, host) for host in ("h1", "h2")}
    for host, agent in made.items():
        agent.tell(m.PolicyUpdate(OPEN, ALL), *(endpoint(name, host, f"cali{name}") for name in WORKLOADS if WORKLOADS[name] == host))
    yield made
    for agent in made.values():
        agent.close()


def appear_at_h2(fabric: TwoHosts, hosts: dict[str, HostAgent]) -> None:
    """c's namespace takes a's addresses, as the guest that resumes there does, and h2 knows the endpoint."""
    v4, v6 = ADDRESSES["a"]
    fabric.ip("c", f"addr add {v4}/32 dev eth0", f"addr add {v6}/128 dev eth0 nodad")
    fabric.ip("h2", f"route add {v4} dev calic scope link", f"route add {v6} dev calic")
    both = [*ADDRESSES["a"], *ADDRESSES["c"]]
    body = m.Endpoint("h2", "calic", WORKLOAD_MACS["c"], tuple(sorted(map(parse_address, both))), (), tier(OPEN), tier(OPEN), ())
    hosts["h2"].tell(m.EndpointUpdate(key("c", "h2"), 2, body))


def from_a_at_h2(fabric: TwoHosts, family: int, port: int) -> bool:
    """A datagram with a's address that c's namespace sends arrives at b, which is at h1."""
    kind = (socket.AF_INET, socket.AF_INET6)[family]
    with (
        contextlib.closing(fabric.socket("c", kind, socket.SOCK_DGRAM)) as sender,
        contextlib.closing(fabric.socket("b", kind, socket.SOCK_DGRAM)) as receiver,
    ):
        receiver.bind((ADDRESSES["b"][family], port))
        sender.bind((ADDRESSES["a"][family], port))
        sender.sendto(b"?", (ADDRESSES["b"][family], port))
        return arrives(receiver)


@pytest.mark.parametrize("family", FAMILIES)
def test_while_it_is_here_nobody_else_has_its_address(fabric: TwoHosts, hosts: dict[str, HostAgent], family: int):
    appear_at_h2(fabric, hosts)
    assert not from_a_at_h2(fabric, family, 5000)
    assert hosts["h1"].driver.counters().denied["local source from elsewhere"].packets == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_once_its_interface_is_gone_the_old_host_lets_it_speak_from_the_new_one(fabric: TwoHosts, hosts: dict[str, HostAgent], family: int):
    """The old endpoint is still in the store, and the old host's agent has done nothing yet."""
    appear_at_h2(fabric, hosts)
    fabric.ip("h1", "link del calia")
    assert from_a_at_h2(fabric, family, 5001)
    via = ADDRESSES["h2"][family]
    fabric.ip("h1", f"route add {ADDRESSES['a'][family]} via {via}")
    assert from_a_at_h2(fabric, family, 5002)
    assert fabric.udp("b", "c", ADDRESSES["a"][family], 5003) == ADDRESSES["b"][family], "and it is spoken to"


@pytest.mark.parametrize("family", FAMILIES)
def test_once_its_endpoint_is_gone_the_interface_that_is_left_protects_nothing_and_passes_nothing(
    fabric: TwoHosts, hosts: dict[str, HostAgent], family: int
):
    appear_at_h2(fabric, hosts)
    assert hosts["h1"].tell(m.EndpointRemove(key("a", "h1"))).revoked
    assert from_a_at_h2(fabric, family, 5004)
    assert not fabric.udp("a", "b", ADDRESSES["b"][family], 5005)

"""One floating address of which ports lead to endpoints on two hosts: real packets through h1, which announces it, to h2."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import msgspec
import pytest
from one_host import arrives, family_of
from two_hosts import ADDRESSES, WORKLOAD_MACS, WORKLOADS, HostAgent, TwoHosts, two_hosts

from tabinet.calc import messages as m
from tabinet.dataplane.passing import PassingManager
from tabinet.kernel import netns
from tabinet.kernel.rtsocket import open_rtnetlink
from tabinet.lib.ip import parse_address, parse_prefix
from tabinet.model.keys import ResourceKey

pytestmark = pytest.mark.kernel

FAMILIES = (0, 1)
OPEN, FROM_X = ResourceKey("GlobalNetworkPolicy", "open"), ResourceKey("GlobalNetworkPolicy", "from-x")
ALLOW = m.Rule(m.Action.ALLOW)
FLOATING = ("192.0.2.10", "2001:db8::10")


def endpoint(name: str, policy: ResourceKey = OPEN, **fields) -> m.EndpointUpdate:
    own = tuple(parse_address(text) for text in ADDRESSES[name])
    tiers = (m.TierPolicies("default", m.Action.DENY, (policy,)),)
    body = m.Endpoint(WORKLOADS[name], f"cali{name}", WORKLOAD_MACS[name], own, (), tiers, tiers, ())
    return m.EndpointUpdate(ResourceKey("WorkloadEndpoint", name, "default"), 1, msgspec.structs.replace(body, **fields))


def forwards(name: str, outside: int, home: str = "") -> tuple[m.Forward, ...]:
    """The port outside leads to the workload's port 80."""
    return tuple(
        m.Forward(parse_address(FLOATING[family]), 6, outside, parse_address(ADDRESSES[name][family]), 80, home) for family in FAMILIES
    )


def elsewhere(host: str, port: int) -> tuple[m.ForwardElsewhere, ...]:
    addresses = tuple(parse_address(text) for text in ADDRESSES[host])
    return tuple(m.ForwardElsewhere(parse_address(text), 6, port, port, host, addresses) for text in FLOATING)


class Hosts:
    """h1 announces the address; port 8080 leads to a there, port 8081 to c on h2."""

    def __init__(self, fabric: TwoHosts) -> None:
        self.agents = {host: HostAgent(fabric, host) for host in ("h1", "h2")}
        self.passing = PassingManager(netns.run_in(fabric.namespace("h1"), open_rtnetlink))
        pools = m.SetUpdate(m.ALL_POOLS, m.SetKind.NETS, frozenset(map(parse_prefix, ("10.65.0.0/16", "fd65::/16"))))
        sources = m.Side(nets=tuple(parse_prefix(text) for text in ADDRESSES["x"]))
        only_x = m.Policy((m.Rule(m.Action.ALLOW, source=sources),), (ALLOW,))
        for agent in self.agents.values():
            agent.tell(pools, m.PolicyUpdate(OPEN, m.Policy((ALLOW,), (ALLOW,))), m.PolicyUpdate(FROM_X, only_x))
        home = endpoint("a", forwards=forwards("a", 8080), elsewhere=elsewhere("h2", 8081))
        self.agents["h1"].tell(home, endpoint("b"))
        self.agents["h2"].tell(endpoint("c", forwards=forwards("c", 8081, "h1")))
        self.passing.on_endpoint_update(home)
        self.passing.apply()

    def close(self) -> None:
        self.passing.on_endpoint_remove(m.EndpointRemove(endpoint("a").key))
        self.passing.apply()
        assert self.passing.rtnetlink.port_rules() == []
        self.passing.rtnetlink.close()
        for agent in self.agents.values():
            agent.close()


@pytest.fixture(scope="module")
def fabric() -> Iterator[TwoHosts]:
    with two_hosts() as made:
        made.ip("h2", f"route add {FLOATING[0]} via {ADDRESSES['h1'][0]}", f"route add {FLOATING[1]} via {ADDRESSES['h1'][1]}")
        made.ip("h1", *(f"route add {address} dev calia" for address in FLOATING))
        yield made


@pytest.fixture
def hosts(fabric: TwoHosts) -> Iterator[Hosts]:
    made = Hosts(fabric)
    yield made
    made.close()


def peer_of(fabric: TwoHosts, source: str, target: str, address: str, port: int) -> str:
    """The client's address, as the target sees it, of a connection that carries bytes both ways; empty: there is none."""
    family = family_of(address)
    server, client = fabric.socket(target, family, socket.SOCK_STREAM), fabric.socket(source, family, socket.SOCK_STREAM)
    with contextlib.closing(server), contextlib.closing(client):
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", 80))
        server.listen()
        client.setblocking(False)
        client.connect_ex((address, port))
        if not arrives(server):
            return ""
        accepted, peer = server.accept()
        with contextlib.closing(accepted):
            accepted.sendall(b"welcome")
            assert arrives(client) and client.recv(100) == b"welcome"
            client.sendall(b"thanks")
            assert arrives(accepted) and accepted.recv(100) == b"thanks"
        return str(peer[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_client_reaches_the_host_that_the_port_leads_to(fabric: TwoHosts, hosts: Hosts, family: int) -> None:
    address = FLOATING[family]
    for source in ("x", "b", "h1", "a", "c"):
        local = source == "c"  # it meets itself, and would drop what comes from its own address
        assert peer_of(fabric, source, "c", address, 8081) == (address if local else ADDRESSES[source][family])
    for source in ("x", "b", "c", "a"):
        assert peer_of(fabric, source, "a", address, 8080) == (address if source == "a" else ADDRESSES[source][family])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_other_hosts_policy_sees_the_client(fabric: TwoHosts, hosts: Hosts, family: int) -> None:
    hosts.agents["h2"].tell(endpoint("c", FROM_X, forwards=forwards("c", 8081, "h1")))
    assert peer_of(fabric, "x", "c", FLOATING[family], 8081) == ADDRESSES["x"][family]
    assert not peer_of(fabric, "b", "c", FLOATING[family], 8081)


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_passed_on_that_is_not_wanted(fabric: TwoHosts, hosts: Hosts, family: int) -> None:
    home = endpoint("a", forwards=forwards("a", 8080))
    hosts.agents["h1"].tell(home)
    hosts.passing.on_endpoint_update(home)
    hosts.passing.apply()
    assert not peer_of(fabric, "x", "c", FLOATING[family], 8081)
    assert peer_of(fabric, "x", "a", FLOATING[family], 8080)


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_do_not_come_back_through_home_even_if_that_has_host_endpoints(fabric: TwoHosts, hosts: Hosts, family: int) -> None:
    """x has another link, to h2: of its connections h1 sees one half only."""
    key = ResourceKey("HostEndpoint", "h1")
    hosts.agents["h1"].tell(m.HostEndpointUpdate(key, 1, m.HostEndpoint("h1", "*", ())))
    fabric.link("h2", "eth9", "x", "eth9")
    try:
        for place, (v4, v6) in (("h2", ("10.3.0.1", "fd03::1")), ("x", ("10.3.0.2", "fd03::2"))):
            fabric.ip(place, f"addr add {v4}/24 dev eth9", f"addr add {v6}/64 dev eth9 nodad")
        fabric.ip("h2", f"route add {ADDRESSES['x'][0]} via 10.3.0.2", f"route add {ADDRESSES['x'][1]} via fd03::2")
        assert peer_of(fabric, "x", "c", FLOATING[family], 8081) == ADDRESSES["x"][family]
        hosts.passing.on_endpoint_remove(m.EndpointRemove(endpoint("a").key))
        hosts.passing.apply()
        assert not peer_of(fabric, "x", "c", FLOATING[family], 8081)
    finally:
        fabric.ip("h2", "link del dev eth9")

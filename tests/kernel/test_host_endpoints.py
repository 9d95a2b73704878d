"""Host endpoints in a real kernel, judged by packets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from two_hosts import ADDRESSES, H1_OUTSIDE, WORKLOAD_MACS, WORKLOADS, HostAgent, TwoHosts, two_hosts

from tabinet.calc import messages as m
from tabinet.kernel.nftexpr import ifname
from tabinet.lib.ip import parse_address, parse_prefix
from tabinet.model.keys import ResourceKey
from tabinet.rules.denied import DENIED

pytestmark = pytest.mark.kernel

FAMILIES = (0, 1)
OPEN = ResourceKey("GlobalNetworkPolicy", "open")
POLICY = ResourceKey("GlobalNetworkPolicy", "policy")
KEY = ResourceKey("HostEndpoint", "h1-eth1")
ALLOW, DENY = m.Action.ALLOW, m.Action.DENY
ALL = m.Policy((m.Rule(ALLOW),), (m.Rule(ALLOW),))
ICMP = (m.Rule(ALLOW, protocol=1), m.Rule(ALLOW, protocol=58))


def tier(*policies: ResourceKey) -> tuple[m.TierPolicies, ...]:
    return (m.TierPolicies("default", DENY, policies),)


def port(number: int, action: m.Action = ALLOW, protocol: int = 6, **fields) -> m.Rule:
    return m.Rule(action, protocol=protocol, destination=m.Side(ports=(m.PortRange(number, number),)), **fields)


def host_endpoint(interface: str = "eth1", **fields) -> m.HostEndpointUpdate:
    return m.HostEndpointUpdate(KEY, 1, m.HostEndpoint("h1", interface, (), **fields))


@pytest.fixture(scope="module")
def fabric() -> Iterator[TwoHosts]:
    with two_hosts() as made:
        yield made


@pytest.fixture
def agent(fabric: TwoHosts) -> Iterator[HostAgent]:
    """h1 with its workloads allowed everything."""
    made = HostAgent(fabric, "h1")
    updates: list[m.Update] = [m.PolicyUpdate(OPEN, ALL), m.ProfileUpdate("allow", ALL)]
    for name, host in WORKLOADS.items():
        if host == "h1":
            nets = tuple(parse_address(text) for text in ADDRESSES[name])
            body = m.Endpoint("h1", f"cali{name}", WORKLOAD_MACS[name], nets, (), tier(OPEN), tier(OPEN), ())
            updates.append(m.EndpointUpdate(ResourceKey("WorkloadEndpoint", name, "default"), 1, body))
    made.tell(*updates)
    yield made
    made.close()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("interface", ["eth1", "*"])
def test_an_endpoint_without_policy_closes_all_but_the_failsafe_ports(fabric: TwoHosts, agent: HostAgent, interface: str, family: int):
    h1, x = H1_OUTSIDE[family], ADDRESSES["x"][family]
    assert fabric.ping("x", h1) and fabric.connects("h1", "x", x, 8080)
    agent.tell(host_endpoint(interface))
    assert not fabric.ping("x", h1) and not fabric.ping("h1", x)
    assert fabric.connects("x", "h1", h1, 22) and fabric.connects("h1", "x", x, 179)
    assert not fabric.connects("x", "h1", h1, 80) and not fabric.connects("h1", "x", x, 8080)
    assert fabric.udp("x", "h1", h1, 3784) and fabric.udp("h1", "x", x, 3784), "BFD keeps the routes up"
    for via in DENIED if interface == "eth1" else ():
        assert agent.nft.read_element_counters(DENIED[via])[ifname("eth1")][0] > 0
    assert fabric.connects("h1", "h1", ADDRESSES["h1"][family], 8081), "the loopback interface is nobody's"
    # Workloads, and what the host says to them, are no affair of it; nor is what it forwards.
    assert (
        fabric.ping("h1", ADDRESSES["a"][family]) and fabric.ping("x", ADDRESSES["a"][family]) and fabric.ping("x", ADDRESSES["c"][family])
    )
    assert fabric.ping("h1", ADDRESSES["h2"][family]) is (interface == "eth1")
    agent.tell(m.HostEndpointRemove(KEY))
    assert fabric.ping("x", h1)


@pytest.mark.parametrize("family", FAMILIES)
def test_normal_policy_and_profiles(fabric: TwoHosts, agent: HostAgent, family: int):
    h1, x = H1_OUTSIDE[family], ADDRESSES["x"][family]
    agent.tell(m.PolicyUpdate(POLICY, m.Policy((port(80),), (port(8080), *ICMP))), host_endpoint(ingress=tier(POLICY), egress=tier(POLICY)))
    assert fabric.connects("x", "h1", h1, 80) and not fabric.connects("x", "h1", h1, 81) and not fabric.ping("x", h1)
    assert fabric.connects("h1", "x", x, 8080) and not fabric.connects("h1", "x", x, 80) and fabric.ping("h1", x)
    with contextlib.closing(fabric.tcp("x", "h1", h1, 80)) as connection:
        assert connection.carries()
        assert agent.tell(m.PolicyUpdate(POLICY, m.Policy((port(81),), (port(8080),)))).revoked
        assert not connection.carries() and not connection.carries(forward=False)
    agent.tell(host_endpoint(profiles=("allow",)))
    assert fabric.ping("x", h1) and fabric.connects("h1", "x", x, 80)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_flow_older_than_the_endpoint_is_judged(fabric: TwoHosts, agent: HostAgent, family: int):
    with contextlib.closing(fabric.tcp("x", "h1", H1_OUTSIDE[family], 8000)) as connection:
        assert connection.carries()
        agent.tell(host_endpoint())
        assert not connection.carries(forward=False)
    with contextlib.closing(fabric.tcp("x", "h1", H1_OUTSIDE[family], 22)) as connection:
        agent.tell(host_endpoint(profiles=("allow",)))
        agent.tell(host_endpoint())
        assert connection.carries(forward=False), "a reply may be the first packet that is judged again"


@pytest.mark.parametrize("family", FAMILIES)
def test_forwarded_traffic_needs_only_policy_that_applies_on_forward(fabric: TwoHosts, agent: HostAgent, family: int):
    a, c, h2 = (ADDRESSES[name][family] for name in ("a", "c", "h2"))
    rules = m.Policy((port(80), *ICMP), (port(8080),))
    agent.tell(m.PolicyUpdate(POLICY, rules), host_endpoint(forward_ingress=tier(POLICY), forward_egress=tier(POLICY)))
    for target in ("a", "c"):
        assert fabric.connects("x", target, ADDRESSES[target][family], 80)
        assert not fabric.connects("x", target, ADDRESSES[target][family], 8080)
    assert fabric.ping("x", h2) and not fabric.ping("x", H1_OUTSIDE[family])
    x = ADDRESSES["x"][family]
    assert fabric.connects("a", "x", x, 8080) and not fabric.connects("a", "x", x, 80)
    assert fabric.connects("c", "x", x, 8080) and not fabric.connects("c", "x", x, 80)
    assert fabric.ping("a", c) and fabric.ping("b", a), "other interfaces are free"
    with contextlib.closing(fabric.tcp("x", "c", c, 80)) as connection:
        assert connection.carries()
        agent.tell(m.PolicyUpdate(POLICY, m.Policy((), ())))
        assert not connection.carries(forward=False) and not connection.carries()


@pytest.mark.parametrize("family", FAMILIES)
def test_policy_before_translation_decides_first_and_by_where_it_was_sent(fabric: TwoHosts, agent: HostAgent, family: int):
    h1 = H1_OUTSIDE[family]
    policy = m.Policy((port(80), port(81, DENY), m.Rule(DENY, protocol=17)), ())
    agent.tell(m.PolicyUpdate(POLICY, policy), host_endpoint(pre_dnat=tier(POLICY), profiles=("allow",)))
    assert fabric.connects("x", "h1", h1, 80) and not fabric.connects("x", "h1", h1, 81)
    assert fabric.connects("x", "h1", h1, 82), "what it does not decide goes on"
    assert not fabric.udp("x", "a", ADDRESSES["a"][family], 5000) and fabric.udp("c", "a", ADDRESSES["a"][family], 5000)
    agent.tell(host_endpoint(pre_dnat=tier(POLICY)))
    assert fabric.connects("x", "h1", h1, 80), "it decides before normal policy"
    assert not fabric.connects("x", "h1", h1, 82) and fabric.connects("x", "h1", h1, 22)
    with contextlib.closing(fabric.tcp("x", "h1", h1, 80)) as connection:
        agent.tell(m.HostEndpointUpdate(KEY, 2, m.HostEndpoint("h1", "eth1", (), pre_dnat=tier(POLICY), forward_ingress=tier(POLICY))))
        assert connection.carries(forward=False), "a reply is judged as the first packet was"


@pytest.mark.parametrize("family", FAMILIES)
def test_untracked_policy(fabric: TwoHosts, agent: HostAgent, family: int):
    h1, x = H1_OUTSIDE[family], ADDRESSES["x"][family]
    service = m.Rule(ALLOW, protocol=17, destination=m.Side(ports=(m.PortRange(53, 53),)))
    answers = m.Rule(ALLOW, protocol=17, source=m.Side(ports=(m.PortRange(53, 53),)))
    refuse = m.Rule(DENY, protocol=17, source=m.Side(nets=(parse_prefix(x),)), destination=m.Side(ports=(m.PortRange(54, 54),)))
    agent.tell(
        m.PolicyUpdate(POLICY, m.Policy((service, refuse), (answers,))),
        host_endpoint(untracked_ingress=tier(POLICY), untracked_egress=tier(POLICY), profiles=("allow",)),
    )
    assert fabric.udp("x", "h1", h1, 53) and not fabric.udp("x", "h1", h1, 54) and fabric.udp("x", "h1", h1, 55)
    assert fabric.udp("h1", "x", x, 5353, source_port=53)
    assert not connections(fabric, h1, 53) and connections(fabric, h1, 55)
    # Without policy that tracks, only what is untracked passes, both ways.
    agent.tell(host_endpoint(untracked_ingress=tier(POLICY), untracked_egress=tier(POLICY)))
    assert fabric.udp("x", "h1", h1, 53) and fabric.udp("h1", "x", x, 5354, source_port=53)
    assert not fabric.udp("x", "h1", h1, 55)
    assert fabric.connects("x", "h1", h1, 22), "failsafe ports stay tracked and open"
    assert fabric.udp("x", "a", ADDRESSES["a"][family], 53), "workloads' traffic stays tracked"


def connections(fabric: TwoHosts, address: str, port_number: int) -> bool:
    """h1 tracks a flow to there."""
    from tabinet.kernel import netns

    def read() -> str:
        with open("/proc/thread-self/net/nf_conntrack") as file:
            return file.read()

    text = address if "." in address else ":".join(f"{int(part or '0', 16):04x}" for part in expanded(address))
    return any(
        f"dst={text} " in line and f"dport={port_number} " in line for line in netns.run_in(fabric.namespace("h1"), read).splitlines()
    )


def expanded(address: str) -> list[str]:
    import ipaddress

    return ipaddress.ip_address(address).exploded.split(":")


@pytest.mark.parametrize("family", FAMILIES)
def test_an_endpoint_may_be_found_by_its_address(fabric: TwoHosts, agent: HostAgent, family: int):
    addresses = tuple(parse_address(text) for text in H1_OUTSIDE)
    agent.tell(m.HostEndpointUpdate(KEY, 1, m.HostEndpoint("h1", "", addresses)))
    assert fabric.ping("x", H1_OUTSIDE[family])
    agent.builder.on_interfaces({"eth0": frozenset(), "eth1": frozenset(addresses)})
    agent.tell()
    assert not fabric.ping("x", H1_OUTSIDE[family]) and fabric.ping("h1", ADDRESSES["h2"][family])

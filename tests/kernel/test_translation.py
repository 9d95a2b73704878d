"""Address translation and quality of service in a real kernel, judged by packets."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import msgspec
import pytest
from one_host import arrives, eventually, family_of
from two_hosts import ADDRESSES, GATEWAY, H1_OUTSIDE, WORKLOAD_MACS, WORKLOADS, HostAgent, TwoHosts, two_hosts

from tabinet.calc import messages as m
from tabinet.kernel import netns
from tabinet.kernel.rtsocket import open_rtnetlink
from tabinet.lib.ip import parse_address, parse_prefix
from tabinet.model.keys import ResourceKey
from tabinet.rules.options import DenyAction, Metadata, ProtoPort, TableOptions

pytestmark = pytest.mark.kernel

FAMILIES = (0, 1)
OPEN, DENIED = ResourceKey("GlobalNetworkPolicy", "open"), ResourceKey("GlobalNetworkPolicy", "denied")
ALLOW, DENY = m.Action.ALLOW, m.Action.DENY
ALL = m.Policy((m.Rule(ALLOW),), (m.Rule(ALLOW),))
POOLS = frozenset(map(parse_prefix, ("10.65.0.0/16", "fd65::/32", "fd65:1::/32", "fd65:2::/32")))
EXTERNAL = ("192.0.2.10", "2001:db8::10")
"""Floating addresses of a; h1 is where they are routed to."""
SPARE = ("192.0.2.11", "2001:db8::11")


def tier(*policies: ResourceKey) -> tuple[m.TierPolicies, ...]:
    return (m.TierPolicies("default", DENY, policies),)


def nets(name: str) -> tuple:
    return tuple(parse_address(text) for text in ADDRESSES[name])


def endpoint(name: str, policy: ResourceKey = OPEN, **fields) -> m.EndpointUpdate:
    body = m.Endpoint(WORKLOADS[name], f"cali{name}", WORKLOAD_MACS[name], nets(name), (), tier(policy), tier(policy), ())
    return m.EndpointUpdate(ResourceKey("WorkloadEndpoint", name, "default"), 1, msgspec.structs.replace(body, **fields))


def floating(*pairs: tuple[tuple[str, str], str]) -> tuple[m.Nat, ...]:
    return tuple(m.Nat(parse_address(external[family]), nets(name)[family]) for external, name in pairs for family in FAMILIES)


def pools(nat: bool) -> list[m.Update]:
    hosts = frozenset(parse_address(text) for host in ("h1", "h2") for text in ADDRESSES[host])
    return [
        m.SetUpdate(m.ALL_POOLS, m.SetKind.NETS, POOLS),
        m.SetUpdate(m.NAT_POOLS, m.SetKind.NETS, POOLS if nat else frozenset()),
        m.SetUpdate(m.ALL_HOSTS, m.SetKind.NETS, hosts),
    ]


@pytest.fixture(scope="module")
def fabric() -> Iterator[TwoHosts]:
    with two_hosts() as made:
        for external in (EXTERNAL, SPARE):
            made.ip("h2", f"route add {external[0]} via {ADDRESSES['h1'][0]}", f"route add {external[1]} via {ADDRESSES['h1'][1]}")
            made.ip("h1", f"route add {external[0]} dev eth1", f"route add {external[1]} dev eth1")
        know_neighbours(made)
        yield made


def know_neighbours(fabric: TwoHosts) -> None:
    """Workloads and their hosts know each other for good: nobody asks in the middle of a test, which would count against a packet rate."""
    for name, host in WORKLOADS.items():
        rtnetlink = netns.run_in(fabric.namespace(host), open_rtnetlink)
        link = rtnetlink.link(f"cali{name}")
        rtnetlink.close()
        assert link is not None
        for there, device, mac, addresses in (
            (name, "eth0", link.mac, (GATEWAY, "fe80::1")),
            (host, link.name, WORKLOAD_MACS[name], ADDRESSES[name]),
        ):
            fabric.ip(there, *(f"neigh replace {address} lladdr {mac} dev {device} nud permanent" for address in addresses))


@contextlib.contextmanager
def agents(fabric: TwoHosts, options: TableOptions | None = None, *, nat: bool = False) -> Iterator[dict[str, HostAgent]]:
    """Both hosts with their workloads allowed everything."""
    made = {host: HostAgent(fabric, host, options) for host in ("h1", "h2")}
    try:
        for host, agent in made.items():
            local = [endpoint(name) for name in WORKLOADS if WORKLOADS[name] == host]
            agent.tell(m.PolicyUpdate(OPEN, ALL), *pools(nat), *local)
        yield made
    finally:
        for agent in made.values():
            agent.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_ports_of_one_address_lead_to_several_endpoints(fabric: TwoHosts, family: int):
    def forward(name: str, protocol: int, outside: int, inside: int) -> m.Forward:
        return m.Forward(parse_address(EXTERNAL[family]), protocol, outside, nets(name)[family], inside)

    external = EXTERNAL[family]
    with agents(fabric) as hosts:
        tell = hosts["h1"].tell
        tell(endpoint("a", forwards=(forward("a", 6, 8080, 80), forward("a", 17, 5000, 5001))))
        tell(endpoint("b", forwards=(forward("b", 6, 8081, 80),)))
        for name, port in (("a", 8080), ("b", 8081)):
            for source in ("x", "c"):
                assert reaches_listener(fabric, source, name, external, port, 80)
        assert not reaches_listener(fabric, "x", "a", external, 8082, 80)
        tell(endpoint("b"))
        assert reaches_listener(fabric, "x", "a", external, 8080, 80)
        assert not reaches_listener(fabric, "x", "b", external, 8081, 80)
        tell(endpoint("a", DENIED, forwards=(forward("a", 6, 8080, 80),)), m.PolicyUpdate(DENIED, m.Policy((), ())))
        assert not reaches_listener(fabric, "x", "a", external, 8080, 80), "policy decides about the endpoint's own port"


@pytest.mark.parametrize("family", FAMILIES)
def test_ports_of_the_host_itself_lead_to_an_endpoint_whatever_floating_addresses_are_set_to(fabric: TwoHosts, family: int):
    host, inside = ADDRESSES["h1"][family], nets("a")[family]
    own = m.Forward(parse_address(host), 6, 8080, inside, 80, own=True)
    floating = m.Forward(parse_address(EXTERNAL[family]), 6, 8080, inside, 80)
    with agents(fabric, TableOptions(floating_addresses=False)) as hosts:
        hosts["h1"].tell(endpoint("a", forwards=(own, floating)))
        for source in ("x", "c", "b", "h1"):
            assert reaches_listener(fabric, source, "a", host, 8080, 80), source
        assert not reaches_listener(fabric, "x", "a", EXTERNAL[family], 8080, 80)
        hosts["h1"].tell(endpoint("a"))
        assert not reaches_listener(fabric, "x", "a", host, 8080, 80)


def reaches_listener(fabric: TwoHosts, source: str, target: str, address: str, port: int, listening: int) -> bool:
    """A connection to the address and port is accepted by the target on another port, and carries bytes."""
    family = family_of(address)
    server, client = fabric.socket(target, family, socket.SOCK_STREAM), fabric.socket(source, family, socket.SOCK_STREAM)
    with contextlib.closing(server), contextlib.closing(client):
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", listening))
        server.listen()
        client.setblocking(False)
        client.connect_ex((address, port))
        if not arrives(server):
            return False
        accepted = server.accept()[0]
        with contextlib.closing(accepted):
            accepted.sendall(b"welcome")
            return arrives(client) and client.recv(100) == b"welcome"


@pytest.mark.parametrize("family", FAMILIES)
def test_outgoing_translation_is_for_what_leaves_the_fabric(fabric: TwoHosts, family: int):
    x, a, c, h2 = (ADDRESSES[name][family] for name in ("x", "a", "c", "h2"))
    with agents(fabric) as hosts:
        assert fabric.udp("a", "x", x, 5000) == a
        hosts["h1"].tell(*pools(nat=True))
        assert fabric.udp("a", "x", x, 5000) == H1_OUTSIDE[family]
        assert fabric.connects("a", "x", x, 80) and fabric.ping("a", x)
        assert fabric.udp("a", "c", c, 5000) == a, "a pool's address is inside"
        assert fabric.udp("a", "b", ADDRESSES["b"][family], 5000) == a
        assert fabric.udp("a", "h2", h2, 5001) == ADDRESSES["h1"][family]
        assert fabric.udp("x", "a", a, 5000) == x, "what comes in keeps its source"
        hosts["h1"].tell(*pools(nat=False))
        assert fabric.udp("a", "x", x, 5002) == a


@pytest.mark.parametrize("family", FAMILIES)
def test_outgoing_translation_spares_hosts_and_takes_ports_and_addresses_as_told(fabric: TwoHosts, family: int):
    address = tuple(parse_address(text) for text in SPARE)
    options = TableOptions(nat_spares_hosts=True, nat_ports=m.PortRange(40000, 40009), nat_addresses=address)
    with agents(fabric, options, nat=True):
        assert fabric.udp("a", "h2", ADDRESSES["h2"][family], 5000) == ADDRESSES["a"][family]
        x = ADDRESSES["x"][family]
        with contextlib.closing(fabric.tcp("a", "x", x, 80)) as connection:
            assert connection.established and connection.carries()
            source = connection.server.getpeername()
            assert source[0] == SPARE[family] and 40000 <= source[1] <= 40009
        assert fabric.ping("a", x)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_floating_address(fabric: TwoHosts, family: int):
    external, a, x = EXTERNAL[family], ADDRESSES["a"][family], ADDRESSES["x"][family]
    with agents(fabric) as hosts:
        h1 = hosts["h1"]
        h1.tell(endpoint("a", nats=floating((EXTERNAL, "a"))))
        for source in ("x", "b", "c"):
            assert fabric.udp(source, "a", external, 5000) == ADDRESSES[source][family], source
            assert fabric.connects(source, "a", external, 80) and fabric.ping(source, external)
        assert fabric.connects("h1", "a", external, 80)
        assert fabric.udp("a", "a", external, 5001) == external, "an endpoint meets itself"
        assert fabric.connects("a", "a", external, 81)
        assert fabric.udp("a", "x", x, 5000) == external, "outside it is known by its floating address"
        assert fabric.udp("a", "c", ADDRESSES["c"][family], 5000) == a and fabric.udp("b", "x", x, 5000) == ADDRESSES["b"][family]
        with contextlib.closing(fabric.tcp("x", "a", external, 80)) as connection:
            assert connection.carries()
            h1.tell(m.PolicyUpdate(OPEN, m.Policy((), (m.Rule(ALLOW),))))
            assert not connection.carries() and not connection.carries(forward=False), "a translated flow ends like any other"
        h1.tell(m.PolicyUpdate(OPEN, ALL), endpoint("a"), endpoint("b", nats=floating((EXTERNAL, "b"))))
        assert not fabric.udp("x", "a", external, 5003) and fabric.udp("x", "b", external, 5003)
        h1.tell(endpoint("b"))
        assert not fabric.udp("x", "b", external, 5004)


@pytest.mark.parametrize("family", FAMILIES)
def test_policy_sees_the_own_address_of_a_floating_one(fabric: TwoHosts, family: int):
    policy = ResourceKey("GlobalNetworkPolicy", "own")
    to_a = m.Side(nets=(nets("a")[family],))
    rules = m.Policy((m.Rule(ALLOW, protocol=6, destination=to_a),), (m.Rule(ALLOW, destination=to_a),))
    with agents(fabric) as hosts:
        hosts["h1"].tell(m.PolicyUpdate(policy, rules), endpoint("a", policy, nats=floating((EXTERNAL, "a"))), endpoint("b", policy))
        assert fabric.connects("x", "a", EXTERNAL[family], 80) and fabric.connects("b", "a", EXTERNAL[family], 80)
        assert not fabric.udp("x", "a", EXTERNAL[family], 5000)


@pytest.mark.parametrize("family", FAMILIES)
def test_policy_before_translation_sees_the_floating_address(fabric: TwoHosts, family: int):
    policy = ResourceKey("GlobalNetworkPolicy", "before")
    refuse = m.Rule(DENY, destination=m.Side(nets=(parse_prefix(EXTERNAL[family]),), ports=(m.PortRange(81, 81),)), protocol=6)
    with agents(fabric) as hosts:
        h1 = hosts["h1"]
        h1.tell(m.PolicyUpdate(policy, m.Policy((refuse,), ())), endpoint("a", nats=floating((EXTERNAL, "a"))))
        h1.tell(m.HostEndpointUpdate(ResourceKey("HostEndpoint", "h1"), 1, m.HostEndpoint("h1", "*", (), pre_dnat=tier(policy))))
        assert fabric.connects("x", "a", EXTERNAL[family], 80) and not fabric.connects("x", "a", EXTERNAL[family], 81)
        assert fabric.connects("x", "a", ADDRESSES["a"][family], 81)
        assert fabric.connects("h1", "a", EXTERNAL[family], 82), "towards its workloads the host needs no policy"


def test_the_metadata_address_and_services_of_the_host(fabric: TwoHosts):
    h1 = parse_address(ADDRESSES["h1"][0])
    none = ResourceKey("GlobalNetworkPolicy", "none")
    with agents(fabric, TableOptions(metadata=Metadata(h1, 8775), host_services=(ProtoPort(17, 53),))) as hosts:
        agent = hosts["h1"]
        agent.tell(m.PolicyUpdate(none, m.Policy((), ())), endpoint("a", none))
        with (
            contextlib.closing(fabric.socket("h1", socket.AF_INET, socket.SOCK_STREAM)) as server,
            contextlib.closing(fabric.socket("a", socket.AF_INET, socket.SOCK_STREAM)) as client,
        ):
            server.bind((ADDRESSES["h1"][0], 8775))
            server.listen()
            client.connect(("169.254.169.254", 80))
            peer = server.accept()[0]
            with contextlib.closing(peer):
                agent.tell(endpoint("b", none))  # a new generation: the answer is the next packet to be judged
                peer.send(b"who you are")
                assert client.recv(20) == b"who you are"
        assert fabric.udp("a", "h1", ADDRESSES["h1"][0], 53) and not fabric.udp("a", "h1", ADDRESSES["h1"][0], 54)
        assert fabric.udp("a", "h1", ADDRESSES["h1"][1], 53)


def test_another_hardware_address_passes_nothing(fabric: TwoHosts):
    with agents(fabric) as hosts:
        assert fabric.ping("a", ADDRESSES["b"][0]) and fabric.ping("a", ADDRESSES["b"][1])
        hosts["h1"].tell(endpoint("a", mac="02:00:00:00:00:ff"))
        assert not fabric.ping("a", ADDRESSES["b"][0]) and not fabric.ping("a", ADDRESSES["b"][1])
        assert hosts["h1"].driver.counters().denied["unknown interface or hardware address"].packets
        hosts["h1"].tell(endpoint("a", mac=""))
        assert fabric.ping("a", ADDRESSES["b"][0]) and fabric.ping("a", ADDRESSES["b"][1])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("source", "target", "limited"), [("a", "c", "a"), ("c", "a", "a"), ("h1", "a", "a"), ("a", "b", "b")])
def test_packet_rate(fabric: TwoHosts, source: str, target: str, limited: str, family: int):
    slow = m.Limits(packets_per_s=1, packet_burst=3)
    qos = m.Qos(egress=slow) if source == limited else m.Qos(ingress=slow)
    with agents(fabric) as hosts:
        hosts["h1"].tell(endpoint(limited, qos=qos))
        assert 3 <= received(fabric, source, target, ADDRESSES[target][family], 30) <= 5
        hosts["h1"].tell(endpoint(limited))
        assert received(fabric, source, target, ADDRESSES[target][family], 30) == 30


def received(fabric: TwoHosts, source: str, target: str, address: str, count: int, size: int = 1) -> int:
    """How many of that many datagrams arrive."""
    family = 1 if ":" in address else 0
    kind = socket.AF_INET6 if family else socket.AF_INET
    with (
        contextlib.closing(fabric.socket(target, kind, socket.SOCK_DGRAM)) as receiver,
        contextlib.closing(fabric.socket(source, kind, socket.SOCK_DGRAM)) as sender,
    ):
        receiver.bind((ADDRESSES[target][family], 6000))
        for _ in range(count):
            with contextlib.suppress(PermissionError):  # the kernel tells a sender on the same host
                sender.sendto(b"x" * size, (address, 6000))
        found = 0
        while found < count and arrives(receiver):
            receiver.recv(size)
            found += 1
        return found


@pytest.mark.parametrize("family", FAMILIES)
def test_number_of_connections(fabric: TwoHosts, family: int):
    two = m.Limits(connections=2)
    with agents(fabric) as hosts, contextlib.ExitStack() as stack:
        h1 = hosts["h1"]
        h1.tell(endpoint("a", qos=m.Qos(ingress=two)))

        def connection(source: str, target: str, port: int):
            return stack.enter_context(contextlib.closing(fabric.tcp(source, target, ADDRESSES[target][family], port)))

        first, second = fabric.tcp("c", "a", ADDRESSES["a"][family], 80), connection("b", "a", 81)
        assert first.established and second.established and not connection("c", "a", 82).established
        assert connection("a", "c", 83).established and connection("c", "b", 84).established
        h1.tell(m.PolicyUpdate(OPEN, m.Policy((m.Rule(ALLOW, protocol=6),), ALL.egress)))
        assert first.carries() and second.carries(), "what was let in stays, also when it is judged again"
        assert not connection("c", "a", 85).established
        first.close()
        # A closed connection is counted until the kernel's clock has ticked (nf_conncount.c, last_gc).
        assert eventually(lambda: connection("c", "a", 86).established)
        h1.tell(endpoint("a", qos=m.Qos(egress=m.Limits(connections=1))))
        assert connection("a", "c", 87).established and not connection("a", "b", 88).established


@pytest.mark.parametrize("family", FAMILIES)
def test_dscp_of_what_a_workload_sends(fabric: TwoHosts, family: int):
    kind, level, option = (socket.AF_INET6, 41, 66) if family else (socket.AF_INET, 0, 13)  # IPV6_RECVTCLASS, IP_RECVTOS
    with agents(fabric) as hosts:
        for wanted in (None, 46):
            hosts["h1"].tell(endpoint("a", qos=m.Qos(dscp=wanted)))
            with (
                contextlib.closing(fabric.socket("c", kind, socket.SOCK_DGRAM)) as receiver,
                contextlib.closing(fabric.socket("a", kind, socket.SOCK_DGRAM)) as sender,
            ):
                receiver.setsockopt(level, option, 1)
                receiver.bind((ADDRESSES["c"][family], 6001))
                sender.sendto(b"x", (ADDRESSES["c"][family], 6001))
                _, ancillary, _, _ = receiver.recvmsg(10, 100)
                assert ancillary[0][2][0] >> 2 == (wanted or 0)
            assert fabric.connects("a", "c", ADDRESSES["c"][family], 80), "checksums are right"


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_denied_may_be_rejected(fabric: TwoHosts, family: int):
    policy = ResourceKey("GlobalNetworkPolicy", "few")
    with agents(fabric, TableOptions(deny=DenyAction.REJECT)) as hosts:
        hosts["h1"].tell(m.PolicyUpdate(policy, m.Policy((), ())), endpoint("a", policy))
        kind = socket.AF_INET6 if family else socket.AF_INET
        for source in ("c", "b", "a"):
            target = ADDRESSES["a" if source != "a" else "c"][family]
            with contextlib.closing(fabric.socket(source, kind, socket.SOCK_STREAM)) as client, pytest.raises(ConnectionRefusedError):
                client.connect((target, 80))
            with contextlib.closing(fabric.socket(source, kind, socket.SOCK_DGRAM)) as client:
                client.connect((target, 5000))
                client.send(b"x")
                with pytest.raises(OSError) as caught:
                    client.recv(10)
                assert not isinstance(caught.value, TimeoutError), "an ICMP error comes back"


@pytest.mark.parametrize("family", FAMILIES)
def test_limits_of_a_floating_address_alone(fabric: TwoHosts, family: int):
    """Of a burst arrives what the bucket holds, in either direction, whoever began; the endpoint's own address is not concerned."""
    slow, size = m.Limits(bandwidth_bit_s=8000), 1400
    most = 65536 // (size + 28)
    external, own = EXTERNAL[family], ADDRESSES["a"][family]

    def limited(**fields) -> None:
        asked = m.AddressQos(parse_address(external), m.Qos(**fields))
        hosts["h1"].tell(endpoint("a", nats=floating((EXTERNAL, "a")), address_qos=(asked,) if fields else ()))

    def bursts() -> tuple[int, ...]:
        """To the address and from it, then to the endpoint's own and from that."""
        ways = (("x", "a", external), ("a", "x", ADDRESSES["x"][family]), ("x", "a", own), ("a", "c", ADDRESSES["c"][family]))
        return tuple(received(fabric, *way, SENT, size) for way in ways)

    with agents(fabric) as hosts:
        limited(ingress=slow)
        to, *others = bursts()
        assert most - 3 <= to <= most + 3 and others == [SENT] * 3
        limited(egress=slow)
        to, from_it, *others = bursts()
        assert most - 3 <= from_it <= most + 3 and [to, *others] == [SENT] * 3
        limited(egress=m.Limits(packets_per_s=1, packet_burst=3), dscp=8)
        assert 3 <= bursts()[1] <= 6
        limited()
        assert bursts() == (SENT,) * 4


SENT = 60
"""Fewer than a receive buffer holds."""


def test_translation_takes_nothing_from_who_needs_none(fabric: TwoHosts):
    with agents(fabric) as hosts:
        info = hosts["h1"].nft.read_table()
        assert not [name for name, hook in info.chains.items() if hook is not None and (hook.type == "nat" or "qos" in name)]

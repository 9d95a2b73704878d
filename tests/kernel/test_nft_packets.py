"""Policy in a real kernel, judged by packets."""

from __future__ import annotations

import contextlib
import itertools
import random
import select
import socket
import struct
import subprocess
from collections.abc import Iterator

import pytest
from fence import settle
from one_host import ADDRESSES, HOST, WORKLOADS, OneHost, checksum, eventually, family_of, one_host

from tabinet.calc import messages as m
from tabinet.dataplane.nft.driver import NftDriver
from tabinet.dataplane.nft.render import render_table
from tabinet.kernel import netns
from tabinet.kernel.nftables import DeleteTable, FlushSet
from tabinet.kernel.nftexpr import ifname, parse_ifname
from tabinet.kernel.nftsocket import NftSocket, open_nftables
from tabinet.lib.ip import parse_address, parse_prefix
from tabinet.model.keys import ResourceKey
from tabinet.rules.builder import TableBuilder
from tabinet.rules.denied import DENIED
from tabinet.rules.evaluate import Packet, evaluate
from tabinet.rules.ir import Via

pytestmark = pytest.mark.kernel

OUT = ResourceKey("NetworkPolicy", "out", "default")
SERVE = ResourceKey("NetworkPolicy", "serve", "default")
ALLOW_ALL = m.Policy((), (m.Rule(m.Action.ALLOW),))
FAMILIES = (0, 1)


def tier(*policies: ResourceKey) -> tuple[m.TierPolicies, ...]:
    return (m.TierPolicies("default", m.Action.DENY, policies),)


def endpoint(name: str, ingress: tuple[m.TierPolicies, ...], egress: tuple[m.TierPolicies, ...]) -> m.EndpointUpdate:
    nets = tuple(parse_address(text) for text in ADDRESSES[name])
    body = m.Endpoint("h", f"cali{name}", "", nets, (), ingress, egress, ())
    return m.EndpointUpdate(ResourceKey("WorkloadEndpoint", name, "default"), 1, body)


def members(*names: str) -> frozenset:
    return frozenset(parse_address(text) for name in names for text in ADDRESSES[name])


def serve_clients() -> m.Policy:
    """TCP 80, UDP 5000 to 5010 and echo requests from members of the set "clients"."""
    clients = m.Side(sets=("clients",))
    return m.Policy(
        (
            m.Rule(m.Action.ALLOW, protocol=6, source=clients, destination=m.Side(ports=(m.PortRange(80, 80),))),
            m.Rule(m.Action.ALLOW, protocol=17, source=clients, destination=m.Side(ports=(m.PortRange(5000, 5010),))),
            m.Rule(m.Action.ALLOW, protocol=1, icmp=m.Icmp(8, 0), source=clients),
            m.Rule(m.Action.ALLOW, protocol=58, icmp=m.Icmp(128), source=clients),
        ),
        (),
    )


class Agent:
    """Builder and driver in the host's namespace."""

    def __init__(self, fabric: OneHost) -> None:
        self.nft: NftSocket = netns.run_in(fabric.host, open_nftables)
        self.builder = TableBuilder()
        self.driver = NftDriver(self.nft)

    def start(self, *updates: m.Update):
        for update in updates:
            self.builder.on_update(update)
        self.builder.flush()
        return self.driver.resync(self.builder.table)

    def tell(self, *updates: m.Update):
        for update in updates:
            self.builder.on_update(update)
        return self.driver.apply(self.builder.flush())


@pytest.fixture(scope="module")
def fabric() -> Iterator[OneHost]:
    with one_host() as made:
        yield made


@pytest.fixture
def agent(fabric: OneHost) -> Iterator[Agent]:
    made = Agent(fabric)
    yield made
    if made.nft.read_table() is not None:
        made.nft.commit([DeleteTable()])
    made.nft.close()


def start_serving(agent: Agent) -> None:
    """a is a client of b; c is a stranger."""
    agent.start(
        m.SetUpdate("clients", m.SetKind.NETS, members("a")),
        m.PolicyUpdate(SERVE, serve_clients()),
        m.PolicyUpdate(OUT, ALLOW_ALL),
        endpoint("a", (), tier(OUT)),
        endpoint("b", tier(SERVE), tier(SERVE)),
        endpoint("c", (), tier(OUT)),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_allowed_arrives_and_nothing_else(fabric: OneHost, agent: Agent, family: int):
    start_serving(agent)
    server = ADDRESSES["b"][family]
    for port, allowed in ((80, True), (81, False)):
        with contextlib.closing(fabric.tcp("a", "b", server, port)) as connection:
            assert connection.established is allowed
            assert not allowed or (connection.carries() and connection.carries(forward=False))
    assert fabric.udp("a", "b", server, 5010)
    assert not fabric.udp("a", "b", server, 5011)
    assert fabric.ping("a", server)
    assert not fabric.ping("c", server)
    with contextlib.closing(fabric.tcp("c", "b", server, 80)) as connection:
        assert not connection.established
    # The server may answer, and begin nothing.
    assert not fabric.ping("b", ADDRESSES["a"][family])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_removed_permission_ends_the_flow_at_once_and_a_new_one_revives_it(fabric: OneHost, agent: Agent, family: int):
    start_serving(agent)
    with contextlib.closing(fabric.tcp("a", "b", ADDRESSES["b"][family], 80)) as connection:
        assert connection.carries()
        result = agent.tell(m.SetDelta("clients", frozenset(), members("a")))
        assert result.revoked and not result.resynced
        assert not connection.carries()
        assert not connection.carries(forward=False)
        result = agent.tell(m.SetDelta("clients", members("a"), frozenset()))
        assert not result.revoked and not result.resynced
        assert eventually(connection.carries)


def test_a_new_generation_disturbs_no_allowed_flow(fabric: OneHost, agent: Agent):
    start_serving(agent)
    with contextlib.closing(fabric.tcp("a", "b", ADDRESSES["b"][0], 80)) as connection:
        assert connection.carries()
        agent.tell(m.SetDelta("clients", members("c"), frozenset()))
        for forward in (False, True):  # a reply as the first packet of the generation is judged like the flow's own
            assert agent.tell(m.SetDelta("clients", frozenset(), members("c"))).revoked
            assert connection.carries(forward=forward)
            agent.tell(m.SetDelta("clients", members("c"), frozenset()))


def test_a_restart_sends_nothing_and_keeps_flows(fabric: OneHost, agent: Agent):
    start_serving(agent)
    with contextlib.closing(fabric.tcp("a", "b", ADDRESSES["b"][1], 80)) as connection:
        assert connection.carries()
        again = NftDriver(agent.nft)
        result = again.resync(agent.builder.table)
        assert (result.operations, result.revoked, again.generation) == (0, False, agent.driver.generation)
        assert connection.carries()


def test_a_restart_with_less_permission_ends_flows(fabric: OneHost, agent: Agent):
    start_serving(agent)
    with contextlib.closing(fabric.tcp("a", "b", ADDRESSES["b"][0], 80)) as connection:
        assert connection.carries()
        agent.builder.on_update(m.PolicyUpdate(SERVE, m.Policy((), ())))
        agent.builder.flush()
        assert NftDriver(agent.nft).resync(agent.builder.table).revoked
        assert not connection.carries()


def test_a_spoofed_source_is_dropped_and_makes_no_flow(fabric: OneHost, agent: Agent):
    start_serving(agent)
    request = struct.pack(">BBHHH", 8, 0, 0, 9, 1) + b"spoofed!"
    request = request[:2] + struct.pack(">H", checksum(request)) + request[4:]
    source, target = (socket.inet_aton(ADDRESSES[name][0]) for name in ("a", "b"))
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(request), 1, 0, 64, 1, 0, source, target)
    with contextlib.closing(fabric.socket("c", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)) as sender:
        sender.sendto(header + request, (ADDRESSES["b"][0], 0))
    assert eventually(lambda: agent.driver.counters().denied["spoofed source"].packets == 1)
    assert agent.nft.read_element_counters(DENIED[Via.IN])[ifname("calic")][0] == 1


def test_denied_packets_count_for_both_ends_and_restarts_keep_the_counts(fabric: OneHost, agent: Agent):
    start_serving(agent)

    def counts(way: Via) -> dict[str, int]:
        return {parse_ifname(key): packets for key, (packets, _) in agent.nft.read_element_counters(DENIED[way]).items()}

    before = counts(Via.IN), counts(Via.OUT)
    assert set(before[0]) == set(before[1]) == {"calia", "calib", "calic"}
    assert not fabric.udp("a", "b", ADDRESSES["b"][0], 5011)
    assert not fabric.udp("a", "b", ADDRESSES["b"][1], 5011)
    assert not fabric.ping("c", ADDRESSES["b"][0])
    assert fabric.udp("a", "b", ADDRESSES["b"][0], 5010), "what is allowed counts nowhere"
    after = counts(Via.IN), counts(Via.OUT)
    assert {name: after[0][name] - before[0][name] for name in after[0]} == {"calia": 2, "calib": 0, "calic": 1}
    assert {name: after[1][name] - before[1][name] for name in after[1]} == {"calia": 0, "calib": 3, "calic": 0}
    again = NftDriver(agent.nft)
    assert again.resync(agent.builder.table).operations == 0
    agent.tell(m.EndpointRemove(ResourceKey("WorkloadEndpoint", "c", "default")))
    assert (counts(Via.IN), counts(Via.OUT)) == tuple({name: n for name, n in half.items() if name != "calic"} for half in after)


def test_an_interface_that_nobody_announced_passes_nothing(fabric: OneHost, agent: Agent):
    start_serving(agent)
    agent.tell(m.EndpointRemove(ResourceKey("WorkloadEndpoint", "a", "default")))
    for family in FAMILIES:
        assert not fabric.ping("a", ADDRESSES["b"][family])
        assert not fabric.ping("c", ADDRESSES["a"][family])
        assert not fabric.ping("a", HOST[family])
    agent.tell(endpoint("a", (), tier(OUT)))
    assert fabric.ping("a", ADDRESSES["b"][0])


@pytest.mark.parametrize("family", FAMILIES)
def test_between_a_workload_and_its_host(fabric: OneHost, agent: Agent, family: int):
    start_serving(agent)
    assert fabric.ping("host", ADDRESSES["b"][family]), "what the host begins needs no policy"
    with contextlib.closing(fabric.tcp("host", "b", ADDRESSES["b"][family], 9000)) as connection:
        assert connection.established and connection.carries()
        agent.tell(m.SetDelta("clients", frozenset(), members("a")))
        assert connection.carries(forward=False), "a reply to the host is judged by who began"
    assert not fabric.ping("a", HOST[family]), "what the workload begins is dropped by default"


def test_a_set_that_outgrows_its_size_loses_nobody(fabric: OneHost, agent: Agent):
    start_serving(agent)
    with contextlib.closing(fabric.tcp("a", "b", ADDRESSES["b"][0], 80)) as connection:
        many = frozenset(parse_address(f"10.99.{index >> 8}.{index & 255}") for index in range(3000))
        result = agent.tell(m.SetDelta("clients", many | members("c"), frozenset()))
        assert not result.resynced and not result.revoked
        assert connection.carries() and fabric.ping("c", ADDRESSES["b"][0])
        assert len(agent.nft.read_elements("a4-clients.g2")) == 3002
        assert NftDriver(agent.nft).resync(agent.builder.table).operations == 0


def test_nets_that_overlap_come_and_go(fabric: OneHost, agent: Agent):
    start_serving(agent)
    nets = [frozenset({parse_prefix(text)}) for text in ("10.65.0.0/24", "10.65.0.0/16", "10.65.0.2/31", "10.64.0.0/16", "0.0.0.0/0")]
    for net in nets:
        assert not agent.tell(m.SetDelta("clients", net, frozenset())).resynced
        assert NftDriver(agent.nft).resync(agent.builder.table).operations == 0
        assert fabric.ping("c", ADDRESSES["b"][0])
    for left, net in enumerate(nets, 1):
        assert not agent.tell(m.SetDelta("clients", frozenset(), net)).resynced
        assert NftDriver(agent.nft).resync(agent.builder.table).operations == 0
        assert fabric.ping("c", ADDRESSES["b"][0]) is (left < len(nets))
    assert not fabric.ping("c", ADDRESSES["b"][1])


def test_a_source_prefix_beside_the_own_addresses_may_be_used(fabric: OneHost, agent: Agent):
    start_serving(agent)
    spoof = (parse_prefix("10.70.0.0/24"), parse_prefix("fd70::/64"))
    body = m.Endpoint("h", "calia", "", tuple(parse_address(text) for text in ADDRESSES["a"]), spoof, (), tier(OUT), ())
    key = ResourceKey("WorkloadEndpoint", "a", "default")
    assert not agent.tell(m.EndpointUpdate(key, 2, body)).resynced
    assert NftDriver(agent.nft).resync(agent.builder.table).operations == 0
    agent.tell(m.SetDelta("clients", frozenset({parse_prefix("10.70.0.0/24")}), frozenset()))
    fabric.ip(fabric.namespace("a"), "addr add 10.70.0.7/32 dev eth0")
    with (
        contextlib.closing(fabric.socket("a", socket.AF_INET, socket.SOCK_DGRAM)) as sender,
        contextlib.closing(fabric.socket("b", socket.AF_INET, socket.SOCK_DGRAM)) as receiver,
    ):
        receiver.bind(("0.0.0.0", 5001))
        sender.bind(("10.70.0.7", 0))
        sender.sendto(b"x", (ADDRESSES["b"][0], 5001))
        assert receiver.recvfrom(10)[1][0] == "10.70.0.7"
    fabric.ip(fabric.namespace("a"), "addr del 10.70.0.7/32 dev eth0")
    assert agent.tell(endpoint("a", (), tier(OUT))).revoked


def test_strangers_hands_are_undone(fabric: OneHost, agent: Agent):
    start_serving(agent)
    subprocess.run(["ip", "netns", "exec", fabric.host, "nft", "add", "chain", "inet", "tabinet", "stranger"], check=True)
    agent.nft.commit([FlushSet("a4-clients")])
    assert not fabric.ping("a", ADDRESSES["b"][0])
    assert agent.driver.resync(agent.builder.table).operations
    assert fabric.ping("a", ADDRESSES["b"][0])
    assert "stranger" not in agent.nft.read_table().chains
    agent.nft.commit([DeleteTable()])
    assert agent.tell(m.SetDelta("clients", members("c"), frozenset())).resynced
    assert fabric.ping("c", ADDRESSES["b"][0])
    assert NftDriver(agent.nft).resync(agent.builder.table).operations == 0


# --- random policy: the kernel against the oracle -------------------------------------------------------------------

PORTS = (53, 80, 81, 443)


def random_policy(choose: random.Random) -> m.Policy:
    def side() -> m.Side:
        ports = tuple(m.PortRange(first, first + choose.choice((0, 1, 400))) for first in choose.sample(PORTS, choose.choice((0, 0, 1, 2))))
        return m.Side(
            nets=tuple(
                parse_prefix(text)
                for text in choose.sample(("10.65.0.0/30", "10.65.0.2", "fd65::/126", "fd65::3"), choose.choice((0, 0, 2)))
            ),
            not_nets=tuple(parse_prefix(text) for text in choose.sample(("10.65.0.1", "fd65::2/127"), choose.choice((0, 0, 0, 1)))),
            sets=tuple(choose.sample(("x", "y"), choose.choice((0, 0, 1)))),
            not_sets=tuple(choose.sample(("x", "y"), choose.choice((0, 0, 0, 1)))),
            ports=ports,
            port_sets=tuple(choose.sample(("named",), choose.choice((0, 0, 0, 1)))),
            not_ports=(m.PortRange(80, 80),) if choose.random() < 0.1 else (),
            not_port_sets=("named",) if choose.random() < 0.1 else (),
        )

    def rule() -> m.Rule:
        protocol = choose.choice((None, None, 6, 17, 17, 1, 58))
        icmp = m.Icmp({1: 8, 58: 128}[protocol], choose.choice((None, 0, 1))) if protocol in (1, 58) and choose.random() < 0.5 else None
        return m.Rule(
            choose.choice((m.Action.ALLOW, m.Action.ALLOW, m.Action.ALLOW, m.Action.DENY, m.Action.PASS, m.Action.LOG)),
            ip_version=choose.choice((None, None, None, 4, 6)),
            protocol=protocol,
            not_protocol=choose.choice((None, None, 6)) if protocol is None else None,
            icmp=icmp,
            source=m.ANY if choose.random() < 0.5 else side(),
            destination=m.ANY if choose.random() < 0.3 else side(),
        )

    return m.Policy(*(tuple(rule() for _ in range(choose.randint(1, 4))) for _ in range(2)))


def random_updates(choose: random.Random) -> list[m.Update]:
    keys = [ResourceKey("GlobalNetworkPolicy", name) for name in ("p", "q", "r")]
    pool = [*members(*WORKLOADS), *map(parse_prefix, ("10.65.0.2/31", "fd65::2/127", "10.0.0.0/8"))]
    pool.sort()
    named = [m.PortMember(address, protocol, port) for address in sorted(members("b", "c")) for protocol in (6, 17) for port in (81, 443)]
    updates: list[m.Update] = [
        m.SetUpdate(name, m.SetKind.NETS, frozenset(choose.sample(pool, choose.randint(0, 5)))) for name in ("x", "y")
    ]
    updates.append(m.SetUpdate("named", m.SetKind.PORTS, frozenset(choose.sample(named, 5))))
    updates += [m.PolicyUpdate(key, random_policy(choose)) for key in keys]
    updates.append(m.ProfileUpdate("open", ALLOW_ALL))

    def tiers() -> tuple[m.TierPolicies, ...]:
        return tuple(
            m.TierPolicies(name, choose.choice((m.Action.DENY, m.Action.PASS)), tuple(choose.sample(keys, choose.randint(1, 2))))
            for name in ("first", "second")[: choose.choice((1, 1, 2, 0))]
        )

    for name in WORKLOADS:
        nets = tuple(parse_address(text) for text in ADDRESSES[name])
        profiles = choose.choice(((), ("open",), ("gone", "open")))
        body = m.Endpoint("h", f"cali{name}", "", nets, (), tiers(), choose.choice((tiers(), ())), profiles)
        updates.append(m.EndpointUpdate(ResourceKey("WorkloadEndpoint", name, "default"), 1, body))
    return updates


def probe_udp(fabric: OneHost) -> set[tuple[str, str, int, int]]:
    """(source, target, family, port) of the datagrams that arrive, out of all."""
    arrived: set[tuple[str, str, int, int]] = set()
    with contextlib.ExitStack() as stack:
        receivers: dict[socket.socket, tuple[str, int, int]] = {}
        for name, family, port in itertools.product(WORKLOADS, FAMILIES, PORTS):
            receiver = stack.enter_context(fabric.socket(name, family_of(ADDRESSES[name][family]), socket.SOCK_DGRAM))
            receiver.bind((ADDRESSES[name][family], port))
            receivers[receiver] = (name, family, port)
        for (source, target), family, port in itertools.product(itertools.permutations(WORKLOADS, 2), FAMILIES, PORTS):
            sender = stack.enter_context(fabric.socket(source, family_of(ADDRESSES[target][family]), socket.SOCK_DGRAM))
            sender.bind((ADDRESSES[source][family], 0))
            sender.sendto(source.encode(), (ADDRESSES[target][family], port))
        settle()
        while ready := select.select(list(receivers), [], [], 0)[0]:
            for receiver in ready:
                name, family, port = receivers[receiver]
                arrived.add((receiver.recv(10).decode(), name, family, port))
    return arrived


def probe_tcp(fabric: OneHost) -> set[tuple[str, str, int, int]]:
    """The same for connections."""
    connected: set[tuple[str, str, int, int]] = set()
    with contextlib.ExitStack() as stack:
        for name, family, port in itertools.product(WORKLOADS, FAMILIES, PORTS):
            listener = stack.enter_context(fabric.socket(name, family_of(ADDRESSES[name][family]), socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((ADDRESSES[name][family], port))
            listener.listen(16)
        clients: dict[socket.socket, tuple[str, str, int, int]] = {}
        for (source, target), family, port in itertools.product(itertools.permutations(WORKLOADS, 2), FAMILIES, PORTS):
            client = stack.enter_context(fabric.socket(source, family_of(ADDRESSES[target][family]), socket.SOCK_STREAM))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.setblocking(False)
            client.connect_ex((ADDRESSES[target][family], port))
            clients[client] = (source, target, family, port)
        settle()
        while clients and (ready := select.select([], list(clients), [], 0)[1]):
            for client in ready:
                probe = clients.pop(client)
                if not client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    connected.add(probe)
    return connected


@pytest.mark.parametrize("seed", range(6))
def test_the_kernel_decides_as_the_oracle(fabric: OneHost, agent: Agent, seed: int):
    choose = random.Random(seed)
    assert agent.start(*random_updates(choose)).operations
    for _ in range(2):
        for protocol, probe in ((17, probe_udp), (6, probe_tcp)):
            expected = set()
            for (source, target), family, port in itertools.product(itertools.permutations(WORKLOADS, 2), FAMILIES, PORTS):
                packet = Packet(
                    f"cali{source}",
                    f"cali{target}",
                    parse_address(ADDRESSES[source][family]),
                    parse_address(ADDRESSES[target][family]),
                    protocol,
                    40000,
                    port,
                )
                if evaluate(agent.builder.table, packet).accepted:
                    expected.add((source, target, family, port))
            assert probe(fabric) == expected, seed
        for (source, target), family in itertools.product(itertools.permutations(WORKLOADS, 2), FAMILIES):
            addresses = parse_address(ADDRESSES[source][family]), parse_address(ADDRESSES[target][family])
            packet = Packet(f"cali{source}", f"cali{target}", *addresses, (1, 58)[family], icmp_type=(8, 128)[family])
            assert fabric.ping(source, ADDRESSES[target][family]) == evaluate(agent.builder.table, packet).accepted
        result = agent.tell(*random_updates(choose))  # and once more after a change of everything
        assert not result.resynced
        assert NftDriver(agent.nft).resync(agent.builder.table).operations == 0


@pytest.mark.parametrize("seed", range(2))
def test_the_text_says_the_same_as_what_the_driver_makes(fabric: OneHost, agent: Agent, seed: int):
    agent.start(*random_updates(random.Random(seed)))
    programmed = probe_udp(fabric)
    text = render_table(agent.builder.table, agent.driver.generation)
    agent.nft.commit([DeleteTable()])
    subprocess.run(["ip", "netns", "exec", fabric.host, "nft", "-f", "-"], input=text, text=True, check=True)
    assert probe_udp(fabric) == programmed

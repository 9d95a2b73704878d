"""Random policy in the kernels of two hosts against ``evaluate``, packet by packet.

Each round makes up policies, sets, workload and host endpoints, loads them into both hosts as changes of what was there, and sends a packet
of every protocol from everywhere to everywhere: within a host, across hosts, from and to the outside, from and to a host, and to a
floating address; both families. TABINET_EXACT_ROUNDS says how many rounds; each has 600 to 800 pairs of rules and packet.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import select
import socket
import struct
from collections.abc import Iterator

import msgspec
import pytest
from fence import settle
from one_host import Echo
from test_protocols import kind, sctp_init, udplite
from two_hosts import ADDRESSES, WORKLOAD_MACS, WORKLOADS, HostAgent, TwoHosts, two_hosts

from tabinet.calc import messages as m
from tabinet.lib.ip import parse_address, parse_prefix
from tabinet.model.keys import ResourceKey
from tabinet.rules.evaluate import Packet, evaluate
from tabinet.rules.options import HostAction, TableOptions

pytestmark = pytest.mark.kernel

ROUNDS = int(os.environ.get("TABINET_EXACT_ROUNDS", "8"))
FAMILIES = (0, 1)
PORTS = (53, 80, 81, 443)
FLOATING = ("192.0.2.10", "2001:db8::10")
SOURCES = ("a", "b", "c", "x", "h1")
TARGETS = (*SOURCES, "floating")
TCP, UDP, SCTP, UDPLITE = 6, 17, 132, 136
Probe = tuple[str, str, int, int]
"""Source, target, family (0 or 1), port."""
ALLOW, DENY, PASS, LOG = m.Action.ALLOW, m.Action.DENY, m.Action.PASS, m.Action.LOG
POLICIES = [ResourceKey("GlobalNetworkPolicy", name) for name in "pqrst"]
PROBES = [
    (s, t, family, port)
    for s in SOURCES
    for t in TARGETS
    if s != t and (s, t) != ("a", "floating")
    for family in FAMILIES
    for port in PORTS
]


ECHOES = [probe for probe in PROBES if probe[3] == PORTS[0]]


def address(place: str, family: int) -> str:
    return FLOATING[family] if place == "floating" else ADDRESSES[place][family]


# --- made-up worlds -------------------------------------------------------------------------------------------------


def some(choose: random.Random, options: tuple, chances: tuple[int, ...]) -> tuple:
    """As many of the options as one of the chances says."""
    return tuple(choose.sample(options, choose.choice(chances)))


def random_side(choose: random.Random, *, ports: bool) -> m.Side:
    nets = ("10.65.1.0/24", "10.65.1.2", "10.2.0.0/24", "10.1.0.1", "fd65:1::/64", "fd65:2::1", "fd02::/64", "::/0")
    ranges = tuple(m.PortRange(first, first + choose.choice((0, 1, 400))) for first in some(choose, PORTS, (0, 1, 2)))
    return m.Side(
        nets=tuple(map(parse_prefix, some(choose, nets, (0, 0, 3)))),
        not_nets=tuple(map(parse_prefix, some(choose, nets[:-1], (0, 0, 0, 1)))),
        sets=some(choose, ("x", "y"), (0, 0, 1)),
        not_sets=some(choose, ("x", "y"), (0, 0, 0, 1)),
        ports=ranges if ports else (),
        port_sets=("named",) if ports and choose.random() < 0.15 else (),
        not_ports=(m.PortRange(80, 80),) if ports and choose.random() < 0.1 else (),
        not_port_sets=("named",) if ports and choose.random() < 0.1 else (),
    )


def random_rule(choose: random.Random, *, any_protocol: bool = True) -> m.Rule:
    protocol = choose.choice((*((None, None) if any_protocol else ()), TCP, UDP, SCTP, UDPLITE, 1, 58))
    icmp = m.Icmp({1: 8, 58: 128}[protocol], choose.choice((None, 0, 1))) if protocol in (1, 58) and choose.random() < 0.6 else None
    source, destination = (choose.choice((None, None, False, True)) for _ in range(2))
    return m.Rule(
        choose.choice((ALLOW,) * 5 + (DENY, DENY, PASS, LOG)),
        ip_version=choose.choice((None, None, None, 4, 6)),
        protocol=protocol,
        not_protocol=choose.choice((None, None, TCP, SCTP)) if protocol is None else None,
        icmp=icmp,
        not_icmp=m.Icmp(8, 0) if protocol == 1 and icmp is None and choose.random() < 0.3 else None,
        source=m.ANY if source is None else random_side(choose, ports=False),
        destination=m.ANY if destination is None else random_side(choose, ports=destination),
    )


def random_policy(choose: random.Random) -> m.Policy:
    def rules() -> tuple[m.Rule, ...]:
        any_protocol = choose.random() < 0.5  # otherwise the policy can be told by protocol and port
        found = [random_rule(choose, any_protocol=any_protocol) for _ in range(choose.randint(1, 4))]
        if choose.random() < 0.4:  # many that differ in a port only
            alike = random_rule(choose)
            protocol = choose.choice((TCP, UDP, SCTP))
            ports = [m.Side(ports=(m.PortRange(port, port),)) for port in (22, *some(choose, PORTS, (3, 4)))]
            found += [m.Rule(alike.action, protocol=protocol, source=alike.source, destination=side) for side in ports]
        return tuple(found)

    return m.Policy(rules(), rules())


def random_tiers(choose: random.Random, most: int) -> tuple[m.TierPolicies, ...]:
    names = [f"t{index}" for index in range(choose.randint(0, most))]
    return tuple(m.TierPolicies(name, choose.choice((DENY, PASS)), some(choose, tuple(POLICIES), (1, 2, 3, 5))) for name in names)


class World:
    """What both hosts are told."""

    def __init__(self, choose: random.Random, *, untracked: bool) -> None:
        pool = sorted(parse_address(text) for place in SOURCES for text in ADDRESSES[place])
        pool += map(parse_prefix, ("10.65.1.2/31", "fd65:1::/126", "10.0.0.0/8", "fd02::/16"))
        named = tuple(m.PortMember(item, protocol, port) for item in pool[:10] for protocol in (TCP, UDP, SCTP) for port in (81, 443))
        self.common: list[m.Update] = [
            m.SetUpdate(name, m.SetKind.NETS, frozenset(some(choose, tuple(pool), (0, 2, 5)))) for name in ("x", "y")
        ]
        self.common.append(m.SetUpdate("named", m.SetKind.PORTS, frozenset(some(choose, named, (4, 8)))))
        self.common += [m.PolicyUpdate(key, random_policy(choose)) for key in POLICIES]
        self.common.append(m.ProfileUpdate("open", m.Policy((m.Rule(ALLOW),), (m.Rule(ALLOW),))))
        self.of_host = {"h1": list(self._host_endpoints(choose, untracked)), "h2": []}
        nats = tuple(m.Nat(parse_address(FLOATING[family]), parse_address(ADDRESSES["a"][family])) for family in FAMILIES)
        for name, host in WORKLOADS.items():
            nets = tuple(parse_address(text) for text in ADDRESSES[name])
            profiles = choose.choice(((), ("open",), ("gone", "open")))
            body = m.Endpoint(
                host, f"cali{name}", WORKLOAD_MACS[name], nets, (), random_tiers(choose, 3), random_tiers(choose, 2), profiles
            )
            body = msgspec.structs.replace(body, nats=nats if name == "a" else ())
            self.of_host[host].append(m.EndpointUpdate(ResourceKey("WorkloadEndpoint", name, "default"), 1, body))

    def _host_endpoints(self, choose: random.Random, untracked: bool) -> Iterator[m.Update]:
        for name in ("eth0", "eth1", "*"):
            key = ResourceKey("HostEndpoint", f"h1-{'all' if name == '*' else name}")
            if choose.random() < 0.4:
                yield m.HostEndpointRemove(key)
                continue
            tiers = [random_tiers(choose, 2) for _ in range(7)]
            if not untracked:
                tiers[5:] = [(), ()]
            yield m.HostEndpointUpdate(key, 1, m.HostEndpoint("h1", name, (), *tiers, choose.choice(((), ("open",)))))


# --- what is expected -----------------------------------------------------------------------------------------------


def way(source: str, target: str) -> list[tuple[str, str, str, str]]:
    """(host, hook, incoming interface, outgoing interface) of each host that the packet meets."""
    target = "a" if target == "floating" else target
    outside = {"x": "eth1", "c": "eth0"}
    steps = []
    if source == "c":
        steps.append(("h2", "forward", "calic", "eth0"))
    into = "" if source == "h1" else outside.get(source, f"cali{source}")
    out = "" if target == "h1" else outside.get(target, f"cali{target}")
    steps.append(("h1", "output" if source == "h1" else "input" if target == "h1" else "forward", into, out))
    if target == "c":
        steps.append(("h2", "forward", "eth0", "calic"))
    return steps


def passes(hosts: dict[str, HostAgent], probe: Probe, protocol: int, source_port: int = 40000) -> bool:
    source, target, family, port = probe
    sent_to = parse_address(address(target, family))
    arrives_at = parse_address(ADDRESSES["a" if target == "floating" else target][family])
    icmp = protocol in (1, 58)
    for host, hook, into, out in way(source, target):
        translated = target == "floating" and host == "h1"
        packet = Packet(
            into,
            out,
            parse_address(ADDRESSES[source][family]),
            arrives_at if translated else sent_to,
            protocol,
            0 if icmp else source_port,
            0 if icmp else port,
            {1: 8, 58: 128}.get(protocol, 0),
            original_destination=sent_to if translated else None,
        )
        if not evaluate(hosts[host].builder.table, packet, hook).accepted:
            return False
    return True


# --- what happens ---------------------------------------------------------------------------------------------------


def send_udp(fabric: TwoHosts) -> set[Probe]:
    """Those that arrive."""
    arrived: set[Probe] = set()
    with contextlib.ExitStack() as stack:
        receivers = {}
        for place, family, port in itertools.product(SOURCES, FAMILIES, PORTS):
            receiver = stack.enter_context(contextlib.closing(fabric.socket(place, kind(family), socket.SOCK_DGRAM)))
            receiver.bind((ADDRESSES[place][family], port))
            receivers[receiver] = None
        for index, (source, target, family, port) in enumerate(PROBES):
            sender = stack.enter_context(contextlib.closing(fabric.socket(source, kind(family), socket.SOCK_DGRAM)))
            sender.bind((ADDRESSES[source][family], 40000 + index))
            with contextlib.suppress(PermissionError):
                sender.sendto(f"{index}".encode(), (address(target, family), port))
        collect(list(receivers), lambda receiver: arrived.add(PROBES[int(receiver.recv(100))]))
    return arrived


def send_tcp(fabric: TwoHosts) -> set[Probe]:
    """Those that are answered."""
    connected: set[Probe] = set()
    with contextlib.ExitStack() as stack:
        for place, family, port in itertools.product(SOURCES, FAMILIES, PORTS):
            listener = stack.enter_context(contextlib.closing(fabric.socket(place, kind(family), socket.SOCK_STREAM)))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((ADDRESSES[place][family], port))
            listener.listen(64)
        clients: dict[socket.socket, Probe] = {}
        for probe in PROBES:
            source, target, family, port = probe
            client = stack.enter_context(contextlib.closing(fabric.socket(source, kind(family), socket.SOCK_STREAM)))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.bind((ADDRESSES[source][family], 0))
            client.setblocking(False)
            with contextlib.suppress(PermissionError):
                client.connect_ex((address(target, family), port))
            clients[client] = probe
        settle()
        while clients and (ready := select.select([], list(clients), [], 0)[1]):
            for client in ready:
                probe = clients.pop(client)
                if not client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    connected.add(probe)
    return connected


def send_raw(fabric: TwoHosts, protocol: int, first_port: int) -> set[Probe]:
    """Those that arrive. The source port tells the probe."""
    arrived: set[Probe] = set()

    def hear(receiver: socket.socket) -> None:
        data = receiver.recv(2000)
        data = data[20:] if receiver.family == socket.AF_INET else data
        index = struct.unpack_from(">H", data)[0] - first_port
        if 0 <= index < len(PROBES):
            arrived.add(PROBES[index])

    with contextlib.ExitStack() as stack:
        sockets = {}
        for place, family in itertools.product(SOURCES, FAMILIES):
            made = stack.enter_context(contextlib.closing(fabric.socket(place, kind(family), socket.SOCK_RAW, protocol)))
            made.bind((ADDRESSES[place][family], 0))
            sockets[place, family] = made
        for index, (source, target, family, port) in enumerate(PROBES):
            ends = ADDRESSES[source][family], address(target, family)
            ports = first_port + index, port
            payload = sctp_init(*ports) if protocol == SCTP else udplite(*ends, family, *ports)
            with contextlib.suppress(PermissionError):
                sockets[source, family].sendto(payload, (ends[1], 0))
        collect(list(sockets.values()), hear)
    return arrived


def collect(receivers: list[socket.socket], hear) -> None:
    settle()
    while ready := select.select(receivers, [], [], 0)[0]:
        for receiver in ready:
            hear(receiver)


def send_echo(fabric: TwoHosts) -> set[Probe]:
    """Those that are answered."""
    answered: set[Probe] = set()
    with contextlib.ExitStack() as stack:
        waiting = {}
        for probe in ECHOES:
            source, target, family, _ = probe
            echo = Echo(Bound(fabric, ADDRESSES[source][family]), source, address(target, family))
            stack.callback(echo.close)
            waiting[echo.socket] = (probe, echo)
        settle()
        while waiting and (ready := select.select(list(waiting), [], [], 0)[0]):
            for each in ready:  # every socket hears all answers that come to its place
                if waiting[each][1].heard():
                    answered.add(waiting.pop(each)[0])
    return answered


class Bound:
    """Sockets of the fabric, bound to an address."""

    def __init__(self, fabric: TwoHosts, own: str) -> None:
        self.fabric, self.own = fabric, own

    def socket(self, place: str, family: int, kind_of: int, protocol: int = 0) -> socket.socket:
        made = self.fabric.socket(place, family, kind_of, protocol)
        made.bind((self.own, 0))
        return made


# --- the comparison -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fabric() -> Iterator[TwoHosts]:
    with two_hosts() as made:
        made.ip("h2", f"route add {FLOATING[0]} via {ADDRESSES['h1'][0]}", f"route add {FLOATING[1]} via {ADDRESSES['h1'][1]}")
        made.ip("h1", f"route add {FLOATING[0]} dev calia", f"route add {FLOATING[1]} dev calia")
        for host in ("h1", "h2"):  # see test_protocols
            made.sysctl(host, "net/netfilter/nf_conntrack_checksum", "0")
        yield made


@pytest.fixture(scope="module")
def hosts(fabric: TwoHosts) -> Iterator[dict[str, HostAgent]]:
    options = TableOptions(endpoint_to_host=HostAction.ACCEPT, floating_sources=False, dispatch_from=2)
    made = {host: HostAgent(fabric, host, options) for host in ("h1", "h2")}
    yield made
    for agent in made.values():
        agent.close()


@pytest.mark.parametrize("number", range(ROUNDS))
def test_the_kernel_decides_as_the_oracle(fabric: TwoHosts, hosts: dict[str, HostAgent], number: int):
    untracked = number % 3 == 2
    world = World(random.Random(number), untracked=untracked)
    for host, agent in hosts.items():
        agent.tell(*world.common, *world.of_host[host])
    first_port = 1024 + number % 50 * len(PROBES)

    def expected(protocol: int, probes: list[Probe]) -> set[Probe]:
        ports = {TCP: 40000, UDP: 40000, SCTP: first_port, UDPLITE: first_port}
        shifted = protocol != TCP
        return {p for p in probes if passes(hosts, p, protocol, ports[protocol] + (PROBES.index(p) if shifted else 0))}

    for protocol, happened in (
        (UDP, send_udp(fabric)),
        (SCTP, send_raw(fabric, SCTP, first_port)),
        (UDPLITE, send_raw(fabric, UDPLITE, first_port)),
    ):
        assert happened == expected(protocol, PROBES), (number, protocol)
    if not untracked:  # what is not tracked is judged both ways, and these wait for an answer
        assert send_tcp(fabric) == expected(TCP, PROBES), number
        assert send_echo(fabric) == {probe for probe in ECHOES if passes(hosts, probe, (1, 58)[probe[2]])}, number


def test_there_are_enough_pairs_and_both_verdicts(hosts: dict[str, HostAgent]):
    """So that the comparison above means something."""
    assert len(PROBES) * 3 + len(ECHOES) > 600
    verdicts = [passes(hosts, probe, protocol) for probe in PROBES for protocol in (TCP, UDP, SCTP)]
    assert 0.03 < sum(verdicts) / len(verdicts) < 0.97

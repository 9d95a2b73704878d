"""Protocols, logs, errors and fragments in a real kernel, between workloads of one host and of two."""

from __future__ import annotations

import binascii
import contextlib
import errno
import socket
import struct
from collections.abc import Iterator

import pytest
from fence import settle
from one_host import arrives, checksum, ready
from two_hosts import ADDRESSES, WORKLOAD_MACS, WORKLOADS, HostAgent, TwoHosts, two_hosts

from tabinet.calc import messages as m
from tabinet.kernel import netns
from tabinet.lib.ip import parse_address, parse_prefix
from tabinet.model.keys import ResourceKey
from tabinet.rules.options import TableOptions

pytestmark = pytest.mark.kernel

FAMILIES = (0, 1)
ALLOW, DENY, LOG = m.Action.ALLOW, m.Action.DENY, m.Action.LOG
POLICY = ResourceKey("GlobalNetworkPolicy", "serve")
OPEN = ResourceKey("GlobalNetworkPolicy", "open")
ALL = m.Policy((m.Rule(ALLOW),), (m.Rule(ALLOW),))
SCTP, UDPLITE = 132, 136
PAIRS = [("b", "a"), ("c", "a")]
"""From the same host and from the other one."""


def ports(*numbers: int) -> m.Side:
    return m.Side(ports=tuple(m.PortRange(number, number) for number in numbers))


def endpoint(name: str, ingress: ResourceKey) -> m.EndpointUpdate:
    nets = tuple(parse_address(text) for text in ADDRESSES[name])
    tiers = [(m.TierPolicies("default", DENY, (policy,)),) for policy in (ingress, OPEN)]
    body = m.Endpoint(WORKLOADS[name], f"cali{name}", WORKLOAD_MACS[name], nets, (), *tiers, ())
    return m.EndpointUpdate(ResourceKey("WorkloadEndpoint", name, "default"), 1, body)


@pytest.fixture(scope="module")
def fabric() -> Iterator[TwoHosts]:
    with two_hosts() as made:
        # The kernel reckons UDP-Lite's checksum as if it were UDP's, and takes packets of real sockets for invalid.
        for host in ("h1", "h2"):
            made.sysctl(host, "net/netfilter/nf_conntrack_checksum", "0")
        yield made


@pytest.fixture
def agent(fabric: TwoHosts) -> Iterator[HostAgent]:
    """a is what POLICY says; b and c are open."""
    options = TableOptions(log_group=7, log_per_second=1, log_burst=5)
    made = {host: HostAgent(fabric, host, options) for host in ("h1", "h2")}
    for host, agent in made.items():
        local = [endpoint(name, POLICY if name == "a" else OPEN) for name in WORKLOADS if WORKLOADS[name] == host]
        agent.tell(m.PolicyUpdate(OPEN, ALL), m.PolicyUpdate(POLICY, m.Policy((), ())), *local)
    yield made["h1"]
    for agent in made.values():
        agent.close()


def serve(agent: HostAgent, *rules: m.Rule) -> None:
    agent.tell(m.PolicyUpdate(POLICY, m.Policy(rules, ())))


# --- packets that sockets do not make -------------------------------------------------------------------------------


def kind(family: int) -> int:
    return socket.AF_INET6 if family else socket.AF_INET


def pseudo_header(source: str, target: str, family: int, length: int, protocol: int) -> bytes:
    packed = socket.inet_pton(kind(family), source) + socket.inet_pton(kind(family), target)
    return packed + (struct.pack(">II", length, protocol) if family else struct.pack(">BBH", 0, protocol, length))


def sctp_init(source_port: int, port: int) -> bytes:
    """RFC 9260 section 3.3.2, with the checksum of appendix A."""
    chunk = struct.pack(">BBHIIHHI", 1, 0, 20, 0x1234, 65536, 1, 1, 0x1234)
    header = struct.pack(">HHI", source_port, port, 0)
    return header + struct.pack("<I", crc32c(header + b"\0" * 4 + chunk)) + chunk


def crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def udplite(source: str, target: str, family: int, source_port: int, port: int) -> bytes:
    """RFC 3828, with a checksum over all of it."""
    data = struct.pack(">HHHH", source_port, port, 12, 0) + b"lite"
    total = checksum(pseudo_header(source, target, family, 12, UDPLITE) + data) or 0xFFFF
    return data[:6] + struct.pack(">H", total) + data[8:]


def raw_arrives(fabric: TwoHosts, source: str, target: str, family: int, protocol: int, payload: bytes) -> bool:
    """A raw packet with this content arrives."""
    with (
        contextlib.closing(fabric.socket(target, kind(family), socket.SOCK_RAW, protocol)) as receiver,
        contextlib.closing(fabric.socket(source, kind(family), socket.SOCK_RAW, protocol)) as sender,
    ):
        sender.sendto(payload, (ADDRESSES[target][family], 0))
        while arrives(receiver):
            if payload in receiver.recv(2000):
                return True
        return False


def test_checksum_of_sctp():
    assert crc32c(b"123456789") == 0xE3069283  # the value that everyone checks against
    assert binascii.crc32(b"123456789") != 0xE3069283


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("source", ["b", "c"])
def test_sctp_and_udplite_by_port(fabric: TwoHosts, agent: HostAgent, source: str, family: int):
    serve(agent, m.Rule(ALLOW, protocol=SCTP, destination=ports(3868)), m.Rule(ALLOW, protocol=UDPLITE, source=ports(500)))
    for port, allowed in ((3868, True), (3869, False)):
        assert raw_arrives(fabric, source, "a", family, SCTP, sctp_init(4000 + port, port)) is allowed
    ends = ADDRESSES[source][family], ADDRESSES["a"][family]
    for source_port, allowed in ((500, True), (501, False)):
        assert raw_arrives(fabric, source, "a", family, UDPLITE, udplite(*ends, family, source_port, 77)) is allowed


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("source", ["b", "c"])
def test_ports_that_a_rule_wants_for_any_protocol(fabric: TwoHosts, agent: HostAgent, source: str, family: int):
    serve(agent, m.Rule(ALLOW, destination=ports(4000)))
    a = ADDRESSES["a"][family]
    assert fabric.connects(source, "a", a, 4000) and fabric.udp(source, "a", a, 4000)
    assert raw_arrives(fabric, source, "a", family, SCTP, sctp_init(4100, 4000))
    assert raw_arrives(fabric, source, "a", family, UDPLITE, udplite(ADDRESSES[source][family], a, family, 4101, 4000))
    assert not fabric.ping(source, a) and not fabric.udp(source, "a", a, 4001)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("source", ["b", "c"])
def test_what_a_rule_does_not_want(fabric: TwoHosts, agent: HostAgent, source: str, family: int):
    a = ADDRESSES["a"][family]
    serve(agent, m.Rule(ALLOW, not_protocol=17))
    assert fabric.connects(source, "a", a, 80) and fabric.ping(source, a) and not fabric.udp(source, "a", a, 5000)
    serve(agent, m.Rule(ALLOW, protocol=6, destination=m.Side(not_ports=(m.PortRange(80, 81), m.PortRange(90, 90)))))
    assert [port for port in (79, 80, 81, 82, 90) if fabric.connects(source, "a", a, port)] == [79, 82]
    serve(agent, m.Rule(ALLOW, not_icmp=m.Icmp((8, 128)[family])))
    assert not fabric.ping(source, a) and not fabric.connects(source, "a", a, 80)
    serve(agent, m.Rule(ALLOW, not_icmp=m.Icmp((8, 128)[family], 3)))
    assert fabric.ping(source, a)
    own = parse_prefix(ADDRESSES[source][family])
    serve(agent, m.Rule(ALLOW, source=m.Side(not_nets=(own,))))
    assert not fabric.ping(source, a) and fabric.ping("c" if source == "b" else "b", a)
    serve(agent, m.Rule(ALLOW, ip_version=(6, 4)[family]))
    assert not fabric.ping(source, a)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("source", ["b", "c"])
def test_a_service_is_a_set_of_addresses_and_ports(fabric: TwoHosts, agent: HostAgent, source: str, family: int):
    a = ADDRESSES["a"][family]
    member = m.PortMember(parse_address(a), 6, 8080)
    agent.tell(m.SetUpdate("service", m.SetKind.PORTS, frozenset({member})))
    serve(agent, m.Rule(ALLOW, destination=m.Side(port_sets=("service",))))
    assert fabric.connects(source, "a", a, 8080) and not fabric.connects(source, "a", a, 8081) and not fabric.udp(source, "a", a, 8080)
    with contextlib.closing(fabric.tcp(source, "a", a, 8080)) as connection:
        assert agent.tell(m.SetDelta("service", frozenset(), frozenset({member}))).revoked
        assert not connection.carries(forward=False) and not connection.carries()


@pytest.mark.parametrize("family", FAMILIES)
def test_many_ports_in_one_lookup(fabric: TwoHosts, agent: HostAgent, family: int):
    serve(agent, *(m.Rule(ALLOW, protocol=6, destination=ports(port)) for port in (80, 443, 8080, 9000)), m.Rule(ALLOW, protocol=17))
    a = ADDRESSES["a"][family]
    assert [port for port in (79, 80, 443, 8080, 8081, 9000) if fabric.connects("c", "a", a, port)] == [80, 443, 8080, 9000]
    (count,) = (count for origin, count in agent.driver.counters().rules.items() if origin.last == 3)
    assert count.packets == 4


# --- logs -----------------------------------------------------------------------------------------------------------


def open_nflog(fabric: TwoHosts, host: str, group: int) -> socket.socket:
    """A socket that gets what the group logs (linux/netfilter/nfnetlink_log.h)."""
    made = netns.run_in(fabric.namespace(host), lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12))
    made.bind((0, 0))
    made.settimeout(1)
    bind = struct.pack("=HHB3x", 5, 1, 1)
    copy = struct.pack("=HH", 10, 2) + struct.pack(">IB3x", 200, 2)
    each = struct.pack("=HH", 8, 5) + struct.pack(">I", 1)  # NFULA_CFG_QTHRESH: do not wait for more
    for attributes in (bind, copy + each):
        body = struct.pack(">BBH", 0, 0, group) + attributes
        made.send(struct.pack("=IHHII", 16 + len(body), 4 << 8 | 1, 5, 1, 0) + body)
        assert struct.unpack_from("=i", made.recv(4096), 16) == (0,)
    return made


def logged(listener: socket.socket) -> list[str]:
    """Prefixes of what is logged, until nothing comes."""
    found = []
    settle()
    while ready(listener):
        data = listener.recv(65536)
        while len(data) >= 20:
            length, message = struct.unpack_from("=IH", data)
            offset = 20
            while message == 4 << 8 and offset + 4 <= length:
                size, attribute = struct.unpack_from("=HH", data, offset)
                if attribute & 0x7FFF == 10:  # NFULA_PREFIX
                    found.append(data[offset + 4 : offset + size].rstrip(b"\0").decode())
                offset += (size + 3) & ~3
            data = data[(length + 3) & ~3 :]
    return found


def test_a_log_rule_names_its_policy_not_more_often_than_allowed_and_goes_on(fabric: TwoHosts, agent: HostAgent):
    serve(agent, m.Rule(LOG, protocol=17), m.Rule(ALLOW, protocol=17, destination=ports(5000)))
    with contextlib.closing(open_nflog(fabric, "h1", 7)) as listener:
        assert fabric.udp("b", "a", ADDRESSES["a"][0], 5000) and not fabric.udp("c", "a", ADDRESSES["a"][1], 5001)
        assert logged(listener) == ["GlobalNetworkPolicy/serve"] * 2
        for port in range(6000, 6030):
            with contextlib.closing(fabric.socket("b", socket.AF_INET, socket.SOCK_DGRAM)) as sender:
                sender.sendto(b"x", (ADDRESSES["a"][0], port))
        assert 3 <= len(logged(listener)) <= 8
    (count,) = (count for origin, count in agent.driver.counters().rules.items() if origin.action == "Log")
    assert count.packets == 32, "what is not logged is counted"


# --- errors and fragments -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("source", ["b", "c"])
def test_errors_about_allowed_flows_come_back(fabric: TwoHosts, agent: HostAgent, source: str, family: int):
    serve(agent, m.Rule(ALLOW, protocol=17, destination=ports(5000)))
    with contextlib.closing(fabric.socket(source, kind(family), socket.SOCK_DGRAM)) as client:
        client.connect((ADDRESSES["a"][family], 5000))
        client.send(b"to nobody")
        with pytest.raises(ConnectionRefusedError):
            client.recv(10)
    with contextlib.closing(fabric.socket(source, kind(family), socket.SOCK_DGRAM)) as client:
        client.connect((ADDRESSES["a"][family], 5001))
        client.send(b"not allowed")
        assert not arrives(client), "neither an answer nor an error"


@pytest.mark.parametrize("family", FAMILIES)
def test_path_mtu_is_found(fabric: TwoHosts, agent: HostAgent, family: int):
    """h2 has a smaller link to c than everybody else."""
    fabric.ip("h2", "link set dev calic mtu 1300")
    try:
        level, discover, do = ((socket.IPPROTO_IP, 10, 2), (socket.IPPROTO_IPV6, 23, 2))[family]  # IP(V6)_MTU_DISCOVER, ..._DO
        with contextlib.closing(fabric.socket("b", kind(family), socket.SOCK_DGRAM)) as client:
            client.setsockopt(level, discover, do)
            client.connect((ADDRESSES["c"][family], 5000))
            client.send(b"x" * 1400)
            found = []
            for _ in range(20):
                settle()
                try:
                    client.send(b"x" * 1400)
                except OSError as error:
                    found.append(error.errno)
                    break
            assert found == [errno.EMSGSIZE]
        with contextlib.closing(fabric.tcp("b", "c", ADDRESSES["c"][family], 80)) as connection:
            connection.client.sendall(b"y" * 20000)
            received = 0
            while received < 20000 and arrives(connection.server):
                received += len(connection.server.recv(65536))
            assert received == 20000
    finally:
        fabric.ip("h2", "link set dev calic mtu 1500")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("source", ["b", "c"])
def test_fragments_are_judged_with_their_first_part(fabric: TwoHosts, agent: HostAgent, source: str, family: int):
    serve(agent, m.Rule(ALLOW, protocol=17, destination=ports(5000)))
    for port, allowed in ((5000, True), (5001, False)):
        with (
            contextlib.closing(fabric.socket("a", kind(family), socket.SOCK_DGRAM)) as receiver,
            contextlib.closing(fabric.socket(source, kind(family), socket.SOCK_DGRAM)) as sender,
        ):
            receiver.bind((ADDRESSES["a"][family], port))
            sender.sendto(b"z" * 4000, (ADDRESSES["a"][family], port))
            assert arrives(receiver) is allowed
            assert not allowed or len(receiver.recv(5000)) == 4000


@pytest.mark.parametrize("family", FAMILIES)
def test_a_forged_error_is_nobody_elses_business(fabric: TwoHosts, agent: HostAgent, family: int):
    """b sends a an error about the flow between c and a, which is allowed and current."""
    serve(agent, m.Rule(ALLOW, protocol=17, destination=ports(5000)))
    c, a = (ADDRESSES[name][family] for name in ("c", "a"))
    with (
        contextlib.closing(fabric.socket("c", kind(family), socket.SOCK_DGRAM)) as client,
        contextlib.closing(fabric.socket("a", kind(family), socket.SOCK_DGRAM)) as server,
    ):
        server.bind((a, 5000))
        client.bind((c, 5001))
        client.sendto(b"x", (a, 5000))
        assert arrives(server)
        about = struct.pack(">HHHH", 5000, 5001, 8, 0)
        if family:
            inner = struct.pack(">IHBB", 6 << 28, 8, 17, 60) + socket.inet_pton(kind(1), a) + socket.inet_pton(kind(1), c) + about
            error = struct.pack(">BBHI", 1, 1, 0, 0) + inner
        else:
            inner = struct.pack(">BBHHHBBH", 0x45, 0, 28, 1, 0, 60, 17, 0) + socket.inet_aton(a) + socket.inet_aton(c)
            inner = inner[:10] + struct.pack(">H", checksum(inner)) + inner[12:] + about
            error = struct.pack(">BBHI", 3, 13, 0, 0) + inner
            error = error[:2] + struct.pack(">H", checksum(error)) + error[4:]
        assert not raw_arrives(fabric, "b", "a", family, (1, 58)[family], error)
        assert agent.driver.counters().denied["error about another's flow"].packets

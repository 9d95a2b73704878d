"""A host that Calico ran becomes ours, step by step as docs/from-calico.md says, and no packet is lost meanwhile; and the way back."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from calico_host import FAR, PEER, RESOURCES, SETS, WORKLOADS, Birds, CalicoHost, eventually
from steady_traffic import Pings, Stream, Traffic

from tabinet.kernel import netns
from tabinet.kernel.ipset import list_sets

pytestmark = pytest.mark.kernel

SERVED, DENIED, ELSEWHERE = 80, 81, 90
CONNECTED_S = 5.0


@pytest.fixture
async def host(tmp_path: Path) -> Iterator[CalicoHost]:  # type: ignore[misc]
    made = CalicoHost(tmp_path)
    try:
        made.open_network()
        made.open_store()
        await made.fill_store()
        yield made
    finally:
        made.close()


def open_socket(host: CalicoHost, place: str, family: int, kind: int, protocol: int = 0) -> socket.socket:
    return netns.run_in(host.namespace(place), lambda: socket.socket(family, kind, protocol))


def family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def connect(host: CalicoHost, source: str, target: str, address: str, port: int, wait_s: float = CONNECTED_S) -> Stream | None:
    """A connection; None when none comes to be."""
    family = family_of(address)
    client = open_socket(host, source, family, socket.SOCK_STREAM)
    with open_socket(host, target, family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen()
        listener.settimeout(wait_s)
        client.setblocking(False)
        assert client.connect_ex((address, port)) in (0, errno.EINPROGRESS)
        try:
            server = listener.accept()[0]
        except TimeoutError:
            client.close()
            return None
    server.setblocking(False)
    return Stream(client, server)


def begin_traffic(host: CalicoHost) -> Traffic:
    """The peer pings the workloads, and keeps connections with them that both sides began; workloads ping each other."""
    traffic = Traffic()
    for source, addresses in (("peer", [*WORKLOADS["w1"], *WORKLOADS["w2"]]), ("w1", [*WORKLOADS["w2"], *PEER])):
        for address in addresses:
            protocol = socket.IPPROTO_ICMPV6 if ":" in address else socket.IPPROTO_ICMP
            ping = Pings(open_socket(host, source, family_of(address), socket.SOCK_RAW, protocol), address)
            assert eventually(lambda ping=ping: _answered(ping)), (source, address)
            ping.sent, ping.identity, ping.answered = 0, ping.identity ^ 1, set()
            traffic.pings.append(ping)
    for source, target, address, port in (
        ("peer", "w1", WORKLOADS["w1"][0], SERVED),
        ("peer", "w2", WORKLOADS["w2"][1], SERVED),
        ("w1", "peer", PEER[0], ELSEWHERE),
        ("w2", "peer", PEER[1], ELSEWHERE),
    ):
        stream = connect(host, source, target, address, port)
        assert stream is not None, (source, address)
        traffic.streams.append(stream)
    traffic.start()
    return traffic


def _answered(ping: Pings) -> bool:
    with contextlib.suppress(OSError):
        ping.turn()
    ping.read()
    return bool(ping.answered)


def saved(host: CalicoHost) -> str:
    return "".join(host.run(f"{program}-{host.backend}-save") for program in ("iptables", "ip6tables"))


def routes(host: CalicoHost, protocol: str) -> list[str]:
    found = []
    for family in ("-4", "-6"):
        text = host.run("ip", family, "route", "show", "proto", protocol)
        found += [line.split()[0] for line in text.splitlines() if not line.startswith("blackhole")]
    return found


def test_nothing_is_lost_from_the_first_look_to_the_last_rule_and_back(host: CalicoHost) -> None:
    everybody = sorted(address for pair in WORKLOADS.values() for address in pair)
    traffic = begin_traffic(host)
    try:
        host.start_felix()
        found = host.survey()
        assert (found["well"], found["next"]["step"]) == (True, "stop-calico")
        first = found["endpoints"][0]
        assert (first["endpoint"], first["interface"], first["state"]) == ("default/h1-k8s-w1-eth0", "caliw1", "up")
        assert [(each["route"], each["block"], each["handle"]) for each in first["addresses"]] == [
            ("felix", "10.65.0.0/26", "k8s-pod-network.c0ffeew1"),
            ("felix", "fd00:65::/122", "k8s-pod-network.c0ffeew1"),
        ]
        assert [(each["subject"], each["command"]) for each in found["findings"]] == [
            ("address 10.65.0.7", "tabinet ipam release --handle k8s-pod-network.c0ffeew7")
        ]
        before = saved(host)
        refused = host.tabinet("import", "--finish")
        assert refused.returncode == 1
        assert "felix runs" in refused.stderr and "our agent cannot be asked" in refused.stderr
        assert saved(host).count("cali") == before.count("cali") > 50, "nothing was changed"

        host.stop_felix()
        assert host.survey()["next"]["step"] == "start-agent"
        host.start_agent()
        host.until("finish")
        assert sorted(routes(host, "84")) == everybody
        assert routes(host, "80") == [WORKLOADS["w1"][1], WORKLOADS["w2"][1]], "of IPv6, which ours win over"

        would = host.tabinet("import", "--finish", "--dry-run")
        assert (would.returncode, "-X cali-FORWARD" in would.stdout) == (0, True)
        assert "cali-FORWARD" in saved(host), "a dry run changes nothing"
        done = host.tabinet("import", "--finish")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "cali" not in saved(host)
        assert "-A FORWARD -s 192.0.2.0/24 -j stranger" in saved(host)
        assert netns.run_in(host.namespace(), list_sets) == []
        assert routes(host, "80") == []
        assert host.survey()["next"]["step"] == "done"

        assert connect(host, "peer", "w1", WORKLOADS["w1"][0], DENIED, 1.0) is None, "policy is ours now"
        fresh = connect(host, "peer", "w2", WORKLOADS["w2"][0], SERVED)
        assert fresh is not None
        fresh.client.close()
        fresh.server.close()

        go_back(host)
        assert sorted(routes(host, "80")) == everybody
        assert "tabinet" not in host.run("nft", "list", "tables")
        assert connect(host, "peer", "w1", WORKLOADS["w1"][0], DENIED, 1.0) is None, "policy is Felix's again"
        traffic.stop()
        assert traffic.losses() == {}
        assert all(ping.sent > 50 for ping in traffic.pings)
    finally:
        traffic.close()


def go_back(host: CalicoHost) -> None:
    """Our agent is stopped, Felix makes its sets, rules and routes again, and ours go."""
    from tabinet.kernel.ipset import create_set

    host.stop_agent()
    netns.run_in(host.namespace(), lambda: [create_set(name, family=10 if name.startswith("cali6") else 2) for name in SETS])
    host.install_rules()
    host.route_as_felix()
    for family in ("inet", "arp"):
        host.run("nft", "delete", "table", family, "tabinet")
    for family in ("-4", "-6"):
        host.run("ip", family, "route", "flush", "proto", "84")


async def test_what_bgp_brought_stays_while_our_bird_takes_the_place_of_calicos(tmp_path: Path) -> None:
    host = CalicoHost(tmp_path, bird=f'enabled = true\nconfig = "{tmp_path}/tabinet.conf"\nsocket = "{tmp_path}/ours.ctl"')
    birds, traffic = Birds(host), Traffic()
    try:
        host.open_network()
        host.open_store()
        await host.fill_store()
        peer = {
            "kind": "Node",
            "apiVersion": "projectcalico.org/v3",
            "metadata": {"name": "peer"},
            "spec": {"bgp": {"ipv4Address": f"{PEER[0]}/24"}},
        }
        await host.put({f"{RESOURCES}/nodes/peer": peer})
        birds.open()
        ways = [("w1", FAR[1]), ("peer", WORKLOADS["w2"][0])]
        for source, address in ways:
            ping = Pings(open_socket(host, source, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP), address)
            assert eventually(lambda ping=ping: _answered(ping)), (source, address)
            ping.sent, ping.identity, ping.answered = 0, ping.identity ^ 1, set()
            traffic.pings.append(ping)
        traffic.start()
        birds.kill("calico")
        host.start_agent()
        assert eventually(birds.ours.exists)
        birds.start("ours", "host", birds.ours, "-R")
        assert eventually(lambda: metrics_to(host, FAR[0]) == ["0", "32"])
        host.until("finish")
        assert host.tabinet("import", "--finish").returncode == 0
        assert metrics_to(host, FAR[0]) == ["32"]
        traffic.stop()
        assert traffic.losses() == {}
    finally:
        traffic.close()
        birds.close()
        host.close()


def metrics_to(host: CalicoHost, destination: str) -> list[str]:
    """Of BIRD's routes to there, in the kernel's order."""
    lines = host.run("ip", "route", "show", "proto", "bird").splitlines()
    return ["0" if "metric" not in line else line.split()[-1] for line in lines if line.startswith(f"{destination} ")]

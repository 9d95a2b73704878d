"""Packets in IP-in-IP between two hosts, across a router that knows nothing of workloads. Skipped where the kernel has no IP-in-IP.

::

    w1 - h1 ---- core ---- h2 - w2
"""

from __future__ import annotations

import contextlib
import errno
import re
import struct
import subprocess
import uuid
from collections.abc import Iterator

import pytest

from tabinet.calc import messages as m
from tabinet.dataplane.nft.driver import NftDriver
from tabinet.dataplane.tunnels.manager import TunnelsApplied, build_tunnels
from tabinet.dataplane.tunnels.plan import OWNER, TunnelOptions
from tabinet.kernel import netns
from tabinet.kernel.ethtool import FakeOffloads
from tabinet.kernel.nftsocket import open_nftables
from tabinet.kernel.rtnetlink import AddIpip, Link
from tabinet.kernel.rtsocket import open_rtnetlink
from tabinet.kernel.sysctl import ProcSysctl
from tabinet.lib.ip import parse_address, parse_prefix
from tabinet.model.keys import ResourceKey
from tabinet.rules.builder import TableBuilder

pytestmark = pytest.mark.kernel

HOSTS = {"h1": "172.16.1.2", "h2": "172.16.2.2"}
ENDS = {"h1": "10.66.1.0", "h2": "10.66.2.0"}
WORKLOADS = {"w1": ("h1", "10.66.1.1"), "w2": ("h2", "10.66.2.1")}
BLOCKS = {"h1": "10.66.1.0/26", "h2": "10.66.2.0/26"}
PLACES = ("core", *HOSTS, *WORKLOADS)
MTU = 1480
OPEN = m.Policy((m.Rule(m.Action.ALLOW),), (m.Rule(m.Action.ALLOW),))


class Fabric:
    """Namespaces, cables, addresses, and routes between the hosts' own addresses."""

    def __init__(self) -> None:
        self.tag = uuid.uuid4().hex[:6]

    def name(self, place: str) -> str:
        return f"tbi-{self.tag}-{place}"

    def run(self, place: str, *argv: str, text: str = "") -> subprocess.CompletedProcess[str]:
        command = ["nsenter", f"--net=/run/netns/{self.name(place)}", *argv]
        return subprocess.run(command, check=False, input=text, text=True, capture_output=True, timeout=30)

    def ip(self, place: str, *lines: str) -> None:
        done = self.run(place, "ip", "-batch", "-", text="\n".join(lines) + "\n")
        assert done.returncode == 0, done.stderr

    def up(self) -> None:
        for place in PLACES:
            netns.create(self.name(place))
            self.ip(place, "link set dev lo up")
        for place in ("core", *HOSTS):
            netns.run_in(self.name(place), lambda: ProcSysctl().write("net/ipv4/ip_forward", "1"))
        for host, address in HOSTS.items():
            gateway = address.removesuffix("2") + "1"
            self.ip("core", f"link add {host} type veth peer name eth0 netns {self.name(host)}")
            self.ip("core", f"addr add {gateway}/24 dev {host}", f"link set dev {host} up")
            self.ip(host, f"addr add {address}/24 dev eth0", "link set dev eth0 up", f"route add default via {gateway}")
        for workload, (host, address) in WORKLOADS.items():
            self.ip(host, f"link add cali{workload} mtu {MTU} type veth peer name eth0 mtu {MTU} netns {self.name(workload)}")
            self.ip(host, f"addr add 169.254.1.1/32 dev cali{workload}", f"link set dev cali{workload} up")
            self.ip(host, f"route add {address} dev cali{workload} proto 84")
            self.ip(workload, f"addr add {address}/32 dev eth0", "link set dev eth0 up", "route add 169.254.1.1 dev eth0")
            self.ip(workload, "route add default via 169.254.1.1 dev eth0")

    def down(self) -> None:
        for place in PLACES:
            if netns.exists(self.name(place)):
                netns.delete(self.name(place))

    def pings(self, source: str, target: str, *options: str, wait_s: int = 20) -> bool:
        return self.run(source, "ping", "-c1", f"-W{wait_s}", *options, target).returncode == 0


class Host:
    """What an agent does about tunnels on one host."""

    def __init__(self, fabric: Fabric, name: str) -> None:
        self.fabric, self.name = fabric, name
        self.other = next(host for host in HOSTS if host != name)
        self.rt = netns.run_in(fabric.name(name), open_rtnetlink)
        self.nft = netns.run_in(fabric.name(name), open_nftables)
        self.restart()

    def restart(self) -> None:
        """The agent is another one, with an empty memory."""
        self.manager = build_tunnels(self.rt, ProcSysctl(), FakeOffloads(), TunnelOptions())
        self.builder = TableBuilder()
        self.driver = NftDriver(self.nft)
        self.driver.resync(self.builder.table)

    def apply(self, *updates: m.Update) -> TunnelsApplied:
        """Afterwards nothing is left to do, also for one who reads everything again, as is done here instead of listening to events."""
        self.manager.begin()
        for update in updates:
            self.manager.on_update(update)
            self.builder.on_update(update)
        self.driver.apply(self.builder.flush())
        done, again = netns.run_in(self.fabric.name(self.name), lambda: (self._read_and_apply(), self._read_and_apply()))
        assert (done.error, again.operations) == ("", 0)
        return done

    def _read_and_apply(self) -> TunnelsApplied:
        self.manager.verify()
        return self.manager.apply()

    def tunnel(self) -> TunnelsApplied:
        local = m.LocalTunnel(parse_address(HOSTS[self.name]), parse_address(ENDS[self.name]), "", ())
        route = m.RemoteRoute(m.Tunnel.IPIP, parse_address(HOSTS[self.other]))
        endpoints = [
            m.EndpointUpdate(
                ResourceKey("WorkloadEndpoint", workload, "shop"),
                1,
                m.Endpoint(self.name, f"cali{workload}", "", (parse_address(address),), (), (), (), ("open",)),
            )
            for workload, (host, address) in WORKLOADS.items()
            if host == self.name
        ]
        return self.apply(
            m.ProfileUpdate("open", OPEN),
            *endpoints,
            m.SetUpdate(m.ALL_HOSTS, m.SetKind.NETS, frozenset(map(parse_address, HOSTS.values()))),
            m.TunnelUpdate(self.name, m.Tunnel.IPIP, local),
            m.RemoteRouteUpdate(self.name, parse_prefix(BLOCKS[self.other]), route),
        )

    def no_tunnel(self) -> TunnelsApplied:
        return self.apply(m.RemoteRouteRemove(self.name, parse_prefix(BLOCKS[self.other])), m.TunnelRemove(self.name, m.Tunnel.IPIP))

    def link(self) -> Link | None:
        return next((link for link in self.rt.links() if link.name == "tunl0"), None)

    def dropped(self) -> int:
        text = self.fabric.run(self.name, "nft", "list", "chain", "inet", "tabinet", "tunnel_in").stdout
        return sum(int(count) for count in re.findall(r"counter packets (\d+) ", text))

    def close(self) -> None:
        self.rt.close()
        self.nft.close()


@pytest.fixture
def hosts(fabric: Fabric) -> Iterator[list[Host]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(Host(fabric, name))) for name in HOSTS]


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    with contextlib.closing(netns.run_in_new(open_rtnetlink)) as rt:
        outcome = rt.execute([AddIpip("tunl0", MTU)])[0]
    if outcome is not None and outcome.errno == errno.EOPNOTSUPP:
        pytest.skip("this kernel has no IP-in-IP")
    made = Fabric()
    try:
        made.up()
        yield made
    finally:
        made.down()


def test_workloads_reach_each_other_through_ip_in_ip(fabric: Fabric, hosts: list[Host]) -> None:
    one = hosts[0]
    w1, w2 = (address for _, address in WORKLOADS.values())
    assert not fabric.pings("w1", w2, wait_s=1)
    for host in hosts:
        assert (host.tunnel().workload_mtu, host.manager.apply().problems) == (MTU, ())
    assert fabric.pings("w1", w2)
    assert fabric.pings("w2", w1)
    # The largest packet that is promised passes in one piece, and a larger one in several.
    assert fabric.pings("w1", w2, "-M", "do", "-s", str(MTU - 28))
    assert fabric.pings("w1", w2, "-s", "4000")
    # Also from the host's own address: the answer comes back through the tunnel to its end.
    assert fabric.pings("h1", w2)
    assert fabric.pings("h1", w2, "-I", HOSTS["h1"])

    one.restart()
    assert one.tunnel().operations == 0
    assert fabric.pings("w1", w2)

    for host in hosts:
        host.no_tunnel()
        link = host.link()
        assert link is None or (link.up, link.alias, [entry for entry in host.rt.addresses() if entry.index == link.index]) == (
            False,
            "",
            [],
        )
    assert not fabric.pings("w1", w2, wait_s=1)
    for host in hosts:
        host.tunnel()
        link = host.link()
        assert link is not None
        assert (link.up, link.alias, link.mtu) == (True, OWNER, MTU)
    assert fabric.pings("w1", w2)


SEND = """import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_RAW, 4) as sender:
    sender.sendto(bytes.fromhex(sys.argv[2]), (sys.argv[1], 0))
"""


def test_strangers_send_nothing_into_the_tunnel(fabric: Fabric, hosts: list[Host]) -> None:
    one = hosts[0]
    for host in hosts:
        host.tunnel()
    w1, w2 = (parse_address(address) for _, address in WORKLOADS.values())
    echo = struct.pack("!BBHHH", 8, 0, 0xF7FF, 0, 0)
    inner = struct.pack("!BBHHHBBH", 0x45, 0, 28, 0, 0, 64, 1, 0) + w2.packed + w1.packed + echo
    sent = fabric.run("core", "python3", "-c", SEND, HOSTS["h1"], inner.hex())
    assert sent.returncode == 0, sent.stderr
    assert one.dropped() == 1
    assert fabric.pings("w2", w1.address)
    assert one.dropped() == 1

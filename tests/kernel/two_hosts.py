"""Two hosts with workloads, and an outsider behind the first, in namespaces.

::

    a, b - h1 (eth0) ---- (eth0) h2 - c
           h1 (eth1) ---- (eth0) x

h1 forwards between x and h2. Every address of workloads and hosts is routed everywhere; x routes all through h1.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import uuid
from collections.abc import Iterator

from one_host import BLOCKED_S, Connection, Echo, arrives, eventually, family_of

from tabinet.calc import messages as m
from tabinet.dataplane.nft.driver import NftDriver
from tabinet.kernel import netns
from tabinet.kernel.nftables import DeleteTable
from tabinet.kernel.nftsocket import open_nftables
from tabinet.rules.builder import TableBuilder
from tabinet.rules.options import TableOptions

WORKLOADS = {"a": "h1", "b": "h1", "c": "h2"}
PLACES = ("h1", "h2", "x", *WORKLOADS)
ADDRESSES = {
    "a": ("10.65.1.1", "fd65:1::1"),
    "b": ("10.65.1.2", "fd65:1::2"),
    "c": ("10.65.2.1", "fd65:2::1"),
    "h1": ("10.1.0.1", "fd01::1"),
    "h2": ("10.1.0.2", "fd01::2"),
    "x": ("10.2.0.2", "fd02::2"),
}
H1_OUTSIDE = ("10.2.0.1", "fd02::1")
"""Addresses of h1 towards x."""
GATEWAY = "169.254.1.1"
WORKLOAD_MACS = {name: f"02:00:00:00:00:0{name}" for name in WORKLOADS}


class TwoHosts:
    """Namespaces, links, addresses and routes; no policy."""

    def __init__(self) -> None:
        self.tag = uuid.uuid4().hex[:6]

    def namespace(self, place: str) -> str:
        return f"tb2-{self.tag}-{place}"

    def ip(self, place: str, *commands: str) -> None:
        """ip(8) in the namespace."""
        text = "\n".join(commands) + "\n"
        subprocess.run(["ip", "-n", self.namespace(place), "-batch", "-"], input=text, text=True, check=True, capture_output=True)

    def up(self) -> None:
        for place in PLACES:
            netns.create(self.namespace(place))
            self.sysctl(place, "net/ipv6/conf/default/accept_dad", "0")
            self.ip(place, "link set dev lo up")
        self.link("h1", "eth0", "h2", "eth0")
        self.link("h1", "eth1", "x", "eth0")
        addresses = (
            ("h1", "eth0", ADDRESSES["h1"]),
            ("h1", "eth1", H1_OUTSIDE),
            ("h2", "eth0", ADDRESSES["h2"]),
            ("x", "eth0", ADDRESSES["x"]),
        )
        for place, device, (v4, v6) in addresses:
            self.ip(place, f"addr add {v4}/24 dev {device}", f"addr add {v6}/64 dev {device} nodad")
        self.ip("x", f"route add default via {H1_OUTSIDE[0]}", f"route add default via {H1_OUTSIDE[1]}")
        for host, other, nets in (("h1", "h2", ("10.65.2.0/24", "fd65:2::/64")), ("h2", "h1", ("10.65.1.0/24", "fd65:1::/64"))):
            self.ip(host, f"route add {nets[0]} via {ADDRESSES[other][0]}", f"route add {nets[1]} via {ADDRESSES[other][1]}")
            for setting in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
                self.sysctl(host, setting, "1")
        self.ip("h2", "route add 10.2.0.0/24 via 10.1.0.1", "route add fd02::/64 via fd01::1")
        for workload, host in WORKLOADS.items():
            self._attach(workload, host)
        for place in PLACES:  # neighbours known, so that the first probe is not the one that waits for them
            for target in PLACES:
                if target != place and "h" not in target + place:
                    for address in ADDRESSES[target]:
                        assert eventually(lambda p=place, a=address: self.ping(p, a)), (place, address)

    def link(self, one: str, device: str, other: str, other_device: str) -> None:
        """A cable between the two, without addresses."""
        self.ip(one, f"link add {device} type veth peer name {other_device} netns {self.namespace(other)}", f"link set dev {device} up")
        self.ip(other, f"link set dev {other_device} up")
        self.sysctl(one, f"net/ipv4/conf/{device}/rp_filter", "0")

    def _attach(self, workload: str, host: str) -> None:
        device, (v4, v6) = f"cali{workload}", ADDRESSES[workload]
        inner = self.namespace(workload)
        self.ip(
            host, f"link add {device} type veth peer name eth0 address {WORKLOAD_MACS[workload]} netns {inner}", f"link set dev {device} up"
        )
        self.ip(host, f"addr add {GATEWAY}/32 dev {device}", f"addr add fe80::1/64 dev {device} nodad")
        self.ip(host, f"route add {v4} dev {device} scope link", f"route add {v6} dev {device}")
        self.ip(workload, f"addr add {v4}/32 dev eth0", f"addr add {v6}/128 dev eth0 nodad", "link set dev eth0 up")
        self.ip(workload, f"route add {GATEWAY} dev eth0 scope link", f"route add default via {GATEWAY} dev eth0")
        self.ip(workload, "route add default via fe80::1 dev eth0")

    def sysctl(self, place: str, path: str, value: str) -> None:
        def write() -> None:
            with open(f"/proc/sys/{path}", "w") as file:
                file.write(value)

        netns.run_in(self.namespace(place), write)

    def down(self) -> None:
        for place in PLACES:
            if netns.exists(self.namespace(place)):
                netns.delete(self.namespace(place))

    def socket(self, place: str, family: int, kind: int, protocol: int = 0) -> socket.socket:
        made = netns.run_in(self.namespace(place), lambda: socket.socket(family, kind, protocol))
        made.settimeout(BLOCKED_S)
        return made

    def ping(self, source: str, address: str) -> bool:
        """An echo request is answered."""
        with contextlib.closing(Echo(self, source, address)) as echo:
            return echo.answered()

    def udp(self, source: str, target: str, address: str, port: int, source_port: int = 0) -> str:
        """The source address with which a datagram arrives; empty when it does not."""
        family = family_of(address)
        any_address = "::" if family == socket.AF_INET6 else "0.0.0.0"
        receiver, sender = self.socket(target, family, socket.SOCK_DGRAM), self.socket(source, family, socket.SOCK_DGRAM)
        with contextlib.closing(receiver), contextlib.closing(sender):
            receiver.bind((any_address, port))
            sender.bind((any_address, source_port))
            with contextlib.suppress(OSError):
                sender.sendto(b"hello", (address, port))
            return receiver.recvfrom(100)[1][0] if arrives(receiver) else ""

    def tcp(self, source: str, target: str, address: str, port: int) -> Connection:
        """A connection, or the attempt at one."""
        return Connection(self, source, target, address, port)

    def connects(self, source: str, target: str, address: str, port: int) -> bool:
        """A connection comes to be and carries bytes both ways."""
        with contextlib.closing(self.tcp(source, target, address, port)) as connection:
            return connection.established and connection.carries() and connection.carries(forward=False)


class HostAgent:
    """Builder and driver of one host."""

    def __init__(self, fabric: TwoHosts, host: str, options: TableOptions | None = None) -> None:
        self.host = host
        self.nft = netns.run_in(fabric.namespace(host), open_nftables)
        self.builder = TableBuilder(options)
        self.driver = NftDriver(self.nft)
        self.driver.resync(self.builder.table)

    def tell(self, *updates: m.Update):
        """The updates are in the kernel, and a restarted agent would find nothing to do."""
        for update in updates:
            self.builder.on_update(update)
        result = self.driver.apply(self.builder.flush())
        assert not result.resynced, "the kernel refused the change"
        assert NftDriver(self.nft).resync(self.builder.table).operations == 0
        return result

    def close(self) -> None:
        if self.nft.read_table() is not None:
            self.nft.commit([DeleteTable()])
        self.nft.close()


@contextlib.contextmanager
def two_hosts() -> Iterator[TwoHosts]:
    """The namespaces exist within the context."""
    fabric = TwoHosts()
    try:
        fabric.up()
        yield fabric
    finally:
        fabric.down()

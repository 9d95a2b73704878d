"""A host and three workloads in namespaces, and packets between them, for the tests of the nft dataplane."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator

from fence import settle

from tabinet.kernel import netns

WORKLOADS = ("a", "b", "c")
ADDRESSES = {name: (f"10.65.0.{index}", f"fd65::{index}") for index, name in enumerate(WORKLOADS, 1)}
HOST = ("169.254.1.1", "fd65:ffff::1")
DEADLINE_S = 2.0
BLOCKED_S = 5.0
"""How long a call may take that should not have to wait."""
PAUSE_S = 0.005


class OneHost:
    """Namespaces, veths, addresses, routes; no policy."""

    def __init__(self) -> None:
        self.tag = uuid.uuid4().hex[:6]
        self.host = f"tbn-{self.tag}-h"

    def namespace(self, workload: str) -> str:
        return f"tbn-{self.tag}-{workload}"

    def interface(self, workload: str) -> str:
        return f"cali{workload}"

    def ip(self, namespace: str, command: str) -> None:
        subprocess.run(["ip", "-n", namespace, *command.split()], check=True, capture_output=True)

    def up(self) -> None:
        for namespace in (self.host, *map(self.namespace, WORKLOADS)):
            netns.create(namespace)
            self.ip(namespace, "link set dev lo up")
        settings = {"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1, "net.ipv4.conf.all.rp_filter": 0}
        self.ip(self.host, f"addr add {HOST[0]}/32 dev lo")
        self.ip(self.host, f"-6 addr add {HOST[1]}/128 dev lo nodad")
        for name in WORKLOADS:
            inner, outer, (v4, v6) = self.namespace(name), self.interface(name), ADDRESSES[name]
            self.ip(self.host, f"link add {outer} type veth peer name eth0 netns {inner}")
            self.ip(self.host, f"link set dev {outer} up")
            self.ip(self.host, f"-6 addr add fe80::1/64 dev {outer} nodad")
            self.ip(inner, f"addr add {v4}/32 dev eth0")
            self.ip(inner, f"-6 addr add {v6}/128 dev eth0 nodad")
            self.ip(inner, "link set dev eth0 up")
            self.ip(inner, f"route add {HOST[0]} dev eth0 scope link")
            self.ip(inner, f"route add default via {HOST[0]} dev eth0")
            self.ip(inner, "-6 route add default via fe80::1 dev eth0")
            self.ip(self.host, f"route add {v4} dev {outer} scope link")
            self.ip(self.host, f"-6 route add {v6} dev {outer}")
            settings[f"net.ipv4.conf.{outer}.rp_filter"] = 0
        for key, value in settings.items():
            netns.run_in(self.host, lambda key=key, value=value: _write_sysctl(key, value))
        for name in WORKLOADS:  # neighbours known, so that the first probe is not the one that waits for them
            for other in WORKLOADS:
                if other != name:
                    for address in ADDRESSES[other]:
                        assert eventually(lambda n=name, a=address: self.ping(n, a)), (name, address)

    def down(self) -> None:
        for namespace in (self.host, *map(self.namespace, WORKLOADS)):
            if netns.exists(namespace):
                netns.delete(namespace)

    def socket(self, where: str, family: int, kind: int, protocol: int = 0) -> socket.socket:
        namespace = self.host if where == "host" else self.namespace(where)
        made = netns.run_in(namespace, lambda: socket.socket(family, kind, protocol))
        made.settimeout(BLOCKED_S)
        return made

    def ping(self, source: str, address: str) -> bool:
        """An echo request is answered."""
        with contextlib.closing(Echo(self, source, address)) as echo:
            return echo.answered()

    def udp(self, source: str, target: str, address: str, port: int) -> bool:
        """A datagram arrives."""
        family = family_of(address)
        receiver = self.socket(target, family, socket.SOCK_DGRAM)
        sender = self.socket(source, family, socket.SOCK_DGRAM)
        with contextlib.closing(receiver), contextlib.closing(sender):
            receiver.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))
            sender.sendto(b"hello", (address, port))
            return arrives(receiver)

    def tcp(self, source: str, target: str, address: str, port: int) -> Connection:
        """A connection, or the attempt at one."""
        return Connection(self, source, target, address, port)


class Echo:
    """One echo request."""

    def __init__(self, fabric: OneHost, source: str, address: str) -> None:
        self.family = family_of(address)
        v6 = self.family == socket.AF_INET6
        self.socket = fabric.socket(source, self.family, socket.SOCK_RAW, 58 if v6 else 1)
        self.ident = int.from_bytes(os.urandom(2), "big")
        body = struct.pack(">BBHHH", 128 if v6 else 8, 0, 0, self.ident, 1) + b"tabinet!"
        if not v6:
            body = body[:2] + struct.pack(">H", checksum(body)) + body[4:]
        with contextlib.suppress(OSError):  # no neighbour: nothing is sent
            self.socket.sendto(body, (address, 0))

    def answered(self) -> bool:
        """The reply is there."""
        settle()
        return self.heard()

    def heard(self) -> bool:
        """The reply is among what has come already."""
        while ready(self.socket):
            data = self.socket.recv(2000)
            data = data if self.family == socket.AF_INET6 else data[(data[0] & 15) * 4 :]
            if data[0] in (0, 129) and struct.unpack(">H", data[4:6])[0] == self.ident:
                return True
        return False

    def close(self) -> None:
        self.socket.close()


class Connection:
    """A TCP connection with both ends here."""

    def __init__(self, fabric: OneHost, source: str, target: str, address: str, port: int) -> None:
        family = family_of(address)
        self.client = fabric.socket(source, family, socket.SOCK_STREAM)
        self.server: socket.socket | None = None
        with contextlib.closing(fabric.socket(target, family, socket.SOCK_STREAM)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))
            listener.listen()
            self.client.setblocking(False)
            with contextlib.suppress(PermissionError):
                self.client.connect_ex((address, port))
            settle()
            self.client.settimeout(BLOCKED_S)
            if ready(listener):
                self.server = listener.accept()[0]
                self.server.settimeout(BLOCKED_S)

    @property
    def established(self) -> bool:
        return self.server is not None

    def carries(self, *, forward: bool = True) -> bool:
        """Bytes written now arrive at the other end."""
        assert self.server is not None
        sender, receiver = (self.client, self.server) if forward else (self.server, self.client)
        token = os.urandom(4)
        sender.send(token)
        settle()
        received = b""
        while ready(receiver):
            received += receiver.recv(1000)
            if token in received:
                return True
        return False

    def close(self) -> None:
        for end in (self.client, self.server):
            if end is not None:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.close()


@contextlib.contextmanager
def one_host() -> Iterator[OneHost]:
    """The namespaces exist within the context."""
    fabric = OneHost()
    try:
        fabric.up()
        yield fabric
    finally:
        fabric.down()


def family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def arrives(receiver: socket.socket) -> bool:
    """There is something to read, now or when all that was sent has come."""
    if not ready(receiver):
        settle()
    return ready(receiver)


def ready(receiver: socket.socket, wait_s: float = 0) -> bool:
    """There is something to read, within this time."""
    return bool(select.select([receiver], [], [], wait_s)[0])


def eventually(check: Callable[[], bool]) -> bool:
    """True as soon as the check is, False after the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(PAUSE_S)
    return False


def checksum(data: bytes) -> int:
    """RFC 1071."""
    data += b"\0" * (len(data) & 1)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _write_sysctl(key: str, value: int) -> None:
    with open("/proc/sys/" + key.replace(".", "/"), "w") as file:
        file.write(str(value))

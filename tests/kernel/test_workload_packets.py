"""Workloads on a real host: routes, interfaces and packets between them, as the drivers leave them."""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import time
import uuid
from collections.abc import Iterator

import pytest

from tabinet.calc.messages import Endpoint, EndpointRemove, EndpointUpdate
from tabinet.dataplane.links.driver import LinkDriver
from tabinet.dataplane.links.vlans import VlanDriver
from tabinet.dataplane.routes.driver import RouteDriver
from tabinet.dataplane.workloads import WorkloadManager
from tabinet.kernel import netns
from tabinet.kernel.rtnetlink import (
    AddAddress,
    AddRoute,
    AddVeth,
    DeleteLink,
    DeleteRoute,
    InterfaceAddress,
    SetLink,
    Watch,
    device_route,
    execute_all,
    gateway_route,
)
from tabinet.kernel.rtsocket import open_events, open_rtnetlink
from tabinet.kernel.sysctl import ProcSysctl
from tabinet.lib.ip import Prefix, parse_address
from tabinet.model.keys import ResourceKey

pytestmark = pytest.mark.kernel

PATIENCE_S = 5.0


class Threaded:
    """Sysctls of a namespace, from a thread in another one."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def read(self, key: str) -> str:
        return netns.run_in(self._namespace, lambda: ProcSysctl().read(key))

    def write(self, key: str, value: str) -> None:
        netns.run_in(self._namespace, lambda: ProcSysctl().write(key, value))


class Host:
    """A host and its workloads, each a namespace, with the real drivers."""

    def __init__(self) -> None:
        self.unique = uuid.uuid4().hex[:8]
        self.name = f"tbt-{self.unique}-h"
        self.workloads: list[str] = []
        netns.create(self.name)
        self.rt = netns.run_in(self.name, open_rtnetlink)
        self.start()

    def start(self) -> None:
        """A new agent with an empty memory."""
        watch = Watch.LINKS | Watch.ADDRESSES | Watch.ROUTES | Watch.NEIGHBOURS
        self.events = netns.run_in(self.name, lambda: open_events(watch, route_protocols=(84,)))
        self.manager = WorkloadManager(LinkDriver(self.rt, Threaded(self.name)), RouteDriver(self.rt), VlanDriver(self.rt))

    def turn(self) -> int:
        for event in self.events.read():
            self.manager.on_event(event)
        return self.manager.apply().operations

    def turn_until_ready(self, *names: str) -> None:
        """Turns the loop as events come until the endpoints are ready."""
        deadline = time.monotonic() + PATIENCE_S
        self.turn()
        while not all(self.manager.status(key(name)).ready for name in names):
            assert time.monotonic() < deadline, [self.manager.status(key(name)) for name in names]
            select.select([self.events.fileno()], [], [], 0.2)
            self.turn()

    def attach(self, name: str, *addresses: str) -> str:
        """A workload's namespace behind the interface ``tbn<name>``, set up as an attachment does; gives the namespace's name."""
        workload = f"tbt-{self.unique}-{name}"
        netns.create(workload)
        self.workloads.append(workload)
        descriptor = netns.open_namespace(workload)
        execute_all(self.rt, [AddVeth(f"tbn{name}", "eth0", descriptor)])
        os.close(descriptor)
        inside = netns.run_in(workload, open_rtnetlink)
        index = next(link.index for link in inside.links() if link.name == "eth0")
        own = [parse_address(text) for text in addresses]
        gateway4, gateway6 = parse_address("169.254.1.1"), parse_address("fe80::1")
        netns.run_in(workload, lambda: ProcSysctl().write("net/ipv6/conf/eth0/accept_dad", "0"))
        execute_all(
            inside,
            [
                SetLink(1, up=True),
                *[AddAddress(InterfaceAddress(index, address, address.bits)) for address in own],
                SetLink(index, up=True),
                AddRoute(device_route(gateway4, index, protocol=4)),
                AddRoute(gateway_route(Prefix(4, 0, 0), gateway4, index, protocol=4)),
                AddRoute(gateway_route(Prefix(6, 0, 0), gateway6, index, protocol=4)),
            ],
        )
        inside.close()
        return workload

    def endpoint(self, name: str, *addresses: str, mac: str = "") -> EndpointUpdate:
        nets = tuple(sorted(parse_address(text) for text in addresses))
        return EndpointUpdate(key(name), 1, Endpoint("h", f"tbn{name}", mac, nets, (), (), (), ()))

    def close(self) -> None:
        self.events.close()
        self.rt.close()
        for name in [*self.workloads, self.name]:
            netns.delete(name)


def key(name: str) -> ResourceKey:
    return ResourceKey("WorkloadEndpoint", name, "default")


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    host.manager.begin()
    yield host
    host.close()


def answers(namespace: str, address: str) -> bool:
    """True when the address answers a ping from the namespace within the deadline (several are sent)."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    number = socket.IPPROTO_ICMPV6 if ":" in address else socket.IPPROTO_ICMP
    sock = netns.run_in(namespace, lambda: socket.socket(family, socket.SOCK_RAW, number))
    echo, reply = (128, 129) if ":" in address else (8, 0)
    with sock:
        sock.settimeout(0.1)
        deadline = time.monotonic() + PATIENCE_S
        sequence = 0
        while time.monotonic() < deadline:
            sequence += 1
            packet = struct.pack(">BBHHH", echo, 0, 0, os.getpid() & 0xFFFF, sequence)
            if family == socket.AF_INET:
                packet = packet[:2] + struct.pack(">H", checksum(packet)) + packet[4:]
            try:
                sock.sendto(packet, (address, 0))
                while True:
                    data = sock.recv(2000)
                    data = data if ":" in address else data[(data[0] & 15) * 4 :]
                    if data[0] == reply and data[4:6] == packet[4:6]:
                        return True
            except (TimeoutError, OSError):
                continue
    return False


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


A = ("10.65.0.1", "fd65::1")
B = ("10.65.0.2", "fd65::2")


def two_workloads(host: Host) -> tuple[str, str]:
    a, b = host.attach("a", *A), host.attach("b", *B)
    host.manager.on_endpoint_update(host.endpoint("a", *A))
    host.manager.on_endpoint_update(host.endpoint("b", *B))
    host.turn_until_ready("a", "b")
    return a, b


def test_two_workloads_on_one_host_reach_each_other_and_their_gateway(host: Host) -> None:
    a, b = two_workloads(host)
    for target in B:
        assert answers(a, target), target
    for target in A:
        assert answers(b, target), target
    assert answers(a, "169.254.1.1")
    neighbours = subprocess.run(["ip", "-n", a, "neigh", "show"], capture_output=True, text=True, check=True).stdout
    assert "169.254.1.1 dev eth0 lladdr" in neighbours
    assert "fe80::1 dev eth0 lladdr" in neighbours


def test_the_host_answers_for_neighbours_of_a_subnet(host: Host) -> None:
    """A workload with a /24 asks for its neighbour with ARP: the host answers in its place."""
    a, _ = two_workloads(host)
    subprocess.run(["ip", "-n", a, "addr", "add", "10.65.0.1/24", "dev", "eth0"], check=True)
    subprocess.run(["ip", "-n", a, "route", "del", "default"], check=True)
    assert answers(a, B[0])


def test_permanent_neighbours_use_the_given_mac(host: Host) -> None:
    a, _ = two_workloads(host)
    inside = netns.run_in(a, open_rtnetlink)
    mac = next(link.mac for link in inside.links() if link.name == "eth0")
    inside.close()
    host.manager.on_endpoint_update(host.endpoint("a", *A, mac=mac))
    host.turn_until_ready("a")
    entries = {n.address for n in host.rt.neighbours() if n.permanent and n.mac == mac}
    assert entries == {parse_address(text) for text in A}
    assert answers(f"tbt-{host.unique}-b", A[0])


def test_a_restarted_agent_changes_nothing_and_repairs_what_a_stranger_broke(host: Host) -> None:
    a, b = two_workloads(host)
    host.events.close()
    host.start()
    for name, addresses in (("a", A), ("b", B)):
        host.manager.on_endpoint_update(host.endpoint(name, *addresses))
    host.manager.begin()
    assert host.turn() == 0
    assert host.manager.status(key("a")).ready
    stranger = netns.run_in(host.name, open_rtnetlink)
    execute_all(stranger, [DeleteRoute(route) for route in stranger.routes(protocol=84)])
    index = next(link.index for link in stranger.links() if link.name == "tbna")
    execute_all(stranger, [SetLink(index, up=False)])
    stranger.close()
    assert host.turn() > 0
    host.turn_until_ready("a", "b")
    assert answers(a, B[0])
    assert answers(b, A[1])


def test_endpoint_first_interface_later_and_gone_again(host: Host) -> None:
    two_workloads(host)
    host.manager.on_endpoint_update(host.endpoint("c", "10.65.0.3", "fd65::3"))
    host.turn()
    assert host.manager.status(key("c")).reason == "interface tbnc does not exist"
    c = host.attach("c", "10.65.0.3", "fd65::3")
    host.turn_until_ready("c")
    assert answers(c, A[0])
    assert answers(c, A[1])
    execute_all(host.rt, [DeleteLink("tbnc")])
    host.turn()
    assert host.manager.status(key("c")).reason == "interface tbnc does not exist"
    assert len(host.rt.routes(protocol=84)) == 4
    host.manager.on_endpoint_remove(EndpointRemove(key("b")))
    host.turn()
    assert {str(route.destination.address) for route in host.rt.routes(protocol=84)} == set(A)

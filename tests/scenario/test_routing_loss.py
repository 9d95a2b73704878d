"""What failures of a fabric cost in packets: two FRR top-of-rack routers under a BIRD spine, two dual-homed hosts, a workload on each.

Every link, route, session and packet is real. Flows of 1,000 packets/s in both directions and both families, so that a lost packet is a
millisecond. Losses are counted from sequence numbers.
"""

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tabinet.bgp.control import BirdControl
from tabinet.bgp.driver import BgpDriver, check_with
from tabinet.bgp.records import BgpOptions, HostFacts, InterfaceAddress
from tabinet.bgp.restart import bird_command, planned_restart
from tabinet.calc.messages import BgpIntent, PeerIntent, PoolIntent
from tabinet.lab.routers import Command, NeighbourSpec, RouterSpec, Software, daemons, is_ready, render_router
from tabinet.lab.traffic import FlowSpec, LossReport, start_traffic
from tabinet.lib.ip import Prefix, parse_address, parse_prefix

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

AS = {"s1": 65000, "t1": 65011, "t2": 65012, "h1": 4200000001, "h2": 4200000002}
LINKS = (("s1", "t1"), ("s1", "t2"), ("t1", "h1"), ("t2", "h1"), ("t1", "h2"), ("t2", "h2"))
LOOPBACK = {name: (f"10.254.0.{n}", f"fd00:254::{n}") for n, name in enumerate(AS, 1)}
WORKLOAD = {"h1": ("10.65.0.1", "fd00:65::1"), "h2": ("10.65.0.65", "fd00:65::41")}
BLOCKS = {"h1": ("10.65.0.0/26", "fd00:65::/122"), "h2": ("10.65.0.64/26", "fd00:65::40/122")}
POOLS = ("10.65.0.0/16", "fd00:65::/48")
FLOWS = 3
"""For each direction and family."""
BFD_MS, BFD_MULTIPLIER = 150, 5
SYSCTLS = (
    *("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"),
    *("net.ipv4.fib_multipath_hash_policy=1", "net.ipv6.fib_multipath_hash_policy=1"),
    *("net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0"),
    *("net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0"),
    *("net.ipv6.conf.all.keep_addr_on_down=1", "net.ipv6.conf.default.keep_addr_on_down=1"),
    *("net.ipv4.conf.default.ignore_routes_with_linkdown=1", "net.ipv6.conf.default.ignore_routes_with_linkdown=1"),
)


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=20).stdout


def link_addresses(index: int, side: int) -> tuple[str, str]:
    return f"10.255.{index}.{side}", f"fd00:255:{index}::{side}"


@dataclass(slots=True)
class Rack:
    """The fabric; namespaces are named after this process, so that runs do not meet."""

    directory: Path
    prefix: str
    running: dict[tuple[str, str], subprocess.Popen[bytes]] = field(default_factory=dict)
    drivers: dict[str, BgpDriver] = field(default_factory=dict)

    def ns(self, node: str) -> str:
        return f"{self.prefix}-{node}"

    def ip(self, node: str, text: str) -> str:
        return run("ip", "-n", self.ns(node), *text.split())

    def home(self, node: str) -> Path:
        home = self.directory / node
        home.mkdir(exist_ok=True)
        return home

    def build(self) -> None:
        for node in (*AS, "w1", "w2"):
            run("ip", "netns", "add", self.ns(node))
            run("ip", "netns", "exec", self.ns(node), "sysctl", "-qw", *SYSCTLS)
            self.ip(node, "link set lo up")
        for node, addresses in LOOPBACK.items():
            for address, length in zip(addresses, (32, 128), strict=True):
                self.ip(node, f"addr add {address}/{length} dev lo")
        for index, (upper, lower) in enumerate(LINKS):
            run(*f"ip link add {lower} netns {self.ns(upper)} type veth peer name {upper} netns {self.ns(lower)}".split())
            for node, interface, side in ((upper, lower, 0), (lower, upper, 1)):
                self.ip(node, f"link set {interface} up")
                for address, length in zip(link_addresses(index, side), (31, 127), strict=True):
                    self.ip(node, f"addr add {address}/{length} dev {interface}")
        for host, addresses in WORKLOAD.items():
            workload = f"w{host[1]}"
            run(*f"ip link add tb0 netns {self.ns(host)} type veth peer name eth0 netns {self.ns(workload)}".split())
            self.ip(host, "link set tb0 up")
            self.ip(workload, "link set eth0 up")
            self.ip(host, "addr add 169.254.1.1/32 dev tb0 scope link")
            self.ip(host, "addr add fe80::1/64 dev tb0 nodad")
            for address, length, gateway in zip(addresses, (32, 128), ("169.254.1.1", "fe80::1"), strict=True):
                self.ip(workload, f"addr add {address}/{length} dev eth0")
                if length == 32:
                    self.ip(workload, f"route add {gateway} dev eth0")
                self.ip(workload, f"-{4 if length == 32 else 6} route add default via {gateway} dev eth0")
                self.ip(host, f"route add {address}/{length} dev tb0 proto 84")

    def start(self, node: str, name: str, argv: tuple[str, ...]) -> None:
        before = self.running.get((node, name))
        if before is not None:
            before.wait(10)
        with (self.home(node) / f"{name}.log").open("ab") as log:
            full = ["ip", "netns", "exec", self.ns(node), *argv]
            self.running[node, name] = subprocess.Popen(full, stdout=log, stderr=log, cwd=self.home(node))

    def kill(self, node: str) -> None:
        for (owner, _name), process in self.running.items():
            if owner == node:
                process.kill()
                process.wait()

    def commands(self, router: str) -> tuple[Command, ...]:
        return daemons(self.router_spec(router), self.home(router))

    async def start_router(self, router: str, again: bool = False) -> None:
        for command in self.commands(router):
            self.start(router, command.name, command.restart_argv if again else command.argv)
            await until(lambda command=command: is_ready(command))

    def start_host(self, host: str, recover: bool = False) -> None:
        home = self.home(host)
        argv = bird_command("/usr/sbin/bird", home / "bird.conf", home / "bird.ctl", home / "bird.pid", recover=recover)
        self.start(host, "bird", argv)

    def router_spec(self, router: str) -> RouterSpec:
        return RouterSpec(
            name=self.ns(router),
            as_number=AS[router],
            router_id=LOOPBACK[router][0],
            loopbacks=tuple(map(parse_address, LOOPBACK[router])),
            neighbours=tuple(
                NeighbourSpec(
                    interface=peer,
                    peer_name=peer,
                    peer_as=AS[peer],
                    local4=local[0],
                    peer4=remote[0],
                    local6=local[1],
                    peer6=remote[1],
                    is_host=peer.startswith("h"),
                )
                for peer, local, remote in neighbours(router)
            ),
            software=Software.BIRD if router == "s1" else Software.FRR,
            host_prefixes=tuple(map(parse_prefix, (*POOLS, "10.254.0.0/24", "fd00:254::/64"))),
            bfd_interval_ms=BFD_MS,
            bfd_multiplier=BFD_MULTIPLIER,
        )

    async def start_all(self) -> None:
        for router in ("s1", "t1", "t2"):
            for file in render_router(self.router_spec(router)):
                (self.home(router) / file.name).write_text(file.text)
            await self.start_router(router)
        for host in ("h1", "h2"):
            control = BirdControl(self.home(host) / "bird.ctl")
            options = BgpOptions(bfd_interval_ms=BFD_MS, bfd_multiplier=BFD_MULTIPLIER)
            driver = self.drivers[host] = BgpDriver(self.home(host) / "bird.conf", control, options, check_with())
            driver.apply(*host_intent(host))
            self.start_host(host)
            await until(control.is_running)
            assert driver.apply(*host_intent(host)).error == ""
        await until(self.converged, 30)

    def converged(self) -> bool:
        """Each host reaches the other's block and loopback, in both families, through both routers; and every session has BFD."""
        for host, other in (("h1", "h2"), ("h2", "h1")):
            for family, (block, address) in enumerate(zip(BLOCKS[other], LOOPBACK[other], strict=True)):
                flag = ("-4", "-6")[family]
                for prefix in (block, address):
                    if self.ip(host, f"{flag} route show {prefix}").count("via") != 2:
                        return False
            if any(session.bfd != "Up" for session in self.drivers[host].sessions()):
                return False
        return True

    async def loss(self, event: Callable[[], Awaitable[None]]) -> int:
        """The loss of the worst flow, in packets, around an event."""
        flows = [
            FlowSpec(
                source=source,
                source_namespace=self.ns(source),
                destination=destination,
                destination_namespace=self.ns(destination),
                family=family,
                address=WORKLOAD[f"h{destination[1]}"][family == 6],
                port=5000,
            )
            for source, destination in (("w1", "w2"), ("w2", "w1"))
            for family in (4, 6)
            for _ in range(FLOWS)
        ]
        traffic = await start_traffic(flows)
        try:
            await asyncio.sleep(0.5)
            await event()
            reports: list[LossReport] = await traffic.stop()
        finally:
            await traffic.close()
        assert all(report.sent > 500 for report in reports)
        return max(report.lost for report in reports)

    def remove(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()
        for node in (*AS, "w1", "w2"):
            subprocess.run(["ip", "netns", "del", self.ns(node)], check=False, capture_output=True)


def neighbours(node: str) -> list[tuple[str, tuple[Prefix, Prefix], tuple[Prefix, Prefix]]]:
    found = []
    for index, (upper, lower) in enumerate(LINKS):
        ends = [tuple(map(parse_address, link_addresses(index, side))) for side in (0, 1)]
        if node == upper:
            found.append((lower, ends[0], ends[1]))
        elif node == lower:
            found.append((upper, ends[1], ends[0]))
    return found


def host_intent(host: str) -> tuple[BgpIntent, HostFacts]:
    addresses = [InterfaceAddress("lo", parse_address(text), 32 if "." in text else 128) for text in LOOPBACK[host]]
    peers = []
    for router, local, remote in neighbours(host):
        for mine, theirs in zip(local, remote, strict=True):
            addresses.append(InterfaceAddress(router, mine, mine.bits - 1))
            peers.append(PeerIntent(f"{router}-v{theirs.family}", theirs, 179, AS[router], False, False, True, 120, 0))
    pools = tuple(PoolIntent(text, parse_prefix(text), False, False) for text in POOLS)
    own4, own6 = map(parse_address, LOOPBACK[host])
    blocks = tuple(map(parse_prefix, BLOCKS[host]))
    intent = BgpIntent(host, AS[host], LOOPBACK[host][0], own4, own6, 179, "Info", tuple(peers), blocks, pools, ())
    return intent, HostFacts(tuple(addresses))


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


@pytest.fixture
async def rack(tmp_path: Path) -> AsyncIterator[Rack]:
    made = Rack(tmp_path, f"tbrl{os.getpid()}")
    try:
        made.build()
        await made.start_all()
        yield made
    finally:
        made.remove()


async def test_losses(rack: Rack) -> None:
    """One fabric for all events, since bringing it up is most of the time; each starts from a converged one."""
    # A restored link costs an FRR up to a few ms: it tells its neighbours of the better way before its kernel knows it.
    limits = {"carrier lost": 100, "silent": 1000, "restored": 20, "planned restart": 0, "router killed": 0}
    losses: dict[str, int] = {}

    async def cut_carrier() -> None:
        rack.ip("h1", "link set t1 down")
        await asyncio.sleep(1.5)

    async def restore_carrier() -> None:
        rack.ip("h1", "link set t1 up")
        await until(rack.converged, 30)
        await asyncio.sleep(0.5)

    async def cut_silently() -> None:
        for node, interface in (("h1", "t1"), ("t1", "h1")):
            chain = f"chain cut {{ type filter hook ingress device {interface} priority -500; policy drop; }}"
            run("ip", "netns", "exec", rack.ns(node), "nft", f"table netdev silence {{ {chain}; }}")
        await asyncio.sleep(2.5)

    async def restart_bird() -> None:
        driver = rack.drivers["h1"]
        await asyncio.to_thread(planned_restart, driver.control, lambda: rack.start_host("h1", recover=True))
        # The decisive moment: BIRD compares what it has learned with what the kernel has.
        await until(lambda: "Graceful restart done" in (rack.home("h1") / "bird.log").read_text(), 30)
        await until(rack.converged, 30)
        await asyncio.sleep(1.5)

    async def kill_router() -> None:
        rack.kill("t1")
        await asyncio.sleep(1.5)
        await rack.start_router("t1", again=True)
        await until(rack.converged, 30)
        await asyncio.sleep(1.5)

    losses["planned restart"] = await rack.loss(restart_bird)
    losses["carrier lost"] = await rack.loss(cut_carrier)
    losses["restored"] = await rack.loss(restore_carrier)
    losses["router killed"] = await rack.loss(kill_router)
    losses["silent"] = await rack.loss(cut_silently)
    print(losses)
    assert {event: loss for event, loss in losses.items() if loss > limits[event]} == {}

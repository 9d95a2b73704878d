"""Hosts, routers and links for the BGP scenarios: real BIRD and FRR in network namespaces of their own, driven as an agent drives them.

What a host does is worked out from resources by ``calc.bgp`` and done by ``BgpDriver`` in the host's namespace; there is no store and no
agent in between, so that a fabric stands within seconds. Everything is removed at the end.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tabinet.bgp.control import BirdControl
from tabinet.bgp.driver import BgpDriver, check_with
from tabinet.bgp.records import BgpOptions, HostFacts, InterfaceAddress, SessionState, SessionStatus
from tabinet.bgp.restart import bird_command, planned_restart
from tabinet.bgp.surroundings import HostSurroundings
from tabinet.calc.bgp import bgp_intent
from tabinet.calc.bgp_nodes import RoutingFacts
from tabinet.errors import BirdError
from tabinet.kernel.netns import run_in
from tabinet.kernel.rtsocket import open_rtnetlink
from tabinet.lab.build import SYSCTLS
from tabinet.lab.frr import frr_daemons
from tabinet.lab.routers import is_ready
from tabinet.lab.routerspec import RouterSpec
from tabinet.lib.ip import parse_prefix
from tabinet.model import resources as r

OPTIONS = BgpOptions(bfd_interval_ms=100, bfd_multiplier=5)
WORKLOADS = "tb"
"""How the names of workloads' interfaces begin."""


def run(*argv: str, timeout_s: float = 20.0) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stdout}{done.stderr}"
    return done.stdout


def until(condition: Callable[[], Any], seconds: float = 20.0, tell: Callable[[], object] = lambda: "") -> float:
    """Waits until the condition holds; gives the seconds that it took. ``tell``: what there was instead."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() < begin + seconds, tell() or "it did not happen in time"
        time.sleep(0.01)
    return time.monotonic() - begin


@dataclass(slots=True)
class World:
    """A fabric, and the resources that its hosts follow."""

    directory: Path
    prefix: str = field(default_factory=lambda: f"tb{secrets.token_hex(2)}{os.getpid() % 10000}")
    options: BgpOptions = OPTIONS
    resources: RoutingFacts = field(default_factory=RoutingFacts)
    hosts: dict[str, Host] = field(default_factory=dict)
    namespaces: list[str] = field(default_factory=list)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    indices: Iterator[int] = field(default_factory=lambda: itertools.count(10))
    """Of interfaces: two ends of a cable with equal ones are one interface to the kernel."""
    skipped_s: float = 0.0
    """So much later is it for the hosts' drivers, which wait for nothing then."""

    def now_s(self) -> float:
        """The drivers' clock."""
        return time.monotonic() + self.skipped_s

    def ns(self, node: str) -> str:
        return f"{self.prefix}-{node}"

    def home(self, node: str) -> Path:
        home = self.directory / node
        home.mkdir(exist_ok=True)
        return home

    def ip(self, node: str, text: str) -> str:
        return run("ip", "-n", self.ns(node), *text.split())

    def exec(self, node: str, *argv: str) -> str:
        return run("ip", "netns", "exec", self.ns(node), *argv)

    def add(self, node: str, *loopbacks: str) -> None:
        """A namespace that forwards."""
        run("ip", "netns", "add", self.ns(node))
        self.namespaces.append(self.ns(node))
        script = "".join(f"printf {value} > /proc/sys/{path}\n" for path, value in SYSCTLS.items())
        self.exec(node, "sh", "-ec", script)
        self.ip(node, "link set lo up")
        for address in loopbacks:
            self.ip(node, f"addr add {address} dev lo")

    def link(self, a: str, b: str, addresses_a: Iterable[str] = (), addresses_b: Iterable[str] = ()) -> None:
        """A cable; each end is named after the node at the other."""
        near, far = next(self.indices), next(self.indices)
        run(*f"ip link add {b} index {near} netns {self.ns(a)} type veth peer name {a} index {far} netns {self.ns(b)}".split())
        for node, interface, addresses in ((a, b, addresses_a), (b, a, addresses_b)):
            for address in addresses:
                self.ip(node, f"addr add {address} dev {interface}" + (" nodad" if ":" in address else ""))
            self.ip(node, f"link set {interface} up")

    def segment(self, name: str, members: dict[str, tuple[str, ...]]) -> None:
        """A bridge; each member's interface to it has its name."""
        run("ip", "netns", "add", self.ns(name))
        self.namespaces.append(self.ns(name))
        self.ip(name, "link add br0 type bridge stp_state 0 mcast_snooping 0")
        self.ip(name, "link set br0 up")
        for member, addresses in members.items():
            ends = f"ip link add {member} index {next(self.indices)} netns {self.ns(name)} type veth"
            run(*f"{ends} peer name {name} index {next(self.indices)} netns {self.ns(member)}".split())
            self.ip(name, f"link set {member} master br0 up")
            for address in addresses:
                self.ip(member, f"addr add {address} dev {name}" + (" nodad" if ":" in address else ""))
            self.ip(member, f"link set {name} up")

    def workload(self, host: str, name: str, *addresses: str) -> None:
        """A namespace with these addresses (without lengths) behind its host, as an agent would have it."""
        interface = f"{WORKLOADS}{name}"
        self.add(name)
        run(*f"ip link add {interface} netns {self.ns(host)} type veth peer name eth0 netns {self.ns(name)}".split())
        self.ip(host, f"link set {interface} up")
        self.ip(host, f"addr add fe80::1/64 dev {interface} nodad")
        self.exec(host, "sh", "-c", f"echo 1 > /proc/sys/net/ipv4/conf/{interface}/proxy_arp")
        self.ip(name, "link set eth0 up")
        self.ip(name, "route add 169.254.1.1 dev eth0")
        for address in addresses:
            family, length = (6, 128) if ":" in address else (4, 32)
            self.ip(name, f"addr add {address}/{length} dev eth0" + (" nodad" if family == 6 else ""))
            gateway = "fe80::1" if family == 6 else "169.254.1.1"
            self.ip(name, f"-{family} route replace default via {gateway} dev eth0")
            self.ip(host, f"-{family} route add {address}/{length} dev {interface} proto 84")

    def host(self, name: str, **bgp: Any) -> Host:
        """A host with this ``spec.bgp``, and its BIRD, which runs."""
        self.ip(name, "addr add 169.254.1.1/32 dev lo scope link")
        self.resources.nodes[name] = r.Node(spec=r.NodeSpec(bgp=r.NodeBgp(**bgp)))
        made = Host(self, name)
        self.hosts[name] = made
        made.start()
        return made

    def start(self, node: str, name: str, argv: tuple[str, ...]) -> subprocess.Popen[bytes]:
        with (self.home(node) / f"{name}.log").open("ab") as log:
            full = ["ip", "netns", "exec", self.ns(node), *argv]
            process = subprocess.Popen(full, stdout=log, stderr=log, cwd=self.home(node))
        self.processes.append(process)
        return process

    def frr(self, node: str, *lines: str) -> None:
        """An FRR with this configuration of bgpd; BFD runs with the profile ``fabric``."""
        home = self.home(node)
        profile = " profile fabric\n  receive-interval 100\n  transmit-interval 100\n  detect-multiplier 5\n"
        (home / "zebra.conf").write_text("frr defaults datacenter\nzebra work-queue 1\n")
        (home / "bfdd.conf").write_text(f"frr defaults datacenter\nbfd\n{profile}")
        (home / "bgpd.conf").write_text("frr defaults datacenter\n" + "\n".join(lines) + "\n")
        for command in frr_daemons(RouterSpec(name=node, as_number=1, router_id="192.0.2.1"), home):
            self.start(node, command.name, command.argv)
            until(lambda command=command: is_ready(command))

    def vtysh(self, node: str, command: str) -> Any:
        """FRR's answer to a command that ends in json."""
        return json.loads(run("vtysh", "--vty_socket", str(self.home(node)), "-c", command) or "{}")

    def frr_do(self, node: str, *commands: str) -> None:
        """FRR was configured."""
        run("vtysh", "--vty_socket", str(self.home(node)), *(part for command in ("configure", *commands) for part in ("-c", command)))

    def frr_routes(self, node: str, family: int = 4) -> dict[str, list[dict[str, Any]]]:
        """FRR's BGP table: the paths to each prefix, with all their attributes."""
        word = "ipv4" if family == 4 else "ipv6"
        prefixes = self.vtysh(node, f"show bgp {word} unicast json").get("routes", {})
        return {prefix: self.vtysh(node, f"show bgp {word} unicast {prefix} json").get("paths", []) for prefix in prefixes}

    def configure(self) -> None:
        """Every host does what the resources say now."""
        for host in self.hosts.values():
            host.configure()

    def wait_up(self, seconds: float = 20.0) -> float:
        """All sessions of all hosts are established."""

        def down() -> list[str]:
            for host in self.hosts.values():
                host.refresh()
            return [f"{host.name}: {text}" for host in self.hosts.values() for text in host.down()]

        return until(lambda: not down(), seconds, down)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        for host in self.hosts.values():
            host.surroundings.listener.close()
        for namespace in self.namespaces:
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)


@dataclass(slots=True)
class Host:
    """A host's BIRD."""

    world: World
    name: str
    surroundings: HostSurroundings = field(init=False)
    driver: BgpDriver = field(init=False)
    bird: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        home = self.world.home(self.name)
        self.surroundings = HostSurroundings(self.world.directory / "secrets")
        self.driver = BgpDriver(
            home / "bird.conf", BirdControl(home / "bird.ctl"), self.world.options, check_with(), self.surroundings, self.world.now_s
        )

    def start(self, *, recover: bool = False) -> None:
        """BIRD runs."""
        home = self.world.home(self.name)
        config = home / "bird.conf"
        if not config.exists():
            config.write_text("router id 192.0.2.9;\nprotocol device tb_device { scan time 10; }\n")
        argv = bird_command("/usr/sbin/bird", config, home / "bird.ctl", home / "bird.pid", recover=recover)
        self.bird = self.world.start(self.name, "bird", argv)
        until(self.driver.control.is_running)

    def restart(self) -> None:
        """BIRD was restarted in a planned manner."""
        old = self.bird

        def start() -> None:
            old.wait(10)
            home = self.world.home(self.name)
            argv = bird_command("/usr/sbin/bird", home / "bird.conf", home / "bird.ctl", home / "bird.pid", recover=True)
            self.bird = self.world.start(self.name, "bird", argv)

        planned_restart(self.driver.control, start)

    def facts(self) -> HostFacts:
        """The host's addresses, as an agent reads them."""
        socket = run_in(self.world.ns(self.name), open_rtnetlink)
        names = {link.index: link.name for link in socket.links()}
        found = [InterfaceAddress(names[item.index], item.address, item.length) for item in socket.addresses()]
        socket.close()
        return HostFacts(tuple(sorted(item for item in found if not item.interface.startswith(WORKLOADS))))

    def configure(self) -> list[str]:
        """BIRD does what the resources say; gives what is wrong with them."""
        intent, problems = bgp_intent(self.name, self.world.resources)
        facts = self.facts()
        result = run_in(self.world.ns(self.name), lambda: self.driver.apply(intent, facts))
        assert result.error == ""
        return [str(problem) for problem in problems]

    def refresh(self) -> None:
        """As an agent does once a second."""
        run_in(self.world.ns(self.name), self.driver.refresh)

    def sessions(self) -> dict[str, SessionStatus]:
        """By peer."""
        try:
            return {session.peer: session for session in run_in(self.world.ns(self.name), self.driver.sessions)}
        except BirdError:
            return {}

    def down(self) -> list[str]:
        """What keeps sessions down."""
        found = self.sessions().values()
        return [f"{session.peer}: {session.reason}" for session in found if session.state is not SessionState.ESTABLISHED]

    def hops(self, destination: str) -> list[str]:
        """Next hops of BIRD's route in the kernel, sorted; of a blackhole none."""
        family = "-6" if ":" in destination else "-4"
        routes = json.loads(self.world.ip(self.name, f"-j {family} route show {destination} proto bird") or "[]")
        parts = [part for route in routes for part in route.get("nexthops", [route])]
        return sorted(part.get("gateway") or part.get("via", {}).get("host", "") for part in parts if "dev" in part)


def blocks(*texts: str) -> set[Any]:
    return {parse_prefix(text) for text in texts}


def pool(cidr: str, **spec: Any) -> r.IPPoolSpec:
    return r.IPPoolSpec(cidr=cidr, **spec)


def peer(annotations: dict[str, str] | None = None, **spec: Any) -> r.BGPPeer:
    return r.BGPPeer(metadata=r.Metadata(annotations=annotations or {}), spec=r.BGPPeerSpec(**spec))

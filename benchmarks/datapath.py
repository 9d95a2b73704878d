"""What policy costs a packet: round trips, new connections and throughput between two workloads on two hosts.

All in namespaces: workload - host - underlay - host - workload; 500 endpoints on each host, of which one is real. Configurations:

- ``routed``: no policy, the baseline.
- ``tabinet 10|100|1000``: the real rules, as ``TableBuilder`` and ``NftDriver`` make them, on both hosts; every endpoint is selected by so
  many policies in each direction, each with four rules and a set of a hundred members; the last rule of the last policy allows.
  ``one port``: all of these rules are about the port that is asked for, and only the peers' addresses tell them apart.
- ``chains 10|100|1000``: iptables with a chain for each policy, one ipset-less match for each rule, connection tracking first.
- ``bridge``: Linux bridge and VXLAN with iptables security groups of ten rules on the bridge.

One run measures all of them in turns, ``--rounds`` times; the median of each. Of round trips (rr) and of new connections
with one round trip each (crr) the median time, which other work on the machine disturbs less than how many there were. Needs root and a C
compiler (``cc``).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tabinet.calc.messages import (
    Action,
    Endpoint,
    EndpointUpdate,
    Policy,
    PolicyUpdate,
    PortRange,
    Rule,
    SetKind,
    SetUpdate,
    Side,
    TierPolicies,
)
from tabinet.dataplane.nft.driver import NftDriver
from tabinet.kernel import netns
from tabinet.kernel.nftsocket import open_nftables
from tabinet.lib.ip import Prefix, parse_address
from tabinet.model.keys import ResourceKey
from tabinet.rules.builder import TableBuilder

SOURCE = Path(__file__).with_name("load.c")
PORT = 7000
ENDPOINTS = 500
WORKLOADS = ("10.65.0.1", "10.65.1.1")
MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")
BRIDGED = ("10.66.0.1", "10.66.0.2")
Figures = dict[str, float]


class Fabric:
    """Two hosts with a workload each, in namespaces that vanish with it."""

    def __init__(self, program: Path) -> None:
        self.tag = f"dpb{uuid.uuid4().hex[:5]}"
        self.program = program
        self.servers: list[subprocess.Popen[str]] = []

    def name(self, node: str) -> str:
        return f"{self.tag}-{node}"

    def __enter__(self) -> Fabric:
        for node in ("w0", "h0", "h1", "w1"):
            netns.create(self.name(node))
        self.batch("h0", f"link add up0 index 100 type veth peer name up1 index 101 netns {self.name('h1')}")
        for number in (0, 1):
            host, inner = f"h{number}", self.name(f"w{number}")
            self.batch(host, f"link add cali0 index 200 type veth peer name eth0 index 201 address {MACS[number]} netns {inner}")
            commands = ["link set dev lo up", "link set dev cali0 up", f"link set dev up{number} up", "addr add 169.254.1.1/32 dev lo"]
            commands += [f"addr add 172.16.0.{number + 1}/24 dev up{number}", f"route add {WORKLOADS[number]} dev cali0"]
            commands += [f"route add {WORKLOADS[1 - number]} via 172.16.0.{2 - number}"]
            self.batch(host, *commands)
            self.batch(
                f"w{number}",
                "link set dev lo up",
                "link set dev eth0 up",
                f"addr add {WORKLOADS[number]}/32 dev eth0",
                "route add 169.254.1.1 dev eth0",
                "route add default via 169.254.1.1",
            )
            self.run(host, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.cali0.rp_filter=0")
        self.serve("w1")
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            server.kill()
            server.wait()
        for node in ("w0", "h0", "h1", "w1"):
            netns.delete(self.name(node))

    def run(self, node: str, *argv: str, text: str = "") -> str:
        command = ["nsenter", f"--net=/run/netns/{self.name(node)}", *argv]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def batch(self, node: str, *commands: str) -> None:
        self.run(node, "ip", "-batch", "-", text="\n".join(commands) + "\n")

    def serve(self, node: str) -> None:
        argv = ["nsenter", f"--net=/run/netns/{self.name(node)}", str(self.program), "serve", str(PORT)]
        server = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        self.servers.append(server)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"

    def load(self, what: str, address: str, seconds: float) -> Figures:
        figures: Figures = json.loads(self.run("w0", str(self.program), what, address, str(PORT), str(seconds)))
        return figures


def table(number: int, policies: int, *, one_port: bool = False) -> TableBuilder:
    """The rules of a host whose endpoints are all selected by so many policies."""
    builder = TableBuilder()
    keys = []
    peers = frozenset(map(parse_address, WORKLOADS))
    builder.on_update(SetUpdate("s-peers", SetKind.NETS, peers | strangers(0)))
    for policy in range(policies):
        builder.on_update(SetUpdate(f"s-{policy}", SetKind.NETS, strangers(policy + 1)))
        rules = [allow(f"s-{policy}", PORT if one_port else 8000 + rule) for rule in range(4)]
        if policy == policies - 1:
            rules[-1] = allow("s-peers", PORT)
            rules.append(allow("s-peers", PORT + 1))
        mirrored = [Rule(r.action, protocol=6, source=Side(sets=r.source.sets), destination=r.destination) for r in rules]
        out = [Rule(r.action, protocol=6, destination=Side(sets=r.source.sets, ports=r.destination.ports)) for r in rules]
        key = ResourceKey("GlobalNetworkPolicy", f"p{policy:04}")
        keys.append(key)
        builder.on_update(PolicyUpdate(key, Policy(tuple(mirrored), tuple(out))))
    tiers = (TierPolicies("default", Action.DENY, tuple(keys)),)
    for index in range(ENDPOINTS):
        address = WORKLOADS[number] if not index else f"10.70.{index >> 8}.{index & 255}"
        endpoint = Endpoint(
            host="h",
            interface=f"cali{index}",
            mac=MACS[number] if not index else "",
            nets=(parse_address(address),),
            spoof_nets=(),
            ingress=tiers,
            egress=tiers,
            profiles=(),
        )
        builder.on_update(EndpointUpdate(ResourceKey("WorkloadEndpoint", f"e{index}", "default"), 1, endpoint))
    return builder


def allow(set_id: str, port: int) -> Rule:
    return Rule(Action.ALLOW, protocol=6, source=Side(sets=(set_id,)), destination=Side(ports=(PortRange(port, port),)))


def strangers(number: int) -> frozenset[Prefix]:
    """A hundred addresses that never send."""
    return frozenset(parse_address(f"10.{100 + (number >> 8)}.{number & 255}.{i}") for i in range(100))


def with_tabinet(fabric: Fabric, policies: int, *, one_port: bool = False) -> Callable[[], None]:
    """Policy on both hosts; the result takes it away again."""

    def program(number: int) -> None:
        nftables = open_nftables()
        builder = table(number, policies, one_port=one_port)
        builder.flush()
        NftDriver(nftables).resync(builder.table)
        nftables.close()

    for number in (0, 1):
        netns.run_in(fabric.name(f"h{number}"), lambda number=number: program(number))  # type: ignore[misc]  # bound now, not later

    def remove() -> None:
        for number in (0, 1):
            fabric.run(f"h{number}", "nft", "delete", "table", "inet", "tabinet")

    return remove


def with_chains(fabric: Fabric, policies: int) -> Callable[[], None]:
    """A chain for each policy, in the style of Felix's iptables dataplane without ipsets."""
    lines = ["*filter", ":FORWARD ACCEPT", *(f":p{number} -" for number in range(policies)), ":judge -"]
    lines += [
        "-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
        "-A FORWARD -i cali0 -j judge",
        "-A FORWARD -o cali0 -j judge",
    ]
    for number in range(policies):
        lines.append(f"-A judge -j p{number}")
        lines += [
            f"-A p{number} -s 10.{100 + (number >> 8)}.{number & 255}.0/25 -p tcp --dport {8000 + rule} -j ACCEPT" for rule in range(4)
        ]
    lines += [f"-A judge -s 10.65.0.0/16 -p tcp --dport {PORT}:{PORT + 1} -j ACCEPT", "-A judge -j DROP", "COMMIT"]
    for number in (0, 1):
        fabric.run(f"h{number}", "iptables-legacy-restore", text="\n".join(lines) + "\n")

    def remove() -> None:
        for number in (0, 1):
            fabric.run(f"h{number}", "iptables-legacy-restore", text="*filter\n:FORWARD ACCEPT\nCOMMIT\n")

    return remove


def with_bridge(fabric: Fabric) -> Callable[[], None]:
    """The same hosts as Layer 2: a bridge and a VXLAN tunnel, security groups in iptables on bridged packets."""
    lines = [
        "*filter",
        ":FORWARD ACCEPT",
        ":group -",
        "-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
        "-A FORWARD -j group",
    ]
    lines += [f"-A group -s 10.{100 + number}.0.0/16 -p tcp --dport {8000 + number} -j ACCEPT" for number in range(10)]
    lines += [f"-A group -s 10.66.0.0/16 -p tcp --dport {PORT}:{PORT + 1} -j ACCEPT", "-A group -j DROP", "COMMIT"]
    for number in (0, 1):
        host, inner = f"h{number}", fabric.name(f"w{number}")
        tunnel = f"link add vx type vxlan id 7 dstport 4789 local 172.16.0.{number + 1} remote 172.16.0.{2 - number}"
        fabric.batch(
            host, "link add name br0 type bridge", tunnel, f"link add tap0 index 300 type veth peer name eth1 index 301 netns {inner}"
        )
        fabric.batch(
            host, *(f"link set dev {port} master br0" for port in ("vx", "tap0")), *(f"link set dev {d} up" for d in ("br0", "vx", "tap0"))
        )
        fabric.batch(f"w{number}", f"addr add {BRIDGED[number]}/24 dev eth1", "link set dev eth1 mtu 1450", "link set dev eth1 up")
        fabric.run(host, "sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1")
        fabric.run(host, "iptables-legacy-restore", text="\n".join(lines) + "\n")

    def remove() -> None:
        for number in (0, 1):
            fabric.batch(f"h{number}", *(f"link del dev {device}" for device in ("tap0", "vx", "br0")))
            fabric.run(f"h{number}", "iptables-legacy-restore", text="*filter\n:FORWARD ACCEPT\nCOMMIT\n")

    return remove


def measure(rounds: int, seconds: float, sizes: list[int]) -> dict[str, Figures]:
    """The median figures of every configuration."""
    with ExitStack() as stack:
        program = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "load"
        subprocess.run(["cc", "-O2", "-o", str(program), str(SOURCE)], check=True)
        fabric = stack.enter_context(Fabric(program))
        configurations: dict[str, tuple[Callable[[], Callable[[], None]], str]] = {"routed": (lambda: lambda: None, WORKLOADS[1])}
        for size in sizes:
            configurations[f"tabinet {size}"] = ((lambda size=size: with_tabinet(fabric, size)), WORKLOADS[1])  # type: ignore[misc]
        largest = max(sizes)
        configurations[f"one port {largest}"] = (lambda: with_tabinet(fabric, largest, one_port=True), WORKLOADS[1])
        for size in sizes:
            configurations[f"chains {size}"] = ((lambda size=size: with_chains(fabric, size)), WORKLOADS[1])  # type: ignore[misc]
        configurations["bridge"] = (lambda: with_bridge(fabric), BRIDGED[1])
        samples: dict[str, list[Figures]] = {name: [] for name in configurations}
        for _ in range(rounds):
            for name, (begin, address) in configurations.items():
                print(name, file=sys.stderr)
                end = begin()
                rr = fabric.load("rr", address, seconds)
                crr = fabric.load("crr", address, seconds)
                bulk = fabric.load("bulk", address, seconds)
                samples[name].append(
                    {"rr_p50_us": rr["p50_us"], "crr_p50_us": crr["p50_us"], "crr_per_s": crr["per_s"], "mbit_s": bulk["mbit_s"]}
                )
                end()
    return {name: {key: statistics.median(sample[key] for sample in taken) for key in taken[0]} for name, taken in samples.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each configuration is measured (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement (default: %(default)s)")
    parser.add_argument("--policies", type=int, nargs="+", default=[10, 100, 1000], help="numbers of policies (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    results = measure(arguments.rounds, arguments.seconds, arguments.policies)
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    base = results["routed"]
    for name, f in results.items():
        ratios = (f["rr_p50_us"] / base["rr_p50_us"], base["crr_p50_us"] / f["crr_p50_us"], f["mbit_s"] / base["mbit_s"])
        figures = f"rr {f['rr_p50_us']:7.2f} us   crr {f['crr_p50_us']:6.1f} us {f['crr_per_s']:6.0f}/s   {f['mbit_s']:6.0f} Mbit/s"
        print(f"{name:14} {figures}   ratios {' '.join(f'{ratio:6.2f}' for ratio in ratios)}")


if __name__ == "__main__":
    main()

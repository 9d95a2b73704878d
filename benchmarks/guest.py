"""The guest service with thousands of ports in one process: real TAPs, whole transactions, and a guest that floods its host.

Measured with each number of interfaces (``--interfaces``), every transaction by another guest: DISCOVER to ACK (four messages) and SOLICIT
to REPLY by rapid commit, alone (ms) and with 64 under way (per second), and the service's CPU for each. Then one guest sends DISCOVER and
neighbour solicitations without pause for some seconds, while others have their transactions: what these take, and the service's share of a
core. Load and service share the machine. The addresses are in a sqlite store; there is no agent: policy is not what is measured. No
baseline: what Debian has for it (dnsmasq) answers only where the host has an address of the guest's subnet. Everything happens in a
namespace of its own. Needs root.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import resource
import selectors
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tabinet.agent.http import fetch
from tabinet.guest import dhcp6
from tabinet.guest.dhcp4 import Kind, Message, render_message
from tabinet.guest.frames import ICMP6, UDP, Frame, render_frame, udp_datagram
from tabinet.kernel import netns
from tabinet.store.api import PutOp
from tabinet.store.open import open_store

TOGETHER = 64
ALONE = 200
FLOOD_S = 5.0
MOST_OF_A_VICTIM = 5
"""Transactions, so that it is not shut off itself."""
READY_WITHIN_S = 120.0
ANSWER_WITHIN_S = 20.0
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 2, 0x1000
BROADCAST = b"\xff" * 6
SERVERS_MAC = bytes.fromhex("333300010002")
CONFIG = """
[agent]
host = "h1"
run_dir = "{directory}"
[store]
kind = "sqlite"
path = "{directory}/store.db"
[guest]
http_address = "unix:{directory}/http"
"""


def mac_of(number: int) -> bytes:
    return b"\xfa\x16\x3e" + number.to_bytes(3, "big")


def link_local(number: int) -> bytes:
    return bytes.fromhex("fe80000000000000f8163efffe") + number.to_bytes(3, "big")


def address4(number: int) -> bytes:
    return bytes((10, 65)) + (number + 1).to_bytes(2, "big")


def discover(number: int, kind: Kind = Kind.DISCOVER) -> bytes:
    """A DHCPv4 frame."""
    options = ((50, address4(number)), (54, bytes((169, 254, 1, 1)))) if kind is Kind.REQUEST else ()
    data = render_message(Message(op=1, kind=kind, xid=number + 1, mac=mac_of(number), flags=0x8000, options=options))
    head = struct.pack(">BBHHHBBH", 0x45, 0, 28 + len(data), 0, 0, 64, UDP, 0) + bytes(4) + b"\xff" * 4
    total: int = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + (~total & 0xFFFF).to_bytes(2, "big") + head[12:]
    return BROADCAST + mac_of(number) + b"\x08\x00" + head + struct.pack(">HHHH", 68, 67, 8 + len(data), 0) + data


def frame6(number: int, protocol: int, target: bytes, to_mac: bytes, payload: bytes) -> bytes:
    frame = Frame(
        to_mac=to_mac, from_mac=mac_of(number), source=link_local(number), target=target, protocol=protocol, hops=255, payload=payload
    )
    return render_frame(frame)


def solicit(number: int) -> bytes:
    """A DHCPv6 frame, with rapid commit."""
    client = (dhcp6.CLIENT_ID, b"\0\3\0\1" + mac_of(number))
    options = (client, (dhcp6.RAPID_COMMIT, b""), (dhcp6.IA_NA, b"once" + bytes(8)))
    data = dhcp6.render_message(dhcp6.Message(kind=dhcp6.Kind.SOLICIT, xid=number + 1, options=options))
    return frame6(number, UDP, dhcp6.SERVERS, SERVERS_MAC, udp_datagram(dhcp6.CLIENT_PORT, dhcp6.SERVER_PORT, data))


def neighbour(number: int) -> bytes:
    target = bytes.fromhex("fd65") + bytes(12) + b"\xff\x99"
    return frame6(
        number, ICMP6, bytes.fromhex("ff0200000000000000000001ff00ff99"), bytes.fromhex("3333ff00ff99"), bytes((135,)) + bytes(7) + target
    )


def is_answer4(kind: Kind) -> Callable[[bytes], bool]:
    return lambda data: data[12:14] == b"\x08\x00" and data[282:285] == bytes((53, 1, kind))


def is_answer6(data: bytes) -> bool:
    return data[12:14] == b"\x86\xdd" and data[20] == UDP and data[62] == dhcp6.Kind.REPLY


FOUR = ((discover, is_answer4(Kind.OFFER)), (lambda number: discover(number, Kind.REQUEST), is_answer4(Kind.ACK)))
SIX = ((solicit, is_answer6),)
Steps = tuple[tuple[Callable[[int], bytes], Callable[[bytes], bool]], ...]


def open_tap(name: str) -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH14x", name.encode(), IFF_TAP | IFF_NO_PI))
    return descriptor


def endpoint(number: int) -> bytes:
    v4 = ".".join(map(str, address4(number)))
    metadata: dict[str, Any] = {"name": f"h1-openstack-vm{number}-p{number}", "namespace": "openstack", "uid": str(uuid.uuid4())}
    metadata |= {"creationTimestamp": "2026-01-01T00:00:00Z", "annotations": {"openstack.projectcalico.org/network-id": "n"}}
    spec: dict[str, Any] = {
        "orchestrator": "openstack",
        "workload": f"vm{number}",
        "node": "h1",
        "endpoint": f"p{number}",
        "interfaceName": f"tap{number}",
    }
    spec |= {"mac": mac_of(number).hex(":"), "ipNetworks": [f"{v4}/32", f"fd65::{number + 1:x}/128"]}
    document = {"apiVersion": "projectcalico.org/v3", "kind": "WorkloadEndpoint", "metadata": metadata, "spec": spec}
    return json.dumps(document).encode()


async def fill(directory: Path, count: int) -> None:
    store = await open_store(f"sqlite:{directory}/store.db")
    path = "/calico/resources/v3/projectcalico.org/workloadendpoints/openstack/h1-openstack-vm{0}-p{0}"
    subnets: dict[str, dict[str, Any]] = {
        "s4": {"network_id": "n", "cidr": "10.65.0.0/16", "gateway_ip": "10.65.255.254", "dns_servers": ["192.0.2.53"]},
        "s6": {"network_id": "n", "cidr": "fd65::/64", "gateway_ip": "fd65::ffff:1", "ipv6_address_mode": "dhcpv6-stateful"},
    }
    operations = [PutOp(f"/calico/dhcp/v2/no-region/subnet/{name}", json.dumps(value).encode()) for name, value in subnets.items()]
    operations += [PutOp(path.format(number), endpoint(number)) for number in range(count)]
    try:
        for start in range(0, len(operations), 100):
            await store.txn([], operations[start : start + 100])
    finally:
        await store.close()


@dataclass(slots=True)
class Site:
    """A host with a guest service, and guests' ends of their TAPs."""

    directory: Path
    taps: list[int]
    process: subprocess.Popen[bytes]
    selector: selectors.BaseSelector = field(default_factory=selectors.EpollSelector)

    def cpu_s(self) -> float:
        """What the service has used until now."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def transactions(self, steps: Steps, numbers: list[int], together: int, between: Callable[[], None] = lambda: None) -> list[float]:
        """Seconds that each guest's transaction took, at most so many at a time.

        Raises:
            TimeoutError: one was not answered.
        """
        waiting, took = list(reversed(numbers)), list[float]()
        begun, at = dict[int, float](), dict[int, int]()
        while waiting or begun:
            while waiting and len(begun) < together:
                number = waiting.pop()
                begun[number], at[number] = time.perf_counter(), 0
                self.selector.register(self.taps[number], selectors.EVENT_READ, number)
                os.write(self.taps[number], steps[0][0](number))
            between()
            for key, _ in self.selector.select(0.001):
                number = key.data
                if any(map(steps[at[number]][1], read_all(key.fd))):
                    at[number] += 1
                    if at[number] < len(steps):
                        os.write(key.fd, steps[at[number]][0](number))
                    else:
                        took.append(time.perf_counter() - begun.pop(number))
                        self.selector.unregister(key.fd)
            if begun and time.perf_counter() - min(begun.values()) > ANSWER_WITHIN_S:
                raise TimeoutError(f"{len(begun)} transactions were not answered")
        return took


def read_all(descriptor: int) -> list[bytes]:
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(os.read(descriptor, 2000))
    return found


@contextlib.contextmanager
def opened(count: int) -> Iterator[Site]:
    """A site whose service knows all its guests; nothing is left of it."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (count + 1024, max(count + 1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
    namespace = f"tbb-{uuid.uuid4().hex[:6]}-guest"
    netns.create(namespace)
    taps: list[int] = []
    process = None
    try:
        with tempfile.TemporaryDirectory() as text:
            directory = Path(text)
            # What the kernel itself would say to each of thousands of interfaces is not measured.
            netns.run_in(namespace, lambda: Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1"))
            netns.run_in(namespace, lambda: taps.extend(open_tap(f"tap{number}") for number in range(count)))
            batch = ["link set dev lo up", "addr add 169.254.1.1/32 dev lo", *(f"link set dev tap{number} up" for number in range(count))]
            subprocess.run(["ip", "-n", namespace, "-batch", "-"], input="\n".join(batch).encode(), check=True)
            (directory / "tabinet.toml").write_text(CONFIG.format(directory=directory))
            asyncio.run(fill(directory, count))
            argv = ["nsenter", f"--net=/run/netns/{namespace}", sys.executable, "-m", "tabinet.cli.main", "guest"]
            with open(directory / "log", "wb") as log:
                process = subprocess.Popen([*argv, "--config", str(directory / "tabinet.toml")], stdout=log, stderr=log)
            wait_for(directory)
            yield Site(directory, taps, process)
    finally:
        if process is not None:
            process.terminate()
            process.wait()
        for descriptor in taps:
            os.close(descriptor)
        netns.delete(namespace)


def wait_for(directory: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if b"in-sync" in asyncio.run(fetch(f"unix:{directory}/http", "/readiness")).body:
                return
        time.sleep(0.05)
    raise SystemExit((directory / "log").read_text())


def summary(took: list[float]) -> dict[str, float]:
    ordered = sorted(took)
    return {"median_ms": round(statistics.median(ordered) * 1e3, 2), "p99_ms": round(ordered[int(len(ordered) * 0.99)] * 1e3, 2)}


def one_kind(site: Site, steps: Steps, count: int) -> dict[str, float]:
    alone = site.transactions(steps, list(range(min(ALONE, count))), 1)
    cpu, start = site.cpu_s(), time.perf_counter()
    numbers = list(range(count)) * max(1, 2000 // count)
    for first in range(0, len(numbers), count):
        site.transactions(steps, numbers[first : first + count], TOGETHER)
    took = time.perf_counter() - start
    return summary(alone) | {"per_s": round(len(numbers) / took), "cpu_us": round((site.cpu_s() - cpu) / len(numbers) * 1e6)}


def flooded(site: Site, count: int) -> dict[str, Any]:
    """The last guest sends without pause; the others have their transactions, one after the other."""
    attacker = count - 1
    frames = (discover(attacker), neighbour(attacker))
    sent = 0

    def flood() -> None:
        nonlocal sent
        for _ in range(20):
            for frame in frames:
                os.write(site.taps[attacker], frame)
        sent += 20 * len(frames)
        read_all(site.taps[attacker])

    took: list[float] = []
    cpu, start, victim = site.cpu_s(), time.perf_counter(), 0
    while time.perf_counter() - start < FLOOD_S:
        flood()
        if victim < MOST_OF_A_VICTIM * attacker:
            took += site.transactions(FOUR, [victim % attacker], 1, flood)
            victim += 1
    seconds = time.perf_counter() - start
    return summary(took) | {
        "transactions": len(took),
        "flood_per_s": round(sent / seconds),
        "service_share_of_a_core": round((site.cpu_s() - cpu) / seconds, 3),
    }


def measure(count: int) -> dict[str, Any]:
    with opened(count) as site:
        return {
            "interfaces": count,
            "dhcp4": one_kind(site, FOUR, count),
            "dhcp6": one_kind(site, SIX, count),
            "flood": flooded(site, count),
            "memory_mb": int(Path(f"/proc/{site.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="only the figures, as JSON")
    parser.add_argument("--interfaces", type=int, nargs="*", default=[1000, 5000])
    options = parser.parse_args()
    found = [measure(count) for count in options.interfaces]
    if options.json:
        print(json.dumps(found))
        return
    for each in found:
        print(f"{each['interfaces']} interfaces, {each['memory_mb']} MB")
        for name in ("dhcp4", "dhcp6", "flood"):
            print(f"  {name}: " + ", ".join(f"{key} {value}" for key, value in each[name].items()))


if __name__ == "__main__":
    main()

"""A machine that moves between two hosts of a lab: its endpoints in the store, who speaks with it meanwhile, and QEMU's side of it.

Nothing is told to the agents but what a hypervisor's hook would tell. What was lost is counted, not estimated.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import secrets
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from tabinet.agent.operator import tell_machine
from tabinet.kernel.netns import run_in
from tabinet.lab import vm
from tabinet.lab.lab import Lab, lab_down
from tabinet.lab.load import load_topology
from tabinet.lab.plan import namespace_of
from tabinet.lab.up import lab_up
from tabinet.lab.vm import BUSYBOX, QEMU, VM_FILES, Entry, render_cpio
from tabinet.model.endpoint_names import WorkloadEndpointName
from tabinet.model.keys import ResourceKey, path_of
from tabinet.model.status import endpoint_status_path, parse_endpoint_status
from tabinet.store.api import Datastore, DeleteOp, PutOp

TOPOLOGY = Path(__file__).parents[1] / "scenario" / "moving.yaml"
MAC = "02:00:00:00:99:01"
ADDRESS = "10.65.200.9"
INTERVAL_S = 0.01
WITHIN_S = 60.0
PORT = 7000
GUEST_ARGUMENTS = vm.KERNEL_ARGUMENTS.replace(" acpi=off noapic", "")
"""With these two a guest's clock stands still, or runs, after a migration."""
_INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
for module in $(/bin/busybox ls /modules); do /bin/busybox insmod /modules/$module; done
/bin/busybox ip link set lo up
/bin/busybox ip link set eth0 up
/bin/busybox ip addr add {address}/32 dev eth0
/bin/busybox ip route add 169.254.1.1 dev eth0
/bin/busybox ip route add default via 169.254.1.1
while :; do
    /bin/busybox nc {peer} {port} -e /bin/busybox cat
    /bin/busybox sleep 0.2
done
"""


def eventually(question: Callable[[], Any], within_s: float = WITHIN_S) -> Any:
    """What the question comes to once it is true."""
    deadline = time.monotonic() + within_s
    while not (answer := question()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return answer


@dataclass
class Moving:
    """The lab, and the endpoints of one machine."""

    lab: Lab
    tap: str
    name: str = field(default_factory=lambda: f"m{secrets.token_hex(2)}")

    def namespace(self, node: str) -> str:
        return namespace_of(self.lab.name, node)

    def key(self, host: str) -> ResourceKey:
        return ResourceKey("WorkloadEndpoint", str(WorkloadEndpointName(host, "lab", self.name, "eth0")), "default")

    def run(self, work: Callable[[Datastore], Awaitable[Any]]) -> Any:
        async def with_store() -> Any:
            async with self.lab.store() as store:
                return await work(store)

        return asyncio.run(with_store())

    def put(self, key: ResourceKey, spec: dict[str, Any]) -> None:
        metadata = {"name": key.name, "namespace": key.namespace, "uid": secrets.token_hex(8), "labels": {}}
        whole = {"apiVersion": "projectcalico.org/v3", "kind": key.kind, "metadata": metadata, "spec": spec}
        self.run(lambda store: store.txn((), (PutOp(path_of(key), json.dumps(whole).encode()),)))

    def delete(self, *keys: ResourceKey) -> None:
        self.run(lambda store: store.txn((), tuple(DeleteOp(path_of(key)) for key in keys)))

    def put_endpoint(self, host: str) -> None:
        """The machine has an endpoint on the host, with policy that lets in pings and answers only."""
        names = {"node": host, "orchestrator": "lab", "workload": self.name, "endpoint": "eth0"}
        nets = {"interfaceName": self.tap, "mac": MAC, "ipNetworks": [f"{ADDRESS}/32"], "profiles": ["careful"]}
        self.put(self.key(host), names | nets)

    def migration(self) -> ResourceKey:
        return ResourceKey("LiveMigration", self.key("h2").name, "default")

    def begin(self) -> None:
        """The migration is in the store, and the target is ready."""
        ends = {
            end: {
                "workloadEndpoint": {"hostname": host, "orchestratorID": "lab", "workloadID": f"default/{self.name}", "endpointID": "eth0"}
            }
            for end, host in (("source", "h1"), ("target", "h2"))
        }
        self.put(self.migration(), ends)  # first: without it the second endpoint would have the address
        self.put_endpoint("h2")
        self.wait_up("h2")
        eventually(lambda: "8600" in self.ip("h2", "rule", "show"))

    def end(self) -> None:
        """As Neutron does it when the binding is activated."""
        self.delete(self.key("h1"), self.migration())

    def forget(self) -> None:
        self.delete(self.key("h1"), self.key("h2"), self.migration())

    def wait_up(self, host: str) -> None:
        eventually(lambda: self.status(host) == "up")

    def status(self, host: str) -> str:
        """What the host's agent says of the endpoint; empty: nothing."""
        path = endpoint_status_path(host, self.key(host))
        item = self.run(lambda store: store.get(path))
        return parse_endpoint_status(path, item.value).status if item is not None else ""

    def ip(self, node: str, *argv: str) -> str:
        return subprocess.run(["ip", "-n", self.namespace(node), *argv], check=True, capture_output=True, text=True).stdout

    def hook(self, host: str, *, running: bool) -> None:
        """What a hypervisor's hook tells the agent."""
        assert run_in(self.namespace(host), lambda: tell_machine(self.tap, running=running))

    def address_of(self, node: str) -> str:
        [target] = [each for each in asyncio.run(self.lab.targets()) if each.name == node]
        return next(each.address for each in target.addresses if "." in each.address)


@contextlib.contextmanager
def moving_lab() -> Iterator[Lab]:
    """The lab under a name of its own; removed at the end."""
    loaded = load_topology(TOPOLOGY)
    name = f"t{secrets.token_hex(3)}"
    loaded = msgspec.structs.replace(loaded, topology=msgspec.structs.replace(loaded.topology, name=name))
    try:
        yield asyncio.run(lab_up(loaded))
    finally:
        asyncio.run(lab_down(name))


class Pinger:
    """Sends an echo request every 10 ms, and remembers which were answered when."""

    def __init__(self, namespace: str, address: str = ADDRESS) -> None:
        self._socket = run_in(namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
        self._address = address
        self._id = secrets.randbelow(1 << 16)
        self._ended = threading.Event()
        self.sent: dict[int, float] = {}
        self.answered: dict[int, float] = {}
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._send, self._receive)]

    def __enter__(self) -> Pinger:
        self._socket.settimeout(0.1)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def _send(self) -> None:
        sequence, due = 0, time.monotonic()
        while not self._ended.is_set():
            body = struct.pack("!BBHHH", 8, 0, 0, self._id, sequence)
            checksum = ~_fold(sum(struct.unpack("!4H", body))) & 0xFFFF
            self.sent[sequence] = time.monotonic()
            with contextlib.suppress(OSError):
                self._socket.sendto(body[:2] + struct.pack("!H", checksum) + body[4:], (self._address, 0))
            sequence += 1
            due += INTERVAL_S
            self._ended.wait(max(0.0, due - time.monotonic()))

    def _receive(self) -> None:
        while not self._ended.is_set():
            try:
                packet = self._socket.recv(200)
            except TimeoutError:
                continue
            start = (packet[0] & 15) * 4
            kind, _, _, identifier, sequence = struct.unpack_from("!BBHHH", packet, start)
            if (kind, identifier) == (0, self._id):
                self.answered.setdefault(sequence, time.monotonic())

    def wait_answers(self, more: int = 20) -> None:
        """So many more are answered."""
        wanted = len(self.answered) + more
        eventually(lambda: len(self.answered) >= wanted)

    def lost(self) -> int:
        """Not answered, of those sent before the last one that was."""
        last = max(self.answered, default=-1)
        return sum(sequence <= last and sequence not in self.answered for sequence in self.sent)

    def gap_s(self) -> float:
        """The longest time without an answer."""
        times = sorted(self.answered.values())
        return max((after - before for before, after in itertools.pairwise(times)), default=0.0)


def _fold(value: int) -> int:
    while value >> 16:
        value = (value & 0xFFFF) + (value >> 16)
    return value


class Stream:
    """A TCP connection that the machine began; what is sent to it comes back, a little every 10 ms."""

    def __init__(self, namespace: str) -> None:
        self._listener = run_in(namespace, lambda: socket.create_server(("", PORT)))
        self._listener.settimeout(WITHIN_S)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._exchange, daemon=True)
        self.times: list[float] = []
        self.error = ""

    def __enter__(self) -> Stream:
        self._connection, _ = self._listener.accept()
        self._connection.settimeout(20.0)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._connection.close()
        self._listener.close()

    def _exchange(self) -> None:
        number = 0
        try:
            while not self._ended.is_set():
                message = struct.pack("!Q", number)
                self._connection.sendall(message)
                got = b""
                while len(got) < len(message):
                    part = self._connection.recv(len(message) - len(got))
                    if not part:
                        raise ConnectionResetError("closed by the machine")
                    got += part
                assert got == message
                self.times.append(time.monotonic())
                number += 1
                self._ended.wait(INTERVAL_S)
        except (OSError, AssertionError) as error:
            self.error = repr(error)

    def wait_more(self, count: int = 10) -> None:
        """So many more came back."""
        wanted = len(self.times) + count
        eventually(lambda: self.error or len(self.times) >= wanted)
        assert not self.error, self.error

    def gap_s(self) -> float:
        return max((after - before for before, after in zip(self.times, self.times[1:], strict=False)), default=0.0)


# --- QEMU -----------------------------------------------------------------------------------------------------------


class Monitor:
    """QEMU's machine protocol (QMP) on a unix socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._path = path
        self.events: list[str] = []

    def connect(self) -> Monitor:
        def connected() -> bool:
            try:
                self._socket.connect(str(self._path))
            except OSError:
                return False
            return True

        eventually(connected)
        self._socket.settimeout(WITHIN_S)
        self._file = self._socket.makefile("rb")
        self._file.readline()
        self.call("qmp_capabilities")
        return self

    def call(self, command: str, **arguments: Any) -> Any:
        """What QEMU returns; events that come meanwhile are kept."""
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            answer = json.loads(self._file.readline())
            if "event" in answer:
                self._keep(answer)
            else:
                assert "return" in answer, answer
                return answer["return"]

    def wait(self, event: str) -> None:
        """The event has come, now or before; with MIGRATION: completed."""
        while event not in self.events:
            answer = json.loads(self._file.readline())
            if "event" in answer:
                self._keep(answer)

    def _keep(self, answer: dict[str, Any]) -> None:
        status = answer.get("data", {}).get("status", "")
        self.events.append(f"{answer['event']} {status}".strip())

    def close(self) -> None:
        self._file.close()
        self._socket.close()


@dataclass
class Machine:
    """A QEMU on a TAP of a host of the lab."""

    moving: Moving
    host: str
    directory: Path
    incoming: bool = False
    hardware: str = "ee:ee:ee:ee:ee:ee"
    """Of the TAP: the same on every host, as with libvirt; empty: the kernel's choice."""
    process: subprocess.Popen[bytes] | None = None
    monitor: Monitor | None = None

    def plug(self) -> None:
        """The TAP is there, and nobody behind it."""
        self.moving.ip(self.host, "tuntap", "add", "dev", self.moving.tap, "mode", "tap")
        if self.hardware:
            self.moving.ip(self.host, "link", "set", "dev", self.moving.tap, "address", self.hardware)

    def start(self, peer: str) -> Monitor:
        """QEMU runs, or waits for what comes."""
        image = self.directory / "initrd"
        if not image.exists():
            image.write_bytes(small_image(peer))
        argv = [
            *("nsenter", f"--net=/run/netns/{self.moving.namespace(self.host)}", QEMU),
            *("-accel", "tcg", "-M", "pc,hpet=off", "-m", "96", "-nodefaults", "-no-user-config", "-no-reboot"),
            *(
                "-display",
                "none",
                "-serial",
                f"file:{self.directory}/{self.host}.console",
                "-kernel",
                str(VM_FILES / "vmlinuz"),
                "-initrd",
                str(image),
            ),
            *("-append", GUEST_ARGUMENTS, "-netdev", f"tap,id=net,ifname={self.moving.tap},script=no,downscript=no"),
            *("-device", f"virtio-net-pci,netdev=net,mac={MAC},romfile="),
            *("-qmp", f"unix:{self.directory}/{self.host}.qmp,server=on,wait=off"),
            *(("-incoming", "defer") if self.incoming else ()),
        ]
        with open(self.directory / f"{self.host}.log", "wb") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.monitor = Monitor(self.directory / f"{self.host}.qmp").connect()
        self.monitor.call("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
        return self.monitor

    def stop(self) -> None:
        if self.monitor is not None:
            self.monitor.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        with contextlib.suppress(subprocess.CalledProcessError):
            self.moving.ip(self.host, "link", "del", self.moving.tap)


def migrate(moving: Moving, source: Machine, target: Machine, *, hooked: bool = True) -> dict[str, float]:
    """One live migration, and what it cost; ``hooked``: the source's agent is told when the machine stops."""
    peer = moving.namespace("peer")
    moving.put_endpoint("h1")
    source.plug()
    monitor = source.start(moving.address_of("peer"))
    moving.wait_up("h1")
    with Stream(peer) as stream, Pinger(peer) as pinger, Pinger(moving.namespace("there")) as there:
        pinger.wait_answers()
        there.wait_answers()
        stream.wait_more()
        target.plug()
        incoming = target.start(moving.address_of("peer"))
        moving.begin()
        path = f"unix:{target.directory}/migration"
        incoming.call("migrate-incoming", uri=path)
        monitor.call("migrate-set-parameters", **{"max-bandwidth": 1 << 30})
        monitor.call("migrate", uri=path)
        monitor.wait("STOP")
        if hooked:
            moving.hook("h1", running=False)
        incoming.wait("RESUME")
        monitor.wait("MIGRATION completed")
        downtime_s = monitor.call("query-migrate")["downtime"] / 1000
        pinger.wait_answers()
        stream.wait_more()
        moving.end()
        pinger.wait_answers()
        there.wait_answers()
        stream.wait_more()
    assert stream.error == ""
    return {
        "lost": pinger.lost(),
        "lost_at_target": there.lost(),
        "gap_s": pinger.gap_s(),
        "stream_gap_s": stream.gap_s(),
        "downtime_s": downtime_s,
    }


def small_image(peer: str) -> bytes:
    """A guest with a fixed address that does nothing but to connect to the peer and give back what it gets."""
    init = _INIT.format(address=ADDRESS, peer=peer, port=PORT).encode()
    modules = sorted((VM_FILES / "modules").iterdir())
    entries = [
        Entry("init", 0o100755, init),
        Entry("bin/busybox", 0o100755, BUSYBOX.read_bytes()),
        *(Entry(f"modules/{module.name}", 0o100644, module.read_bytes()) for module in modules),
        *(Entry(name, 0o040755) for name in ("proc", "dev", "tmp")),
    ]
    return render_cpio(entries)

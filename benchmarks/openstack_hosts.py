"""What Neutron's users wait for, measured with a lab of two hosts, their agents, and machines that Neutron has placed there.

- ``port``: made over ML2, bound to a host where the machine's interface is already; until the call returns, and until Neutron shows it
  ACTIVE. Within that: from the moment when a watch of etcd (this program's, beside the agent's) shows it until the host's kernel has its
  route, which comes with its policy.
- ``rule``: a rule of a security group, from the beginning of its creation or deletion until packets pass, or no more, on both hosts.

Neutron (``benchmarks.openstack_live``) runs in ``.venv-openstack`` and does what it is told on its standard input. All in milliseconds; the
processes share the monotonic clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import msgspec

from tabinet.kernel import netns
from tabinet.lab.lab import FLOW_PORT, Lab, lab_down
from tabinet.lab.load import load_topology
from tabinet.lab.measure import allowed_after_ms, denied_after_ms
from tabinet.lab.plan import namespace_of
from tabinet.lab.traffic import FlowSpec
from tabinet.lab.up import lab_up

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / ".venv-openstack" / "bin" / "python"
TOPOLOGY = ROOT / "tests" / "openstack" / "two_hosts.yaml"
HOSTS = ("nova1", "nova2")
ENDPOINTS = "/calico/resources/v3/projectcalico.org/workloadendpoints/openstack/"
SEEN_WITHIN_S = 30.0
ENFORCED_WITHIN_S = 4.0
Answer = dict[str, Any]


@dataclass(slots=True)
class Machine:
    """A namespace in a machine's place, plugged in; ``address`` is its own."""

    id: str
    host: str
    address: str
    mac: str
    namespace: str


@dataclass(slots=True)
class Cloud:
    """A lab, a Neutron, and the machines so far."""

    lab: Lab
    neutron: subprocess.Popen[str]
    endpoints: list[tuple[float, str]]
    """What a watch of the endpoints in etcd shows, and when."""
    routes: dict[str, list[tuple[float, str]]]
    """By host: which routes come and go in its kernel, and when: ip-monitor(8)."""
    machines: list[Machine] = field(default_factory=list)

    def ask(self, **question: object) -> Answer:
        """What Neutron answers."""
        assert self.neutron.stdin is not None
        assert self.neutron.stdout is not None
        print(json.dumps(question), file=self.neutron.stdin, flush=True)
        answer: Answer = json.loads(self.neutron.stdout.readline())
        return answer

    def plug(self, host: str) -> Machine:
        """The interface of a machine that Neutron does not know yet."""
        number = len(self.machines) + 10
        identifier = str(uuid.uuid4())
        name = f"{self.lab.plan.name}-{identifier[:8]}"
        machine = Machine(identifier, host, f"10.65.0.{number}", f"fa:16:3e:00:00:{number:02x}", name)
        netns.create(name)
        self.machines.append(machine)
        tap, on_host = f"tap{identifier}"[:14], namespace_of(self.lab.plan.name, host)
        _ip(on_host, f"link add {tap} type veth peer name eth0 address {machine.mac} netns {name}")
        commands = ["link set dev lo up", "link set dev eth0 up", f"addr add {machine.address}/32 dev eth0"]
        _ip(name, *commands, "route add 169.254.1.1 dev eth0 scope link", "route add default via 169.254.1.1")
        _ip(on_host, f"link set dev {tap} up")
        return machine

    def boot(self, host: str) -> dict[str, float]:
        """A port for a machine; how long its steps took from the one before."""
        machine = self.plug(host)
        answer = self.ask(do="port", id=machine.id, host=host, address=machine.address, mac=machine.mac)
        in_kernel = _wait_for(lambda: next((at for at, line in self.routes[host] if line.split()[0] == machine.address), None))
        learned = _wait_for(lambda: next((at for at, line in self.endpoints if machine.id.replace("-", "--") in line), None))
        begun = answer["begun"]
        return {"create": answer["created"] - begun, "learned_to_kernel": in_kernel - learned, "create_to_active": answer["active"] - begun}


def measure(ports: int, rules: int) -> dict[str, float]:
    """The figures."""
    with _cloud() as cloud:
        for host in HOSTS:
            cloud.boot(host)  # for nothing: afterwards everybody who watches has begun to
        steps = [cloud.boot(HOSTS[number % 2]) for number in range(ports)]
        figures = {f"port_{name}_ms": _median_ms([step[name] for step in steps]) for name in steps[0]}
        figures["port_learned_to_kernel_worst_ms"] = round(max(step["learned_to_kernel"] for step in steps) * 1000, 1)
        source, targets = cloud.machines[0], cloud.machines[1:3]
        flows = [
            FlowSpec(
                source=source.id,
                source_namespace=source.namespace,
                destination=target.id,
                destination_namespace=target.namespace,
                family=4,
                address=target.address,
                port=FLOW_PORT,
            )
            for target in targets
        ]
        allowed, denied, calls = [], [], []

        async def open_port() -> None:
            calls.append(await asyncio.to_thread(lambda: cloud.ask(do="allow", port=FLOW_PORT)["took"]))

        async def close_port() -> None:
            calls.append(await asyncio.to_thread(lambda: cloud.ask(do="deny")["took"]))

        for _ in range(rules):
            allowed.append(asyncio.run(allowed_after_ms(flows, open_port, within_s=ENFORCED_WITHIN_S)))
            denied.append(asyncio.run(denied_after_ms(flows, close_port, within_s=ENFORCED_WITHIN_S)))
        figures["rule_created_to_enforced_on_all_hosts_ms"] = round(statistics.median(allowed), 1)
        figures["rule_deleted_to_enforced_on_all_hosts_ms"] = round(statistics.median(denied), 1)
        figures["baseline_rule_call_ms"] = _median_ms(calls)
        return figures


@contextlib.contextmanager
def _cloud() -> Iterator[Cloud]:
    """Lab and Neutron run; nothing of them is left afterwards."""
    loaded = load_topology(TOPOLOGY)
    name = f"b{uuid.uuid4().hex[:6]}"
    loaded = msgspec.structs.replace(loaded, topology=msgspec.structs.replace(loaded.topology, name=name))
    neutron, cloud = None, None
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        try:
            lab = asyncio.run(lab_up(loaded))
            command = [str(PYTHON), "-W", "ignore", "-m", "benchmarks.openstack_live", directory, f"unix://{lab.directory.etcd_socket}"]
            neutron = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            endpoints = ["etcdctl", f"--endpoints=unix://{lab.directory.etcd_socket}", "watch", "--prefix", ENDPOINTS]
            watched = stack.enter_context(_watching(endpoints))
            monitors = {host: ["ip", "-n", namespace_of(name, host), "-oneline", "monitor", "route"] for host in HOSTS}
            routes = {host: stack.enter_context(_watching(command)) for host, command in monitors.items()}
            cloud = Cloud(lab, neutron, watched, routes)
            cloud.ask(do="nothing")
            yield cloud
        finally:
            stack.close()
            if neutron is not None:
                neutron.kill()
                neutron.communicate()
            asyncio.run(lab_down(name))
            for machine in cloud.machines if cloud else ():
                netns.delete(machine.namespace)


@contextlib.contextmanager
def _watching(command: list[str]) -> Iterator[list[tuple[float, str]]]:
    """Grows by each line that the command prints, with the time."""
    found: list[tuple[float, str]] = []

    def read(stream: IO[str]) -> None:
        found.extend((time.monotonic(), line) for line in stream)

    watcher = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "ETCDCTL_API": "3"})
    assert watcher.stdout is not None
    reader = threading.Thread(target=read, args=(watcher.stdout,))
    reader.start()
    try:
        yield found
    finally:
        watcher.kill()
        reader.join()
        watcher.communicate()


def _wait_for(question: Callable[[], float | None]) -> float:
    """When it happened."""
    deadline = time.monotonic() + SEEN_WITHIN_S
    while (answer := question()) is None:
        if time.monotonic() > deadline:
            raise SystemExit("a port was not seen in time")
        time.sleep(0.001)
    return answer


def _median_ms(seconds: list[float]) -> float:
    return round(statistics.median(seconds) * 1000, 1)


def _ip(namespace: str, *commands: str) -> None:
    """ip(8) in a namespace."""
    text = "\n".join(commands) + "\n"
    subprocess.run(["ip", "-n", namespace, "-batch", "-"], input=text, text=True, check=True, capture_output=True)

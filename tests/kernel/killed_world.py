"""A real agent in the first of two hosts, a sqlite store that changes all the time, and packets that must or must not arrive meanwhile.

What changes never concerns the *steady* flows: policies and sets that come and go speak of ports from 6000 on only, and of labels that the
steady flows' rules do not ask for. So every packet of an allowed steady flow must arrive and none of a denied one, whatever the agent does.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fence import settle
from one_host import ready
from two_hosts import ADDRESSES, WORKLOAD_MACS, TwoHosts

from tabinet.dataplane.nft.driver import NftDriver
from tabinet.kernel import netns
from tabinet.kernel.nftables import Element, NftOp, TableInfo
from tabinet.kernel.nftsocket import NftSocket, open_nftables
from tabinet.kernel.rtsocket import open_rtnetlink
from tabinet.lab.check import snapshot
from tabinet.lab.expectation import build_fabric
from tabinet.lib.ip import Prefix, parse_address
from tabinet.model.keys import ResourceKey
from tabinet.rules.evaluate import Packet, evaluate
from tabinet.rules.ir import Table
from tabinet.store.api import Datastore
from tabinet.store.client import ResourceClient

Document = dict[str, Any]
FAMILIES = (0, 1)
SPARES = ("d0", "d1", "d2")
"""Workloads of h1 that come and go; their interfaces stay."""
REMOTES = tuple(f"r{index}" for index in range(6))
CHANGING = (6000, 6001, 6002)
"""Ports that the changing policies speak of."""
STEADY_PORT, DENIED_PORT = 5000, 5001
CONVERGED_S = 60.0
UDP = 17


def document(kind: str, name: str, spec: Document, labels: dict[str, str] | None = None, namespace: str = "") -> Document:
    metadata: Document = {"name": name, "labels": labels or {}}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec}


def workload(name: str, host: str, nets: tuple[str, ...], mac: str, labels: dict[str, str]) -> Document:
    spec = {
        "orchestrator": "lab",
        "node": host,
        "workload": name,
        "endpoint": "eth0",
        "ipNetworks": list(nets),
        "interfaceName": f"cali{name}",
        "mac": mac,
        "profiles": [],
    }
    return document("WorkloadEndpoint", f"{host}-lab-{name}-eth0", spec, labels, "default")


def policy(name: str, order: int, selector: str, **fields: object) -> Document:
    return document("GlobalNetworkPolicy", name, {"order": order, "selector": selector, **fields})


def to_port(action: str, *numbers: int, protocol: str = "UDP", **source: object) -> Document:
    return {"action": action, "protocol": protocol, "source": source, "destination": {"ports": list(numbers)}}


def steady_resources() -> list[Document]:
    """a serves b, c (behind h2) and x (outside); nobody else is served."""
    labels = {"a": {"app": "server"}, "b": {"app": "client"}, "c": {"app": "client"}}
    hosts = {"a": "h1", "b": "h1", "c": "h2"}
    found = [workload(name, hosts[name], ADDRESSES[name], WORKLOAD_MACS[name], labels[name]) for name in hosts]
    found += [workload(name, "h2", (f"10.65.2.{index + 10}",), "", {"turn": "off"}) for index, name in enumerate(REMOTES)]
    found.append(document("HostEndpoint", "h1-eth1", {"node": "h1", "interfaceName": "eth1"}, {"role": "edge"}))
    serve = [
        to_port("Allow", STEADY_PORT, selector="app == 'client'"),
        to_port("Allow", STEADY_PORT, nets=["10.2.0.0/24"]),
        to_port("Allow", STEADY_PORT, nets=["fd02::/64"]),
        to_port("Allow", 80, protocol="TCP", selector="app == 'client'"),
    ]
    found.append(policy("serve", 100, "app == 'server'", types=["Ingress", "Egress"], ingress=serve, egress=[{"action": "Allow"}]))
    found.append(policy("clients", 100, "app == 'client'", types=["Ingress", "Egress"], ingress=[], egress=[{"action": "Allow"}]))
    return found


# --- what changes ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Churn:
    """Changes one thing after the other, while it may."""

    client: ResourceClient
    choose: random.Random
    pause_s: float = 0.01
    changes: int = 0
    _allowed: asyncio.Event = field(default_factory=asyncio.Event)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        while True:
            if not self._allowed.is_set():
                self._idle.set()
                await self._allowed.wait()
            self._idle.clear()
            await self.choose.choice((self._policy, self._policy, self._label, self._set, self._spare, self._spare, self._forward))()
            self.changes += 1
            await asyncio.sleep(self.pause_s * self.choose.random())

    def go_on(self) -> None:
        self._allowed.set()

    async def stop(self) -> None:
        """Nothing changes any more."""
        self._allowed.clear()
        await self._idle.wait()

    async def _put_or_delete(self, made: Document, chance: float) -> None:
        if self.choose.random() < chance:
            await self.client.apply(made)
            return
        metadata = made["metadata"]
        with contextlib.suppress(Exception):  # it is not there
            await self.client.delete(ResourceKey(made["kind"], metadata["name"], metadata.get("namespace", "")))

    def _rule(self) -> Document:
        sources: list[Document] = [{}, {"nets": ["10.2.0.0/24"]}, {"notNets": ["10.65.1.0/24"]}]
        sources += [{"selector": "turn == 'on'"}, {"selector": "turn == 'on' || app == 'client'"}]
        source = self.choose.choice(sources)
        return to_port(self.choose.choice(("Allow", "Allow", "Deny", "Pass")), self.choose.choice(CHANGING), **source)

    def _rules(self) -> list[Document]:
        return [self._rule() for _ in range(self.choose.randint(1, 4))]

    async def _policy(self) -> None:
        name = f"changing-{self.choose.randrange(5)}"
        types = self.choose.choice((["Ingress"], ["Egress"], ["Ingress", "Egress"]))
        rules = {kind.lower(): self._rules() for kind in types}
        selector = self.choose.choice(("all()", "app == 'server'", "app == 'client'", "has(app)"))
        # In a tier of its own it could deny by default; here the steady policies follow.
        await self._put_or_delete(policy(name, self.choose.choice((10, 20, 200)), selector, types=types, **rules), 0.7)

    async def _forward(self) -> None:
        rules = {direction: [*self._rules(), {"action": "Allow"}] for direction in ("ingress", "egress")}
        made = policy("edge", 50, "role == 'edge'", types=["Ingress", "Egress"], applyOnForward=True, **rules)
        await self._put_or_delete(made, 0.6)

    async def _label(self) -> None:
        name = self.choose.choice(REMOTES)
        nets = (f"10.65.2.{REMOTES.index(name) + 10}",)
        await self._put_or_delete(workload(name, "h2", nets, "", {"turn": self.choose.choice(("on", "off"))}), 0.8)

    async def _set(self) -> None:
        nets = self.choose.sample(("10.65.2.1", "10.65.1.2/31", "10.2.0.0/24", "fd02::/64", "fd65:2::1", "192.0.2.0/24"), 3)
        labels = {"turn": self.choose.choice(("on", "off"))}
        await self._put_or_delete(document("GlobalNetworkSet", f"set-{self.choose.randrange(2)}", {"nets": nets}, labels), 0.8)

    async def _spare(self) -> None:
        name = self.choose.choice(SPARES)
        address = f"10.65.1.{10 + SPARES.index(name)}"
        labels = {"app": self.choose.choice(("client", "server")), "turn": self.choose.choice(("on", "off"))}
        await self._put_or_delete(workload(name, "h1", (address,), "", labels), 0.6)


# --- packets --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Flow:
    """Datagrams from one place to a port of another."""

    source: str
    target: str
    family: int
    port: int
    allowed: bool
    sender: socket.socket
    sent: int = 0
    arrived: int = 0
    answered: int = 0

    def __str__(self) -> str:
        which = f"{self.source} to {self.target} IPv{(4, 6)[self.family]} port {self.port}, {'allowed' if self.allowed else 'denied'}"
        return f"{which}: {self.sent} sent, {self.arrived} arrived, {self.answered} answered"

    @property
    def right(self) -> bool:
        """Every packet was answered, or none came through."""
        return (self.arrived, self.answered) == ((self.sent, self.sent) if self.allowed else (0, 0))


STEADY = (
    ("b", "a", STEADY_PORT, True),
    ("c", "a", STEADY_PORT, True),
    ("x", "a", STEADY_PORT, True),
    ("b", "a", DENIED_PORT, False),
    ("c", "a", DENIED_PORT, False),
    ("x", "a", DENIED_PORT, False),
    ("a", "b", STEADY_PORT, False),
    ("c", "b", STEADY_PORT, False),
    ("x", "b", STEADY_PORT, False),
)
"""(source, target, port, allowed)."""
NEW_FLOW_EVERY = 10
PAUSE_S = 0.002


class Traffic:
    """Steady flows, each old one with new ones beside it, from a thread of its own."""

    def __init__(self, fabric: TwoHosts) -> None:
        self.fabric = fabric
        self._stack = contextlib.ExitStack()
        self.receivers: dict[socket.socket, tuple[str, int, int]] = {}
        for target in ("a", "b"):
            for family in FAMILIES:
                for port in (STEADY_PORT, DENIED_PORT):
                    self.receivers[self._bound(target, family, port)] = (target, family, port)
        self.flows = [
            Flow(source, target, family, port, allowed, self._bound(source, family, 0))
            for source, target, port, allowed in STEADY
            for family in FAMILIES
        ]
        self.fresh = [Flow(f.source, f.target, f.family, f.port, f.allowed, f.sender) for f in self.flows]
        """Sums over flows of one datagram each."""
        self._over = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="traffic")

    def _bound(self, place: str, family: int, port: int) -> socket.socket:
        made = self._stack.enter_context(self.fabric.socket(place, (socket.AF_INET, socket.AF_INET6)[family], socket.SOCK_DGRAM))
        made.bind((ADDRESSES[place][family], port))
        made.setblocking(False)
        return made

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._stack.close()
        if self._failure is not None:
            raise self._failure

    def problems(self) -> list[str]:
        """What was lost of allowed flows or got through of denied ones. Only after the end."""
        return [str(flow) for flow in self.flows + self.fresh if not flow.right]

    def _run(self) -> None:
        try:
            turn = 0
            while not self._over.is_set():
                for number, flow in enumerate(self.flows):
                    self._send(flow, number, flow.sender)
                if turn % NEW_FLOW_EVERY == 0:
                    self._send_fresh(turn // NEW_FLOW_EVERY)
                self._drain()
                turn += 1
                self._over.wait(PAUSE_S)
            for _ in range(2):
                settle()
                self._drain()
        except BaseException as error:  # noqa: BLE001  # the test's thread raises it
            self._failure = error

    def _send(self, flow: Flow, number: int, sender: socket.socket) -> None:
        sender.sendto(struct.pack("=I", number), (ADDRESSES[flow.target][flow.family], flow.port))
        flow.sent += 1

    def _send_fresh(self, turn: int) -> None:
        number = turn % len(self.fresh)
        flow = self.fresh[number]
        with self.fabric.socket(flow.source, flow.sender.family, socket.SOCK_DGRAM) as sender:
            sender.bind((ADDRESSES[flow.source][flow.family], 0))
            self._send(flow, len(self.flows) + number, sender)
            settle()
            self._drain()
            settle()
            if ready(sender):
                flow.answered += 1

    def _drain(self) -> None:
        everything = self.flows + self.fresh
        for receiver, (target, family, port) in self.receivers.items():
            with contextlib.suppress(BlockingIOError):
                while True:
                    data, sender = receiver.recvfrom(100)
                    flow = everything[struct.unpack("=I", data)[0]]
                    assert (flow.target, flow.family, flow.port) == (target, family, port)
                    flow.arrived += 1
                    receiver.sendto(data, sender)
        for flow in self.flows:
            with contextlib.suppress(BlockingIOError):
                while True:
                    flow.sender.recv(100)
                    flow.answered += 1


# --- the agent ------------------------------------------------------------------------------------------------------


class AgentProcess:
    """``python -m tabinet.agent`` in h1."""

    def __init__(self, fabric: TwoHosts, directory: Path, store: Path) -> None:
        self.namespace = fabric.namespace("h1")
        self.log = directory / "agent.log"
        self.config = directory / "agent.toml"
        self.config.write_text(
            f'[agent]\nhost = "h1"\nrun_dir = "{directory}"\nhttp_address = ""\n'
            f'[store]\nkind = "sqlite"\npath = "{store}"\n[bird]\nenabled = false\n'
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert self.process is None
        command = ["ip", "netns", "exec", self.namespace, sys.executable, "-m", "tabinet.agent", "--config", str(self.config)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def kill(self) -> None:
        assert self.process is not None
        assert self.process.poll() is None, f"the agent ended by itself:\n{self.log.read_text()[-4000:]}"
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


# --- what the kernel holds ------------------------------------------------------------------------------------------


class Looking:
    """nf_tables that may be read and not changed; remembers what somebody wanted to change."""

    def __init__(self, nft: NftSocket) -> None:
        self.nft = nft
        self.wanted: list[NftOp] = []

    def commit(self, operations: list[NftOp]) -> None:
        self.wanted += operations

    def read_table(self) -> TableInfo | None:
        return self.nft.read_table()

    def read_elements(self, set_name: str) -> list[Element]:
        return self.nft.read_elements(set_name)

    def read_counters(self) -> dict[tuple[str, bytes], tuple[int, int]]:
        return self.nft.read_counters()

    def read_element_counters(self, set_name: str) -> dict[bytes, tuple[int, int]]:
        return self.nft.read_element_counters(set_name)

    def disturbed(self) -> bool:
        return False

    def close(self) -> None:
        self.nft.close()


def differences(nft: NftSocket, table: Table) -> list[NftOp]:
    """What would have to be done to the kernel's table so that it is this one."""
    looking = Looking(nft)
    NftDriver(looking).resync(table)
    return looking.wanted


async def oracle(store: Datastore) -> tuple[Table, set[Prefix]]:
    """The table that the store's resources mean for h1, calculated from nothing, and the addresses of its endpoints."""
    fabric = build_fabric(await snapshot(store), ["h1"])
    return fabric.tables["h1"], fabric.addresses_on("h1")


@dataclass(slots=True)
class Kernel:
    """What h1's kernel holds."""

    fabric: TwoHosts

    async def await_equal(self, store: Datastore, agent: AgentProcess) -> Table:
        """The kernel is as the oracle says, within the deadline; gives the table."""
        table, addresses = await oracle(store)
        nft = netns.run_in(self.fabric.namespace("h1"), open_nftables)
        rtnetlink = netns.run_in(self.fabric.namespace("h1"), open_rtnetlink)
        deadline = time.monotonic() + CONVERGED_S
        try:
            while True:
                wanted = differences(nft, table)
                routes = {route.destination for route in rtnetlink.routes(protocol=84)}
                if not wanted and routes == addresses:
                    return table
                assert time.monotonic() < deadline, (wanted[:20], routes ^ addresses, agent.log.read_text()[-3000:])
                assert agent.process is not None and agent.process.poll() is None, agent.log.read_text()[-3000:]
                await asyncio.sleep(0.02)
        finally:
            nft.close()
            rtnetlink.close()


class Changing:
    """Old and new flows to the ports that the changing policies speak of."""

    def __init__(self, fabric: TwoHosts) -> None:
        self.fabric = fabric
        self.old: dict[tuple[str, int], socket.socket] = {}

    def check(self, table: Table) -> int:
        """Datagrams arrive where the table lets them; gives how many of them."""
        arrived = 0
        with contextlib.ExitStack() as stack:
            receivers = {}
            for target in ("a", "b"):
                for family in FAMILIES:
                    for port in CHANGING:
                        made = stack.enter_context(self._socket(target, family))
                        made.bind((ADDRESSES[target][family], port))
                        receivers[target, family, port] = made
            for (target, family, port), receiver in receivers.items():
                for source in ("a", "b", "c", "x"):
                    if source == target:
                        continue
                    if (source, family) not in self.old:
                        self.old[source, family] = self._socket(source, family)
                        self.old[source, family].bind((ADDRESSES[source][family], 0))
                    fresh = stack.enter_context(self._socket(source, family))
                    fresh.bind((ADDRESSES[source][family], 0))
                    expected = may_begin(table, source, target, family, port)
                    for sender in (self.old[source, family], fresh):
                        sender.sendto(b"?", (ADDRESSES[target][family], port))
                        settle()
                        found = ready(receiver)
                        assert found is expected, (source, target, family, port, "new flow" if sender is fresh else "old flow")
                        if found:
                            receiver.recv(10)
                            arrived += 1
        return arrived

    def _socket(self, place: str, family: int) -> socket.socket:
        return self.fabric.socket(place, (socket.AF_INET, socket.AF_INET6)[family], socket.SOCK_DGRAM)

    def close(self) -> None:
        for each in self.old.values():
            each.close()


def may_begin(table: Table, source: str, target: str, family: int, port: int) -> bool:
    """The oracle's word on a datagram through h1."""
    ways = {"x": "eth1", "c": "eth0"}
    into, out = ways.get(source, f"cali{source}"), ways.get(target, f"cali{target}")
    ends = parse_address(ADDRESSES[source][family]), parse_address(ADDRESSES[target][family])
    return evaluate(table, Packet(into, out, *ends, UDP, 40000, port)).accepted

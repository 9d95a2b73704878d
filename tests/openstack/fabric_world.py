"""A fabric whose workloads come from Neutron: a lab whose hosts have agents, and a Neutron that writes to its etcd.

The machines are network namespaces with the port's addresses and hardware address, as a hypervisor would plug them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from neutron_process import Neutron
from openstack_world import eventually

from tabinet.kernel import netns
from tabinet.lab.lab import Lab, lab_down
from tabinet.lab.load import load_topology
from tabinet.lab.plan import namespace_of
from tabinet.lab.up import lab_up
from tabinet.model.codec import decode_document, encode_document
from tabinet.model.keys import ResourceKey, path_of
from tabinet.model.records.base import API_VERSION
from tabinet.store.api import DeleteOp, PutOp
from tabinet.store.open import open_store

TOPOLOGY = Path(__file__).parent / "two_hosts.yaml"
CONNECT_S = 0.5
Port = dict[str, Any]


@dataclass
class Cloud:
    """A lab and the Neutron that writes to its etcd."""

    lab: Lab
    neutron: Neutron
    machines: list[str] = field(default_factory=list)

    def boot(self, network: dict[str, Any], host: str, **fields: Any) -> Port:
        """A machine on the host, plugged in; its port is active."""
        common = {"device_owner": "compute:nova", "device_id": str(uuid.uuid4()), "binding_host_id": host}
        port = self.neutron.create("port", network_id=network["id"], **common | fields)
        self.plug(port, host)
        eventually(lambda: self.neutron.show("port", port["id"])["status"] == "ACTIVE")
        return port

    def plug(self, port: Port, host: str) -> None:
        """What a hypervisor does: a tap whose other end is in the machine, with the port's hardware address."""
        machine = self.machine(port)
        netns.create(machine)
        self.machines.append(machine)
        tap = f"tap{port['id']}"[:14]
        on_host, inside = namespace_of(self.lab.plan.name, host), machine
        netns.run_in(inside, lambda: Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0"))
        ip(on_host, f"link add {tap} type veth peer name eth0 address {port['mac_address']} netns {inside}")
        addresses = [f"addr add {fixed['ip_address']}/{32 if '.' in fixed['ip_address'] else 128} dev eth0" for fixed in port["fixed_ips"]]
        routes = [
            "route add 169.254.1.1 dev eth0 scope link",
            "route add default via 169.254.1.1",
            "route add default via fe80::1 dev eth0",
        ]
        ip(inside, "link set dev lo up", "link set dev eth0 up", *addresses, *routes)
        ip(on_host, f"link set dev {tap} up")  # last: with a carrier from the beginning, as a tap has that a hypervisor holds open

    def machine(self, port: Port) -> str:
        return f"{self.lab.plan.name}-{port['id'][:8]}"

    def namespace(self, node: str) -> str:
        return namespace_of(self.lab.plan.name, node)

    def routes(self, node: str, within: str) -> dict[str, str]:
        """Prefixes within another that a node routes, and how."""
        command = ["ip", "-n", self.namespace(node), "-j", "route", "show", "root", within]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return {route["dst"]: route.get("dev") or " ".join(hop["dev"] for hop in route["nexthops"]) for route in found}

    def remove(self, key: ResourceKey) -> None:
        """There is no such resource."""

        async def write() -> None:
            store = await open_store(f"unix://{self.lab.directory.etcd_socket}")
            try:
                assert (await store.txn((), (DeleteOp(path_of(key)),))).succeeded
            finally:
                await store.close()

        asyncio.run(write())

    def change(self, key: ResourceKey, **spec: Any) -> None:
        """The resource has these fields."""

        async def write() -> None:
            store = await open_store(f"unix://{self.lab.directory.etcd_socket}")
            try:
                item = await store.get(path_of(key))
                before = decode_document(item.value, item.key) if item else {}
                named = {"apiVersion": API_VERSION, "kind": key.kind, "metadata": {"name": key.name, "uid": str(uuid.uuid4())}}
                document = {**named, **before, "spec": before.get("spec", {}) | spec}
                await store.txn((), (PutOp(path_of(key), encode_document(document)),))
            finally:
                await store.close()

        asyncio.run(write())

    def reaches(self, source: Port, target: Port, port: int, mark: str = ".", own: str = "") -> bool:
        """A TCP connection comes about; in the family whose addresses have the mark in them, from an address of the source's own."""
        address = next(fixed["ip_address"] for fixed in target["fixed_ips"] if mark in fixed["ip_address"])
        return self._connects(self.machine(source), target, address, port, own)

    def reaches_from(self, node: str, target: Port, address: str, port: int) -> bool:
        """A TCP connection comes about from the loopback address of a router to the machine, by this address of its."""
        [own] = [each.loopbacks[0].address for each in self.lab.plan.routers if each.name == node]
        return self._connects(self.namespace(node), target, address, port, own)

    def _connects(self, source: str, target: Port, address: str, port: int, own: str = "") -> bool:
        family = socket.AF_INET if "." in address else socket.AF_INET6
        listener = netns.run_in(self.machine(target), lambda: socket.socket(family, socket.SOCK_STREAM))
        client = netns.run_in(source, lambda: socket.socket(family, socket.SOCK_STREAM))
        with contextlib.closing(listener), contextlib.closing(client):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("", port))
            listener.listen()
            client.settimeout(CONNECT_S)
            client.bind((own, 0))
            try:
                client.connect((address, port))
            except OSError:
                return False
            return True


@contextlib.contextmanager
def fabric(
    template: Path, directory: Path, *, topology: Path = TOPOLOGY, isolated: bool = False, comparison_interval: float = 0.0
) -> Iterator[Cloud]:
    """Lab and Neutron run; nothing of them is left afterwards."""
    loaded = load_topology(topology)
    name = f"t{uuid.uuid4().hex[:6]}"
    loaded = msgspec.structs.replace(loaded, topology=msgspec.structs.replace(loaded.topology, name=name))
    neutron, machines = None, list[str]()
    try:
        lab = asyncio.run(lab_up(loaded))
        etcd = f"unix://{lab.directory.etcd_socket}"
        neutron = Neutron(directory / "neutron", etcd, comparison_interval=comparison_interval, isolated=isolated)
        neutron.prepare(template)
        neutron.start()
        neutron.make_default_rules()
        yield Cloud(lab, neutron, machines)
    finally:
        if neutron is not None:
            neutron.stop()
        asyncio.run(lab_down(name))
        for machine in machines:
            netns.delete(machine)


def ip(namespace: str, *commands: str) -> None:
    """ip(8) in a namespace."""
    text = "\n".join(commands) + "\n"
    subprocess.run(["ip", "-n", namespace, "-batch", "-"], input=text, text=True, check=True, capture_output=True)

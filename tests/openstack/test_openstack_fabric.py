"""From the API to packets: ports that Neutron binds to hosts of a lab, whose agents program them; what groups say is what arrives.

The machines are network namespaces with the port's addresses and hardware address, as a hypervisor would plug them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from neutron_process import Neutron
from openstack_world import eventually

from tabinet.kernel import netns
from tabinet.lab.lab import Lab, lab_down
from tabinet.lab.load import load_topology
from tabinet.lab.plan import namespace_of
from tabinet.lab.up import lab_up

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
        _ip(on_host, f"link add {tap} type veth peer name eth0 address {port['mac_address']} netns {inside}")
        addresses = [f"addr add {fixed['ip_address']}/{32 if '.' in fixed['ip_address'] else 128} dev eth0" for fixed in port["fixed_ips"]]
        routes = [
            "route add 169.254.1.1 dev eth0 scope link",
            "route add default via 169.254.1.1",
            "route add default via fe80::1 dev eth0",
        ]
        _ip(inside, "link set dev lo up", "link set dev eth0 up", *addresses, *routes)
        _ip(on_host, f"link set dev {tap} up")  # last: with a carrier from the beginning, as a tap has that a hypervisor holds open

    def machine(self, port: Port) -> str:
        return f"{self.lab.plan.name}-{port['id'][:8]}"

    def reaches(self, source: Port, target: Port, port: int, mark: str = ".") -> bool:
        """A TCP connection comes about; in the family whose addresses have the mark in them."""
        family = socket.AF_INET if mark == "." else socket.AF_INET6
        address = next(fixed["ip_address"] for fixed in target["fixed_ips"] if mark in fixed["ip_address"])
        listener = netns.run_in(self.machine(target), lambda: socket.socket(family, socket.SOCK_STREAM))
        client = netns.run_in(self.machine(source), lambda: socket.socket(family, socket.SOCK_STREAM))
        with contextlib.closing(listener), contextlib.closing(client):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("", port))
            listener.listen()
            client.settimeout(CONNECT_S)
            try:
                client.connect((address, port))
            except OSError:
                return False
            return True


@pytest.fixture(scope="module")
def cloud(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    loaded = load_topology(TOPOLOGY)
    name = f"t{uuid.uuid4().hex[:6]}"
    loaded = msgspec.structs.replace(loaded, topology=msgspec.structs.replace(loaded.topology, name=name))
    neutron, machines = None, list[str]()
    try:
        lab = asyncio.run(lab_up(loaded))
        neutron = Neutron(tmp_path_factory.mktemp("fabric") / "neutron", f"unix://{lab.directory.etcd_socket}", isolated=True)
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


def test_from_the_api_to_packets(cloud: Cloud) -> None:
    neutron = cloud.neutron
    network = neutron.create("network", name="net")
    modes = {"ipv6_ra_mode": "dhcpv6-stateful", "ipv6_address_mode": "dhcpv6-stateful"}
    neutron.create("subnet", network_id=network["id"], ip_version=4, cidr="10.65.7.0/24")
    neutron.create("subnet", network_id=network["id"], ip_version=6, cidr="fd00:65:0:7::/64", **modes)
    web, clients = (neutron.create("security_group", name=name)["id"] for name in ("web", "clients"))
    rule: dict[str, Any] = {"security_group_id": web, "direction": "ingress", "protocol": "tcp", "remote_group_id": clients}
    for ethertype in ("IPv4", "IPv6"):
        neutron.create("security_group_rule", ethertype=ethertype, port_range_min=80, port_range_max=80, **rule)
    server = cloud.boot(network, "nova1", security_groups=[web])
    client = cloud.boot(network, "nova2", security_groups=[clients])
    stranger = cloud.boot(network, "nova1", security_groups=[web])

    for mark in ".:":
        eventually(lambda mark=mark: cloud.reaches(client, server, 80, mark))
        assert not cloud.reaches(client, server, 81, mark)
        assert not cloud.reaches(stranger, server, 80, mark)
        assert not cloud.reaches(server, client, 80, mark)
    assert {agent["host"] for agent in neutron.get("/agents")["agents"] if agent["alive"]} == {"nova1", "nova2"}

    opened = neutron.create("security_group_rule", **rule | {"ethertype": "IPv4", "port_range_min": 81, "port_range_max": 81})
    eventually(lambda: cloud.reaches(client, server, 81))
    neutron.delete(f"/security-group-rules/{opened['id']}")
    eventually(lambda: not cloud.reaches(client, server, 81))

    neutron.update("port", stranger["id"], security_groups=[clients])
    eventually(lambda: cloud.reaches(stranger, server, 80))

    free = cloud.boot(network, "nova2", port_security_enabled=False, security_groups=[])
    eventually(lambda: cloud.reaches(server, free, 12345))

    tap = f"tap{server['id']}"[:14]
    _ip(namespace_of(cloud.lab.plan.name, "nova1"), f"link del dev {tap}")
    eventually(lambda: neutron.show("port", server["id"])["status"] == "DOWN")
    neutron.delete(f"/ports/{server['id']}")


def test_networks_reach_each_other_through_routers(cloud: Cloud) -> None:
    neutron = cloud.neutron
    group = neutron.create("security_group", name="all")["id"]
    neutron.create("security_group_rule", security_group_id=group, direction="ingress", ethertype="IPv4")
    subnets, machines = [], []
    for number, host in ((8, "nova1"), (9, "nova2")):
        network = neutron.create("network", name=f"net-{number}")
        subnets.append(neutron.create("subnet", network_id=network["id"], ip_version=4, cidr=f"10.65.{number}.0/24")["id"])
        machines += [cloud.boot(network, each, security_groups=[group]) for each in dict.fromkeys((host, "nova1"))]
    one, two, near = machines
    eventually(lambda: cloud.reaches(near, two, 80))
    assert not cloud.reaches(one, two, 80)
    assert not cloud.reaches(two, one, 80)
    router = neutron.create("router", name="r")["id"]
    for subnet in subnets:
        neutron.call("PUT", f"/routers/{router}/add_router_interface", {"subnet_id": subnet})
    eventually(lambda: cloud.reaches(one, two, 80) and cloud.reaches(two, one, 80))
    neutron.call("PUT", f"/routers/{router}/remove_router_interface", {"subnet_id": subnets[0]})
    eventually(lambda: not cloud.reaches(one, two, 80))
    assert cloud.reaches(near, two, 80)


def _ip(namespace: str, *commands: str) -> None:
    """ip(8) in a namespace."""
    text = "\n".join(commands) + "\n"
    subprocess.run(["ip", "-n", namespace, "-batch", "-"], input=text, text=True, check=True, capture_output=True)

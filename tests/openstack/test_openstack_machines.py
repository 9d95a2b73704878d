"""Real virtual machines, over two racks: addresses by DHCP, metadata, packets as groups say, a floating address, limits that are measured.

Neutron binds the ports, Tabinet's agents and guest services serve them; QEMU runs the machines as Nova would have it run them.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fabric_world import fabric
from guest_shell import make_image
from machine import Machine
from neutron_process import PROJECT, Neutron
from openstack_world import eventually

from tabinet.kernel import netns
from tabinet.lab.lab import Lab
from tabinet.lab.plan import namespace_of
from tabinet.lab.vm import missing

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(bool(missing()), reason=f"no virtual machines here, for want of {', '.join(missing())}: scripts/setup-vms"),
]

TOPOLOGY = Path(__file__).parent / "two_racks.yaml"
HOSTS = ("nova1", "nova2")
SECRET = "told to Nova and the hosts only"
NOVA_PORT = 8790
MEBIBYTE = 1 << 20
LIMIT_KBPS = 4_000
BURST_KBIT = 400


class Metadata(http.server.BaseHTTPRequestHandler):
    """Nova's metadata service: it believes what is signed."""

    def do_GET(self) -> None:
        instance, tenant = self.headers["X-Instance-ID"], self.headers["X-Tenant-ID"]
        signed = hmac.new(SECRET.encode(), instance.encode(), hashlib.sha256).hexdigest()
        body = f"{instance} {tenant}".encode()
        self.send_response(200 if signed == self.headers["X-Instance-ID-Signature"] else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@dataclass
class Racks:
    """Two racks, the Neutron that writes to their etcd, and machines that QEMU runs."""

    lab: Lab
    neutron: Neutron
    image: Path
    machines: list[Machine] = field(default_factory=list)

    def boot(self, network: dict[str, Any], host: str, **fields: Any) -> Machine:
        """A machine that begins to boot."""
        common = {"device_owner": "compute:nova", "device_id": str(uuid.uuid4()), "binding_host_id": host}
        port = self.neutron.create("port", network_id=network["id"], **common | fields)
        made = Machine(self.namespace(host), port, self.image.parent)
        self.machines.append(made)
        made.start(self.image)
        return made

    def namespace(self, node: str) -> str:
        return namespace_of(self.lab.plan.name, node)


@pytest.fixture(scope="module")
def cloud(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Racks]:
    directory = tmp_path_factory.mktemp("vms")
    image = directory / "image"
    make_image(image)
    secret = directory / "secret"
    secret.write_text(SECRET)
    with contextlib.ExitStack() as stack:
        racks = stack.enter_context(fabric(template, directory, topology=TOPOLOGY, isolated=True))
        for host in HOSTS:
            stack.enter_context(_metadata(namespace_of(racks.lab.plan.name, host)))
            stack.enter_context(_guest_service(racks.lab, host, secret, directory))
        made = Racks(racks.lab, racks.neutron, image)
        stack.callback(lambda: [each.stop() for each in made.machines])
        yield made


@contextlib.contextmanager
def _metadata(namespace: str) -> Iterator[None]:
    """Nova's metadata service answers in the host's namespace."""
    server = netns.run_in(namespace, lambda: http.server.ThreadingHTTPServer(("127.0.0.1", NOVA_PORT), Metadata))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def _guest_service(lab: Lab, host: str, secret: Path, directory: Path) -> Iterator[None]:
    config = lab.directory.node(host) / "agent.toml"
    more = {"TABINET_GUEST_METADATA_SERVICE": f"127.0.0.1:{NOVA_PORT}", "TABINET_GUEST_METADATA_SECRET_FILE": str(secret)}
    argv = [sys.executable, "-m", "tabinet.cli.main", "guest", "--config", str(config)]
    with open(directory / f"guest-{host}.log", "wb") as log:
        entered = ["nsenter", f"--net=/run/netns/{namespace_of(lab.plan.name, host)}", *argv]
        process = subprocess.Popen(entered, env=os.environ | more, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def network(cloud: Racks) -> dict[str, Any]:
    made = cloud.neutron.create("network", name="net")
    made["subnet"] = cloud.neutron.create("subnet", network_id=made["id"], ip_version=4, cidr="10.65.7.0/24")["id"]
    return made


@pytest.fixture(scope="module")
def trio(cloud: Racks, network: dict[str, Any]) -> tuple[Machine, Machine, Machine]:
    """A web server in one rack, a client and a stranger in the other; all have booted. The group of the server is in its port."""
    neutron = cloud.neutron
    web, clients = (neutron.create("security_group", name=name)["id"] for name in ("web", "clients"))
    rule = {"direction": "ingress", "ethertype": "IPv4", "protocol": "tcp", "port_range_min": 80, "port_range_max": 80}
    neutron.create("security_group_rule", security_group_id=web, remote_group_id=clients, **rule)
    made = (
        cloud.boot(network, "nova1", security_groups=[web], name="server"),
        cloud.boot(network, "nova2", security_groups=[clients], name="client"),
        cloud.boot(network, "nova2", security_groups=[], name="stranger"),
    )
    for each in made:
        each.wait_booted()
    server = made[0]
    assert (
        server.shell.run(
            "mkdir /www; dd if=/dev/zero of=/www/big bs=1M count=1; echo hello >/www/small; httpd -p 80 -h /www; httpd -p 81 -h /www"
        )[0]
        == 0
    )
    return made


def fetches(client: Machine, target: str, port: int = 80) -> bool:
    return client.shell.fetch(target, "/small", port).endswith("hello\n")


def test_addresses_and_metadata(cloud: Racks, trio: tuple[Machine, Machine, Machine]) -> None:
    for each in trio:
        eventually(lambda port=each.port: cloud.neutron.show("port", port["id"])["status"] == "ACTIVE")
        assert f"inet {each.address}/24 " in each.shell.run("ip -4 addr show dev eth0")[1]
        said = each.shell.fetch("169.254.169.254", "/latest/meta-data/instance-id", within_s=10)
        assert said.endswith(f"{each.port['device_id']} {PROJECT}"), said


def test_groups_decide(cloud: Racks, trio: tuple[Machine, Machine, Machine]) -> None:
    server, client, stranger = trio
    eventually(lambda: fetches(client, server.address))
    assert not fetches(client, server.address, 81)
    assert not fetches(stranger, server.address)
    clients = client.port["security_groups"]
    cloud.neutron.update("port", stranger.port["id"], security_groups=clients)
    eventually(lambda: fetches(stranger, server.address))
    cloud.neutron.update("port", stranger.port["id"], security_groups=[])
    eventually(lambda: not fetches(stranger, server.address))


def test_a_floating_address_from_outside(cloud: Racks, network: dict[str, Any], trio: tuple[Machine, Machine, Machine]) -> None:
    """The spine stands for the world: it reaches the floating address as the groups say, and nothing any more when it is gone."""
    server, neutron = trio[0], cloud.neutron
    (group,) = server.port["security_groups"]
    rule = {"direction": "ingress", "ethertype": "IPv4", "protocol": "tcp", "port_range_min": 80, "port_range_max": 80}
    neutron.create("security_group_rule", security_group_id=group, remote_ip_prefix="0.0.0.0/0", **rule)
    outside = neutron.create("network", name="outside", router_external=True)
    subnet = neutron.create("subnet", network_id=outside["id"], ip_version=4, cidr="10.65.200.0/24", enable_dhcp=False)["id"]
    router = neutron.create("router", external_gateway_info={"network_id": outside["id"]})["id"]
    neutron.call("PUT", f"/routers/{router}/add_router_interface", {"subnet_id": network["subnet"]})
    floating = neutron.create("floatingip", floating_network_id=outside["id"], subnet_id=subnet, port_id=server.port["id"])
    address = floating["floating_ip_address"]
    eventually(lambda: _spine_connects(cloud, address, 80))
    assert not _spine_connects(cloud, address, 81)
    policy = neutron.create("policy", "/qos/policies", name="slow outside")["id"]
    limit = {"max_kbps": LIMIT_KBPS, "max_burst_kbps": BURST_KBIT, "direction": "egress"}
    neutron.create("bandwidth_limit_rule", f"/qos/policies/{policy}/bandwidth_limit_rules", **limit)
    neutron.update("floatingip", floating["id"], qos_policy_id=policy)
    least = (MEBIBYTE * 8 - LIMIT_KBPS * 1000) / (LIMIT_KBPS * 1000)  # the bucket holds what a second brings, which is more than the burst
    eventually(lambda: _spine_downloads_s(cloud, address) >= least)
    eventually(lambda: _spine_downloads_s(cloud, server.address) < least)  # by its own address there is no limit
    neutron.delete(f"/floatingips/{floating['id']}")
    eventually(lambda: not _spine_connects(cloud, address, 80))
    assert _spine_connects(cloud, server.address, 80)


def test_limits_are_kept(cloud: Racks, trio: tuple[Machine, Machine, Machine]) -> None:
    server, client, _ = trio
    eventually(lambda: fetches(client, server.address))
    free = _download_s(client, server)
    policy = cloud.neutron.create("policy", "/qos/policies", name="slow")["id"]
    limit = {"max_kbps": LIMIT_KBPS, "max_burst_kbps": BURST_KBIT, "direction": "egress"}
    cloud.neutron.create("bandwidth_limit_rule", f"/qos/policies/{policy}/bandwidth_limit_rules", **limit)
    cloud.neutron.update("port", server.port["id"], qos_policy_id=policy)
    least = (MEBIBYTE * 8 - BURST_KBIT * 1000) / (LIMIT_KBPS * 1000)
    eventually(lambda: _download_s(client, server) >= least)
    print(f"1 MiB: {free:.2f} s without a limit, at least {least:.2f} s with {LIMIT_KBPS} kbit/s")
    cloud.neutron.update("port", server.port["id"], qos_policy_id=None)
    eventually(lambda: _download_s(client, server) < least)


def _download_s(client: Machine, server: Machine) -> float:
    begin = time.monotonic()
    code, said = client.shell.run(f"printf 'GET /big HTTP/1.0\\r\\n\\r\\n' | nc -w 60 {server.address} 80 | wc -c")
    assert code == 0
    assert int(said) > MEBIBYTE
    return time.monotonic() - begin


def _spine_downloads_s(cloud: Racks, address: str) -> float:
    """How long a mebibyte takes."""
    with contextlib.closing(_spine_socket(cloud)) as client:
        client.settimeout(60)
        client.connect((address, 80))
        client.sendall(b"GET /big HTTP/1.0\r\n\r\n")
        begin, found = time.monotonic(), 0
        while part := client.recv(65536):
            found += len(part)
        assert found > MEBIBYTE
        return time.monotonic() - begin


def _spine_connects(cloud: Racks, address: str, port: int) -> bool:
    with contextlib.closing(_spine_socket(cloud)) as client:
        client.settimeout(1)
        return client.connect_ex((address, port)) == 0


def _spine_socket(cloud: Racks) -> socket.socket:
    (own,) = [router.loopbacks[0].address for router in cloud.lab.plan.routers if router.name == "spine"]
    client = netns.run_in(cloud.namespace("spine"), lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    client.bind((own, 0))  # its other addresses are known on its links only
    return client

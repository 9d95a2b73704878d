"""What the driver reads from Neutron's tables is what Neutron reads from them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from neutron_process import VENV
from openstack_world import World

READS = Path(__file__).with_name("neutron_reads.py")


def test_ports_and_groups_are_read_as_neutron_reads_them(world: World) -> None:
    """Those made here, and all that other tests have made before."""
    neutron = world.neutron
    limits = [neutron.create("policy", "/qos/policies", name=name)["id"] for name in ("own", "network's")]
    network = neutron.create("network", name="ünïcode", mtu=1400, qos_policy_id=limits[1])
    four = neutron.create("subnet", network_id=network["id"], ip_version=4, cidr="10.81.0.0/24")["id"]
    bare = neutron.create("subnet", network_id=network["id"], ip_version=4, cidr="10.82.0.0/24", gateway_ip=None)["id"]
    slaac = {"ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}
    six = neutron.create("subnet", network_id=network["id"], ip_version=6, cidr="fd00:81::/64", **slaac)["id"]
    groups = [neutron.create("security_group", name=f"g{number}")["id"] for number in range(3)]
    stateless = neutron.create("security_group", name="stateless", stateful=False)["id"]
    down = world.network("10.83.0.0/24")
    neutron.update("network", down["id"], admin_state_up=False)
    many = [{"subnet_id": four, "ip_address": f"10.81.0.{number}"} for number in (9, 10, 100)]
    addresses = neutron.create("address_group", name="a", addresses=["10.9.0.0/16"])["id"]
    for rule in (
        {"direction": "ingress", "protocol": "tcp", "port_range_min": 1, "port_range_max": 99, "remote_ip_prefix": "10.1.2.3/8"},
        {"direction": "egress", "ethertype": "IPv6", "protocol": "58", "port_range_min": 128},
        {"direction": "ingress", "remote_group_id": groups[1]},
        {"direction": "ingress", "remote_address_group_id": addresses},
    ):
        neutron.create("security_group_rule", security_group_id=groups[0], **rule)
    ports = [
        world.port(
            network,
            fixed_ips=[*many, {"subnet_id": bare}, {"subnet_id": six}],
            name="everything",
            dns_name="vm1",
            dns_domain="elsewhere.example.",
            qos_policy_id=limits[0],
            security_groups=groups,
            extra_dhcp_opts=[
                {"opt_name": "bootfile-name", "opt_value": "pxe.0"},
                {"opt_name": "bootfile-name", "opt_value": "pxe6", "ip_version": 6},
            ],
            allowed_address_pairs=[{"ip_address": "10.99.0.0/24", "mac_address": "02:00:00:00:00:07"}, {"ip_address": "10.99.1.1"}],
            binding_profile={"physical": "x", "deep": {"list": [1, None]}},
        ),
        world.port(network),
        world.port(down, security_groups=[stateless]),
        world.port(network, host="", name="unbound", admin_state_up=False),
        world.port(network, fixed_ips=[], name="without addresses", security_groups=[], port_security_enabled=False),
        world.port(network, host="hosta", device_owner="network:dhcp"),
    ]
    neutron.call("POST", f"/ports/{ports[1]['id']}/bindings", {"binding": {"host": "hostb"}})
    router = neutron.create("router", name="r")
    neutron.call("PUT", f"/routers/{router['id']}/add_router_interface", {"subnet_id": four})

    files = [str(neutron.directory / name) for name in ("neutron.conf", "ml2_conf.ini")]
    command = [str(VENV / "bin" / "python"), "-W", "ignore", str(READS), *files]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["unlike"], found["missing"]) == ([], [])
    assert found["ports"] > len(ports)

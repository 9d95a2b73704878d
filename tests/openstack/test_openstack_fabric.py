"""From the API to packets: ports that Neutron binds to hosts of a lab, whose agents program them; what groups say is what arrives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fabric_world import Cloud, fabric, ip
from openstack_world import eventually

from tabinet.lab.plan import namespace_of


@pytest.fixture(scope="module")
def cloud(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with fabric(template, tmp_path_factory.mktemp("fabric"), isolated=True) as made:
        yield made


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
    ip(namespace_of(cloud.lab.plan.name, "nova1"), f"link del dev {tap}")
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

"""From the API to packets: ports that Neutron binds to hosts of a lab, whose agents program them; what groups say is what arrives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fabric_world import Cloud, fabric, ip
from openstack_world import eventually

from tabinet.lab.plan import namespace_of
from tabinet.model.keys import ResourceKey

TOPOLOGY = Path(__file__).parent / "outside.yaml"


@pytest.fixture(scope="module")
def cloud(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with fabric(template, tmp_path_factory.mktemp("fabric"), topology=TOPOLOGY, isolated=True) as made:
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


def test_routers_in_a_row_and_what_is_behind_a_port(cloud: Cloud) -> None:
    neutron = cloud.neutron
    group = neutron.create("security_group", name="any")["id"]
    neutron.create("security_group_rule", security_group_id=group, direction="ingress", ethertype="IPv4")
    left, between, right = (neutron.create("network", name=name) for name in ("left", "between", "right"))
    for number, network in enumerate((left, between, right), 20):
        neutron.create("subnet", network_id=network["id"], ip_version=4, cidr=f"10.65.{number}.0/24")
    first, second = (neutron.create("router", name=name) for name in ("first", "second"))
    neutron.attach(first, left)
    neutron.attach(first, between)
    neutron.attach(second, between, "10.65.21.2")
    neutron.attach(second, right)
    one, two, near = (cloud.boot(net, host, security_groups=[group]) for net, host in ((left, "nova1"), (right, "nova2"), (right, "nova1")))
    eventually(lambda: cloud.reaches(near, two, 80))
    neutron.update("router", first["id"], routes=[{"destination": "10.65.22.0/24", "nexthop": "10.65.21.2"}])
    behind = {"destination": "10.65.99.0/24", "nexthop": two["fixed_ips"][0]["ip_address"]}
    neutron.update("router", second["id"], routes=[behind])
    inner = two | {"fixed_ips": [{"ip_address": "10.65.99.5"}]}
    ip(cloud.machine(two), "addr add 10.65.99.5/32 dev lo")
    eventually(lambda: cloud.reaches(near, inner, 80))  # by then the first router's route is known as well
    assert not cloud.reaches(one, two, 80), "the second router knows no way back"
    neutron.update("router", second["id"], routes=[behind, {"destination": "10.65.20.0/24", "nexthop": "10.65.21.1"}])
    eventually(lambda: cloud.reaches(one, two, 80) and cloud.reaches(two, one, 80))
    assert not cloud.reaches(one, inner, 80), "the first router has no route to what is behind"

    late = neutron.create("network", name="late")
    neutron.create("subnet", network_id=late["id"], ip_version=4, cidr="10.65.23.0/24")
    newcomer = cloud.boot(late, "nova1", security_groups=[group])
    assert cloud.reaches(two, near, 80, own="10.65.99.5")
    assert not cloud.reaches(two, newcomer, 80, own="10.65.99.5")
    third = neutron.create("router", name="third")
    neutron.attach(third, late)
    neutron.attach(third, right, "10.65.22.200")
    eventually(lambda: cloud.reaches(two, newcomer, 80, own="10.65.99.5"))

    back, on = {"destination": "10.65.20.0/24", "nexthop": "10.65.21.1"}, {"destination": "10.65.23.0/24", "nexthop": "10.65.22.200"}
    forth = [{"destination": f"10.65.{number}.0/24", "nexthop": "10.65.21.2"} for number in (22, 23)]
    neutron.update("router", first["id"], routes=forth)
    neutron.update("router", third["id"], routes=[{"destination": "10.65.20.0/24", "nexthop": "10.65.22.1"}])
    neutron.update("router", second["id"], routes=[behind, back, on])
    eventually(lambda: cloud.reaches(one, newcomer, 80) and cloud.reaches(newcomer, one, 80))
    neutron.update("router", second["id"], routes=[behind, back])  # what the others' policies say changes by it
    eventually(lambda: not cloud.reaches(one, newcomer, 80) and not cloud.reaches(newcomer, one, 80))
    assert cloud.reaches(one, two, 80)

    neutron.update("router", first["id"], routes=[])
    eventually(lambda: not cloud.reaches(one, two, 80))
    neutron.update("router", second["id"], routes=[])
    eventually(lambda: not cloud.reaches(near, inner, 80))


def test_the_world_outside_learns_floating_addresses(cloud: Cloud) -> None:
    """Those that are in a pool: each by itself from its host, and the whole subnet from all hosts where somebody wants that."""
    neutron = cloud.neutron
    cloud.remove(ResourceKey("IPPool", "lab-ipv4-2"))
    group = neutron.create("security_group", name="world")["id"]
    neutron.create("security_group_rule", security_group_id=group, direction="ingress", ethertype="IPv4")
    inside = neutron.create("network", name="inside")
    neutron.create("subnet", network_id=inside["id"], ip_version=4, cidr="10.65.30.0/24")
    outside = neutron.create("network", name="outside", router_external=True)
    neutron.create("subnet", network_id=outside["id"], ip_version=4, cidr="198.51.100.0/24", enable_dhcp=False)
    neutron.attach(neutron.create("router", name="way out", external_gateway_info={"network_id": outside["id"]}), inside)
    one, two = (cloud.boot(inside, host, security_groups=[group]) for host in ("nova1", "nova2"))
    floating = neutron.create("floatingip", floating_network_id=outside["id"], port_id=two["id"])
    address = floating["floating_ip_address"]
    eventually(lambda: address in cloud.routes("nova2", "198.51.100.0/24"))
    assert cloud.routes("outside", "198.51.100.0/24") == {}, "nobody said that it may be announced"
    cloud.change(ResourceKey("IPPool", "floating"), cidr="198.51.100.0/24", disabled=True)
    eventually(lambda: address in cloud.routes("outside", "198.51.100.0/24"))
    first = cloud.routes("outside", "198.51.100.0/24")
    assert list(first) == [address]
    eventually(lambda: cloud.reaches_from("outside", two, address, 80))
    neutron.update("floatingip", floating["id"], port_id=one["id"])
    eventually(lambda: cloud.routes("outside", "198.51.100.0/24").get(address) not in (None, first[address]))
    eventually(lambda: cloud.reaches_from("outside", one, address, 80))
    cloud.change(ResourceKey("BGPConfiguration", "default"), serviceExternalIPs=[{"cidr": "198.51.100.0/24"}])
    eventually(lambda: len(cloud.routes("outside", "198.51.100.0/24").get("198.51.100.0/24", "").split()) == 2)
    assert cloud.reaches_from("outside", one, address, 80)
    assert not cloud.reaches_from("outside", one, "198.51.100.222", 80)
    neutron.delete(f"/floatingips/{floating['id']}")
    eventually(lambda: list(cloud.routes("outside", "198.51.100.0/24")) == ["198.51.100.0/24"])


def test_ports_of_one_floating_address_lead_to_two_hosts(cloud: Cloud) -> None:
    """Whose only common neighbour is a router, so that what is passed on needs a tunnel."""
    neutron = cloud.neutron
    group = neutron.create("security_group", name="forwarded")["id"]
    neutron.create("security_group_rule", security_group_id=group, direction="ingress", ethertype="IPv4")
    inside = neutron.create("network", name="behind")
    neutron.create("subnet", network_id=inside["id"], ip_version=4, cidr="10.65.40.0/24")
    outside = neutron.create("network", name="in front", router_external=True)
    neutron.create("subnet", network_id=outside["id"], ip_version=4, cidr="198.51.100.128/25", enable_dhcp=False)
    neutron.attach(neutron.create("router", name="between", external_gateway_info={"network_id": outside["id"]}), inside)
    cloud.remove(ResourceKey("IPPool", "lab-ipv4-2"))
    cloud.change(ResourceKey("IPPool", "floating"), cidr="198.51.100.0/24", disabled=True)
    ports = [cloud.boot(inside, host, security_groups=[group]) for host in ("nova1", "nova2")]
    floating = neutron.create("floatingip", floating_network_id=outside["id"])
    for number, port in enumerate(ports, 8080):
        to = {"internal_port_id": port["id"], "internal_ip_address": port["fixed_ips"][0]["ip_address"], "internal_port": number}
        forwarding = {"port_forwarding": to | {"protocol": "tcp", "external_port": number}}
        neutron.call("POST", f"/floatingips/{floating['id']}/port_forwardings", forwarding)
    address = floating["floating_ip_address"]
    home, other = sorted(enumerate(ports, 8080), key=lambda each: each[1]["id"])
    eventually(lambda: cloud.reaches_from("outside", home[1], address, home[0]))
    assert not cloud.reaches_from("outside", other[1], address, other[0])
    cloud.change(ResourceKey("IPPool", "tunnels"), cidr="10.67.0.0/24", vxlanMode="Always", allowedUses=["Tunnel"])
    eventually(lambda: cloud.reaches_from("outside", other[1], address, other[0]))
    assert cloud.reaches_from("outside", home[1], address, home[0])
    neutron.delete(f"/ports/{home[1]['id']}")  # then the other host is its home
    eventually(lambda: cloud.reaches_from("outside", other[1], address, other[0]))
    cloud.remove(ResourceKey("IPPool", "tunnels"))

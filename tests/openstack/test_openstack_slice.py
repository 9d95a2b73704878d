"""A port created over the API is an endpoint in etcd, its group a policy, its subnet known to who answers DHCP."""

from __future__ import annotations

from openstack_world import World

from tabinet.model.openstack import PORT_ANNOTATION, parse_port_facts


def test_a_port_its_group_and_its_subnet(world: World) -> None:
    neutron = world.neutron
    network = world.network("10.65.0.0/24", "fd00:65::/64", name="first")
    group = neutron.create("security_group", name="web")
    rule = neutron.create(
        "security_group_rule",
        security_group_id=group["id"],
        direction="ingress",
        ethertype="IPv4",
        protocol="tcp",
        port_range_min=80,
        port_range_max=80,
    )
    port = world.port(network, security_groups=[group["id"]])
    assert port["binding:vif_type"] == "tap"
    assert port["status"] == "DOWN"

    endpoint = world.endpoint(port)
    assert endpoint is not None, neutron.log()[-3000:]
    spec, metadata = endpoint["spec"], endpoint["metadata"]
    assert spec["ipNetworks"] == [f"{fixed['ip_address']}/{32 if '.' in fixed['ip_address'] else 128}" for fixed in port["fixed_ips"]]
    assert (spec["node"], spec["mac"], spec["interfaceName"]) == ("hosta", port["mac_address"], f"tap{port['id'][:11]}")
    assert metadata["labels"][f"sg.projectcalico.org/openstack-{group['id']}"] == "web"
    assert metadata["annotations"]["openstack.projectcalico.org/network-id"] == network["id"]
    assert parse_port_facts(metadata["annotations"][PORT_ANNOTATION]).mtu == network["mtu"]

    policy = world.policy(group)
    assert policy is not None
    [stored] = policy["spec"]["ingress"]
    assert stored["metadata"]["annotations"]["openstack.tabinet/rule"] == rule["id"]
    assert (stored["protocol"], stored["destination"]) == ("TCP", {"ports": [80]})

    subnets = world.stored("/calico/dhcp/v2/no-region/subnet/")
    assert {value["cidr"] for value in subnets.values() if value["network_id"] == network["id"]} == {"10.65.0.0/24", "fd00:65::/64"}

    neutron.delete(f"/ports/{port['id']}")
    assert world.endpoint(port) is None
    neutron.delete(f"/security-groups/{group['id']}")
    assert world.policy(group) is None

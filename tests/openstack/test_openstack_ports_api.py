"""Ports, trunks, QoS and groups through the real API: what becomes of the store when they change."""

from __future__ import annotations

import json
import os

import pytest
from neutron_process import PROJECT, ApiError, Neutron
from openstack_world import RESOURCES, World, device, eventually

from tabinet.model.forwards import PortForward, parse_forwards
from tabinet.model.openstack import PORT_ANNOTATION, PortFacts, parse_port_facts

RULES = int(os.environ.get("TABINET_OPENSTACK_RULES", "100"))
"""Of one group. Neutron itself takes minutes for 1,000."""


def facts_of(endpoint: dict) -> PortFacts:  # type: ignore[type-arg]  # a document
    return parse_port_facts(endpoint["metadata"]["annotations"][PORT_ANNOTATION])


def label(group: dict) -> str:  # type: ignore[type-arg]  # a document
    return f"sg.projectcalico.org/openstack-{group['id']}"


def test_a_port_moves_and_goes_down_and_is_unbound(world: World) -> None:
    neutron = world.neutron
    network = world.network("10.66.0.0/24")
    port = world.port(network, host="hosta")
    neutron.update("port", port["id"], binding_host_id="hostb")
    assert world.endpoint(port, "hosta") is None
    assert world.endpoint(port, "hostb") is not None
    other = device()
    neutron.update("port", port["id"], device_id=other)
    endpoint = world.endpoint(port)
    assert endpoint is not None
    assert endpoint["spec"]["workload"] == other
    neutron.update("port", port["id"], admin_state_up=False)
    assert world.endpoint(port) is None
    neutron.update("port", port["id"], admin_state_up=True)
    assert world.endpoint(port, "hostb") is not None
    neutron.update("port", port["id"], binding_host_id="")
    assert world.endpoint(port) is None
    neutron.update("port", port["id"], binding_host_id="hosta")
    neutron.update("network", network["id"], admin_state_up=False)
    eventually(lambda: world.endpoint(port) is None)


def test_other_kinds_of_interfaces_are_left_to_other_drivers(world: World) -> None:
    network = world.network("10.65.99.0/24")
    for kind in ("direct", "macvtap", "baremetal"):
        port = world.port(network, binding_vnic_type=kind)
        assert port["binding:vif_type"] == "binding_failed"
        assert world.endpoint(port) is None


def test_what_ports_depend_on_changes(world: World) -> None:
    neutron = world.neutron
    network = neutron.create("network", name="before")
    pools = [{"start": "10.67.0.10", "end": "10.67.0.100"}]
    subnet = neutron.create("subnet", network_id=network["id"], ip_version=4, cidr="10.67.0.0/24", allocation_pools=pools)
    group = neutron.create("security_group", name="old")
    port = world.port(network, security_groups=[group["id"]])
    neutron.update("security_group", group["id"], name="new name")
    neutron.update("network", network["id"], name="after")

    def relabelled() -> bool:
        labels = (world.endpoint(port) or {"metadata": {"labels": {}}})["metadata"]["labels"]
        return (labels.get(label(group)), labels.get("projectcalico.org/openstack-network-name")) == ("new_name", "after")

    eventually(relabelled)
    neutron.update("subnet", subnet["id"], gateway_ip="10.67.0.254")
    eventually(lambda: (world.endpoint(port) or {})["spec"]["ipv4Gateway"] == "10.67.0.254")
    neutron.update("subnet", subnet["id"], gateway_ip=None, dns_nameservers=["9.9.9.9"])
    eventually(lambda: "ipv4Gateway" not in (world.endpoint(port) or {})["spec"])
    stored = world.stored("/calico/dhcp/v2/no-region/subnet/")[f"/calico/dhcp/v2/no-region/subnet/{subnet['id']}"]
    assert (stored["gateway_ip"], stored["dns_servers"]) == (None, ["9.9.9.9"])
    neutron.update("subnet", subnet["id"], enable_dhcp=False)
    assert f"/calico/dhcp/v2/no-region/subnet/{subnet['id']}" not in world.stored("/calico/dhcp/v2/no-region/subnet/")


def test_everything_that_a_port_can_have(world: World) -> None:
    neutron = world.neutron
    network = neutron.create("network", name="all")
    slaac = {"ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}
    four = neutron.create("subnet", network_id=network["id"], ip_version=4, cidr="10.68.0.0/24")
    six = neutron.create("subnet", network_id=network["id"], ip_version=6, cidr="fd00:68::/64", **slaac)
    fixed = [{"subnet_id": four["id"], "ip_address": "10.68.0.10"}, {"subnet_id": four["id"], "ip_address": "10.68.0.11"}]
    port = world.port(
        network,
        fixed_ips=[*fixed, {"subnet_id": six["id"]}],
        dns_name="vm1",
        extra_dhcp_opts=[{"opt_name": "bootfile-name", "opt_value": "pxe.0"}],
        allowed_address_pairs=[{"ip_address": "10.99.0.0/24", "mac_address": "02:00:00:00:00:07"}],
        binding_profile={"physical": "x"},
    )
    endpoint = world.endpoint(port)
    assert endpoint is not None
    assert {"10.68.0.10/32", "10.68.0.11/32"} < set(endpoint["spec"]["ipNetworks"])
    assert len(endpoint["spec"]["ipNetworks"]) == 3
    facts = facts_of(endpoint)
    assert (facts.hostname, facts.fqdn) == ("vm1", "vm1.cloud.example")
    assert [(option.name, option.value) for option in facts.dhcp_options] == [("bootfile-name", "pxe.0")]
    assert [(pair.net, pair.mac) for pair in facts.pairs] == [("10.99.0.0/24", "02:00:00:00:00:07")]
    assert facts.profile == {"physical": "x"}
    assert world.stored(f"{RESOURCES}networksets/openstack/ospairs.default.{port['id']}")
    neutron.delete(f"/ports/{port['id']}")
    assert not world.stored(f"{RESOURCES}networksets/openstack/ospairs.default.{port['id']}")


def test_subports_run_where_their_trunk_does(world: World) -> None:
    neutron = world.neutron
    network, tagged = world.network("10.69.0.0/24"), world.network("10.70.0.0/24")
    parent = world.port(network, host="hosta")
    child = neutron.create("port", network_id=tagged["id"])
    subports = [{"port_id": child["id"], "segmentation_type": "vlan", "segmentation_id": 100}]
    trunk = neutron.create("trunk", port_id=parent["id"], sub_ports=subports)
    endpoint = world.endpoint(child, "hosta")
    assert endpoint is not None
    facts = facts_of(endpoint)
    assert (facts.trunk_parent, facts.vlan) == (f"tap{parent['id']}"[:14], 100)
    neutron.update("port", parent["id"], binding_host_id="hostb")
    assert world.endpoint(child, "hostb") is not None
    assert world.endpoint(child, "hosta") is None
    for port in (parent, child):
        world.report(port, "up", host="hostb")
    eventually(lambda: neutron.show("trunk", trunk["id"])["status"] == "ACTIVE")
    neutron.call("PUT", f"/trunks/{trunk['id']}/remove_subports", {"sub_ports": [{"port_id": child["id"]}]})
    assert world.endpoint(child) is None


def test_limits_follow_the_policy(world: World) -> None:
    neutron = world.neutron
    network = world.network("10.71.0.0/24")
    policy = neutron.create("policy", "/qos/policies", name="q")["id"]
    limits = f"/qos/policies/{policy}/bandwidth_limit_rules"
    limit = neutron.create("bandwidth_limit_rule", limits, max_kbps=1000, direction="egress")
    own, shared = world.port(network, qos_policy_id=policy), world.port(network)

    def controls(port: dict) -> dict:  # type: ignore[type-arg]  # documents
        return dict((world.endpoint(port) or {"spec": {}})["spec"].get("qosControls", {}))

    assert controls(own) == {"egressBandwidth": 1_000_000, "egressBurst": 800_000}
    assert controls(shared) == {}
    neutron.update("network", network["id"], qos_policy_id=policy)
    eventually(lambda: controls(shared) == controls(own))
    neutron.update("bandwidth_limit_rule", limit["id"], limits, max_kbps=2000)
    eventually(lambda: [controls(port).get("egressBandwidth") for port in (own, shared)] == [2_000_000, 2_000_000])
    with pytest.raises(ApiError, match="minimum_bandwidth is not supported"):
        neutron.create("minimum_bandwidth_rule", f"/qos/policies/{policy}/minimum_bandwidth_rules", min_kbps=1000, direction="egress")
    with pytest.raises(ApiError, match="packet_rate_limit is not supported"):
        neutron.create("packet_rate_limit_rule", f"/qos/policies/{policy}/packet_rate_limit_rules", max_kpps=11, direction="egress")


def test_floating_addresses_come_and_go(world: World) -> None:
    neutron = world.neutron
    network = world.network("10.72.0.0/24")
    [subnet] = neutron.get(f"/subnets?network_id={network['id']}")["subnets"]
    outside = neutron.create("network", name="ext", router_external=True, provider_network_type="flat", provider_physical_network="ext2")
    neutron.create("subnet", network_id=outside["id"], ip_version=4, cidr="198.51.101.0/24")
    router = neutron.create("router", name="r", external_gateway_info={"network_id": outside["id"]})
    neutron.call("PUT", f"/routers/{router['id']}/add_router_interface", {"subnet_id": subnet["id"]})
    one, two = world.port(network), world.port(network)

    def nats(port: dict) -> list[str]:  # type: ignore[type-arg]  # a document
        return [nat["externalIP"] for nat in (world.endpoint(port) or {"spec": {}})["spec"].get("ipNATs", [])]

    floating = neutron.create("floatingip", floating_network_id=outside["id"], port_id=one["id"])
    address = floating["floating_ip_address"]
    assert (nats(one), nats(two)) == ([address], [])
    neutron.update("floatingip", floating["id"], port_id=two["id"])
    assert (nats(one), nats(two)) == ([], [address])
    neutron.delete(f"/floatingips/{floating['id']}")
    assert nats(two) == []

    shared = neutron.create("floatingip", floating_network_id=outside["id"])
    path = f"/floatingips/{shared['id']}/port_forwardings"
    made = [forward(neutron, path, port, 8080 + step) for step, port in enumerate((one, two))]
    first, second = sorted((one, two), key=lambda port: port["id"])
    assert forwards(world, one) == [(shared["floating_ip_address"], 8080, 80)]
    assert forwards(world, two) == [(shared["floating_ip_address"], 8081, 80)]
    neutron.update("port", first["id"], binding_host_id="hostb")
    assert sorted((each.home, each.node) for each in all_forwards(world, first)) == [("", ""), ("", "hosta")]
    eventually(lambda: [(each.home, each.node) for each in all_forwards(world, second)] == [("hostb", "")])
    neutron.delete(f"/ports/{second['id']}")
    eventually(lambda: [(each.home, each.node) for each in all_forwards(world, first)] == [("", "")])
    neutron.delete(f"{path}/{made[(one, two).index(first)]['id']}")
    assert not forwards(world, first)


def test_limits_of_floating_addresses_follow_their_policies(world: World) -> None:
    neutron = world.neutron
    network = world.network("10.73.0.0/24")
    [subnet] = neutron.get(f"/subnets?network_id={network['id']}")["subnets"]
    outside = neutron.create("network", name="ext5", router_external=True, provider_network_type="flat", provider_physical_network="ext5")
    neutron.create("subnet", network_id=outside["id"], ip_version=4, cidr="198.51.105.0/24")
    router = neutron.create("router", name="r", external_gateway_info={"network_id": outside["id"]})
    neutron.call("PUT", f"/routers/{router['id']}/add_router_interface", {"subnet_id": subnet["id"]})
    one, two = world.port(network), world.port(network)
    own, shared = (neutron.create("policy", "/qos/policies", name=name)["id"] for name in ("own", "shared"))
    limits = f"/qos/policies/{own}/bandwidth_limit_rules"
    limit = neutron.create("bandwidth_limit_rule", limits, max_kbps=1000, max_burst_kbps=2000, direction="ingress")
    neutron.create("bandwidth_limit_rule", f"/qos/policies/{shared}/bandwidth_limit_rules", max_kbps=3000, direction="egress")
    neutron.create("dscp_marking_rule", f"/qos/policies/{shared}/dscp_marking_rules", dscp_mark=44)
    from_own = {"ingressBandwidth": 1_000_000, "ingressBurst": 2_000_000}
    from_shared = {"dscp": 44, "egressBandwidth": 3_000_000, "egressBurst": 2_400_000}

    floating = neutron.create("floatingip", floating_network_id=outside["id"], port_id=one["id"], qos_policy_id=own)
    address = floating["floating_ip_address"]
    assert address_limits(world, one) == {address: from_own}
    assert "qosControls" not in (world.endpoint(one) or {"spec": {}})["spec"]
    neutron.update("bandwidth_limit_rule", limit["id"], limits, max_kbps=2000)
    eventually(lambda: address_limits(world, one) == {address: {"ingressBandwidth": 2_000_000, "ingressBurst": 2_000_000}})
    neutron.update("network", outside["id"], qos_policy_id=shared)
    neutron.update("floatingip", floating["id"], qos_policy_id=None)
    eventually(lambda: address_limits(world, one) == {address: from_shared})
    neutron.update("floatingip", floating["id"], port_id=two["id"])
    assert (address_limits(world, one), address_limits(world, two)) == ({}, {address: from_shared})
    neutron.delete(f"/floatingips/{floating['id']}")
    assert address_limits(world, two) == {}

    forwarded = neutron.create("floatingip", floating_network_id=outside["id"])
    forward(neutron, f"/floatingips/{forwarded['id']}/port_forwardings", one, 8080)
    eventually(lambda: address_limits(world, one) == {forwarded["floating_ip_address"]: from_shared})
    neutron.update("floatingip", forwarded["id"], qos_policy_id=own)
    eventually(lambda: "ingressBandwidth" in address_limits(world, one)[forwarded["floating_ip_address"]])

    with pytest.raises(ApiError, match="minimum_bandwidth would have to be kept free"):
        neutron.create("minimum_bandwidth_rule", f"/qos/policies/{own}/minimum_bandwidth_rules", min_kbps=1000, direction="egress")
    least = neutron.create("policy", "/qos/policies", name="least")["id"]
    neutron.create("minimum_bandwidth_rule", f"/qos/policies/{least}/minimum_bandwidth_rules", min_kbps=1000, direction="egress")
    with pytest.raises(ApiError, match="minimum_bandwidth would have to be kept free"):
        neutron.create("floatingip", floating_network_id=outside["id"], qos_policy_id=least)
    with pytest.raises(ApiError, match="minimum_bandwidth would have to be kept free"):
        neutron.update("floatingip", forwarded["id"], qos_policy_id=least)
    neutron.update("floatingip", forwarded["id"], qos_policy_id=None)
    neutron.update("network", outside["id"], qos_policy_id=None)
    eventually(lambda: address_limits(world, one) == {})


def address_limits(world: World, port: dict) -> dict:  # type: ignore[type-arg]  # documents
    """By floating address: the limits that hosts learn."""
    annotations = (world.endpoint(port) or {"metadata": {}})["metadata"].get("annotations", {})
    return {each["externalIP"]: each["qosControls"] for each in json.loads(annotations.get("tabinet.io/address-limits", "[]"))}


def forward(neutron: Neutron, path: str, port: dict, outside: int) -> dict:  # type: ignore[type-arg]  # documents
    """A forwarding of the floating IP's port to port 80."""
    to = {"internal_port_id": port["id"], "internal_ip_address": port["fixed_ips"][0]["ip_address"], "internal_port": 80}
    made: dict = neutron.call("POST", path, {"port_forwarding": to | {"protocol": "tcp", "external_port": outside}})["port_forwarding"]  # type: ignore[type-arg]
    return made


def all_forwards(world: World, port: dict) -> tuple[PortForward, ...]:  # type: ignore[type-arg]  # a document
    """What the port's host learns, of other hosts too."""
    annotations = (world.endpoint(port) or {"metadata": {"annotations": {}}})["metadata"]["annotations"]
    return parse_forwards(annotations.get("tabinet.io/port-forwards", "[]"))


def forwards(world: World, port: dict) -> list[tuple[str, int, int]]:  # type: ignore[type-arg]  # a document
    return [(each.external_ip, each.external_port, each.internal_port) for each in all_forwards(world, port)]


def test_groups_that_refer_to_others(world: World) -> None:
    neutron = world.neutron
    group, other = (neutron.create("security_group", name=name) for name in ("one", "zwei 二"))
    addresses = neutron.create("address_group", name="offices", addresses=["203.0.113.0/24"])
    for remote in ({"remote_group_id": other["id"]}, {"remote_address_group_id": addresses["id"]}):
        neutron.create("security_group_rule", security_group_id=group["id"], direction="ingress", ethertype="IPv4", **remote)

    def selectors() -> set[str]:
        return {rule["source"]["selector"] for rule in (world.policy(group) or {})["spec"]["ingress"]}

    assert selectors() == {f"has({label(other)})", f"has(ag.tabinet/openstack-{addresses['id']})"}
    neutron.call("PUT", f"/address-groups/{addresses['id']}/add_addresses", {"addresses": ["2001:db8::/32"]})
    path = f"{RESOURCES}networksets/openstack/osag.default.{addresses['id']}"
    assert world.stored(path)[path]["spec"]["nets"] == ["203.0.113.0/24", "2001:db8::/32"]
    neutron.delete(f"/security-groups/{other['id']}")
    eventually(lambda: selectors() == {f"has(ag.tabinet/openstack-{addresses['id']})"})


def test_many_rules(world: World) -> None:
    neutron = world.neutron
    neutron.call("PUT", f"/quotas/{PROJECT}", {"quota": {"security_group_rule": -1}})
    group = neutron.create("security_group", name="many")
    common = {"security_group_id": group["id"], "direction": "ingress", "ethertype": "IPv4", "protocol": "tcp"}
    ports = [{"port_range_min": port, "port_range_max": port} for port in range(1000, 1000 + RULES)]
    for start in range(0, len(ports), 100):
        neutron.call("POST", "/security-group-rules", {"security_group_rules": [common | port for port in ports[start : start + 100]]})
    policy = world.policy(group)
    assert policy is not None
    assert {rule["destination"]["ports"][0] for rule in policy["spec"]["ingress"]} == set(range(1000, 1000 + RULES))
    neutron.delete(f"/security-groups/{group['id']}")
    assert world.policy(group) is None


@pytest.mark.parametrize("name", ["Büro – 東京", "-", "é" * 255, "a.b/c d", ""])
def test_names_in_any_script(world: World, name: str) -> None:
    group = world.neutron.create("security_group", name=name)
    port = world.port(world.network("10.92.0.0/24", name=name), security_groups=[group["id"]], name=name)
    endpoint = world.endpoint(port)
    assert endpoint is not None
    assert label(group) in endpoint["metadata"]["labels"]
    assert all(len(value) <= 63 and value.isascii() for value in endpoint["metadata"]["labels"].values())


def test_rules_that_policies_have_no_field_for(world: World) -> None:
    neutron = world.neutron
    group = neutron.create("security_group", name="odd")
    common = {"security_group_id": group["id"], "direction": "ingress", "ethertype": "IPv4"}
    for rule in (
        {"protocol": "dccp", "port_range_min": 1, "port_range_max": 2},
        {"protocol": "udplite", "port_range_min": 7, "port_range_max": 7},
        {"protocol": "hopopt"},
        {"protocol": "icmp", "port_range_min": 255},
    ):
        neutron.create("security_group_rule", **common, **rule)
    policy = world.policy(group)
    assert policy is not None
    said = {rule["metadata"]["annotations"]["tabinet.io/protocol"] for rule in policy["spec"]["ingress"]}
    assert said == {"33:1-2", "136:7", "0", "1:255"}
    assert "openstack.tabinet/refused" not in policy["metadata"]["annotations"]
    with pytest.raises(ApiError, match="400"):
        neutron.create("security_group_rule", **common, protocol="icmpv6")


def test_a_port_is_stateless_when_all_its_groups_are(world: World) -> None:
    neutron = world.neutron
    bare, usual = (neutron.create("security_group", name=name, stateful=name == "usual") for name in ("bare", "usual"))
    network = world.network("10.91.0.0/24")
    port = world.port(network, security_groups=[bare["id"]])

    def said() -> str | None:
        annotations: dict[str, str] = (world.endpoint(port) or {})["metadata"]["annotations"]
        return annotations.get("tabinet.io/stateless")

    assert said() == "true"
    with pytest.raises(ApiError, match="both stateful and stateless"):
        neutron.update("port", port["id"], security_groups=[bare["id"], usual["id"]])
    neutron.update("port", port["id"], security_groups=[usual["id"]])
    assert said() is None
    neutron.update("port", port["id"], security_groups=[bare["id"]])
    assert said() == "true"
    with pytest.raises(ApiError, match="409"):
        neutron.update("security_group", bare["id"], stateful=True)

"""Ports as endpoints."""

from __future__ import annotations

import json
from typing import Any

import pytest
from port_build import DEVICE_ID, PORT_ID, port, view

from tabinet.attach.openstack.forwardings import share_out
from tabinet.attach.openstack.names import Region, is_host, sanitize_label
from tabinet.attach.openstack.neutron import ExtraRoute, FloatingIp, Forwarding, Network, PortView, QosRule, Subnet, Target, Trunk
from tabinet.attach.openstack.translate import port_documents, port_paths, translate_port, translate_subnet
from tabinet.model.codec import decode_stored, encode_document
from tabinet.model.documents import Document
from tabinet.model.forwards import parse_forwards
from tabinet.model.openstack import parse_port_facts
from tabinet.model.resources import WorkloadEndpoint
from tabinet.model.validate import validate

REGION = Region()


def endpoint(given: PortView) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metadata and spec of the endpoint."""
    [document] = [each for each in translate_port(given, REGION).values() if each["kind"] == "WorkloadEndpoint"]
    return document["metadata"], document["spec"]


def test_a_port_of_a_virtual_machine() -> None:
    documents = translate_port(view(), REGION)
    [(path, document)] = documents.items()
    assert path == (
        "/calico/resources/v3/projectcalico.org/workloadendpoints/openstack/"
        "hostA-openstack-035626d3--710c--42e6--9045--66a9161c80b1-145be8b3--67e3--45b9--8d4d--4b97c80fbfd5"
    )
    assert document["metadata"]["labels"] == {
        "projectcalico.org/namespace": "openstack",
        "projectcalico.org/orchestrator": "openstack",
        "projectcalico.org/openstack-project-id": "p" * 32,
        "projectcalico.org/openstack-network-name": "net_one",
        "sg.projectcalico.org/openstack-g": "web",
        "sg-name.projectcalico.org/openstack-web": "g",
    }
    assert document["spec"] == {
        "orchestrator": "openstack",
        "workload": DEVICE_ID,
        "node": "hostA",
        "endpoint": PORT_ID,
        "interfaceName": "tap145be8b3-67",
        "mac": "fa:16:3e:f9:de:15",
        "ipv4Gateway": "10.65.0.1",
        "ipNetworks": ["10.65.0.65/32", "fd00:65::78/128"],
        "allowedIps": [],
    }
    decoded = decode_stored(path, encode_document(document))
    assert decoded is not None
    assert isinstance(decoded[1], WorkloadEndpoint)
    assert validate(Document(data=document, source="test", index=1, line=1)) == []


def forwarding(name: str, protocol: str, port: str, host: str, floating: str = "f") -> Forwarding:
    return Forwarding(
        id=name,
        protocol=protocol,
        port_id=port,
        host=host,
        floatingip_id=floating,
        floating_ip_address="192.0.2.1",
        internal_ip_address="10.65.0.65",
        internal_port_start=80,
        external_port_start=8080,
        external_port_end=8081,
    )


def test_ports_of_one_floating_address_lead_to_several_hosts() -> None:
    made = [forwarding("a", "dccp", "p0", "hostB"), forwarding("b", "tcp", "p1", "hostA"), forwarding("c", "udp", "p2", "hostB")]
    made += [forwarding("d", "udp", "p1", "hostA", "g"), forwarding("e", "tcp", "p3", ""), forwarding("f", "udp", "p3", "no host")]
    own, elsewhere = share_out(made, {"p0", "p1", "p2", "p3"})
    assert {port: [(each.id, each.home) for each in found] for port, found in own.items()} == {
        "p0": [("a", "hostA")],
        "p1": [("b", "hostA"), ("d", "hostA")],
        "p2": [("c", "hostA")],
    }
    assert {port: [each.id for each in found] for port, found in elsewhere.items()} == {"p1": ["a", "c"]}
    assert share_out(made, {"p2"}) == ({"p2": own["p2"]}, {})

    metadata, _ = endpoint(view(forwardings=tuple(own["p1"][:1]), forwardings_elsewhere=tuple(elsewhere["p1"])))
    here, there = parse_forwards(metadata["annotations"]["tabinet.io/port-forwards"])
    assert (here.protocol, here.external_port, here.internal_port, here.count, here.home, here.node) == (6, 8080, 80, 2, "", "")
    assert (there.protocol, there.home, there.node) == (17, "", "hostB")
    metadata, _ = endpoint(view(port(binding_host_id="hostB"), forwardings=(*own["p2"], *own["p0"])))
    [forward] = parse_forwards(metadata["annotations"]["tabinet.io/port-forwards"])
    assert (forward.protocol, forward.home, forward.node) == (17, "hostA", "")
    assert metadata["annotations"]["openstack.tabinet/refused"] == "port forwarding a of floating IP f: ports of dccp cannot be translated"


@pytest.mark.parametrize(
    ("groups", "stateless", "secure", "expected"),
    [
        (["a"], "a", True, True),
        (["a", "b"], "ab", True, True),
        (["a", "b"], "a", True, False),
        ([], "", True, False),
        ([], "", False, False),
    ],
)
def test_a_port_is_stateless_when_all_its_groups_are(groups: list[str], stateless: str, secure: bool, expected: bool) -> None:
    given = view(
        port(security_groups=groups, port_security_enabled=secure), groups=dict.fromkeys(groups, ""), stateless=frozenset(stateless)
    )
    metadata, _ = endpoint(given)
    assert metadata["annotations"].get("tabinet.io/stateless") == ("true" if expected else None)


@pytest.mark.parametrize(
    "given",
    [
        view(port(binding_host_id="")),
        view(port(binding_vif_type="unbound")),
        view(port(binding_vif_type="binding_failed")),
        view(port(device_owner="network:router_interface")),
        view(port(device_owner="network:dhcp")),
        view(port(admin_state_up=False)),
        view(port(binding_host_id="not a host")),
        view(network=Network(id="net", admin_state_up=False)),
        view(trunk=Trunk(parent_port_id="parent", segmentation_id=5, admin_state_up=False)),
    ],
)
def test_what_has_no_endpoint(given: PortView) -> None:
    assert translate_port(given, REGION) == {}
    documents = port_documents(given, REGION)
    assert set(documents.values()) == {None}
    assert len(documents) == (3 if is_host(given.port.host) else 2)


def test_what_must_not_be_there_is_named() -> None:
    documents = port_documents(view(), REGION)
    assert [path.split("/")[5] for path, document in documents.items() if document is None] == ["networksets"] * 2


@pytest.mark.parametrize("owner", ["compute:nova", "compute:kuryr", "baremetal:none", "kuryr:container", ""])
def test_whoever_is_not_neutron_itself_is_a_workload(owner: str) -> None:
    assert translate_port(view(port(device_owner=owner)), REGION)


@pytest.mark.parametrize("device", ["", "a/b", "-x-", "名", "x" * 200])
def test_a_device_that_cannot_stand_in_a_key(device: str) -> None:
    _, spec = endpoint(view(port(device_id=device)))
    assert spec["workload"] == PORT_ID


def test_address_pairs() -> None:
    pairs = [
        {"ip_address": "10.65.0.77", "mac_address": "fa:16:3e:f9:de:15"},
        {"ip_address": "10.65.0.65", "mac_address": "FA:16:3E:F9:DE:15"},
        {"ip_address": "10.99.0.7/24", "mac_address": "02:00:00:00:00:01"},
        {"ip_address": "10.99.0.0/24", "mac_address": "fa:16:3e:f9:de:15"},
        {"ip_address": "2001:db8::/64"},
    ]
    given = view(port(allowed_address_pairs=pairs))
    metadata, spec = endpoint(given)
    assert spec["ipNetworks"] == ["10.65.0.65/32", "fd00:65::78/128", "10.65.0.77/32"]
    assert spec["allowedIps"] == ["10.65.0.77/32"]
    assert spec["allowSpoofedSourcePrefixes"] == ["10.99.0.0/24", "2001:db8::/64"]
    facts = parse_port_facts(metadata["annotations"]["openstack.tabinet/port"])
    assert [(pair.net, pair.mac) for pair in facts.pairs][:3] == [
        ("10.65.0.77", ""),
        ("10.65.0.65", ""),
        ("10.99.0.7/24", "02:00:00:00:00:01"),
    ]
    [nets] = [each for each in translate_port(given, REGION).values() if each["kind"] == "NetworkSet"]
    assert nets["spec"]["nets"] == ["10.99.0.0/24", "2001:db8::/64"]
    assert nets["metadata"]["labels"] == {"sg.projectcalico.org/openstack-g": "web"}


def test_what_routers_say_is_behind_a_port() -> None:
    routes = [("10.99.1.0/24", "r1"), ("10.99.1.0/24", "r2"), ("2001:db8:9::/48", "r1"), ("10.99.0.7/32", "r1")]
    refused = [("0.0.0.0/0", "r1"), ("10.65.0.128/25", "r1"), ("10.0.0.0/8", "r1"), ("nonsense", "r1")]
    given = view(
        port(allowed_address_pairs=[{"ip_address": "10.99.0.0/24"}]),
        extra_routes=tuple(ExtraRoute(destination=net, router=router) for net, router in routes + refused),
        subnet_prefixes=("10.65.0.0/24", "fd00:65::/64"),
    )
    metadata, spec = endpoint(given)
    assert spec["allowSpoofedSourcePrefixes"] == ["10.99.0.0/24", "10.99.0.7/32", "10.99.1.0/24", "2001:db8:9::/48"]
    assert spec["ipNetworks"] == ["10.65.0.65/32", "fd00:65::78/128"]
    facts = parse_port_facts(metadata["annotations"]["openstack.tabinet/port"])
    assert [pair.net for pair in facts.pairs] == ["10.99.0.0/24", "10.99.0.7/32", "10.99.1.0/24", "2001:db8:9::/48"]
    told = metadata["annotations"]["openstack.tabinet/refused"].splitlines()
    assert [line.split(": ")[0] for line in told] == [f"route {net} of router r1" for net, _ in sorted(refused)]
    [pairs] = [each for each in translate_port(given, REGION).values() if each["kind"] == "NetworkSet"]
    assert pairs["spec"]["nets"] == ["10.99.0.0/24"], "what is behind a port is in none of its groups"


def test_port_security_off() -> None:
    metadata, spec = endpoint(view(port(port_security_enabled=False, security_groups=[])))
    assert metadata["labels"]["openstack.tabinet/port-security"] == "off"
    assert spec["allowSpoofedSourcePrefixes"] == ["0.0.0.0/0", "::/0"]
    assert not any("sg." in label for label in metadata["labels"])


def test_what_only_the_host_needs_to_know() -> None:
    given = port(
        dns_name="vm1",
        dns_assignment=[{"hostname": "vm1", "ip_address": "10.65.0.65", "fqdn": "vm1.cloud.example."}],
        extra_dhcp_opts=[{"opt_name": "66", "opt_value": "tftp", "ip_version": 4}],
        binding_profile={"capabilities": ["x"], "pci_slot": "0"},
    )
    trunk = Trunk(parent_port_id="fb40a754-528a-477a-946d-328ed4ebc408", segmentation_id=100)
    metadata, spec = endpoint(view(given, trunk=trunk))
    facts = parse_port_facts(metadata["annotations"]["openstack.tabinet/port"])
    assert (facts.mtu, facts.hostname, facts.fqdn) == (1450, "vm1", "vm1.cloud.example")
    assert [(option.name, option.value) for option in facts.dhcp_options] == [("66", "tftp")]
    assert [(fixed.address, fixed.subnet) for fixed in facts.fixed] == [("10.65.0.65", "s4"), ("fd00:65::78", "s6")]
    assert (facts.trunk_parent, facts.vlan, spec["workload"]) == ("tapfb40a754-52", 100, DEVICE_ID)
    assert facts.profile == {"capabilities": ["x"], "pci_slot": "0"}
    assert metadata["annotations"]["openstack.projectcalico.org/fqdn"] == "vm1.cloud.example"


def test_limits_and_floating_addresses() -> None:
    rules = (
        QosRule(type="bandwidth_limit", direction="ingress", max_kbps=10_000, max_burst_kbps=20_000),
        QosRule(type="bandwidth_limit", direction="egress", max_kbps=1_000, max_burst_kbps=0),
        QosRule(type="packet_rate_limit", direction="egress", max_kpps=5, max_burst_kpps=0),
        QosRule(type="dscp_marking", dscp_mark=26),
        QosRule(type="minimum_bandwidth", direction="egress"),
    )
    floating = (FloatingIp(id="f", floating_ip_address="198.51.100.114", fixed_ip_address="10.65.0.65", port_id=PORT_ID),)
    _, spec = endpoint(view(qos_rules=rules, floating_ips=floating))
    assert spec["qosControls"] == {
        "dscp": 26,
        "egressBandwidth": 1_000_000,
        "egressBurst": 800_000,
        "egressPacketRate": 5000,
        "ingressBandwidth": 10_000_000,
        "ingressBurst": 20_000_000,
    }
    assert spec["ipNATs"] == [{"internalIP": "10.65.0.65", "externalIP": "198.51.100.114"}]


def test_limits_of_floating_addresses_are_their_own() -> None:
    rules = (
        QosRule(type="bandwidth_limit", direction="ingress", max_kbps=1_000, max_burst_kbps=0),
        QosRule(type="dscp_marking", dscp_mark=8),
    )
    metadata, spec = endpoint(view(address_rules={"198.51.100.2": rules, "198.51.100.1": rules[1:], "198.51.100.3": ()}))
    assert json.loads(metadata["annotations"]["tabinet.io/address-limits"]) == [
        {"externalIP": "198.51.100.1", "qosControls": {"dscp": 8}},
        {"externalIP": "198.51.100.2", "qosControls": {"ingressBandwidth": 1_000_000, "ingressBurst": 800_000, "dscp": 8}},
    ]
    assert "qosControls" not in spec
    assert "tabinet.io/address-limits" not in endpoint(view())[0]["annotations"]


def test_where_a_port_may_have_left_something() -> None:
    paths = port_paths(REGION, PORT_ID, [("hostA", DEVICE_ID), ("hostA", DEVICE_ID), ("hostB", DEVICE_ID), ("no host", DEVICE_ID)])
    assert [path.split("/")[5] for path in paths] == ["networksets", "networksets", *("workloadendpoints", "livemigrations") * 2]
    assert set(translate_port(view(), REGION)) <= set(paths)


@pytest.mark.parametrize("fields", [{"targets": (Target(host="hostB"),)}, {"given": port(binding_profile={"migrating_to": "hostB"})}])
def test_a_machine_on_the_move_has_an_endpoint_on_both_hosts(fields: dict[str, Any]) -> None:
    documents = port_documents(view(**fields), REGION)
    kinds = [document["kind"] for document in documents.values() if document]
    assert kinds == ["WorkloadEndpoint", "WorkloadEndpoint", "LiveMigration"]
    one, two, migration = filter(None, documents.values())
    assert (one["spec"] | {"node": "hostB"}, one["metadata"]["labels"]) == (two["spec"], two["metadata"]["labels"])
    assert migration["metadata"]["name"] == two["metadata"]["name"]
    assert validate(Document(data=migration, source="test", index=1, line=1)) == []


@pytest.mark.parametrize("host", ["hostA", "no host", ""])
def test_who_moves_nowhere_has_one_endpoint(host: str) -> None:
    given = port(binding_profile={"migrating_to": host})
    assert len(list(filter(None, port_documents(view(given, targets=(Target(host=host),)), REGION).values()))) == 1


def test_subnets() -> None:
    subnet = Subnet(id="s", network_id="n", cidr="fd00:65::/64", ip_version=6, ipv6_ra_mode="slaac", ipv6_address_mode="slaac")
    [(path, value)] = translate_subnet(subnet, Region("one")).items()
    assert path == "/calico/dhcp/v2/region-one/subnet/s"
    assert value == {
        "network_id": "n",
        "cidr": "fd00:65::/64",
        "gateway_ip": None,
        "host_routes": [],
        "ipv6_ra_mode": "slaac",
        "ipv6_address_mode": "slaac",
    }
    assert translate_subnet(Subnet(id="s", network_id="n", cidr="10.0.0.0/8", enable_dhcp=False), REGION) == {
        "/calico/dhcp/v2/no-region/subnet/s": None
    }


@pytest.mark.parametrize("text", ["", "web", "a b/c", "-x-", "Ω", "ünï" * 40, "x" * 255, "._-"])
def test_names_in_any_script_and_length_become_labels(text: str) -> None:
    metadata, _ = endpoint(view(network=Network(id="net", name=text), groups={"g": text}))
    document = translate_port(view(network=Network(id="net", name=text), groups={"g": text}), REGION)
    assert len(sanitize_label(text)) <= 63
    assert all(validate(Document(data=each, source="test", index=1, line=1)) == [] for each in document.values())
    assert metadata["labels"]["projectcalico.org/openstack-network-name"] == sanitize_label(text)

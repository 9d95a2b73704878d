"""What Neutron's Calico driver wrote for a series of API calls, our driver writes for the same calls, in meaning; what differs is better.

The dumps (see ``tests/unit/model/test_neutron_dump.py``) are keys and values in turn. Identifiers and addresses, which Neutron picks, are
replaced by words on both sides before they are compared.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from openstack_world import RESOURCES, World, device

from tabinet.model.protocols import parse_protocol

DUMPS = Path(__file__).parents[1] / "unit" / "model" / "data" / "neutron"
Document = dict[str, Any]
OF_DUMP = {
    "145be8b3-67e3-45b9-8d4d-4b97c80fbfd5": "PORT1",
    "b07776ee-aaf3-4596-b671-59a10e3b5c5a": "PORT2",
    "035626d3-710c-42e6-9045-66a9161c80b1": "VM1",
    "f53eb7d7-0468-4008-9133-e5063778816b": "VM2",
    "4259e212-51d4-4e8e-8273-f9c46c13280d": "NET",
    "fc1796e3-8ab4-4dc8-98df-263ab449354b": "WEB",
    "f371dec1-9ed7-4c99-9c78-37dd42fe36a1": "DB",
    "e605ddde-9f5e-43ce-8f31-9f9b27e262c3": "SUBNET4",
    "0436afef-4bc9-496f-85ae-94cf65655a8a": "SUBNET6",
    "fa:16:3e:f9:de:15": "MAC1",
    "fa:16:3e:19:f6:04": "MAC2",
    "tap145be8b3-67": "TAP1",
    "tapb07776ee-aa": "TAP2",
    "10.65.0.65": "V4-1",
    "fd00:65::78": "V6-1",
    "10.65.0.30": "V4-2",
    "fd00:65::3d0": "V6-2",
    "198.51.100.114": "FLOATING",
}


class Calls:
    """The calls of the series, and what Neutron called things."""

    def __init__(self, world: World) -> None:
        neutron = world.neutron
        net = neutron.create("network", name="net-e649")
        routes = [{"destination": "192.168.9.0/24", "nexthop": "10.65.0.1"}]
        more = {"dns_nameservers": ["8.8.8.8"], "host_routes": routes}
        self.subnet4 = neutron.create("subnet", network_id=net["id"], ip_version=4, cidr="10.65.0.0/24", **more)
        modes = {"ipv6_ra_mode": "dhcpv6-stateful", "ipv6_address_mode": "dhcpv6-stateful"}
        self.subnet6 = neutron.create("subnet", network_id=net["id"], ip_version=6, cidr="fd00:65::/64", **modes)
        self.web, self.db = (neutron.create("security_group", name=name) for name in ("web-e649", "db-e649"))
        for ethertype, protocol, low, high, remote in (
            ("IPv4", "tcp", 80, 80, {"remote_ip_prefix": "0.0.0.0/0"}),
            ("IPv4", "tcp", 1000, 2000, {"remote_group_id": self.db["id"]}),
            ("IPv6", "icmpv6", 128, 0, {}),
            ("IPv4", "icmp", 8, 0, {}),
            ("IPv4", "112", None, None, {}),
        ):
            self._rule(world, ethertype, protocol, low, high, **remote)
        self._rule(world, "IPv4", "udp", 53, 53, direction="egress")
        self.addresses = neutron.create("address_group", name="ag", addresses=["203.0.113.0/24"])
        self._rule(world, "IPv4", "tcp", 22, 22, remote_address_group_id=self.addresses["id"])
        policy = neutron.create("policy", "/qos/policies", name="q")["id"]
        rules = f"/qos/policies/{policy}"
        limit = {"max_kbps": 10000, "max_burst_kbps": 20000, "direction": "ingress"}
        neutron.create("bandwidth_limit_rule", f"{rules}/bandwidth_limit_rules", **limit)
        neutron.create("packet_rate_limit_rule", f"{rules}/packet_rate_limit_rules", max_kpps=5, direction="egress")
        neutron.create("dscp_marking_rule", f"{rules}/dscp_marking_rules", dscp_mark=26)
        pairs = [{"ip_address": "10.65.0.77"}, {"ip_address": "10.99.0.0/24"}]
        fixed = [{"subnet_id": self.subnet4["id"], "ip_address": "10.65.0.65"}, {"subnet_id": self.subnet6["id"]}]  # not one of the pairs
        fields = {
            "fixed_ips": fixed,
            "security_groups": [self.web["id"]],
            "allowed_address_pairs": pairs,
            "qos_policy_id": policy,
            "host": "hostA",
        }
        self.port1 = world.port(net, device_id=device(), **fields)
        self.port2 = world.port(net, device_id=device(), security_groups=[], port_security_enabled=False, host="hostA")
        outside = neutron.create("network", name="ext", router_external=True, provider_network_type="flat", provider_physical_network="ext")
        neutron.create("subnet", network_id=outside["id"], ip_version=4, cidr="198.51.100.0/24")
        router = neutron.create("router", name="r", external_gateway_info={"network_id": outside["id"]})
        neutron.call("PUT", f"/routers/{router['id']}/add_router_interface", {"subnet_id": self.subnet4["id"]})
        self.v4, self.v6 = addresses_of(self.port1)
        self.before = world.stored()
        floating = {"floating_network_id": outside["id"], "port_id": self.port1["id"], "fixed_ip_address": self.v4}
        self.floating = neutron.create("floatingip", **floating)
        neutron.update("port", self.port1["id"], name="renamed")
        self.after = world.stored()
        second = addresses_of(self.port2)
        self.words = {
            self.port1["id"]: "PORT1",
            self.port2["id"]: "PORT2",
            self.port1["device_id"]: "VM1",
            self.port2["device_id"]: "VM2",
            net["id"]: "NET",
            self.web["id"]: "WEB",
            self.db["id"]: "DB",
            self.subnet4["id"]: "SUBNET4",
            self.subnet6["id"]: "SUBNET6",
            self.addresses["id"]: "ADDRESSES",
            self.port1["mac_address"]: "MAC1",
            self.port2["mac_address"]: "MAC2",
            f"tap{self.port1['id']}"[:14]: "TAP1",
            f"tap{self.port2['id']}"[:14]: "TAP2",
            self.v4: "V4-1",
            self.v6: "V6-1",
            second[0]: "V4-2",
            second[1]: "V6-2",
            self.floating["floating_ip_address"]: "FLOATING",
        }

    def _rule(self, world: World, ethertype: str, protocol: str, low: int | None, high: int | None, **more: Any) -> None:
        ports = {"port_range_min": low, "port_range_max": high}
        fields = {"direction": "ingress", "ethertype": ethertype, "protocol": protocol} | ports | more
        world.neutron.create("security_group_rule", security_group_id=self.web["id"], **fields)


@pytest.fixture(scope="module")
def calls(world: World) -> Calls:
    return Calls(world)


def addresses_of(port: Document) -> list[str]:
    """The port's address of each family."""
    return [next(fixed["ip_address"] for fixed in port["fixed_ips"] if mark in fixed["ip_address"]) for mark in ".:"]


def read_dump(name: str) -> dict[str, Document]:
    lines = (DUMPS / name).read_text().splitlines()
    pairs = zip(lines[::2], lines[1::2], strict=True)
    return {path: json.loads(value) for path, value in pairs if value.startswith("{")}


def in_words(entries: dict[str, Document], words: dict[str, str]) -> dict[str, Document]:
    """Paths and values with words for what Neutron picked; longest first, so that no address is found within another."""
    found = {}
    for path, value in entries.items():
        text = json.dumps([path.replace("--", "-"), value])
        for name in sorted(words, key=len, reverse=True):
            text = text.replace(f"{name}/", f"{words[name]}/") if "." in name or "::" in name else text.replace(name, words[name])
            text = text.replace(f'"{name}"', f'"{words[name]}"')
        key, document = json.loads(text)
        found[key] = document
    return found


def rule_meaning(rule: Document) -> Document:
    meaning = {name: value for name, value in rule.items() if name not in ("metadata", "protocol")}
    return meaning | ({"protocol": parse_protocol(rule["protocol"])} if "protocol" in rule else {})


def in_order(rules: list[Document]) -> list[Document]:
    return sorted(rules, key=lambda rule: json.dumps(rule, sort_keys=True))


def policy_meaning(document: Document) -> Document:
    spec = document["spec"]
    rules = {name: in_order([rule_meaning(rule) for rule in spec[name]]) for name in ("ingress", "egress")}
    return {"selector": spec["selector"], **rules}


def only(entries: dict[str, Document], part: str) -> Document:
    [document] = [document for path, document in entries.items() if part in path]
    return document


@pytest.mark.parametrize("group", ["WEB", "DB"])
def test_groups(calls: Calls, group: str) -> None:
    theirs = policy_meaning(only(in_words(read_dump("networking-calico-dump-fip-migration.txt"), OF_DUMP), f"ossg.default.{group}"))
    ours = policy_meaning(only(in_words(calls.after, calls.words), f"ossg.default.{group}"))
    if group == "WEB":
        [ssh] = [rule for rule in ours["ingress"] if rule.get("destination") == {"ports": [22]}]
        assert ssh.pop("source") == {"selector": "has(ag.tabinet/openstack-ADDRESSES)"}  # theirs lets everybody in
        ours["ingress"] = in_order(ours["ingress"])
    assert ours == theirs


def test_the_address_group(calls: Calls) -> None:
    document = only(calls.after, f"networksets/openstack/osag.default.{calls.addresses['id']}")
    assert document["spec"] == {"nets": ["203.0.113.0/24"]}


def test_subnets(calls: Calls) -> None:
    theirs = in_words(read_dump("networking-calico-dump.txt"), OF_DUMP)
    ours = in_words(calls.after, calls.words)
    for subnet in ("SUBNET4", "SUBNET6"):
        path = f"/calico/dhcp/v2/no-region/subnet/{subnet}"
        assert ours[path] == theirs[path]


def improved(theirs: Document) -> Document:
    """Their endpoint of the first port, as it is with what we do better."""
    spec = copy.deepcopy(theirs)
    prefix = "10.99.0.0/24/32"  # no address: nobody could act on it
    spec["ipNetworks"].remove(prefix)
    spec["allowedIps"].remove(prefix)
    spec["allowSpoofedSourcePrefixes"] = ["10.99.0.0/24"]
    # A burst is what may come at once, not a rate; of packets it is what hosts take anyway; code points are supported.
    spec["qosControls"] = {"ingressBandwidth": 10_000_000, "ingressBurst": 20_000_000, "egressPacketRate": 5000, "dscp": 26}
    return spec


@pytest.mark.parametrize("dump", ["networking-calico-dump.txt", "networking-calico-dump-fip-migration.txt"])
def test_the_port_in_a_group(calls: Calls, dump: str) -> None:
    theirs = only(in_words(read_dump(dump), OF_DUMP), "workloadendpoints/openstack/hostA-openstack-VM1-PORT1")
    entries = calls.before if dump == "networking-calico-dump.txt" else calls.after
    ours = only(in_words(entries, calls.words), "workloadendpoints/openstack/hostA-openstack-VM1-PORT1")
    assert ours["spec"] == improved(theirs["spec"])
    assert ours["metadata"]["labels"] == theirs["metadata"]["labels"]
    assert ours["metadata"]["annotations"].items() >= theirs["metadata"]["annotations"].items()


def test_the_port_without_port_security(calls: Calls) -> None:
    theirs = only(in_words(read_dump("networking-calico-dump.txt"), OF_DUMP), "workloadendpoints/openstack/hostA-openstack-VM2-PORT2")
    ours = only(in_words(calls.after, calls.words), "workloadendpoints/openstack/hostA-openstack-VM2-PORT2")
    assert ours["metadata"]["labels"] == theirs["metadata"]["labels"] | {"openstack.tabinet/port-security": "off"}
    assert ours["spec"] == theirs["spec"] | {"allowSpoofedSourcePrefixes": ["0.0.0.0/0", "::/0"]}
    document = only(calls.after, "networkpolicies/openstack/osps.default.off")
    assert document["spec"]["selector"] == "openstack.tabinet/port-security == 'off'"


def test_the_cluster(calls: Calls) -> None:
    theirs = read_dump("networking-calico-dump.txt")
    path = f"{RESOURCES}clusterinformations/default"
    assert calls.after[path]["spec"].keys() == theirs[path]["spec"].keys()
    assert calls.after[path]["spec"]["clusterType"] == "openstack"
    path = f"{RESOURCES}felixconfigurations/default"
    assert calls.after[path]["spec"] == theirs[path]["spec"] | {"workloadSourceSpoofing": "Any"}

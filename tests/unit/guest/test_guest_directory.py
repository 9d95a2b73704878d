"""The ports and subnets that a host's guests are answered from."""

import json

import msgspec
import pytest

from tabinet.guest.directory import Directory
from tabinet.guest.lease4 import lease4_of
from tabinet.guest.options import GuestOptions
from tabinet.lib.ip import parse_address
from tabinet.model.openstack import FixedAddress, PortFacts, render_port_facts
from tabinet.store.api import DeleteEvent, KeyValue, PutEvent

ENDPOINTS = "/calico/resources/v3/projectcalico.org/workloadendpoints/openstack/"
SUBNET = "/calico/dhcp/v2/no-region/subnet/s1"


def put(path: str, value: object) -> PutEvent:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return PutEvent(KeyValue(path, data, 1, 1))


def endpoint(name: str = "vm", node: str = "h-1", interface: str = "tap1", **annotations: str) -> PutEvent:
    full = f"{node.replace('-', '--')}-openstack-{name}-{name}"
    spec = {
        "orchestrator": "openstack",
        "workload": name,
        "node": node,
        "endpoint": name,
        "ipNetworks": ["10.65.0.7/32"],
        "interfaceName": interface,
        "mac": "fa:16:3e:00:00:01",
    }
    metadata = {"name": full, "namespace": "openstack", "annotations": annotations}
    return put(ENDPOINTS + full, {"apiVersion": "projectcalico.org/v3", "kind": "WorkloadEndpoint", "metadata": metadata, "spec": spec})


def subnet(**fields: object) -> PutEvent:
    return put(SUBNET, {"network_id": "n1", "cidr": "10.65.0.0/24", "gateway_ip": "10.65.0.1", "host_routes": []} | fields)


ANNOTATED = {"openstack.tabinet/port": render_port_facts(PortFacts(fixed=(FixedAddress(address="10.65.0.7", subnet="s1"),)))}
CALICOS = {"openstack.projectcalico.org/network-id": "n1", "openstack.projectcalico.org/fqdn": "vm.example.org"}


def leased(directory: Directory) -> bool:
    port = directory.port("tap1")
    return port is not None and lease4_of(port, directory, GuestOptions()) is not None


@pytest.mark.parametrize("annotations", [ANNOTATED, CALICOS])
def test_a_port_of_neutron_has_dhcp_while_its_subnet_has(annotations: dict[str, str]):
    directory = Directory("h-1")
    assert directory.on_events([endpoint(**annotations)]) == {"tap1"}
    assert not leased(directory)
    assert directory.on_events([subnet()]) == {"tap1"}
    assert leased(directory)
    assert directory.on_events([subnet()]) == set(), "nothing changed"
    assert directory.on_events([DeleteEvent(SUBNET, 2)]) == {"tap1"}
    assert not leased(directory)


def test_any_order_and_any_history_give_the_same():
    one, other = Directory("h-1"), Directory("h-1")
    one.on_events([subnet(), endpoint(**ANNOTATED)])
    other.on_events([endpoint(interface="tap9"), subnet(cidr="10.66.0.0/24"), endpoint(**ANNOTATED), subnet(), subnet()])
    assert one == other
    assert other.interfaces() == ["tap1"]


def test_a_workload_of_others_has_dhcp_without_a_subnet():
    directory = Directory("h-1")
    directory.on_events([endpoint()])
    assert leased(directory)


@pytest.mark.parametrize(
    "spec", [{"orchestrator": "libnetwork"}, {"orchestrator": "k8s", "pod": "p"}, {"orchestrator": "cni", "containerID": "c"}]
)
def test_a_container_is_known_as_one_whoever_runs_it(spec: dict[str, str]):
    told = json.loads(endpoint().item.value)
    told["spec"] |= spec
    directory = Directory("h-1")
    directory.on_events([endpoint(), put(endpoint().item.key, told)])
    port = directory.port("tap1")
    assert port is not None
    assert port.in_container


@pytest.mark.parametrize("node", ["h", "h-2", "h-1-x", "x-h-1"])
def test_other_hosts_endpoints_are_not_kept(node: str):
    directory = Directory("h-1")
    assert directory.on_events([endpoint(node=node)]) == set()
    assert directory == Directory("h-1")


def test_of_two_claims_the_smallest_key_has_the_interface():
    directory = Directory("h-1")
    directory.on_events([endpoint("vm-b"), endpoint("vm-a")])
    found = directory.port("tap1")
    assert found is not None and found.instance == "vm-a"
    directory.on_events([DeleteEvent(endpoint("vm-a").item.key, 2)])
    found = directory.port("tap1")
    assert found is not None and found.instance == "vm-b"


@pytest.mark.parametrize(
    "broken",
    [
        b"{",
        {"cidr": "no"},
        {"cidr": "10.0.0.0/24", "gateway_ip": "gate"},
        {"cidr": "10.0.0.0/24", "dns_servers": ["x"]},
        {"cidr": "10.0.0.0/24", "host_routes": [{"destination": "x", "nexthop": "10.0.0.1"}]},
        {"gateway_ip": "10.0.0.1"},
        b"\xff\xfe",
    ],
)
def test_a_broken_subnet_is_none_until_it_is_whole(broken: object):
    directory = Directory("h-1")
    directory.on_events([endpoint(**ANNOTATED), subnet(), put(SUBNET, broken)])
    assert not leased(directory) and SUBNET in directory.problems
    directory.on_events([subnet()])
    assert leased(directory) and not directory.problems


def test_a_broken_annotation_takes_the_port_out():
    directory = Directory("h-1")
    directory.on_events([subnet(), endpoint(**ANNOTATED), endpoint(**{"openstack.tabinet/port": "{"})])
    assert directory.port("tap1") is None and len(directory.problems) == 1


def test_facts_are_read():
    directory = Directory("h-1")
    directory.on_events([endpoint(**CALICOS)])
    port = directory.port("tap1")
    assert port is not None
    assert (port.mac.hex(), port.addresses, port.instance, port.facts.fqdn) == (
        "fa163e000001",
        (parse_address("10.65.0.7"),),
        "vm",
        "vm.example.org",
    )
    assert msgspec.structs.replace(port, facts=PortFacts()).facts == PortFacts()


def test_a_subport_is_its_trunks_machine_while_that_is_here():
    directory = Directory("h-1")
    facts = {"openstack.tabinet/port": render_port_facts(PortFacts(trunk_parent="tap1", vlan=7))}
    directory.on_events([endpoint("sub", interface="tap2", **facts)])
    port = directory.port("tap2")
    assert port is not None and directory.machine(port) is port
    directory.on_events([endpoint()])
    assert directory.machine(port).instance == "vm"
    assert directory.machine(directory.machine(port)).instance == "vm"

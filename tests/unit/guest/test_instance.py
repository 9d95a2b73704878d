"""What a guest that is not Nova's learns of itself."""

import json

import pytest

from tabinet.guest.directory import Port, make_port
from tabinet.guest.instance import Instance, look_up
from tabinet.lib.ip import parse_address
from tabinet.model.codec import decode_stored
from tabinet.model.keys import ResourceKey, path_of
from tabinet.model.resources import WorkloadEndpoint

USER_DATA = "#cloud-config\npackages: [curl]\n"
ANNOTATIONS = {
    "tabinet.io/hostname": "web1.example.org",
    "tabinet.io/ssh-keys": "ssh-ed25519 AAAA one\n\nssh-rsa BBBB two\n",
    "tabinet.io/user-data": USER_DATA,
    "other.io/user-data": "not ours",
}


def port(annotations: dict[str, str]) -> Port:
    metadata: dict[str, object] = {"name": "h1-tabinet-vm-eth0", "namespace": "default", "uid": "u-1", "annotations": annotations}
    metadata["labels"] = {"role": "web", "projectcalico.org/namespace": "default"}
    spec = {
        "orchestrator": "tabinet",
        "workload": "vm",
        "node": "h1",
        "endpoint": "eth0",
        "interfaceName": "tapvm",
        "mac": "FA:16:3E:00:00:07",
    }
    spec |= {"ipNetworks": ["10.65.0.7/32", "fd65::7/128"], "ipNATs": [{"internalIP": "10.65.0.7", "externalIP": "192.0.2.7"}]}
    data = {"apiVersion": "projectcalico.org/v3", "kind": "WorkloadEndpoint", "metadata": metadata, "spec": spec}
    key = ResourceKey("WorkloadEndpoint", "h1-tabinet-vm-eth0", "default")
    _, value = decode_stored(path_of(key), json.dumps(data).encode())
    assert isinstance(value, WorkloadEndpoint)
    return make_port(key, value)


@pytest.fixture
def instance() -> Instance:
    found = port(ANNOTATIONS).local
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "1.0\n2007-01-19\n2009-04-04\nlatest"),
        ("/latest/", "meta-data/\nuser-data"),
        (
            "/latest/meta-data/",
            "hostname\ninstance-id\nlocal-hostname\nmac\nplacement/\nlocal-ipv4\nipv6\npublic-ipv4\nnetwork/\npublic-keys/\ntags/",
        ),
        ("/2021-01-03/meta-data/instance-id", "i-u-1"),
        ("/latest/meta-data/hostname", "web1.example.org"),
        ("/latest/meta-data/local-ipv4?x=1", "10.65.0.7"),
        ("/latest/meta-data/public-ipv4", "192.0.2.7"),
        ("/latest/meta-data/public-keys/", "0=key0\n1=key1"),
        ("/latest/meta-data/public-keys/0/", "openssh-key"),
        ("/latest/meta-data/public-keys/1/openssh-key", "ssh-rsa BBBB two"),
        ("/latest/meta-data/network/interfaces/macs/", "fa:16:3e:00:00:07/"),
        ("/latest/meta-data/network/interfaces/macs/fa:16:3e:00:00:07/ipv6s", "fd65::7"),
        ("/latest/meta-data/tags/instance", "role"),
        ("/latest/meta-data/tags/instance/role", "web"),
        ("/latest/meta-data/placement/availability-zone", "h1"),
        ("/latest/user-data", USER_DATA),
        ("/user-data", USER_DATA),
        ("/vendor-data", ""),
        ("/latest/meta-data/hostname/x", None),
        ("/latest/meta-data/nothing", None),
        ("/nothing", None),
        ("/../etc", None),
    ],
)
def test_paths(instance: Instance, path: str, expected: str | None):
    assert look_up(instance, path) == expected


def test_files_of_cloud_init(instance: Instance):
    told = json.loads(look_up(instance, "/meta-data") or "")
    keys = ["ssh-ed25519 AAAA one", "ssh-rsa BBBB two"]
    assert told == {"instance-id": "i-u-1", "local-hostname": "web1.example.org", "public-keys": keys}
    config = json.loads(look_up(instance, "/network-config") or "")
    interface = {"match": {"macaddress": "fa:16:3e:00:00:07"}, "dhcp4": True, "dhcp6": True}
    assert config == {"version": 2, "ethernets": {"primary": interface}}


def test_without_annotations_a_guest_is_called_as_its_workload():
    found = port({})
    assert found.local is not None and found.local.hostname == "vm"
    assert found.facts.hostname == "", "nobody said what it is called, so DHCP does not"
    assert look_up(found.local, "/latest/") == "meta-data/"


def test_the_name_is_told_by_dhcp_too():
    facts = port(ANNOTATIONS).facts
    assert (facts.hostname, facts.fqdn) == ("web1", "web1.example.org")


def test_a_port_of_neutron_has_nova():
    assert port({"openstack.projectcalico.org/network-id": "n"} | ANNOTATIONS).local is None


def test_addresses_of_one_family():
    only = Instance(identifier="i", hostname="x", mac="", addresses=(parse_address("fd65::7"),), host="h1")
    assert look_up(only, "/latest/meta-data/") == "hostname\ninstance-id\nlocal-hostname\nmac\nplacement/\nipv6"
    assert look_up(only, "/network-config") is None

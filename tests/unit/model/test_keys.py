"""Keys and paths, both ways; names of workload endpoints; kinds and their spellings."""

from __future__ import annotations

import pytest

from tabinet.lib.ip import parse_prefix
from tabinet.model.endpoint_names import WorkloadEndpointName, endpoint_name_of, parse_endpoint_name
from tabinet.model.keys import (
    AffinityKey,
    BlockKey,
    HandleKey,
    Key,
    ResourceKey,
    VirtualAffinityKey,
    affinity_prefix,
    kind_prefix,
    parse_path,
    path_of,
)
from tabinet.model.kinds import KINDS, find_kind, nearest_kind
from tabinet.model.resources import WorkloadEndpointSpec

V3 = "/calico/resources/v3/projectcalico.org"
PATHS: list[tuple[str, Key]] = [
    (f"{V3}/ippools/pool-1", ResourceKey("IPPool", "pool-1")),
    (f"{V3}/networkpolicies/ns/default.p", ResourceKey("NetworkPolicy", "default.p", "ns")),
    (f"{V3}/globalnetworkpolicies/p", ResourceKey("GlobalNetworkPolicy", "p")),
    (f"{V3}/workloadendpoints/ns/hostA-k8s-a--b-eth0", ResourceKey("WorkloadEndpoint", "hostA-k8s-a--b-eth0", "ns")),
    (f"{V3}/felixconfigurations/node.h", ResourceKey("FelixConfiguration", "node.h")),
    ("/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-26", BlockKey(parse_prefix("10.0.0.0/26"))),
    ("/calico/ipam/v2/assignment/ipv6/block/fd00::-122", BlockKey(parse_prefix("fd00::/122"))),
    ("/calico/ipam/v2/host/h-1/ipv4/block/10.0.0.64-26", AffinityKey("h-1", parse_prefix("10.0.0.64/26"))),
    ("/calico/ipam/v2/host/h.x/ipv6/block/fd00::40-122", AffinityKey("h.x", parse_prefix("fd00::40/122"))),
    ("/calico/ipam/v2/virtual/load-balancer/ipv4/block/10.0.0.64-26", VirtualAffinityKey("load-balancer", parse_prefix("10.0.0.64/26"))),
    ("/calico/ipam/v2/handle/k8s-pod-network.abc", HandleKey("k8s-pod-network.abc")),
    ("/calico/ipam/v2/config", ResourceKey("IPAMConfiguration", "default")),
    (f"{V3}/livemigrations/openstack/hostB-openstack-1-2", ResourceKey("LiveMigration", "hostB-openstack-1-2", "openstack")),
]


@pytest.mark.parametrize(("path", "key"), PATHS)
def test_paths_and_keys(path: str, key: Key) -> None:
    assert parse_path(path) == key
    assert path_of(key) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/calico/",
        V3,
        f"{V3}/",
        f"{V3}/ippools",
        f"{V3}/ippools/",
        f"{V3}/ippools/a/b",
        f"{V3}/networkpolicies/ns",
        f"{V3}/networkpolicies//p",
        f"{V3}/networkpolicies/ns/",
        f"{V3}/networkpolicies/ns/p/q",
        f"{V3}/sandwiches/a",
        f"{V3}/IPPools/a",
        "/calico/v1/policy/tier/default/policy/x",
        "/calico/ipam/v2/configs",
        f"{V3}/ipamconfigurations/default",
        f"{V3}/ipamblocks/10-0-0-0-26",
        "/calico/ipam/v2/handle/",
        "/calico/ipam/v2/handle/a/b",
        "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0",
        "/calico/ipam/v2/assignment/ipv4/block/10.0.0.1-26",
        "/calico/ipam/v2/assignment/ipv6/block/10.0.0.0-26",
        "/calico/ipam/v2/assignment/ipv5/block/10.0.0.0-26",
        "/calico/ipam/v2/assignment/ipv4/blocks/10.0.0.0-26",
        "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-26/x",
        "/calico/ipam/v2/host//ipv4/block/10.0.0.0-26",
        "/calico/ipam/v2/host/h/ipv4",
        "/calico/ipam/v2/virtual//ipv4/block/10.0.0.0-26",
        "/calico/felix/v2/no-region/host/h/status",
    ],
)
def test_what_is_not_ours_is_none(path: str) -> None:
    assert parse_path(path) is None


@pytest.mark.parametrize(
    "key",
    [
        ResourceKey("Sandwich", "a"),
        ResourceKey("IPPool", ""),
        ResourceKey("IPAMConfiguration", "other"),
        ResourceKey("IPAMConfiguration", "default", "ns"),
        ResourceKey("IPAMBlock", "10-0-0-0-26"),
        ResourceKey("IPPool", "a/b"),
        ResourceKey("IPPool", "a", "ns"),
        ResourceKey("NetworkPolicy", "a"),
        ResourceKey("NetworkPolicy", "a", "n/s"),
        HandleKey("a/b"),
        AffinityKey("", parse_prefix("10.0.0.0/26")),
    ],
)
def test_keys_that_no_path_can_say(key: Key) -> None:
    with pytest.raises(ValueError, match=r"."):
        path_of(key)


def test_prefixes() -> None:
    assert kind_prefix("IPPool") == f"{V3}/ippools/"
    assert kind_prefix("NetworkPolicy", "ns") == f"{V3}/networkpolicies/ns/"
    assert affinity_prefix("h") == "/calico/ipam/v2/host/h/"
    for kind, namespace in (("Sandwich", ""), ("IPPool", "ns")):
        with pytest.raises(ValueError, match=r"."):
            kind_prefix(kind, namespace)


def test_keys_are_written_for_people() -> None:
    assert [str(ResourceKey("IPPool", "a")), str(ResourceKey("NetworkSet", "a", "ns"))] == ["IPPool/a", "NetworkSet/ns/a"]


SPECS = [
    (WorkloadEndpointSpec(orchestrator="k8s", node="n-1", pod="web-0", endpoint="eth0"), "n--1-k8s-web--0-eth0"),
    (WorkloadEndpointSpec(orchestrator="cni", node="n", container_id="c1", endpoint="eth0", pod="x"), "n-cni-c1-eth0"),
    (WorkloadEndpointSpec(orchestrator="libnetwork", node="n", workload="x", endpoint="e"), "n-libnetwork-libnetwork-e"),
    (WorkloadEndpointSpec(orchestrator="openstack", node="h.x", workload="1-2", endpoint="3--4"), "h.x-openstack-1--2-3----4"),
]


@pytest.mark.parametrize(("spec", "name"), SPECS)
def test_endpoint_names(spec: WorkloadEndpointSpec, name: str) -> None:
    built = endpoint_name_of(spec)
    assert str(built) == name
    assert parse_endpoint_name(name) == built


@pytest.mark.parametrize(
    "name", ["", "a", "a-b-c", "a-b-c-d-e", "a--b-c-d", "-a-b-c-d", "a-b-c-d-", "a---b-c-d-e", "a-b-c-", "--a-b-c-d", "a-b--c-d"]
)
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ValueError, match="is not <node>"):
        parse_endpoint_name(name)


@pytest.mark.parametrize("part", ["", "-a", "a-", "a/b"])
def test_parts_that_no_name_can_have(part: str) -> None:
    with pytest.raises(ValueError, match="cannot be part"):
        str(WorkloadEndpointName("n", "k8s", part, "e"))


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("IPPool", "IPPool"),
        ("ippools", "IPPool"),
        ("gnp", "GlobalNetworkPolicy"),
        ("np", "NetworkPolicy"),
        ("WEP", "WorkloadEndpoint"),
        ("nodes", "Node"),
    ],
)
def test_spellings_of_kinds(word: str, kind: str) -> None:
    found = find_kind(word)
    assert found is not None
    assert found.name == kind


def test_unknown_words_have_a_nearest_kind_or_none() -> None:
    assert find_kind("sandwich") is None
    assert nearest_kind("networkpolicie") == "NetworkPolicy"
    assert nearest_kind("sandwich") == ""


def test_no_spelling_means_two_kinds() -> None:
    words = [word for kind in KINDS for word in {kind.name.lower(), kind.plural, *kind.aliases}]
    assert len(words) == len(set(words))

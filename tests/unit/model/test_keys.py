"""Keys and paths, both ways; names of workload endpoints; kinds and their spellings."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import yaml

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
from tabinet.model.names import judge_name, name_words
from tabinet.model.resources import WorkloadEndpointSpec

DATA = Path(__file__).parent / "data" / "keys"
V3 = "/calico/resources/v3/projectcalico.org"
RESOURCES: list[tuple[str, str, str, str]] = yaml.safe_load((DATA / "resources.yaml").read_text())
PATHS: list[tuple[str, Key]] = [
    *((f"{V3}/{path}", ResourceKey(kind, name, namespace)) for kind, namespace, name, path in RESOURCES),
    ("/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-26", BlockKey(parse_prefix("10.0.0.0/26"))),
    ("/calico/ipam/v2/assignment/ipv6/block/fd00::-122", BlockKey(parse_prefix("fd00::/122"))),
    ("/calico/ipam/v2/host/h-1/ipv4/block/10.0.0.64-26", AffinityKey("h-1", parse_prefix("10.0.0.64/26"))),
    ("/calico/ipam/v2/host/h.x/ipv6/block/fd00::40-122", AffinityKey("h.x", parse_prefix("fd00::40/122"))),
    ("/calico/ipam/v2/virtual/load-balancer/ipv4/block/10.0.0.64-26", VirtualAffinityKey("load-balancer", parse_prefix("10.0.0.64/26"))),
    ("/calico/ipam/v2/handle/k8s-pod-network.abc", HandleKey("k8s-pod-network.abc")),
    ("/calico/ipam/v2/config", ResourceKey("IPAMConfiguration", "default")),
]


def test_the_table_has_every_kind_that_is_stored_there() -> None:
    assert {kind for kind, *_ in RESOURCES} == {kind.name for kind in KINDS if not kind.view} - {"IPAMConfiguration"}


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


ENDPOINTS: list[dict[str, str]] = yaml.safe_load((DATA / "endpoint_names.yaml").read_text())


@pytest.mark.parametrize("case", ENDPOINTS, ids=lambda case: case["name"])
def test_endpoint_names(case: dict[str, str]) -> None:
    built = endpoint_name_of(msgspec.convert({name: value for name, value in case.items() if name != "name"}, WorkloadEndpointSpec))
    assert str(built) == case["name"]
    assert parse_endpoint_name(case["name"]) == built
    assert judge_name("WorkloadEndpoint", case["name"]) == ""


NAMES: dict[str, dict[str, list[str]]] = yaml.safe_load((DATA / "names.yaml").read_text())


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, cases in NAMES.items() for name in cases["legal"]])
def test_legal_names(kind: str, name: str) -> None:
    assert judge_name(kind, name) == ""


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, cases in NAMES.items() for name in cases["illegal"]])
def test_illegal_names(kind: str, name: str) -> None:
    assert judge_name(kind, name) == f"allowed: {name_words(kind)}"


@pytest.mark.parametrize(("kind", "longest"), [("NetworkSet", 253), ("Tier", 63), ("WorkloadEndpoint", 253)])
def test_the_longest_names(kind: str, longest: int) -> None:
    start = "n-k8s-p-" if kind == "WorkloadEndpoint" else ""
    assert judge_name(kind, start + "a" * (longest - len(start))) == ""
    assert judge_name(kind, start + "a" * (longest + 1 - len(start)))


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

"""Stored values: what is read, what is refused with which words, and what stands in for a broken policy."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tabinet.errors import DataError
from tabinet.lib.ip import parse_prefix
from tabinet.model import ipam
from tabinet.model.codec import decode_document, decode_stored, encode_document, fail_closed
from tabinet.model.keys import BlockKey, HandleKey, ResourceKey
from tabinet.model.resources import GlobalNetworkPolicy, NetworkPolicy, Profile, Tier, WorkloadEndpoint

V3 = "/calico/resources/v3/projectcalico.org"
GNP = f"{V3}/globalnetworkpolicies/p"
NP = f"{V3}/networkpolicies/ns/p"
WEP = f"{V3}/workloadendpoints/ns/h-k8s-p-e"
BLOCK = "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-30"


def stored(kind: str, spec: Any, **more: Any) -> bytes:
    document = {"kind": kind, "apiVersion": "projectcalico.org/v3", "metadata": {"name": "p", "uid": "u"}, "spec": spec}
    return json.dumps({**document, **more}).encode()


def refusal(path: str, value: bytes) -> list[tuple[str, str]]:
    with pytest.raises(DataError) as caught:
        decode_stored(path, value)
    assert caught.value.key == path
    return [(problem.path, problem.value) for problem in caught.value.problems]


def test_paths_that_are_not_ours_are_not_looked_at() -> None:
    assert decode_stored("/calico/felix/v2/no-region/host/h/status", b"\xff") is None


def test_unknown_fields_are_ignored_and_nulls_are_absent() -> None:
    spec = {
        "node": "h",
        "ipNetworks": None,
        "ports": [{"name": "a", "protocol": "TCP", "port": 5, "hostIP": None}],
        "new": {"x": [1, None]},
    }
    decoded = decode_stored(WEP, stored("WorkloadEndpoint", spec, future=1))
    assert decoded is not None
    key, record = decoded
    assert key == ResourceKey("WorkloadEndpoint", "h-k8s-p-e", "ns")
    assert isinstance(record, WorkloadEndpoint)
    assert (record.spec.node, record.spec.ip_networks, record.spec.ports[0].port) == ("h", (), 5)


def test_a_policy_as_networking_calico_writes_it() -> None:
    rules = [
        {"action": "Allow", "ipVersion": 4, "protocol": "112"},
        {"action": "Allow", "ipVersion": 4, "protocol": "ICMP", "icmp": {"type": 8, "code": 0}},
        {"action": "Allow", "ipVersion": 4, "protocol": 6, "destination": {"ports": ["1000:2000"]}, "source": {"selector": "has(sg)"}},
        {"action": "Allow", "ipVersion": 4, "protocol": 6, "destination": {"ports": [22]}, "source": {"nets": ["0.0.0.0/0"]}},
    ]
    decoded = decode_stored(NP, stored("NetworkPolicy", {"selector": "has(sg)", "ingress": rules, "egress": [{"action": "Allow"}]}))
    assert decoded is not None
    record = decoded[1]
    assert isinstance(record, NetworkPolicy)
    assert [rule.protocol for rule in record.spec.ingress] == ["112", "ICMP", 6, 6]
    assert record.spec.tier == "default"


@pytest.mark.parametrize(
    "value", [b"", b"{", b"[]", b"null", b"5", b'"x"', b"\xff\xfe", b'{"kind":' * 5000, b"[" * 100_000, b'{"spec":{"order":1e999}}']
)
def test_no_bytes_do_more_than_raise_our_error(value: bytes) -> None:
    assert refusal(GNP, value)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"selector": 5}, [("spec.selector", "5")]),
        ({"selector": "a ="}, [("spec.selector", '"a ="')]),
        ({"types": ["Sideways"]}, [("spec.types[0]", '"Sideways"')]),
        ({"ingress": [{"action": "allow"}]}, [("spec.ingress[0].action", '"allow"')]),
        ({"ingress": [{}]}, [("spec.ingress[0]", "{}")]),
        ({"ingress": "x"}, [("spec.ingress", '"x"')]),
        ({"ingress": [{"action": "Deny", "ipVersion": 5}]}, [("spec.ingress[0].ipVersion", "5")]),
        ({"ingress": [{"action": "Deny", "protocol": 0}]}, [("spec.ingress[0].protocol", "0")]),
        ({"ingress": [{"action": "Deny", "notProtocol": "nope"}]}, [("spec.ingress[0].notProtocol", '"nope"')]),
        ({"egress": [{"action": "Deny", "source": {"nets": ["10.0.0.0/8", "x/8"]}}]}, [("spec.egress[0].source.nets[1]", '"x/8"')]),
        ({"egress": [{"action": "Deny", "source": {"notNets": [""]}}]}, [("spec.egress[0].source.notNets[0]", '""')]),
        (
            {"egress": [{"action": "Deny", "protocol": "TCP", "destination": {"ports": [70000, "5:4"]}}]},
            [("spec.egress[0].destination.ports[0]", "70000"), ("spec.egress[0].destination.ports[1]", '"5:4"')],
        ),
        ({"egress": [{"action": "Deny", "destination": {"ports": [5]}}]}, [("spec.egress[0].destination.ports", "[5]")]),
        ({"egress": [{"action": "Deny", "icmp": {"type": 8}}]}, [("spec.egress[0].icmp", '{"type":8}')]),
        ({"egress": [{"action": "Deny", "protocol": "ICMP", "icmp": {"type": 256}}]}, [("spec.egress[0].icmp.type", "256")]),
        ({"namespaceSelector": "a b"}, [("spec.namespaceSelector", '"a b"')]),
    ],
)
def test_policies_that_must_not_be_acted_on(spec: Any, expected: list[tuple[str, str]]) -> None:
    assert refusal(GNP, stored("GlobalNetworkPolicy", spec)) == expected


def test_everything_wrong_is_told_at_once() -> None:
    rule = {"action": "Deny", "protocol": "x", "source": {"nets": ["y"], "selector": "z"}}
    assert len(refusal(GNP, stored("GlobalNetworkPolicy", {"selector": "(", "ingress": [rule]}))) == 4


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"ipNetworks": ["10.99.0.0/24/32"]}, "spec.ipNetworks[0]"),
        ({"ipNetworks": ["10.99.0.0/24"]}, "spec.ipNetworks[0]"),
        ({"mac": "x"}, "spec.mac"),
        ({"interfaceName": "a b"}, "spec.interfaceName"),
        ({"interfaceName": "../x"}, "spec.interfaceName"),
        ({"allowSpoofedSourcePrefixes": ["any"]}, "spec.allowSpoofedSourcePrefixes[0]"),
        ({"ports": [{"name": "a", "protocol": "TCP", "port": 0}]}, "spec.ports[0].port"),
        ({"ipNATs": [{"internalIP": "10.0.0.1", "externalIP": "fd00::1"}]}, "spec.ipNATs[0].externalIP"),
    ],
)
def test_endpoints_that_must_not_be_acted_on(spec: Any, path: str) -> None:
    assert [where for where, _ in refusal(WEP, stored("WorkloadEndpoint", spec))] == [path]


def test_what_is_only_odd_is_not_refused_in_the_store() -> None:
    """Host bits, unknown modes and label rules are an operator's mistakes, not dangers."""
    for path, kind, spec in (
        (GNP, "GlobalNetworkPolicy", {"ingress": [{"action": "Allow", "source": {"nets": ["10.0.0.1/8"]}}], "performanceHints": ["New"]}),
        (f"{V3}/ippools/p", "IPPool", {"cidr": "10.0.0.0/16", "ipipMode": "Sometimes", "allowedUses": ["Later"]}),
        (f"{V3}/felixconfigurations/default", "FelixConfiguration", {"unheard": [1]}),
    ):
        assert decode_stored(path, stored(kind, spec)) is not None


def test_the_kind_must_be_the_paths() -> None:
    assert refusal(GNP, stored("Tier", {})) == [("kind", '"Tier"')]


def block(**changes: Any) -> bytes:
    fine = {
        "cidr": "10.0.0.0/30",
        "affinity": "host:h",
        "allocations": [0, None, None, None],
        "unallocated": [1, 2, 3],
        "attributes": [{"handle_id": "x", "secondary": {"node": "h"}}],
        "sequenceNumber": 7,
        "sequenceNumberForAllocation": {"0": 7},
        "deleted": False,
    }
    return json.dumps({**fine, **changes}).encode()


def test_blocks_affinities_and_handles() -> None:
    decoded = decode_stored(BLOCK, block(affinity_claim_time=None))
    assert decoded is not None
    key, record = decoded
    assert key == BlockKey(parse_prefix("10.0.0.0/30"))
    assert isinstance(record, ipam.Block)
    assert (record.host, record.allocations, record.sequence_number_for_allocation) == ("h", (0, None, None, None), {"0": 7})
    affinity = decode_stored("/calico/ipam/v2/host/h/ipv4/block/10.0.0.0-30", b'{"state":"pendingDeletion","deleted":false}')
    assert affinity is not None
    assert affinity[1] == ipam.Affinity(state=ipam.AffinityState.PENDING_DELETION)
    assert decode_stored("/calico/ipam/v2/handle/x", b'{"block":{"10.0.0.0/30":2},"deleted":false}') == (
        HandleKey("x"),
        ipam.Handle(block={"10.0.0.0/30": 2}),
    )


def test_a_block_without_host() -> None:
    assert ipam.Block(cidr="10.0.0.0/30", affinity="virtual:load-balancer").host == ""
    assert ipam.Block(cidr="10.0.0.0/30").host == ""


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"cidr": "10.0.0.4/30"}, "cidr"),
        ({"cidr": "x"}, "cidr"),
        ({"allocations": [0]}, "allocations"),
        ({"allocations": [0, 1, None, None]}, "allocations[1]"),
        ({"allocations": [0, -1, None, None]}, "allocations[1]"),
        ({"unallocated": [1, 4]}, "unallocated[1]"),
        ({"allocations": "x"}, "allocations"),
    ],
)
def test_broken_blocks(changes: Any, path: str) -> None:
    assert path in [where for where, _ in refusal(BLOCK, block(**changes))]


def test_broken_affinities_and_handles() -> None:
    assert refusal("/calico/ipam/v2/host/h/ipv4/block/10.0.0.0-30", b'{"state":"mine"}') == [("state", '"mine"')]
    assert refusal("/calico/ipam/v2/handle/x", b'{"block":{"x":2}}') == [("block", '"x"')]


def test_unknown_fields_survive_a_read_and_a_write() -> None:
    value = stored("Tier", {"order": 5, "new": {"a": [1, None, "x"]}}, future={"b": 1.5})
    document = decode_document(value)
    document["spec"]["order"] = 6
    again = decode_document(encode_document(document))
    assert again == {**json.loads(value), "spec": {"order": 6, "new": {"a": [1, None, "x"]}}}


def test_equal_documents_are_equal_bytes_without_resource_version() -> None:
    one = {"kind": "Tier", "metadata": {"name": "a", "resourceVersion": "5"}}
    other = {"metadata": {"name": "a"}, "kind": "Tier"}
    assert encode_document(one) == encode_document(other)
    assert one["metadata"] == {"name": "a", "resourceVersion": "5"}


@pytest.mark.parametrize("value", [b"[]", b"{", b"\xff", b'{"a":' * 250 + b"1" + b"}" * 250, b"[" * 99_999])
def test_what_is_no_document(value: bytes) -> None:
    with pytest.raises(DataError):
        decode_document(value, "somewhere")


# --- failing closed -------------------------------------------------------------------------------------------------

BROKEN = [{"action": "nope"}]


def policy(spec: Any, path: str = GNP) -> Any:
    kind = "GlobalNetworkPolicy" if path == GNP else "NetworkPolicy"
    with pytest.raises(DataError):
        decode_stored(path, stored(kind, spec))
    found = fail_closed(path, stored(kind, spec))
    return None if found is None else found[1]


def shape(record: Any) -> tuple[Any, ...]:
    spec = record.spec
    return (spec.selector, spec.tier, spec.order, spec.types, [rule.action for rule in spec.ingress], [rule.action for rule in spec.egress])


def test_a_broken_policy_denies_in_its_directions() -> None:
    record = policy({"selector": "has(a)", "tier": "t", "order": 5, "types": ["Egress"], "egress": BROKEN})
    assert isinstance(record, GlobalNetworkPolicy)
    assert shape(record) == ("has(a)", "t", 5.0, ("Egress",), [], ["Deny"])
    assert (record.metadata.name, record.spec.namespace_selector) == ("p", "")


def test_a_namespaced_policy_keeps_its_namespace() -> None:
    record = policy({"selector": "has(a)", "ingress": BROKEN, "serviceAccountSelector": "has(b)"}, NP)
    assert isinstance(record, NetworkPolicy)
    assert (record.metadata.namespace, record.spec.service_account_selector) == ("ns", "has(b)")


@pytest.mark.parametrize(
    ("spec", "types"),
    [
        ({"ingress": BROKEN}, ("Ingress",)),
        ({"ingress": BROKEN, "types": []}, ("Ingress",)),
        ({"ingress": BROKEN, "types": None, "egress": None}, ("Ingress",)),
        ({"egress": BROKEN}, ("Ingress", "Egress")),
        ({"egress": "x"}, ("Ingress", "Egress")),
        ({"types": ["Sideways"]}, ("Ingress", "Egress")),
        ({"types": 5}, ("Ingress", "Egress")),
    ],
)
def test_directions_of_a_broken_policy(spec: Any, types: tuple[str, ...]) -> None:
    assert policy(spec).spec.types == types


def test_what_cannot_be_read_of_a_broken_policy_is_left_out() -> None:
    record = policy({"selector": "has(a)", "tier": 5, "order": "x", "applyOnForward": True, "ingress": BROKEN})
    assert shape(record)[:3] == ("has(a)", "default", None)
    assert record.spec.apply_on_forward


@pytest.mark.parametrize("spec", [{"selector": "a ="}, {"selector": 5}, {"namespaceSelector": "("}, "x", None])
def test_without_selector_nothing_can_stand_in(spec: Any) -> None:
    assert policy(spec) is None if spec is not None else fail_closed(GNP, stored("GlobalNetworkPolicy", None)) is None


def test_bytes_without_meaning_leave_nothing_of_a_policy() -> None:
    assert fail_closed(GNP, b"\xff") is None


def test_a_broken_profile_allows_nothing_and_keeps_its_labels() -> None:
    path = f"{V3}/profiles/p"
    found = fail_closed(path, stored("Profile", {"ingress": BROKEN, "labelsToApply": {"a": "b"}}))
    assert found is not None
    assert isinstance(found[1], Profile)
    assert (found[1].spec.ingress, found[1].spec.labels_to_apply) == ((), {"a": "b"})
    bare = fail_closed(path, b"\xff")
    assert bare is not None
    assert isinstance(bare[1], Profile)
    assert bare[1].spec == type(bare[1].spec)()


def test_a_broken_tier_denies() -> None:
    found = fail_closed(f"{V3}/tiers/t", stored("Tier", {"order": 7, "defaultAction": "Allow"}))
    assert found is not None
    assert isinstance(found[1], Tier)
    assert (found[1].spec.order, found[1].spec.default_action) == (7.0, "Deny")


@pytest.mark.parametrize("path", [WEP, f"{V3}/ippools/p", "/calico/ipam/v2/handle/x", "/elsewhere"])
def test_nothing_stands_in_for_other_kinds(path: str) -> None:
    assert fail_closed(path, b"{}") is None

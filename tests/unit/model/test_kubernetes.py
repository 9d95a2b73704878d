"""Documents of Kubernetes: what they become, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from tabinet.errors import InputError
from tabinet.model.codec import decode_stored, encode_document
from tabinet.model.defaults import with_defaults
from tabinet.model.documents import Document, load_documents
from tabinet.model.keys import ResourceKey, path_of
from tabinet.model.kubernetes.convert import convert_foreign
from tabinet.model.kubernetes.kinds import FOREIGN_KINDS
from tabinet.model.kubernetes.policies import policy_spec
from tabinet.model.resources import NetworkPolicySpec, StagedKubernetesNetworkPolicySpec
from tabinet.model.validate import validate, validate_all

DATA = Path(__file__).parent / "data" / "kubernetes"
CONVERTED: list[dict[str, Any]] = yaml.safe_load((DATA / "converted.yaml").read_text())
REFUSED: list[dict[str, Any]] = yaml.safe_load((DATA / "refused.yaml").read_text())
VERSIONS = {kind.name: kind.version for kind in FOREIGN_KINDS}


def document(kind: str, **members: Any) -> Document:
    data = {"apiVersion": VERSIONS[kind], "kind": kind, **members}
    return Document(data=data, source="f.yaml", index=2, line=7, within="items[3]")


def network_policy(spec: Any, name: str = "x") -> Document:
    return document("NetworkPolicy", metadata={"name": name, "namespace": "n"}, spec=spec)


def converted(foreign: Document) -> Document:
    found = convert_foreign(foreign)
    assert found is not None
    (only,) = found
    return only


def refused(case: dict[str, Any]) -> Document:
    members = {name: case[name] for name in ("spec", "status") if name in case}
    if "rule" in case:
        members["spec"] = {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "egress": [case["rule"]]}
    return document(case.get("kind", "NetworkPolicy"), metadata=case.get("metadata", {"name": "x"}), **members)


@pytest.mark.parametrize("case", CONVERTED, ids=lambda case: case["case"])
def test_a_document_becomes(case: dict[str, Any]) -> None:
    if "document" in case:
        foreign = Document(data=case["document"], source="f.yaml", index=2, line=7, within="items[3]")
    else:
        foreign = network_policy(case["spec"])
    assert validate(foreign) == []
    found = converted(foreign)
    assert (found.source, found.index, found.line, found.within) == ("f.yaml", 2, 7, "items[3]")
    assert found.data["apiVersion"] == "projectcalico.org/v3"
    assert found.data["kind"] == case.get("kind", "NetworkPolicy")
    assert found.data["metadata"] == case.get("metadata", {"name": "knp.default.x", "namespace": "n"})
    if "becomes" in case:
        assert found.data["spec"] == case["becomes"]
    for direction in ("ingress", "egress"):
        if direction in case:
            assert found.data["spec"][direction] == case[direction]
    # What comes out is whole: it validates, and is stored and read as it is.
    assert validate_all([found]) == []
    metadata = found.data["metadata"]
    key = ResourceKey(found.data["kind"], metadata["name"], metadata.get("namespace", ""))
    assert with_defaults(found.data)["spec"] == found.data["spec"]
    assert decode_stored(path_of(key), encode_document(found.data)) is not None


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: f"{case.get('kind', '')} {case['case']}".strip())
def test_a_document_is_refused(case: dict[str, Any]) -> None:
    foreign = refused(case)
    with pytest.raises(InputError) as caught:
        convert_foreign(foreign)
    found = caught.value.problems
    assert [(problem.path, problem.value) for problem in found] == [(f"items[3].{path}", value) for path, value, _ in case["problems"]]
    for problem, (_, _, words) in zip(found, case["problems"], strict=True):
        assert words in problem.allowed
        assert (problem.source, problem.document, problem.line) == ("f.yaml", 2, 7)
    assert validate(foreign) == found


def test_every_kind_is_converted_and_refused() -> None:
    kinds = {kind.name for kind in FOREIGN_KINDS}
    assert {case["document"]["kind"] for case in CONVERTED if "document" in case} == kinds
    assert {case.get("kind", "NetworkPolicy") for case in REFUSED} >= kinds - {"ServiceAccount"}


@pytest.mark.parametrize(
    "identity",
    [
        {"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy"},
        {"apiVersion": "networking.k8s.io/v1beta1", "kind": "NetworkPolicy"},
        {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress"},
        {"apiVersion": "v1", "kind": "NetworkPolicy"},
        {"apiVersion": ["v1"], "kind": "Pod"},
        {"apiVersion": "v1", "kind": {}},
        {},
    ],
    ids=str,
)
def test_every_other_document_is_none_of_these(identity: dict[str, Any]) -> None:
    other = Document(data={**identity, "metadata": {"name": "x"}, "spec": {}}, source="f.yaml", index=1, line=1)
    assert convert_foreign(other) is None
    assert identity.get("apiVersion") == "projectcalico.org/v3" or validate(other)


def test_a_list_from_kubectl_is_taken_apart() -> None:
    text = """
apiVersion: v1
kind: List
metadata: {resourceVersion: ""}
items:
- {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a, namespace: n}, spec: {podSelector: {}}}
- {apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: a, namespace: n}, spec: {selector: all()}}
- {apiVersion: v1, kind: Namespace, metadata: {name: n}}
"""
    documents = load_documents(text, "f.yaml")
    assert validate_all(documents) == []
    ours = [each for document in documents for each in convert_foreign(document) or [document]]
    assert validate_all(ours) == []
    assert [(each.data["kind"], each.data["metadata"]["name"], each.line) for each in ours] == [
        ("NetworkPolicy", "knp.default.a", 6),
        ("NetworkPolicy", "a", 7),
        ("Profile", "kns.n", 8),
    ]


def test_many_ports_become_several_rules() -> None:
    ports = [{"port": number} for number in range(1, 242, 2)]
    rules = converted(network_policy({"ingress": [{"ports": ports}]})).data["spec"]["ingress"]
    assert [len(rule["destination"]["ports"]) for rule in rules] == [50, 50, 21]
    assert [port for rule in rules for port in rule["destination"]["ports"]] == list(range(1, 242, 2))


def test_rules_share_nothing_that_can_be_changed() -> None:
    spec = {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}] * 2, "ports": [{"port": 80}, {"port": 80, "protocol": "UDP"}]}]}
    rules = converted(network_policy(spec)).data["spec"]["ingress"]
    rules[0]["source"]["nets"].append("x")
    rules[0]["destination"]["ports"].append("x")
    assert all("x" not in rule["source"]["nets"] and "x" not in rule["destination"]["ports"] for rule in rules[1:])


def test_the_argument_is_not_changed() -> None:
    spec = {"podSelector": None, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.1/8", "except": None}}]}]}
    before = msgspec.json.encode(spec)
    converted(network_policy(spec))
    assert msgspec.json.encode(spec) == before


def test_selectors_longer_than_ours_are_refused() -> None:
    labels = {f"key-{index}.example.org/{'k' * 40}": "v" * 50 for index in range(9)}
    spec = {
        "podSelector": {"matchLabels": labels},
        "ingress": [{"from": [{"podSelector": {}, "namespaceSelector": {"matchLabels": labels}}]}],
    }
    with pytest.raises(InputError) as caught:
        convert_foreign(network_policy(spec))
    assert [problem.path.removeprefix("items[3].") for problem in caught.value.problems] == [
        "spec.ingress[0].from[0].namespaceSelector",
        "spec.podSelector",
    ]


def test_too_many_exceptions_are_refused() -> None:
    holes = [f"10.{index // 256}.{index % 256}.0/24" for index in range(257)]
    with pytest.raises(InputError) as caught:
        convert_foreign(network_policy({"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": holes}}]}]}))
    assert "at most 256" in str(caught.value)


def test_labels_of_namespaces_may_be_as_long_as_in_kubernetes() -> None:
    labels = {"k" * 63: "v" * 63, f"example.org/{'K' * 63}": ""}
    profile = converted(document("Namespace", metadata={"name": "shop", "labels": labels}))
    assert profile.data["spec"]["labelsToApply"][f"pcns.{'k' * 63}"] == "v" * 63
    assert validate_all([profile]) == []


# --- the stored kind ------------------------------------------------------------------------------------------------


def test_a_staged_policy_means_the_same() -> None:
    spec = {
        "podSelector": {"matchLabels": {"app": "web"}},
        "ingress": [
            {"from": [{"podSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}], "ports": [{"port": 80}]}
        ],
        "egress": [{"to": [{"namespaceSelector": {}}], "ports": [{"protocol": "UDP", "port": 53, "endPort": 54}]}, {}],
    }
    staged = msgspec.convert({**spec, "stagedAction": "Set"}, StagedKubernetesNetworkPolicySpec)
    assert policy_spec(staged) == msgspec.convert(converted(network_policy(spec)).data["spec"], NetworkPolicySpec)


@pytest.mark.parametrize(
    "spec",
    [
        {"ingress": [{"from": [{}]}]},
        {"ingress": [{"ports": [{"endPort": 9}]}]},
        {"ingress": [{"ports": [{"protocol": "ICMP"}]}]},
        {"ingress": [{"from": [{"ipBlock": {"cidr": "x"}}]}]},
        {"podSelector": {"matchExpressions": [{"key": "a", "operator": "in"}]}},
        {"podSelector": {"matchLabels": {"a": "'\""}}},
    ],
    ids=str,
)
def test_a_staged_policy_that_cannot_be_meant_is_an_error(spec: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        policy_spec(msgspec.convert(spec, StagedKubernetesNetworkPolicySpec))

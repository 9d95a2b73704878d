"""patch and label: what is changed, what is refused, and that nothing else changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_world import Tabinet, resource

POLICY = resource(
    "GlobalNetworkPolicy",
    "p",
    order=1,
    selector="all()",
    types=["Ingress"],
    ingress=[{"action": "Allow", "protocol": "TCP", "destination": {"ports": [80, 443]}}],
    labels={"team": "a"},
)


@pytest.fixture
def filled(tabinet: Tabinet) -> Tabinet:
    assert tabinet("apply", "-f", "-", given=[POLICY, resource("IPPool", "one", cidr="10.0.0.0/16")]).code == 0
    return tabinet


def test_merge_replaces_lists_and_removes_by_null(filled: Tabinet) -> None:
    patch = '{"spec": {"order": null, "ingress": [{"action": "Deny"}]}, "metadata": {"labels": {"x": "y"}}}'
    for form in ("merge", "strategic"):
        assert filled("patch", "gnp", "p", "--type", form, "-p", patch).code == 0
        after = filled("get", "gnp", "p", "-o", "json").json
        assert after["spec"] == {"selector": "all()", "types": ["Ingress"], "ingress": [{"action": "Deny"}], "tier": "default"}
        assert after["metadata"]["labels"] == {"team": "a", "x": "y"}
    assert filled("patch", "gnp", "p", "-p", patch).out == "GlobalNetworkPolicy/p unchanged\n"


def test_patch_may_be_yaml_and_in_a_file(filled: Tabinet, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("spec:\n  order: 7\n")
    assert filled("patch", "gnp", "p", "--patch-file", str(tmp_path / "p.yaml"), "--json").json == [
        {"resource": "GlobalNetworkPolicy/p", "outcome": "patched"}
    ]
    assert filled("get", "gnp", "p", "-o", "json").json["spec"]["order"] == 7
    assert filled("patch", "gnp", "p", "--patch-file", str(tmp_path / "none")).code == 3


def test_json_patch(filled: Tabinet) -> None:
    patch = (
        '[{"op": "test", "path": "/spec/order", "value": 1}, {"op": "add", "path": "/spec/ingress/0/destination/ports/-", "value": 8080}]'
    )
    assert filled("patch", "gnp", "p", "-t", "json", "-p", patch).out == "GlobalNetworkPolicy/p patched\n"
    assert filled("get", "gnp", "p", "-o", "json").json["spec"]["ingress"][0]["destination"]["ports"] == [80, 443, 8080]
    failed = filled("patch", "gnp", "p", "-t", "json", "-p", '[{"op": "test", "path": "/spec/order", "value": 2}]')
    assert (failed.code, failed.err) == (1, "error: test /spec/order: it is 1, not 2; nothing was changed\n")


@pytest.mark.parametrize(
    ("patch", "form", "message"),
    [
        ('{"spec": {"ordr": 5}}', "merge", "spec.ordr: got 5; unknown field; did you mean order?"),
        ('{"spec": {"selector": "a =="}}', "merge", "spec.selector"),
        ('{"metadata": {"name": "q"}}', "merge", "metadata.name: got 'q'; cannot be changed"),
        ('{"kind": "Tier"}', "merge", "kind: got 'Tier'; cannot be changed"),
        ('{"metadata": null}', "merge", "metadata must stay a mapping"),
        ("[]", "merge", "must be"),
        ("{", "merge", "got"),
        ('{"spec": {"$setElementOrder/ingress": []}}', "strategic", "of the directives only $patch"),
        ("{}", "json", "must be a list of operations"),
        ('[{"op": "remove", "path": "/spec/nope"}]', "json", "[0] remove /spec/nope: got nothing; there is no such place"),
        ('[{"op": "add", "path": "/spec/ingress/5", "value": 1}]', "json", "there is no such place"),
        ('[{"op": "remove", "path": ""}]', "json", "the whole resource cannot be removed"),
        ('[{"op": "replace", "path": "/spec/order"}]', "json", "[0].value: got nothing; replace needs a value"),
        ('[{"op": "replace", "path": "spec", "value": 1}]', "json", "must begin with /"),
        ('[{"op": "replace", "path": "", "value": 5}]', "json", "would leave no resource"),
    ],
)
def test_bad_patches_change_nothing(filled: Tabinet, patch: str, form: str, message: str) -> None:
    before = filled("get", "gnp", "p", "-o", "yaml").out
    said = filled("patch", "gnp", "p", "-t", form, "-p", patch)
    assert said.code == 2
    assert message in said.err
    assert filled("get", "gnp", "p", "-o", "yaml").out == before


def test_patch_of_what_is_not_there(filled: Tabinet) -> None:
    assert filled("patch", "gnp", "nope", "-p", "{}").code == 1
    assert filled("patch", "gnp", "p").code == 2
    assert filled("patch", "np", "p", "-n", "x", "-p", "{}").err == "error: NetworkPolicy/x/p does not exist\n"


def test_patched_pools_fit_the_others(filled: Tabinet) -> None:
    said = filled("patch", "pool", "one", "-p", '{"spec": {"cidr": "10.0.0.0/8"}}')
    assert said.code == 2
    assert "the CIDR of a pool cannot be changed (it is 10.0.0.0/16)" in said.err
    assert filled("patch", "pool", "one", "-p", '{"spec": {"natOutgoing": true}}').code == 0


def test_labels(filled: Tabinet) -> None:
    assert filled("label", "gnp", "p", "a=1", "b=").out == "GlobalNetworkPolicy/p labeled\n"
    assert filled("label", "gnp", "p", "a=1").out == "GlobalNetworkPolicy/p unchanged\n"
    said = filled("label", "gnp", "p", "a=2", "c=3")
    assert (said.code, said.err) == (1, "error: GlobalNetworkPolicy/p: a is '1' already: --overwrite sets another value\n")
    assert filled("label", "gnp", "p", "a=2", "b-", "--overwrite").code == 0
    assert filled("get", "gnp", "p", "-o", "json").json["metadata"]["labels"] == {"team": "a", "a": "2"}
    assert filled("label", "gnp", "p", "a", "team", "--remove").code == 0
    assert "labels" not in filled("get", "gnp", "p", "-o", "json").json["metadata"]
    assert filled("label", "gnp", "p", "a-").err == "error: GlobalNetworkPolicy/p: there is no label a\n"


@pytest.mark.parametrize("words", [["novalue"], ["=x"], ["a=1", "a-"], ["-"], ["a=" + "x" * 100], ["a b=1"]])
def test_wrong_labels(filled: Tabinet, words: list[str]) -> None:
    assert filled("label", "gnp", "p", "--", *words).code == 2

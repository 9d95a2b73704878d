"""create, apply, replace, delete: outcomes, exit codes, and that nothing happens unsaid."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from cli_world import Tabinet, resource

GNS = [resource("GlobalNetworkSet", name, nets=["10.0.0.0/8"]) for name in ("a", "b", "c")]
POOL = resource("IPPool", "one", cidr="10.0.0.0/16")


def test_create_apply_replace_delete(tabinet: Tabinet) -> None:
    assert tabinet("create", "-f", "-", given=GNS[:1]) == (0, "GlobalNetworkSet/a created\n", "")
    said = tabinet("create", "-f", "-", given=GNS[:2])
    assert said.code == 1
    assert said.out == "GlobalNetworkSet/b created\n"
    assert said.err.startswith("error: standard input:1 document 1: GlobalNetworkSet/a exists already\n")
    assert said.err.endswith("1 of 2 resources went through\n")
    assert tabinet("create", "--skip-exists", "-f", "-", given=GNS[:1]) == (0, "GlobalNetworkSet/a exists already\n", "")
    assert (
        tabinet("apply", "-f", "-", given=GNS).out
        == "GlobalNetworkSet/a unchanged\nGlobalNetworkSet/b unchanged\nGlobalNetworkSet/c created\n"
    )
    other = resource("GlobalNetworkSet", "a", nets=["192.168.0.0/16"])
    assert tabinet("replace", "-f", "-", given=other) == (0, "GlobalNetworkSet/a replaced\n", "")
    assert tabinet("replace", "-f", "-", given=resource("GlobalNetworkSet", "z")).code == 1
    assert tabinet("get", "gns", "a", "-o", "json").json["spec"] == {"nets": ["192.168.0.0/16"]}
    assert (
        tabinet("delete", "-f", "-", given=GNS).out
        == "GlobalNetworkSet/c deleted\nGlobalNetworkSet/b deleted\nGlobalNetworkSet/a deleted\n"
    )


def test_replace_of_a_version_that_is_gone_is_a_conflict(tabinet: Tabinet) -> None:
    tabinet("create", "-f", "-", given=GNS[0])
    old = tabinet("get", "gns", "a", "-o", "yaml").out
    assert tabinet("replace", "-f", "-", given=old).code == 0
    said = tabinet("replace", "-f", "-", given=old)
    assert said.code == 1
    assert "has changed" in said.err


def test_what_was_read_is_not_created_with_its_version(tabinet: Tabinet) -> None:
    tabinet("create", "-f", "-", given=GNS[0])
    said = tabinet("create", "-f", "-", given=tabinet("get", "gns", "-o", "yaml").out)
    assert said.code == 2
    assert "items[0].metadata.resourceVersion" in said.err
    exported = tabinet("get", "gns", "-o", "yaml", "--export").out
    assert "uid" not in exported and "resourceVersion" not in exported
    tabinet("delete", "gns", "a")
    assert tabinet("create", "-f", "-", given=exported).code == 0


def test_every_error_is_told_with_its_place_and_nothing_is_applied(tabinet: Tabinet, tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "a.yaml").write_text(yaml.safe_dump_all([GNS[0], resource("GlobalNetworkSet", "b", nets=["10.0.0.0/33"])]))
    (tmp_path / "in" / "deep" / "b.json").write_text('{"apiVersion": "projectcalico.org/v3", "kind": "Teir", "metadata": {"name": "x"}}')
    (tmp_path / "in" / "note.txt").write_text("not read")
    said = tabinet("apply", "-f", str(tmp_path / "in"))
    assert said.code == 2
    assert said.err.splitlines()[0].startswith(f'error: {tmp_path}/in/a.yaml:9 document 2: spec.nets[0]: got "10.0.0.0/33"')
    assert said.err.endswith("error: 1 problem; nothing was changed\n")
    said = tabinet("apply", "-R", "-f", str(tmp_path / "in"), "-f", "/nowhere.yaml")
    assert "did you mean Tier?" in said.err
    assert "/nowhere.yaml" in said.err
    assert said.err.endswith("error: 3 problems; nothing was changed\n")
    assert tabinet("get", "gns").err == "no resources found\n"


def test_a_resource_that_is_given_twice(tabinet: Tabinet) -> None:
    assert tabinet("apply", "-f", "-", given=[GNS[0], GNS[0]]).code == 2


def test_outcomes_as_json(tabinet: Tabinet) -> None:
    assert tabinet("create", "-f", "-", "--json", given=GNS[0]).json == [{"resource": "GlobalNetworkSet/a", "outcome": "created"}]
    said = tabinet("create", "-f", "-", "--json", given=GNS[:2])
    assert [(item["resource"], item["outcome"]) for item in said.json] == [
        ("GlobalNetworkSet/b", "created"),
        ("GlobalNetworkSet/a", "failed"),
    ]
    assert "exists already" in said.json[1]["error"]


def test_pools_fit_those_in_the_store(tabinet: Tabinet) -> None:
    assert tabinet("apply", "-f", "-", given=POOL).code == 0
    other = resource("IPPool", "two", cidr="10.0.128.0/17")
    for command in ("apply", "create"):
        said = tabinet(command, "-f", "-", given=other)
        assert said.code == 2
        assert "document 1: spec.cidr: got 10.0.128.0/17; must not overlap 10.0.0.0/16 of the pool one in the store" in said.err
    assert tabinet("get", "pools", "-o", "name").out == "ippool/one\n"
    said = tabinet("apply", "-f", "-", given=resource("IPPool", "one", cidr="10.1.0.0/16", blockSize=27))
    assert said.code == 2
    assert said.err.count("cannot be changed") == 2
    assert (
        "overlap"
        in tabinet("apply", "-f", "-", given=[resource("IPPool", "x", cidr="fd00::/64"), resource("IPPool", "y", cidr="fd00::/80")]).err
    )


@pytest.mark.parametrize("word", ["tier/default", "tier/kube-admin", "tier/kube-baseline", "profile/projectcalico-default-allow"])
def test_what_every_cluster_has_is_not_deleted(tabinet: Tabinet, word: str) -> None:
    said = tabinet("delete", word)
    assert said.code == 2
    assert "cannot be deleted" in said.err


def test_a_tier_goes_after_its_policies(tabinet: Tabinet) -> None:
    documents = [resource("Tier", "t", order=5), resource("GlobalNetworkPolicy", "t.p", tier="t", selector="all()", types=["Ingress"])]
    assert tabinet("apply", "-f", "-", given=documents).code == 0
    said = tabinet("delete", "tier", "t")
    assert (said.code, said.out) == (1, "")
    assert "Tier/t still has policies, such as GlobalNetworkPolicy/t.p" in said.err
    assert tabinet("delete", "-f", "-", given=documents).out == "GlobalNetworkPolicy/t.p deleted\nTier/t deleted\n"


def test_delete_of_what_is_not_there(tabinet: Tabinet) -> None:
    assert tabinet("delete", "gns", "x")[:2] == (1, "GlobalNetworkSet/x not found\n")
    assert tabinet("delete", "gns", "x", "--ignore-not-found").code == 0
    assert tabinet("delete", "gns", "x", "--skip-not-exists").code == 0
    assert tabinet("delete", "gns").code == 2
    assert tabinet("delete", "gns", "-f", "-").code == 2


KUBERNETES = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{ports: [{port: 80}]}]
"""


def test_documents_of_kubernetes_become_policies(tabinet: Tabinet) -> None:
    said = tabinet("apply", "-f", "-", given=KUBERNETES)
    assert (said.code, said.err) == (0, "")
    [policy] = tabinet("get", "np", "-n", "shop", "-o", "json").json["items"]
    assert policy["apiVersion"] == "projectcalico.org/v3"
    assert "app == 'web'" in policy["spec"]["selector"]
    assert tabinet("apply", "-f", "-", given=KUBERNETES).out.endswith(" unchanged\n")
    assert tabinet("get", "-f", "-", "-o", "name", given=KUBERNETES).out == f"networkpolicy/{policy['metadata']['name']}\n"
    wrong = tabinet("apply", "-f", "-", given=[resource("Tier", "t"), yaml.safe_load(KUBERNETES.replace("port: 80", "port: 99999"))])
    assert wrong.code == 2
    assert "document 2: spec.ingress[0].ports[0].port: got 99999" in wrong.err
    assert tabinet("delete", "-f", "-", given=KUBERNETES).out.endswith(" deleted\n")


def test_views_are_not_written(tabinet: Tabinet) -> None:
    said = tabinet("delete", "ipamblock", "10-0-0-0-26")
    assert said.code == 2
    assert "cannot be written" in said.err


def test_a_store_that_cannot_be_used(tabinet: Tabinet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TABINET_STORE_PATH", "/proc/nothing/store.db")
    said = tabinet("apply", "-f", "-", given=GNS)
    assert (said.code, said.out) == (3, "")
    assert said.err.count("\n") == 1

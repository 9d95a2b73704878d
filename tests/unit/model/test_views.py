"""What the address management stores, shown as resources; its configuration, read and written as one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tabinet.errors import DataError
from tabinet.model.codec import decode_document, decode_stored, encode_document
from tabinet.model.keys import IPAM_CONFIG, ResourceKey, path_of
from tabinet.model.kinds import KINDS
from tabinet.model.resources import IPAMConfiguration
from tabinet.model.views import view_of, view_paths, view_prefixes

ROOT = "/calico/ipam/v2/"
CASES: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "data" / "keys" / "views.yaml").read_text())
VIEWS = [kind.name for kind in KINDS if kind.view]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["path"])
def test_names_and_paths(case: dict[str, Any]) -> None:
    path = ROOT + case["path"]
    document = view_of(path, b"{}")
    assert document is not None
    assert (document["kind"], document["metadata"]) == (case["kind"], {"name": case["name"]})
    paths = view_paths(case["kind"], case["name"])
    assert set(paths) == {path, *(ROOT + other for other in case.get("also", ()))}
    assert any(path.startswith(prefix) for prefix in view_prefixes(case["kind"]))


def test_a_block() -> None:
    stored = {
        "cidr": "10.0.0.0/30",
        "affinity": "host:a",
        "allocations": [0, None, None, None],
        "attributes": [{"handle_id": "x"}],
        "new": 1,
    }
    document = view_of(f"{ROOT}assignment/ipv4/block/10.0.0.0-30", json.dumps(stored).encode())
    assert document is not None
    assert document["spec"] == stored


def test_a_handle_keeps_the_case_of_its_name() -> None:
    document = view_of(f"{ROOT}handle/Vm-A", b'{"block": {"10.0.0.0/30": 1}}')
    assert document is not None
    assert document["metadata"]["name"] == "vm-a"
    assert document["spec"] == {"handleID": "Vm-A", "block": {"10.0.0.0/30": 1}}


@pytest.mark.parametrize(("owner", "kind"), [("host/h", "host"), ("virtual/load-balancer", "virtual")])
def test_an_affinity(owner: str, kind: str) -> None:
    document = view_of(f"{ROOT}{owner}/ipv4/block/10.0.0.0-26", b'{"state": "confirmed", "deleted": true}')
    assert document is not None
    assert document["spec"] == {
        "state": "confirmed",
        "deleted": "true",
        "node": owner.partition("/")[2],
        "type": kind,
        "cidr": "10.0.0.0/26",
    }


@pytest.mark.parametrize("path", ["/calico/resources/v3/projectcalico.org/ippools/a", IPAM_CONFIG, f"{ROOT}assignment/x", ""])
def test_other_paths_are_no_views(path: str) -> None:
    assert view_of(path, b"{}") is None


@pytest.mark.parametrize("value", [b"", b"[]", b"\xff"])
def test_what_is_no_object_is_refused(value: bytes) -> None:
    with pytest.raises(DataError):
        view_of(f"{ROOT}handle/a", value)


@pytest.mark.parametrize(
    ("kind", "name"), [("IPAMBlock", "10-0-0-1-26"), ("IPAMBlock", "a"), ("IPAMHandle", "a/b"), ("BlockAffinity", "10-0-0-0-26")]
)
def test_names_of_nothing(kind: str, name: str) -> None:
    assert view_paths(kind, name) == ()


def test_only_views_are_asked_for() -> None:
    with pytest.raises(ValueError, match="IPPool is not a view"):
        view_paths("IPPool", "a")


@pytest.mark.parametrize("kind", VIEWS)
def test_nobody_gets_a_path_to_write_to(kind: str) -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        path_of(ResourceKey(kind, "10-0-0-0-26"))


def test_the_configuration_has_a_form_of_its_own_in_the_store() -> None:
    stored = b'{"auto_allocate_blocks":false,"maxBlocksPerHost":4,"somethingNew":1,"strict_affinity":true}'
    document = decode_document(stored, IPAM_CONFIG)
    assert document == {
        "apiVersion": "projectcalico.org/v3",
        "kind": "IPAMConfiguration",
        "metadata": {"name": "default"},
        "spec": {"strictAffinity": True, "autoAllocateBlocks": False, "maxBlocksPerHost": 4, "somethingNew": 1},
    }
    assert encode_document({**document, "metadata": {"name": "default", "resourceVersion": "7", "uid": "x"}}) == stored
    decoded = decode_stored(IPAM_CONFIG, stored)
    assert decoded is not None
    key, record = decoded
    assert key == ResourceKey("IPAMConfiguration", "default")
    assert isinstance(record, IPAMConfiguration)
    assert (record.spec.strict_affinity, record.spec.auto_allocate_blocks, record.spec.max_blocks_per_host) == (True, False, 4)


@pytest.mark.parametrize("value", [b'{"strict_affinity": "yes"}', b"[]", b"x"])
def test_a_broken_configuration_is_refused(value: bytes) -> None:
    with pytest.raises(DataError):
        decode_stored(IPAM_CONFIG, value)

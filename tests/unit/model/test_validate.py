"""Validation: what is fine passes, and every mistake is reported with path, value and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from tabinet.model.codec import decode_document, decode_stored, encode_document
from tabinet.model.defaults import with_defaults
from tabinet.model.documents import Document, load_documents
from tabinet.model.keys import ResourceKey, path_of
from tabinet.model.kinds import BY_NAME, KINDS
from tabinet.model.validate import validate, validate_all

DATA = Path(__file__).parent / "data"
WRITABLE = [kind.name for kind in KINDS if not kind.view]
VALID = [document for kind in WRITABLE for document in load_documents((DATA / "valid" / f"{kind}.yaml").read_text(), kind)]
INVALID: list[tuple[str, dict[str, Any]]] = [
    (kind, case) for kind in WRITABLE for case in yaml.safe_load((DATA / "invalid" / f"{kind}.yaml").read_text())
]
"""Kind, and a case: metadata (name "x" where none is given) and spec of a document, and each problem: path, value, words about it."""


def resource(kind: str, metadata: Any, spec: Any = None, version: str = "projectcalico.org/v3") -> Document:
    data = {"apiVersion": version, "kind": kind, "metadata": metadata}
    return Document(data=data if spec is None else {**data, "spec": spec}, source="f.yaml", index=2, line=7)


@pytest.mark.parametrize("document", VALID, ids=lambda document: f"{document.data['kind']}-{document.data['metadata']['name']}")
def test_what_is_fine_passes_is_stored_and_read_as_it_was(document: Document) -> None:
    assert validate(document) == []
    complete = with_defaults(document.data)
    metadata = complete["metadata"]
    key = ResourceKey(document.data["kind"], metadata["name"], metadata.get("namespace", ""))
    stored = encode_document(complete)
    assert decode_document(stored, path_of(key)) == complete
    decoded = decode_stored(path_of(key), stored)
    assert decoded is not None
    assert decoded[0] == key
    assert type(decoded[1]) is BY_NAME[key.kind].record


def test_every_kind_has_a_valid_example() -> None:
    assert {document.data["kind"] for document in VALID} == set(WRITABLE)
    assert {path.stem for directory in ("valid", "invalid") for path in (DATA / directory).iterdir()} == set(WRITABLE)


@pytest.mark.parametrize(("kind", "case"), INVALID, ids=[f"{kind} {case['case']}" for kind, case in INVALID])
def test_every_mistake_is_reported(kind: str, case: dict[str, Any]) -> None:
    found = validate(resource(kind, case.get("metadata", {"name": "x"}), case.get("spec")))
    assert [(problem.path, problem.value) for problem in found] == [(path, value) for path, value, _ in case["problems"]]
    for problem, (_, _, words) in zip(found, case["problems"], strict=True):
        assert words in problem.allowed
        assert (problem.source, problem.document, problem.line) == ("f.yaml", 2, 7)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("IPPol", "did you mean IPPool?"),
        ("ippools", "did you mean IPPool?"),
        ("Sandwich", "allowed: BGPConfiguration"),
        (None, "allowed:"),
        (5, "allowed:"),
    ],
)
def test_unknown_kinds(kind: Any, words: str) -> None:
    (problem,) = validate(resource(kind, {"name": "x"}))
    assert problem.path == "kind"
    assert words in problem.allowed


def test_another_version_is_refused_and_the_rest_still_checked() -> None:
    problems = validate(resource("Tier", {"name": "x"}, {"order": "y"}, version="crd.projectcalico.org/v1"))
    assert [problem.path for problem in problems] == ["apiVersion", "spec.order"]


@pytest.mark.parametrize("metadata", [None, [], "x"])
def test_metadata_must_be_there(metadata: Any) -> None:
    assert "metadata" in [problem.path for problem in validate(resource("Tier", metadata))]


def test_between_documents() -> None:
    pools = [
        resource("IPPool", {"name": name}, {"cidr": cidr})
        for name, cidr in (("a", "10.0.0.0/16"), ("b", "10.0.8.0/24"), ("a", "10.9.0.0/16"))
    ]
    assert [(problem.path, problem.value) for problem in validate_all(pools)] == [("spec.cidr", '"10.0.8.0/24"'), ("metadata.name", '"a"')]


def test_paths_of_list_items_begin_with_the_item() -> None:
    document = msgspec.structs.replace(resource("Tier", {"name": "x"}, {"order": "y"}), within="items[3]")
    assert [problem.path for problem in validate(document)] == ["items[3].spec.order"]


def test_halves_of_surrogate_pairs_are_refused() -> None:
    (problem,) = validate(resource("ClusterInformation", {"name": "default"}, {"variant": "\ud800"}))
    assert problem.allowed == "must be Unicode text"

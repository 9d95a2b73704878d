"""Descriptions for people: complete, and the pages in ``docs/reference`` are those of the records as they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tabinet.model.describe import FieldDescription, describe_kind, pages
from tabinet.model.documents import load_documents
from tabinet.model.felix import PARAMETERS
from tabinet.model.kinds import KINDS, Kind
from tabinet.model.validate import validate

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"


def every(fields: tuple[FieldDescription, ...], path: str = "") -> Iterator[tuple[str, FieldDescription]]:
    for field in fields:
        yield f"{path}{field.name}", field
        yield from every(field.fields, f"{path}{field.name}.")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_field_is_explained_in_plain_sentences(kind: Kind) -> None:
    described = describe_kind(kind.name)
    assert described.meaning
    assert described.names
    for path, field in every(described.fields):
        assert field.meaning.endswith("."), path
        assert field.meaning[0].isupper() or field.meaning[0] in "`4", path
        assert "Default:" not in field.meaning, path
        assert not field.default.endswith("."), path
        assert field.type, path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_example_is_sound(kind: Kind) -> None:
    described = describe_kind(kind.name)
    [document] = load_documents(described.example, "example")
    assert document.data["kind"] == described.name
    problems = validate(document)
    assert [problem.path for problem in problems] == (["kind"] if described.read_only else [])


def test_a_field_is_found_by_its_path() -> None:
    policy = describe_kind("NetworkPolicy")
    field = policy.field_at("spec.ingress.source.ports")
    assert field is not None
    assert field.type == "list: port"
    assert policy.field_at("spec.ingress.nothing") is None
    action = policy.field_at("spec.ingress.action")
    assert action is not None
    assert (action.required, action.type) == (True, "one of Allow, Deny, Log, Pass")


def test_defaults_stand_apart_from_meanings() -> None:
    block_size = describe_kind("IPPool").field_at("spec.blockSize")
    assert block_size is not None
    assert block_size.default == "26, or 122 for IPv6"


def test_only_namespaced_kinds_have_a_namespace() -> None:
    assert describe_kind("Tier").field_at("metadata.namespace") is None
    assert describe_kind("NetworkSet").field_at("metadata.namespace") is not None


def test_the_parameters_of_felix_are_all_there() -> None:
    spec = describe_kind("FelixConfiguration").field_at("spec")
    assert spec is not None
    assert [field.name for field in spec.fields] == [parameter.name for parameter in PARAMETERS]
    assert len({parameter.name for parameter in PARAMETERS}) == len(PARAMETERS) > 180


def test_unknown_kinds() -> None:
    with pytest.raises(ValueError, match="there is no kind 'Sandwich'"):
        describe_kind("Sandwich")


def test_the_reference_is_up_to_date() -> None:
    """Otherwise: ``python -m tabinet.model.describe``."""
    assert {path.name: path.read_text(encoding="utf-8") for path in REFERENCE.glob("*.md")} == pages()

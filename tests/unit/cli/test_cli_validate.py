"""validate and version; and any input at all: a clear error of our own, never a traceback."""

from __future__ import annotations

import contextlib

import pytest
from cli_world import Tabinet, resource
from hypothesis import given
from hypothesis import strategies as st

from tabinet.cli.labels import parse_selection
from tabinet.cli.patches import parse_patch
from tabinet.cli.place import Place, find_store
from tabinet.cli.sources import read_documents
from tabinet.errors import InputError, SetupError

GOOD = resource("Tier", "t", order=1)


def test_validate(tabinet: Tabinet) -> None:
    assert tabinet("validate", "-f", "-", given=[GOOD, resource("Tier", "u")]) == (0, "2 documents: no problems\n", "")
    assert tabinet("validate", "-f", "-", "--json", given=GOOD).json == {"valid": True, "documents": 1, "problems": []}
    said = tabinet("validate", "-f", "-", "--json", given=[GOOD, resource("Tier", "u", order="x", oder=1)])
    assert (said.code, said.err) == (2, "")
    assert said.json["valid"] is False
    assert [(problem["document"], problem["line"], problem["path"]) for problem in said.json["problems"]] == [
        (2, 8, "spec.oder"),
        (2, 8, "spec.order"),
    ]
    assert tabinet("validate").code == 2


def test_version(tabinet: Tabinet) -> None:
    from tabinet import __version__

    assert tabinet("version", "--client") == (0, f"Client version:   {__version__}\n", "")
    tabinet(
        "apply", "-f", "-", given=resource("ClusterInformation", "default", calicoVersion="v3.32.0", clusterType="k8s", clusterGUID="a")
    )
    assert tabinet("version", "--json").json == {
        "client": __version__,
        "cluster": "v3.32.0",
        "type": "k8s",
        "guid": "a",
        "ready": "unknown",
        "store": "SqliteStore",
    }


def test_version_without_a_store(tabinet: Tabinet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TABINET_STORE_PATH", "/proc/nothing/x")
    said = tabinet("version")
    assert said.code == 3
    assert said.out.startswith("Client version:")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "a: &a [*a]",
        "&a [" + "*a," * 9 + "]",
        "[" * 5000,
        '{"a":' * 5000,
        "a: 1\na: 2",
        "\x00",
        "- 1",
        "5",
        "!!python/object:os.system {}",
        "kind: Tier\napiVersion: projectcalico.org/v3\nmetadata: 5",
        "kind: [Tier]\nmetadata: {name: {a: b}}",
        "kind: NetworkPolicy\napiVersion: projectcalico.org/v3\nmetadata: {name: a, namespace: [b]}",
        "kind: Tier\napiVersion: projectcalico.org/v3\nmetadata: {name: a/b}",
    ],
)
@pytest.mark.parametrize("command", ["validate", "apply", "create", "replace", "delete", "get"])
def test_hostile_files(tabinet: Tabinet, command: str, text: str) -> None:
    said = tabinet(command, "-f", "-", given=text)
    assert said.code == 2
    assert said.err.startswith("error: standard input")
    assert tabinet("patch", "tier", "t", "-p", text).code in (1, 2)


@pytest.mark.parametrize(
    "spec", ["{order: " + "9" * 5000 + "}", "{order: 1e999}", "[1]", "text", "{order: 99999999999999999999}", "{order: {}}"]
)
def test_hostile_specs(tabinet: Tabinet, spec: str) -> None:
    text = f"kind: Tier\napiVersion: projectcalico.org/v3\nmetadata: {{name: t}}\nspec: {spec}"
    for command in ("validate", "apply", "create", "replace"):
        said = tabinet(command, "-f", "-", given=text)
        assert said.code == 2
        assert said.err.startswith("error: standard input")


@given(st.binary())
def test_any_bytes_are_documents_or_our_own_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(data)
    with contextlib.suppress(InputError):
        read_documents([str(path)])
    place = Place(config=str(path), environment={})
    with contextlib.suppress(InputError, SetupError):
        find_store(place)


@given(st.text(), st.sampled_from(["strategic", "merge", "json"]))
def test_any_text_is_a_patch_or_our_own_error(text: str, form: str) -> None:
    with contextlib.suppress(InputError):
        parse_patch(text, form, "x")


@given(st.text() | st.text("ab=!,'() &|"))
def test_any_text_is_a_selection_or_wrong_usage(text: str) -> None:
    import click

    with contextlib.suppress(click.BadParameter):
        parse_selection(text).evaluate({"a": "b"})

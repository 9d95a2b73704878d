"""Files to documents: what plain YAML words mean, and what is refused where."""

from __future__ import annotations

from typing import Any

import pytest

from tabinet.errors import InputError
from tabinet.model.documents import MAX_BYTES, MAX_PROBLEMS, load_documents


def only(text: str | bytes, source: str = "f.yaml") -> dict[str, Any]:
    (document,) = load_documents(text, source)
    return document.data


def refused(text: str | bytes, source: str = "f.yaml") -> list[tuple[int, str, str]]:
    with pytest.raises(InputError) as caught:
        load_documents(text, source)
    assert all(problem.source == source for problem in caught.value.problems)
    return [(problem.line, problem.path, problem.allowed) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("80", 80),
        ("-1", -1),
        ("0x1F", 31),
        ("0o17", 15),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("true", True),
        ("Off", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("80:90", "80:90"),
        ("11:22:33:44:55:10", "11:22:33:44:55:10"),
        ("2026-11-22", "2026-11-22"),
        ("2026-11-22T09:29:56Z", "2026-11-22T09:29:56Z"),
        ("010", "010"),
        ("1_000", "1_000"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("fd00::/8", "fd00::/8"),
        ("1.2.3", "1.2.3"),
        ("y", "y"),
        ('"80"', "80"),
        ("'true'", "true"),
        ("!!str 80", "80"),
        ("[a, 1]", ["a", 1]),
        ("{b: c}", {"b": "c"}),
        ("|\n  two\n  lines", "two\nlines"),
    ],
)
def test_plain_words(word: str, value: Any) -> None:
    assert only(f"a: {word}") == {"a": value}


def test_several_documents_know_where_they_begin() -> None:
    documents = load_documents("# a comment\nkind: A\n---\n---\n\nkind: B\n...\n---\nkind: C\n", "f")
    assert [(document.data["kind"], document.index, document.line) for document in documents] == [("A", 1, 2), ("B", 3, 6), ("C", 4, 9)]


def test_lists_are_unpacked() -> None:
    documents = load_documents("kind: IPPoolList\nitems:\n- kind: A\n- kind: B\n", "f")
    assert [(document.data["kind"], document.within, document.line) for document in documents] == [
        ("A", "items[0]", 3),
        ("B", "items[1]", 4),
    ]
    assert [document.within for document in load_documents('{"kind": "List", "items": [{"kind": "A"}]}', "f.json")] == ["items[0]"]


def test_json() -> None:
    assert only('{"a": [1, 2.5, null, true, "x"]}', "f.json") == {"a": [1, 2.5, None, True, "x"]}
    assert only("{a: b}", "f.yaml") == {"a": "b"}


def test_anchors_and_merges() -> None:
    assert only("x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}\nz: [*x]") == {"x": {"a": 1, "b": 2}, "y": {"a": 1, "b": 3}, "z": [{"a": 1, "b": 2}]}
    assert only("x: &x {a: 1}\ny: &y {a: 2, c: 3}\nz: {<<: [*x, *y]}")["z"] == {"a": 1, "c": 3}


@pytest.mark.parametrize("text", [b"\xef\xbb\xbfa: \xc3\xa4", "\ufeffa: ä", "a: ä".encode("utf-16")])
def test_encodings(text: str | bytes) -> None:
    assert only(text) == {"a": "ä"}


def test_nothing_in_nothing_out() -> None:
    assert load_documents("", "f") == load_documents("---\n# nothing\n---\n", "f") == []


@pytest.mark.parametrize(
    ("text", "line", "path", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "a", "twice"),
        ("a:\n  b: [{c: 1, c: 2}]", 2, "a.b[0].c", "twice"),
        ("a: [1\nb: 2", 2, "", "not YAML"),
        ("a:\n\tb: 1", 2, "", "not YAML"),
        ("a: b: c", 1, "", "not YAML"),
        ("a: 1\nb: \x01", 2, "", "control characters"),
        ("a: *b", 1, "", "not YAML"),
        ("1: a", 1, "", "names must be texts"),
        ("true: a", 1, "", "names must be texts"),
        ("? [a]\n: b", 1, "", "names must be texts"),
        ("a: !!python/object:os.system x", 1, "a", "cannot be read as that"),
        ("a: !!binary aGVsbG8=", 1, "a", "cannot be read as that"),
        ("a: !own {b: c}", 1, "a", "unknown tag"),
        ("a: !!int x", 1, "a", "cannot be read as that"),
        ("a: .inf", 1, "a", "cannot be stored".replace("cannot", "not a number that can")),
        ("a: .nan", 1, "a", "not a number"),
        ("a: 1e999", 1, "a", "not a number"),
        ("a: {<<: 5}", 1, "a", "mapping"),
        ("- a", 1, "", "must be a resource"),
        ("just words", 1, "", "must be a resource"),
        ("kind: List\nitems:\n- 5", 3, "items[0]", "must be a resource"),
        (b"a: 1\nb: \xff", 2, "", "UTF-8"),
        ("[" * 5000, 1, "", "nesting"),
        ("a: " + "[" * 120 + "]" * 120, 1, "a" + "[0]" * 19 + "[0...", "deeper than 100"),
        ("- " * 5000, 1, "", "nesting"),
    ],
)
def test_what_is_refused_and_where(text: str | bytes, line: int, path: str, words: str) -> None:
    found = refused(text)
    assert found[0][:2] == (line, path)
    assert words in found[0][2]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('{"a": 1', 1, "not JSON"),
        ('{"a": 1,\n "b": x}', 2, "not JSON"),
        ('{"a": 1, "a": 2}', 0, "twice"),
        ('{"a": NaN}', 0, "not a number"),
        ('{"a": ' * 50_000, 0, "nested too deeply"),
        ('{"a": ' + "1" * 5000 + "}", 0, "too many digits"),
    ],
)
def test_json_that_is_refused(text: str, line: int, words: str) -> None:
    ((found_line, _, allowed),) = refused(text, "f.json")
    assert found_line == line
    assert words in allowed


def test_every_unreadable_place_is_told() -> None:
    assert [line for line, _, _ in refused("a: 1\na: 2\n---\nb: !!int x\n---\n1: x\n")] == [2, 4, 6]


def test_a_bomb_of_anchors_ends_early() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 12)]
    ((_, _, allowed),) = refused("\n".join(lines))
    assert "by aliases" in allowed
    ((_, _, allowed),) = refused("a: &a [*a, *a]")
    assert "deeper" in allowed


def test_the_number_of_problems_is_limited() -> None:
    assert len(refused("\n".join(f"{number}: x" for number in range(MAX_PROBLEMS * 3)))) <= MAX_PROBLEMS * 3
    assert len(refused("a: [" + ", ".join(["!!int x"] * MAX_PROBLEMS * 3) + "]")) == MAX_PROBLEMS


def test_files_beyond_the_limit_are_not_parsed() -> None:
    ((_, _, allowed),) = refused(b" " * (MAX_BYTES + 1))
    assert "at most" in allowed

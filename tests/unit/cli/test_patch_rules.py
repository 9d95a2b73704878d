"""Patches as RFC 7386 and RFC 6902 have them: their own examples, and laws."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabinet.cli.patches import Operation, json_patch, merge_patch, strategic_patch
from tabinet.errors import Conflict, InputError

# RFC 7386, appendix A.
MERGES = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "result"), MERGES)
def test_merge(target: Any, patch: Any, result: Any) -> None:
    assert merge_patch(target, patch) == result


def test_strategic_directives() -> None:
    target = {"spec": {"a": 1, "b": {"c": 2}}}
    assert strategic_patch(target, {"spec": {"$patch": "replace", "d": 4}}) == {"spec": {"d": 4}}
    assert strategic_patch(target, {"spec": {"b": {"$patch": "delete"}}}) == {"spec": {"a": 1}}
    assert strategic_patch(target, {"spec": {"b": {"$patch": "merge", "e": 5}}}) == {"spec": {"a": 1, "b": {"c": 2, "e": 5}}}
    with pytest.raises(InputError, match=r"spec\.\$retainKeys"):
        strategic_patch(target, {"spec": {"$retainKeys": ["a"]}})


def op(op: str, path: str, **more: Any) -> Operation:
    return Operation(op, path, source=more.pop("source", ""), **more)  # type: ignore[arg-type]


# RFC 6902, appendix A.
PATCHES = [
    ({"foo": "bar"}, [op("add", "/baz", value="qux")], {"baz": "qux", "foo": "bar"}),
    ({"foo": ["bar", "baz"]}, [op("add", "/foo/1", value="qux")], {"foo": ["bar", "qux", "baz"]}),
    ({"baz": "qux", "foo": "bar"}, [op("remove", "/baz")], {"foo": "bar"}),
    ({"foo": ["bar", "qux", "baz"]}, [op("remove", "/foo/1")], {"foo": ["bar", "baz"]}),
    ({"baz": "qux", "foo": "bar"}, [op("replace", "/baz", value="boo")], {"baz": "boo", "foo": "bar"}),
    (
        {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
        [op("move", "/qux/thud", source="/foo/waldo")],
        {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
    ),
    ({"foo": ["all", "grass", "cows", "eat"]}, [op("move", "/foo/3", source="/foo/1")], {"foo": ["all", "cows", "eat", "grass"]}),
    (
        {"baz": "qux", "foo": ["a", 2, "c"]},
        [op("test", "/baz", value="qux"), op("test", "/foo/1", value=2)],
        {"baz": "qux", "foo": ["a", 2, "c"]},
    ),
    ({"foo": "bar"}, [op("add", "/child", value={"grandchild": {}})], {"foo": "bar", "child": {"grandchild": {}}}),
    ({"/": 9, "~1": 10}, [op("test", "/~01", value=10)], {"/": 9, "~1": 10}),
    ({"foo": ["bar"]}, [op("add", "/foo/-", value=["abc", "def"])], {"foo": ["bar", ["abc", "def"]]}),
    ({"a": {"b": 1}}, [op("copy", "/c", source="/a"), op("add", "/c/b", value=2)], {"a": {"b": 1}, "c": {"b": 2}}),
    ({"a": 1}, [op("move", "/a", source="/a")], {"a": 1}),
]


@pytest.mark.parametrize(("document", "operations", "result"), PATCHES)
def test_json_patch(document: Any, operations: list[Operation], result: Any) -> None:
    assert json_patch(document, tuple(operations)) == result


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        (op("test", "/baz", value="bar"), Conflict),
        (op("test", "/one", value=True), Conflict),
        (op("add", "/foo/bar", value=1), InputError),
        (op("add", "/list/01", value=1), InputError),
        (op("add", "/list/3", value=1), InputError),
        (op("replace", "/nothing", value=1), InputError),
        (op("copy", "/x", source="/nothing"), InputError),
        (op("move", "/map/x", source="/map"), InputError),
        (op("remove", "/list/-"), InputError),
    ],
)
def test_operations_that_cannot_be_done(operation: Operation, error: type[Exception]) -> None:
    document = {"baz": "qux", "foo": "bar", "list": [1, 2], "map": {}, "one": 1}
    with pytest.raises(error):
        json_patch(document, (op("remove", "/baz") if operation.path != "/baz" else op("test", "/one", value=1), operation))
    assert document["baz"] == "qux", "the document given is left alone"


values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab/~", max_size=2), inner, max_size=3),
    max_leaves=8,
)
pointers = st.lists(st.sampled_from(["a", "b", "0", "1", "-", "~0", "~1"]), max_size=3).map(
    lambda steps: "".join(f"/{step}" for step in steps)
)
operations = st.builds(Operation, st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]), pointers, values, pointers)


@given(values, st.lists(operations, max_size=4))
def test_any_operations_work_or_are_refused_and_leave_the_argument_alone(document: Any, many: list[Operation]) -> None:
    before = repr(document)
    with contextlib.suppress(InputError, Conflict):
        json_patch(document, tuple(many))
    assert repr(document) == before


@given(values, values)
def test_a_merge_that_was_made_makes_no_difference_again(target: Any, patch: Any) -> None:
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once

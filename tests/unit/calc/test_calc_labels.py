"""Single situations of the label index."""

from __future__ import annotations

import pytest

from tabinet.calc.labels import IDLE_INDICES, LabelIndex
from tabinet.selector import parse


@pytest.mark.parametrize("count", [1, 4, 5, 9])
def test_many_new_keys_at_once_are_indexed(count: int) -> None:
    index = LabelIndex()
    classes = [index.class_of({f"k{number}": "v", f"k{number + 1}": "v"}, ())[0] for number in range(9)]
    for number, query in enumerate(index.open([parse(f"has(k{number})") for number in range(count)])):
        assert set(index.answer(query)) == set(classes[max(0, number - 1) : number + 1])


def test_index_that_was_out_of_use_is_right_when_it_comes_back() -> None:
    index = LabelIndex()
    first = index.class_of({"a": "x"}, ())[0]
    (query,) = index.open([parse("a == 'x'")])
    index.close(query)
    second = index.class_of({"a": "x", "b": "y"}, ())[0]
    index.drop(first)
    (query,) = index.open([parse("a == 'x'")])
    assert set(index.answer(query)) == {second}


def test_keys_beyond_the_idle_ones_are_indexed_anew() -> None:
    index = LabelIndex()
    made = index.class_of({"a": "x"}, ())[0]
    for query in index.open([parse("has(a)"), *(parse(f"has(k{number})") for number in range(IDLE_INDICES + 1))]):
        index.close(query)
    (query,) = index.open([parse("has(a)")])
    assert set(index.answer(query)) == {made}


def test_profile_named_twice() -> None:
    index = LabelIndex()
    index.set_profile("p", {"a": "x"})
    made = index.class_of({}, ("p", "p"))[0]
    assert made.labels == {"a": "x"}
    assert index.set_profile("p", {}) == [made]
    index.drop(made)
    assert index.set_profile("p", {"a": "y"}) == []

"""Selectors: what they select, how they are written, where they are wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tabinet.selector import (
    MAX_LENGTH,
    All,
    And,
    Eq,
    Has,
    Not,
    Or,
    Restriction,
    SelectorError,
    conjunction,
    disjunction,
    from_tree,
    matches,
    parse,
    rewrite,
    with_key_prefix,
)
from tabinet.selector.parser import MAX_DEPTH, MAX_LABEL

HERE = Path(__file__).parent
CASES: list[dict[str, Any]] = yaml.safe_load((HERE / "selector_cases.yaml").read_text())
ERRORS: list[dict[str, Any]] = yaml.safe_load((HERE / "selector_errors.yaml").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["text"])
def test_canonical_text_and_meaning(case: dict[str, Any]) -> None:
    selector = parse(case["text"])
    assert str(selector) == case["canonical"]
    assert parse(case["canonical"]).root == selector.root
    for labels in case["selects"]:
        assert selector.evaluate(labels), labels
        assert matches(selector.root, labels), labels
    for labels in case["not"]:
        assert not selector.evaluate(labels), labels
        assert not matches(selector.root, labels), labels


@pytest.mark.parametrize("case", ERRORS, ids=lambda case: case["text"])
def test_errors_say_where_and_what(case: dict[str, Any]) -> None:
    with pytest.raises(SelectorError) as caught:
        parse(case["text"])
    assert caught.value.position == case["position"]
    for word in case["words"]:
        assert word in str(caught.value)


def test_limits_are_exact() -> None:
    label = "a" * MAX_LABEL
    assert parse(f"has({label})").keys == {label}
    with pytest.raises(SelectorError, match=f"at most {MAX_LABEL}"):
        parse(f"has({label}a)")
    padding = " " * (MAX_LENGTH - len("has(a)"))
    assert str(parse("has(a)" + padding)) == "has(a)"
    with pytest.raises(SelectorError, match=f"at most {MAX_LENGTH}"):
        parse("has(a)" + padding + " ")


def test_nesting_ends_in_our_own_error() -> None:
    assert parse("(" * MAX_DEPTH + "has(a)" + ")" * MAX_DEPTH).root == Has("a")
    with pytest.raises(SelectorError, match=re.escape(f"at most {MAX_DEPTH} parentheses")) as caught:
        parse("( " * (MAX_DEPTH + 1))
    assert caught.value.position == 2 * MAX_DEPTH
    deepest = "!(has(a) && " * MAX_DEPTH + "has(b)" + ")" * MAX_DEPTH
    from_tree(parse_long(deepest)).evaluate({"a": ""})


def parse_long(text: str) -> Any:
    """A tree beyond the limit of length, as only the calculation builds them."""
    from tabinet.selector import parse_tree

    return parse_tree(text, max_length=len(text))


def test_the_same_text_is_parsed_once() -> None:
    assert parse("has(cached)") is parse("has(cached)")


def test_equal_meaning_in_normal_form_is_equal_and_has_one_uid() -> None:
    one, other = parse("a=='b'&&(c in {'y','x'})"), parse('a == "b" && c in {"x", "y"}')
    assert one == other
    assert hash(one) == hash(other)
    assert one.uid == other.uid
    assert re.fullmatch(r"[a-z2-7]{16}", one.uid)
    assert parse("has(a)").uid != parse("has(b)").uid


def test_the_uid_never_changes() -> None:
    assert parse("a == 'b'").uid == "kquejpkn2edef34v"


def test_keys_are_those_that_are_asked_for() -> None:
    assert parse("a == 'b' || !(has(c) && d starts with 'e') || all()").keys == {"a", "c", "d"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all()", {}),
        ("a != 'b'", {}),
        ("a == 'b'", {"a": Restriction(True, False, frozenset("b"))}),
        ("a in {'b', 'c'}", {"a": Restriction(True, False, frozenset("bc"))}),
        ("has(a) && !has(b)", {"a": Restriction(True), "b": Restriction(False, True)}),
        ("a contains 'x'", {"a": Restriction(True)}),
        ("has(a) && a == 'b'", {"a": Restriction(True, False, frozenset("b"))}),
        ("a == 'b' && a == 'c'", {"a": Restriction(True, False, frozenset())}),
        ("a == 'b' || a == 'c'", {"a": Restriction(True, False, frozenset("bc"))}),
        ("a == 'b' || has(a)", {"a": Restriction(True)}),
        ("a == 'b' || has(c)", {}),
        ("a == 'b' || a in {}", {"a": Restriction(True, False, frozenset("b"))}),
        ("!(has(a) || has(b))", {"a": Restriction(False, True), "b": Restriction(False, True)}),
        ("!(a != 'b' || has(c))", {"a": Restriction(True, False, frozenset("b")), "c": Restriction(False, True)}),
        ("!(has(a) && has(b))", {}),
        ("has(a) || !has(a)", {}),
        ("!all()", {}),
    ],
)
def test_restrictions(text: str, expected: dict[str, Restriction]) -> None:
    assert parse(text).restrictions == expected


def test_combining_trees() -> None:
    a, b, c = parse("has(a)").root, parse("has(b) && has(c)").root, parse("has(d) || has(e)").root
    assert str(from_tree(conjunction([a, b, c]))) == "has(a) && has(b) && has(c) && (has(d) || has(e))"
    assert conjunction([]) == All()
    assert disjunction([]) == Not(All())
    assert conjunction([a]) is a
    assert isinstance(disjunction([a, c]), Or)


def test_rewriting_leaves() -> None:
    root = parse("a == 'b' && !(all() || has(c))").root
    assert str(from_tree(with_key_prefix(root, "pcns."))) == "pcns.a == 'b' && !(all() || has(pcns.c))"
    rewritten = rewrite(root, lambda leaf: Has("ns") if isinstance(leaf, All) else leaf)
    assert rewritten == And((Eq("a", "b"), Not(Or((Has("ns"), Has("c"))))))


def test_a_value_with_both_quotes_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="both kinds of quotes"):
        from_tree(Eq("a", "'\""))

"""Laws of selectors: texts and trees round trip, evaluation is the plain interpreter's, restrictions are necessary."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tabinet.selector import (
    All,
    And,
    Contains,
    EndsWith,
    Eq,
    Global,
    Has,
    In,
    Ne,
    Node,
    Not,
    NotIn,
    Or,
    SelectorError,
    StartsWith,
    conjunction,
    disjunction,
    from_tree,
    label_keys,
    matches,
    membership,
    negation,
    parse,
    parse_tree,
)

KEYS = st.sampled_from(["a", "b", "c.d/e-f", "in", "has", "all"])
VALUES = st.sampled_from(["", "x", "xy", "yx", "it's", 'q"q', " x", "}"])
LABELS = st.dictionaries(KEYS, VALUES, max_size=4)
LEAVES = st.one_of(
    st.builds(All),
    st.builds(Global),
    st.builds(Has, KEYS),
    st.builds(Eq, KEYS, VALUES),
    st.builds(Ne, KEYS, VALUES),
    st.builds(membership, KEYS, st.lists(VALUES, max_size=3)),
    st.builds(lambda key, values: negation(membership(key, values)), KEYS, st.lists(VALUES, max_size=3)),
    st.builds(Contains, KEYS, VALUES),
    st.builds(StartsWith, KEYS, VALUES),
    st.builds(EndsWith, KEYS, VALUES),
)
TREES: st.SearchStrategy[Node] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(negation, inner),
        st.builds(conjunction, st.lists(inner, min_size=1, max_size=6)),
        st.builds(disjunction, st.lists(inner, min_size=1, max_size=6)),
    ),
    max_leaves=12,
)
RAW_TREES: st.SearchStrategy[Node] = st.recursive(
    LEAVES | st.builds(In, KEYS, st.lists(VALUES, max_size=3).map(tuple)) | st.builds(NotIn, KEYS, st.lists(VALUES, max_size=3).map(tuple)),
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(And, st.lists(inner, min_size=2, max_size=4).map(tuple)),
        st.builds(Or, st.lists(inner, min_size=2, max_size=4).map(tuple)),
    ),
    max_leaves=12,
)
NO_LIMIT = 1 << 20


@given(TREES)
def test_canonical_text_is_a_fixed_point(tree: Node) -> None:
    selector = from_tree(tree)
    assert parse_tree(str(selector), NO_LIMIT) == tree
    assert from_tree(parse_tree(str(selector), NO_LIMIT)).uid == selector.uid


@given(RAW_TREES, LABELS)
def test_any_tree_keeps_its_meaning_through_text(tree: Node, labels: dict[str, str]) -> None:
    again = parse_tree(str(from_tree(tree)), NO_LIMIT)
    assert matches(again, labels) == matches(tree, labels)


@given(TREES, LABELS)
def test_compiled_evaluation_is_the_interpreters(tree: Node, labels: dict[str, str]) -> None:
    assert from_tree(tree).evaluate(labels) == matches(tree, labels)
    assert matches(negation(tree), labels) != matches(tree, labels)


@given(TREES, LABELS, LABELS)
def test_only_the_keys_decide(tree: Node, labels: dict[str, str], others: dict[str, str]) -> None:
    keys = label_keys(tree)
    projected = {key: value for key, value in labels.items() if key in keys}
    noise = {key: value for key, value in others.items() if key not in keys}
    assert matches(tree, labels) == matches(tree, projected) == matches(tree, projected | noise)


@given(TREES, LABELS)
@settings(max_examples=300)
def test_restrictions_are_necessary(tree: Node, labels: dict[str, str]) -> None:
    if not matches(tree, labels):
        return
    for key, restriction in from_tree(tree).restrictions.items():
        assert restriction.possible
        assert not restriction.present or key in labels
        assert not restriction.absent or key not in labels
        assert restriction.values is None or labels[key] in restriction.values


@given(st.text(max_size=60) | st.text("ab =!&|(){}'\",has.in", max_size=40))
@settings(max_examples=400)
def test_any_text_is_a_selector_or_our_error(text: str) -> None:
    try:
        selector = parse(text)
    except SelectorError as error:
        assert 0 <= error.position <= len(text)
    else:
        assert parse_tree(str(selector), NO_LIMIT) == selector.root


@given(st.text("(!", min_size=1, max_size=1024))
def test_nesting_never_exhausts_the_stack(text: str) -> None:
    try:
        parse(text)
    except SelectorError:
        return
    raise AssertionError("a text without operand cannot be a selector")

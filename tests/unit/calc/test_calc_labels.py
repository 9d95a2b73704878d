"""Single situations of the label index, and of groups that mostly have one member."""

from __future__ import annotations

import pytest

from tabinet.calc import few
from tabinet.calc.carriers import NOWHERE, Carrier
from tabinet.calc.labels import LabelIndex
from tabinet.selector import parse


def enter(index: LabelIndex, labels: dict[str, str], *profiles: str, namespace: str = "") -> Carrier:
    return index.enter((namespace, "", ""), labels, profiles, (), ())


def settle(index: LabelIndex) -> None:
    while not index.settled:
        for carrier in index.stale(2):
            if index.is_in(carrier):
                index.place(carrier)


def selected(index: LabelIndex, text: str) -> set[Carrier]:
    """Asks, and ends asking."""
    selector = parse(text)
    index.ask([selector])
    settle(index)
    found = {carrier for each in index.answer(selector) for carrier in few.each(each.carriers)}
    index.unask(selector)
    return found


@pytest.mark.parametrize("count", [1, 4, 9])
def test_many_new_keys_at_once(count: int) -> None:
    index = LabelIndex()
    carriers = [enter(index, {f"k{number}": "v", f"k{number + 1}": "v"}) for number in range(9)]
    selectors = [parse(f"has(k{number})") for number in range(count)]
    index.ask(selectors)
    settle(index)
    for number, selector in enumerate(selectors):
        classes = index.answer(selector)
        assert {carrier for each in classes for carrier in few.each(each.carriers)} == set(carriers[max(0, number - 1) : number + 1])


def test_labels_that_nobody_asks_for_make_no_classes() -> None:
    index = LabelIndex()
    first, second = enter(index, {"a": "x", "b": "1"}), enter(index, {"b": "2", "a": "x"})
    assert first.label_class is second.label_class
    index.ask([parse("a == 'x'")])
    settle(index)
    assert first.label_class is second.label_class
    assert first.label_class.labels == {"a": "x"}


def test_order_of_labels_makes_no_classes() -> None:
    index = LabelIndex()
    first, second = enter(index, {"a": "x", "b": "1"}), enter(index, {"b": "1", "a": "x"})
    index.ask([parse("has(a) && has(b)")])
    settle(index)
    assert first.label_class is second.label_class


def test_key_that_was_out_of_use_is_right_when_it_comes_back() -> None:
    index = LabelIndex()
    first = enter(index, {"a": "x"})
    assert selected(index, "a == 'x'") == {first}
    second = enter(index, {"a": "x", "b": "y"})
    index.exit(first)
    assert selected(index, "a == 'x'") == {second}


def test_keys_beyond_the_idle_ones_make_no_classes_any_more() -> None:
    index = LabelIndex(idle_keys=1)
    made = enter(index, {"a": "x"})
    assert selected(index, "has(a)") == {made}
    assert selected(index, "has(b)") == set()
    settle(index)
    assert made.label_class.labels == {}
    assert selected(index, "has(a)") == {made}


def test_key_that_is_asked_for_again_while_it_is_being_forgotten() -> None:
    index = LabelIndex(idle_keys=0)
    first, second = enter(index, {"a": "x"}), enter(index, {"a": "y"})
    selector = parse("has(a)")
    index.ask([selector])
    settle(index)
    index.unask(selector)
    (placed,) = index.stale(1)
    index.place(placed)
    assert selected(index, "has(a)") == {first, second}


def test_profile_named_twice() -> None:
    index = LabelIndex()
    index.set_profile("p", {"a": "x"})
    made = enter(index, {}, "p", "p")
    assert index.effective(made) == {"a": "x"}
    assert selected(index, "a == 'x'") == {made}
    index.set_profile("p", {})
    assert selected(index, "a == 'x'") == set()
    index.exit(made)
    index.set_profile("p", {"a": "y"})
    index.set_profile("p", {})


def test_what_overrides_what() -> None:
    index = LabelIndex()
    index.set_profile("p", {"a": "p", "b": "p", "c": "p"})
    index.set_profile("q", {"a": "q", "b": "q", "c": "q", "d": "q"})
    key = "projectcalico.org/namespace"
    made = enter(index, {"a": "own", key: "forged"}, "p", "q", namespace="n")
    expected = {"a": "own", "b": "p", "c": "p", "d": "q", key: "n"}
    assert index.effective(made) == expected
    text = " && ".join(f"{name} == '{value}'" for name, value in expected.items())
    assert selected(index, text) == {made}


def test_change_of_a_profile_that_no_selector_looks_at_moves_nobody() -> None:
    index = LabelIndex()
    index.set_profile("p", {"a": "x", "b": "x"})
    enter(index, {}, "p")
    index.ask([parse("a == 'x'")])
    settle(index)
    index.set_profile("p", {"a": "x", "b": "y"})
    assert index.settled
    index.set_profile("p", {"a": "y", "b": "y"})
    assert not index.settled


def test_profile_that_changes_its_keys_while_another_one_is_followed() -> None:
    index = LabelIndex()
    index.set_profile("first", {"a": "x"})
    index.set_profile("second", {"a": "x", "b": "1"})
    carriers = {enter(index, {}, "first"), enter(index, {}, "first"), enter(index, {}, "second")}
    selector = parse("has(a)")
    index.ask([selector])
    (placed,) = index.stale(1)
    index.place(placed)
    index.set_profile("second", {"a": "x", "c": "1"})
    settle(index)
    assert {carrier for each in index.answer(selector) for carrier in few.each(each.carriers)} == carriers


def test_carrier_that_goes_while_it_is_stale() -> None:
    index = LabelIndex()
    gone, stays = enter(index, {"a": "x"}), enter(index, {"a": "x"})
    selector = parse("has(a)")
    index.ask([selector])
    index.exit(gone)
    settle(index)
    assert {carrier for each in index.answer(selector) for carrier in few.each(each.carriers)} == {stays}


def test_groups_of_none_one_and_more() -> None:
    a, b = object(), object()
    group = few.add(None, a)
    assert (group, few.size(group), list(few.each(group)), few.as_set(group)) == (a, 1, [a], {a})
    assert few.add(group, a) is a
    group = few.add(group, b)
    assert (few.size(group), set(few.each(group)), few.as_set(group)) == (2, {a, b}, {a, b})
    group = few.remove(group, a)
    assert (few.size(group), set(few.each(group))) == (1, {b})
    assert few.remove(group, a) == {b}
    assert few.remove(group, b) is None
    assert few.remove(a, a) is None
    assert few.remove(a, b) is a
    assert (few.size(None), list(few.each(None)), few.as_set(None)) == (0, [], set())


def test_nothing_is_left_when_all_are_gone() -> None:
    index = LabelIndex(idle_keys=0)
    index.set_profile("p", {"b": "y"})
    made = index.enter(NOWHERE, {"a": "x"}, ("p", "missing"), (), ())
    selected(index, "a == 'x' && has(b)")
    settle(index)
    index.exit(made)
    index.set_profile("p", {})
    inner = index._classes
    left = {name: getattr(index, name) for name in index.__slots__} | {name: getattr(inner, name) for name in inner.__slots__}
    kept = {name for name, value in left.items() if isinstance(value, dict | set | tuple) and value}
    assert kept <= {"_texts"}

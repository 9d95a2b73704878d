"""Small groups know their members by what they are equal to, not by which object stands for them."""

from __future__ import annotations

from tabinet.calc import few
from tabinet.model.keys import ResourceKey


def key(name: str) -> ResourceKey:
    """Another object at each call, as keys that are read from the store are."""
    return ResourceKey("WorkloadEndpoint", "".join(name), "ns")


def test_equal_members_are_one() -> None:
    group = few.add(few.add(None, key("a")), key("a"))
    assert few.size(group) == 1
    assert few.remove(group, key("a")) is None
    assert few.remove(group, key("b")) == key("a")


def test_a_group_grows_and_shrinks_with_equal_members() -> None:
    group = few.add(few.add(few.add(None, key("a")), key("b")), key("b"))
    assert few.as_set(group) == {key("a"), key("b")}
    group = few.remove(group, key("a"))
    assert set(few.each(group)) == {key("b")}
    assert few.remove(group, key("b")) is None

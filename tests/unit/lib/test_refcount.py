"""Reference counts: first in, last out."""

import pytest

from tabinet.lib.refcount import RefCounter


def test_only_the_first_and_the_last_user_count() -> None:
    counter: RefCounter[str] = RefCounter()
    assert [counter.add("a"), counter.add("a"), counter.add("b")] == [True, False, True]
    assert (counter.count("a"), counter.count("c"), list(counter)) == (2, 0, ["a", "b"])
    assert [counter.drop("a"), "a" in counter, counter.drop("a"), "a" in counter] == [False, True, True, False]
    assert len(counter) == 1


def test_nobody_leaves_who_never_came() -> None:
    with pytest.raises(KeyError):
        RefCounter[str]().drop("a")

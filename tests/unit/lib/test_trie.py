"""The prefix trie: what covers what."""

import pytest

from tabinet.lib.ip import parse_prefix
from tabinet.lib.trie import PrefixTrie


def trie(*texts: str) -> PrefixTrie[str]:
    found: PrefixTrie[str] = PrefixTrie()
    for text in texts:
        found.set(parse_prefix(text), text)
    return found


def match(table: PrefixTrie[str], text: str) -> str | None:
    found = table.longest_match(parse_prefix(text))
    return found[1] if found else None


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.0.1", "10.0.0.1/32"),
        ("10.0.0.2", "10.0.0.0/24"),
        ("10.0.1.2", "10.0.0.0/16"),
        ("10.1.0.0", None),
        ("10.0.0.0/20", "10.0.0.0/16"),
        ("10.0.0.0/8", None),
        ("fd00::5", "fd00::/64"),
        ("fd00:0:0:1::5", None),
    ],
)
def test_longest_match(address: str, expected: str | None) -> None:
    table = trie("10.0.0.0/16", "10.0.0.0/24", "10.0.0.1/32", "fd00::/64")
    assert match(table, address) == expected


def test_the_default_route_covers_its_own_family_only() -> None:
    table = trie("0.0.0.0/0")
    assert match(table, "203.0.113.1") == "0.0.0.0/0"
    assert match(table, "fd00::1") is None


def test_covering_goes_from_short_to_long_and_covered_in_order() -> None:
    table = trie("10.0.0.0/24", "10.0.0.0/8", "10.0.0.1/32", "10.0.1.0/24", "11.0.0.0/8")
    assert [value for _, value in table.covering(parse_prefix("10.0.0.1"))] == ["10.0.0.0/8", "10.0.0.0/24", "10.0.0.1/32"]
    assert [value for _, value in table.covered(parse_prefix("10.0.0.0/16"))] == ["10.0.0.0/24", "10.0.0.1/32", "10.0.1.0/24"]
    assert [value for _, value in table.covered(parse_prefix("10.0.0.0/24"))] == ["10.0.0.0/24", "10.0.0.1/32"]


def test_delete_takes_only_what_was_asked_for() -> None:
    table = trie("10.0.0.0/24", "10.0.0.0/25", "10.0.0.128/25")
    table.delete(parse_prefix("10.0.0.0/24"))
    assert match(table, "10.0.0.200") == "10.0.0.128/25"
    assert len(table) == 2
    with pytest.raises(KeyError):
        table.delete(parse_prefix("10.0.0.0/24"))


def test_a_value_is_replaced() -> None:
    table = trie("10.0.0.0/24")
    table.set(parse_prefix("10.0.0.0/24"), "new")
    assert (len(table), table.get(parse_prefix("10.0.0.0/24"))) == (1, "new")
    assert parse_prefix("10.0.0.0/25") not in table

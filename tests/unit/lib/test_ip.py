"""Prefixes: reading, writing and the algebra."""

import pytest

from tabinet.lib.ip import Prefix, parse_address, parse_prefix

BAD_ADDRESSES = [
    "",
    "1.2.3",
    "1.2.3.4.5",
    "256.1.1.1",
    "01.2.3.4",
    "1.2.3.4 ",
    " 1.2.3.4",
    "1.2.3.-4",
    "1.2.3.٤",
    "a.b.c.d",
    "fe80::1%eth0",
    ":::",
    "1::2::3",
    "1.2.3.4/32",
]
BAD_PREFIXES = [
    *BAD_ADDRESSES[:-1],
    "1.2.3.4/33",
    "1.2.3.4/",
    "1.2.3.4/-1",
    "1.2.3.4/08",
    "1.2.3.4/ 8",
    "fd00::/129",
    "10.99.0.0/24/32",
    "/8",
    "1.2.3.4/٨",
]


@pytest.mark.parametrize("text", BAD_ADDRESSES)
def test_what_is_no_address_raises(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_address(text)


@pytest.mark.parametrize("text", BAD_PREFIXES)
def test_what_is_no_prefix_raises(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_prefix(text)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("10.1.2.3", "10.1.2.3/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("FD00:0:0::1/64", "fd00::/64"),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.1/128"),
        ("::/0", "::/0"),
    ],
)
def test_canonical_text(text: str, canonical: str) -> None:
    assert parse_prefix(str(parse_prefix(text))) == parse_prefix(canonical)
    assert parse_prefix(text) == parse_prefix(canonical)


def test_strict_refuses_host_bits() -> None:
    assert parse_prefix("10.0.0.0/8", strict=True).length == 8
    with pytest.raises(ValueError, match="host bits"):
        parse_prefix("10.0.0.1/8", strict=True)


def test_containment_and_overlap() -> None:
    ten, part, other = parse_prefix("10.0.0.0/8"), parse_prefix("10.1.0.0/16"), parse_prefix("::/0")
    assert ten.contains(part)
    assert not part.contains(ten)
    assert part.overlaps(ten)
    assert not ten.overlaps(other)
    assert ten.contains(ten)


def test_sizes_and_hosts() -> None:
    prefix = parse_prefix("10.0.0.0/30")
    assert (prefix.size, prefix.last, prefix.packed) == (4, prefix.value + 3, bytes((10, 0, 0, 0)))
    assert str(prefix.host(3)) == "10.0.0.3/32"
    assert prefix.host(3).is_host
    with pytest.raises(IndexError):
        prefix.host(4)
    assert parse_prefix("::/0").size == 1 << 128


def test_families_differ_even_with_equal_numbers() -> None:
    assert Prefix(4, 0, 0) != Prefix(6, 0, 0)
    assert sorted([parse_prefix("::/0"), parse_prefix("10.0.0.0/8"), parse_prefix("9.0.0.0/8")])[0] == parse_prefix("9.0.0.0/8")

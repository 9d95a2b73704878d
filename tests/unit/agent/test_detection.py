"""Which addresses a host would get: what is given, what it has, what the way to its peers says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tabinet.agent.detection import OUTSIDE, Owned, detect
from tabinet.errors import InputError
from tabinet.lib.ip import Prefix, parse_address, parse_prefix

HERE = tuple(
    Owned(interface, parse_address(address), length)
    for interface, address, length in (
        ("docker0", "172.17.0.1", 16),
        ("eth0", "10.1.0.5", 24),
        ("eth1", "10.2.0.5", 24),
        ("lo", "10.254.0.5", 32),
        ("eth0", "fd00:1::5", 64),
    )
)
WAYS = {"10.1.0.0/16": "10.1.0.5", "10.2.0.0/16": "10.2.0.5", "0.0.0.0/0": "10.2.0.5", "fd00::/16": "fd00:1::5"}
NONE = {4: None, 6: None}


def source(target: Prefix) -> Prefix | None:
    ways = [(parse_prefix(net), address) for net, address in WAYS.items() if parse_prefix(net).contains(target)]
    return parse_address(max(ways, key=lambda way: way[0].length)[1]) if ways else None


def node(name: str, **bgp: str) -> Mapping[str, Any]:
    return {"metadata": {"name": name}, "spec": {"bgp": bgp}}


def found(before: Mapping[str, Any] | None = None, *nodes: Mapping[str, Any], **more: Any) -> dict[int, str]:
    given = NONE | more.pop("given", {})
    return detect("me", before, nodes, given=given, owned=lambda: HERE, source=source, **more).addresses


def test_the_way_to_the_peers_decides_and_else_the_way_out() -> None:
    assert found() == {4: "10.2.0.5/24"}
    assert found(None, node("other", ipv4Address="10.1.0.6/24", ipv6Address="fd00:1::6/64")) == {4: "10.1.0.5/24", 6: "fd00:1::5/64"}
    assert found(None, node("me", ipv4Address="10.1.0.6/24")) == {4: "10.2.0.5/24"}
    assert found(None, node("other", ipv4Address="10.1.0.6/24"), reach=("10.2.9.9",)) == {4: "10.2.0.5/24"}
    assert found(None, node("other", ipv6Address="fd00:1::6/64"), reach=("10.2.9.9",)) == {4: "10.2.0.5/24", 6: "fd00:1::5/64"}


def test_an_address_that_the_host_still_has_stays() -> None:
    assert found(node("me", ipv4Address="10.1.0.5/24"), node("other", ipv4Address="10.2.0.6/24")) == {4: "10.1.0.5/24"}
    assert found(node("me", ipv4Address="10.254.0.5/32")) == {4: "10.254.0.5/32"}
    assert found(node("me", ipv4Address="10.1.0.99/24")) == {4: "10.2.0.5/24"}
    assert found(node("me", ipv4Address="nonsense")) == {4: "10.2.0.5/24"}


def test_what_is_given_is_taken() -> None:
    assert found(given={4: "10.254.0.5", 6: "none"}) == {4: "10.254.0.5/32"}
    assert found(given={4: "10.1.0.5", 6: "fd00::7/48"}) == {4: "10.1.0.5/24", 6: "fd00::7/48"}
    with pytest.raises(InputError, match=r"--ip6: got .*; an IPv6 address"):
        found(given={6: "10.0.0.1"})
    with pytest.raises(InputError, match="--reach"):
        found(reach=("x",))


def test_addresses_of_the_loopback_net_are_nobodys() -> None:
    detected = detect("me", None, (), given=NONE, owned=lambda: HERE, source=lambda _: parse_address("127.0.0.1"))
    assert (detected.addresses, detected.how[4]) == ({}, "no route to peers or to the outside")
    assert source(OUTSIDE[6]) is None

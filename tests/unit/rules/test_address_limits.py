"""Limits of floating addresses: what the kernel is asked for, and whose they are."""

from __future__ import annotations

import msgspec
import pytest

from tabinet.calc import messages as m
from tabinet.lib.ip import parse_address
from tabinet.model.keys import ResourceKey
from tabinet.rules.addresslimits import bytes_over
from tabinet.rules.builder import TableBuilder
from tabinet.rules.ir import BytesOver
from tabinet.rules.options import TableOptions

ADDRESS = parse_address("192.0.2.9")
FAST, SLOW = (m.Qos(ingress=m.Limits(bandwidth_bit_s=rate)) for rate in (80_000_000, 8_000_000))


def endpoint(name: str, qos: m.Qos | None) -> m.EndpointUpdate:
    own = parse_address(f"10.0.0.{ord(name)}")
    body = m.Endpoint("h", f"cali{name}", "", (own,), (), (), (), (), (m.Nat(ADDRESS, own),))
    asked = () if qos is None else (m.AddressQos(ADDRESS, qos),)
    return m.EndpointUpdate(ResourceKey("WorkloadEndpoint", name, "default"), 1, msgspec.structs.replace(body, address_qos=asked))


@pytest.mark.parametrize(
    ("bandwidth_bit_s", "burst_bits", "expected"),
    [
        (0, 8_000, None),
        (8_000_000, 0, BytesOver(1_000_000, 0)),
        (8_000_000, 6_400_000, BytesOver(1_000_000, 0)),
        (8_000_000, 16_000_000, BytesOver(1_000_000, 1_000_000)),
        (8_000, 8_000, BytesOver(1_000, 64_536)),
        (1, 0, BytesOver(1, 65_535)),
        (10**15, 1 << 45, BytesOver(125 * 10**12, 0)),
        (8_000, 1 << 45, BytesOver(1_000, (1 << 32) - 1)),
    ],
)
def test_the_bucket_holds_the_burst_or_what_a_second_brings(bandwidth_bit_s: int, burst_bits: int, expected: BytesOver | None):
    assert bytes_over(m.Limits(bandwidth_bit_s=bandwidth_bit_s, burst_bits=burst_bits)) == expected


def test_of_several_the_smallest_key_decides_and_the_last_takes_all_away():
    builder = TableBuilder()
    before = dict(builder.table.chains)

    def told(*updates: m.Update) -> list[int]:
        for update in updates:
            builder.on_update(update)
        builder.flush()
        found = builder.table.maps["address_ingress4"]
        rules = [rule for chain in found.values() for rule in builder.table.chains[chain].rules]
        return [match.per_second for rule in rules for match in rule.matches if isinstance(match, BytesOver)]

    assert told(endpoint("b", SLOW)) == [1_000_000]
    assert told(endpoint("a", FAST)) == [10_000_000]
    assert told(endpoint("a", None)) == [1_000_000]
    assert told(m.EndpointRemove(ResourceKey("WorkloadEndpoint", "b", "default"))) == []
    assert told(m.EndpointRemove(ResourceKey("WorkloadEndpoint", "a", "default"))) == []
    assert builder.table.chains == before


def test_nothing_is_limited_where_addresses_do_not_float():
    builder = TableBuilder(TableOptions(floating_addresses=False))
    builder.on_update(endpoint("a", FAST))
    builder.flush()
    assert not builder.table.maps["address_ingress4"]
    assert "address_in" not in builder.table.chains

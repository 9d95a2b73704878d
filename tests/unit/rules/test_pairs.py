"""Allowed address pairs: exactly the combinations of MAC and source address that were said pass the table's first chains."""

from __future__ import annotations

import msgspec
import pytest

from tabinet.calc import messages as m
from tabinet.lib.ip import parse_address, parse_prefix
from tabinet.model.keys import ResourceKey
from tabinet.rules.builder import TableBuilder
from tabinet.rules.evaluate import Packet, evaluate
from tabinet.rules.ir import Table
from tabinet.rules.options import TableOptions

OWN, VIRTUAL, OTHER, STRANGER = "02:00:00:00:00:01", "00:00:5e:00:01:07", "00:00:5e:00:01:08", "02:00:00:00:00:99"
FIXED, SHARED, SECOND, BOTH = "10.0.0.1", "10.0.0.7", "10.0.0.8", "10.0.0.9"
ENDPOINT = m.Endpoint(
    "h",
    "tap1",
    OWN,
    tuple(sorted(parse_address(text) for text in (FIXED, SHARED, SECOND, BOTH, "fd00::1"))),
    (parse_prefix("10.5.0.0/24"), parse_prefix("10.6.0.0/24")),
    (),
    (),
    ("open",),
    pairs=(
        m.Pair(parse_address(SHARED), VIRTUAL),
        m.Pair(parse_address(SECOND), OTHER),
        m.Pair(parse_address(BOTH), ""),
        m.Pair(parse_address(BOTH), OTHER),
        m.Pair(parse_prefix("10.5.0.0/24"), ""),
        m.Pair(parse_prefix("10.6.0.0/24"), VIRTUAL),
        m.Pair(parse_prefix("fd00:6::/64"), VIRTUAL),
    ),
)


def table(endpoint: m.Endpoint, **options: object) -> Table:
    builder = TableBuilder(TableOptions(interface_prefixes=("tap",), **options))
    builder.on_update(m.ProfileUpdate("open", m.Policy((m.Rule(m.Action.ALLOW),), (m.Rule(m.Action.ALLOW),))))
    builder.on_update(m.EndpointUpdate(ResourceKey("WorkloadEndpoint", "w", "openstack"), 1, endpoint))
    builder.flush()
    return builder.table


def passes(table: Table, source: str, mac: str) -> bool:
    destination = "fd00::ff" if ":" in source else "10.0.9.9"
    packet = Packet("tap1", "eth0", parse_address(source), parse_address(destination), 17, 5000, 5000, mac=mac)
    return evaluate(table, packet, "prerouting").accepted


@pytest.mark.parametrize(
    ("source", "macs"),
    [
        (FIXED, {OWN}),
        ("fd00::1", {OWN}),
        (SHARED, {VIRTUAL}),
        (SECOND, {OTHER}),
        (BOTH, {OWN, OTHER}),
        ("10.5.0.200", {OWN}),
        ("10.6.0.200", {VIRTUAL}),
        ("fd00:6::5", {VIRTUAL}),
        ("10.0.0.2", set()),
        ("fd00:7::5", set()),
    ],
)
@pytest.mark.parametrize("spoofing", [True, False])
def test_exactly_the_combinations_that_were_said_pass(source: str, macs: set[str], spoofing: bool) -> None:
    """Whatever workloadSourceSpoofing says: that Felix needs it for prefixes is not Neutron's concern."""
    made = table(ENDPOINT, allow_source_prefixes=spoofing)
    assert {mac for mac in (OWN, VIRTUAL, OTHER, STRANGER) if passes(made, source, mac)} == macs


def test_prefixes_that_are_no_pairs_count_only_where_spoofing_is_allowed() -> None:
    plain = msgspec.structs.replace(ENDPOINT, pairs=(), spoof_nets=(parse_prefix("10.5.0.0/24"), parse_address("10.4.0.1")))
    for spoofing in (True, False):
        made = table(plain, allow_source_prefixes=spoofing)
        assert [passes(made, source, OWN) for source in ("10.5.0.2", "10.4.0.1", FIXED)] == [spoofing, spoofing, True]


def test_without_port_security_everything_passes_with_every_mac() -> None:
    anywhere = (m.Pair(parse_prefix("0.0.0.0/0"), ""), m.Pair(parse_prefix("::/0"), ""))
    made = table(msgspec.structs.replace(ENDPOINT, pairs=anywhere, any_mac=True), allow_source_prefixes=False)
    assert all(passes(made, source, mac) for source in ("192.0.2.1", "fd99::1", FIXED) for mac in (OWN, STRANGER))


def test_where_macs_are_not_checked_a_pairs_mac_says_nothing() -> None:
    for made in (table(ENDPOINT, check_hardware=False), table(msgspec.structs.replace(ENDPOINT, mac=""))):
        assert all(passes(made, source, STRANGER) for source in (FIXED, SHARED, "10.6.0.1"))
        assert "pair_sources" not in made.chains


def test_what_nobody_needs_is_not_there() -> None:
    builder = TableBuilder(TableOptions(interface_prefixes=("tap",)))
    key = ResourceKey("WorkloadEndpoint", "w", "openstack")
    for pairs, expected in ((ENDPOINT.pairs, True), ((), False), (ENDPOINT.pairs, True)):
        builder.on_update(m.EndpointUpdate(key, 1, msgspec.structs.replace(ENDPOINT, pairs=pairs)))
        builder.flush()
        assert ("pair_sources" in builder.table.chains) is expected
    builder.on_update(m.EndpointRemove(key))
    builder.flush()
    assert "pair_sources" not in builder.table.chains

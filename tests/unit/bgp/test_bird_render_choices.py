"""How a session is run: direct or over several hops, and from which address; and that names cannot clash."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabinet.bgp.names import symbol
from tabinet.bgp.records import BgpOptions, HostFacts, InterfaceAddress
from tabinet.bgp.refusals import read_refusal
from tabinet.bgp.render import render_config
from tabinet.bgp.render_sessions import direct_interface
from tabinet.calc.messages import BgpIntent, PeerIntent
from tabinet.lib.ip import parse_address

LOOPBACK = InterfaceAddress("lo", parse_address("10.254.0.7"), 32)
WIDE = InterfaceAddress("eth0", parse_address("10.7.0.1"), 16)
NARROW = InterfaceAddress("eth1", parse_address("10.7.8.1"), 31)


def intent(own: str, *peers: PeerIntent) -> BgpIntent:
    return BgpIntent("h", 64512, "10.0.0.1", parse_address(own), None, 179, "Info", peers, (), (), ())


def peer(address: str, use_node_ip: bool) -> PeerIntent:
    return PeerIntent("p", parse_address(address), 179, 65000, False, use_node_ip, True, 0, 0)


@pytest.mark.parametrize(
    ("own", "address", "use_node_ip", "expected"),
    [
        pytest.param("10.254.0.7", "10.7.8.0", False, NARROW, id="the smallest subnet wins"),
        pytest.param("10.254.0.7", "10.7.9.9", False, WIDE, id="a larger one"),
        pytest.param("10.254.0.7", "10.9.0.1", False, None, id="not connected"),
        pytest.param("10.254.0.7", "10.254.0.7", False, None, id="a loopback is no subnet"),
        pytest.param("10.7.0.1", "10.7.9.9", True, WIDE, id="own address on the link"),
        pytest.param("10.254.0.7", "10.7.8.0", True, None, id="own address elsewhere"),
    ],
)
def test_which_interface(own: str, address: str, use_node_ip: bool, expected: InterfaceAddress | None) -> None:
    session = peer(address, use_node_ip)
    assert direct_interface(session, intent(own, session), HostFacts((LOOPBACK, WIDE, NARROW))) == expected


def test_an_interface_that_bird_cannot_name_is_no_direct_interface() -> None:
    session = peer("10.7.9.9", False)
    facts = HostFacts((InterfaceAddress("-eth*", parse_address("10.7.0.1"), 16),))
    assert direct_interface(session, intent("10.7.0.1", session), facts) is None


def test_the_source_address_of_routes_is_one_that_the_host_has() -> None:
    with_it = render_config(intent("10.254.0.7"), HostFacts((LOOPBACK,)), BgpOptions())
    without = render_config(intent("10.254.0.7"), HostFacts(), BgpOptions())
    assert "krt_prefsrc = 10.254.0.7" in with_it
    assert "krt_prefsrc" not in without


@given(st.sets(st.text(alphabet="ab_.:-/ é", min_size=1, max_size=60), min_size=2, max_size=8))
def test_names_of_different_peers_differ(names: set[str]) -> None:
    symbols = {symbol("tb_workload_", name) for name in names}
    assert len(symbols) == len(names)
    assert all(len(symbol) < 64 for symbol in symbols)


def test_a_refusal_outside_of_a_session_names_the_line_only() -> None:
    assert read_refusal("/x/bird.conf:2:4 syntax error", "one\ntwo\n").words == "line 2: syntax error: two"
    assert read_refusal("/x/bird.conf:9:4 syntax error", "one\n").words == "/x/bird.conf:9:4 syntax error"
    assert read_refusal("no such program", "one\n").words == "no such program"

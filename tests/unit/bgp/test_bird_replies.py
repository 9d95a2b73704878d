"""Replies of BIRD 2.0.12, as captured, and what becomes of them."""

import pytest

from tabinet.bgp.reasons import CAUSES, SILENT
from tabinet.bgp.records import Channel, SessionState
from tabinet.bgp.replies import TableCount, error_in, parse_reply, parse_route_count, parse_sessions, parse_status, parse_time
from tabinet.errors import BirdError

PROTOCOLS = b"""2002-Name       Proto      Table      State  Since         Info
1002-tb_device  Device     ---        up     2026-11-25 09:48:30.923  
1006-
1002-tb_kernel4 Kernel     master4    up     2026-11-25 09:48:30.923  
1006-  Channel ipv4
     State:          UP
     Routes:         7 imported, 3 exported, 0 preferred
 
1002-tb_peer_far BGP        ---        start  2026-11-25 09:48:30.923  Active        Socket: Network is unreachable
1006-  Description:    far
   BGP state:          Active
     Neighbor address: 10.8.0.2
     Neighbor AS:      64512
     Local AS:         64512
     Connect delay:    0.552/1
     Last error:       Socket: Network is unreachable
   Channel ipv4
     State:          DOWN
     Table:          master4
     Import limit:   100000
       Action:       restart
     IGP IPv4 table: master4
 
1002-tb_peer_Mesh_h2_v6 BGP        ---        up     2026-11-25 09:48:31.826  Established   
1006-  Description:    Mesh_h2_v6
   BGP state:          Established
     Neighbor address: fd00:7::2%eth0
     Neighbor AS:      64512
     Local AS:         64512
     Neighbor capabilities
       Multiprotocol
         AF announced: ipv6
     Session:          internal AS4
     Source address:   fd00:7::1
   Channel ipv6
     State:          UP
     Routes:         5 imported, 1 exported, 4 preferred
     Route change stats:     received   rejected   filtered    ignored   accepted
       Import updates:              7          0          2          0          5
       Import withdraws:            0          0        ---          0          0
     BGP Next hop:   fd00:7::1
 
0000 
"""  # noqa: W291, W293 (as BIRD sends it)
BFD = b"""1020-tb_bfd:
 IP address                Interface  State      Since         Interval  Timeout
 10.7.0.2                  eth0       Down       2026-11-25 09:49:25.372    1.000    0.000
 fd00:7::2                 eth0       Up         2026-11-25 09:49:25.372    0.100    0.300
0000 
"""  # noqa: W291 (as BIRD sends it)


def lines(data: bytes):
    reply = parse_reply(data)
    assert reply is not None
    assert reply[1] == b""
    return reply[0]


def test_sessions_carry_names_state_counts_and_reason() -> None:
    established, waiting = parse_sessions(lines(PROTOCOLS), lines(BFD))
    assert (established.name, established.peer, established.address, established.peer_as) == (
        "tb_peer_Mesh_h2_v6",
        "Mesh_h2_v6",
        "fd00:7::2",
        64512,
    )
    assert (established.state, established.since, established.bfd) == (SessionState.ESTABLISHED, "2026-11-25 09:48:31.826", "Up")
    assert (established.bfd_interval_ms, established.bfd_timeout_ms) == (100, 300)
    assert established.channels == (Channel(family=6, imported=5, filtered=2, exported=1, preferred=4),)
    assert established.reason == ""
    assert (waiting.peer, waiting.state, waiting.bfd) == ("far", SessionState.ACTIVE, "")
    assert waiting.channels == (Channel(4, 0, 0, 0, 0),)
    assert waiting.reason == "this host has no route to the peer (Socket: Network is unreachable)"


@pytest.mark.parametrize(("fragment", "words"), CAUSES)
def test_each_error_has_its_words(fragment: str, words: str) -> None:
    data = PROTOCOLS.replace(b"Socket: Network is unreachable", f"BGP Error: {fragment}".encode())
    assert parse_sessions(lines(data), ())[1].reason == f"{words} (BGP Error: {fragment})"


@pytest.mark.parametrize("state", SILENT)
def test_a_state_without_error_has_words_too(state: SessionState) -> None:
    data = PROTOCOLS.replace(b"     Last error:       Socket: Network is unreachable\n", b"")
    data = data.replace(b"BGP state:          Active", b"BGP state:          " + state.value.encode())
    assert parse_sessions(lines(data), ())[1].reason == SILENT[state]


def test_an_unknown_error_is_shown_as_it_is() -> None:
    data = PROTOCOLS.replace(b"Socket: Network is unreachable", b"BGP Error: moon in the wrong house")
    assert parse_sessions(lines(data), ())[1].reason == "BGP Error: moon in the wrong house"


def test_status() -> None:
    status = parse_status(
        lines(
            b"1000-BIRD 2.0.12\n1011-Router ID is 10.7.0.1\n Hostname is vm\n Current server time is 2026-11-25 09:48:34.576\n"
            b" Last reboot on 2026-11-25 09:48:30.923\n Last reconfiguration on 2026-11-25 09:48:31.500\n0013 Daemon is up and running\n"
        )
    )
    assert (status.version, status.router_id, status.message) == ("2.0.12", "10.7.0.1", "Daemon is up and running")
    assert status.last_reconfiguration_s == parse_time("2026-11-25 09:48:31.500")


def test_route_count() -> None:
    reply = lines(
        b"1007-4 of 6 routes for 4 networks in table master4\n 3 of 3 routes for 2 networks in table master6\n0014 Total: 7 of 7 routes\n"
    )
    assert parse_route_count(reply) == (TableCount("master4", 6, 4), TableCount("master6", 3, 2))


def test_an_error_is_found_whatever_came_before() -> None:
    reply = lines(b"0002-Reading configuration from /x\n8002 /x:1:1 syntax error, unexpected GARBAGE\n")
    assert error_in(reply) == "/x:1:1 syntax error, unexpected GARBAGE"
    assert error_in(lines(b"0003 Reconfigured\n")) == ""


def test_a_reply_is_complete_with_its_last_line_only() -> None:
    assert parse_reply(b"") is None
    assert parse_reply(b"0002-Reading\n") is None
    assert parse_reply(b"0002-Reading\n0003 Reconf") is None
    found = parse_reply(b"0001 BIRD\n0003 Reconfigured\n")
    assert found is not None
    assert found[1] == b"0003 Reconfigured\n"


@pytest.mark.parametrize("data", [b"SSH-2.0-x\n", b" no code before\n", b"12\n", b"\n", b"00a1 x\n"])
def test_another_protocol_is_refused(data: bytes) -> None:
    with pytest.raises(BirdError):
        parse_reply(data)

"""BIRD's routes as captured, and the CalicoNodeStatus that is made of routes, sessions and BIRD's state."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tabinet.bgp.nodestatus import BirdView, node_status
from tabinet.bgp.records import Origin, SessionState, SessionStatus
from tabinet.bgp.replies import BirdStatus, ReplyLine, parse_reply
from tabinet.bgp.routes import RouteStatus, parse_routes
from tabinet.lib.ip import parse_prefix
from tabinet.model import resources as r

ROUTES = b"""1007-Table master4:
 10.65.0.5/32         unicast [tb_kernel4 2026-11-25 11:05:28.218] * (250)
 \tdev cali1
                      unreachable [tb_blocks4 2026-11-25 11:05:28.212] (200)
 10.65.1.0/26         unicast [tb_peer_mesh_h2_ipv4 2026-11-25 11:05:28.212 from 10.7.0.2] * (100) [i]
 \tvia 10.7.0.2 on eth0
 10.66.0.0/24         unicast [tb_kernel4 2026-11-25 11:05:28.218] * (10)
 \tvia 10.1.0.7 on d0 weight 1
 \tvia 10.1.0.8 on d0 weight 1
1007-Table master6:
 fd00:65::/122        blackhole [tb_blocks6 2026-11-25 11:05:28.212] * (200)
 fd00:66::/122        unicast [tb_peer_up 2026-11-25 11:05:28.212 from fe80::99%up0] * (100) [AS65111i]
 \tvia fe80::99 on up0
0000 end
"""
NOW = "2026-11-25T11:06:00Z"


def parsed(data: bytes, limit: int = 100) -> tuple[RouteStatus, ...]:
    reply = parse_reply(data)
    assert reply is not None
    return parse_routes(reply[0], limit)


def session(name: str, address: str, origin: Origin | None, state: SessionState = SessionState.ESTABLISHED) -> SessionStatus:
    return SessionStatus(name=name, peer=name, address=address, state=state, since="2026-11-25 11:05:30.000", origin=origin)


SESSIONS = (
    session("tb_peer_mesh_h2_ipv4", "10.7.0.2", Origin.MESH),
    session("tb_peer_rack", "10.7.0.9", Origin.NODE, SessionState.DOWN),
    session("tb_peer_up", "fe80::99", Origin.GLOBAL),
    session("somebody's", "10.7.0.7", None),
)


def test_routes_as_bird_tells_them() -> None:
    found = parsed(ROUTES)
    assert [(str(route.destination), route.protocol, route.best, route.kind) for route in found] == [
        ("10.65.0.5/32", "tb_kernel4", True, "unicast"),
        ("10.65.0.5/32", "tb_blocks4", False, "unreachable"),
        ("10.65.1.0/26", "tb_peer_mesh_h2_ipv4", True, "unicast"),
        ("10.66.0.0/24", "tb_kernel4", True, "unicast"),
        ("fd00:65::/122", "tb_blocks6", True, "blackhole"),
        ("fd00:66::/122", "tb_peer_up", True, "unicast"),
    ]
    assert found[0].hops == (("", "cali1"),)
    assert (found[2].learned_from, found[2].hops) == ("10.7.0.2", (("10.7.0.2", "eth0"),))
    assert found[3].hops == (("10.1.0.7", "d0"), ("10.1.0.8", "d0"))
    assert found[5].learned_from == "fe80::99"
    assert len(parsed(ROUTES, 2)) == 2


@given(st.lists(st.text(alphabet="10./ unicastblackhole[]*viaondev\tx", max_size=60), max_size=8))
def test_any_lines_give_routes(texts: list[str]) -> None:
    for route in parse_routes([ReplyLine(1007, text) for text in texts], 100):
        assert route.destination == parse_prefix(str(route.destination))


def test_a_node_status_has_the_classes_that_were_asked_for() -> None:
    status = BirdStatus(version="2.0.12", router_id="10.7.0.1", started="2026-11-25 11:00:00.000", configured="2026-11-25 11:05:00.000")
    view = BirdView(status=status, sessions=SESSIONS, routes=parsed(ROUTES), families=(4,))
    daemon = r.BgpDaemonStatus(
        state="Ready",
        version="2.0.12",
        router_id="10.7.0.1",
        last_boot_time="2026-11-25 11:00:00.000",
        last_reconfiguration_time="2026-11-25 11:05:00.000",
    )
    assert node_status(("Agent",), view, NOW) == r.CalicoNodeStatusStatus(last_updated=NOW, agent=r.NodeAgentStatus(bird_v4=daemon))
    bgp = node_status(("BGP",), view, NOW).bgp
    assert bgp is not None
    assert (bgp.number_established_v4, bgp.number_not_established_v4) == (1, 1)
    assert (bgp.number_established_v6, bgp.number_not_established_v6) == (1, 0)
    assert [(peer.peer_ip, peer.type, peer.state) for peer in (*bgp.peers_v4, *bgp.peers_v6)] == [
        ("10.7.0.2", "NodeMesh", "Established"),
        ("10.7.0.9", "NodePeer", "Idle"),
        ("fe80::99", "GlobalPeer", "Established"),
    ]


def test_routes_in_a_node_status_say_where_they_are_from() -> None:
    routes = node_status(("Routes",), BirdView(sessions=SESSIONS, routes=parsed(ROUTES)), NOW).routes
    assert routes is not None
    told = [
        (route.type, route.destination, route.gateway, route.interface, route.learned_from and route.learned_from.source_type)
        for route in (*routes.routes_v4, *routes.routes_v6)
    ]
    assert told == [
        ("FIB", "10.65.0.5/32", "", "cali1", "Kernel"),
        ("RIB", "10.65.0.5/32", "N/A", "unreachable", "Static"),
        ("FIB", "10.65.1.0/26", "10.7.0.2", "eth0", "NodeMesh"),
        ("FIB", "10.66.0.0/24", "10.1.0.7", "d0", "Kernel"),
        ("FIB", "fd00:65::/122", "N/A", "blackhole", "Static"),
        ("FIB", "fd00:66::/122", "fe80::99", "up0", "BGPPeer"),
    ]
    assert routes.routes_v4[2].learned_from == r.RouteOrigin(source_type="NodeMesh", peer_ip="10.7.0.2")


def test_a_bird_that_is_away_is_not_ready() -> None:
    status = node_status(("Agent", "BGP", "Routes"), BirdView(), NOW)
    encoded = msgspec.to_builtins(status)
    assert encoded["agent"] == {"birdV4": {"state": "NotReady"}, "birdV6": {"state": "NotReady"}}

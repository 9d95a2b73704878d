"""The state of a host's BGP as Calico's CalicoNodeStatus has it.

In: what BIRD says (status, sessions, routes), what was asked for (classes). Out: the ``status`` of the resource. Pure; linear in sessions
and routes. One BIRD serves both families here, so both of Calico's daemons are the same one; a family that the host has no address of has
none. At most ``MOST_ROUTES`` of each family are told: the value has to fit into the store.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from tabinet.bgp.records import Origin, SessionState, SessionStatus
from tabinet.bgp.replies import BirdStatus
from tabinet.bgp.routes import RouteStatus
from tabinet.lib.ip import IPV4, IPV6
from tabinet.model.resources import (
    BgpDaemonStatus,
    BgpSessionStatus,
    CalicoNodeStatusStatus,
    NodeAgentStatus,
    NodeBgpStatus,
    NodeRoute,
    NodeRoutes,
    RouteOrigin,
)

AGENT, BGP, ROUTES = "Agent", "BGP", "Routes"
"""The classes that a CalicoNodeStatus can ask for."""
MOST_ROUTES = 2000

_TYPES = {Origin.MESH: "NodeMesh", Origin.NODE: "NodePeer", Origin.GLOBAL: "GlobalPeer", Origin.WORKLOAD: "GlobalPeer"}
_SOURCES = (("tb_kernel", "Kernel"), ("tb_direct", "Direct"), ("tb_", "Static"))
"""Beginnings of names of BIRD's protocols that are no sessions, and what Calico calls such a source. The first that fits counts."""


class BirdView(msgspec.Struct, frozen=True):
    """What BIRD says of itself."""

    status: BirdStatus | None = None
    """``None``: it does not answer."""
    sessions: tuple[SessionStatus, ...] = ()
    routes: tuple[RouteStatus, ...] = ()
    families: tuple[int, ...] = (IPV4, IPV6)
    """Those that the host has an address of."""


def node_status(classes: Collection[str], view: BirdView, now: str) -> CalicoNodeStatusStatus:
    """The report with these classes. ``now``: RFC 3339, UTC."""
    daemon = _daemon(view.status)
    four, six = IPV4 in view.families, IPV6 in view.families
    agent = NodeAgentStatus(bird_v4=daemon if four else None, bird_v6=daemon if six else None)
    return CalicoNodeStatusStatus(
        last_updated=now,
        agent=agent if AGENT in classes else None,
        bgp=_sessions(view.sessions) if BGP in classes else None,
        routes=_routes(view) if ROUTES in classes else None,
    )


def _daemon(status: BirdStatus | None) -> BgpDaemonStatus:
    if status is None:
        return BgpDaemonStatus(state="NotReady")
    return BgpDaemonStatus(
        state="Ready",
        version=status.version,
        router_id=status.router_id,
        last_boot_time=status.started,
        last_reconfiguration_time=status.configured,
    )


def _sessions(sessions: Iterable[SessionStatus]) -> NodeBgpStatus:
    ours = [session for session in sessions if session.origin is not None]
    four = tuple(_session(session) for session in ours if ":" not in session.address)
    six = tuple(_session(session) for session in ours if ":" in session.address)

    def up(peers: tuple[BgpSessionStatus, ...]) -> int:
        return sum(peer.state == SessionState.ESTABLISHED.value for peer in peers)

    return NodeBgpStatus(
        number_established_v4=up(four),
        number_not_established_v4=len(four) - up(four),
        number_established_v6=up(six),
        number_not_established_v6=len(six) - up(six),
        peers_v4=four,
        peers_v6=six,
    )


def _session(session: SessionStatus) -> BgpSessionStatus:
    # Calico has no word for sessions that are not run.
    state = SessionState.IDLE if session.state in (SessionState.DOWN, SessionState.PASSIVE) else session.state
    return BgpSessionStatus(
        peer_ip=session.address,
        type=_TYPES[session.origin] if session.origin else "",
        state=state.value,
        since=session.since,
    )


def _routes(view: BirdView) -> NodeRoutes:
    sessions = {session.name: session for session in view.sessions if session.origin is not None}

    def of(family: int) -> tuple[NodeRoute, ...]:
        chosen = [route for route in view.routes if route.destination.family == family][:MOST_ROUTES]
        return tuple(_route(route, sessions.get(route.protocol)) for route in chosen)

    return NodeRoutes(routes_v4=of(IPV4), routes_v6=of(IPV6))


def _route(route: RouteStatus, session: SessionStatus | None) -> NodeRoute:
    gateway, interface = route.hops[0] if route.hops else ("", "")
    if session is not None:
        kind = "NodeMesh" if session.origin is Origin.MESH else "BGPPeer"
        learned = RouteOrigin(source_type=kind, peer_ip=session.address)
    else:
        kind = next((word for prefix, word in _SOURCES if route.protocol.startswith(prefix)), "Kernel")
        learned = RouteOrigin(source_type=kind)
    return NodeRoute(
        type="FIB" if route.best else "RIB",
        destination=str(route.destination),
        gateway=gateway or ("N/A" if not interface else ""),
        interface=interface or route.kind,
        learned_from=learned,
    )

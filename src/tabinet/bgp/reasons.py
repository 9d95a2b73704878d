"""Why a BGP session is not established, in words that say where to look.

In: a ``SessionStatus``, what was asked for, which of the kernel's counters rose lately. Out: a sentence. Pure, O(1). BIRD says what it
saw; some causes it cannot see, because the kernel drops the segments: a password that differs or that one side lacks leaves the session in
Active with no error, and TTL security on one side leaves it in OpenSent. What the kernel counts then says more; but it counts for
the whole host, so where several sessions are down that could be meant, each is told.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from tabinet.bgp.records import SessionState, SessionStatus
from tabinet.bgp.tcpcounters import Drop
from tabinet.calc.intents import PeerIntent

CAUSES = (
    ("Bad peer AS", "the peer has another AS number than it is configured with here"),
    ("Route limit exceeded", "the peer announces more routes than are accepted from it"),
    ("Hold timer expired", "the peer fell silent: its host is down, or the path to it drops packets"),
    ("BFD session down", "BFD says that the path to the peer is dead"),
    ("Link down", "the interface to the peer has no carrier"),
    ("Neighbor lost", "this host's own address on the link to the peer is gone"),
    ("Invalid next hop", "this host's own address on the link to the peer is gone"),
    ("Administrative", "somebody shut it down"),
    ("Connection refused", "nothing listens on the peer's BGP port"),
    ("Connection reset by peer", "the peer closed the connection: it may not know this host"),
    ("Connection closed", "the peer closed the connection: it may not know this host"),
    ("No route to host", "the peer does not answer on the link: its host or the link is down"),
    ("Network is unreachable", "this host has no route to the peer"),
    ("Connection timed out", "the peer does not answer: it is down, or the path to it drops packets"),
)
"""What BIRD's last error contains, and what it means. The first that fits counts."""

SILENT = {
    SessionState.ACTIVE: "connecting: if it stays so, the peer is down, a firewall drops TCP, or the passwords differ",
    SessionState.CONNECT: "connecting: if it stays so, the peer is down, a firewall drops TCP, or the passwords differ",
    SessionState.OPEN_SENT: "connected, and the peer does not answer: if it stays so, only one side uses TTL security",
    SessionState.OPEN_CONFIRM: "almost established: if it stays so, only one side uses TTL security",
    SessionState.PASSIVE: "waiting for the peer to connect",
    SessionState.DOWN: "disabled in BIRD",
    SessionState.IDLE: "waiting before it tries again",
    SessionState.CLOSED: "closing",
}
"""What a state means when BIRD names no error."""


def reason_of(session: SessionStatus) -> str:
    """Why the session is not established; empty when it is."""
    if session.state is SessionState.ESTABLISHED:
        return ""
    error = session.last_error
    if not error:
        return SILENT[session.state]
    meaning = next((words for fragment, words in CAUSES if fragment.lower() in error.lower()), "")
    return f"{meaning} ({error})" if meaning else error


def reason_with_drops(session: SessionStatus, peer: PeerIntent, drops: AbstractSet[Drop]) -> str:
    """As ``reason_of``, for a session that is down while these counters of the kernel rise."""
    cause = _cause(peer, drops) if session.state is not SessionState.ESTABLISHED else ""
    if not cause:
        return session.reason
    return f"{cause}; BIRD's last error: {session.last_error}" if session.last_error else cause


def _cause(peer: PeerIntent, drops: AbstractSet[Drop]) -> str:
    if peer.password is None and Drop.UNEXPECTED_PASSWORD in drops:
        return f"the peer uses a password, and here none is configured ({Drop.UNEXPECTED_PASSWORD.value} rises)"
    if peer.password is not None and Drop.WRONG_PASSWORD in drops:
        return f"the peer has another password than is configured here ({Drop.WRONG_PASSWORD.value} rises)"
    if peer.password is not None and Drop.NO_PASSWORD in drops:
        return f"the peer uses no password, and here one is configured ({Drop.NO_PASSWORD.value} rises)"
    if peer.ttl_hops and Drop.TOO_FAR in drops:
        far = f"the peer is more than {peer.ttl_hops} hops away, or it does not use TTL security"
        return f"{far} ({Drop.TOO_FAR.value} rises)"
    return ""

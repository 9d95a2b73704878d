"""Why a BGP session is not established, in words that say where to look.

In: a ``SessionStatus``. Out: a sentence. Pure, O(1). BIRD says what it saw; some causes show only as silence: a password that one side
lacks leaves the session in Active with no error (the kernel drops the segments, see TcpExtTCPMD5Failure in nstat(8)), and TTL security
on one side leaves it in OpenSent.
"""

from __future__ import annotations

from tabinet.bgp.records import SessionState, SessionStatus

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

"""Which of the sessions that a host shall have it can have now: passwords and neighbours are filled in, the rest is left out with a reason.

In: the ``BgpIntent``, the ``HostFacts``, the peers that BIRD refused. Out: ``Prepared``. Pure; linear in peers and facts.

A session whose password cannot be had is left out rather than run without one. An unnumbered peer that is not known yet is left out until
it is heard; its interface is announced meanwhile, because that is how the peer learns of us.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tabinet.bgp.names import password_problem
from tabinet.bgp.records import HostFacts, Origin
from tabinet.calc.intents import BgpIntent, PeerIntent
from tabinet.lib.ip import Prefix, parse_prefix

LINK_LOCAL = parse_prefix("fe80::/10")


def link_local(interface: str, facts: HostFacts) -> Prefix | None:
    """The interface's IPv6 link-local address, the smallest of several."""
    found = (entry.address for entry in facts.addresses if entry.interface == interface)
    return min((address for address in found if LINK_LOCAL.contains(address)), default=None)


class Skipped(msgspec.Struct, frozen=True, gc=False):
    """A session that the host does not have now."""

    peer: PeerIntent
    reason: str


class Prepared(msgspec.Struct, frozen=True):
    """Sessions as they can be run."""

    intent: BgpIntent
    """With the peers that can be had, each with its address."""
    passwords: dict[str, str]
    """By name of the peer."""
    links: tuple[str, ...]
    """Interfaces on which the host tells that it is a router (RFC 4861), for the unnumbered peers there."""
    skipped: tuple[Skipped, ...]


def prepare(intent: BgpIntent, facts: HostFacts, refused: Mapping[str, str] | None = None) -> Prepared:
    """What can be run now. ``refused``: why BIRD does not take a peer, by its name."""
    links = {entry.interface for entry in facts.addresses if LINK_LOCAL.contains(entry.address)}
    peers: list[PeerIntent] = []
    passwords: dict[str, str] = {}
    skipped: list[Skipped] = []
    for peer in intent.peers:
        found, password, reason = peer, "", (refused or {}).get(peer.name, "")
        if not reason:
            password, reason = _password(peer, facts)
        if not reason and peer.interface:
            found, reason = _neighbour(peer, facts, peer.interface in links)
        if reason:
            skipped.append(Skipped(peer, reason))
            continue
        peers.append(found)
        if password:
            passwords[peer.name] = password
    wanted = {peer.interface for peer in intent.peers if peer.interface in links}
    return Prepared(msgspec.structs.replace(intent, peers=tuple(peers)), passwords, tuple(sorted(wanted)), tuple(skipped))


def origin_of(peer: PeerIntent) -> Origin:
    """Why the host has the session."""
    if peer.mesh:
        return Origin.MESH
    if peer.workload is not None:
        return Origin.WORKLOAD
    return Origin.NODE if peer.for_node else Origin.GLOBAL


def _password(peer: PeerIntent, facts: HostFacts) -> tuple[str, str]:
    """The peer's password, empty for none, and what is wrong with it."""
    reference = peer.password
    if reference is None:
        return "", ""
    secret = next((secret for secret in facts.secrets if (secret.name, secret.key) == (reference.name, reference.key)), None)
    where = f"its password, {reference.name}/{reference.key} in the directory of secrets,"
    if secret is None or not secret.found:
        if reference.optional:
            return "", ""
        return "", f"{where} cannot be read: {secret.problem if secret else 'it was not looked for'}"
    problem = password_problem(secret.value)
    return ("", f"{where} cannot be used: {problem}") if problem else (secret.value, "")


def _neighbour(peer: PeerIntent, facts: HostFacts, ready: bool) -> tuple[PeerIntent, str]:
    """The peer with the address of whoever is at the other end of its link, or why there is none."""
    if not ready:
        return peer, f"interface {peer.interface} is not there, is down, or has no IPv6 link-local address"
    heard = next((heard for heard in facts.neighbours if heard.interface == peer.interface), None)
    if heard is None or heard.address is None:
        return peer, heard.problem if heard and heard.problem else f"no router was heard on {peer.interface} yet"
    return msgspec.structs.replace(peer, address=heard.address), ""

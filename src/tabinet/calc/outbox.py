"""``Outbox``: what the dataplane was told against what it should know; gives the messages that make up the difference, in order.

Nodes say what should be known (``desired`` sides of the trackers; sets and their members). ``messages`` gives, in the order that
``messages.py`` documents, what differs from what was told before. So updates coalesce by key, and pairs that cancel are
never seen. Every message is written down as told when it is given, so that taking only some of them is safe: what was not taken
comes at the next call, after additions that it may by then depend on. O(what differs). Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tabinet.calc.messages import (
    BgpIntent,
    BgpUpdate,
    ConfigUpdate,
    Endpoint,
    EndpointRemove,
    EndpointUpdate,
    HostEndpoint,
    HostEndpointRemove,
    HostEndpointUpdate,
    LocalTunnel,
    Member,
    Policy,
    PolicyRemove,
    PolicyUpdate,
    ProfileRemove,
    ProfileUpdate,
    ReadyUpdate,
    RemoteRoute,
    RemoteRouteRemove,
    RemoteRouteUpdate,
    SetDelta,
    SetKind,
    SetRemove,
    SetUpdate,
    Tunnel,
    TunnelPeer,
    TunnelPeerRemove,
    TunnelPeerUpdate,
    TunnelRemove,
    TunnelUpdate,
    Update,
)
from tabinet.lib.delta import DeltaTracker
from tabinet.lib.ip import Prefix
from tabinet.model.keys import ResourceKey


class Outbox:
    """Everything that is to be told, with what was told."""

    __slots__ = (
        "_changes",
        "_gone",
        "_new",
        "_told",
        "_trackers",
        "bgp",
        "config",
        "endpoints",
        "host_endpoints",
        "policies",
        "profiles",
        "ready",
        "remote_routes",
        "tunnel_peers",
        "tunnels",
    )

    def __init__(self) -> None:
        self.policies: DeltaTracker[ResourceKey, Policy] = DeltaTracker()
        self.profiles: DeltaTracker[str, Policy] = DeltaTracker()
        self.endpoints: DeltaTracker[ResourceKey, tuple[int, Endpoint]] = DeltaTracker()
        """With the revision of the endpoint's resource."""
        self.host_endpoints: DeltaTracker[ResourceKey, tuple[int, HostEndpoint]] = DeltaTracker()
        """Likewise."""
        self.bgp: DeltaTracker[str, BgpIntent | None] = DeltaTracker()
        self.config: DeltaTracker[str, dict[str, object]] = DeltaTracker()
        self.ready: DeltaTracker[None, bool] = DeltaTracker()
        self.tunnels: DeltaTracker[tuple[str, Tunnel], LocalTunnel] = DeltaTracker()
        """By host."""
        self.tunnel_peers: DeltaTracker[tuple[str, Tunnel, str], TunnelPeer] = DeltaTracker()
        """By host, and name of the other host."""
        self.remote_routes: DeltaTracker[tuple[str, Prefix], RemoteRoute] = DeltaTracker()
        """By host and destination."""
        self._trackers = (
            *(self.policies, self.profiles, self.endpoints, self.host_endpoints, self.bgp, self.config, self.ready),
            *(self.tunnels, self.tunnel_peers, self.remote_routes),
        )
        self._new: dict[str, tuple[SetKind, Mapping[Member, int]]] = {}
        """Sets to be told whole, with their members as they stand."""
        self._changes: dict[str, tuple[set[Member], set[Member]]] = {}
        """Of sets told before: members that came, and members that went."""
        self._gone: dict[str, None] = {}
        """Sets told before that are to be removed."""
        self._told: set[str] = set()
        """Sets that the receiver has."""

    # --- sets -------------------------------------------------------------------------------------------------------

    def on_set_activated(self, set_id: str, kind: SetKind, members: Mapping[Member, int]) -> None:
        """The set shall be known, with those members that ``members`` holds when the message is made."""
        self._new[set_id] = (kind, members)
        self._gone.pop(set_id, None)

    def on_set_deactivated(self, set_id: str) -> None:
        """The set shall not be known."""
        self._new.pop(set_id, None)
        self._changes.pop(set_id, None)
        if set_id in self._told:
            self._gone[set_id] = None

    def on_member_added(self, set_id: str, member: Member) -> None:
        if set_id not in self._new:
            came, went = self._changes_of(set_id)
            _move(member, went, came)

    def on_member_removed(self, set_id: str, member: Member) -> None:
        if set_id not in self._new:
            came, went = self._changes_of(set_id)
            _move(member, came, went)

    def _changes_of(self, set_id: str) -> tuple[set[Member], set[Member]]:
        changes = self._changes.get(set_id)
        if changes is None:
            changes = self._changes[set_id] = (set(), set())
        return changes

    # --- messages ---------------------------------------------------------------------------------------------------

    def messages(self) -> Iterator[Update]:
        """What is still to be told, in order. Change nothing here while it runs; stop whenever you like."""
        if self._new or self._changes:
            yield from self._set_updates()
        if self._gone or not all(tracker.in_sync for tracker in self._trackers):
            yield from self._updates()
            yield from self._removals()
            yield from self._tunnels()
            yield from self._rest()

    def _set_updates(self) -> Iterator[Update]:
        for set_id, (kind, members) in list(self._new.items()):
            del self._new[set_id]
            self._told.add(set_id)
            # A set takes the hashes over from a plain dictionary; of anything else it asks each member again.
            yield SetUpdate(set_id, kind, frozenset(dict(members)))
        for set_id, (came, went) in list(self._changes.items()):
            del self._changes[set_id]
            if came or went:
                yield SetDelta(set_id, frozenset(came), frozenset(went))

    def _updates(self) -> Iterator[Update]:
        for key, policy in self.policies.to_set():
            self.policies.set_actual(key, policy)
            yield PolicyUpdate(key, policy)
        for name, policy in self.profiles.to_set():
            self.profiles.set_actual(name, policy)
            yield ProfileUpdate(name, policy)
        for key, (revision, endpoint) in self.endpoints.to_set():
            self.endpoints.set_actual(key, (revision, endpoint))
            yield EndpointUpdate(key, revision, endpoint)
        for key, (revision, host_endpoint) in self.host_endpoints.to_set():
            self.host_endpoints.set_actual(key, (revision, host_endpoint))
            yield HostEndpointUpdate(key, revision, host_endpoint)

    def _removals(self) -> Iterator[Update]:
        for key, _ in self.host_endpoints.to_delete():
            self.host_endpoints.drop_actual(key)
            yield HostEndpointRemove(key)
        for key, _ in self.endpoints.to_delete():
            self.endpoints.drop_actual(key)
            yield EndpointRemove(key)
        for name, _ in self.profiles.to_delete():
            self.profiles.drop_actual(name)
            yield ProfileRemove(name)
        for key, _ in self.policies.to_delete():
            self.policies.drop_actual(key)
            yield PolicyRemove(key)
        for set_id in list(self._gone):
            del self._gone[set_id]
            self._told.discard(set_id)
            yield SetRemove(set_id)

    def _tunnels(self) -> Iterator[Update]:
        for (host, tunnel), local in self.tunnels.to_set():
            self.tunnels.set_actual((host, tunnel), local)
            yield TunnelUpdate(host, tunnel, local)
        for (host, tunnel, peer), end in self.tunnel_peers.to_set():
            self.tunnel_peers.set_actual((host, tunnel, peer), end)
            yield TunnelPeerUpdate(host, tunnel, peer, end)
        for (host, destination), route in self.remote_routes.to_set():
            self.remote_routes.set_actual((host, destination), route)
            yield RemoteRouteUpdate(host, destination, route)
        for (host, destination), _ in self.remote_routes.to_delete():
            self.remote_routes.drop_actual((host, destination))
            yield RemoteRouteRemove(host, destination)
        for (host, tunnel, peer), _ in self.tunnel_peers.to_delete():
            self.tunnel_peers.drop_actual((host, tunnel, peer))
            yield TunnelPeerRemove(host, tunnel, peer)
        for (host, tunnel), _ in self.tunnels.to_delete():
            self.tunnels.drop_actual((host, tunnel))
            yield TunnelRemove(host, tunnel)

    def _rest(self) -> Iterator[Update]:
        for host, intent in self.bgp.to_set():
            self.bgp.set_actual(host, intent)
            yield BgpUpdate(host, intent)
        for host, parameters in self.config.to_set():
            self.config.set_actual(host, parameters)
            yield ConfigUpdate(host, parameters)
        for _, ready in self.ready.to_set():
            self.ready.set_actual(None, ready)
            yield ReadyUpdate(ready)


def _move(member: Member, opposite: set[Member], into: set[Member]) -> None:
    """The change is noted; after the opposite one it is as if nothing had been."""
    if member in opposite:
        opposite.discard(member)
    else:
        into.add(member)

"""``State``, all that was told, and ``Replica``, which takes messages one by one and checks that they make sense.

What a dataplane would know after the messages. Checks what ``messages.py`` promises: nothing refers to what was not told, nothing that
is referred to is removed, deltas fit. For tests, fakes, and tools that look at the calculation's result.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tabinet.calc.messages import (
    ALL_HOSTS,
    ALL_POOLS,
    NAT_POOLS,
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
from tabinet.lib.ip import Prefix
from tabinet.model.keys import ResourceKey


@dataclass(slots=True)
class State:
    """Everything that a dataplane knows."""

    sets: dict[str, tuple[SetKind, frozenset[Member]]] = field(default_factory=dict)
    policies: dict[ResourceKey, Policy] = field(default_factory=dict)
    profiles: dict[str, Policy] = field(default_factory=dict)
    endpoints: dict[ResourceKey, tuple[int, Endpoint]] = field(default_factory=dict)
    """With the revision of the endpoint's resource."""
    host_endpoints: dict[ResourceKey, tuple[int, HostEndpoint]] = field(default_factory=dict)
    """Likewise; of an automatic one the revision of its Node."""
    bgp: dict[str, BgpIntent | None] = field(default_factory=dict)
    tunnels: dict[tuple[str, Tunnel], LocalTunnel] = field(default_factory=dict)
    """By host."""
    tunnel_peers: dict[tuple[str, Tunnel, str], TunnelPeer] = field(default_factory=dict)
    """By host, and name of the other host."""
    remote_routes: dict[tuple[str, Prefix], RemoteRoute] = field(default_factory=dict)
    """By host and destination."""
    config: dict[str, dict[str, object]] = field(default_factory=dict)
    ready: bool | None = None


RESERVED_SETS = frozenset((ALL_POOLS, NAT_POOLS, ALL_HOSTS))
"""Sets that are told at the beginning and stay."""


class BrokenPromise(AssertionError):
    """A message that ``messages.py`` says cannot come: a bug in whoever made it."""


@dataclass(slots=True)
class Replica:
    """Knows what it was told."""

    state: State = field(default_factory=State)

    def apply(self, update: Update) -> None:
        """The state includes the message.

        Raises:
            BrokenPromise: the message does not fit what was told before.
        """
        state = self.state
        match update:
            case SetUpdate() | SetDelta() | SetRemove():
                self._apply_set(update)
            case PolicyUpdate(key, policy):
                self._require_sets(str(key), policy)
                state.policies[key] = policy
            case PolicyRemove(key):
                for name, (_, endpoint) in state.endpoints.items():
                    _require(key not in policies_of(endpoint), f"{key} removed while {name} names it")
                for name, (_, host_endpoint) in state.host_endpoints.items():
                    _require(key not in policies_of(host_endpoint), f"{key} removed while {name} names it")
                _require(state.policies.pop(key, None) is not None, f"{key} removed, but never told")
            case ProfileUpdate(name, policy):
                self._require_sets(name, policy)
                state.profiles[name] = policy
            case ProfileRemove(name):
                _require(state.profiles.pop(name, None) is not None, f"profile {name} removed, but never told")
            case EndpointUpdate() | EndpointRemove() | HostEndpointUpdate() | HostEndpointRemove():
                self._apply_endpoint(update)
            case BgpUpdate(host, intent):
                state.bgp[host] = intent
            case ConfigUpdate(host, parameters):
                state.config[host] = parameters
            case ReadyUpdate(ready):
                state.ready = ready
            case _:
                self._apply_tunnel(update)

    def _apply_tunnel(self, update: Update) -> None:
        state = self.state
        match update:
            case TunnelUpdate(host, tunnel, local):
                state.tunnels[host, tunnel] = local
            case TunnelRemove(host, tunnel):
                _require(state.tunnels.pop((host, tunnel), None) is not None, f"{tunnel} removed, but never told")
                used = [key for key, route in state.remote_routes.items() if key[0] == host and route.tunnel is tunnel]
                _require(not used, f"{tunnel} removed while {used} go through it")
            case TunnelPeerUpdate(host, tunnel, peer, end):
                _require((host, tunnel) in state.tunnels, f"{peer} is at the end of {tunnel}, which was not told")
                state.tunnel_peers[host, tunnel, peer] = end
            case TunnelPeerRemove(host, tunnel, peer):
                _require(state.tunnel_peers.pop((host, tunnel, peer), None) is not None, f"{peer} removed, but never told")
            case RemoteRouteUpdate(host, destination, route):
                _require((host, route.tunnel) in state.tunnels, f"{destination} goes through {route.tunnel}, which was not told")
                state.remote_routes[host, destination] = route
            case RemoteRouteRemove(host, destination):
                _require(state.remote_routes.pop((host, destination), None) is not None, f"{destination} removed, but never told")
            case _:
                raise BrokenPromise(f"unknown message {update}")

    def _apply_endpoint(self, update: EndpointUpdate | EndpointRemove | HostEndpointUpdate | HostEndpointRemove) -> None:
        state = self.state
        match update:
            case EndpointUpdate(key, revision, endpoint):
                self._require_policies(key, endpoint)
                _require(len({nat.external for nat in endpoint.nats}) == len(endpoint.nats), f"{key} has an external address twice")
                _require(all(nat.internal in endpoint.nets for nat in endpoint.nats), f"{key} translates to an address that it has not")
                state.endpoints[key] = (revision, endpoint)
            case EndpointRemove(key):
                _require(state.endpoints.pop(key, None) is not None, f"{key} removed, but never told")
            case HostEndpointUpdate(key, revision, host_endpoint):
                self._require_policies(key, host_endpoint)
                state.host_endpoints[key] = (revision, host_endpoint)
            case HostEndpointRemove(key):
                _require(state.host_endpoints.pop(key, None) is not None, f"{key} removed, but never told")

    def _require_policies(self, key: ResourceKey, endpoint: Endpoint | HostEndpoint) -> None:
        for policy_key in policies_of(endpoint):
            _require(policy_key in self.state.policies, f"{key} names {policy_key}, which was not told")

    def _apply_set(self, update: SetUpdate | SetDelta | SetRemove) -> None:
        sets = self.state.sets
        match update:
            case SetUpdate(set_id, kind, members):
                sets[set_id] = (kind, members)
            case SetDelta(set_id, added, removed):
                _require(set_id in sets, f"delta of set {set_id}, which was not told")
                kind, members = sets[set_id]
                _require(bool(added or removed), f"empty delta of set {set_id}")
                _require(added.isdisjoint(members), f"set {set_id} has some of what is added")
                _require(removed <= members, f"set {set_id} lacks some of what is removed")
                sets[set_id] = (kind, (members | added) - removed)
            case SetRemove(set_id):
                _require(set_id not in RESERVED_SETS, f"reserved set {set_id} removed")
                for name, policy in [*self.state.policies.items(), *self.state.profiles.items()]:
                    _require(set_id not in set_kinds(policy), f"set {set_id} removed while {name} names it")
                _require(sets.pop(set_id, None) is not None, f"set {set_id} removed, but never told")

    def _require_sets(self, name: str, policy: Policy) -> None:
        for set_id, kind in set_kinds(policy).items():
            _require(set_id in self.state.sets, f"{name} names set {set_id}, which was not told")
            _require(self.state.sets[set_id][0] is kind, f"{name} takes set {set_id} for one of {kind.value}")


def set_kinds(policy: Policy) -> dict[str, SetKind]:
    """The sets that a policy or profile names."""
    kinds: dict[str, SetKind] = {}
    for rule in (*policy.ingress, *policy.egress):
        for side in (rule.source, rule.destination):
            kinds |= dict.fromkeys((*side.sets, *side.not_sets), SetKind.NETS)
            kinds |= dict.fromkeys((*side.port_sets, *side.not_port_sets), SetKind.PORTS)
    return kinds


def policies_of(endpoint: Endpoint | HostEndpoint) -> set[ResourceKey]:
    """The policies that an endpoint names."""
    parts = [endpoint.ingress, endpoint.egress]
    if isinstance(endpoint, HostEndpoint):
        parts += [endpoint.forward_ingress, endpoint.forward_egress, endpoint.pre_dnat]
        parts += [endpoint.untracked_ingress, endpoint.untracked_egress]
    return {key for tiers in parts for tier in tiers for key in tier.policies}


def _require(promise: bool, broken: str) -> None:
    if not promise:
        raise BrokenPromise(broken)

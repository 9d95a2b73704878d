"""What the calculation must come to, said as plainly as possible: everything from scratch, from a dictionary of resources.

This is the executable specification of ``Graph``: whatever happened before, the sum of its messages equals ``recompute`` of the
current resources. No index, no memory, no order of events; every selector is judged against the labels of every endpoint by the
plain interpreter. Shared with the graph are only the pure translations of single resources (rules, labels, BGP intent). O(everything).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from tabinet.calc.autohosts import auto_host_endpoints, wanted
from tabinet.calc.bgp import bgp_intent
from tabinet.calc.bgp_nodes import RoutingFacts
from tabinet.calc.configuration import is_ready, overlay
from tabinet.calc.endpoints import (
    build_endpoint,
    build_host_endpoint,
    endpoint_labels,
    network_set_origin,
    network_set_profiles,
    programmable,
    readable,
    readable_nats,
    shared_addresses,
)
from tabinet.calc.holders import endpoint_of
from tabinet.calc.messages import ALL_HOSTS, ALL_POOLS, NAT_POOLS, Member, Migration, Nat, PortMember, SetKind, TierPolicies
from tabinet.calc.moves import migration_of, read_move
from tabinet.calc.naive_remote import remote_routes, tunnels
from tabinet.calc.nodefacts import node_facts
from tabinet.calc.policyfacts import BUILT_IN_TIERS, HOSTS, WORKLOADS, PolicyFacts, StagedPolicy, arrange, describe_policy, translate_policy
from tabinet.calc.ports import port_needs
from tabinet.calc.profiles import BUILT_IN_PROFILES, profile_key, translate_profile
from tabinet.calc.replica import State, policies_of
from tabinet.calc.reserved import node_memberships, pool_memberships
from tabinet.calc.routing import confirmed
from tabinet.calc.scopes import NAMESPACE
from tabinet.calc.specs import SetSpec
from tabinet.calc.translate import Translation
from tabinet.lib.ip import Prefix
from tabinet.model.arrivals import Arrival
from tabinet.model.holders import Holder
from tabinet.model.keys import AffinityKey, ArrivalKey, HolderKey, Key, ResourceKey
from tabinet.model.protocols import parse_protocol
from tabinet.model.resources import (
    BGPConfiguration,
    BGPFilter,
    BGPPeer,
    ClusterInformation,
    EndpointPort,
    FelixConfiguration,
    GlobalNetworkPolicy,
    GlobalNetworkSet,
    HostEndpoint,
    HostEndpointPort,
    IPPool,
    KubeControllersConfiguration,
    LiveMigration,
    NetworkPolicy,
    NetworkSet,
    Node,
    Profile,
    ProfileSpec,
    StagedGlobalNetworkPolicy,
    StagedKubernetesNetworkPolicy,
    StagedNetworkPolicy,
    Tier,
    WorkloadEndpoint,
)
from tabinet.selector import matches

Resources = Mapping[Key, tuple[object, int]]
"""The current value of each key, with its revision."""


def recompute(resources: Resources, hosts: frozenset[str]) -> State:
    """All that the dataplanes and BGP daemons of these hosts shall know."""
    state = State()
    resources = _with_automatic(resources)
    policies = _policies(resources)
    tiers = dict(BUILT_IN_TIERS) | {key.name: value.spec for key, value in _of(resources, Tier)}
    translations: dict[ResourceKey, Translation] = {}

    def selecting(key: ResourceKey) -> list[PolicyFacts]:
        labels = _effective(resources, *_own(key, resources[key][0]))
        return [facts for facts, _ in policies.values() if facts.scope is not None and matches(facts.scope, labels)]

    def use(parts: dict[str, tuple[TierPolicies, ...]], profiles: tuple[str, ...]) -> None:
        for used in {name for part in parts.values() for tier in part for name in tier.policies}:
            translations[used] = translate_policy(*policies[used])
            state.policies[used] = translations[used].policy
        for name in profiles:
            profile = _profile(resources, name)
            if profile is not None:
                translations[profile_key(name)] = translate_profile(name, profile)
                state.profiles[name] = translations[profile_key(name)].policy

    taken: dict[str, set[Prefix]] = {host: set() for host in hosts}
    for key, (revision, endpoint) in _endpoints(resources, hosts).items():
        parts = arrange(selecting(key), tiers, WORKLOADS)
        use(parts, endpoint.spec.profiles)
        needs = port_needs(endpoint.metadata.annotations, str(key))
        nats, addresses_of = _own_nats(endpoint, taken[endpoint.spec.node]), _addresses_of(resources)
        migration = _migration(resources, key)
        own = (None, key, migration.other_end if migration is not None else None)
        yields = tuple(net for net in shared_addresses(endpoint.spec) if _holder(resources, net) not in own)
        state.endpoints[key] = (revision, build_endpoint(endpoint.spec, parts, nats, needs, migration, yields, addresses_of))
    for key, (revision, host_endpoint) in _host_endpoints(resources, hosts).items():
        parts = arrange(selecting(key), tiers, HOSTS)
        use(parts, host_endpoint.spec.profiles)
        state.host_endpoints[key] = (revision, build_host_endpoint(host_endpoint.spec, parts))
    for translation in translations.values():
        for set_id, spec in translation.specs.items():
            state.sets[set_id] = (spec.kind, frozenset(_members(resources, spec)))
    _add_reserved_sets(state, resources)
    _add_routing(state, resources, hosts)
    return state


def staged_endpoints(resources: Resources, hosts: frozenset[str]) -> dict[ResourceKey, set[ResourceKey]]:
    """By staged policy: the programmed endpoints that it would police, or police no more if it shall delete."""
    state = recompute(resources, hosts)
    tiers = dict(BUILT_IN_TIERS) | {key.name: value.spec for key, value in _of(resources, Tier)}
    resources = _with_automatic(resources)
    programmed = {key: (WORKLOADS, policies_of(each)) for key, (_, each) in state.endpoints.items()}
    programmed |= {key: (HOSTS, policies_of(each)) for key, (_, each) in state.host_endpoints.items()}
    found: dict[ResourceKey, set[ResourceKey]] = {}
    for key, value in _staged(resources):
        facts = describe_policy(key, value)
        concerned = ResourceKey(key.kind.removeprefix("Staged"), key.name, key.namespace)
        deletes = value.spec.staged_action == "Delete"
        found[key] = set()
        for endpoint, (parts, enforced) in programmed.items():
            labels = _effective(resources, *_own(endpoint, resources[endpoint][0]))
            selects = facts.tier in tiers and facts.scope is not None and matches(facts.scope, labels)
            if concerned in enforced if deletes else selects and any(belongs(facts) for belongs in parts.values()):
                found[key].add(endpoint)
    return found


def _migration(resources: Resources, endpoint: ResourceKey) -> Migration | None:
    read = [read_move(key, value) for key, value in _of(resources, LiveMigration)]
    moves = [move for move in read if move is not None and endpoint in (move.source, move.target)]
    if not moves:
        return None
    move = min(moves, key=lambda move: (move.target != endpoint, move.key))
    key = move.key
    arrival, _ = resources.get(ArrivalKey(key.namespace, key.name), (None, 0))
    return migration_of(endpoint, move, arrival if isinstance(arrival, Arrival) else None, _addresses_of(resources))


def _addresses_of(resources: Resources) -> Callable[[str], tuple[Prefix, ...]]:
    nodes = {key.name: node_facts(key.name, node) for key, node in _of(resources, Node)}
    return lambda host: tuple(sorted(nodes[host].addresses.values())) if host in nodes else ()


def _holder(resources: Resources, address: Prefix) -> ResourceKey | None:
    """Who holds an address that several endpoints may have; None: nobody is known to."""
    record, _ = resources.get(HolderKey(address), (None, 0))
    if not isinstance(record, Holder):
        return None
    key = endpoint_of(record)
    endpoint, _ = resources.get(key, (None, 0))
    has_it = isinstance(endpoint, WorkloadEndpoint) and address in readable(endpoint.spec.ip_networks)
    migration = _migration(resources, key)
    return key if has_it and (migration is None or not migration.is_away) else None


def _staged(resources: Resources) -> list[tuple[ResourceKey, StagedPolicy]]:
    found: list[tuple[ResourceKey, StagedPolicy]] = []
    found.extend(_of(resources, StagedNetworkPolicy))
    found.extend(_of(resources, StagedGlobalNetworkPolicy))
    found.extend(_of(resources, StagedKubernetesNetworkPolicy))
    return found


T = TypeVar("T")


def _of(resources: Resources, kind: type[T]) -> list[tuple[ResourceKey, T]]:
    """The resources of a kind."""
    return [(key, value) for key, (value, _) in resources.items() if isinstance(key, ResourceKey) and isinstance(value, kind)]


def _policies(resources: Resources) -> dict[ResourceKey, tuple[PolicyFacts, NetworkPolicy | GlobalNetworkPolicy]]:
    """The policies that are enforced; what is only staged does not count."""
    found: list[tuple[ResourceKey, NetworkPolicy | GlobalNetworkPolicy]] = []
    found.extend(_of(resources, NetworkPolicy))
    found.extend(_of(resources, GlobalNetworkPolicy))
    return {key: (describe_policy(key, value), value) for key, value in found}


def _with_automatic(resources: Resources) -> Resources:
    """The resources, and the automatic host endpoints whose names no resource has."""
    configuration, _ = resources.get(ResourceKey("KubeControllersConfiguration", "default"), (None, 0))
    asked = wanted(configuration if isinstance(configuration, KubeControllersConfiguration) else None)
    automatic: dict[Key, tuple[object, int]] = {}
    for key, node in sorted(_of(resources, Node), key=lambda item: item[0]):
        for name, endpoint in auto_host_endpoints(asked, key.name, node).items():
            automatic.setdefault(ResourceKey("HostEndpoint", name), (endpoint, resources[key][1]))
    return {**automatic, **resources}


def _endpoints(resources: Resources, hosts: frozenset[str]) -> dict[ResourceKey, tuple[int, WorkloadEndpoint]]:
    """The endpoints to be programmed, by key: of those that claim one interface, the one with the smallest key."""
    found: dict[ResourceKey, tuple[int, WorkloadEndpoint]] = {}
    taken: set[tuple[str, str]] = set()
    for key, value in sorted(_of(resources, WorkloadEndpoint), key=lambda item: item[0]):
        place = (value.spec.node, value.spec.interface_name)
        if value.spec.node in hosts and programmable(value.spec) and place not in taken:
            taken.add(place)
            found[key] = (resources[key][1], value)
    return found


def _host_endpoints(resources: Resources, hosts: frozenset[str]) -> dict[ResourceKey, tuple[int, HostEndpoint]]:
    """Likewise; those that only name addresses take no interface from others."""
    found: dict[ResourceKey, tuple[int, HostEndpoint]] = {}
    taken: set[tuple[str, str]] = set()
    for key, value in sorted(_of(resources, HostEndpoint), key=lambda item: item[0]):
        place = (value.spec.node, value.spec.interface_name)
        if value.spec.node in hosts and programmable(value.spec) and place not in taken:
            if value.spec.interface_name:
                taken.add(place)
            found[key] = (resources[key][1], value)
    return found


def _own_nats(endpoint: WorkloadEndpoint, taken: set[Prefix]) -> list[Nat]:
    """The floating addresses that no endpoint with a smaller key has on the host."""
    own = [nat for address, nat in readable_nats(endpoint.spec).items() if address not in taken]
    taken.update(nat.external for nat in own)
    return own


def _profile(resources: Resources, name: str) -> ProfileSpec | None:
    value, _ = resources.get(ResourceKey("Profile", name), (None, 0))
    return value.spec if isinstance(value, Profile) else BUILT_IN_PROFILES.get(name)


def _own(key: ResourceKey, value: object) -> tuple[dict[str, str], tuple[str, ...]]:
    """Own labels and profiles of an endpoint or network set."""
    if isinstance(value, WorkloadEndpoint):
        return endpoint_labels(key, value), value.spec.profiles
    if isinstance(value, HostEndpoint):
        return value.metadata.labels, value.spec.profiles
    assert isinstance(value, NetworkSet | GlobalNetworkSet)
    namespace, _, _ = network_set_origin(key)
    return value.metadata.labels | ({NAMESPACE: namespace} if namespace else {}), network_set_profiles(key)


def _effective(resources: Resources, own: dict[str, str], profiles: tuple[str, ...]) -> dict[str, str]:
    labels = dict(own)
    for name in profiles:
        spec = _profile(resources, name)
        for label, value in (spec.labels_to_apply if spec else {}).items():
            labels.setdefault(label, value)
    return labels


def _members(resources: Resources, spec: SetSpec) -> Iterator[Member]:
    for key, (value, _) in resources.items():
        if not isinstance(key, ResourceKey) or not isinstance(value, WorkloadEndpoint | HostEndpoint | NetworkSet | GlobalNetworkSet):
            continue
        if not matches(spec.selector.root, _effective(resources, *_own(key, value))):
            continue
        for prefix in readable(_nets(value)):
            if spec.kind is SetKind.NETS:
                yield prefix
            elif isinstance(value, WorkloadEndpoint | HostEndpoint):
                yield from (PortMember(prefix, spec.protocol, port.port) for port in value.spec.ports if _named(port, spec))


def _nets(value: WorkloadEndpoint | HostEndpoint | NetworkSet | GlobalNetworkSet) -> tuple[str, ...]:
    match value:
        case WorkloadEndpoint():
            return value.spec.ip_networks
        case HostEndpoint():
            return value.spec.expected_ips
        case _:
            return value.spec.nets


def _named(port: EndpointPort | HostEndpointPort, spec: SetSpec) -> bool:
    try:
        return port.name == spec.port_name and parse_protocol(port.protocol) == spec.protocol
    except ValueError:
        return False


def _add_reserved_sets(state: State, resources: Resources) -> None:
    members: dict[str, set[Member]] = {ALL_POOLS: set(), NAT_POOLS: set(), ALL_HOSTS: set()}
    brought = [pool_memberships(pool) for _, pool in _of(resources, IPPool)] + [node_memberships(node) for _, node in _of(resources, Node)]
    for memberships in brought:
        for set_id, prefixes in memberships.items():
            members[set_id] |= prefixes
    for set_id, reserved in members.items():
        state.sets[set_id] = (SetKind.NETS, frozenset(reserved))


def _add_routing(state: State, resources: Resources, hosts: frozenset[str]) -> None:
    facts = RoutingFacts(
        nodes={key.name: value for key, value in _of(resources, Node)},
        configurations={key.name: value.spec for key, value in _of(resources, BGPConfiguration)},
        peers={key.name: value for key, value in _of(resources, BGPPeer)},
        filters={key.name: value.spec for key, value in _of(resources, BGPFilter)},
        pools={key.name: value.spec for key, value in _of(resources, IPPool)},
        profiles={key.name: value.spec.labels_to_apply for key, value in _of(resources, Profile)},
    )
    for key, (value, _) in resources.items():
        if isinstance(key, AffinityKey) and confirmed(value):
            facts.blocks.setdefault(key.host, set()).add(key.block)
    for name, endpoint in _of(resources, WorkloadEndpoint):
        facts.endpoints.setdefault(endpoint.spec.node, {})[name] = endpoint
    configurations = {key.name: value.spec for key, value in _of(resources, FelixConfiguration)}
    pools = {key.name: value for key, value in _of(resources, IPPool)}
    has = [
        (endpoint.spec.node, net)
        for key, endpoint in _of(resources, WorkloadEndpoint)
        if (found := _migration(resources, key)) is None or not found.is_away
        for net in readable(endpoint.spec.ip_networks)
        if net not in readable(endpoint.spec.allowed_ips) or _holder(resources, net) in (None, key)
    ]
    for host in hosts:
        own, peers = tunnels(host, facts.nodes, pools)
        state.tunnels |= {(host, tunnel): local for tunnel, local in own.items()}
        state.tunnel_peers |= {(host, tunnel, name): end for (tunnel, name), end in peers.items()}
        routes = remote_routes(host, facts.nodes, pools, facts.blocks, has)
        state.remote_routes |= {(host, destination): route for destination, route in routes.items()}
        state.bgp[host], _ = bgp_intent(host, facts)
        state.config[host] = overlay(configurations, host)
    information, _ = resources.get(ResourceKey("ClusterInformation", "default"), (None, 0))
    state.ready = is_ready(information if isinstance(information, ClusterInformation) else None)
